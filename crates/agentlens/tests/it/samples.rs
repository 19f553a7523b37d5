//! Events to send: one good one of each type, and ways to make many and to pack them.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use agentlens_domain::time::format_rfc3339;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

pub(crate) const HOUR_US: i64 = 3_600_000_000;
pub(crate) const MEGABYTE: usize = 1024 * 1024;

/// The clock, in microseconds UTC.
pub(crate) fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// An instant as text.
pub(crate) fn at(us: i64) -> String {
    format_rfc3339(us)
}

/// An event of a type with a payload, without timestamp and id.
pub(crate) fn event(session: &str, event_type: &str, payload: Value) -> Value {
    let event = json!({ "sessionId": session, "agentId": "agent-1", "eventType": event_type });
    with(event, "payload", payload)
}

/// The event with another field.
pub(crate) fn with(mut event: Value, field: &str, value: impl Into<Value>) -> Value {
    event[field] = value.into();
    event
}

/// A `custom` event that holds a text.
pub(crate) fn note(session: &str, text: &str) -> Value {
    event(session, "custom", json!({ "type": "note", "data": { "text": text } }))
}

/// A good payload of every type that clients may send.
pub(crate) fn payloads() -> Vec<(&'static str, Value)> {
    vec![
        ("session_started", json!({ "agentName": "Ada", "agentVersion": "1.2", "tags": ["a", "b"] })),
        (
            "tool_call",
            json!({ "toolName": "search", "callId": "c1", "arguments": { "q": "x" }, "serverName": "s" }),
        ),
        (
            "tool_response",
            json!({ "toolName": "search", "callId": "c1", "result": [1, null], "durationMs": 12.5 }),
        ),
        (
            "tool_error",
            json!({ "toolName": "search", "callId": "c2", "error": "no", "errorCode": "E1", "durationMs": 3 }),
        ),
        (
            "approval_requested",
            json!({ "requestId": "r1", "action": "pay", "params": {}, "urgency": "high" }),
        ),
        (
            "approval_granted",
            json!({ "requestId": "r1", "action": "pay", "decidedBy": "bob", "reason": "fine" }),
        ),
        ("approval_denied", json!({ "requestId": "r2", "action": "pay", "decidedBy": "bob" })),
        ("approval_expired", json!({ "requestId": "r3", "action": "pay", "decidedBy": "clock" })),
        (
            "form_submitted",
            json!({ "submissionId": "f1", "formId": "form", "formName": "F", "fieldCount": 3 }),
        ),
        (
            "form_completed",
            json!({ "submissionId": "f1", "formId": "form", "completedBy": "eve", "durationMs": 9 }),
        ),
        ("form_expired", json!({ "submissionId": "f2", "formId": "form", "expiredAfterMs": 100 })),
        (
            "cost_tracked",
            json!({ "provider": "openai", "model": "gpt-4o", "inputTokens": 10, "outputTokens": 5, "totalTokens": 15, "costUsd": 0.25 }),
        ),
        (
            "llm_call",
            json!({ "callId": "m1", "provider": "openai", "model": "gpt-4o", "messages": [{ "role": "user", "content": "hi" }] }),
        ),
        (
            "llm_response",
            json!({ "callId": "m1", "provider": "openai", "model": "gpt-4o", "completion": "ho", "finishReason": "stop",
                "usage": { "inputTokens": 100, "outputTokens": 20, "totalTokens": 120, "cacheReadTokens": 40 }, "costUsd": 0.5, "latencyMs": 250 }),
        ),
        (
            "alert_triggered",
            json!({ "alertRuleId": "a1", "alertName": "hot", "condition": "x > 1", "currentValue": 2, "threshold": 1, "message": "m" }),
        ),
        ("alert_resolved", json!({ "alertRuleId": "a1", "alertName": "hot", "resolvedBy": "bob" })),
        (
            "retrieval",
            json!({ "query": "q", "retrieverName": "r", "topK": 5, "resultCount": 2, "durationMs": 4 }),
        ),
        ("embedding", json!({ "model": "e", "inputCount": 2, "dimensions": 3, "durationMs": 4 })),
        ("chain_step", json!({ "name": "step", "stepType": "map", "durationMs": 1.5 })),
        ("custom", json!({ "type": "mine", "data": { "k": "v" } })),
        ("session_ended", json!({ "reason": "completed", "summary": "done", "totalToolCalls": 1 })),
    ]
}

/// One good event of every type, in one session, a second apart.
pub(crate) fn one_of_each(session: &str, from_us: i64) -> Vec<Value> {
    let events = payloads().into_iter().map(|(event_type, payload)| event(session, event_type, payload));
    (0..)
        .zip(events)
        .map(|(second, event)| with(event, "timestamp", at(from_us + second * 1_000_000)))
        .collect()
}

/// A body as `Content-Encoding: gzip` has it.
pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
