//! Spans one by one: a bad one is refused with its reason, and its neighbours arrive.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use super::client::{JSON, PROTOBUF, Post, attribute, events, good, logs, now_nanos, record, span, traces};
use crate::world::World;

on_both_engines!(
    a_bad_span_is_refused_alone_and_says_why,
    a_large_attribute_is_cut_and_the_span_stays,
    bad_ids_in_json_are_refused_alone,
    undecodable_spans_are_refused_alone,
    logs_at_the_path_of_traces_are_told_where_they_belong,
    repeats_are_stored_once,
    many_refusals_are_counted_and_the_first_are_named,
    announced_spans_are_neither_stored_nor_lost,
    spans_older_than_the_retention_are_refused,
    spans_of_every_age_that_is_kept_arrive,
);

const HOUR_NANOS: u64 = 3_600_000_000_000;

async fn a_bad_span_is_refused_alone_and_says_why(world: World) {
    type Spoil = fn(&mut Span);
    let cases: [(Spoil, &[&str]); 10] = [
        (|span| span.trace_id = vec![1; 15], &["traceId", "15 bytes", "16"]),
        (|span| span.trace_id = vec![1; 32], &["traceId", "32 bytes", "16"]),
        (|span| span.trace_id = Vec::new(), &["traceId", "missing"]),
        (|span| span.trace_id = vec![0; 16], &["traceId", "zeros"]),
        (|span| span.span_id = vec![1; 7], &["spanId", "7 bytes", "8"]),
        (|span| span.span_id = Vec::new(), &["spanId", "missing"]),
        (|span| span.span_id = vec![0; 8], &["spanId", "zeros"]),
        (|span| span.start_time_unix_nano = 5, &["startTimeUnixNano", "2000"]),
        (|span| span.start_time_unix_nano += 25 * HOUR_NANOS, &["startTimeUnixNano", "24 hours"]),
        (|span| span.end_time_unix_nano = u64::MAX, &["endTimeUnixNano", "24 hours"]),
    ];
    for (number, (spoil, words)) in cases.iter().enumerate() {
        let trace = rand::random();
        let mut bad = span(trace, 2);
        spoil(&mut bad);
        let body = traces(vec![span(trace, 1), bad, span(trace, 3)]);
        let answer = Post::protobuf(&world, "/v1/traces", body).send(&world).await;
        let (rejected, message) = answer.rejected(&format!("case {number}"), "traces", PROTOBUF);
        assert_eq!(rejected, 1, "{message}");
        for word in [&["1 of 3 spans", "number 2"], *words].concat() {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert_eq!(events(&world, trace).await.len(), 2, "{message}");
    }
}

async fn a_large_attribute_is_cut_and_the_span_stays(world: World) {
    let trace = rand::random();
    let mut large = span(trace, 1);
    large.attributes.push(attribute("big", &"x".repeat(1_600_000)));
    let answer = Post::protobuf(&world, "/v1/traces", traces(vec![large])).send(&world).await;
    assert_eq!(answer.rejected("large", "traces", PROTOBUF), (0, String::new()));
    let event = &events(&world, trace).await[0];
    let id = event["id"].as_str().unwrap();
    let whole = world.read(&format!("/api/events/{id}")).await;
    assert!(whole.to_string().contains("[cut: 1600000 bytes, sha256 "), "{whole}");
}

async fn bad_ids_in_json_are_refused_alone(world: World) {
    let good_span = "\"00f067aa0ba902b7\"";
    for (trace_id, span_id) in [
        ("\"\"", good_span),
        ("null", good_span),
        ("\"00\"", good_span),
        ("\"00000000000000000000000000000000\"", good_span),
        ("\"0af7651916cd43dd8448eb211c80319c00\"", good_span),
        ("\"zaf7651916cd43dd8448eb211c80319c\"", good_span),
        ("5", good_span),
        ("{}", good_span),
        ("\"0af7651916cd43dd8448eb211c80319c\"", "\"\""),
        ("\"0af7651916cd43dd8448eb211c80319c\"", "\"0000000000000000\""),
        ("\"0af7651916cd43dd8448eb211c80319c\"", "\"nonsense\""),
        ("\"0af7651916cd43dd8448eb211c80319c\"", "[]"),
    ] {
        let trace: u128 = rand::random();
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":{trace_id},"spanId":{span_id},"name":"bad"}},
              {{"traceId":"{trace:032x}","spanId":{good_span},"name":"good"}}]}}]}}]}}"#
        );
        let answer = Post::json(&world, "/v1/traces", body).send(&world).await;
        let (rejected, message) = answer.rejected(trace_id, "traces", JSON);
        assert_eq!(rejected, 1, "{trace_id} {span_id}: {message}");
        assert!(message.contains("Id"), "{message}");
        assert_eq!(events(&world, trace).await.len(), 1, "{trace_id} {span_id}");
    }
}

/// A length-delimited field of a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 128 {
        field.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    [field, bytes.to_vec()].concat()
}

async fn undecodable_spans_are_refused_alone(world: World) {
    use prost::Message;
    let name_not_utf8 = field(5, b"\xff\xfe");
    let id_as_number = vec![0x08, 0x01];
    let cut_off = vec![0x0a, 0x10, 0x01];
    let wrong_group = vec![0x0c];
    for broken in [name_not_utf8, id_as_number, cut_off, wrong_group] {
        let trace = rand::random();
        let spans: Vec<Vec<u8>> =
            [span(trace, 1).encode_to_vec(), broken.clone(), span(trace, 2).encode_to_vec()]
                .iter()
                .map(|span| field(2, span))
                .collect();
        let body = field(1, &field(2, &spans.concat()));
        let answer = Post::protobuf(&world, "/v1/traces", body).send(&world).await;
        let (rejected, message) = answer.rejected("undecodable", "traces", PROTOBUF);
        assert_eq!(rejected, 1, "{broken:?}: {message}");
        assert!(message.contains("number 2"), "{message}");
        assert_eq!(events(&world, trace).await.len(), 2, "{broken:?}");
    }
    // Damage between the spans loses what stands behind it in its scope and nothing else.
    let trace = rand::random();
    let first = field(2, &[field(2, &span(trace, 1).encode_to_vec()), vec![0x0b]].concat());
    let second = field(2, &field(2, &span(trace, 2).encode_to_vec()));
    let answer = Post::protobuf(&world, "/v1/traces", field(1, &[first, second].concat())).send(&world).await;
    assert_eq!(answer.rejected("damage", "traces", PROTOBUF).0, 1);
    assert_eq!(events(&world, trace).await.len(), 2);
}

async fn logs_at_the_path_of_traces_are_told_where_they_belong(world: World) {
    let trace = rand::random();
    let body = logs(vec![record(trace, 1), record(trace, 2)]);
    let answer = Post::protobuf(&world, "/v1/traces", body).send(&world).await;
    let (rejected, message) = answer.rejected("logs", "traces", PROTOBUF);
    assert_eq!(rejected, 2, "{message}");
    assert!(message.contains("/v1/logs"), "{message}");
    assert!(events(&world, trace).await.is_empty());
}

async fn repeats_are_stored_once(world: World) {
    let trace = rand::random();
    let spans = vec![span(trace, 1), span(trace, 2)];
    let body = traces(spans.clone());
    let doubled = traces([spans.clone(), spans].concat());
    let other_key = world.make_key(&[]);
    for (api, body) in [
        (&world.same_key(), body.clone()),
        (&world.same_key(), body.clone()),
        (&world.same_key(), doubled),
        (&other_key, body),
    ] {
        let answer = Post::protobuf(api, "/v1/traces", body).send(&world).await;
        assert_eq!(answer.rejected("repeat", "traces", PROTOBUF), (0, String::new()));
        assert_eq!(events(&world, trace).await.len(), 2);
    }
    let ledger = world.read("/v1/ingest/ledger").await;
    let sum = |what: &str| {
        ledger["keys"].as_array().unwrap().iter().map(|key| key[what].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!((sum("received"), sum("stored")), (10, 2), "{ledger}");
}

async fn many_refusals_are_counted_and_the_first_are_named(world: World) {
    let trace = rand::random();
    let mut spans: Vec<Span> = (1..=1000).map(|number| span(trace, number)).collect();
    for span in &mut spans[500..] {
        span.trace_id.push(0);
    }
    let answer = Post::protobuf(&world, "/v1/traces", traces(spans)).send(&world).await;
    let (rejected, message) = answer.rejected("many", "traces", PROTOBUF);
    assert_eq!(rejected, 500);
    for part in ["500 of 1000 spans", "number 501", "number 505", "495 more"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("number 506") && message.len() < 1000, "{message}");
    assert_eq!(events(&world, trace).await.len(), 500);
    let ledger = world.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    assert_eq!((&key["received"], &key["stored"]), (&json!(1000), &json!(500)), "{ledger}");
    assert_eq!(key["refused"], json!({ "invalid_field": 500 }));
}

async fn announced_spans_are_neither_stored_nor_lost(world: World) {
    let trace = rand::random();
    let mut pending = span(trace, 1);
    pending.attributes.push(attribute("logfire.span_type", "pending_span"));
    let body = traces(vec![pending, span(trace, 2)]);
    let answer = Post::protobuf(&world, "/v1/traces", body).send(&world).await;
    assert_eq!(answer.rejected("pending", "traces", PROTOBUF), (0, String::new()));
    assert_eq!(events(&world, trace).await.len(), 1);
}

async fn spans_older_than_the_retention_are_refused(world: World) {
    let made = world.run_json(&["org", "create", "short", "--retention-days", "3"]);
    let short = world.with_key(made["api_key"].as_str().unwrap());
    let mut old = span(rand::random(), 1);
    old.start_time_unix_nano = now_nanos() - 96 * HOUR_NANOS;
    let body = traces(vec![old, span(rand::random(), 2)]);
    let answer = Post::protobuf(&short, "/v1/traces", body).send(&short).await;
    let (rejected, message) = answer.rejected("old", "traces", PROTOBUF);
    assert_eq!(rejected, 1, "{message}");
    assert!(message.contains("3 days"), "{message}");
    short.settled().await;
    assert_eq!(short.read("/api/events").await["total"], 1);
}

async fn spans_of_every_age_that_is_kept_arrive(world: World) {
    let trace = rand::random();
    let now = now_nanos();
    // (start, end), the last with neither and the one before with a clock that was set back.
    let times = [
        (now - 24 * 365 * HOUR_NANOS, now),
        (now, now + HOUR_NANOS),
        (0, now),
        (now, 0),
        (now, now - HOUR_NANOS),
        (0, 0),
    ];
    let spans = times.iter().zip(1..).map(|((start, end), number)| Span {
        start_time_unix_nano: *start,
        end_time_unix_nano: *end,
        ..span(trace, number)
    });
    let answer = Post::protobuf(&world, "/v1/traces", traces(spans.collect())).send(&world).await;
    assert_eq!(answer.rejected("ages", "traces", PROTOBUF), (0, String::new()));
    assert_eq!(events(&world, trace).await.len(), times.len());
    // Other requests are not affected.
    let answer = Post::protobuf(&world, "/v1/traces", good("traces")).send(&world).await;
    assert_eq!(answer.rejected("good", "traces", PROTOBUF).0, 0);
}
