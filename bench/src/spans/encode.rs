//! Spans as OTLP request bodies, in both encodings; ids and times stay marks.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::json;

use super::Encoding;
use super::marks::{Mark, TIME_PADDING};
use super::story::{Shape, Value};

const INTERNAL: i32 = 1;
const CLIENT: i32 = 3;
const FAILED: i32 = 2;
const SCOPE: (&str, &str) = ("opentelemetry.instrumentation.genai.agents", "1.3b0");
const RESOURCE: [(&str, &str); 6] = [
    ("service.name", "assistants"),
    ("service.version", "2.4.1"),
    ("deployment.environment.name", "production"),
    ("telemetry.sdk.language", "python"),
    ("telemetry.sdk.name", "opentelemetry"),
    ("telemetry.sdk.version", "1.45.2"),
];

pub(super) fn encode(shapes: &[Shape], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => protobuf(shapes),
        Encoding::Json => json(shapes),
    }
}

fn protobuf(shapes: &[Shape]) -> Vec<u8> {
    let resource =
        RESOURCE.iter().map(|(key, value)| pair(key, any_value::Value::StringValue((*value).into())));
    let scope = InstrumentationScope {
        name: SCOPE.0.to_owned(),
        version: SCOPE.1.to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = shapes.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let resource = Resource { attributes: resource.collect(), ..Resource::default() };
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn span(shape: &Shape) -> Span {
    let attributes = shape.attributes.iter().map(|(key, value)| pair(key, any(value)));
    let status = shape.error.map(|message| Status { message: message.to_owned(), code: FAILED });
    Span {
        trace_id: [Mark::TraceHead(shape.trace).bytes(), Mark::TraceTail(shape.trace).bytes()].concat(),
        span_id: Mark::Span(shape.number).bytes().to_vec(),
        parent_span_id: shape.parent.map_or_else(Vec::new, |parent| Mark::Span(parent).bytes().to_vec()),
        name: shape.name.clone(),
        kind: kind(shape),
        start_time_unix_nano: u64::from_le_bytes(Mark::Time(shape.start_ticks).bytes()),
        end_time_unix_nano: u64::from_le_bytes(Mark::Time(shape.end_ticks).bytes()),
        attributes: attributes.collect(),
        status: Some(status.unwrap_or_default()),
        flags: 0x100 | 1,
        ..Span::default()
    }
}

fn kind(shape: &Shape) -> i32 {
    if shape.is_client { CLIENT } else { INTERNAL }
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn any(value: &Value) -> any_value::Value {
    match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Number(number) => any_value::Value::IntValue(*number),
        Value::Fraction(number) => any_value::Value::DoubleValue(*number),
        Value::List(text) => {
            let item = AnyValue { value: Some(any_value::Value::StringValue(text.clone())) };
            any_value::Value::ArrayValue(ArrayValue { values: vec![item] })
        }
    }
}

fn json(shapes: &[Shape]) -> Vec<u8> {
    let resource: Vec<_> =
        RESOURCE.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect();
    let spans: Vec<_> = shapes.iter().map(json_span).collect();
    let scope = json!({"name": SCOPE.0, "version": SCOPE.1});
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
    .to_string()
    .into_bytes()
}

fn json_span(shape: &Shape) -> serde_json::Value {
    let attributes: Vec<_> =
        shape.attributes.iter().map(|(key, value)| json!({"key": key, "value": json_any(value)})).collect();
    let status = shape.error.map_or_else(|| json!({}), |message| json!({"message": message, "code": FAILED}));
    let trace = [Mark::TraceHead(shape.trace).hex(), Mark::TraceTail(shape.trace).hex()].concat();
    let mut span = json!({
        "traceId": trace,
        "spanId": Mark::Span(shape.number).hex(),
        "name": shape.name,
        "kind": kind(shape),
        "startTimeUnixNano": Mark::Time(shape.start_ticks).hex() + TIME_PADDING,
        "endTimeUnixNano": Mark::Time(shape.end_ticks).hex() + TIME_PADDING,
        "attributes": attributes,
        "status": status,
        "flags": 0x100 | 1,
    });
    if let (Some(parent), Some(map)) = (shape.parent, span.as_object_mut()) {
        map.insert("parentSpanId".to_owned(), json!(Mark::Span(parent).hex()));
    }
    span
}

fn json_any(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Fraction(number) => json!({"doubleValue": number}),
        Value::List(text) => json!({"arrayValue": {"values": [{"stringValue": text}]}}),
    }
}
