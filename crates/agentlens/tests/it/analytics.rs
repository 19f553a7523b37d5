//! Analytics equal a recount of what was sent.

use std::collections::BTreeMap;

use agentlens_domain::time::day_start;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, note, now_us, with};
use crate::world::{Api, World};

on_both_engines!(
    figures_equal_a_recount,
    costs_are_exact_to_the_nano_dollar,
    latencies_come_from_answers,
    costs_say_where_they_come_from,
    unclear_ranges_are_refused,
    stats_count_everything,
    figures_of_others_are_not_in_it,
);

/// What one answer of a model cost and took, and when.
struct Call {
    us: i64,
    agent: String,
    model: String,
    user: String,
    nanos: i64,
    input: i64,
    output: i64,
}

fn calls(count: usize, now: i64) -> Vec<Call> {
    let mut random = SmallRng::seed_from_u64(42);
    (0..count)
        .map(|number| Call {
            us: now - random.random_range(0..20 * 24) * HOUR_US - random.random_range(0..HOUR_US),
            agent: format!("agent-{}", number % 3),
            model: format!("model-{}", random.random_range(0..4)),
            user: format!("user-{}", random.random_range(0..5)),
            nanos: random.random_range(0..5_000_000_000),
            input: random.random_range(0..10_000),
            output: random.random_range(0..5_000),
        })
        .collect()
}

fn event_of(call: &Call, number: usize) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let usd = call.nanos as f64 / 1e9;
    json!({
        "sessionId": format!("s{}", number % 40), "agentId": call.agent, "eventType": "llm_response", "timestamp": at(call.us),
        "severity": if number.is_multiple_of(10) { "error" } else { "info" },
        "metadata": { "userId": call.user },
        "payload": { "callId": "c", "provider": "acme", "model": call.model, "completion": "x", "finishReason": "stop",
            "usage": { "inputTokens": call.input, "outputTokens": call.output, "totalTokens": call.input + call.output },
            "costUsd": usd, "latencyMs": 100 },
    })
}

/// Dollars as a whole number of nano-dollars: figures are sums of integers, so nothing may be off by one.
fn nanos(usd: &Value) -> i64 {
    let nanos = usd.as_f64().unwrap() * 1e9;
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and far below 2^53")]
    let rounded = nanos.round() as i64;
    assert!((nanos - nanos.round()).abs() < 1e-3, "{usd}");
    rounded
}

type Sums = BTreeMap<String, (i64, i64, i64, i64)>;

fn sums(calls: &[Call], key: impl Fn(&Call) -> String) -> Sums {
    let mut sums = Sums::new();
    for call in calls {
        let (count, nanos, input, output) = sums.entry(key(call)).or_default();
        *count += 1;
        *nanos += call.nanos;
        *input += call.input;
        *output += call.output;
    }
    sums
}

/// Rows of an answer as sums: (count, cost, input, output).
fn rows(list: &Value, key: &str, fields: [&str; 4]) -> Sums {
    let [count, cost, input, output] = fields;
    let rows = list.as_array().unwrap().iter();
    rows.map(|row| {
        let number = |field: &str| row[field].as_i64().unwrap_or_else(|| panic!("{field} in {row}"));
        (
            row[key].as_str().unwrap().to_owned(),
            (number(count), nanos(&row[cost]), number(input), number(output)),
        )
    })
    .collect()
}

fn bucket(us: i64, granularity: &str) -> String {
    let day_us = 24 * HOUR_US;
    let start = match granularity {
        "hour" => us - us.rem_euclid(HOUR_US),
        "day" => us - us.rem_euclid(day_us),
        // 1970-01-05 was a Monday.
        _ => us - (us - 4 * day_us).rem_euclid(7 * day_us),
    };
    at(start).replace(".000Z", "Z")
}

async fn figures_equal_a_recount(world: World) {
    let now = now_us();
    let calls = calls(600, now);
    let events: Vec<Value> = calls.iter().zip(0..).map(|(call, number)| event_of(call, number)).collect();
    for chunk in events.chunks(50) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    // Whole hours, so that the edges of the range do not cut a bucket.
    let (from, to) = (at(now - now % HOUR_US - 480 * HOUR_US), at(now - now % HOUR_US + HOUR_US - 1));
    for granularity in ["hour", "day", "week"] {
        let range = [("from", from.as_str()), ("to", to.as_str()), ("granularity", granularity)];
        let llm = world.query("/api/analytics/llm", &range).await.expect(200);
        let fields = ["calls", "costUsd", "inputTokens", "outputTokens"];
        assert_eq!(
            rows(&llm["byTime"], "bucket", fields),
            sums(&calls, |call| bucket(call.us, granularity)),
            "{granularity}"
        );
        assert_eq!(
            rows(&llm["byModel"], "model", fields),
            sums(&calls, |call| call.model.clone()),
            "{granularity}"
        );
        let all = sums(&calls, |_| String::new())[""];
        let summary = &llm["summary"];
        assert_eq!(
            (
                &summary["totalCalls"],
                nanos(&summary["totalCostUsd"]),
                &summary["totalInputTokens"],
                &summary["totalOutputTokens"]
            ),
            (&json!(all.0), all.1, &json!(all.2), &json!(all.3))
        );
        let overview = world.query("/api/analytics", &range).await.expect(200);
        let fields = ["llmCallCount", "totalCostUsd", "totalInputTokens", "totalOutputTokens"];
        assert_eq!(
            rows(&overview["buckets"], "timestamp", fields),
            sums(&calls, |call| bucket(call.us, granularity)),
            "{granularity}"
        );
        assert_eq!(overview["totals"]["eventCount"], 600);
        assert_eq!(overview["totals"]["errorCount"], 60);
        assert_eq!(overview["totals"]["uniqueSessions"], 40);
        check_tables(&world, &range, &calls).await;
    }
    // One agent, one model, and a range that holds a part.
    let middle = now - now % HOUR_US - 30 * HOUR_US;
    for (from_us, granularity) in [(middle, "hour"), (middle - 200 * HOUR_US, "day")] {
        let from = at(from_us);
        let parameters = [
            ("from", from.as_str()),
            ("to", to.as_str()),
            ("agentId", "agent-1"),
            ("model", "model-2"),
            ("granularity", granularity),
        ];
        let part: Vec<&Call> = calls
            .iter()
            .filter(|call| call.us >= from_us && call.agent == "agent-1" && call.model == "model-2")
            .collect();
        let llm = world.query("/api/analytics/llm", &parameters).await.expect(200);
        assert_eq!(llm["summary"]["totalCalls"], part.len());
        assert_eq!(nanos(&llm["summary"]["totalCostUsd"]), part.iter().map(|call| call.nanos).sum::<i64>());
    }
}

async fn check_tables(world: &World, range: &[(&str, &str)], calls: &[Call]) {
    let by_agent = sums(calls, |call| call.agent.clone());
    let agents = world.query("/api/analytics/agents", range).await.expect(200);
    let fields = ["llmCallCount", "totalCostUsd", "totalInputTokens", "totalOutputTokens"];
    assert_eq!(rows(&agents["agents"], "agentId", fields), by_agent);
    let users = world.query("/api/analytics/users", range).await.expect(200);
    assert_eq!(rows(&users["users"], "userId", fields), sums(calls, |call| call.user.clone()));
    let costs = world.query("/api/analytics/costs", range).await.expect(200);
    let of_agents: BTreeMap<String, i64> = costs["byAgent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["agentId"].as_str().unwrap().to_owned(), nanos(&row["totalCostUsd"])))
        .collect();
    assert_eq!(of_agents, by_agent.iter().map(|(agent, sum)| (agent.clone(), sum.1)).collect());
    let fields = ["callCount", "totalCostUsd", "inputTokens", "outputTokens"];
    assert_eq!(rows(&costs["byModel"], "model", fields), sums(calls, |call| call.model.clone()));
    let total: i64 = calls.iter().map(|call| call.nanos).sum();
    assert_eq!(nanos(&costs["totals"]["totalCostUsd"]), total);
    let sessions: i64 =
        costs["bySession"].as_array().unwrap().iter().map(|row| nanos(&row["totalCostUsd"])).sum();
    assert_eq!(sessions, total);
}

async fn costs_are_exact_to_the_nano_dollar(world: World) {
    let tracked = |usd: &str| {
        format!(
            r#"{{"sessionId":"s","agentId":"a","eventType":"cost_tracked","payload":{{"provider":"p","model":"m","inputTokens":0,"outputTokens":0,"totalTokens":0,"costUsd":{usd}}}}}"#
        )
    };
    let events: Vec<String> =
        (0..1000).map(|_| tracked("0.1")).chain([tracked("1e-9"), tracked("123.456789123")]).collect();
    world.post("/api/events", format!("[{}]", events.join(","))).await.expect(202);
    world.settled().await;
    let expected = 100_000_000_000 + 1 + 123_456_789_123;
    assert_eq!(nanos(&world.read("/api/sessions/s").await["totalCostUsd"]), expected);
    assert_eq!(nanos(&world.read("/api/analytics").await["totals"]["totalCostUsd"]), expected);
    assert_eq!(nanos(&world.read("/api/agents/a").await["totalCostUsd"]), expected);
}

async fn latencies_come_from_answers(world: World) {
    let events: Vec<Value> = (1..=100)
        .map(|number| {
            json!({ "sessionId": "s", "agentId": "a", "eventType": "tool_response",
                "payload": { "callId": "c", "toolName": if number <= 50 { "fast" } else { "slow" }, "durationMs": number * 10 } })
        })
        .collect();
    world.send(&events).await;
    let totals = &world.read("/api/analytics").await["totals"];
    let near = |value: &Value, expected: f64| (value.as_f64().unwrap() / expected - 1.0).abs() < 0.03;
    assert!(
        near(&totals["avgLatencyMs"], 505.0)
            && near(&totals["p50LatencyMs"], 500.0)
            && near(&totals["p95LatencyMs"], 950.0),
        "{totals}"
    );
    let tools = world.read("/api/analytics/tools").await;
    let fast = tools["tools"].as_array().unwrap().iter().find(|tool| tool["toolName"] == "fast").unwrap();
    assert!(near(&fast["avgDurationMs"], 255.0), "{fast}");
    // Calls and failures are counted by tool.
    let call = |name: &str, payload: Value| json!({ "sessionId": "s", "agentId": "a", "eventType": name, "payload": payload });
    world
        .send(&[
            call("tool_call", json!({ "toolName": "fast", "callId": "d", "arguments": {} })),
            call("tool_error", json!({ "toolName": "fast", "callId": "d", "error": "no", "durationMs": 1 })),
        ])
        .await;
    let tools = world.read("/api/analytics/tools").await;
    let fast = tools["tools"].as_array().unwrap().iter().find(|tool| tool["toolName"] == "fast").unwrap();
    assert_eq!(
        (&fast["callCount"], &fast["errorCount"], &fast["errorRate"]),
        (&json!(1), &json!(1), &json!(1.0))
    );
}

async fn costs_say_where_they_come_from(world: World) {
    let answer = |id: &str, model: &str, cost: Value| {
        let mut payload = json!({ "callId": "c", "provider": "openai", "model": model, "completion": "x",
            "usage": { "inputTokens": 1000, "outputTokens": 1000, "totalTokens": 2000 } });
        if !cost.is_null() {
            payload["costUsd"] = cost;
        }
        json!({ "id": id, "sessionId": "s", "agentId": "a", "eventType": "llm_response", "payload": payload })
    };
    world
        .send(&[
            answer("reported", "gpt-4o", json!(0.5)),
            answer("computed", "gpt-4o-2024-08-06", json!(null)),
            answer("unknown", "nobody-knows-this-model", json!(null)),
        ])
        .await;
    let cost = |event: Value| event["cost"].clone();
    let reported = cost(world.read("/api/events/reported").await);
    let computed = cost(world.read("/api/events/computed").await);
    let unknown = cost(world.read("/api/events/unknown").await);
    assert_eq!(
        (&reported["usd"], &reported["source"], &reported["reportedUsd"]),
        (&json!(0.5), &json!("reported"), &json!(0.5))
    );
    assert_eq!(computed["source"], "computed");
    assert_eq!(computed["usd"], reported["computedUsd"]);
    assert_eq!(unknown["source"], "unknown");
    assert_eq!(world.read("/api/analytics").await["totals"]["unknownCostCount"], 1);
}

async fn unclear_ranges_are_refused(world: World) {
    for path in ["", "/llm", "/costs", "/agents", "/tools", "/users"] {
        for bad in [
            "from=x",
            "to=x",
            "granularity=minute",
            "range=forever",
            "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
            "from=2020-01-01T00:00:00Z",
            "to=9999999999999999999",
            "to=-9223372036854775",
        ] {
            let answer = world.get(&format!("/api/analytics{path}?{bad}")).await;
            if bad.starts_with("granularity") && ["/agents", "/tools", "/users"].contains(&path) {
                // A table has no buckets.
                assert_eq!(answer.headers["agentlens-ignored"], "granularity");
                continue;
            }
            assert!(
                answer.status == 400 || (bad.starts_with("to=-") && answer.status == 200),
                "{path}?{bad}: {}",
                answer.text
            );
        }
        for good in [
            "",
            "range=24h",
            "range=7d",
            "range=30d",
            "range=90d",
            "from=2026-01-01&to=2026-06-01",
            "range=90d&granularity=hour",
        ] {
            world.read(&format!("/api/analytics{path}?{good}")).await;
        }
    }
}

/// Sends events of the last and the first instants of two days: the start of the second, stats, overview.
async fn stats_around_midnight(api: &Api) -> (i64, Value, Value) {
    let today = day_start(now_us());
    let timed = |session: &str, us: i64| with(note(session, "x"), "timestamp", at(us));
    api.send(&[
        timed("s1", today),
        timed("s1", today + 1),
        timed("s2", today - 1),
        with(timed("s3", today - 2), "severity", "error"),
    ])
    .await;
    (today, api.read("/api/stats").await, api.read("/api/stats/overview").await)
}

async fn stats_count_everything(world: World) {
    let (mut today, mut stats, mut overview) = stats_around_midnight(&world).await;
    if today != day_start(now_us()) {
        // Midnight has passed, and the server may have counted from another day than we did.
        (today, stats, overview) = stats_around_midnight(&world.org("Again").1).await;
    }
    assert_eq!(
        (&stats["totalEvents"], &stats["totalSessions"], &stats["totalAgents"]),
        (&json!(4), &json!(3), &json!(1))
    );
    assert_eq!(stats["oldestEvent"], at(today - 2));
    assert_eq!(stats["newestEvent"], at(today + 1));
    for (field, expected) in [
        ("eventsTodayCount", 2),
        ("eventsYesterdayCount", 2),
        ("errorsTodayCount", 0),
        ("errorsYesterdayCount", 1),
        ("sessionsTodayCount", 1),
        ("sessionsYesterdayCount", 2),
    ] {
        assert_eq!(overview[field], expected, "{field}: {overview}");
    }
}

async fn figures_of_others_are_not_in_it(world: World) {
    let (_, other) = world.org("Other");
    world.send(&[event_of(&calls(1, now_us())[0], 1)]).await;
    for api in [other, world.make_key(&["--workspace", "project"])] {
        for (path, field) in [
            ("/llm", "byModel"),
            ("", "buckets"),
            ("/costs", "bySession"),
            ("/agents", "agents"),
            ("/tools", "tools"),
            ("/users", "users"),
        ] {
            let answer = api.read(&format!("/api/analytics{path}?range=90d")).await;
            assert_eq!(answer[field], json!([]), "{path}");
        }
        assert_eq!(api.read("/api/stats").await["totalEvents"], 0);
        assert_eq!(api.read("/api/stats/overview").await["totalAgents"], 0);
    }
}
