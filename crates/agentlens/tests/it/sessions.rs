//! Sessions: what events make of them, lists, trace trees.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, event, note, now_us, one_of_each, with};
use crate::world::World;

on_both_engines!(
    a_session_sums_up_its_events,
    start_and_end_may_come_in_any_order,
    an_end_in_error_and_a_second_start,
    a_quiet_session_is_idle,
    lists_filter_page_and_count,
    the_trace_pairs_calls_with_answers,
    sessions_of_others_are_not_there,
);

async fn a_session_sums_up_its_events(world: World) {
    let start = now_us() - HOUR_US;
    let mut events = one_of_each("s", start);
    let metadata = json!({ "userId": "user-7" });
    events[3] = with(events[3].clone(), "metadata", metadata);
    world.send(&events).await;
    let session = world.read("/api/sessions/s").await;
    for (field, expected) in [
        ("id", json!("s")),
        ("agentId", json!("agent-1")),
        ("agentName", json!("Ada")),
        ("tags", json!(["a", "b"])),
        ("status", json!("completed")),
        ("eventCount", json!(21)),
        ("toolCallCount", json!(1)),
        ("errorCount", json!(1)),
        ("llmCallCount", json!(1)),
        ("totalInputTokens", json!(100)),
        ("totalOutputTokens", json!(20)),
        ("totalCostUsd", json!(0.75)),
        ("userId", json!("user-7")),
        ("environment", json!("production")),
        ("startedAt", json!(at(start))),
        ("endedAt", json!(at(start + 20_000_000))),
    ] {
        assert_eq!(session[field], expected, "{field}: {session}");
    }
}

async fn start_and_end_may_come_in_any_order(world: World) {
    let start = now_us() - HOUR_US;
    let mut random = SmallRng::seed_from_u64(5);
    for round in 0..8 {
        let session = format!("s{round}");
        let mut events = one_of_each(&session, start);
        events.shuffle(&mut random);
        let size = 1 + round * 3;
        for chunk in events.chunks(size) {
            world.try_send(chunk).await.expect(202);
        }
    }
    world.settled().await;
    let strip = |mut session: Value| {
        session["id"] = json!("s");
        session
    };
    let first = strip(world.read("/api/sessions/s0").await);
    assert_eq!(first["status"], "completed");
    assert_eq!(first["startedAt"], at(start));
    for round in 1..8 {
        assert_eq!(strip(world.read(&format!("/api/sessions/s{round}")).await), first);
    }
    let agents = world.read("/api/agents").await;
    assert_eq!(agents["agents"][0]["sessionCount"], 8);
    assert_eq!(agents["agents"][0]["eventCount"], 8 * 21);
}

async fn an_end_in_error_and_a_second_start(world: World) {
    let now = now_us();
    let timed = |event_type: &str, payload: Value, minutes_ago: i64| {
        with(event("s", event_type, payload), "timestamp", at(now - minutes_ago * 60_000_000))
    };
    world
        .send(&[
            timed("session_started", json!({}), 10),
            timed("session_ended", json!({ "reason": "error" }), 8),
        ])
        .await;
    assert_eq!(world.read("/api/sessions/s").await["status"], "error");
    world.send(&[timed("session_started", json!({ "agentName": "again" }), 6)]).await;
    let session = world.read("/api/sessions/s").await;
    assert_eq!((&session["status"], &session["agentName"]), (&json!("active"), &json!("again")));
    // An end that is older than the second start changes nothing any more.
    world.send(&[timed("session_ended", json!({ "reason": "completed" }), 7)]).await;
    assert_eq!(world.read("/api/sessions/s").await["status"], "active");
    world.send(&[timed("session_ended", json!({}), 1)]).await;
    assert_eq!(world.read("/api/sessions/s").await["status"], "completed");
}

async fn a_quiet_session_is_idle(world: World) {
    world.send(&[with(note("quiet", "x"), "timestamp", at(now_us() - HOUR_US)), note("busy", "x")]).await;
    assert_eq!(world.read("/api/sessions/quiet").await["status"], "idle");
    assert_eq!(world.read("/api/sessions/busy").await["status"], "active");
    assert_eq!(world.read("/api/sessions?status=idle").await["sessions"][0]["id"], "quiet");
    assert_eq!(
        world.read("/api/sessions?status=active&countOnly=true").await,
        json!({ "count": 1, "countIsExact": true })
    );
    let as_python = world.request("GET", "/api/sessions/quiet").header("user-agent", "python-httpx/0.27");
    assert_eq!(world.answer(as_python).await.expect(200)["status"], "active");
}

fn started_and_ended(now: i64) -> Vec<Value> {
    let mut events = Vec::new();
    for number in 0..60 {
        let start = json!({ "tags": [format!("t{}", number % 3), "all", "with \"quotes\""] });
        // Groups of four share a start.
        let timestamp = at(now - (number / 4 + 1) * 60_000_000);
        let id = format!("s{number:02}");
        let started = with(
            with(event(&id, "session_started", start), "timestamp", timestamp.clone()),
            "agentId",
            format!("a{}", number % 2),
        );
        events.push(with(started, "metadata", json!({ "userId": format!("u{}", number % 5) })));
        if number % 4 == 0 {
            let reason = if number % 8 == 0 { "completed" } else { "error" };
            let ended =
                with(event(&id, "session_ended", json!({ "reason": reason })), "timestamp", timestamp);
            events.push(with(ended, "agentId", format!("a{}", number % 2)));
        }
    }
    events
}

async fn lists_filter_page_and_count(world: World) {
    let now = now_us();
    let events = started_and_ended(now);
    world.send(&events).await;
    for (parameters, expected) in [
        (vec![], 60),
        (vec![("agentId", "a1")], 30),
        (vec![("status", "completed")], 8),
        (vec![("status", "completed,error")], 15),
        (vec![("status", "active")], 45),
        (vec![("tags", "t1")], 20),
        (vec![("tags", "t1,t2")], 40),
        (vec![("tags", "t")], 0),
        (vec![("tags", "with \"quotes\"")], 60),
        (vec![("userId", "u4"), ("agentId", "a0")], 6),
        (vec![("from", &*at(now - 3 * 60_000_000))], 12),
        (vec![("to", &*at(now - 14 * 60_000_000))], 8),
        (vec![("environment", "staging")], 0),
    ] {
        let page = world.query("/api/sessions", &parameters).await.expect(200);
        assert_eq!(page["total"], expected, "{parameters:?}");
        for order in ["asc", "desc"] {
            let mut walked: Vec<(String, String)> = Vec::new();
            let mut cursor = None::<String>;
            loop {
                let mut query = parameters.clone();
                query.extend([("order", order), ("limit", "7")]);
                query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
                let page = world.query("/api/sessions", &query).await.expect(200);
                let text = |session: &Value, field: &str| session[field].as_str().unwrap().to_owned();
                walked.extend(
                    page["sessions"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|session| (text(session, "startedAt"), text(session, "id"))),
                );
                let Some(next) = page["nextCursor"].as_str() else { break };
                cursor = Some(next.to_owned());
            }
            let mut sorted = walked.clone();
            sorted.sort();
            sorted.dedup();
            if order == "desc" {
                sorted.reverse();
            }
            assert_eq!(walked, sorted, "{parameters:?} {order}");
            assert_eq!(walked.len(), expected, "{parameters:?} {order}");
        }
    }
    let page = world.read("/api/sessions?offset=55&limit=10").await;
    assert_eq!(page["sessions"].as_array().unwrap().len(), 5);
    for bad in ["status=asleep", "order=up", "limit=0", "cursor=x", "from=x"] {
        world.get(&format!("/api/sessions?{bad}")).await.refusal(400);
    }
}

async fn the_trace_pairs_calls_with_answers(world: World) {
    let start = now_us() - HOUR_US;
    let span = |id: &str, parent: &str| json!({ "spanId": id, "parentSpanId": parent });
    let events = vec![
        with(event("s", "chain_step", json!({ "name": "plan" })), "metadata", span("1", "")),
        with(
            event("s", "tool_call", json!({ "toolName": "search", "callId": "c1", "arguments": {} })),
            "metadata",
            span("2", "1"),
        ),
        with(
            event(
                "s",
                "llm_response",
                json!({ "callId": "m1", "model": "m", "completion": "x", "costUsd": 0.25 }),
            ),
            "metadata",
            span("3", "2"),
        ),
        event(
            "s",
            "tool_error",
            json!({ "toolName": "search", "callId": "c1", "error": "no", "durationMs": 12.5 }),
        ),
        // Two that are each other's parents, and one whose parent is unknown.
        with(note("s", "circle"), "metadata", span("8", "9")),
        with(note("s", "circle"), "metadata", span("9", "8")),
        with(note("s", "orphan"), "metadata", span("7", "nobody")),
    ];
    let events: Vec<Value> = events
        .into_iter()
        .zip(0..)
        .map(|(event, second)| with(event, "timestamp", at(start + second * 1_000_000)))
        .collect();
    world.send(&events).await;
    let trace = world.read("/api/sessions/s/trace").await;
    assert_eq!(
        (&trace["chainValid"], &trace["chained"], &trace["isTruncated"]),
        (&json!(true), &json!(true), &json!(false))
    );
    let tree = trace["tree"].as_array().unwrap();
    assert_eq!(tree[0]["name"], "plan");
    let call = &tree[0]["children"][0];
    assert_eq!(call["name"], "search");
    assert_eq!(call["durationMs"], 12.5);
    assert_eq!(call["hasError"], true);
    assert_eq!(call["eventIds"].as_array().unwrap().len(), 2);
    assert_eq!(call["children"][0]["costUsd"], 0.25);
    assert_eq!(tree[0]["subtreeCostUsd"], 0.25);
    assert_eq!(tree[0]["hasError"], true);
    assert_eq!(tree.len(), 4, "{trace}");
    world.get("/api/sessions/nobody/trace").await.refusal(404);
}

async fn sessions_of_others_are_not_there(world: World) {
    let (_, other) = world.org("Other");
    world.send(&[note("s", "x")]).await;
    for path in
        ["/api/sessions/s", "/api/sessions/s/timeline", "/api/sessions/s/trace", "/api/sessions/nobody"]
    {
        other.get(path).await.refusal(404);
    }
    assert_eq!(other.read("/api/sessions").await["sessions"], json!([]));
    assert_eq!(other.read("/api/sessions?countOnly=true").await, json!({ "count": 0, "countIsExact": true }));
}
