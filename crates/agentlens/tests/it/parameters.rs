//! Parameters mean what they say on every endpoint: none is ignored in silence, a range is exactly that range.
//!
//! The routes are taken from the served `openapi.json`, so a new one is covered by itself.

use serde_json::{Value, json};

use crate::samples::{at, note, now_us, one_of_each, with};
use crate::world::{Answer, World};

on_both_engines!(
    unknown_parameters_are_never_ignored,
    known_parameters_are_not_called_unknown,
    a_date_as_an_end_is_the_whole_day,
    reversed_ranges_are_refused_everywhere,
    every_published_range_is_taken,
    errors_say_what_would_be_right,
    published_paths_are_named_until_they_are_built,
);

/// All documented GETs that answer at once: path and query parameters. Ids are filled in.
async fn gets(world: &World) -> Vec<(String, Vec<String>)> {
    let document = world.read("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap();
    // Providers add parameters of their own to the address that they send browsers back to.
    let is_other = |path: &str| path == "/api/stream" || path.ends_with("/callback");
    let gets = paths.iter().filter(|(path, item)| item.get("get").is_some() && !is_other(path));
    gets.map(|(path, item)| {
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let queries = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let names = queries.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
        (path.replace("{id}", "s"), names)
    })
    .collect()
}

fn ignored(answer: &Answer) -> &str {
    answer.headers.get("agentlens-ignored").map_or("", |value| value.to_str().unwrap())
}

async fn unknown_parameters_are_never_ignored(world: World) {
    world.send(&one_of_each("s", now_us())).await;
    let mut count = (0, 0);
    for (path, _) in gets(&world).await {
        let answer = world.get(&format!("{path}?staus=error&q=%C3%A9")).await;
        if path.starts_with("/v1/") {
            count.0 += 1;
            let refusal = answer.refusal(400);
            assert_eq!(refusal["code"], "invalid_parameter", "{path}: {refusal}");
            assert!(refusal["error"].as_str().unwrap().starts_with("q: "), "{path}: {refusal}");
        } else {
            count.1 += 1;
            assert_eq!(ignored(&answer), "q, staus", "{path}");
        }
    }
    assert!(count.0 >= 3 && count.1 >= 15, "{count:?}");
    // What is sent with a body counts too.
    let sent =
        world.post("/api/events?idempotent=1", json!({ "events": [note("s", "x")] }).to_string()).await;
    assert_eq!((sent.status, ignored(&sent)), (202, "idempotent"));
    // Further paths of an operation know its parameters, and no others.
    let refusal = world.post("/v1/events?strct=true", note("s", "x").to_string()).await.refusal(400);
    assert!(refusal["error"].as_str().unwrap().starts_with("strct: "), "{refusal}");
    let sent = world.post("/api/obs/ingest/events?strct=true", note("s", "x").to_string()).await;
    assert_eq!((sent.status, ignored(&sent)), (202, "strct"));
    world.post("/v1/events?strict=true", note("s", "x").to_string()).await.expect(202);
    assert_eq!(ignored(&world.get("/api/agents/crew/researcher?stats=1").await), "stats");
    // An exporter's data is not refused for a parameter of its address.
    let exported = world.post("/v1/traces?x=1", r#"{"resourceSpans":[]}"#).await;
    assert_eq!((exported.status, ignored(&exported)), (200, "x"));
}

async fn known_parameters_are_not_called_unknown(world: World) {
    world.send(&one_of_each("s", now_us())).await;
    let mut parameters = 0;
    for (path, names) in gets(&world).await {
        for name in names {
            let answer = world.query(&path, &[(&name, "")]).await;
            assert_eq!(ignored(&answer), "", "{path} {name}");
            parameters += 1;
        }
    }
    assert!(parameters > 60, "{parameters}");
}

/// Three events of one day at its beginning, in its middle and in its last second, with a session each.
async fn send_a_day(world: &World, day: &str, offset: &str) {
    let times = ["00:00:00.000", "12:30:00.000", "23:59:59.999"];
    let events: Vec<Value> = times
        .iter()
        .enumerate()
        .map(|(number, time)| {
            let event = note(&format!("s{number}"), "x");
            with(event, "timestamp", format!("{day}T{time}{offset}"))
        })
        .collect();
    world.send(&events).await;
}

async fn a_date_as_an_end_is_the_whole_day(world: World) {
    let day = &at(now_us() - 48 * 3_600_000_000)[..10];
    send_a_day(&world, day, "Z").await;
    for path in ["/api/events", "/api/sessions"] {
        let found = world.query(path, &[("from", day), ("to", day)]).await.expect(200);
        assert_eq!(found["total"], 3, "{path}: {found}");
    }
    let figures = world.query("/api/analytics", &[("from", day), ("to", day)]).await.expect(200);
    assert_eq!(figures["totals"]["eventCount"], 3, "{figures}");
    let report = world.query("/api/audit/verify", &[("from", day), ("to", day)]).await.expect(200);
    assert_eq!(report["sessionsVerified"], 3, "{report}");
    // In another zone the day is another one.
    let zone = ("timeZone", "Pacific/Auckland");
    let found = world.query("/api/events", &[("from", day), ("to", day), zone]).await.expect(200);
    assert_eq!(found["total"], 1, "{found}");
}

async fn reversed_ranges_are_refused_everywhere(world: World) {
    let mut count = 0;
    for (path, names) in gets(&world).await {
        if names.iter().any(|name| name == "from") {
            count += 1;
            let reversed = [("from", "2026-02-02"), ("to", "2026-02-01")];
            let refusal = world.query(&path, &reversed).await.refusal(400);
            assert!(refusal["error"].as_str().unwrap().starts_with("from: "), "{path}: {refusal}");
            let zone = [("timeZone", "Mars/Olympus")];
            let range = [("from", "2026-02-01"), ("to", "2026-02-02"), zone[0]];
            let refusal = world.query(&path, &range).await.refusal(400);
            assert!(refusal["error"].as_str().unwrap().starts_with("timeZone: "), "{path}: {refusal}");
        }
    }
    assert!(count >= 9, "{count}");
}

async fn every_published_range_is_taken(world: World) {
    for (path, names) in gets(&world).await {
        if names.iter().any(|name| name == "range") {
            for range in ["1h", "3h", "6h", "12h", "24h", "3d", "7d", "30d", "90d"] {
                world.query(&path, &[("range", range)]).await.expect(200);
            }
            world.query(&path, &[("range", "2h")]).await.refusal(400);
        }
    }
}

async fn errors_say_what_would_be_right(world: World) {
    for (path, parameter, hint) in [
        ("/api/events", ("severity", "fatal"), "critical"),
        ("/api/events", ("eventType", "toolCall"), "tool_call"),
        ("/api/stream", ("eventType", "toolCall"), "tool_call"),
        ("/api/sessions", ("status", "failed"), "error"),
        ("/api/events", ("from", "yesterday"), "a date such as 2026-01-02"),
        ("/api/sessions", ("countOnly", "yes"), "true"),
    ] {
        let refusal = world.query(path, &[parameter]).await.refusal(400);
        let said = refusal["error"].as_str().unwrap();
        assert!(said.starts_with(parameter.0) && said.contains(hint), "{path} {parameter:?}: {said}");
    }
    for (path, parameter) in
        [("/api/events?limit=1&limit=2", "limit"), ("/api/sessions/s/timeline?after=x", "after")]
    {
        let refusal = world.get(path).await.refusal(400);
        assert_eq!(refusal["code"], "invalid_parameter", "{path}: {refusal}");
        let said = refusal["error"].as_str().unwrap();
        assert!(said.starts_with(parameter) && !said.contains("deserialize"), "{path}: {said}");
    }
    for path in ["/api/sessions/%ff", "/api/sessions/%ff/timeline", "/nothing/%c3", "/api/events?search=%ff"]
    {
        let answer = world.get(path).await;
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
        assert_eq!(answer.refusal(400)["code"], "invalid_address", "{path}");
    }
    let event = with(note("s", "x"), "timestamp", 5);
    let refusal = world.try_send(&[event]).await.refusal(400);
    assert!(refusal["details"][0]["message"].as_str().unwrap().contains("2026-01-02T03:04:05Z"), "{refusal}");
}

async fn published_paths_are_named_until_they_are_built(world: World) {
    for (method, path, feature) in [
        ("PUT", "/api/agents/a/unpause", "guardrails"),
        ("POST", "/api/agents/a/diagnose", "diagnose"),
        ("POST", "/api/sessions/s/diagnose", "diagnose"),
        ("POST", "/api/eval/runs", "eval"),
        ("GET", "/api/eval/runs/1/compare?baselineRunId=2", "eval"),
        ("POST", "/api/eval/sessions/s/score", "eval"),
        ("GET", "/api/export", "export"),
        ("GET", "/api/export/counts", "export"),
        ("POST", "/api/import", "import"),
        ("POST", "/api/events/ingest", "webhooks"),
        ("GET", "/api/agents/a/trust", "trust"),
        ("GET", "/api/sessions/s/replay?offset=0", "replay"),
        ("POST", "/api/sessions/s/feedback", "scores"),
        ("GET", "/api/alerts/rules", "alerts"),
        ("DELETE", "/api/cost-budgets/1", "cost-budgets"),
        ("GET", "/api/cloud/orgs/1/usage", "cloud"),
    ] {
        let refusal = world.answer(world.request(method, path)).await.refusal(501);
        assert!(refusal["error"].as_str().unwrap().contains(&format!("`{feature}`")), "{path}: {refusal}");
    }
}
