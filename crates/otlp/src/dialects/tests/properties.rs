//! For any input nothing panics, no key is lost, and the stored payload is canonical and readable.

use agentlens_domain::json::canonicalize;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use proptest::prelude::*;
use serde_json::Value as Json;
use std::collections::BTreeMap;

use super::super::field::Field;
use super::super::present;
use super::super::table::table;
use super::{START_NS, read_logs, read_spans};

/// Known keys, members of families, and random keys.
fn key() -> impl Strategy<Value = String> {
    let known: Vec<String> = Field::EVERY.iter().flat_map(|field| table().keys(*field).to_vec()).collect();
    let kinds = [
        "langfuse.observation.type",
        "openinference.span.kind",
        "gen_ai.operation.name",
        "traceloop.span.kind",
        "ai.operationId",
        "mlflow.spanType",
        "session.id",
        "gen_ai.conversation.id",
    ];
    let known: Vec<String> = known.into_iter().chain(kinds.map(str::to_owned)).collect();
    prop_oneof![
        4 => proptest::sample::select(known),
        1 => "(llm\\.input_messages|llm\\.output_messages|gen_ai\\.prompt|gen_ai\\.completion|llm\\.tools)\\.[0-9]{1,12}\\.(message\\.)?(role|content|tool_calls\\.[0-9]\\.name|contents\\.0\\.message_content\\.type)",
        1 => "\\PC{0,12}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => proptest::sample::select(vec![
            "", "llm", "LLM", "TOOL", "chat", "execute_tool", "agent", "true", "42", "-1", "1e400", "NaN", "\"quoted\"",
            "{}", "[]", "{\"messages\":[[{\"lc\":1,\"kwargs\":{}}]]}", "[{\"role\":\"user\",\"parts\":[null,1,\"a\",{}]}]",
            "{\"choices\":[{\"message\":{\"tool_calls\":[{}]}}]}", "{\"generations\":[[]]}", "{\"id\":\"chatcmpl-1\",\"model\":3}",
            "{\"args\":[],\"kwargs\":{}}", "{\"input\":4,\"output\":-1}", "[1,2,3]", "{\"prompt_tokens\":\"x\"}",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        4 => text().prop_map(Any::StringValue),
        1 => any::<bool>().prop_map(Any::BoolValue),
        2 => any::<i64>().prop_map(Any::IntValue),
        // Eighths, because the reader of payloads may be wrong in the last bit of other doubles.
        2 => any::<i32>().prop_map(|eighths| Any::DoubleValue(f64::from(eighths) / 8.0)),
        1 => proptest::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX, 5e-324])
            .prop_map(Any::DoubleValue),
        1 => proptest::collection::vec(any::<u8>(), 0..8).prop_map(Any::BytesValue),
        1 => any::<i32>().prop_map(Any::StringValueStrindex),
    ];
    let any = proptest::option::weighted(0.95, leaf).prop_map(|value| AnyValue { value });
    any.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(Any::ArrayValue(ArrayValue { values })) }),
            proptest::collection::vec((key(), inner), 0..4).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| pair(key, Some(value))).collect();
                AnyValue { value: Some(Any::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

fn pair(key: String, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key, value, ..KeyValue::default() }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let some = proptest::collection::btree_map(key(), proptest::option::weighted(0.95, value()), 0..20);
    some.prop_map(|pairs: BTreeMap<_, _>| pairs.into_iter().map(|(key, value)| pair(key, value)).collect())
}

fn event() -> impl Strategy<Value = Event> {
    let names = vec![
        "exception",
        "gen_ai.choice",
        "gen_ai.user.message",
        "gen_ai.content.prompt",
        "First Token Stream Event",
        "x",
        "",
    ];
    (proptest::sample::select(names), any::<u64>(), attributes()).prop_map(
        |(name, time_unix_nano, attributes)| Event {
            time_unix_nano,
            name: name.to_owned(),
            attributes,
            ..Event::default()
        },
    )
}

fn spans() -> impl Strategy<Value = Span> {
    let status = proptest::option::of(
        (any::<String>(), -1..5_i32).prop_map(|(message, code)| Status { message, code }),
    );
    (any::<String>(), attributes(), proptest::collection::vec(event(), 0..4), status, 0..10_000_000_000_u64)
        .prop_map(|(name, attributes, events, status, length)| Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name,
            start_time_unix_nano: START_NS,
            end_time_unix_nano: START_NS + length,
            attributes,
            events,
            status,
            ..Span::default()
        })
}

fn logs() -> impl Strategy<Value = LogRecord> {
    let names = vec![
        "gen_ai.choice",
        "gen_ai.user.message",
        "gen_ai.client.inference.operation.details",
        "gen_ai.evaluation.result",
        "gen_ai.client.operation.exception",
        "other",
    ];
    (proptest::sample::select(names), attributes(), proptest::option::of(value()), any::<i32>()).prop_map(
        |(name, attributes, body, severity_number)| LogRecord {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            time_unix_nano: START_NS,
            event_name: name.to_owned(),
            attributes,
            body,
            severity_number,
            ..LogRecord::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_span_panics_and_no_key_is_lost(span in spans()) {
        let keys: Vec<String> = span.attributes.iter().map(|pair| pair.key.clone()).collect();
        let normalised = read_spans(vec![span]);
        prop_assert_eq!(&normalised.refused, &[]);
        let event = &normalised.events[0];
        let payload: Json = serde_json::from_str(&event.payload).unwrap();
        for key in keys {
            prop_assert!(payload["attributes"].get(&key).is_some(), "{key:?} is not in {payload}");
        }
        let canonical = canonicalize(&event.payload).unwrap();
        prop_assert_eq!(&canonical.lossless.unwrap_or(canonical.text), &event.payload);
        let view = present(&[&event.payload]);
        prop_assert_eq!(view["kind"].as_str(), event.span.as_deref().unwrap().kind.map(|kind| kind.as_str()));
    }

    #[test]
    fn what_is_shown_is_what_was_counted(span in spans()) {
        let event = read_spans(vec![span]).events.remove(0);
        let arrival = event.span.unwrap();
        let view = present(&[&event.payload]);
        let tokens = view.get("usage").map(|usage| (usage["inputTokens"].as_i64().unwrap(), usage["outputTokens"].as_i64().unwrap()));
        prop_assert_eq!(tokens, arrival.usage.map(|usage| (usage.input, usage.output)));
        prop_assert_eq!(view.contains_key("error"), arrival.is_error);
        let text = |key: &str| view.get(key).and_then(Json::as_str).map(str::to_owned);
        prop_assert_eq!(text("provider"), arrival.provider);
        prop_assert_eq!(text("responseId"), arrival.response_id);
    }

    #[test]
    fn order_does_not_matter(first in spans(), second in spans(), log in logs()) {
        let mut payloads: Vec<String> = read_spans(vec![first, second]).events.into_iter().map(|event| event.payload).collect();
        payloads.extend(read_logs(vec![log]).events.into_iter().map(|event| event.payload));
        let forwards = present(&payloads.iter().map(String::as_str).collect::<Vec<_>>());
        let backwards = present(&payloads.iter().rev().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(serde_json::to_string(&forwards).unwrap(), serde_json::to_string(&backwards).unwrap());
    }
}
