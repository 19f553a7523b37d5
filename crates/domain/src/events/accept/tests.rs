use super::*;

const NOW_US: i64 = 1_767_323_045_678_000;

fn accept_one(raw: &str) -> Result<NewEvent, Refusal> {
    let mut ids = UlidSequence::at(NOW_US);
    accept(raw, 0, &mut AcceptContext { now_us: NOW_US, ids: &mut ids, idempotency: None })
}

fn event(fields: &str) -> String {
    format!(r#"{{"sessionId":"s","agentId":"a",{fields}}}"#)
}

fn custom(extra: &str) -> String {
    event(&format!(r#""eventType":"custom","payload":{{"type":"x","data":{{}}}}{extra}"#))
}

#[test]
fn a_plain_event_is_read_whole() {
    let accepted = accept_one(
        r#"{"sessionId":"s1","agentId":"a1","eventType":"llm_response","severity":"warn","timestamp":"2026-01-02T05:04:05.678+02:00",
            "payload":{"callId":"c","provider":"openai","model":"gpt-4o","completion":null,"finishReason":"stop",
            "usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15},"costUsd":0.0025,"latencyMs":12.5},"metadata":{"userId":"u1"}}"#,
    )
    .unwrap();
    assert_eq!(accepted.ts_us, NOW_US);
    assert_eq!(accepted.timestamp, "2026-01-02T05:04:05.678+02:00");
    assert_eq!(accepted.severity, Severity::Warn);
    assert_eq!(accepted.facts.model.as_deref(), Some("gpt-4o"));
    assert_eq!(accepted.facts.duration_us, Some(12_500));
    assert_eq!(accepted.facts.reported_cost_nanos, Some(2_500_000));
    assert_eq!(accepted.facts.user_id.as_deref(), Some("u1"));
    let usage = accepted.facts.usage.unwrap();
    assert_eq!((usage.input, usage.output), (10, 5));
    assert!(!accepted.payload.contains(' '));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn refusals_name_field_and_reason() {
    let cases = [
        ("[]", "event", Reason::InvalidField),
        (r#"{"agentId":"a","eventType":"custom","payload":{}}"#, "sessionId", Reason::MissingField),
        (r#"{"sessionId":"s","eventType":"custom","payload":{}}"#, "agentId", Reason::MissingField),
        (
            r#"{"sessionId":5,"agentId":"a","eventType":"custom","payload":{}}"#,
            "sessionId",
            Reason::InvalidField,
        ),
        (
            r#"{"sessionId":"s","sessionId":"t","agentId":"a","eventType":"custom","payload":{}}"#,
            "event",
            Reason::UnstorableJson,
        ),
        (
            r#"{"sessionId":"a\u0000b","agentId":"a","eventType":"custom","payload":{}}"#,
            "sessionId",
            Reason::InvalidField,
        ),
        (
            r#"{"sessionId":"\ud800","agentId":"a","eventType":"custom","payload":{}}"#,
            "sessionId",
            Reason::InvalidField,
        ),
        (&event(r#""eventType":"nope","payload":{}"#), "eventType", Reason::UnknownEventType),
        (&event(r#""eventType":"eval_result","payload":{}"#), "eventType", Reason::ServerOnlyEventType),
        (&event(r#""eventType":"custom""#), "payload", Reason::MissingField),
        (&event(r#""eventType":"custom","payload":"x""#), "payload", Reason::InvalidField),
        (
            &event(r#""eventType":"custom","payload":{"type":"x","data":[]}"#),
            "payload.data",
            Reason::InvalidField,
        ),
        (
            &event(r#""eventType":"custom","payload":{"type":"x","data":{"a":1,"a":2}}"#),
            "payload",
            Reason::UnstorableJson,
        ),
        (
            &event(r#""eventType":"custom","payload":{"type":"x","data":{"n":1e400}}"#),
            "payload",
            Reason::UnstorableJson,
        ),
        (
            &event(r#""eventType":"tool_call","payload":{"toolName":"","callId":"c","arguments":{}}"#),
            "payload.toolName",
            Reason::InvalidField,
        ),
        (
            &event(
                r#""eventType":"llm_call","payload":{"callId":"c","provider":"p","model":"m","messages":{}}"#,
            ),
            "payload.messages",
            Reason::InvalidField,
        ),
        (
            &event(
                r#""eventType":"llm_call","payload":{"callId":"c","provider":"p","model":"m","messages":[{"content":"x"}]}"#,
            ),
            "payload.messages.0.role",
            Reason::InvalidField,
        ),
        (
            &event(r#""eventType":"embedding","payload":{"model":"m","inputCount":1.5}"#),
            "payload.inputCount",
            Reason::InvalidField,
        ),
        (&custom(r#","severity":"loud""#), "severity", Reason::InvalidField),
        (&custom(r#","timestamp":"2026-01-02 03:04""#), "timestamp", Reason::InvalidTimestamp),
        (&custom(r#","timestamp":"1999-12-31T23:59:59Z""#), "timestamp", Reason::InvalidTimestamp),
        (&custom(r#","timestamp":"2026-01-04T03:04:05Z""#), "timestamp", Reason::InvalidTimestamp),
        (&custom(r#","metadata":[]"#), "metadata", Reason::InvalidField),
    ];
    for (raw, field, reason) in cases {
        let refusal = accept_one(raw).expect_err(raw);
        assert_eq!((refusal.field.as_str(), refusal.reason), (field, reason), "{raw}: {}", refusal.message);
    }
}

#[test]
fn what_published_clients_send_is_accepted() {
    for fields in [
        r#""eventType":"session_ended","payload":{}"#,
        r#""eventType":"tool_call","payload":{"toolName":"t","callId":"c","arguments":"{\"q\":1}"}"#,
        r#""eventType":"llm_call","payload":{"callId":"c","provider":"p","model":"m","messages":[{"role":"developer","content":null}]}"#,
        r#""eventType":"llm_call","payload":{"callId":"c","model":"m","messages":[]}"#,
        r#""eventType":"llm_response","payload":{"callId":"c","model":"m","completion":"x","inputTokens":1,"outputTokens":2,"durationMs":3}"#,
        r#""eventType":"custom","severity":"warning","payload":{"type":"x","data":{}}"#,
        r#""eventType":"custom","payload":{"type":"x","data":{}},"id":"","timestamp":"""#,
    ] {
        accept_one(&event(fields)).unwrap_or_else(|refusal| panic!("{fields}: {}", refusal.message));
    }
    let unknown =
        accept_one(r#"{"sessionId":"s","agentId":"","eventType":"session_started","payload":{}}"#).unwrap();
    assert_eq!(unknown.agent_id, "unknown");
}

#[test]
fn a_repeat_has_the_same_digest_and_another_content_has_not() {
    let first = accept_one(&custom(r#","id":"e1""#)).unwrap();
    let again = accept_one(&custom(r#", "metadata": {} , "id":"e1""#)).unwrap();
    let other = accept_one(&custom(r#","metadata":{"a":1},"id":"e1""#)).unwrap();
    assert_eq!(first.content_digest, again.content_digest);
    assert_ne!(first.content_digest, other.content_digest);
    assert_eq!(accept_one(&custom("")).unwrap().content_digest, None);
}

#[test]
fn an_idempotency_key_gives_ids_that_depend_on_scope_key_and_index() {
    let mut ids = UlidSequence::at(NOW_US);
    let mut id_of = |scope: &str, key: &str, index| {
        let idempotency = Idempotency::new(scope, key);
        let mut context = AcceptContext { now_us: NOW_US, ids: &mut ids, idempotency: Some(&idempotency) };
        accept(&custom(""), index, &mut context).unwrap().id
    };
    assert_eq!(id_of("k", "x", 0), id_of("k", "x", 0));
    let others = [id_of("k", "x", 1), id_of("k", "y", 0), id_of("l", "x", 0)];
    assert!(!others.contains(&id_of("k", "x", 0)));
}

#[test]
fn reserved_metadata_is_stripped() {
    let accepted = accept_one(&custom(
        r#","metadata":{"verifiedAgentId":"boss","a":{"b":[1]},"verifiedOnBehalfOf":"x"}"#,
    ))
    .unwrap();
    assert_eq!(accepted.metadata, r#"{"a":{"b":[1]}}"#);
}

#[test]
fn integers_beyond_a_double_are_kept_as_sent() {
    let accepted = accept_one(&event(
        r#""eventType":"custom","payload":{"type":"x","data":{"id":12345678901234567890}}"#,
    ))
    .unwrap();
    assert!(accepted.payload.contains("12345678901234567890"));
}

#[test]
fn deep_nesting_is_refused_without_harm() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let refusal = accept_one(&event(&format!(
        r#""eventType":"custom","payload":{{"type":"x","data":{{"d":{deep}}}}}"#
    )))
    .unwrap_err();
    assert_eq!(refusal.reason, Reason::UnstorableJson);
}

#[test]
fn a_tool_response_that_reports_a_failure_is_an_error() {
    let response = |result: &str, severity: &str| {
        let payload = format!(r#"{{"callId":"c","toolName":"t","durationMs":1,"result":{result}}}"#);
        accept_one(&event(&format!(r#""eventType":"tool_response"{severity},"payload":{payload}"#))).unwrap()
    };
    let failed = response(r#"{"content":[],"isError":true}"#, "");
    assert_eq!((failed.severity, failed.is_error()), (Severity::Error, true));
    let failed = response(r#"{"type":"tool_result","is_error":true}"#, r#","severity":"info""#);
    assert_eq!(failed.severity, Severity::Error);
    let failed = response(r#"{"isError":true}"#, r#","severity":"critical""#);
    assert_eq!(failed.severity, Severity::Critical);
    for result in [r#"{"isError":false}"#, r#"{"status":"error"}"#, r#""isError""#, "null"] {
        assert_eq!(response(result, "").severity, Severity::Info, "{result}");
    }
}

#[test]
fn a_name_that_is_spelled_otherwise_is_named() {
    let refused = |text: &str| {
        let mut ids = UlidSequence::at(0);
        let mut context = AcceptContext { now_us: 1_767_323_045_678_000, ids: &mut ids, idempotency: None };
        accept(text, 0, &mut context).unwrap_err()
    };
    for (text, field, said) in [
        (r#"{"session_id":"s","agent_id":"a"}"#, "sessionId", "found `session_id`; write `sessionId`"),
        (r#"{"sessionId":"s","AgentID":"a"}"#, "agentId", "found `AgentID`"),
        (r#"{"sessionId":"s","agentId":"a","event_type":"custom"}"#, "eventType", "found `event_type`"),
        (r#"{"sessionId":"s","agentId":"a","eventType":"toolCall"}"#, "eventType", "write `tool_call`"),
        (r#"{"sessionId":"s","agentId":"a","eventType":"llm"}"#, "eventType", "one of session_started, "),
        (
            r#"{"sessionId":"s","agentId":"a","eventType":"tool_call","payload":{"tool_name":"t"}}"#,
            "payload.toolName",
            "payload.toolName is required in events of type tool_call (found `tool_name`; write `toolName`)",
        ),
    ] {
        let refusal = refused(text);
        assert_eq!(refusal.field, field);
        assert!(refusal.message.contains(said), "{}", refusal.message);
        assert!(!refusal.message.contains("eval_result"), "{}", refusal.message);
    }
}

/// Bug: such a figure became 0, and the call a computed cost of 0.
#[test]
fn figures_that_cannot_be_tokens_are_left_out_and_make_the_cost_unknown() {
    use crate::cost::{self, CostSource};
    let prices = crate::cost::PriceTable::embedded();
    let answer = |usage: &str, more: &str| {
        let payload = format!(
            r#""eventType":"llm_response","payload":{{"callId":"c","provider":"openai","model":"gpt-4o","completion":"x","usage":{usage}{more}}}"#
        );
        accept_one(&event(&payload)).unwrap()
    };
    let tokens = |input: &str, output: &str, more: &str| {
        format!(r#"{{"inputTokens":{input},"outputTokens":{output},"totalTokens":1{more}}}"#)
    };
    for (usage, expected, source) in [
        (tokens("10", "5", ""), Some((10, 5)), CostSource::Computed),
        (tokens("0", "0", ""), Some((0, 0)), CostSource::Computed),
        (tokens("-5", "1e30", ""), None, CostSource::Unknown),
        (tokens("-5", "5", ""), Some((0, 5)), CostSource::Unknown),
        (tokens("10", "1e30", ""), Some((10, 0)), CostSource::Unknown),
        (tokens("10", "5", r#","cacheReadTokens":-1"#), Some((10, 5)), CostSource::Unknown),
    ] {
        let event = answer(&usage, "");
        assert_eq!(event.facts.usage.map(|usage| (usage.input, usage.output)), expected, "{usage}");
        assert_eq!(cost::of_event(&event, prices).unwrap().source, source, "{usage}");
        let stated = cost::of_event(&answer(&usage, r#","costUsd":0.5"#), prices).unwrap();
        assert_eq!((stated.source, stated.nanos), (CostSource::Reported, 500_000_000), "{usage}");
    }
    let tracked = r#""eventType":"cost_tracked","payload":{"provider":"openai","model":"gpt-4o","inputTokens":-1,"outputTokens":-1,"totalTokens":-2,"costUsd":0}"#;
    let tracked = accept_one(&event(tracked)).unwrap();
    let cost = cost::of_event(&tracked, prices).unwrap();
    assert_eq!((tracked.facts.usage, cost.source), (None, CostSource::Unknown));
}
