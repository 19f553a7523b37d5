//! Batches to apply, as the gateway makes them.

use agentlens_domain::batches::Batch;
use agentlens_domain::events::{AcceptContext, accept};
use agentlens_domain::ids::{BatchId, KeyId, UlidSequence, WorkspaceId};
use agentlens_domain::ledger::{Reason, Refusals};
use agentlens_domain::time::format_rfc3339;
use serde_json::{Value, json};

/// The clock of these tests: 2026-01-02T03:04:05.678Z.
pub(crate) const NOW_US: i64 = 1_767_323_045_678_000;
pub(crate) const DAY_US: i64 = 24 * 3_600_000_000;

const SEVERITIES: [&str; 3] = ["info", "warn", "error"];

/// A batch of the default workspace.
pub(crate) fn batch(id: &str, events: &[Value]) -> Batch {
    batch_of("default", id, events)
}

/// A batch of a workspace.
pub(crate) fn batch_of(workspace: &str, id: &str, events: &[Value]) -> Batch {
    make(workspace, id, events, NOW_US)
}

/// A batch that came in at an instant.
pub(crate) fn batch_at(now_us: i64, id: &str, events: &[Value]) -> Batch {
    make("default", id, events, now_us)
}

fn make(workspace: &str, id: &str, events: &[Value], now_us: i64) -> Batch {
    let mut ids = UlidSequence::at(now_us);
    let mut context = AcceptContext { now_us, ids: &mut ids, idempotency: None };
    let events: Vec<_> = events
        .iter()
        .enumerate()
        .map(|(index, event)| accept(&event.to_string(), index, &mut context).unwrap())
        .collect();
    let mut refused = Refusals::default();
    refused.add(Reason::MissingField);
    Batch {
        batch_id: BatchId::parse(id).unwrap(),
        workspace_id: WorkspaceId::parse(workspace).unwrap(),
        environment: "production".to_owned(),
        key_id: KeyId::parse("key_1").unwrap(),
        received_us: now_us,
        received_count: u32::try_from(events.len()).unwrap() + 1,
        refused,
        events,
    }
}

/// A `custom` event at an instant.
pub(crate) fn note(id: &str, session: &str, us: i64) -> Value {
    json!({ "id": id, "sessionId": session, "agentId": "agent-1", "eventType": "custom", "timestamp": format_rfc3339(us),
        "payload": { "type": "note", "data": { "text": format!("text of {id}") } } })
}

/// Many kinds of events in several sessions; the same every time.
pub(crate) fn mixture(count: usize) -> Vec<Value> {
    (0..count)
        .map(|number| {
            let (event_type, payload) = match number % 5 {
                0 => ("session_started", json!({ "agentName": format!("Ada {}", number % 3), "tags": ["a", "\"b\""] })),
                1 => ("tool_call", json!({ "toolName": format!("tool-{}", number % 3), "callId": "c", "arguments": { "x": number } })),
                2 => (
                    "llm_response",
                    json!({ "callId": "c", "provider": "openai", "model": "gpt-4o", "completion": "漢字\u{0}😀", "costUsd": 0.1,
                        "usage": { "inputTokens": number, "outputTokens": 3, "totalTokens": 3, "cacheReadTokens": 1 }, "latencyMs": 1.5 }),
                ),
                3 => ("tool_error", json!({ "toolName": "tool-1", "callId": "c", "error": "no", "durationMs": number })),
                _ => ("session_ended", json!({ "reason": if number % 2 == 0 { "completed" } else { "error" } })),
            };
            let us = NOW_US - i64::try_from(number % 97).unwrap() * 1_800_000_000;
            json!({ "id": format!("e{number}"), "sessionId": format!("s{}", number % 7), "agentId": format!("a{}", number % 2),
                "eventType": event_type, "payload": payload, "timestamp": format_rfc3339(us),
                "severity": SEVERITIES[number % 3], "metadata": { "userId": format!("u{}", number % 4) } })
        })
        .collect()
}

/// The real clock, for what PostgreSQL does by its own.
pub(crate) fn real_now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
