//! Every token once: what a span, its later versions, its twins and those above it add to the sums.

use serde_json::{Value, json};

use crate::otel_requests::{
    Export, agent, and, attributes_of, chat, send_span_of_scope, send_spans, span, span_id, timed, trace_id,
    tree,
};
use crate::world::{Api, World};

on_both_engines!(
    a_longer_version_moves_the_sums_by_the_difference,
    a_repetition_adds_nothing,
    a_hit_of_the_clients_cache_costs_nothing_and_says_what_it_saved,
    what_a_container_names_counts_until_a_call_below_it_comes,
    twins_in_two_traces_are_one_call,
    one_answer_after_a_long_time_is_another_call,
    a_librarys_own_span_beside_an_instrumentations_is_one_call,
    metrics_add_nothing,
);

/// gpt-4o costs 2.5 and 10 dollars a million tokens.
fn cost_usd(input_tokens: u32, output_tokens: u32) -> f64 {
    (f64::from(input_tokens) * 2_500.0 + f64::from(output_tokens) * 10_000.0) / 1e9
}

/// (input, output, cost) of the session, and everywhere else where they are summed.
async fn check_sums(api: &Api, session: &str, tokens: (u32, u32), cost_usd: f64) {
    let shown = api.read(&format!("/api/sessions/{session}")).await;
    let analytics = api.read("/api/analytics").await["totals"].take();
    let llm = api.read("/api/analytics/llm").await["summary"].take();
    for figures in [&shown, &analytics, &llm] {
        let found = (&figures["totalInputTokens"], &figures["totalOutputTokens"], &figures["totalCostUsd"]);
        assert_eq!(found, (&json!(tokens.0), &json!(tokens.1), &json!(cost_usd)), "{figures}");
    }
    let agents = api.read("/api/agents").await;
    let of_agents = agents["agents"].as_array().unwrap().iter();
    let cost: f64 = of_agents.map(|agent| agent["totalCostUsd"].as_f64().unwrap()).sum();
    assert!((cost - cost_usd).abs() < 1e-12, "{agents}");
    let nodes = tree(api, session).await;
    let sum = |field: &str| nodes.iter().map(|node| node["subtree"][field].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("inputTokens"), sum("outputTokens")), (i64::from(tokens.0), i64::from(tokens.1)));
    api.timeline(session).await;
}

async fn count(api: &Api, field: &str) -> i64 {
    let ledger = api.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    key[field].as_i64().or_else(|| key["refused"][field].as_i64()).unwrap_or(0)
}

fn root() -> Value {
    span(1, 1, None, and(agent("planner"), json!({ "session.id": "s" })))
}

async fn a_longer_version_moves_the_sums_by_the_difference(world: World) {
    let short = timed(span(1, 2, Some(1), chat(100, 10)), 2, 500);
    let long = timed(span(1, 2, Some(1), chat(150, 30)), 2, 1_500);
    for order in [[&short, &long], [&long, &short]] {
        let (_, api) = world.org("Order");
        send_spans(&api, &[root(), order[0].clone()]).await;
        if order[0] == &short {
            check_sums(&api, "s", (100, 10), cost_usd(100, 10)).await;
        }
        send_spans(&api, &[order[1].clone()]).await;
        check_sums(&api, "s", (150, 30), cost_usd(150, 30)).await;
        let session = api.read("/api/sessions/s").await;
        // Both arrived and are kept; it is one call.
        assert_eq!((&session["eventCount"], &session["llmCallCount"]), (&json!(3), &json!(1)));
        let nodes = tree(&api, "s").await;
        assert_eq!(
            (&nodes[0]["childCount"], &nodes[0]["children"][0]["durationMs"]),
            (&json!(1), &json!(1_498.0))
        );
        let timeline = api.timeline("s").await;
        assert_eq!(timeline.len(), 2, "{timeline:?}");
        assert_eq!(count(&api, "stored").await, 3);
        let totals = api.read("/api/analytics").await["totals"].take();
        assert_eq!((&totals["llmCallCount"], &totals["eventCount"]), (&json!(1), &json!(3)));
        assert_eq!(totals["avgLatencyMs"], 1_498.0, "{totals}");
    }
}

async fn a_repetition_adds_nothing(world: World) {
    let spans = [root(), span(1, 2, Some(1), chat(100, 10)), span(1, 3, Some(1), chat(7, 3))];
    send_spans(&world, &spans).await;
    let read = async || {
        let paths = ["/api/sessions/s", "/api/analytics", "/api/agents", "/api/sessions/s/timeline"];
        let mut all = Vec::new();
        for path in paths {
            all.push(world.read(path).await);
        }
        all
    };
    let before = read().await;
    for _ in 0..3 {
        send_spans(&world, &spans[1..]).await;
    }
    // The same twice in one request.
    send_spans(&world, &[spans[2].clone(), spans[2].clone()]).await;
    assert_eq!(read().await, before);
    check_sums(&world, "s", (107, 13), cost_usd(107, 13)).await;
    assert_eq!((count(&world, "received").await, count(&world, "stored").await), (11, 3));
    assert_eq!(count(&world, "duplicate").await, 8);
}

async fn a_hit_of_the_clients_cache_costs_nothing_and_says_what_it_saved(world: World) {
    let hit = and(chat(1_000, 100), json!({ "gen_ai.response.cache_hit": true }));
    send_spans(&world, &[root(), span(1, 2, Some(1), hit), span(1, 3, Some(1), chat(10, 1))]).await;
    let session = world.read("/api/sessions/s").await;
    assert_eq!(session["totalCostUsd"], cost_usd(10, 1), "{session}");
    let nodes = tree(&world, "s").await;
    let hit = &nodes[0]["children"][0];
    assert_eq!((&hit["costUsd"], &hit["span"]["savedUsd"]), (&json!(0.0), &json!(cost_usd(1_000, 100))));
    assert_eq!(nodes[0]["subtreeCostUsd"], cost_usd(10, 1));
    assert!(nodes[0]["children"][1]["span"].get("savedUsd").is_none());
    let event = world.read(&format!("/api/events/{}", hit["id"].as_str().unwrap())).await;
    assert_eq!(
        (&event["span"]["savedUsd"], &event["payload"]["costUsd"]),
        (&json!(cost_usd(1_000, 100)), &json!(0.0))
    );
    let totals = world.read("/api/analytics").await["totals"].take();
    assert_eq!((&totals["totalCostUsd"], &totals["unknownCostCount"]), (&json!(cost_usd(10, 1)), &json!(0)));
}

async fn what_a_container_names_counts_until_a_call_below_it_comes(world: World) {
    let sum = json!({ "session.id": "s", "gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20 });
    send_spans(&world, &[span(1, 1, None, and(agent("planner"), sum)), span(1, 2, Some(1), json!({}))]).await;
    check_sums(&world, "s", (100, 20), cost_usd(100, 20)).await;
    let nodes = tree(&world, "s").await;
    assert_eq!(
        (&nodes[0]["span"]["inputTokens"], nodes[0]["span"].get("reportedRollup")),
        (&json!(100), None)
    );
    // A call below, at whatever depth: from now on it is the owner.
    send_spans(&world, &[span(1, 3, Some(2), chat(60, 15))]).await;
    check_sums(&world, "s", (60, 15), cost_usd(60, 15)).await;
    let nodes = tree(&world, "s").await;
    let top = &nodes[0]["span"];
    assert_eq!((&top["inputTokens"], &top["outputTokens"]), (&json!(0), &json!(0)));
    assert_eq!(top["reportedRollup"], json!({ "inputTokens": 100, "outputTokens": 20 }));
    assert_eq!(nodes[0]["costUsd"], 0.0);
    assert_eq!(world.read("/api/sessions/s").await["llmCallCount"], 1);
}

async fn twins_in_two_traces_are_one_call(world: World) {
    let answer = json!({ "gen_ai.response.id": "answer-1" });
    let outer = span(1, 2, Some(1), and(chat(100, 11), answer.clone()));
    // The client's own span began later, is closer to the wire, and its trace knows nothing of the session.
    let own = timed(span(2, 9, None, and(chat(100, 10), answer)), 100, 900);
    for order in [[&outer, &own], [&own, &outer]] {
        let (_, api) = world.org("Order");
        send_spans(&api, &[order[0].clone()]).await;
        send_spans(&api, &[order[1].clone()]).await;
        send_spans(&api, &[root()]).await;
        check_sums(&api, "s", (100, 10), cost_usd(100, 10)).await;
        let list = api.read("/api/sessions").await;
        assert_eq!(list["sessions"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list["sessions"][0]["llmCallCount"], 1);
        assert_eq!(api.read("/api/analytics").await["totals"]["uniqueSessions"], 1);
        // What was a session of its own for a while is still found.
        let left = if order[0] == &own { 2 } else { 1 };
        assert_eq!(api.read(&format!("/api/sessions/{}", trace_id(left))).await["id"], "s");
        let nodes = tree(&api, "s").await;
        assert_eq!((nodes.len(), &nodes[0]["childCount"]), (1, &json!(1)), "{nodes:?}");
        let call = &nodes[0]["children"][0]["span"];
        assert_eq!(
            (&call["spanId"], &call["inputTokens"], &call["outputTokens"]),
            (&json!(span_id(2)), &json!(100), &json!(10))
        );
        assert_eq!(call["parts"], json!([{ "traceId": trace_id(2), "spanId": span_id(9) }]));
    }
}

async fn one_answer_after_a_long_time_is_another_call(world: World) {
    let call =
        || and(chat(100, 10), json!({ "gen_ai.response.id": "chatcmpl-told-again", "session.id": "s" }));
    let minutes = |minutes: i64| minutes * 60_000;
    let late = timed(span(2, 2, None, call()), minutes(11), minutes(11) + 1_000);
    send_spans(&world, &[span(1, 1, None, call()), late]).await;
    assert_eq!(world.read("/api/sessions/s").await["totalInputTokens"], 200);
    // One between them: it is the first one's twin.
    let between = timed(span(3, 3, None, call()), minutes(8), minutes(8) + 1_000);
    send_spans(&world, &[between]).await;
    assert_eq!(world.read("/api/sessions/s").await["totalInputTokens"], 200);
}

async fn a_librarys_own_span_beside_an_instrumentations_is_one_call(world: World) {
    let answer = json!({ "gen_ai.response.id": "chatcmpl-0123456789" });
    let failed = |id: u32, start_ms: i64, end_ms: i64| {
        let attributes = json!({ "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5", "error.type": "rate_limit_error" });
        let mut call = timed(span(1, id, Some(1), attributes), start_ms, end_ms);
        call["status"] = json!({ "code": 2 });
        call
    };
    let (instrumentation, library) = ("opentelemetry.instrumentation.openai", "com.anthropic.sdk.python");
    let spans = [
        ("it", root()),
        (instrumentation, timed(span(1, 2, Some(1), and(chat(100, 10), answer)), 10, 90)),
        (library, timed(span(1, 3, Some(1), chat(100, 10)), 20, 80)),
        (instrumentation, failed(4, 100, 200)),
        (library, failed(5, 110, 190)),
    ];
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 3, 0, 2, 4]] {
        let (_, api) = world.org("Order");
        for at in order {
            send_span_of_scope(&api, spans[at].0, &spans[at].1).await;
        }
        check_sums(&api, "s", (100, 10), cost_usd(100, 10)).await;
        let session = api.read("/api/sessions/s").await;
        assert_eq!((&session["llmCallCount"], &session["errorCount"]), (&json!(2), &json!(1)), "{order:?}");
        let nodes = tree(&api, "s").await;
        assert_eq!(nodes[0]["childCount"], 2, "{nodes:?}");
        let parts = |at: usize| nodes[0]["children"][at]["span"]["parts"][0]["spanId"].clone();
        assert_eq!((parts(0), parts(1)), (json!(span_id(3)), json!(span_id(5))));
    }
}

async fn metrics_add_nothing(world: World) {
    send_spans(&world, &[root(), span(1, 2, Some(1), chat(100, 10))]).await;
    let before = (world.read("/api/analytics").await, world.read("/v1/ingest/ledger").await);
    let attributes =
        json!({ "gen_ai.token.type": "input", "gen_ai.request.model": "gpt-4o", "session.id": "s" });
    let point = json!({ "attributes": attributes_of(&attributes), "count": "1", "sum": 100,
        "timeUnixNano": "1", "bucketCounts": ["1"], "explicitBounds": [] });
    let metric = json!({ "name": "gen_ai.client.token.usage", "unit": "{token}",
        "histogram": { "aggregationTemporality": 2, "dataPoints": [point] } });
    let request = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [metric] }] }] });
    let export = Export::read("1.metrics.json", request.to_string().as_bytes());
    for body in [export.protobuf(), export.json(0), export.json(31)] {
        body.post(&world).await;
    }
    world.settled().await;
    assert_eq!((world.read("/api/analytics").await, world.read("/v1/ingest/ledger").await), before);
    check_sums(&world, "s", (100, 10), cost_usd(100, 10)).await;
}
