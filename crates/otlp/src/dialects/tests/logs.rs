//! Log records: how they are stored, and which are refused with which message.

use agentlens_domain::events::{EventType, NewEvent, Severity};
use agentlens_domain::spans::{ArrivalSource, SpanKind};
use serde_json::{Value as Json, json};

use super::super::{Context, events_of_logs, present};
use super::{log, log_request, read_logs, read_spans, span};

fn without_trace(short: &Json) -> opentelemetry_proto::tonic::logs::v1::LogRecord {
    let mut record = log(short);
    record.trace_id.clear();
    record.span_id.clear();
    record
}

#[test]
fn a_record_about_a_call_is_an_arrival_of_its_span() {
    for name in [
        "gen_ai.client.inference.operation.details",
        "gen_ai.user.message",
        "gen_ai.choice",
        "gen_ai.anything",
    ] {
        let normalised = read_logs(vec![log(&json!({"name": name, "ms": 5}))]);
        let event = &normalised.events[0];
        let arrival = event.span.as_deref().unwrap();
        assert_eq!((arrival.source, arrival.kind), (ArrivalSource::Log, None));
        assert_eq!(arrival.span_id, "0b0b0b0b0b0b0b0b");
        assert_eq!(event.session_id, "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a");
        assert_eq!((event.event_type, event.facts.name.as_deref()), (EventType::Custom, Some(name)));
        assert_eq!(event.facts.duration_us, None);
    }
}

#[test]
fn the_name_may_be_an_attribute() {
    let normalised = read_logs(vec![log(&json!({"attributes": {"event.name": "gen_ai.choice"}}))]);
    assert!(normalised.events[0].span.is_some());
    let payload: Json = serde_json::from_str(&normalised.events[0].payload).unwrap();
    assert_eq!((&payload["source"], &payload["eventName"]), (&json!("log"), &json!("gen_ai.choice")));
}

#[test]
fn other_records_of_a_span_arrive_with_it_and_do_not_fail_it() {
    let record = json!({"name": "user.clicked", "severity": 17, "body": "ouch", "attributes": {"session.id": "s1", "x": 1}});
    let normalised = read_logs(vec![log(&record)]);
    let event = &normalised.events[0];
    assert!(event.span.as_ref().is_some_and(|arrival| !arrival.is_error && arrival.kind.is_none()));
    assert_eq!((event.event_type, event.severity), (EventType::Custom, Severity::Error));
    assert_eq!((event.session_id.as_str(), event.facts.name.as_deref()), ("s1", Some("user.clicked")));
    assert!(normalised.clients[0].unmapped.is_empty());
}

#[test]
fn what_a_program_logs_says_nothing_of_the_call() {
    let words = json!({"cache_hit": true, "gen_ai.request.batch": true, "openai.response.service_tier": "flex", "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.cost": 1, "gen_ai.request.model": "gpt-4o", "gen_ai.response.id": "r",
        "time_to_first_token_ms": 3, "exception.message": "mine"});
    let call = read_spans(vec![span(&json!({"attributes": {"gen_ai.operation.name": "chat"},
        "status": {"code": "ERROR"}}))]);
    for name in ["cache.looked_up", "exception", ""] {
        let logged = read_logs(vec![log(&json!({"name": name, "attributes": words}))]);
        let arrival = logged.events[0].span.as_deref().unwrap();
        assert!(!arrival.is_cache_hit && arrival.service_tier.is_none() && !arrival.is_error, "{name}");
        assert_eq!((arrival.usage, arrival.reported_cost_nanos, arrival.first_token_us), (None, None, None));
        assert_eq!((&arrival.provider, &arrival.model, &arrival.response_id), (&None, &None, &None));
        let view = present(&[&call.events[0].payload, &logged.events[0].payload]);
        let told: Vec<&str> = [
            "cacheHit",
            "batch",
            "serviceTier",
            "usage",
            "costUsd",
            "model",
            "responseId",
            "timeToFirstTokenMs",
        ]
        .into_iter()
        .filter(|key| view.contains_key(*key))
        .collect();
        assert_eq!((told, &view["error"]), (vec![], &json!({})), "{name}");
        assert_eq!(view["events"][0]["attributes"]["cache_hit"], true, "it is shown as what it is");
    }
    let said = read_logs(vec![log(
        &json!({"name": "gen_ai.client.inference.operation.details", "attributes": words}),
    )]);
    assert!(said.events[0].span.as_deref().unwrap().is_cache_hit);
}

#[test]
fn an_evaluation_is_a_result_and_no_failure_of_the_span() {
    let record = json!({"name": "gen_ai.evaluation.result", "severity": 9,
        "attributes": {"gen_ai.evaluation.name": "relevance", "error.type": "timeout"}});
    let normalised = read_logs(vec![log(&record)]);
    let event = &normalised.events[0];
    assert_eq!(event.event_type, EventType::EvalResult);
    assert!(!event.span.as_deref().unwrap().is_error);
}

#[test]
fn an_exception_marks_its_span() {
    let record = json!({"name": "gen_ai.client.operation.exception", "severity": 13});
    let normalised = read_logs(vec![log(&record)]);
    assert!(normalised.events[0].span.as_deref().unwrap().is_error);
    assert_eq!(normalised.events[0].severity, Severity::Warn);
}

#[test]
fn records_without_a_trace_are_kept_in_the_session_that_fits_best() {
    let named = |attributes: Json| {
        without_trace(&json!({"name": "gen_ai.evaluation.result", "attributes": attributes}))
    };
    let records = || {
        vec![
            without_trace(&json!({"name": "user.clicked", "body": "a button"})),
            named(json!({})),
            named(json!({"gen_ai.response.id": "chatcmpl-1"})),
            named(json!({"gen_ai.conversation.id": "c1"})),
        ]
    };
    for (resource, home) in [
        (json!({}), "logs-unknown-2026-09-21"),
        (json!({"service.name": "shop"}), "logs-shop-2026-09-21"),
        (json!({"service.name": "shop", "service.instance.id": "i-1"}), "i-1"),
    ] {
        let normalised =
            events_of_logs(&log_request(records(), &json!({"resource": resource})), &super::CONTEXT);
        assert_eq!(normalised.refused, []);
        let sessions: Vec<&str> = normalised.events.iter().map(|event| event.session_id.as_str()).collect();
        assert_eq!(sessions, [home, home, "chatcmpl-1", "c1"]);
        assert!(normalised.events.iter().all(|event| event.span.is_none()));
    }
}

#[test]
fn a_record_without_a_time_is_known_again_when_it_is_sent_again() {
    let mut record =
        without_trace(&json!({"name": "gen_ai.evaluation.result", "attributes": {"session.id": "s"}}));
    record.time_unix_nano = 0;
    let request = log_request(vec![record], &Json::Null);
    let [first, again] = [1_790_000_100_000_000, 1_790_000_200_000_000]
        .map(|now_us| events_of_logs(&request, &Context { now_us }).events.remove(0));
    assert_ne!(first.ts_us, again.ts_us);
    assert_eq!((first.id, first.content_digest), (again.id, again.content_digest));
}

#[test]
fn severities_follow_the_numbers_or_the_words() {
    for (number, text, severity) in [
        (1, "", Severity::Debug),
        (8, "", Severity::Debug),
        (9, "", Severity::Info),
        (13, "", Severity::Warn),
        (17, "", Severity::Error),
        (21, "", Severity::Critical),
        (99, "", Severity::Critical),
        (-1, "", Severity::Info),
        (0, "", Severity::Info),
        (0, "WARNING", Severity::Warn),
        (0, "Error", Severity::Error),
        (0, "FATAL", Severity::Critical),
        (0, "Trace", Severity::Debug),
    ] {
        let mut record = log(&json!({"name": "gen_ai.choice", "severity": number}));
        record.severity_text = text.to_owned();
        assert_eq!(read_logs(vec![record]).events[0].severity, severity, "{number} {text}");
    }
}

/// A record of a client that sends no spans.
fn of_record(name: &str, attributes: &Json, service: &str) -> NewEvent {
    let record = without_trace(&json!({"name": name, "ms": 5000, "attributes": attributes}));
    let request = log_request(vec![record], &json!({"resource": {"service.name": service}}));
    let mut normalised = events_of_logs(&request, &super::CONTEXT);
    assert_eq!((&normalised.refused[..], normalised.events.len()), (&[][..], 1));
    normalised.events.remove(0)
}

#[test]
fn calls_that_only_log_records_tell_are_spans_of_their_own() {
    let claude = json!({"session.id": "s1", "user.id": "u1", "prompt.id": "p1", "event.name": "api_request",
        "model": "claude-sonnet-4-5", "input_tokens": "7", "output_tokens": 50, "cache_read_tokens": 100,
        "cache_creation_tokens": "200", "cost_usd": "0.0125", "duration_ms": "1500"});
    let codex = json!({"conversation.id": "s1", "event.kind": "response.completed", "model": "gpt-5",
        "input_token_count": "42", "output_token_count": "17", "cached_token_count": "30", "reasoning_token_count": "5"});
    let gemini = json!({"session.id": "s1", "prompt_id": "p1", "model": "gemini-2.5-pro", "input_token_count": 42,
        "output_token_count": 12, "cached_content_token_count": 30, "thoughts_token_count": 5, "total_token_count": 59,
        "duration_ms": 1500, "status_code": 200});
    let other = json!({"session.id": "s1", "model": "gpt-5", "prompt_tokens": 42, "completion_tokens": 17});
    for (name, attributes, service, usage, cost) in [
        ("claude_code.api_request", claude, "claude-code", (307, 50, 100, 0), Some(12_500_000)),
        ("codex.sse_event", codex, "codex_cli_rs", (42, 17, 30, 5), None),
        ("gemini_cli.api_response", gemini, "gemini-cli", (42, 17, 30, 5), None),
        (
            "qwen-code.api_response",
            json!({"session.id": "s1", "input_token_count": 42, "output_token_count": 17}),
            "qwen",
            (42, 17, 0, 0),
            None,
        ),
        ("my.model.answered", other, "mine", (42, 17, 0, 0), None),
    ] {
        let event = of_record(name, &attributes, service);
        let arrival = event.span.as_deref().unwrap();
        assert_eq!((event.event_type, event.session_id.as_str()), (EventType::LlmResponse, "s1"), "{name}");
        assert_eq!(
            (arrival.kind, arrival.source, arrival.is_error),
            (Some(SpanKind::Llm), ArrivalSource::Span, false)
        );
        let found = arrival.usage.unwrap();
        assert_eq!((found.input, found.output, found.cache_read, found.reasoning), usage, "{name}");
        assert_eq!((arrival.reported_cost_nanos, event.agent_id.as_str()), (cost, service), "{name}");
        assert_eq!((arrival.trace_id.len(), arrival.span_id.len()), (32, 16));
        let again = of_record(name, &attributes, service);
        assert_eq!(
            (&again.id, again.span.as_ref()),
            (&event.id, event.span.as_ref()),
            "sent again it is the same"
        );
        let view = present(&[&event.payload]);
        assert_eq!(
            (&view["kind"], &view["usage"]["inputTokens"]),
            (&json!("llm"), &json!(usage.0)),
            "{name}"
        );
        assert_eq!((&view["spanId"], &view["traceId"]), (&json!(arrival.span_id), &json!(arrival.trace_id)));
    }
    let timed = of_record("claude_code.api_request", &json!({"duration_ms": 1500}), "claude-code");
    assert_eq!(timed.facts.duration_us, Some(1_500_000));
}

#[test]
fn tools_and_failures_that_only_log_records_tell_are_spans_of_their_own() {
    for (name, attributes, kind, tool, is_error) in [
        (
            "claude_code.tool_result",
            json!({"tool_name": "Bash", "success": "true", "duration_ms": 20}),
            SpanKind::Tool,
            Some("Bash"),
            false,
        ),
        (
            "claude_code.tool_result",
            json!({"tool_name": "Bash", "success": "false", "error": "no"}),
            SpanKind::Tool,
            Some("Bash"),
            true,
        ),
        (
            "claude_code.api_error",
            json!({"model": "claude-sonnet-4-5", "error": "429", "status_code": 429}),
            SpanKind::Llm,
            None,
            true,
        ),
        (
            "codex.tool_result",
            json!({"tool_name": "shell", "call_id": "c", "success": "false", "output": "x"}),
            SpanKind::Tool,
            Some("shell"),
            true,
        ),
        (
            "codex.api_request",
            json!({"model": "gpt-5", "http.response.status_code": 503}),
            SpanKind::Llm,
            None,
            true,
        ),
        (
            "gemini_cli.tool_call",
            json!({"function_name": "read_file", "success": true}),
            SpanKind::Tool,
            Some("read_file"),
            false,
        ),
        (
            "gemini_cli.api_error",
            json!({"model": "gemini-2.5-pro", "error": "quota"}),
            SpanKind::Llm,
            None,
            true,
        ),
    ] {
        let event = of_record(name, &attributes, "cli");
        let arrival = event.span.as_deref().unwrap();
        assert_eq!(
            (arrival.kind, arrival.tool_name.as_deref(), arrival.is_error),
            (Some(kind), tool, is_error),
            "{name}"
        );
        assert_eq!(event.event_type == EventType::ToolError, is_error && kind == SpanKind::Tool, "{name}");
    }
    let failed = of_record(
        "claude_code.tool_result",
        &json!({"tool_name": "Bash", "success": "false", "error": "no such file"}),
        "cli",
    );
    assert_eq!(present(&[&failed.payload])["error"]["message"], "no such file");
}

#[test]
fn what_is_no_call_or_is_reported_by_another_record_too_is_an_event() {
    for (name, attributes, service) in [
        (
            "codex.api_request",
            json!({"model": "gpt-5", "http.response.status_code": 200, "success": true}),
            "codex",
        ),
        ("codex.sse_event", json!({"event.kind": "response.created"}), "codex"),
        ("gen_ai.client.inference.operation.details", json!({"gen_ai.usage.input_tokens": 1}), "gemini-cli"),
        ("claude_code.user_prompt", json!({"prompt": "hi", "prompt_length": 2}), "claude-code"),
    ] {
        let event = of_record(name, &attributes, service);
        assert_eq!((event.span.is_none(), event.event_type), (true, EventType::Custom), "{name}");
    }
}

/// Bug: a program's own log lines with token counts were counted as calls, also beside the spans of these calls.
#[test]
fn a_programs_own_record_is_a_call_only_if_it_names_a_model_and_no_trace() {
    let tokens = json!({"input_tokens": 100, "output_tokens": 50});
    let with = |key: &str, value: Json| {
        let mut attributes = super::object(&tokens);
        attributes.insert(key.to_owned(), value);
        Json::Object(attributes)
    };
    for (attributes, is_call) in [
        (tokens.clone(), false),
        (with("model", json!("")), false),
        (with("model", json!(4)), false),
        (with("model", json!("gpt-5")), true),
        (with("model_name", json!("gpt-5")), true),
        (with("gen_ai.request.model", json!("gpt-5")), true),
        (with("gen_ai.response.model", json!("gpt-5")), true),
    ] {
        let event = of_record("llm call finished", &attributes, "shop");
        let expected = if is_call { EventType::LlmResponse } else { EventType::Custom };
        assert_eq!((event.event_type, event.span.is_some()), (expected, is_call), "{attributes}");
        let mut in_trace = log(&json!({"name": "llm call finished", "attributes": attributes}));
        in_trace.span_id.clear();
        let event = read_logs(vec![in_trace]).events.remove(0);
        let found = (event.event_type, event.span.is_some(), event.session_id.as_str());
        let trace_id = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
        assert_eq!(found, (EventType::Custom, false, trace_id), "{attributes} in a trace");
    }
    let known = log(&json!({"name": "claude_code.api_request", "attributes": {"input_tokens": 1}}));
    let known = super::LogRecord { span_id: Vec::new(), ..known };
    assert!(read_logs(vec![known]).events[0].span.is_some(), "a client that sends no spans");
}

#[test]
fn calls_of_one_prompt_are_one_trace_and_those_of_a_span_lie_below_it() {
    let call = |prompt: &str, ms: i64| {
        let attributes = json!({"session.id": "s", "prompt.id": prompt, "input_tokens": 1});
        let mut record =
            without_trace(&json!({"name": "claude_code.api_request", "ms": ms, "attributes": attributes}));
        record.body = Some(super::any(&json!("claude_code.api_request")));
        record.event_name.clear();
        record.attributes.push(super::attribute("event.name", &json!("api_request")));
        read_logs(vec![record]).events.remove(0).span.unwrap()
    };
    let (first, second, other) = (call("p1", 1), call("p1", 2), call("p2", 3));
    assert_eq!(first.trace_id, second.trace_id);
    assert_ne!(first.span_id, second.span_id);
    assert_ne!(first.trace_id, other.trace_id);
    let inside =
        read_logs(vec![log(&json!({"name": "claude_code.api_request", "attributes": {"input_tokens": 1}}))]);
    let inside = inside.events[0].span.as_deref().unwrap();
    assert_eq!(inside.parent_span_id.as_deref(), Some("0b0b0b0b0b0b0b0b"));
    assert_eq!(
        (inside.trace_id.as_str(), inside.kind),
        ("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", Some(SpanKind::Llm))
    );
}
