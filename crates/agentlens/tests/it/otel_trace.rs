//! The trace tree of spans: pages, cursors, and what is refused.

use std::collections::BTreeSet;

use agentlens_domain::page::Cursor;
use agentlens_domain::time::format_rfc3339;
use serde_json::{Value, json};

use crate::otel_requests::{BASE_US, agent, and, chat, send_spans, span, span_id, timed, trace_id, tree};
use crate::samples::{event, note, with};
use crate::world::{Api, World};

on_both_engines!(
    a_star_is_paged_without_loss,
    a_long_chain_is_followed_to_its_end,
    many_roots_are_paged_without_loss,
    siblings_of_one_instant_are_paged_without_loss,
    events_of_a_deep_chain_of_steps_do_not_harm_the_server,
    spans_and_events_share_a_session,
    pages_hold_spans_and_events_in_the_order_of_time,
    parents_of_others_show_nothing,
    unclear_pages_are_refused,
);

/// Spans of one request.
const CHUNK_SPANS: usize = 500;

async fn send_many(api: &Api, spans: &[Value]) {
    for chunk in spans.chunks(CHUNK_SPANS) {
        send_spans(api, chunk).await;
    }
}

/// The root of trace 1, which names the session `s`.
fn root() -> Value {
    span(1, 1, None, and(agent("planner"), json!({ "session.id": "s" })))
}

async fn page(api: &Api, parameters: &[(&str, &str)]) -> Value {
    let page = api.query("/api/sessions/s/trace", parameters).await.expect(200);
    assert_eq!(page["isTruncated"], page["nextCursor"].is_string(), "{page}");
    page
}

/// The roots of all pages of so many nodes.
async fn roots(api: &Api, limit: &str) -> Vec<Value> {
    let mut roots = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let mut parameters = vec![("limit", limit)];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let next = page(api, &parameters).await;
        roots.extend(next["tree"].as_array().unwrap().iter().cloned());
        cursor = next["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return roots;
        }
    }
}

/// Adds the spans of nodes and everything below them; none may have been there.
fn collect(nodes: &Value, seen: &mut BTreeSet<String>) {
    for node in nodes.as_array().unwrap() {
        let id = node["span"]["spanId"].as_str().unwrap();
        assert!(seen.insert(id.to_owned()), "{id} comes twice");
        collect(&node["children"], seen);
    }
}

fn address(span: u32) -> String {
    format!("{}:{}", trace_id(1), span_id(span))
}

fn ids(spans: impl Iterator<Item = u32>) -> BTreeSet<String> {
    spans.map(span_id).collect()
}

async fn a_star_is_paged_without_loss(world: World) {
    let mut spans = vec![root()];
    spans.extend((2..1_502).map(|id| span(1, id, Some(1), chat(10, 1))));
    send_many(&world, &spans).await;
    for limit in ["200", "1000", "37"] {
        let first = page(&world, &[("limit", limit)]).await;
        let top = &first["tree"][0];
        assert_eq!((&top["childCount"], &first["isTruncated"]), (&json!(1_500), &json!(false)));
        assert_eq!(
            top["subtree"],
            json!({ "spans": 1_501, "errors": 0, "inputTokens": 15_000, "outputTokens": 1_500 })
        );
        let mut seen = BTreeSet::new();
        collect(&first["tree"], &mut seen);
        assert_eq!(seen.len(), limit.parse::<usize>().unwrap());
        let parent = address(1);
        let mut cursor = top["childrenCursor"].as_str().map(str::to_owned);
        while let Some(after) = cursor {
            let next = page(&world, &[("parent", &parent), ("cursor", &after), ("limit", limit)]).await;
            collect(&next["tree"], &mut seen);
            cursor = next["nextCursor"].as_str().map(str::to_owned);
        }
        assert_eq!(seen, ids(1..1_502), "limit {limit}");
    }
    // Without a cursor the first child is the first.
    let first = page(&world, &[("parent", &address(1)), ("limit", "1")]).await;
    assert_eq!(first["tree"][0]["span"]["spanId"], span_id(2));
    let session = world.read("/api/sessions/s").await;
    assert_eq!((&session["totalInputTokens"], &session["llmCallCount"]), (&json!(15_000), &json!(1_500)));
}

/// Asks for what lies below the deepest nodes until nothing is left.
async fn a_long_chain_is_followed_to_its_end(world: World) {
    let levels = 300;
    let mut spans = vec![root()];
    spans.extend((2..levels).map(|id| span(1, id, Some(id - 1), json!({}))));
    spans.push(span(1, levels, Some(levels - 1), chat(7, 3)));
    send_many(&world, &spans).await;
    let mut seen = BTreeSet::new();
    let mut first = page(&world, &[("limit", "1000")]).await;
    let mut requests = 1;
    loop {
        collect(&first["tree"], &mut seen);
        let mut deepest = &first["tree"][0];
        let left = i64::from(levels) + 1 - deepest_number(deepest);
        assert_eq!(deepest["subtree"]["spans"], left, "{}", deepest["subtree"]);
        assert_eq!(deepest["subtree"]["inputTokens"], 7);
        while !deepest["children"][0].is_null() {
            deepest = &deepest["children"][0];
        }
        if deepest["childCount"] == 0 {
            break;
        }
        assert_eq!((&deepest["childCount"], &deepest["childrenCursor"]), (&json!(1), &Value::Null));
        let parent = format!("{}:{}", trace_id(1), deepest["span"]["spanId"].as_str().unwrap());
        first = page(&world, &[("parent", &parent), ("limit", "1000")]).await;
        requests += 1;
    }
    assert_eq!(seen, ids(1..levels + 1));
    // Readers of JSON give up at a depth; serde_json, which reads here, at 128 levels.
    assert!((2..20).contains(&requests), "{requests}");
}

fn deepest_number(node: &Value) -> i64 {
    i64::from_str_radix(node["span"]["spanId"].as_str().unwrap(), 16).unwrap()
}

async fn many_roots_are_paged_without_loss(world: World) {
    let spans: Vec<Value> =
        (1..=450).map(|id| span(id, id, None, and(chat(1, 1), json!({ "session.id": "s" })))).collect();
    send_many(&world, &spans).await;
    for limit in ["100", "7", "1000"] {
        let mut seen = BTreeSet::new();
        collect(&json!(roots(&world, limit).await), &mut seen);
        assert_eq!(seen, ids(1..451), "limit {limit}");
    }
}

async fn siblings_of_one_instant_are_paged_without_loss(world: World) {
    let mut spans = vec![root()];
    spans.push(span(2, 100, None, json!({ "session.id": "s" })));
    // The same span ids in both traces.
    for (trace, root, ids) in [(1, 1, 2..40), (2, 100, 2..30)] {
        spans.extend(ids.map(|id| span(trace, id, Some(root), json!({}))));
    }
    let spans: Vec<Value> = spans.into_iter().map(|span| timed(span, 5, 6)).collect();
    send_spans(&world, &spans).await;
    for limit in ["1", "2", "9", "25", "60"] {
        let mut all = BTreeSet::new();
        let roots = roots(&world, limit).await;
        assert_eq!(roots.len(), 2, "limit {limit}");
        for root in &roots {
            let id = |field: &str| root["span"][field].as_str().unwrap();
            let parent = format!("{}:{}", id("traceId"), id("spanId"));
            let mut children = root["children"].as_array().unwrap().clone();
            let mut after = root["childrenCursor"].as_str().map(str::to_owned);
            while after.is_some() || children.is_empty() {
                let mut parameters = vec![("parent", parent.as_str()), ("limit", limit)];
                parameters.extend(after.as_deref().map(|after| ("cursor", after)));
                let next = page(&world, &parameters).await;
                children.extend(next["tree"].as_array().unwrap().iter().cloned());
                after = next["nextCursor"].as_str().map(str::to_owned);
            }
            assert_eq!(root["childCount"], children.len(), "limit {limit}");
            for child in &children {
                let span = &child["span"];
                assert!(all.insert(format!("{} {}", span["traceId"], span["spanId"])), "limit {limit}");
            }
        }
        assert_eq!(all.len(), 38 + 28, "limit {limit}");
    }
}

async fn events_of_a_deep_chain_of_steps_do_not_harm_the_server(world: World) {
    let events: Vec<Value> = (0..9_000)
        .map(|step: u32| {
            let parent = step.checked_sub(1).map(|parent| parent.to_string()).unwrap_or_default();
            with(note("s", "x"), "metadata", json!({ "spanId": step.to_string(), "parentSpanId": parent }))
        })
        .collect();
    for chunk in events.chunks(1_000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    let answer = world.get("/api/sessions/s/trace").await;
    assert_eq!(answer.status, 200, "{}", &answer.text[..answer.text.len().min(300)]);
    assert_eq!(answer.text.matches("\"eventType\"").count(), 9_000);
    assert_eq!(world.get("/readyz").await.status, 200);
}

async fn spans_and_events_share_a_session(world: World) {
    let native = [
        event("s", "tool_call", json!({ "toolName": "search", "callId": "c1", "arguments": {} })),
        event(
            "s",
            "tool_response",
            json!({ "toolName": "search", "callId": "c1", "result": 1, "durationMs": 2 }),
        ),
        event(
            "s",
            "llm_response",
            json!({ "callId": "m1", "provider": "openai", "model": "gpt-4o", "completion": "x", "finishReason": "stop",
                "usage": { "inputTokens": 100, "outputTokens": 20, "totalTokens": 120 }, "costUsd": 0.5, "latencyMs": 1 }),
        ),
    ];
    world.send(&native[..1]).await;
    send_spans(&world, &[root(), span(1, 2, Some(1), chat(7, 3))]).await;
    world.send(&native[1..]).await;
    let session = world.read("/api/sessions/s").await;
    let counts = ["eventCount", "llmCallCount", "toolCallCount", "totalInputTokens", "totalOutputTokens"];
    assert_eq!(counts.map(|field| session[field].as_i64().unwrap()), [5, 2, 1, 107, 23], "{session}");
    let timeline = world.timeline("s").await;
    assert_eq!(timeline.iter().filter(|event| event.get("span").is_some()).count(), 2);
    assert_eq!(timeline.len(), 5);
    assert_eq!(world.read("/api/analytics").await["totals"]["uniqueSessions"], 1);
    let nodes = tree(&world, "s").await;
    let (spans, steps): (Vec<&Value>, Vec<&Value>) =
        nodes.iter().partition(|node| node.get("span").is_some());
    assert_eq!((spans.len(), steps.len()), (1, 2), "{nodes:?}");
    let calls: Vec<(&str, usize)> = steps
        .iter()
        .map(|step| (step["eventType"].as_str().unwrap(), step["eventIds"].as_array().unwrap().len()))
        .collect();
    assert_eq!(calls, [("tool_call", 2), ("llm_response", 1)]);
    assert_eq!(spans[0]["subtree"]["inputTokens"], 7);
    assert_eq!(spans[0]["children"][0]["span"]["outputTokens"], 3);
}

/// So many milliseconds after what [`timed`] counts from.
fn instant(ms: i64) -> String {
    format_rfc3339(*BASE_US + ms * 1_000)
}

/// Roots and events share instants, and pages end between, before and behind them.
async fn pages_hold_spans_and_events_in_the_order_of_time(world: World) {
    let named = |id: u32| and(chat(1, 1), json!({ "session.id": "s", "number": id }));
    let mut spans: Vec<Value> =
        (1..=12).map(|id| timed(span(id, id, None, named(id)), i64::from(id) / 3, 90)).collect();
    spans.push(timed(span(1, 100, Some(1), json!({})), 1, 2));
    send_spans(&world, &spans).await;
    let notes: Vec<Value> = (0..8)
        .map(|index: i64| with(note("s", "x"), "timestamp", instant(index / 2)))
        .chain([with(note("s", "x"), "timestamp", instant(99))])
        .collect();
    world.send(&notes).await;
    for limit in ["1", "2", "3", "5", "1000"] {
        let roots = roots(&world, limit).await;
        let ids: BTreeSet<&str> = roots.iter().map(|root| root["id"].as_str().unwrap()).collect();
        assert_eq!((roots.len(), ids.len()), (12 + 9, 12 + 9), "limit {limit}");
        let times: Vec<(&str, bool)> = roots
            .iter()
            .map(|root| (root["timestamp"].as_str().unwrap(), root.get("span").is_some()))
            .collect();
        assert!(times.is_sorted(), "limit {limit}: {times:?}");
    }
    let end_of_time = Cursor { value: i64::MAX, id: String::new() }.encode();
    assert_eq!(page(&world, &[("cursor", &end_of_time)]).await["tree"], json!([]));
}

async fn parents_of_others_show_nothing(world: World) {
    let (_, other) = world.org("Other");
    let project = world.make_key(&["--workspace", "project"]);
    send_spans(&world, &[root(), span(1, 2, Some(1), chat(7, 3))]).await;
    for (stranger, session) in [(&other, "theirs"), (&project, "mine")] {
        for path in ["/api/sessions/s/trace", "/api/sessions/s", "/api/sessions/s/timeline"] {
            stranger.get(path).await.refusal(404);
        }
        stranger.query("/api/sessions/s/trace", &[("parent", &address(1))]).await.refusal(404);
        send_spans(stranger, &[span(9, 1, None, json!({ "session.id": session }))]).await;
        let path = format!("/api/sessions/{session}/trace");
        let answer = stranger.query(&path, &[("parent", &address(1))]).await.expect(200);
        assert_eq!(answer["tree"], json!([]), "{answer}");
    }
    // The same ids in another org are other spans.
    send_spans(&other, &[span(1, 1, None, json!({ "session.id": "s" })), span(1, 3, Some(1), chat(5, 5))])
        .await;
    let theirs = other.query("/api/sessions/s/trace", &[("parent", &address(1))]).await.expect(200);
    assert_eq!(theirs["tree"][0]["span"]["spanId"], span_id(3));
    assert_eq!(tree(&world, "s").await[0]["subtree"]["inputTokens"], 7);
}

async fn unclear_pages_are_refused(world: World) {
    send_spans(&world, &[root()]).await;
    world.get("/api/sessions/nobody/trace").await.refusal(404);
    for (name, values) in [
        ("limit", &["0", "-1", "x", "1.5"][..]),
        ("cursor", &["x", "!!", "MTpub3BlOng"]),
        ("parent", &["x", "0123456789abcdef"]),
    ] {
        for value in values {
            let refusal = world.query("/api/sessions/s/trace", &[(name, value)]).await.refusal(400);
            assert!(refusal["error"].as_str().unwrap().contains(name), "{name}={value}: {refusal}");
        }
    }
    // A span that is not there has no children.
    for nobody in ["0:0", ":", "a:b:c", "\u{0}:\u{0}"] {
        let answer = world.query("/api/sessions/s/trace", &[("parent", nobody)]).await;
        assert!([200, 400].contains(&answer.status), "{nobody:?}: {}", answer.text);
        assert!(answer.status == 400 || answer.json["tree"] == json!([]), "{nobody:?}: {}", answer.text);
    }
}
