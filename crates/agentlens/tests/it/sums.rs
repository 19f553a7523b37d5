//! Sums that reach the end of their numbers stay there: nothing that a client sends breaks a figure or loses an event.

use serde_json::{Value, json};

use crate::samples::{event, note, with};
use crate::world::{Answer, World};

on_both_engines!(
    sums_that_overflow_stop_at_the_greatest_number,
    a_computed_cost_has_the_limit_of_a_stated_one,
    absurd_durations_leave_the_figures_readable,
    a_damaged_sketch_is_neither_emptied_nor_in_the_way,
);

/// More transactions than may wait to be merged into the cells.
const MERGING_REQUESTS: usize = 18;

const FIGURES: [&str; 7] = [
    "agents",
    "analytics",
    "analytics/costs",
    "analytics/llm",
    "analytics/agents",
    "stats",
    "stats/overview",
];

/// Sends small events until what waits is merged into the cells.
async fn merge(world: &World) {
    for number in 0..MERGING_REQUESTS {
        world.send(&[note("merging", &format!("{number}"))]).await;
        world.settled().await;
    }
}

fn dear_call(session: &str) -> Value {
    event(
        session,
        "llm_response",
        json!({ "callId": "c", "provider": "acme", "model": "m", "completion": "x", "costUsd": 10_000,
            "usage": { "inputTokens": 1e10, "outputTokens": 1e10, "totalTokens": 2e10 } }),
    )
}

async fn sums_that_overflow_stop_at_the_greatest_number(world: World) {
    world.send(&[dear_call("s")]).await;
    merge(&world).await;
    // As if a million such calls had come before.
    let nearly = i64::MAX - 5;
    for sql in [
        format!(
            "update rollup_hour set cost_nanos = {nearly}, input_tokens = {nearly}, output_tokens = {nearly}"
        ),
        format!(
            "update rollup_day set cost_nanos = {nearly}, input_tokens = {nearly}, output_tokens = {nearly}"
        ),
        format!("update agents set cost_nanos = {nearly}, event_count = {nearly}"),
        format!("update sessions set cost_nanos = {nearly}, input_tokens = {nearly}"),
        format!("update usage_days set event_count = {nearly}, payload_bytes = {nearly}"),
        format!("update ingest_ledger set event_count = {nearly} where outcome = 'stored'"),
    ] {
        world.database.execute("default", &sql).await;
    }
    for _ in 0..3 {
        world.send(&[dear_call("s"), dear_call("t")]).await;
        merge(&world).await;
    }
    for figures in FIGURES {
        let answer = world.get(&format!("/api/{figures}")).await;
        assert_eq!(answer.status, 200, "{figures}: {}", answer.text);
    }
    for (table, column) in [
        ("rollup_hour", "cost_nanos"),
        ("rollup_day", "input_tokens"),
        ("agents", "cost_nanos"),
        ("agents", "event_count"),
        ("sessions", "cost_nanos"),
        ("usage_days", "payload_bytes"),
        ("ingest_ledger", "event_count"),
    ] {
        let greatest = world.database.number("default", &format!("select max({column}) from {table}")).await;
        assert_eq!(greatest, i64::MAX, "{table}.{column}");
    }
    // All events are there. The sums of the first session were changed by hand, which verification finds.
    let changed = world.read("/api/sessions/s/timeline").await;
    assert_eq!((changed["events"].as_array().unwrap().len(), &changed["chainValid"]), (4, &json!(false)));
    assert_eq!(world.timeline("t").await.len(), 3);
    assert_eq!(world.database.number("default", "select count(*) from dead_letters").await, 0);
}

async fn a_computed_cost_has_the_limit_of_a_stated_one(world: World) {
    let call = |session: &str, tokens: f64| {
        event(
            session,
            "llm_response",
            json!({ "callId": "c", "provider": "openai", "model": "o1-pro", "completion": "x",
                "usage": { "inputTokens": tokens, "outputTokens": 0, "totalTokens": tokens } }),
        )
    };
    world.send(&[call("possible", 1e6), call("absurd", 1e10)]).await;
    world.settled().await;
    assert_eq!(world.read("/api/sessions/possible").await["totalCostUsd"], 150.0);
    assert_eq!(world.read("/api/sessions/absurd").await["totalCostUsd"], 0.0);
    let costs = world.read("/api/analytics/llm").await;
    assert_eq!(
        costs["summary"]["totalCostUsd"].as_f64().or(costs["totalCostUsd"].as_f64()),
        Some(150.0),
        "{costs}"
    );
}

const YEAR_2000_NS: u64 = 946_771_200_000_000_000;
const TEN_YEARS_MS: f64 = 3653.0 * 86_400_000.0;

async fn export_tools(world: &World, count: usize, end_ns: u64) {
    let span = |number: usize| {
        json!({ "traceId": format!("{:032x}", number / 50 + 1), "spanId": format!("{:016x}", number + 1), "name": "x",
            "startTimeUnixNano": YEAR_2000_NS.to_string(), "endTimeUnixNano": end_ns.to_string(),
            "attributes": [
                { "key": "gen_ai.operation.name", "value": { "stringValue": "execute_tool" } },
                { "key": "gen_ai.tool.name", "value": { "stringValue": "t" } },
            ] })
    };
    let spans: Vec<Value> = (0..count).map(span).collect();
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    let request = world.request("POST", "/v1/traces").header("content-type", "application/json");
    world.answer(request.body(body.to_string())).await.expect(200);
    world.settled().await;
}

async fn tools_of_2000(world: &World) -> Answer {
    world.get("/api/analytics/tools?from=2000-01-01&to=2000-06-01").await
}

async fn absurd_durations_leave_the_figures_readable(world: World) {
    let now_ns = u64::try_from(world.now_us()).unwrap() * 1000;
    export_tools(&world, 200, now_ns).await;
    export_tools(&world, 20, now_ns - 1_000_000_000).await;
    for _ in 0..2 {
        let tools = tools_of_2000(&world).await.expect(200);
        let tool = &tools["tools"][0];
        assert_eq!(tool["callCount"], 200, "{tools}");
        let p95 = tool["p95DurationMs"].as_f64().unwrap();
        assert!((p95 / TEN_YEARS_MS - 1.0).abs() < 0.02, "{tools}");
        let old = with(note("old", "o"), "timestamp", "2000-01-02T00:00:00Z");
        world.send(&[old]).await;
        merge(&world).await;
    }
}

async fn a_damaged_sketch_is_neither_emptied_nor_in_the_way(world: World) {
    export_tools(&world, 10, YEAR_2000_NS + 1_000_000).await;
    merge(&world).await;
    assert_eq!(tools_of_2000(&world).await.status, 200);
    let damaged = if world.is_embedded() { "x'01ffff'" } else { "'\\x01ffff'" };
    for table in ["rollup_hour", "rollup_day"] {
        let sql = format!("update {table} set latency = {damaged} where dimension = 'tool'");
        world.database.execute("default", &sql).await;
    }
    export_tools(&world, 20, YEAR_2000_NS + 2_000_000).await;
    merge(&world).await;
    // No figure is better than a wrong one, and no event was lost for it.
    assert_eq!(tools_of_2000(&world).await.status, 500);
    let tools = "select count(*) from spans";
    assert_eq!(world.database.number("default", tools).await, 20);
    assert_eq!(world.timeline("merging").await.len(), 2 * MERGING_REQUESTS);
}
