//! Random requests with everything that both encodings can express.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::printer::Spelling;

pub(super) fn spellings() -> impl Strategy<Value = Spelling> {
    any::<[bool; 5]>().prop_map(|[snake_case, plain_integers, enum_names, upper_case, nulls]| Spelling {
        snake_case,
        plain_integers,
        enum_names,
        upper_case,
        nulls,
    })
}

pub(super) fn trace_requests() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope_spans = (option::of(scopes()), vec(spans(), 0..4), texts())
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource_spans = (option::of(resources()), vec(scope_spans, 0..3), texts())
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

pub(super) fn log_requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope_logs = (option::of(scopes()), vec(log_records(), 0..4), texts())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let resource_logs = (option::of(resources()), vec(scope_logs, 0..3), texts())
        .prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resource_logs, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// Text, half of which needs escaping.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[a-z._]{0,12}",
        1 => vec(any::<char>(), 0..6).prop_map(String::from_iter),
        1 => "[\\\\\"/\\n\\t\u{0}é😀{}:,]{0,6}",
    ]
}

fn ids(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![5 => vec(any::<u8>(), length), 1 => Just(Vec::new()), 1 => vec(any::<u8>(), 2)]
}

fn doubles() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i32>().prop_map(f64::from),
        prop::sample::select(vec![0.0, -0.0, 0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX]),
    ]
    // Protobuf keeps the bits of a NaN, and JSON does not.
    .prop_map(|value| if value.is_nan() { f64::NAN } else { value })
}

fn values() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        6 => texts().prop_map(Value::StringValue),
        2 => any::<bool>().prop_map(Value::BoolValue),
        2 => any::<i64>().prop_map(Value::IntValue),
        2 => doubles().prop_map(Value::DoubleValue),
        2 => vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
        1 => any::<i32>().prop_map(Value::StringValueStrindex),
    ];
    let leaf = option::weighted(0.9, leaf).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 4, |inner| {
        let pair = (texts(), option::of(inner.clone())).prop_map(|(key, value)| KeyValue {
            key,
            value,
            key_strindex: 0,
        });
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(pair, 0..4).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute = (texts(), option::weighted(0.9, values()), prop_oneof![9 => Just(0), 1 => any::<i32>()])
        .prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex });
    vec(attribute, 0..4)
}

fn scopes() -> impl Strategy<Value = InstrumentationScope> {
    (texts(), texts(), attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn resources() -> impl Strategy<Value = Resource> {
    (attributes(), any::<u32>()).prop_map(|(attributes, dropped_attributes_count)| Resource {
        attributes,
        dropped_attributes_count,
        entity_refs: Vec::new(),
    })
}

fn enums(last: i32) -> impl Strategy<Value = i32> {
    prop_oneof![5 => 0..=last, 1 => any::<i32>()]
}

fn spans() -> impl Strategy<Value = Span> {
    let ids = (ids(16), ids(8), ids(8), texts(), any::<u32>());
    let facts = (texts(), enums(5), any::<u64>(), any::<u64>(), attributes());
    let event = (any::<u64>(), texts(), attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| span::Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    );
    let status = (texts(), enums(2)).prop_map(|(message, code)| Status { message, code });
    let parts = (vec(event, 0..3), vec(links(), 0..3), option::of(status), any::<[u32; 3]>());
    (ids, facts, parts).prop_map(|(ids, facts, (events, links, status, dropped))| Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        trace_state: ids.3,
        flags: ids.4,
        name: facts.0,
        kind: facts.1,
        start_time_unix_nano: facts.2,
        end_time_unix_nano: facts.3,
        attributes: facts.4,
        dropped_attributes_count: dropped[0],
        events,
        dropped_events_count: dropped[1],
        links,
        dropped_links_count: dropped[2],
        status,
    })
}

fn links() -> impl Strategy<Value = span::Link> {
    (ids(16), ids(8), texts(), attributes(), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| span::Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn log_records() -> impl Strategy<Value = LogRecord> {
    let facts = (any::<u64>(), any::<u64>(), enums(24), texts(), option::of(values()));
    let rest = (attributes(), any::<u32>(), any::<u32>(), ids(16), ids(8), texts());
    (facts, rest).prop_map(|(facts, rest)| LogRecord {
        time_unix_nano: facts.0,
        observed_time_unix_nano: facts.1,
        severity_number: facts.2,
        severity_text: facts.3,
        body: facts.4,
        attributes: rest.0,
        dropped_attributes_count: rest.1,
        flags: rest.2,
        trace_id: rest.3,
        span_id: rest.4,
        event_name: rest.5,
    })
}
