//! Log records. A record inside a span is an arrival of that span, a record that describes a call becomes a span
//! (`log_calls`), and every other record is an event.

use agentlens_domain::events::{EventType, NewEvent, Severity};
use agentlens_domain::spans::{Arrival, ArrivalSource};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::arrivals::{Observed, Outcome, ResourceFacts};
use super::arriving::{Collected, Context, Draft, Normalised, Refusal, hex_id, instant_us};
use super::clients::{ClientReport, Clients, Sdk};
use super::names::clean;
use super::payload::{self, ResourceText, Surroundings};
use super::raw::RawValue;
use super::reading::Reading;
use super::table::table;
use super::traces::pairs;
use super::{log_calls, present, traces};

/// Attributes with a record's name, used if its own field is empty.
const EVENT_NAMES: [&str; 2] = ["event.name", "event_name"];

/// Reads every log record of a request into an event. A bad record is refused alone.
pub fn events_of_logs(request: &ExportLogsServiceRequest, context: &Context) -> Normalised {
    let mut collected = Collected::default();
    let mut clients = Clients::default();
    for resource_logs in &request.resource_logs {
        let attributes = resource_logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let resource = ResourceFacts::of(&Reading::of(pairs(attributes), |_| {}));
        let resource_text = ResourceText::of(attributes);
        let sdk = Sdk::of(attributes);
        for scope_logs in resource_logs.scope_logs.iter().filter(|scope| !scope.log_records.is_empty()) {
            let scope = scope_logs.scope.as_ref();
            let surroundings = Surroundings::of(&resource_text, scope);
            let client = clients.of(scope, &sdk);
            for record in &scope_logs.log_records {
                client.items = client.items.saturating_add(1);
                let scope = scope.map_or("", |scope| &scope.name);
                collected.take(|| event_of(record, &resource, (scope, &surroundings), client, context));
            }
        }
    }
    collected.finish(clients)
}

fn event_of(
    record: &LogRecord,
    resource: &ResourceFacts,
    (scope, surroundings): (&str, &Surroundings),
    client: &mut ClientReport,
    context: &Context,
) -> Result<NewEvent, Refusal> {
    let name = event_name(record);
    let is_genai = table().events.is_genai_log(name);
    let trace_id = hex_id("traceId", &record.trace_id, 16).ok();
    let span_id = hex_id("spanId", &record.span_id, 8).ok();
    let at_us = time_us(record, context.now_us)?;
    let reading = Reading::of(pairs(&record.attributes), |key| {
        // Other programs' logs use attributes of their own, which we need not map.
        if is_genai {
            client.count_unmapped(key);
        }
    })
    .in_scope(scope);
    let payload = payload::of_log(record, name, surroundings)?;
    let sent_in = log_calls::SentIn { has_trace: trace_id.is_some(), has_span: span_id.is_some() };
    let may_be_call = log_calls::may_be_call(name, pairs(&record.attributes), sent_in);
    if let Some(arrival) = may_be_call.then(|| present::arrival_of_log(&payload.text)).flatten() {
        return Ok(call(payload, arrival, at_us));
    }
    let is_evaluation = table().events.evaluation.iter().any(|known| known == name);
    let is_of_a_span = trace_id.is_some() && span_id.is_some();
    let mut arrival = Observed {
        trace_id: trace_id.unwrap_or_default(),
        span_id: span_id.unwrap_or_default(),
        parent_span_id: None,
        source: ArrivalSource::Log,
        name,
        start_us: at_us,
        end_us: at_us,
        outcome: Outcome::Unset,
        first_token_us: None,
        has_exception: table().events.exception.iter().any(|known| known == name),
        stated_kind: None,
        reading: &reading,
        resource,
    }
    .arrival();
    if is_evaluation {
        // A failed evaluation is not a failure of the evaluated span.
        arrival.is_error = false;
    }
    if !is_genai {
        clear_call_facts(&mut arrival);
    }
    let event_type = if is_evaluation { EventType::EvalResult } else { EventType::Custom };
    let home = if arrival.trace_id.is_empty() {
        arrival.response_id.clone().unwrap_or_else(|| resource.fallback_session(at_us))
    } else {
        String::new()
    };
    let is_timed = record.time_unix_nano != 0 || record.observed_time_unix_nano != 0;
    let mut event = Draft {
        payload,
        arrival,
        event_type,
        severity: severity(record),
        stated_us: if is_timed { at_us } else { 0 },
        name: clean(name),
        is_of_a_span,
    }
    .event();
    if event.session_id.is_empty() {
        event.session_id = home;
    }
    Ok(event)
}

/// The event of a record that is a call of its own.
fn call(payload: payload::Payload, mut arrival: Arrival, at_us: i64) -> NewEvent {
    let stated_us = if arrival.end_us == 0 { 0 } else { arrival.start_us };
    if arrival.end_us == 0 {
        (arrival.start_us, arrival.end_us) = (at_us, at_us);
    }
    // The payload names the span in which the record was sent, if any, and not the span that the record becomes.
    let metadata = span_metadata(&arrival);
    NewEvent { metadata, ..traces::draft(payload, arrival, stated_us).event() }
}

fn span_metadata(arrival: &Arrival) -> String {
    format!(r#"{{"span":{{"traceId":"{}","spanId":"{}"}}}}"#, arrival.trace_id, arrival.span_id)
}

/// Clears the facts about a call. A program's own log record uses its own terms: its `cache_hit`, for example, is about the
/// program's cache.
fn clear_call_facts(arrival: &mut Arrival) {
    *arrival = Arrival {
        provider: None,
        model: None,
        response_id: None,
        usage: None,
        reported_cost_nanos: None,
        is_cache_hit: false,
        service_tier: None,
        first_token_us: None,
        is_error: false,
        ..std::mem::take(arrival)
    };
}

/// A record's name. Some clients send a short one in an attribute and the full one in the body.
fn event_name(record: &LogRecord) -> &str {
    let named = || {
        let attributes = pairs(&record.attributes).filter(|(key, _)| EVENT_NAMES.contains(key));
        attributes.filter_map(|(_, value)| value.string()).next()
    };
    let name = if record.event_name.is_empty() { named().unwrap_or("") } else { &record.event_name };
    let body = record.body.as_ref().and_then(RawValue::string).unwrap_or("");
    let is_short_for = |body: &str| body.strip_suffix(name).is_some_and(|beginning| beginning.ends_with('.'));
    if !name.is_empty() && is_short_for(body) { body } else { name }
}

fn time_us(record: &LogRecord, now_us: i64) -> Result<i64, Refusal> {
    match (record.time_unix_nano, record.observed_time_unix_nano) {
        (0, 0) => Ok(now_us),
        (0, observed) => instant_us("observedTimeUnixNano", observed, now_us),
        (time, _) => instant_us("timeUnixNano", time, now_us),
    }
}

/// The severity by OpenTelemetry's 24 numbers, or by its words if there is no number.
fn severity(record: &LogRecord) -> Severity {
    match record.severity_number {
        1..=8 => Severity::Debug,
        13..=16 => Severity::Warn,
        17..=20 => Severity::Error,
        21.. => Severity::Critical,
        9..=12 => Severity::Info,
        _ => match record.severity_text.to_ascii_lowercase().as_str() {
            "trace" | "debug" => Severity::Debug,
            "warn" | "warning" => Severity::Warn,
            "error" => Severity::Error,
            "fatal" | "critical" => Severity::Critical,
            _ => Severity::Info,
        },
    }
}
