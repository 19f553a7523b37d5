//! Clients that send log records and no spans, such as Claude Code, Codex and Gemini CLI. A record about a call of a model
//! or a tool is read as the span of that call; `log_calls` in `attributes.toml` lists these records.

use agentlens_domain::spans::SpanKind;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::field::Field;
use super::raw::RawValue;
use super::reading::Reading;
use super::table::{LogCall, table};

/// Attributes that hold the duration of the call in milliseconds.
const DURATIONS: [&str; 3] = ["duration_ms", "durationMs", "latency_ms"];
/// Attributes that hold whether the call succeeded.
const SUCCESS: [&str; 2] = ["success", "event.success"];
/// Attributes that hold the error of a failed call.
const ERRORS: [&str; 3] = ["error", "error.message", "error_message"];
/// Attributes that hold an HTTP status.
const STATUSES: [&str; 3] = ["http.response.status_code", "http.status_code", "status_code"];
/// Attributes that hold the id shared by all calls of one prompt.
const PROMPTS: [&str; 3] = ["prompt.id", "prompt_id", "turn.id"];
/// A day, in milliseconds. A longer duration is a client's mistake.
const MAX_DURATION_MS: f64 = 86_400_000.0;

/// The ids with which a record was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentIn {
    /// Whether it names a trace.
    pub(super) has_trace: bool,
    /// Whether it names a span.
    pub(super) has_span: bool,
}

/// Whether a record of this name may be a call. A cheap check that does not parse the record.
pub(super) fn may_be_call<'a, V: RawValue + 'a>(
    name: &str,
    attributes: impl Iterator<Item = (&'a str, &'a V)>,
    sent_in: SentIn,
) -> bool {
    if table().log_calls(name).next().is_some() {
        // OpenTelemetry's own records about a call belong to the span in which they are sent.
        return !(sent_in.has_span && table().events.is_genai_log(name));
    }
    // A program that has traces reports its calls as spans. Its log lines about tokens repeat them.
    if sent_in.has_trace || sent_in.has_span {
        return false;
    }
    let (mut names_tokens, mut names_model) = (false, false);
    for (key, value) in attributes {
        names_tokens |= table().is_log_of_tokens(key);
        names_model |= table().is_log_of_model(key) && value.string().is_some() && !value.is_blank();
    }
    names_tokens && names_model
}

/// The span of the call that a record describes, with the rule for it; `None` for other records. `text` is its payload.
pub(super) fn span_of(log: &Map<String, Json>, text: &str) -> Option<(Map<String, Json>, &'static LogCall)> {
    let name = log.get("eventName").and_then(Json::as_str).unwrap_or("");
    let none = Map::new();
    let attributes = log.get("attributes").and_then(Json::as_object).unwrap_or(&none);
    if !may_be_call(
        name,
        attributes.iter().map(|(key, value)| (key.as_str(), value)),
        SentIn { has_trace: log.contains_key("traceId"), has_span: log.contains_key("spanId") },
    ) {
        return None;
    }
    let has_failed = has_failed(attributes);
    let service = log.get("resource").and_then(|resource| resource.get("service.name")?.as_str());
    let applies = |rule: &&LogCall| {
        let is_so = |(key, value): &(String, String)| {
            attributes.get(key).and_then(RawValue::text).is_some_and(|text| text == *value)
        };
        rule.only_if.as_ref().is_none_or(is_so)
            && (has_failed || !rule.only_if_failed)
            && !rule.except_services.iter().any(|known| Some(known.as_str()) == service)
    };
    let mut named = table().log_calls(name).peekable();
    let rule =
        if named.peek().is_some() { named.find(applies) } else { table().any_log_call().find(applies) }?;
    let attributes = renamed(attributes, rule);
    let mut span = log.clone();
    span.shift_remove("source");
    span.insert("name".to_owned(), json!(name_of(name, &attributes, rule.kind)));
    let end = super::present::log_time(log);
    let start = end.saturating_sub(duration_nanos(&attributes));
    for (key, nanos) in [("startTimeUnixNano", start), ("endTimeUnixNano", end)] {
        span.insert(key.to_owned(), json!(nanos.to_string()));
    }
    if has_failed || rule.is_failure {
        span.insert("status".to_owned(), json!({"code": "ERROR"}));
    }
    add_ids(&mut span, &attributes, text);
    span.insert("attributes".to_owned(), Json::Object(attributes));
    Some((span, rule))
}

/// The ids of the span, the same whenever the same record is sent. A record inside a span becomes its child, the records of
/// one prompt become one trace, and any other record becomes a trace of its own.
fn add_ids(span: &mut Map<String, Json>, attributes: &Map<String, Json>, text: &str) {
    let own = Sha256::digest(text.as_bytes());
    if let Some(parent) = span.get("spanId").cloned() {
        span.insert("parentSpanId".to_owned(), parent);
    }
    span.insert("spanId".to_owned(), json!(HEXLOWER.encode(&own[..8])));
    if span.contains_key("traceId") {
        return;
    }
    let reading = Reading::of(attributes.iter().map(|(key, value)| (key.as_str(), value)), |_| {});
    let session = reading.session().map(|(_, id)| id);
    let prompt = PROMPTS.iter().find_map(|key| attributes.get(*key)?.text());
    let trace = match (session, prompt) {
        (Some(session), Some(prompt)) => Sha256::digest(format!("{session}\0{prompt}").as_bytes()),
        _ => own,
    };
    span.insert("traceId".to_owned(), json!(HEXLOWER.encode(&trace[8..24])));
}

fn renamed(attributes: &Map<String, Json>, rule: &LogCall) -> Map<String, Json> {
    let mut all = attributes.clone();
    for (key, value) in attributes {
        if let Some(name) = rule.rename.get(key) {
            all.entry(name).or_insert_with(|| value.clone());
        }
    }
    all
}

fn has_failed(attributes: &Map<String, Json>) -> bool {
    let get = |keys: &'static [&'static str]| keys.iter().filter_map(|key| attributes.get(*key));
    if let Some(succeeded) = get(&SUCCESS).find_map(RawValue::flag) {
        return !succeeded;
    }
    get(&ERRORS).any(|error| !error.is_blank() && error.flag() != Some(false))
        || get(&STATUSES).filter_map(RawValue::number).any(|status| status >= 400.0)
}

fn duration_nanos(attributes: &Map<String, Json>) -> u64 {
    let duration = DURATIONS.iter().find_map(|key| attributes.get(*key)?.number());
    let duration = duration.filter(|duration| (0.0..MAX_DURATION_MS).contains(duration)).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked above")]
    let micros = (duration * 1000.0).round() as u64;
    micros * 1000
}

/// The span's name, made of its tool or its model as OpenTelemetry names spans.
fn name_of(name: &str, attributes: &Map<String, Json>, kind: SpanKind) -> String {
    let text = |field| table().keys(field).iter().find_map(|key| attributes.get(key)?.text());
    let (operation, what) = match kind {
        SpanKind::Tool => ("execute_tool", text(Field::ToolName)),
        SpanKind::Llm => ("chat", text(Field::ResponseModel).or_else(|| text(Field::RequestModel))),
        _ => ("", None),
    };
    what.map_or_else(|| name.to_owned(), |what| format!("{operation} {what}"))
}
