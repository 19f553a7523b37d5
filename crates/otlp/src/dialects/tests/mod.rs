//! The requests of each client, and the facts that are read from them.

mod golden;
mod logs;
mod order;
mod properties;
mod refusals;
mod rows;
mod tokens;

use agentlens_domain::events::NewEvent;
use agentlens_domain::spans::Arrival;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde_json::{Map, Value as Json};

use super::{Context, Normalised, events_of_logs, events_of_traces};

/// The start of all tests: 2026-09-21T14:13:20Z.
const START_NS: u64 = 1_790_000_000_000_000_000;
const CONTEXT: Context = Context { now_us: 1_790_000_100_000_000 };

fn any(value: &Json) -> AnyValue {
    let value = match value {
        Json::Null => None,
        Json::Bool(flag) => Some(Any::BoolValue(*flag)),
        Json::Number(number) => Some(match number.as_i64() {
            Some(integer) => Any::IntValue(integer),
            None => Any::DoubleValue(number.as_f64().unwrap()),
        }),
        Json::String(text) => Some(Any::StringValue(text.clone())),
        Json::Array(items) => Some(Any::ArrayValue(ArrayValue { values: items.iter().map(any).collect() })),
        Json::Object(object) => Some(Any::KvlistValue(KeyValueList { values: attributes(object) })),
    };
    AnyValue { value }
}

fn attributes(object: &Map<String, Json>) -> Vec<KeyValue> {
    object.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &Json) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn object(value: &Json) -> Map<String, Json> {
    value.as_object().cloned().unwrap_or_default()
}

fn at(ms: &Json) -> u64 {
    START_NS + (ms.as_f64().unwrap_or(0.0) * 1e6) as u64
}

/// A span in the tests' shorthand: name, kind, parent, ms (start and end), attributes, events, status.
fn span(short: &Json) -> Span {
    let kind = short["kind"].as_str().unwrap_or("INTERNAL");
    let kind = SpanKind::from_str_name(&format!("SPAN_KIND_{kind}")).unwrap();
    let events = short["events"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|event| Event {
        time_unix_nano: at(&event["ms"]),
        name: event["name"].as_str().unwrap().to_owned(),
        attributes: attributes(&object(&event["attributes"])),
        ..Event::default()
    });
    Span {
        trace_id: vec![0x0a; 16],
        span_id: vec![0x0b; 8],
        parent_span_id: if short["parent"] == true { vec![0x0c; 8] } else { Vec::new() },
        name: short["name"].as_str().unwrap_or("span").to_owned(),
        kind: kind.into(),
        start_time_unix_nano: at(&short["ms"][0]),
        end_time_unix_nano: if short["ms"][1].is_null() {
            START_NS + 1_000_000_000
        } else {
            at(&short["ms"][1])
        },
        attributes: attributes(&object(&short["attributes"])),
        events: events.collect(),
        status: short["status"].as_object().map(|status| Status {
            code: match status["code"].as_str() {
                Some("ERROR") => 2,
                Some("OK") => 1,
                _ => 0,
            },
            message: short["status"]["message"].as_str().unwrap_or("").to_owned(),
        }),
        ..Span::default()
    }
}

fn log(short: &Json) -> LogRecord {
    LogRecord {
        trace_id: vec![0x0a; 16],
        span_id: vec![0x0b; 8],
        time_unix_nano: at(&short["ms"]),
        severity_number: short["severity"].as_i64().unwrap_or(0) as i32,
        event_name: short["name"].as_str().unwrap_or("").to_owned(),
        body: (!short["body"].is_null()).then(|| any(&short["body"])),
        attributes: attributes(&object(&short["attributes"])),
        ..LogRecord::default()
    }
}

fn resource(value: &Json) -> Option<Resource> {
    Some(Resource { attributes: attributes(&object(value)), ..Resource::default() })
}

fn scope(value: &Json) -> Option<InstrumentationScope> {
    let text = |key: &str| value[key].as_str().unwrap_or("").to_owned();
    Some(InstrumentationScope {
        name: text("name"),
        version: text("version"),
        ..InstrumentationScope::default()
    })
}

fn trace_request(spans: Vec<Span>, surroundings: &Json) -> ExportTraceServiceRequest {
    let scope_spans =
        vec![ScopeSpans { scope: scope(&surroundings["scope"]), spans, ..ScopeSpans::default() }];
    let resource = resource(&surroundings["resource"]);
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
    }
}

fn log_request(log_records: Vec<LogRecord>, surroundings: &Json) -> ExportLogsServiceRequest {
    let scope_logs =
        vec![ScopeLogs { scope: scope(&surroundings["scope"]), log_records, ..ScopeLogs::default() }];
    let resource = resource(&surroundings["resource"]);
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
    }
}

fn read_spans(spans: Vec<Span>) -> Normalised {
    events_of_traces(&trace_request(spans, &Json::Null), &CONTEXT)
}

fn read_logs(logs: Vec<LogRecord>) -> Normalised {
    events_of_logs(&log_request(logs, &Json::Null), &CONTEXT)
}

/// The event of one span with these attributes.
fn event_of(attributes: &Json) -> NewEvent {
    let mut normalised = read_spans(vec![span(&serde_json::json!({"attributes": attributes}))]);
    assert_eq!(normalised.refused, []);
    normalised.events.remove(0)
}

/// The facts of one span with these attributes.
fn arrival_of(attributes: &Json) -> Arrival {
    *event_of(attributes).span.unwrap()
}

/// An arrival without absent members and without its digest.
fn slim(arrival: &Arrival) -> Json {
    let mut value = serde_json::to_value(arrival).unwrap();
    let object = value.as_object_mut().unwrap();
    object.retain(|key, value| key != "digest" && !value.is_null() && *value != Json::Bool(false));
    if let Some(usage) = object.get_mut("usage").and_then(Json::as_object_mut) {
        usage.retain(|_, tokens| *tokens != 0);
    }
    value
}
