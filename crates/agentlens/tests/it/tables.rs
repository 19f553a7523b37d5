//! Tables of analytics are bounded and lose nothing; days are those of the time zone that was asked for.

use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, event, note, now_us, with};
use crate::world::World;

on_both_engines!(
    a_page_and_its_others_make_the_total,
    pages_show_each_row_once,
    many_users_cost_little,
    days_of_a_zone_add_up_to_the_range,
    a_range_is_exactly_that_range,
    calls_without_a_model_are_one_row,
    errors_are_counted_by_model,
    embeddings_do_not_make_calls_dearer,
);

/// An answer of a model that cost so many hundredths of a dollar.
fn answer(agent: &str, user: &str, cents: usize) -> Value {
    let payload = json!({ "callId": "c", "provider": "acme", "model": format!("model-of-{agent}"), "completion": "x",
        "usage": { "inputTokens": 10, "outputTokens": 5, "totalTokens": 15 },
        "costUsd": format!("{}.{:02}", cents / 100, cents % 100).parse::<f64>().unwrap(), "latencyMs": 100 });
    let event = with(event("s", "llm_response", payload), "agentId", agent);
    with(event, "metadata", json!({ "userId": user }))
}

fn tool_call(tool: &str) -> Value {
    event("s", "tool_call", json!({ "toolName": tool, "callId": "c", "arguments": {} }))
}

/// 60 agents and users, of which number n costs n hundredths of a dollar, and 60 tools, of which number n is called n % 7 + 1
/// times.
async fn send_many(world: &World) {
    let mut events: Vec<Value> = Vec::new();
    for number in 0..60 {
        events.push(answer(&format!("a{number:03}"), &format!("u{number:03}"), number));
        events.extend((0..=number % 7).map(|_| tool_call(&format!("t{number:03}"))));
    }
    // In several requests, so that some changes are merged into cells and others wait.
    for chunk in events.chunks(11) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
}

fn sum(rows: &Value, field: &str) -> i64 {
    rows.as_array().unwrap().iter().map(|row| row[field].as_i64().unwrap()).sum()
}

fn cents(value: &Value) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and far below 2^53")]
    let cents = (value.as_f64().unwrap() * 100.0).round() as i64;
    cents
}

async fn a_page_and_its_others_make_the_total(world: World) {
    send_many(&world).await;
    let total_cents: i64 = (0..60).sum();
    for (path, list) in [("users", "users"), ("agents", "agents")] {
        for limit in ["1", "7", "59", "60", "1000"] {
            let table = world.query(&format!("/api/analytics/{path}"), &[("limit", limit)]).await.expect(200);
            let (rows, others) = (&table[list], &table["others"]);
            let shown = rows.as_array().unwrap().len();
            let expected = limit.parse::<usize>().unwrap().min(if path == "users" { 60 } else { 61 });
            assert_eq!(shown, expected, "{path} {limit}: {table}");
            let own: i64 = rows.as_array().unwrap().iter().map(|row| cents(&row["totalCostUsd"])).sum();
            let of_others = others.get("totalCostUsd").map_or(0, cents);
            assert_eq!(own + of_others, total_cents, "{path} {limit}");
            let events =
                sum(rows, "eventCount") + others.get("eventCount").map_or(0, |n| n.as_i64().unwrap());
            let all = world.read("/api/events?limit=1").await["total"].as_i64().unwrap();
            assert_eq!(events, if path == "users" { 60 } else { all }, "{path} {limit}");
            assert_eq!(others.is_object(), table["hasMore"].as_bool().unwrap());
        }
    }
    // The users who cost most come first.
    let users = world.read("/api/analytics/users?limit=3").await;
    let ids: Vec<&Value> = users["users"].as_array().unwrap().iter().map(|row| &row["userId"]).collect();
    assert_eq!(ids, ["u059", "u058", "u057"]);
    let costs = world.read("/api/analytics/costs?limit=5").await;
    for (list, others) in [("byAgent", "otherAgents"), ("byModel", "otherModels")] {
        let own: i64 = costs[list].as_array().unwrap().iter().map(|row| cents(&row["totalCostUsd"])).sum();
        assert_eq!(costs[list].as_array().unwrap().len(), 5);
        assert_eq!(own + cents(&costs[others]["totalCostUsd"]), total_cents, "{list}");
    }
    assert_eq!(cents(&costs["totals"]["totalCostUsd"]), total_cents);
    let bucket = &costs["overTime"][0];
    let of_agents: i64 = bucket["byAgent"].as_object().unwrap().values().map(cents).sum();
    assert_eq!(of_agents + cents(&bucket["otherAgentsUsd"]), total_cents);
    let llm = world.read("/api/analytics/llm?limit=5").await;
    let calls = sum(&llm["byModel"], "calls") + llm["otherModels"]["llmCallCount"].as_i64().unwrap();
    assert_eq!((calls, llm["byModel"][0]["p95LatencyMs"].as_f64().unwrap().round() as i64), (60, 100));
}

async fn pages_show_each_row_once(world: World) {
    send_many(&world).await;
    for (path, list, id, count) in [
        ("users", "users", "userId", 60),
        ("agents", "agents", "agentId", 61),
        ("tools", "tools", "toolName", 60),
    ] {
        let (mut seen, mut cursor): (Vec<String>, String) = (Vec::new(), String::new());
        loop {
            let table = world.read(&format!("/api/analytics/{path}?limit=7{cursor}")).await;
            assert_eq!(table["total"], count, "{path}");
            let rows = table[list].as_array().unwrap();
            seen.extend(rows.iter().map(|row| row[id].as_str().unwrap().to_owned()));
            match table["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let shown = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((shown, seen.len()), (count, count), "{path}");
        world.get(&format!("/api/analytics/{path}?cursor=x")).await.refusal(400);
    }
}

async fn many_users_cost_little(world: World) {
    let events: Vec<Value> = (0..20_000)
        .map(|number| with(note("s", "x"), "metadata", json!({ "userId": format!("{number}") })))
        .collect();
    for chunk in events.chunks(5_000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    let before = world.peak_memory_bytes();
    for _ in 0..3 {
        let answer = world.get("/api/analytics/users").await;
        assert!(answer.text.len() < 32 * 1024, "{} bytes", answer.text.len());
        let table = answer.expect(200);
        assert_eq!((&table["total"], &table["others"]["rowCount"]), (&json!(20_000), &json!(19_900)));
        assert_eq!(table["others"]["eventCount"], 19_900);
    }
    let after = world.peak_memory_bytes();
    assert!(after < before + 128 * 1024 * 1024, "{before} {after}");
}

/// The start of an hour of some days ago.
fn days_ago(days: i64) -> i64 {
    let now = now_us();
    now - now % HOUR_US - days * 24 * HOUR_US
}

fn span(number: i64, start_us: i64) -> Value {
    json!({
        "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "name": "chat m",
        "startTimeUnixNano": (start_us * 1000).to_string(), "endTimeUnixNano": (start_us * 1000 + 5_000_000).to_string(),
        "attributes": [
            { "key": "gen_ai.operation.name", "value": { "stringValue": "chat" } },
            { "key": "gen_ai.request.model", "value": { "stringValue": "m" } },
            { "key": "gen_ai.usage.input_tokens", "value": { "intValue": "10" } },
            { "key": "gen_ai.usage.output_tokens", "value": { "intValue": "1" } },
            { "key": "session.id", "value": { "stringValue": "spans" } },
            { "key": "user.id", "value": { "stringValue": "u" } },
        ]
    })
}

async fn send_spans(world: &World, spans: &[Value]) {
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    assert_eq!(world.post("/v1/traces", body.to_string()).await.status, 200);
    world.settled().await;
}

/// An event and a span every quarter of an hour, over four days.
async fn send_quarters(world: &World, first_us: i64) {
    let quarters: Vec<i64> = (0..4 * 96).map(|number| first_us + number * HOUR_US / 4).collect();
    let events: Vec<Value> =
        quarters.iter().map(|us| with(answer("a", "u", 1), "timestamp", at(us + 1))).collect();
    world.send(&events).await;
    let spans: Vec<Value> = quarters.iter().zip(1..).map(|(us, number)| span(number, us + 2)).collect();
    send_spans(world, &spans).await;
}

async fn days_of_a_zone_add_up_to_the_range(world: World) {
    // From the start of a day in UTC, so that both days are covered in every zone at every time of day.
    let first_us = days_ago(6);
    send_quarters(&world, first_us - first_us % (24 * HOUR_US)).await;
    let day = |days: i64| at(days_ago(days))[..10].to_owned();
    for zone in ["Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "UTC"] {
        let (from, to) = (day(5), day(4));
        let range =
            [("from", from.as_str()), ("to", to.as_str()), ("timeZone", zone), ("granularity", "day")];
        let figures = world.query("/api/analytics", &range).await.expect(200);
        assert!(figures["coveredRange"].is_null(), "{zone}: {figures}");
        let buckets = figures["buckets"].as_array().unwrap();
        let counts: Vec<&Value> = buckets.iter().map(|bucket| &bucket["eventCount"]).collect();
        // Two whole days of 96 quarters with an event and a span each.
        assert_eq!(counts, [&json!(192), &json!(192)], "{zone}: {figures}");
        assert!(buckets[0]["timestamp"].as_str().unwrap().starts_with(&from), "{zone}: {figures}");
        assert_eq!(figures["totals"]["llmCallCount"], 384, "{zone}");
        assert_eq!(figures["totals"]["totalInputTokens"], 3840, "{zone}");
        let listed = world.query("/api/events", &range[..3]).await.expect(200);
        assert_eq!(listed["total"], 384, "{zone}");
        let llm = world.query("/api/analytics/llm", &range).await.expect(200);
        assert_eq!(
            (&llm["summary"]["totalCalls"], sum(&llm["byModel"], "calls")),
            (&json!(384), 384),
            "{zone}"
        );
        assert_eq!(sum(&llm["byTime"], "calls"), 384, "{zone}");
        let users = world.query("/api/analytics/users", &range[..3]).await.expect(200);
        assert_eq!(users["users"][0]["eventCount"], 384, "{zone}: {users}");
        let agents = world.query("/api/analytics/agents", &range[..3]).await.expect(200);
        assert_eq!(sum(&agents["agents"], "eventCount"), 384, "{zone}: {agents}");
        let costs = world.query("/api/analytics/costs", &range).await.expect(200);
        assert_eq!(
            (&costs["totals"]["eventCount"], sum(&costs["overTime"], "eventCount")),
            (&json!(384), 384)
        );
    }
}

async fn a_range_is_exactly_that_range(world: World) {
    let first = days_ago(3);
    send_quarters(&world, first).await;
    // Of the quarters, each with an event 1 us and a span 2 us behind it.
    for (from_us, to_us, events, sessions) in [
        (first, first + HOUR_US / 4, 2, 2),
        (first + 1, first + 1, 1, 1),
        (first + 2, first + 2, 1, 1),
        (first + 3, first + HOUR_US / 4, 0, 0),
        (first + HOUR_US / 2, first + 30 * HOUR_US + 1, 237, 0),
        (first - HOUR_US, first + 1, 1, 1),
        (first + HOUR_US / 4, first + HOUR_US, 6, 0),
    ] {
        let (from, to) = (at(from_us), at(to_us));
        let range = [("from", from.as_str()), ("to", to.as_str())];
        let listed = world.query("/api/events", &range).await.expect(200);
        assert_eq!(listed["total"], events, "{range:?}");
        for path in ["/api/analytics", "/api/analytics/costs"] {
            let figures = world.query(path, &range).await.expect(200);
            assert_eq!(figures["totals"]["eventCount"], events, "{path} {range:?}: {figures}");
        }
        let figures = world.query("/api/analytics", &range).await.expect(200);
        assert_eq!(figures["totals"]["uniqueSessions"], sessions, "{range:?}");
        let llm = world.query("/api/analytics/llm", &range).await.expect(200);
        assert_eq!(llm["summary"]["totalCalls"], events, "{range:?}");
    }
}

async fn calls_without_a_model_are_one_row(world: World) {
    let named = answer("a", "u", 3);
    let mut unnamed = answer("a", "u", 4);
    unnamed["payload"]["model"] = json!(null);
    let mut empty = answer("b", "u", 5);
    empty["payload"].as_object_mut().unwrap().remove("model");
    let mut accepted = 1;
    for event in [named, unnamed, empty] {
        accepted += i64::from(world.try_send(&[event]).await.status == 202);
    }
    let mut bare = span(1, now_us() - HOUR_US / 2);
    bare["attributes"].as_array_mut().unwrap().retain(|attribute| attribute["key"] != "gen_ai.request.model");
    send_spans(&world, &[bare]).await;
    let llm = world.read("/api/analytics/llm").await;
    let rows = llm["byModel"].as_array().unwrap();
    let unknown: Vec<&Value> = rows.iter().filter(|row| row["model"] == "unknown").collect();
    assert_eq!(unknown.len(), 1, "{llm}");
    assert_eq!(sum(&llm["byModel"], "calls"), accepted);
    assert_eq!(llm["summary"]["totalCalls"], accepted);
    let sessions = world.read("/api/sessions").await;
    assert_eq!(sum(&sessions["sessions"], "llmCallCount"), accepted, "{sessions}");
    let filtered = world.read("/api/analytics/llm?model=unknown").await;
    assert_eq!(filtered["summary"]["totalCalls"], unknown[0]["calls"]);
    let events = world.read("/api/events?model=unknown").await;
    assert_eq!(&events["total"], &unknown[0]["calls"], "{events}");
}

async fn errors_are_counted_by_model(world: World) {
    let failed = with(answer("a", "u", 0), "severity", "error");
    world.send(&[answer("a", "u", 1), answer("a", "u", 1), answer("a", "u", 1), failed]).await;
    let llm = world.read("/api/analytics/llm").await;
    for figures in [&llm["summary"], &llm["byModel"][0], &llm["byTime"][0]] {
        assert_eq!((&figures["errorCount"], &figures["errorRate"]), (&json!(1), &json!(0.25)), "{llm}");
    }
}

async fn embeddings_do_not_make_calls_dearer(world: World) {
    world.send(&[answer("a", "u", 50), answer("a", "u", 150)]).await;
    let cost = json!({ "provider": "acme", "model": "embedder", "inputTokens": 5, "outputTokens": 0, "totalTokens": 5,
        "costUsd": 8.0 });
    world.send(&[event("s", "cost_tracked", cost)]).await;
    let llm = world.read("/api/analytics/llm").await;
    assert_eq!(cents(&llm["summary"]["totalCostUsd"]), 1000, "{llm}");
    assert_eq!(cents(&llm["summary"]["avgCostPerCall"]), 100, "{llm}");
}
