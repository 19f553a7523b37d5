//! Log records and metrics: what is kept of them.

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::json;

use super::client::{PROTOBUF, Post, attribute, events, logs, metrics, record, span, traces};
use crate::world::World;

on_both_engines!(
    records_of_a_trace_are_events,
    records_without_a_trace_are_kept,
    a_client_that_sends_only_log_records_becomes_a_session,
    a_programs_own_lines_about_tokens_are_no_calls,
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

/// A record outside of any span, in the words of `attributes`.
fn told(name: &str, attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        event_name: name.to_owned(),
        trace_id: Vec::new(),
        span_id: Vec::new(),
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        ..record(0, 1)
    }
}

async fn records_without_a_trace_are_kept(world: World) {
    let records = vec![told("some.event", &[]), told("other.event", &[("session.id", "s1")])];
    assert_eq!(send(&world, records).await, (0, String::new()));
    world.settled().await;
    let list = world.read("/api/events").await;
    let events = list["events"].as_array().unwrap();
    let mut sessions: Vec<&str> = events.iter().map(|event| event["sessionId"].as_str().unwrap()).collect();
    sessions.sort_unstable();
    assert_eq!((sessions.len(), sessions[1]), (2, "s1"), "{list}");
    assert!(sessions[0].starts_with("logs-"), "{list}");
}

async fn a_client_that_sends_only_log_records_becomes_a_session(world: World) {
    let session = ("session.id", "code-1");
    let call = |input: &str, cost: &str| {
        let usage = [("input_tokens", input), ("output_tokens", "50"), ("cache_read_tokens", "100")];
        let words = [
            session,
            ("prompt.id", "p1"),
            ("model", "claude-sonnet-4-5"),
            ("duration_ms", "1500"),
            ("cost_usd", cost),
        ];
        told("claude_code.api_request", &[&words[..], &usage[..]].concat())
    };
    let tool = |success: &str| {
        told(
            "claude_code.tool_result",
            &[session, ("tool_name", "Bash"), ("success", success), ("duration_ms", "20")],
        )
    };
    let records = vec![
        told("claude_code.user_prompt", &[session, ("prompt", "fix it"), ("user.id", "mary")]),
        call("7", "0.25"),
        tool("true"),
        tool("false"),
        call("8", "0.5"),
        told("claude_code.api_error", &[session, ("model", "claude-sonnet-4-5"), ("error", "overloaded")]),
    ];
    // What is sent again counts once.
    for _ in 0..2 {
        assert_eq!(send(&world, records.clone()).await, (0, String::new()));
        world.settled().await;
    }
    let found = world.read("/api/sessions/code-1").await;
    let counted = [
        "llmCallCount",
        "toolCallCount",
        "errorCount",
        "totalInputTokens",
        "totalOutputTokens",
        "eventCount",
    ];
    assert_eq!(counted.map(|key| found[key].as_i64().unwrap()), [3, 2, 2, 215, 100, 6], "{found}");
    assert_eq!((&found["totalCostUsd"], &found["userId"]), (&json!(0.75), &json!("mary")));
    let models = world.read("/api/analytics/llm").await;
    assert_eq!(models["summary"]["totalCalls"], 3, "{models}");
    let timeline = world.timeline("code-1").await;
    assert!(timeline.iter().any(|event| event["eventType"] == "tool_error"), "{timeline:#?}");
    let trace = world.read("/api/sessions/code-1/trace").await;
    assert!(trace.to_string().contains("chat claude-sonnet-4-5"), "{trace}");
}

async fn a_programs_own_lines_about_tokens_are_no_calls(world: World) {
    let tokens = [("session.id", "shop-1"), ("input_tokens", "100"), ("output_tokens", "50")];
    let with_model = [&tokens[..], &[("model", "gpt-4o")]].concat();
    let in_trace = LogRecord { trace_id: record(7, 1).trace_id, ..told("call finished", &with_model) };
    let records = vec![told("budget so far", &tokens), in_trace, told("call finished", &with_model)];
    assert_eq!(send(&world, records).await, (0, String::new()));
    world.settled().await;
    let list = world.read("/api/events").await;
    let kinds: Vec<_> = list["events"].as_array().unwrap().iter().map(|event| &event["eventType"]).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "custom").count(), 2, "{list}");
    let found = world.read("/api/sessions/shop-1").await;
    let counted = ["llmCallCount", "totalInputTokens", "totalOutputTokens"];
    assert_eq!(counted.map(|key| found[key].as_i64().unwrap()), [1, 100, 50], "{found}");
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
