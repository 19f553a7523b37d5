//! Which spans are refused with which message, and which never are.

use agentlens_domain::ledger::Reason;
use agentlens_domain::limits;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};

use super::super::events_of_traces;
use super::{CONTEXT, START_NS, any, attribute, event_of, read_spans, span, trace_request};

/// A change that breaks a span, and the refusal.
type Breakage = (fn(&mut Span), Reason, &'static str);

fn good() -> Span {
    span(&json!({"name": "good"}))
}

#[test]
fn one_bad_span_never_harms_a_good_one() {
    let broken: [Breakage; 9] = [
        (|span| span.trace_id.clear(), Reason::MissingField, "traceId is missing"),
        (|span| span.span_id.clear(), Reason::MissingField, "spanId is missing"),
        (|span| span.trace_id = vec![0; 16], Reason::InvalidField, "traceId must not be all zeros"),
        (|span| span.span_id = vec![0; 8], Reason::InvalidField, "spanId must not be all zeros"),
        (|span| span.trace_id = vec![1; 8], Reason::InvalidField, "traceId has 8 bytes and must have 16"),
        (
            |span| {
                span.trace_id.clear();
                span.span_id.clear();
            },
            Reason::MissingField,
            "traceId and spanId are missing; log records that are posted to /v1/traces look like this and belong to /v1/logs",
        ),
        (
            |span| span.start_time_unix_nano = 5,
            Reason::InvalidTimestamp,
            "startTimeUnixNano lies before 2000-01-01T00:00:00.000Z",
        ),
        (
            |span| span.start_time_unix_nano = u64::MAX,
            Reason::InvalidTimestamp,
            "startTimeUnixNano lies more than 24 hours in the future of the server's clock",
        ),
        (
            |span| span.end_time_unix_nano = u64::MAX,
            Reason::InvalidTimestamp,
            "endTimeUnixNano lies more than 24 hours in the future of the server's clock",
        ),
    ];
    for (break_it, reason, message) in broken {
        let mut bad = span(&json!({"name": "bad"}));
        break_it(&mut bad);
        let normalised = read_spans(vec![good(), bad, good()]);
        assert_eq!(normalised.events.len(), 2, "{message}");
        let refused = &normalised.refused[..];
        assert_eq!((refused.len(), refused[0].index, refused[0].reason), (1, 1, reason), "{message}");
        assert_eq!(refused[0].message, message);
        assert_eq!(normalised.clients[0].items, 3);
    }
}

#[test]
fn times_that_are_missing_are_made_up_for() {
    let times = |start: u64, end: u64| {
        let mut span = good();
        span.start_time_unix_nano = start;
        span.end_time_unix_nano = end;
        let event = read_spans(vec![span]).events.remove(0);
        let arrival = event.span.unwrap();
        assert_eq!(event.ts_us, arrival.start_us);
        (arrival.start_us, arrival.end_us)
    };
    let start_us = i64::try_from(START_NS / 1000).unwrap();
    assert_eq!(times(START_NS, START_NS + 2000), (start_us, start_us + 2));
    assert_eq!(times(0, START_NS), (start_us, start_us));
    assert_eq!(times(START_NS, 0), (start_us, start_us));
    assert_eq!(times(0, 0), (CONTEXT.now_us, CONTEXT.now_us));
    // A clock that was set back.
    assert_eq!(times(START_NS, START_NS - 1000), (start_us, start_us));
}

#[test]
fn a_large_part_of_a_payload_is_cut_and_the_facts_stay() {
    let image = "iVBORw0KGgo+/".repeat(limits::MAX_PAYLOAD_BYTES / 10);
    let messages = json!([{"role": "user", "parts": [{"type": "text", "content": "What is this?"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": image}]}]);
    let facts = json!({"session.id": "s", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1500, "gen_ai.usage.output_tokens": 50,
        "gen_ai.output.messages": "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"A cat\"}]}]"});
    for large in [
        ("gen_ai.input.messages", json!(messages.to_string())),
        ("gen_ai.input.messages", messages.clone()),
        ("llm.input_messages.0.message.content", json!(format!("data:image/png;base64,{image}"))),
        ("gen_ai.input.messages", json!(vec![messages[0]["parts"][0].clone(); 100_000])),
    ] {
        let mut attributes = facts.clone();
        attributes[large.0] = large.1;
        let normalised = read_spans(vec![span(&json!({"attributes": attributes}))]);
        assert_eq!(normalised.refused, []);
        let event = &normalised.events[0];
        assert!(event.payload.len() <= limits::MAX_PAYLOAD_BYTES);
        let usage = event.facts.usage.unwrap();
        assert_eq!((usage.input, usage.output, event.session_id.as_str()), (1500, 50, "s"));
        let view = super::super::present(&[&event.payload]);
        assert_eq!((&view["completion"], &view["usage"]["inputTokens"]), (&json!("A cat"), &json!(1500)));
        if large.0 == "gen_ai.input.messages"
            && event.payload.len() < 10_000
            && event.payload.contains("What")
        {
            assert_eq!(view["inputMessages"][0]["parts"][0]["content"], "What is this?");
        }
    }
}

#[test]
fn a_payload_of_too_many_parts_is_refused_with_its_size() {
    let mut large = good();
    for _ in 0..3 {
        let part = "x ".repeat(limits::MAX_PAYLOAD_BYTES / 4);
        large.trace_state.push_str(&part);
    }
    assert_eq!(read_spans(vec![large]).refused, [], "a text of the span itself is cut too");
}

#[test]
fn bottomless_attributes_are_refused() {
    let mut value = any(&json!(1));
    for _ in 0..200 {
        let array = opentelemetry_proto::tonic::common::v1::ArrayValue { values: vec![value] };
        value = opentelemetry_proto::tonic::common::v1::AnyValue {
            value: Some(opentelemetry_proto::tonic::common::v1::any_value::Value::ArrayValue(array)),
        };
    }
    let mut deep = good();
    deep.attributes.push(opentelemetry_proto::tonic::common::v1::KeyValue {
        key: "deep".to_owned(),
        value: Some(value),
        ..Default::default()
    });
    let normalised = read_spans(vec![deep, good()]);
    assert_eq!(normalised.refused[0].reason, Reason::UnstorableJson);
    assert_eq!(normalised.refused[0].message, "attributes are nested deeper than 100 levels");
    assert_eq!(normalised.events.len(), 1);
}

#[test]
fn pending_spans_are_dropped() {
    let pending = span(&json!({"attributes": {"logfire.span_type": "pending_span"}}));
    let normalised = read_spans(vec![pending]);
    assert_eq!((normalised.events.len(), normalised.refused[0].reason), (0, Reason::Duplicate));
}

#[test]
fn a_parent_that_is_no_id_is_no_parent() {
    for parent in [vec![], vec![0; 8], vec![1; 3]] {
        let mut orphan = good();
        orphan.parent_span_id = parent;
        assert_eq!(read_spans(vec![orphan]).events[0].span.as_deref().unwrap().parent_span_id, None);
    }
}

#[test]
fn of_a_key_that_comes_twice_the_last_value_stays() {
    let mut twice = good();
    twice.attributes = vec![
        attribute("gen_ai.agent.name", &json!("first")),
        attribute("x", &json!({"a": 1})),
        attribute("gen_ai.agent.name", &json!("last")),
    ];
    let event = read_spans(vec![twice]).events.remove(0);
    let payload: Json = serde_json::from_str(&event.payload).unwrap();
    assert_eq!(payload["attributes"], json!({"x": {"a": 1}, "gen_ai.agent.name": "last"}));
    assert_eq!(event.agent_id, "last");
    let mut request = trace_request(vec![good()], &Json::Null);
    let resource = request.resource_spans[0].resource.as_mut().unwrap();
    resource.attributes =
        vec![attribute("service.name", &json!("first")), attribute("service.name", &json!("last"))];
    let event = events_of_traces(&request, &CONTEXT).events.remove(0);
    let payload: Json = serde_json::from_str(&event.payload).unwrap();
    assert_eq!((&payload["resource"], &*event.agent_id), (&json!({"service.name": "last"}), "last"));
}

#[test]
fn secrets_are_taken_out_before_anything_is_kept() {
    let event = event_of(&json!({
        "ai.request.headers.authorization": "Bearer sk-1", "ai.request.headers.user-agent": "ai/7",
        "llm.headers": "{'x-api-key': 'sk-2'}", "http.request.header.cookie": ["sk-3"],
        "http.request.header.api-key": ["sk-4"], "nested": {"llm.headers": "sk-5"},
    }));
    assert!(!event.payload.contains("sk-"), "{}", event.payload);
    let payload: Json = serde_json::from_str(&event.payload).unwrap();
    assert_eq!(payload["attributes"]["ai.request.headers.user-agent"], "ai/7");
    assert_eq!(payload["attributes"]["llm.headers"], "[redacted]");
}

#[test]
fn every_kind_of_value_is_kept() {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    let mut rich = good();
    for (key, value) in [
        ("wide", Any::IntValue(i64::MAX)),
        ("nan", Any::DoubleValue(f64::NAN)),
        ("infinity", Any::DoubleValue(f64::NEG_INFINITY)),
        ("double", Any::DoubleValue(1.5e-7)),
        ("bytes", Any::BytesValue(vec![1, 2, 3])),
        ("flag", Any::BoolValue(true)),
    ] {
        rich.attributes.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }
    rich.attributes.push(KeyValue { key: "nothing".to_owned(), ..KeyValue::default() });
    let event = read_spans(vec![rich]).events.remove(0);
    assert!(event.holds_wide_numbers);
    for part in [
        "\"wide\":9223372036854775807",
        "\"nan\":\"NaN\"",
        "\"infinity\":\"-Infinity\"",
        "\"double\":1.5e-7",
        "\"bytes\":\"AQID\"",
        "\"flag\":true",
        "\"nothing\":null",
    ] {
        assert!(event.payload.contains(part), "{part} is not in {}", event.payload);
    }
}

#[test]
fn ids_name_the_content() {
    let event = event_of(&json!({"a": 1}));
    assert_eq!(event, event_of(&json!({"a": 1})));
    assert_ne!(event.id, event_of(&json!({"a": 2})).id);
    assert!(event.id.starts_with("otel_") && event.id.len() == 31, "{}", event.id);
    assert!(
        event.id[5..].bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()),
        "{}",
        event.id
    );
    assert_eq!((event.content_digest, event.metadata.as_str()), (None, "{}"));
}

#[test]
fn attributes_that_nothing_reads_are_told() {
    let mut normalised =
        read_spans(vec![span(&json!({"attributes": {"my.own": 1, "gen_ai.request.model": "m"}})), good()]);
    let client = normalised.clients.remove(0);
    assert_eq!(client.items, 2);
    assert_eq!(client.unmapped.into_iter().collect::<Vec<_>>(), [("my.own".to_owned(), 1)]);
}

#[test]
fn a_resource_that_every_span_would_carry_is_cut() {
    let many: serde_json::Map<String, Json> =
        (0..10_000).map(|at| (format!("key {at}"), json!("value"))).collect();
    for resource in [
        json!({"x": "y".repeat(70_000), "service.name": "s"}),
        json!({"x": "y ".repeat(70_000), "service.name": "s"}),
        json!({"service.name": "s", "x": many}),
    ] {
        let surroundings = json!({"resource": resource, "scope": {"name": "z ".repeat(70_000)}});
        let normalised = events_of_traces(&trace_request(vec![good(), good()], &surroundings), &CONTEXT);
        assert_eq!((normalised.events.len(), &normalised.refused[..]), (2, &[][..]));
        let event = &normalised.events[0];
        assert!(event.payload.len() < limits::MAX_METADATA_BYTES + 1000, "{}", event.payload.len());
        assert_eq!((event.agent_id.as_str(), event.payload.contains("[cut: ")), ("s", true));
    }
}

#[test]
fn a_small_request_cannot_fill_the_memory() {
    let surroundings = json!({"resource": {"x": "y".repeat(60_000)}});
    let normalised = events_of_traces(&trace_request(vec![good(); 5000], &surroundings), &CONTEXT);
    let bytes: usize = normalised.events.iter().map(|event| event.payload.len()).sum();
    assert!(bytes < 129 * 1024 * 1024, "{bytes}");
    assert_eq!(normalised.events.len() + normalised.refused.len(), 5000);
    assert!(normalised.refused[0].message.contains("send smaller batches"));
}

#[test]
fn repeated_keys_take_no_longer_than_others() {
    let mut many = good();
    many.attributes =
        (0..20_000).map(|number| attribute(&format!("k{}", number / 2), &json!(number))).collect();
    let event = read_spans(vec![many]).events.remove(0);
    let payload: Json = serde_json::from_str(&event.payload).unwrap();
    let attributes = payload["attributes"].as_object().unwrap();
    assert_eq!((attributes.len(), &attributes["k0"]), (10_000, &json!(1)));
}
