//! Log records: which are kept, as what, and which are refused with which sentence.

use agentlens_domain::events::{EventType, Severity};
use agentlens_domain::ledger::Reason;
use agentlens_domain::spans::ArrivalSource;
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
    let words = json!({"cache_hit": true, "gen_ai.request.batch": true, "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.cost": 1, "gen_ai.request.model": "gpt-4o", "gen_ai.response.id": "r",
        "time_to_first_token_ms": 3, "exception.message": "mine"});
    let call = read_spans(vec![span(&json!({"attributes": {"gen_ai.operation.name": "chat"},
        "status": {"code": "ERROR"}}))]);
    for name in ["cache.looked_up", "exception", ""] {
        let logged = read_logs(vec![log(&json!({"name": name, "attributes": words}))]);
        let arrival = logged.events[0].span.as_deref().unwrap();
        assert!(!arrival.is_cache_hit && !arrival.is_batch && !arrival.is_error, "{name}");
        assert_eq!((arrival.usage, arrival.reported_cost_nanos, arrival.first_token_us), (None, None, None));
        assert_eq!((&arrival.provider, &arrival.model, &arrival.response_id), (&None, &None, &None));
        let view = present(&[&call.events[0].payload, &logged.events[0].payload]);
        let told: Vec<&str> =
            ["cacheHit", "batch", "usage", "costUsd", "model", "responseId", "timeToFirstTokenMs"]
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
fn records_without_a_trace_need_something_to_belong_to() {
    let normalised = read_logs(vec![
        without_trace(&json!({"name": "user.clicked"})),
        without_trace(&json!({"name": "gen_ai.evaluation.result"})),
        without_trace(
            &json!({"name": "gen_ai.evaluation.result", "attributes": {"gen_ai.response.id": "chatcmpl-1"}}),
        ),
        without_trace(
            &json!({"name": "gen_ai.evaluation.result", "attributes": {"gen_ai.conversation.id": "c1"}}),
        ),
    ]);
    let refused: Vec<(usize, Reason)> =
        normalised.refused.iter().map(|refused| (refused.index, refused.reason)).collect();
    assert_eq!(refused, [(0, Reason::MissingField), (1, Reason::MissingField)]);
    assert!(normalised.refused[0].message.contains("traceId is missing"));
    let sessions: Vec<&str> = normalised.events.iter().map(|event| event.session_id.as_str()).collect();
    assert_eq!(sessions, ["chatcmpl-1", "c1"]);
    assert!(normalised.events.iter().all(|event| event.span.is_none()));
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
