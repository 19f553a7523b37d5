//! The payload of an arrival: everything that was received, as canonical JSON, without secrets and with nothing derived.
//!
//! The text is written directly from the protobuf structures. The last value of a repeated key wins; the check of the
//! canonical form finds repeated keys, so that other payloads pay nothing for it.

use std::fmt::Write as _;

use agentlens_domain::json::{JsonError, canonicalize, shorten, write_string};
use agentlens_domain::ledger::Reason;
use agentlens_domain::limits;
use data_encoding::{BASE64, HEXLOWER};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use rustc_hash::FxHashMap;

use super::arriving::Refusal;
use super::raw::word_of;
use super::table::{Table, table};

/// Replaces a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// A payload with deeper nested attributes is refused. Readers accept 128 levels, and the payload adds some of its own.
const MAX_DEPTH: usize = 100;

/// Bytes of the part that all arrivals of a scope share. It is stored with each of them.
const MAX_SURROUNDINGS_BYTES: usize = limits::MAX_METADATA_BYTES;

/// The text of an arrival.
pub(super) struct Payload {
    pub(super) text: String,
    pub(super) holds_wide_numbers: bool,
}

/// The part that all arrivals of one resource share, written once and without repeated keys. Each arrival contains it, so its
/// largest parts are cut if it is too large for that.
pub(super) struct ResourceText(Result<String, Refusal>);

impl ResourceText {
    pub(super) fn of(resource: &[KeyValue]) -> Self {
        let mut writer = Writer::new(Repetitions::LeftOut, 256);
        if !resource.is_empty() {
            writer.key("resource");
            writer.attributes(resource);
        }
        Self(shared_part(writer))
    }
}

/// The part that all arrivals of one scope share: its resource and the scope itself, cut in the same way. `Err` if it can't
/// be stored.
pub(super) struct Surroundings(Result<String, Refusal>);

impl Surroundings {
    pub(super) fn of(resource: &ResourceText, scope: Option<&InstrumentationScope>) -> Self {
        let resource = match &resource.0 {
            Ok(text) => text,
            Err(refusal) => return Self(Err(refusal.clone())),
        };
        let mut writer = Writer::new(Repetitions::LeftOut, resource.len() + 128);
        writer.out.push_str(resource);
        if let Some(scope) = scope {
            writer.scope(scope);
        }
        Self(shared_part(writer))
    }
}

/// Members of a payload, cut to the limit for the shared part.
fn shared_part(writer: Writer) -> Result<String, Refusal> {
    if writer.is_too_deep {
        return Err(too_deep());
    }
    let members = writer.out;
    if members.len() <= MAX_SURROUNDINGS_BYTES {
        return Ok(members);
    }
    let shortened = shorten(&format!("{{{members}}}"), MAX_SURROUNDINGS_BYTES);
    let shortened = shortened.as_deref().and_then(|text| text.strip_prefix('{')?.strip_suffix('}'));
    shortened.map(str::to_owned).ok_or_else(|| {
        let length = members.len();
        let message = format!(
            "resource and scope have {length} bytes as JSON; the limit is {MAX_SURROUNDINGS_BYTES} bytes"
        );
        (Reason::TooLarge, message)
    })
}

fn too_deep() -> Refusal {
    (Reason::UnstorableJson, format!("attributes are nested deeper than {MAX_DEPTH} levels"))
}

/// The payload of a span.
pub(super) fn of_span(span: &Span, surroundings: &Surroundings) -> Result<Payload, Refusal> {
    canonical(surroundings, 1024, |writer| writer.span(span))
}

/// The payload of a log record.
pub(super) fn of_log(
    record: &LogRecord,
    event_name: &str,
    surroundings: &Surroundings,
) -> Result<Payload, Refusal> {
    canonical(surroundings, 512, |writer| writer.log(record, event_name))
}

fn canonical(
    surroundings: &Surroundings,
    capacity: usize,
    write: impl Fn(&mut Writer),
) -> Result<Payload, Refusal> {
    let surroundings = surroundings.0.as_ref().map_err(Clone::clone)?;
    let text = |repetitions| {
        let mut writer = Writer::new(repetitions, capacity + surroundings.len());
        write(&mut writer);
        if writer.is_too_deep { Err(too_deep()) } else { Ok(writer.finish(surroundings)) }
    };
    let canonical = match canonicalize(&text(Repetitions::Unlikely)?) {
        Err(JsonError::DuplicateKey { .. }) => canonicalize(&text(Repetitions::LeftOut)?),
        other => other,
    };
    let canonical = canonical.map_err(|error| (Reason::UnstorableJson, error.to_string()))?;
    let holds_wide_numbers = canonical.lossless.is_some();
    let text = canonical.lossless.unwrap_or(canonical.text);
    if text.len() > limits::MAX_PAYLOAD_BYTES {
        return shortened(&text);
    }
    Ok(Payload { text, holds_wide_numbers })
}

/// A payload that is too large, without its largest parts. The facts were read from the whole payload.
fn shortened(text: &str) -> Result<Payload, Refusal> {
    let limit = limits::MAX_PAYLOAD_BYTES;
    let Some(shortened) = shorten(text, limit) else {
        let length = text.len();
        let message = format!(
            "payload has {length} bytes as JSON in too many parts to cut the largest of them; the limit is {limit} bytes"
        );
        return Err((Reason::TooLarge, message));
    };
    let canonical = canonicalize(&shortened).map_err(|error| (Reason::UnstorableJson, error.to_string()))?;
    let holds_wide_numbers = canonical.lossless.is_some();
    Ok(Payload { text: canonical.lossless.unwrap_or(canonical.text), holds_wide_numbers })
}

/// Whether to look for repeated keys in one object.
#[derive(Clone, Copy)]
enum Repetitions {
    Unlikely,
    LeftOut,
}

struct Writer {
    out: String,
    repetitions: Repetitions,
    table: &'static Table,
    is_too_deep: bool,
}

impl Writer {
    fn new(repetitions: Repetitions, capacity: usize) -> Self {
        Self { out: String::with_capacity(capacity), repetitions, table: table(), is_too_deep: false }
    }

    fn finish(mut self, rest: &str) -> String {
        if !rest.is_empty() {
            self.separate();
            self.out.push_str(rest);
        }
        self.out.push('}');
        self.out
    }

    /// Writes a comma, except at the start of an object or a list.
    fn separate(&mut self) {
        if !matches!(self.out.as_bytes().last(), None | Some(b'{' | b'[')) {
            self.out.push(',');
        }
    }

    fn key(&mut self, key: &'static str) {
        self.separate();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            write_string(text, &mut self.out);
        }
    }

    fn id(&mut self, key: &'static str, id: &[u8]) {
        if id.iter().any(|byte| *byte != 0) {
            self.key(key);
            self.out.push('"');
            HEXLOWER.encode_append(id, &mut self.out);
            self.out.push('"');
        }
    }

    /// Nanoseconds exceed the precision of a double, so they are strings, as in OTLP's JSON.
    fn nanos(&mut self, key: &'static str, nanos: u64) {
        if nanos != 0 {
            self.key(key);
            // Writing to a String cannot fail.
            let _ = write!(self.out, "\"{nanos}\"");
        }
    }

    fn count(&mut self, key: &'static str, count: u32) {
        if count != 0 {
            self.key(key);
            let _ = write!(self.out, "{count}");
        }
    }

    fn span(&mut self, span: &Span) {
        self.out.push('{');
        self.id("traceId", &span.trace_id);
        self.id("spanId", &span.span_id);
        self.id("parentSpanId", &span.parent_span_id);
        self.text("traceState", &span.trace_state);
        self.text("name", &span.name);
        if let Some(kind) = span_kind(span.kind) {
            self.text("spanKind", kind);
        }
        self.nanos("startTimeUnixNano", span.start_time_unix_nano);
        self.nanos("endTimeUnixNano", span.end_time_unix_nano);
        if !span.attributes.is_empty() {
            self.key("attributes");
            self.attributes(&span.attributes);
        }
        self.count("droppedAttributesCount", span.dropped_attributes_count);
        self.list("events", &span.events, Self::event);
        self.count("droppedEventsCount", span.dropped_events_count);
        self.list("links", &span.links, Self::link);
        self.count("droppedLinksCount", span.dropped_links_count);
        if let Some(status) = &span.status {
            self.status(status);
        }
    }

    fn list<T>(&mut self, key: &'static str, items: &[T], write: impl Fn(&mut Self, &T)) {
        if items.is_empty() {
            return;
        }
        self.key(key);
        self.out.push('[');
        for item in items {
            self.separate();
            self.out.push('{');
            write(self, item);
            self.out.push('}');
        }
        self.out.push(']');
    }

    fn event(&mut self, event: &Event) {
        self.text("name", &event.name);
        self.nanos("timeUnixNano", event.time_unix_nano);
        if !event.attributes.is_empty() {
            self.key("attributes");
            self.attributes(&event.attributes);
        }
        self.count("droppedAttributesCount", event.dropped_attributes_count);
    }

    fn link(&mut self, link: &Link) {
        self.id("traceId", &link.trace_id);
        self.id("spanId", &link.span_id);
        self.text("traceState", &link.trace_state);
        if !link.attributes.is_empty() {
            self.key("attributes");
            self.attributes(&link.attributes);
        }
        self.count("droppedAttributesCount", link.dropped_attributes_count);
    }

    fn status(&mut self, status: &Status) {
        let code = match StatusCode::try_from(status.code) {
            Ok(StatusCode::Ok) => "OK",
            Ok(StatusCode::Error) => "ERROR",
            Ok(StatusCode::Unset) | Err(_) => "",
        };
        if code.is_empty() && status.message.is_empty() {
            return;
        }
        self.key("status");
        self.out.push('{');
        self.text("code", code);
        self.text("message", &status.message);
        self.out.push('}');
    }

    fn log(&mut self, record: &LogRecord, event_name: &str) {
        self.out.push('{');
        self.id("traceId", &record.trace_id);
        self.id("spanId", &record.span_id);
        self.text("source", "log");
        self.text("eventName", event_name);
        self.nanos("timeUnixNano", record.time_unix_nano);
        self.nanos("observedTimeUnixNano", record.observed_time_unix_nano);
        self.count("severityNumber", u32::try_from(record.severity_number).unwrap_or(0));
        self.text("severityText", &record.severity_text);
        if let Some(body) = record.body.as_ref().filter(|body| body.value.is_some()) {
            self.key("body");
            self.value(body, 1);
        }
        if !record.attributes.is_empty() {
            self.key("attributes");
            self.attributes(&record.attributes);
        }
        self.count("droppedAttributesCount", record.dropped_attributes_count);
    }

    fn scope(&mut self, scope: &InstrumentationScope) {
        if scope.name.is_empty() && scope.version.is_empty() && scope.attributes.is_empty() {
            return;
        }
        self.key("scope");
        self.out.push('{');
        self.text("name", &scope.name);
        self.text("version", &scope.version);
        if !scope.attributes.is_empty() {
            self.key("attributes");
            self.attributes(&scope.attributes);
        }
        self.out.push('}');
    }

    fn attributes(&mut self, attributes: &[KeyValue]) {
        self.members(attributes, 1);
    }

    fn members(&mut self, members: &[KeyValue], depth: usize) {
        let last: Option<FxHashMap<&str, usize>> = match self.repetitions {
            Repetitions::Unlikely => None,
            Repetitions::LeftOut => {
                Some(members.iter().enumerate().map(|(index, member)| (member.key.as_str(), index)).collect())
            }
        };
        self.out.push('{');
        for (index, member) in members.iter().enumerate() {
            if last.as_ref().is_some_and(|last| last.get(member.key.as_str()) != Some(&index)) {
                continue;
            }
            self.separate();
            write_string(&member.key, &mut self.out);
            self.out.push(':');
            match &member.value {
                Some(_) if self.table.is_secret(&member.key) => write_string(REDACTED, &mut self.out),
                Some(value) => self.value(value, depth),
                None => self.out.push_str("null"),
            }
        }
        self.out.push('}');
    }

    fn value(&mut self, value: &AnyValue, depth: usize) {
        match &value.value {
            None | Some(Any::StringValueStrindex(_)) => self.out.push_str("null"),
            Some(Any::StringValue(text)) => write_string(text, &mut self.out),
            Some(Any::BoolValue(flag)) => self.out.push_str(if *flag { "true" } else { "false" }),
            Some(Any::IntValue(number)) => {
                let _ = write!(self.out, "{number}");
            }
            Some(Any::DoubleValue(number)) => self.double(*number),
            Some(Any::BytesValue(bytes)) => {
                self.out.push('"');
                BASE64.encode_append(bytes, &mut self.out);
                self.out.push('"');
            }
            Some(Any::ArrayValue(array)) => self.array(&array.values, depth),
            Some(Any::KvlistValue(list)) => {
                if depth > MAX_DEPTH {
                    self.too_deep()
                } else {
                    self.members(&list.values, depth + 1)
                }
            }
        }
    }

    fn array(&mut self, values: &[AnyValue], depth: usize) {
        if depth > MAX_DEPTH {
            return self.too_deep();
        }
        self.out.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.value(value, depth + 1);
        }
        self.out.push(']');
    }

    /// Writes a placeholder for values that are nested too deeply; the payload is refused.
    fn too_deep(&mut self) {
        self.is_too_deep = true;
        self.out.push_str("null");
    }

    /// JSON can't express NaN and infinity.
    fn double(&mut self, number: f64) {
        if number.is_finite() {
            let _ = write!(self.out, "{number:?}");
        } else {
            write_string(&word_of(number), &mut self.out);
        }
    }
}

fn span_kind(kind: i32) -> Option<&'static str> {
    match SpanKind::try_from(kind).ok()? {
        SpanKind::Unspecified => None,
        SpanKind::Internal => Some("INTERNAL"),
        SpanKind::Server => Some("SERVER"),
        SpanKind::Client => Some("CLIENT"),
        SpanKind::Producer => Some("PRODUCER"),
        SpanKind::Consumer => Some("CONSUMER"),
    }
}
