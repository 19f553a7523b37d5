//! Spans: one event each.

use agentlens_domain::events::{EventType, NewEvent, Severity};
use agentlens_domain::ledger::Reason;
use agentlens_domain::limits;
use agentlens_domain::spans::{Arrival, ArrivalSource, SpanKind};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::arrivals::{Observed, Outcome, ResourceFacts};
use super::arriving::{Collected, Context, Draft, Normalised, Refusal, hex_id, instant_us};
use super::clients::{ClientReport, Clients, Sdk};
use super::field::Field;
use super::payload::{self, ResourceText, Surroundings};
use super::reading::Reading;
use super::table::table;

/// Logfire's announcement of a span that will be sent when it has ended.
const PENDING: &str = "pending_span";

/// Reads every span of a request into an event. A bad span is refused alone.
pub fn events_of_traces(request: &ExportTraceServiceRequest, context: &Context) -> Normalised {
    let mut collected = Collected::default();
    let mut clients = Clients::default();
    for resource_spans in &request.resource_spans {
        let attributes = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let resource = ResourceFacts::of(&Reading::of(pairs(attributes), |_| {}));
        let resource_text = ResourceText::of(attributes);
        let sdk = Sdk::of(attributes);
        // A scope without spans costs nothing: a few bytes hold very many of them.
        for scope_spans in resource_spans.scope_spans.iter().filter(|scope| !scope.spans.is_empty()) {
            let scope = scope_spans.scope.as_ref();
            let surroundings = Surroundings::of(&resource_text, scope);
            let client = clients.of(scope, &sdk);
            for span in &scope_spans.spans {
                client.items = client.items.saturating_add(1);
                let scope = scope.map_or("", |scope| &scope.name);
                collected.take(|| event_of(span, &resource, (scope, &surroundings), client, context));
            }
        }
    }
    collected.finish(clients)
}

/// Attributes as pairs of key and value, without those that have no value.
pub(super) fn pairs(attributes: &[KeyValue]) -> impl Iterator<Item = (&str, &AnyValue)> {
    attributes.iter().filter_map(|pair| Some((pair.key.as_str(), pair.value.as_ref()?)))
}

fn event_of(
    span: &Span,
    resource: &ResourceFacts,
    (scope, surroundings): (&str, &Surroundings),
    client: &mut ClientReport,
    context: &Context,
) -> Result<NewEvent, Refusal> {
    if span.trace_id.is_empty() && span.span_id.is_empty() {
        let message = "traceId and spanId are missing; log records that are posted to /v1/traces look like \
                       this and belong to /v1/logs";
        return Err((Reason::MissingField, message.to_owned()));
    }
    let trace_id = hex_id("traceId", &span.trace_id, 16)?;
    let span_id = hex_id("spanId", &span.span_id, 8)?;
    let (start_us, end_us) = times(span, context.now_us)?;
    let reading = Reading::of(pairs(&span.attributes), |key| client.count_unmapped(key)).in_scope(scope);
    if reading.text(Field::SpanType).is_some_and(|word| word == PENDING) {
        return Err((Reason::Duplicate, "the span is pending; it is stored once it has ended".to_owned()));
    }
    let payload = payload::of_span(span, surroundings)?;
    let arrival = Observed {
        trace_id,
        span_id,
        parent_span_id: hex_id("parentSpanId", &span.parent_span_id, 8).ok(),
        source: ArrivalSource::Span,
        name: &span.name,
        start_us,
        end_us,
        outcome: outcome(span),
        first_token_us: first_token_us(span),
        has_exception: span.events.iter().any(|event| table().events.exception.contains(&event.name)),
        stated_kind: None,
        reading: &reading,
        resource,
    }
    .arrival();
    let is_timed = span.start_time_unix_nano != 0 || span.end_time_unix_nano != 0;
    let stated_us = if is_timed { start_us } else { 0 };
    Ok(draft(payload, arrival, stated_us).event())
}

pub(super) fn draft(payload: payload::Payload, arrival: Arrival, stated_us: i64) -> Draft {
    let event_type = event_type(&arrival);
    let severity = if arrival.is_error { Severity::Error } else { Severity::Info };
    let name = arrival.tool_name.clone().filter(|_| arrival.kind == Some(SpanKind::Tool));
    let name = name.or_else(|| arrival.span_name.clone());
    Draft { payload, arrival, event_type, severity, stated_us, name, is_of_a_span: true }
}

fn event_type(arrival: &Arrival) -> EventType {
    let kind = arrival.kind.unwrap_or(SpanKind::Other);
    if arrival.is_error { kind.event_type_of_failure() } else { kind.event_type() }
}

/// Start and end. A missing start is the end; if both are missing, they are now.
fn times(span: &Span, now_us: i64) -> Result<(i64, i64), Refusal> {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    match (start, end) {
        (0, 0) => Ok((now_us, now_us)),
        (0, end) => instant_us("endTimeUnixNano", end, now_us).map(|end_us| (end_us, end_us)),
        (start, 0) => instant_us("startTimeUnixNano", start, now_us).map(|start_us| (start_us, start_us)),
        (start, end) => {
            let start_us = instant_us("startTimeUnixNano", start, now_us)?;
            // A span that ends before it starts is kept, because clocks are set back. One that ends in the far future is refused.
            let end_us = if end < start { start_us } else { instant_us("endTimeUnixNano", end, now_us)? };
            // As for events, durations have a maximum, so that their sums can't overflow.
            Ok((start_us, end_us.min(start_us.saturating_add(limits::MAX_DURATION_US))))
        }
    }
}

fn outcome(span: &Span) -> Outcome {
    match span.status.as_ref().map(|status| StatusCode::try_from(status.code)) {
        Some(Ok(StatusCode::Error)) => Outcome::Failed,
        Some(Ok(StatusCode::Ok)) => Outcome::Ok,
        _ => Outcome::Unset,
    }
}

fn first_token_us(span: &Span) -> Option<i64> {
    if span.events.is_empty() {
        return None;
    }
    let names = &table().events.first_token;
    let first =
        span.events.iter().filter(|event| names.contains(&event.name)).map(|event| event.time_unix_nano);
    i64::try_from(first.min()? / 1000).ok()
}
