//! Sending events: types and their payload tables, single refusals, all or nothing, timestamps.

use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, event, note, now_us, one_of_each, payloads, with};
use crate::world::World;

on_both_engines!(
    every_type_is_accepted_and_read_back,
    every_required_field_is_demanded,
    wrong_values_are_refused,
    bad_envelopes_are_refused_one_by_one,
    what_published_clients_send_is_accepted,
    strict_stores_nothing,
    one_refused_batch_is_a_400_that_says_why,
    a_body_without_events_is_explained,
    offsets_are_accepted_and_order_is_by_instant,
    server_time_is_the_default,
    reserved_metadata_is_dropped,
    a_key_without_the_scope_is_refused,
);

async fn every_type_is_accepted_and_read_back(world: World) {
    let sent = one_of_each("s", now_us() - HOUR_US);
    let answer = world.send(&sent).await;
    assert_eq!(answer["ingested"], sent.len());
    assert_eq!(answer["rejected"], 0);
    let timeline = world.timeline("s").await;
    assert_eq!(timeline.len(), sent.len());
    for ((sent, stored), accepted) in sent.iter().zip(&timeline).zip(answer["events"].as_array().unwrap()) {
        for field in ["sessionId", "agentId", "eventType", "payload", "timestamp"] {
            assert_eq!(stored[field], sent[field], "{stored}");
        }
        assert_eq!(stored["id"], accepted["id"]);
        assert_eq!(stored["severity"], "info");
        assert_eq!(stored["metadata"], json!({}));
        if world.is_embedded() {
            assert_eq!(stored["hash"], accepted["hash"]);
        }
        let single = world.read(&format!("/api/events/{}", accepted["id"].as_str().unwrap())).await;
        assert_eq!(&single, stored);
    }
}

/// Which fields of each type must be there.
const REQUIRED: &[(&str, &[&str])] = &[
    ("session_started", &[]),
    ("session_ended", &[]),
    ("tool_call", &["toolName", "callId", "arguments"]),
    ("tool_response", &["callId", "toolName", "durationMs"]),
    ("tool_error", &["callId", "toolName", "error", "durationMs"]),
    ("approval_requested", &["requestId", "action", "params", "urgency"]),
    ("approval_granted", &["requestId", "action", "decidedBy"]),
    ("approval_denied", &["requestId", "action", "decidedBy"]),
    ("approval_expired", &["requestId", "action", "decidedBy"]),
    ("form_submitted", &["submissionId", "formId", "fieldCount"]),
    ("form_completed", &["submissionId", "formId", "completedBy", "durationMs"]),
    ("form_expired", &["submissionId", "formId", "expiredAfterMs"]),
    ("cost_tracked", &["provider", "model", "inputTokens", "outputTokens", "totalTokens", "costUsd"]),
    ("llm_call", &["callId", "model"]),
    ("llm_response", &["callId", "model", "completion"]),
    ("alert_triggered", &["alertRuleId", "alertName", "condition", "currentValue", "threshold", "message"]),
    ("alert_resolved", &["alertRuleId", "alertName"]),
    ("retrieval", &["query"]),
    ("embedding", &["model", "inputCount"]),
    ("chain_step", &["name"]),
    ("custom", &["type", "data"]),
];

async fn every_required_field_is_demanded(world: World) {
    let (mut events, mut expected) = (Vec::new(), Vec::new());
    for (event_type, payload) in payloads() {
        let (_, required) = REQUIRED.iter().find(|(name, _)| *name == event_type).unwrap();
        for field in payload.as_object().unwrap().keys() {
            let mut without = payload.clone();
            without.as_object_mut().unwrap().shift_remove(field);
            if required.contains(&field.as_str()) {
                expected.push((events.len(), format!("payload.{field}")));
                events.push(event("s", event_type, without));
                // Its neighbour is good.
                events.push(event("s", event_type, payload.clone()));
            } else if field != "messages" {
                events.push(event("s", event_type, without));
            }
        }
    }
    let answer = world.try_send(&events).await.expect(202);
    let refused: Vec<(usize, String)> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            assert_eq!(error["reason"], "missing_field", "{error}");
            let field = error["field"].as_str().unwrap();
            assert!(error["error"].as_str().unwrap().contains(field), "{error}");
            (usize::try_from(error["index"].as_u64().unwrap()).unwrap(), field.to_owned())
        })
        .collect();
    assert_eq!(refused, expected);
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), events.len() - expected.len());
}

async fn wrong_values_are_refused(world: World) {
    let wrong = [
        ("session_started", "tags", json!([1])),
        ("session_started", "agentName", json!(5)),
        ("session_ended", "reason", json!("bored")),
        ("tool_call", "toolName", json!("")),
        ("tool_response", "durationMs", json!("12")),
        ("tool_error", "errorCode", json!(1)),
        ("approval_requested", "params", json!("p")),
        ("approval_granted", "decidedBy", json!("")),
        ("form_submitted", "fieldCount", json!("3")),
        ("form_expired", "expiredAfterMs", json!(true)),
        ("cost_tracked", "costUsd", json!("0.1")),
        ("llm_call", "messages", json!("hello")),
        ("llm_call", "messages", json!([{ "content": "no role" }])),
        ("llm_response", "completion", json!(5)),
        ("llm_response", "usage", json!({ "inputTokens": "many" })),
        ("alert_triggered", "currentValue", json!("2")),
        ("alert_resolved", "alertName", json!("")),
        ("retrieval", "topK", json!(1.5)),
        ("retrieval", "durationMs", json!(-1)),
        ("embedding", "inputCount", json!(-2)),
        ("embedding", "dimensions", json!(0)),
        ("chain_step", "name", json!([])),
        ("custom", "data", json!("text")),
    ];
    let samples = payloads();
    let events: Vec<Value> = wrong
        .iter()
        .map(|(event_type, field, value)| {
            let (_, payload) = samples.iter().find(|(name, _)| name == event_type).unwrap();
            event("s", event_type, with(payload.clone(), field, value.clone()))
        })
        .chain([note("s", "good")])
        .collect();
    let answer = world.try_send(&events).await.expect(202);
    assert_eq!(answer["accepted"], 1, "{answer}");
    for (index, error) in answer["errors"].as_array().unwrap().iter().enumerate() {
        assert_eq!(error["index"], index);
        assert_eq!(error["reason"], "invalid_field", "{error}");
        let (_, field, _) = wrong[index];
        assert!(error["field"].as_str().unwrap().starts_with(&format!("payload.{field}")), "{error}");
    }
}

async fn bad_envelopes_are_refused_one_by_one(world: World) {
    let good = || note("s", "good");
    let without = |field: &str| {
        let mut event = good();
        event.as_object_mut().unwrap().shift_remove(field);
        event
    };
    let long = "x".repeat(257);
    let wide: Value =
        (0..10_000).map(|at| (format!("member {at}"), json!(at))).collect::<serde_json::Map<_, _>>().into();
    let bad: Vec<(Value, &str, &str)> = vec![
        (json!(5), "event", "invalid_field"),
        (json!("text"), "event", "invalid_field"),
        (json!([]), "event", "invalid_field"),
        (json!(null), "event", "invalid_field"),
        (without("sessionId"), "sessionId", "missing_field"),
        (with(good(), "sessionId", ""), "sessionId", "missing_field"),
        (with(good(), "sessionId", 7), "sessionId", "invalid_field"),
        (with(good(), "sessionId", long.as_str()), "sessionId", "too_large"),
        (without("agentId"), "agentId", "missing_field"),
        (with(good(), "agentId", long.as_str()), "agentId", "too_large"),
        (with(good(), "id", long.as_str()), "id", "too_large"),
        (without("eventType"), "eventType", "missing_field"),
        (with(good(), "eventType", "nonsense"), "eventType", "unknown_event_type"),
        (with(good(), "eventType", "eval_result"), "eventType", "server_only_event_type"),
        (with(good(), "eventType", "error"), "eventType", "server_only_event_type"),
        (with(good(), "severity", "loud"), "severity", "invalid_field"),
        (with(good(), "timestamp", "yesterday"), "timestamp", "invalid_timestamp"),
        (with(good(), "timestamp", 1_767_323_045), "timestamp", "invalid_field"),
        (with(good(), "timestamp", "1999-12-31T23:59:59Z"), "timestamp", "invalid_timestamp"),
        (with(good(), "timestamp", at(now_us() + 25 * HOUR_US)), "timestamp", "invalid_timestamp"),
        (without("payload"), "payload", "missing_field"),
        (with(good(), "payload", "text"), "payload", "invalid_field"),
        (with(good(), "metadata", json!([1])), "metadata", "invalid_field"),
        (with(good(), "metadata", wide), "metadata", "too_large"),
    ];
    let events: Vec<Value> = bad.iter().flat_map(|(event, _, _)| [event.clone(), good()]).collect();
    let answer = world.try_send(&events).await.expect(202);
    assert_eq!(answer["accepted"], bad.len());
    assert_eq!(answer["rejected"], bad.len());
    for (index, ((_, field, reason), error)) in
        bad.iter().zip(answer["errors"].as_array().unwrap()).enumerate()
    {
        assert_eq!(
            (&error["index"], &error["field"], &error["reason"]),
            (&json!(2 * index), &json!(field), &json!(reason)),
            "{error}"
        );
    }
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), bad.len());
}

async fn what_published_clients_send_is_accepted(world: World) {
    let events = vec![
        event("s", "session_ended", json!({})),
        event("s", "tool_call", json!({ "toolName": "t", "callId": "c", "arguments": "{\"q\":1}" })),
        event(
            "s",
            "llm_call",
            json!({ "callId": "c", "model": "m", "messages": [{ "role": "developer" }, { "role": "assistant", "content": null }] }),
        ),
        event(
            "s",
            "llm_response",
            json!({ "callId": "c", "model": "m", "completion": null, "inputTokens": 4 }),
        ),
        with(note("s", "loud"), "severity", "warning"),
        with(note("s", "from an unknown session"), "agentId", ""),
        with(with(note("s", "the Go client"), "id", ""), "timestamp", ""),
    ];
    world.send(&events).await;
    let timeline = world.timeline("s").await;
    assert_eq!(timeline[1]["payload"], events[1]["payload"]);
    assert_eq!(timeline[4]["severity"], "warn");
    assert_eq!(timeline[5]["agentId"], "unknown");
    assert_eq!(world.read("/api/sessions/s").await["status"], "completed");
}

async fn strict_stores_nothing(world: World) {
    let body = json!({ "events": [note("s", "good"), with(note("s", "bad"), "severity", "loud"), note("s", "good")] });
    for strict in ["true", "1"] {
        let path = format!("/api/events?strict={strict}");
        let refusal = world.post(&path, body.to_string()).await.refusal(400);
        assert_eq!(refusal["code"], "validation_failed");
        let paths: Vec<&str> = refusal["details"]
            .as_array()
            .unwrap()
            .iter()
            .map(|detail| detail["path"].as_str().unwrap())
            .collect();
        assert!(paths.contains(&"events.1.severity"), "{refusal}");
    }
    world.settled().await;
    world.get("/api/sessions/s").await.refusal(404);
    assert_eq!(world.read("/api/events").await["total"], 0);
    world.post("/api/events?strict=perhaps", body.to_string()).await.refusal(400);
    let good = json!({ "events": [note("s", "good")] });
    world.post("/api/events?strict=true", good.to_string()).await.expect(202);
    let lenient = world.post("/api/events?strict=false", body.to_string()).await.expect(202);
    assert_eq!(lenient["accepted"], 2);
}

async fn one_refused_batch_is_a_400_that_says_why(world: World) {
    let bad = event("s", "tool_call", json!({ "callId": "c", "arguments": {} }));
    let refusal = world.try_send(&[bad]).await.refusal(400);
    assert_eq!(
        refusal["error"],
        "Validation failed: event 0: payload.toolName is required in events of type tool_call"
    );
    assert_eq!(refusal["details"][0]["path"], "events.0.payload.toolName");
    let refusal = world.try_send(&[json!(5), json!(6)]).await.refusal(400);
    assert!(refusal["error"].as_str().unwrap().ends_with("(the first of 2 faults)"), "{refusal}");
    assert_eq!(refusal["details"][1]["path"], "events.1");
}

async fn a_body_without_events_is_explained(world: World) {
    for (body, code, said) in [
        (
            r#"{"session_id":"s","agent_id":"a","event_type":"custom"}"#,
            "validation_failed",
            "found `event_type`; write `eventType`",
        ),
        (
            r#"{"session_id":"s","agent_id":"a"}"#,
            "validation_failed",
            "this looks like one event, but `eventType` is missing",
        ),
        (r#"{"Events":[]}"#, "validation_failed", "found `Events`; write `events`"),
        (r#"{"a":1,"b":2}"#, "validation_failed", "there is no `events` in the body (found `a`, `b`)"),
        ("{}", "validation_failed", "there is no `events` in the body"),
        (r#"{"events":null}"#, "validation_failed", "`events` must be an array of events"),
        (r#""hello""#, "invalid_json", "expected an object with `events`, an array of events, or one event"),
        ("", "invalid_json", "EOF"),
    ] {
        let refusal = world.post("/api/events", body).await.refusal(400);
        assert_eq!(refusal["code"], code, "{body}: {refusal}");
        let error = refusal["error"].as_str().unwrap();
        assert!(error.contains(said) && !error.contains("struct"), "{body}: {error}");
    }
}

async fn offsets_are_accepted_and_order_is_by_instant(world: World) {
    let texts = [
        "2026-01-02T05:04:05.500+02:00",
        "2026-01-02T03:04:05Z",
        "2026-01-01T22:04:05.250-05:00",
        "2026-01-02T03:04:05.123456789Z",
        "2026-01-02T03:04:05.000000Z",
    ];
    let events: Vec<Value> = texts.iter().map(|text| with(note("s", text), "timestamp", *text)).collect();
    for event in &events {
        world.send(std::slice::from_ref(event)).await;
    }
    // The text is kept as it was sent, and the chain is in the order of arrival.
    let timeline = world.timeline("s").await;
    assert_eq!(timeline.iter().map(|event| event["timestamp"].as_str().unwrap()).collect::<Vec<_>>(), texts);
    let listed = world.walk(&[("order", "asc"), ("sessionId", "s")]).await;
    let order: Vec<&str> = listed.iter().map(|event| event["timestamp"].as_str().unwrap()).collect();
    assert_eq!(&order[2..], [texts[3], texts[2], texts[0]]);
    let exact = world
        .query("/api/events", &[("from", "2026-01-02T03:04:05.25Z"), ("to", "2026-01-02T04:04:05.250+01:00")])
        .await
        .expect(200);
    assert_eq!(exact["total"], 1, "{exact}");
    let session = world.read("/api/sessions/s").await;
    assert_eq!(session["startedAt"], "2026-01-02T03:04:05.000Z");
}

async fn server_time_is_the_default(world: World) {
    let before_us = now_us();
    world.send(&[note("s", "now")]).await;
    let stored = world.timeline("s").await[0].clone();
    assert_eq!(stored["timestamp"], stored["receivedAt"]);
    let (from, to) = (at(before_us), at(now_us()));
    assert_eq!(world.query("/api/events", &[("from", &from), ("to", &to)]).await.expect(200)["total"], 1);
}

async fn reserved_metadata_is_dropped(world: World) {
    let sent =
        json!({ "verifiedAgentId": "root", "k": 1, "verifiedAgentMethod": "x", "verifiedOnBehalfOf": "y" });
    world.send(&[with(note("s", "claim"), "metadata", sent)]).await;
    assert_eq!(world.timeline("s").await[0]["metadata"], json!({ "k": 1 }));
}

async fn a_key_without_the_scope_is_refused(world: World) {
    let reader = world.make_key(&["--scope", "events:read"]);
    let refusal = reader.try_send(&[note("s", "x")]).await.refusal(403);
    assert_eq!(refusal["code"], "insufficient_scope");
    let writer = world.make_key(&["--scope", "events:write"]);
    writer.try_send(&[note("s", "x")]).await.expect(202);
    world.settled().await;
    writer.get("/api/sessions/s").await.refusal(403);
    assert_eq!(world.timeline("s").await.len(), 1);
}
