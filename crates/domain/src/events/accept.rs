//! From the text of one event, as a client sent it, to a [`NewEvent`] or a [`Refusal`] that names field and reason.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::{EventType, NewEvent, Severity, UNKNOWN_AGENT, facts_of, is_failed_tool_result, payloads};
use crate::environments;
use crate::ids::UlidSequence;
use crate::json::{self, Canonical, JsonError, Kind, Member, Value};
use crate::ledger::Reason;
use crate::limits;
use crate::spans::{ARRIVAL_ID_PREFIX, LOG_RECORD_ID_PREFIX};
use crate::time;

/// Metadata keys that only the server may set: they say that an agent's identity was verified.
const RESERVED_METADATA: [&str; 3] = ["verifiedAgentId", "verifiedAgentMethod", "verifiedOnBehalfOf"];

/// Why one event was not accepted. Neighbours are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field, as a path from the event: `payload.toolName`.
    pub field: String,
    /// The reason's stable name.
    pub reason: Reason,
    /// One sentence for a person.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }

    fn unstorable(field: &str, error: &JsonError) -> Self {
        Self::new(field, Reason::UnstorableJson, format!("{field}: {error}"))
    }

    /// A member is missing. One whose name differs in its spelling only is what the client meant.
    pub(super) fn missing(field: String, name: &str, members: &[Member<'_>], message: String) -> Self {
        let meant = members.iter().find(|member| member.key != name && is_spelled_alike(&member.key, name));
        let message = match meant {
            Some(Member { key, .. }) => format!("{message} (found `{key}`; write `{name}`)"),
            None => message,
        };
        Self::new(field, Reason::MissingField, message)
    }
}

/// What reading the events of one request needs besides their text.
#[derive(Debug)]
pub struct AcceptContext<'a> {
    /// The server's clock, in microseconds UTC.
    pub now_us: i64,
    /// Ids for the events that bring none.
    pub ids: &'a mut UlidSequence,
    /// Given when the request has an `Idempotency-Key`.
    pub idempotency: Option<&'a Idempotency>,
}

/// An `Idempotency-Key`: it gives each event of the request that brings no id one that a repeat gets again.
#[derive(Debug, Clone)]
pub struct Idempotency {
    seed: [u8; 32],
}

impl Idempotency {
    /// `scope` keeps the keys of different API keys apart.
    pub fn new(scope: &str, key: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(scope.as_bytes());
        hasher.update([0]);
        hasher.update(key.as_bytes());
        Self { seed: hasher.finalize().into() }
    }

    fn id_of(&self, index: usize) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.seed);
        hasher.update(index.to_le_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        format!("idem_{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

/// The members of an event that the protocol knows; others are dropped, as the published server does.
#[derive(Default)]
struct Envelope<'a> {
    id: Option<Value<'a>>,
    timestamp: Option<Value<'a>>,
    session_id: Option<Value<'a>>,
    agent_id: Option<Value<'a>>,
    event_type: Option<Value<'a>>,
    severity: Option<Value<'a>>,
    payload: Option<Value<'a>>,
    metadata: Option<Value<'a>>,
    environment: Option<Value<'a>>,
}

impl<'a> Envelope<'a> {
    fn read(members: &[Member<'a>]) -> Self {
        let mut envelope = Self::default();
        for Member { key, value } in members {
            let slot = match key.as_ref() {
                "id" => &mut envelope.id,
                "timestamp" => &mut envelope.timestamp,
                "sessionId" => &mut envelope.session_id,
                "agentId" => &mut envelope.agent_id,
                "eventType" => &mut envelope.event_type,
                "severity" => &mut envelope.severity,
                "payload" => &mut envelope.payload,
                "metadata" => &mut envelope.metadata,
                "environment" => &mut envelope.environment,
                _ => continue,
            };
            if !value.is_null() {
                *slot = Some(*value);
            }
        }
        envelope
    }
}

/// Reads one event. `index` is its place in the request; `raw` is valid JSON of any kind.
///
/// An event with a client's id carries a digest of everything the client sent, so that a repeat (same id, same
/// content) can be told from a clash (same id, other content) even when the server supplied the timestamp.
pub fn accept(raw: &str, index: usize, context: &mut AcceptContext<'_>) -> Result<NewEvent, Refusal> {
    let event = Value::parse(raw).map_err(|error| Refusal::unstorable("event", &error))?;
    if event.kind() != Kind::Object {
        return Err(Refusal::new("event", Reason::InvalidField, "an event must be a JSON object"));
    }
    let members = event.members().map_err(|error| Refusal::unstorable("event", &error))?;
    let envelope = Envelope::read(&members);

    let missing =
        |name: &str, message: &str| Refusal::missing(name.to_owned(), name, &members, message.to_owned());
    let session_id = optional_id(envelope.session_id, "sessionId")?
        .ok_or_else(|| missing("sessionId", "sessionId is required and must not be empty"))?;
    let agent_id = match optional_id(envelope.agent_id, "agentId")? {
        Some(id) => id,
        // The published MCP server sends an empty `agentId` for sessions that it does not know.
        None if envelope.agent_id.is_some() => UNKNOWN_AGENT.to_owned(),
        None => return Err(missing("agentId", "agentId is required")),
    };
    let event_type = event_type(
        optional_text(envelope.event_type, "eventType")?
            .ok_or_else(|| missing("eventType", "eventType is required"))?
            .as_ref(),
    )?;
    let severity = severity(envelope.severity)?;
    let sent_timestamp = optional_text(envelope.timestamp, "timestamp")?;
    let (timestamp, ts_us) = timestamp(sent_timestamp.as_deref(), context.now_us)?;
    let payload = payload(envelope.payload.ok_or_else(|| missing("payload", "payload is required"))?)?;
    let members = payload.value().members().map_err(|error| Refusal::unstorable("payload", &error))?;
    payloads::check(event_type, &members)?;
    let severity =
        if reports_a_failure(event_type, &members) { severity.max(Severity::Error) } else { severity };
    let (metadata, wide_metadata) = metadata(envelope.metadata)?;
    let facts = facts_of(event_type, &members, &metadata);
    let sent_environment = environment(envelope.environment)?;
    drop(members);
    // What was read above is read of the whole payload, whatever of it is too large to be kept.
    let (payload, wide_payload) = bounded(payload, "payload", limits::MAX_PAYLOAD_BYTES)?;

    let client_id = match (own_id(envelope.id)?, context.idempotency) {
        (Some(id), _) => Some(id),
        (None, Some(idempotency)) => Some(idempotency.id_of(index)),
        (None, None) => None,
    };
    let content_digest = client_id.as_ref().map(|_| {
        let parts: [&str; 7] = [
            &session_id,
            &agent_id,
            event_type.as_str(),
            severity.as_str(),
            sent_timestamp.as_deref().unwrap_or(""),
            &payload,
            &metadata,
        ];
        // Last, and only where it is sent: the digests of other events stay as they are.
        digest_content(parts.into_iter().chain(sent_environment.as_deref()))
    });
    Ok(NewEvent {
        id: client_id.unwrap_or_else(|| context.ids.take()),
        content_digest,
        session_id,
        agent_id,
        event_type,
        severity,
        timestamp,
        ts_us,
        payload,
        holds_wide_numbers: wide_payload || wide_metadata,
        span: None,
        environment: sent_environment.or_else(|| environment_in_metadata(&metadata)),
        metadata,
        facts,
    })
}

/// Whether a tool answered that it failed. Such an event is an error whatever severity its client gave it.
fn reports_a_failure(event_type: EventType, payload: &[Member<'_>]) -> bool {
    event_type == EventType::ToolResponse
        && payload.iter().any(|Member { key, value }| key == "result" && is_failed_tool_result(value.text()))
}

/// The environment that the event names beside its payload.
fn environment(value: Option<Value<'_>>) -> Result<Option<String>, Refusal> {
    let Some(text) = optional_text(value, "environment")? else { return Ok(None) };
    environments::parse(&text)
        .map(|name| name.map(str::to_owned))
        .map_err(|error| Refusal::new("environment", Reason::InvalidField, format!("environment {error}")))
}

/// The environment that the metadata name: published clients send metadata, and nothing beside the payload that they don't know.
fn environment_in_metadata(metadata: &str) -> Option<String> {
    memchr::memmem::find(metadata.as_bytes(), br#""environment""#)?;
    let members = Value::parse(metadata).ok()?.members().ok()?;
    let named = members.iter().find(|member| member.key == "environment")?;
    environments::read(&named.value.as_str()?).map(str::to_owned)
}

fn digest_content<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut short = [0u8; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

fn text_of<'a>(value: Value<'a>, field: &str) -> Result<Cow<'a, str>, Refusal> {
    if value.kind() != Kind::String {
        let example = if field == "timestamp" { " such as \"2026-01-02T03:04:05Z\"" } else { "" };
        let message = format!("{field} must be a string{example}");
        return Err(Refusal::new(field, Reason::InvalidField, message));
    }
    let text = value.as_str().ok_or_else(|| {
        Refusal::new(
            field,
            Reason::InvalidField,
            format!("{field} holds a lone surrogate, which no text can"),
        )
    })?;
    if text.contains('\0') {
        return Err(Refusal::new(
            field,
            Reason::InvalidField,
            format!("{field} must not hold a NUL character"),
        ));
    }
    Ok(text)
}

/// `None` for an absent, null or empty text: the Go client sends empty ids and timestamps.
fn optional_text<'a>(value: Option<Value<'a>>, field: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let text = text_of(value, field)?;
    Ok((!text.is_empty()).then_some(text))
}

fn optional_id(value: Option<Value<'_>>, field: &str) -> Result<Option<String>, Refusal> {
    let Some(text) = optional_text(value, field)? else { return Ok(None) };
    if text.len() > limits::MAX_ID_BYTES {
        let message =
            format!("{field} has {} bytes; the limit is {} bytes", text.len(), limits::MAX_ID_BYTES);
        return Err(Refusal::new(field, Reason::TooLarge, message));
    }
    Ok(Some(text.into_owned()))
}

/// The id that the client chose. What the server makes of spans is named by their content, and nobody else may take such a name.
fn own_id(value: Option<Value<'_>>) -> Result<Option<String>, Refusal> {
    let id = optional_id(value, "id")?;
    let reserved = [ARRIVAL_ID_PREFIX, LOG_RECORD_ID_PREFIX];
    let taken = id.as_ref().and_then(|id| reserved.into_iter().find(|prefix| id.starts_with(prefix)));
    if let Some(prefix) = taken {
        let message = format!("ids that begin with `{prefix}` are given by the server");
        return Err(Refusal::new("id", Reason::InvalidField, message));
    }
    Ok(id)
}

fn event_type(text: &str) -> Result<EventType, Refusal> {
    let Some(event_type) = EventType::parse(text) else {
        return Err(Refusal::new("eventType", Reason::UnknownEventType, unknown_type(text)));
    };
    if event_type.is_server_only() {
        let message = format!("`{}` events are written by the server only", event_type.as_str());
        return Err(Refusal::new("eventType", Reason::ServerOnlyEventType, message));
    }
    Ok(event_type)
}

/// Characters of an unknown type that its refusal repeats.
const SHOWN_TYPE_CHARS: usize = 40;

fn unknown_type(text: &str) -> String {
    let types =
        || EventType::EVERY.iter().filter(|known| !known.is_server_only()).map(|known| known.as_str());
    let shown: String = text.chars().take(SHOWN_TYPE_CHARS).collect();
    match types().find(|known| is_spelled_alike(known, text)) {
        Some(meant) => format!("`{shown}` is not an event type; write `{meant}`"),
        None => format!(
            "`{shown}` is not an event type; it must be one of {} (`custom` is for your own)",
            types().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Whether two names differ in case, `_` and `-` only: `session_id` and `sessionId`.
pub fn is_spelled_alike(one: &str, other: &str) -> bool {
    let plain = |name: &str| -> Vec<char> {
        name.chars()
            .filter(|letter| !matches!(letter, '_' | '-'))
            .flat_map(char::to_lowercase)
            .take(SHOWN_TYPE_CHARS)
            .collect()
    };
    plain(one) == plain(other)
}

fn severity(value: Option<Value<'_>>) -> Result<Severity, Refusal> {
    let Some(text) = optional_text(value, "severity")? else { return Ok(Severity::Info) };
    // The published AutoGen handler says `warning`.
    Severity::parse(if text == "warning" { "warn" } else { &text }).ok_or_else(|| {
        Refusal::new(
            "severity",
            Reason::InvalidField,
            "severity must be one of debug, info, warn, error, critical",
        )
    })
}

fn timestamp(sent: Option<&str>, now_us: i64) -> Result<(String, i64), Refusal> {
    let Some(text) = sent else { return Ok((time::format_rfc3339(now_us), now_us)) };
    let refuse = |message: String| Err(Refusal::new("timestamp", Reason::InvalidTimestamp, message));
    let Some(ts_us) = time::parse_rfc3339(text) else {
        return refuse("timestamp must be an RFC 3339 instant such as 2026-01-02T03:04:05.678Z".to_owned());
    };
    if ts_us < limits::MIN_TIMESTAMP_US {
        return refuse(format!("timestamp lies before {}", time::format_rfc3339(limits::MIN_TIMESTAMP_US)));
    }
    if ts_us > now_us + limits::MAX_FUTURE_US {
        let hours = limits::MAX_FUTURE_US / time::HOUR_US;
        return refuse(format!("timestamp lies more than {hours} hours in the future of the server's clock"));
    }
    Ok((text.to_owned(), ts_us))
}

fn payload(value: Value<'_>) -> Result<Canonical, Refusal> {
    if value.kind() != Kind::Object {
        return Err(Refusal::new("payload", Reason::InvalidField, "payload must be an object"));
    }
    json::canonicalize(value.text()).map_err(|error| Refusal::unstorable("payload", &error))
}

fn metadata(value: Option<Value<'_>>) -> Result<(String, bool), Refusal> {
    let Some(value) = value else { return Ok(("{}".to_owned(), false)) };
    if value.kind() != Kind::Object {
        return Err(Refusal::new("metadata", Reason::InvalidField, "metadata must be an object"));
    }
    let canonical =
        json::canonicalize(value.text()).map_err(|error| Refusal::unstorable("metadata", &error))?;
    let (text, is_wide) = bounded(canonical, "metadata", limits::MAX_METADATA_BYTES)?;
    Ok((if text.contains("\"verified") { without_reserved(&text) } else { text }, is_wide))
}

/// The text that is stored, within the limit: of a longer one the largest parts are cut. It has number literals as sent where a
/// double can't hold them; then it is wide.
fn bounded(canonical: Canonical, field: &str, limit: usize) -> Result<(String, bool), Refusal> {
    let Canonical { text, lossless } = canonical;
    let is_wide = lossless.is_some();
    let text = lossless.unwrap_or(text);
    if text.len() <= limit {
        return Ok((text, is_wide));
    }
    let Some(shortened) = json::shorten(&text, limit) else {
        let message = format!(
            "{field} has {} bytes in too many parts to cut the largest of them; the limit is {limit} bytes",
            text.len()
        );
        return Err(Refusal::new(field, Reason::TooLarge, message));
    };
    let canonical = json::canonicalize(&shortened).map_err(|error| Refusal::unstorable(field, &error))?;
    let is_wide = canonical.lossless.is_some();
    Ok((canonical.lossless.unwrap_or(canonical.text), is_wide))
}

fn without_reserved(metadata: &str) -> String {
    let members = Value::parse(metadata).and_then(|value| value.members()).unwrap_or_default();
    let mut kept = String::with_capacity(metadata.len());
    for Member { key, value } in &members {
        if RESERVED_METADATA.contains(&key.as_ref()) {
            continue;
        }
        kept.push(if kept.is_empty() { '{' } else { ',' });
        json::write_string(key, &mut kept);
        kept.push(':');
        kept.push_str(value.text());
    }
    if kept.is_empty() {
        kept.push('{');
    }
    kept.push('}');
    kept
}

#[cfg(test)]
mod tests;
