//! From a request to events: the code that spans and log records share.

use agentlens_domain::events::{EventType, Facts, NewEvent, Severity, UNKNOWN_AGENT};
use agentlens_domain::ids::ulid_of;
use agentlens_domain::ledger::Reason;
use agentlens_domain::limits;
use agentlens_domain::spans::{ARRIVAL_ID_PREFIX, Arrival, ArrivalSource, LOG_RECORD_ID_PREFIX, SpanKind};
use agentlens_domain::time;
use sha2::{Digest, Sha256};

use super::clients::{ClientReport, Clients};
use super::payload::Payload;

/// The input besides the request itself.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The server's clock, in microseconds UTC.
    pub now_us: i64,
}

/// The result for a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Normalised {
    /// The events, in the order in which their spans or log records came.
    pub events: Vec<NewEvent>,
    /// The refused spans and log records. The others are not affected.
    pub refused: Vec<Refused>,
    /// The client libraries that sent the request.
    pub clients: Vec<ClientReport>,
}

/// A span or a log record that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its position in the request, counted from 0 over all resources and scopes.
    pub index: usize,
    /// The reason's stable name.
    pub reason: Reason,
    /// One sentence for a person, with field and limit.
    pub message: String,
}

/// Why one item is refused, before its position is known.
pub(super) type Refusal = (Reason, String);

/// Bytes of all payloads of one request. A resource is kept with each of its spans, so a small request could hold more.
const MAX_REQUEST_BYTES: usize = 2 * limits::MAX_DECOMPRESSED_BYTES;

/// The events and refusals of a request while it is read.
#[derive(Default)]
pub(super) struct Collected {
    normalised: Normalised,
    index: usize,
    bytes: usize,
}

impl Collected {
    /// Adds the next item. It is only read if there is room for it.
    pub(super) fn take(&mut self, read: impl FnOnce() -> Result<NewEvent, Refusal>) {
        let read = if self.bytes < MAX_REQUEST_BYTES { read() } else { Err(no_room()) };
        match read {
            Ok(event) => {
                self.bytes += event.payload.len();
                self.normalised.events.push(event);
            }
            Err((reason, message)) => {
                self.normalised.refused.push(Refused { index: self.index, reason, message });
            }
        }
        self.index += 1;
    }

    pub(super) fn finish(self, clients: Clients) -> Normalised {
        Normalised { clients: clients.into_reports(), ..self.normalised }
    }
}

fn no_room() -> Refusal {
    let message =
        format!("the request's items have more than {MAX_REQUEST_BYTES} bytes as JSON; send smaller batches");
    (Reason::TooLarge, message)
}

/// The event of an arrival, or of a log record without a span.
pub(super) struct Draft {
    pub(super) payload: Payload,
    pub(super) arrival: Arrival,
    pub(super) event_type: EventType,
    pub(super) severity: Severity,
    /// The client's time, with which the event's id begins; 0 if it sends none. With the server's clock, the same record would
    /// get another id when it is sent again.
    pub(super) stated_us: i64,
    /// The event's name in lists.
    pub(super) name: Option<String>,
    /// Whether the event is an arrival of a span.
    pub(super) is_of_a_span: bool,
}

impl Draft {
    pub(super) fn event(self) -> NewEvent {
        let Self { payload, mut arrival, event_type, severity, stated_us, name, is_of_a_span } = self;
        let digest = digest(&arrival, &payload.text);
        arrival.digest.copy_from_slice(&digest[..8]);
        let mut content_digest = [0; 16];
        content_digest.copy_from_slice(&digest[16..]);
        let session_id = match &arrival.session {
            Some(claim) => claim.id.clone(),
            None => arrival.trace_id.clone(),
        };
        let agent_id = arrival.agent_id.clone().or_else(|| arrival.service.clone());
        NewEvent {
            id: event_id(
                if is_of_a_span { ARRIVAL_ID_PREFIX } else { LOG_RECORD_ID_PREFIX },
                stated_us,
                &digest,
            ),
            // Arrivals are compared within their span. A log record without a span is recognised by its id.
            content_digest: (!is_of_a_span).then_some(content_digest),
            session_id,
            agent_id: agent_id.unwrap_or_else(|| UNKNOWN_AGENT.to_owned()),
            event_type,
            severity,
            timestamp: time::format_rfc3339(arrival.start_us),
            ts_us: arrival.start_us,
            payload: payload.text,
            metadata: "{}".to_owned(),
            holds_wide_numbers: payload.holds_wide_numbers,
            environment: arrival.environment.clone(),
            facts: facts(&arrival, name),
            span: is_of_a_span.then(|| Box::new(arrival)),
        }
    }
}

fn facts(arrival: &Arrival, name: Option<String>) -> Facts {
    let is_span = arrival.source == ArrivalSource::Span;
    // The figures of other spans are sums over their descendants.
    let owns_usage = is_span && arrival.kind.is_some_and(SpanKind::calls_a_model);
    Facts {
        name,
        provider: arrival.provider.clone(),
        model: arrival.model.clone(),
        call_id: arrival.call_id.clone(),
        user_id: arrival.user_id.clone(),
        duration_us: is_span.then(|| arrival.end_us - arrival.start_us),
        usage: arrival.usage.filter(|_| owns_usage),
        lacks_tokens: false,
        service_tier: arrival.service_tier,
        reported_cost_nanos: arrival.reported_cost_nanos.filter(|_| owns_usage),
        session: None,
    }
}

fn digest(arrival: &Arrival, payload: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(arrival.trace_id.as_bytes());
    hasher.update(arrival.span_id.as_bytes());
    hasher.update(payload.as_bytes());
    hasher.finalize().into()
}

/// The same id for the same content, ordered by time. Ids without order would touch one page of the index each.
fn event_id(prefix: &str, stated_us: i64, digest: &[u8; 32]) -> String {
    let mut content = [0; 16];
    content.copy_from_slice(&digest[..16]);
    format!("{prefix}{}", ulid_of(stated_us, u128::from_be_bytes(content)))
}

/// An id's hexadecimal digits, or the reason why the id is not valid.
pub(super) fn hex_id(field: &str, id: &[u8], length: usize) -> Result<String, Refusal> {
    if id.is_empty() {
        return Err((Reason::MissingField, format!("{field} is missing")));
    }
    if id.len() != length {
        let message = format!("{field} has {} bytes and must have {length}", id.len());
        return Err((Reason::InvalidField, message));
    }
    if id.iter().all(|byte| *byte == 0) {
        return Err((Reason::InvalidField, format!("{field} must not be all zeros")));
    }
    Ok(data_encoding::HEXLOWER.encode(id))
}

/// An instant in microseconds, if it can be stored.
pub(super) fn instant_us(field: &str, nanos: u64, now_us: i64) -> Result<i64, Refusal> {
    let us = i64::try_from(nanos / 1000).unwrap_or(i64::MAX);
    if us < limits::MIN_TIMESTAMP_US {
        let earliest = time::format_rfc3339(limits::MIN_TIMESTAMP_US);
        return Err((Reason::InvalidTimestamp, format!("{field} lies before {earliest}")));
    }
    if us > now_us.saturating_add(limits::MAX_FUTURE_US) {
        let hours = limits::MAX_FUTURE_US / time::HOUR_US;
        let message = format!("{field} lies more than {hours} hours in the future of the server's clock");
        return Err((Reason::InvalidTimestamp, message));
    }
    Ok(us)
}
