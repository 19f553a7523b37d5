//! Log records and metrics: what is kept of them.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::json;

use super::client::{PROTOBUF, Post, attribute, events, logs, metrics, record, span, traces};
use crate::world::World;

on_both_engines!(
    records_of_a_trace_are_events,
    records_that_belong_nowhere_are_refused_alone,
    a_bad_record_is_refused_alone,
    severities_are_read,
    metrics_are_taken_and_not_stored,
    broken_metrics_are_told,
);

async fn send(world: &World, records: Vec<LogRecord>) -> (i64, String) {
    Post::protobuf(world, "/v1/logs", logs(records)).send(world).await.rejected("logs", "logs", PROTOBUF)
}

async fn records_of_a_trace_are_events(world: World) {
    let trace = rand::random();
    let program = LogRecord {
        event_name: String::new(),
        body: Some(AnyValue { value: Some(Any::StringValue("a line".to_owned())) }),
        ..record(trace, 3)
    };
    let without_span = LogRecord { span_id: Vec::new(), ..record(trace, 4) };
    assert_eq!(send(&world, vec![record(trace, 1), program, without_span]).await, (0, String::new()));
    assert_eq!(events(&world, trace).await.len(), 3);
    // The spans may come later or have come before.
    let body = traces(vec![span(trace, 1)]);
    assert_eq!(Post::protobuf(&world, "/v1/traces", body).send(&world).await.status, 200);
    let now = events(&world, trace).await;
    assert_eq!(now.len(), 3, "{now:#?}");
    let arrivals = |event: &serde_json::Value| event["span"]["eventIds"].as_array().map_or(0, Vec::len);
    assert_eq!(now.iter().map(arrivals).max(), Some(2), "span and record are one: {now:#?}");
}

async fn records_that_belong_nowhere_are_refused_alone(world: World) {
    let trace = rand::random();
    let homeless = LogRecord { event_name: "some.event".to_owned(), trace_id: Vec::new(), ..record(0, 1) };
    let (rejected, message) = send(&world, vec![homeless, record(trace, 1)]).await;
    assert_eq!(rejected, 1);
    for part in ["1 of 2 log records", "number 1", "traceId"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(events(&world, trace).await.len(), 1);
}

async fn a_bad_record_is_refused_alone(world: World) {
    let trace = rand::random();
    for bad in [
        LogRecord { time_unix_nano: 5, ..record(trace, 1) },
        LogRecord { time_unix_nano: u64::MAX, ..record(trace, 1) },
    ] {
        let trace = rand::random();
        let (rejected, message) = send(&world, vec![record(trace, 1), bad, record(trace, 2)]).await;
        assert_eq!(rejected, 1, "{message}");
        assert!(message.contains("number 2"), "{message}");
        assert_eq!(events(&world, trace).await.len(), 2, "{message}");
    }
}

async fn severities_are_read(world: World) {
    for (number, text, expected) in [
        (1, "", "debug"),
        (8, "", "debug"),
        (9, "", "info"),
        (13, "", "warn"),
        (17, "", "error"),
        (24, "", "critical"),
        (0, "WARNING", "warn"),
        (0, "fatal", "critical"),
        (0, "", "info"),
    ] {
        let trace = rand::random();
        let record =
            LogRecord { severity_number: number, severity_text: text.to_owned(), ..record(trace, 1) };
        assert_eq!(send(&world, vec![record]).await.0, 0);
        assert_eq!(events(&world, trace).await[0]["severity"], expected, "{number} {text}");
    }
}

async fn metrics_are_taken_and_not_stored(world: World) {
    let answer = Post::protobuf(&world, "/v1/metrics", metrics(7)).send(&world).await;
    assert_eq!(answer.rejected("metrics", "metrics", PROTOBUF), (0, String::new()));
    world.settled().await;
    assert_eq!(world.read("/api/events").await["total"], 0);
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"], json!([]));
    let text = world.answer(world.bare("GET", "/metrics")).await.text;
    assert!(text.contains("agentlens_otlp_items_total{signal=\"metrics\",outcome=\"accepted\"} 7"), "{text}");
}

async fn broken_metrics_are_told(world: World) {
    // A resource with a scope with one metric whose name is not UTF-8.
    let body = b"\x0a\x07\x12\x05\x12\x03\x0a\x01\xff";
    let answer = Post::protobuf(&world, "/v1/metrics", &body[..]).send(&world).await;
    let (rejected, message) = answer.rejected("broken", "metrics", PROTOBUF);
    assert_eq!(rejected, 1);
    assert!(message.contains("metric number 1"), "{message}");
}
