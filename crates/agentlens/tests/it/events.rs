//! Reading events: filters, pages, single events.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, event, note, now_us, with};
use crate::world::World;

on_both_engines!(
    filters_equal_a_recount,
    cursors_walk_every_event_exactly_once,
    offsets_and_limits_cut_the_same_list,
    unclear_parameters_are_refused,
    one_event_is_found_or_not,
    python_clients_get_what_they_can_decode,
);

fn random_event(random: &mut SmallRng, number: usize, now: i64) -> Value {
    let types = ["custom", "tool_call", "session_started"];
    let severities = ["debug", "info", "warn", "error", "critical"];
    let event_type = types[random.random_range(0..types.len())];
    let payload = match event_type {
        "custom" => json!({ "type": "note", "data": {} }),
        "tool_call" => json!({ "toolName": format!("tool-{}", number % 3), "callId": "c", "arguments": {} }),
        _ => json!({}),
    };
    json!({
        "id": format!("e{number}"),
        "sessionId": format!("s{}", random.random_range(0..5)),
        "agentId": format!("a{}", random.random_range(0..3)),
        "eventType": event_type,
        "severity": severities[random.random_range(0..severities.len())],
        "payload": payload,
        "metadata": { "userId": format!("u{}", random.random_range(0..4)) },
        "timestamp": at(now - random.random_range(0..48) * HOUR_US),
    })
}

async fn filters_equal_a_recount(world: World) {
    let mut random = SmallRng::seed_from_u64(11);
    let now = now_us();
    let events: Vec<Value> = (0..400).map(|number| random_event(&mut random, number, now)).collect();
    world.send(&events).await;
    let matching = |condition: &dyn Fn(&Value) -> bool| {
        let mut ids: Vec<&str> = events
            .iter()
            .filter(|event| condition(event))
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        ids.sort_unstable();
        ids
    };
    let middle = at(now - 24 * HOUR_US);
    type Condition<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let cases: Vec<(Vec<(&str, &str)>, Condition<'_>)> = vec![
        (vec![], Box::new(|_| true)),
        (vec![("sessionId", "s1")], Box::new(|event| event["sessionId"] == "s1")),
        (vec![("agentId", "a2")], Box::new(|event| event["agentId"] == "a2")),
        (vec![("eventType", "tool_call")], Box::new(|event| event["eventType"] == "tool_call")),
        (vec![("eventType", "tool_call, custom")], Box::new(|event| event["eventType"] != "session_started")),
        (
            vec![("severity", "error,critical"), ("agentId", "a0")],
            Box::new(|event| {
                (event["severity"] == "error" || event["severity"] == "critical") && event["agentId"] == "a0"
            }),
        ),
        (vec![("userId", "u3")], Box::new(|event| event["metadata"]["userId"] == "u3")),
        (vec![("name", "tool-1")], Box::new(|event| event["payload"]["toolName"] == "tool-1")),
        (vec![("from", &middle)], Box::new(|event| event["timestamp"].as_str().unwrap() >= middle.as_str())),
        (
            vec![("to", &middle), ("severity", "warn")],
            Box::new(|event| {
                event["timestamp"].as_str().unwrap() <= middle.as_str() && event["severity"] == "warn"
            }),
        ),
        (vec![("environment", "production"), ("agentId", "")], Box::new(|_| true)),
        (vec![("environment", "staging")], Box::new(|_| false)),
        (vec![("agentId", "nobody")], Box::new(|_| false)),
    ];
    for (parameters, condition) in &cases {
        let expected = matching(condition);
        let found = world.walk(&[parameters.as_slice(), &[("limit", "37")]].concat()).await;
        let mut ids: Vec<&str> = found.iter().map(|event| event["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{parameters:?}");
        let page = world
            .query("/api/events", &[parameters.as_slice(), &[("limit", "1000")]].concat())
            .await
            .expect(200);
        assert_eq!(page["total"], expected.len(), "{parameters:?}");
        assert_eq!(page["totalIsExact"], true);
    }
}

async fn cursors_walk_every_event_exactly_once(world: World) {
    let base = now_us() - HOUR_US;
    // Many events share an instant.
    let events: Vec<Value> = (0..300)
        .map(|number| {
            let event =
                with(note(&format!("s{}", number % 3), "x"), "timestamp", at(base + (number / 40) * 1000));
            if number % 2 == 0 { with(event, "id", format!("own-{number}")) } else { event }
        })
        .collect();
    world.send(&events).await;
    for limit in ["1", "7", "50", "299", "300", "1000"] {
        let mut walks = Vec::new();
        for order in ["asc", "desc"] {
            let walk = world.walk(&[("limit", limit), ("order", order)]).await;
            let keys: Vec<(String, String)> = walk
                .iter()
                .map(|event| {
                    (
                        event["timestamp"].as_str().unwrap().to_owned(),
                        event["id"].as_str().unwrap().to_owned(),
                    )
                })
                .collect();
            assert_eq!(keys.len(), 300, "limit {limit} {order}");
            let mut sorted = keys.clone();
            sorted.sort();
            sorted.dedup();
            if order == "desc" {
                sorted.reverse();
            }
            assert_eq!(keys, sorted, "limit {limit} {order}");
            walks.push(keys);
        }
        walks[1].reverse();
        assert_eq!(walks[0], walks[1]);
        if limit == "1" {
            continue;
        }
        let filtered = world.walk(&[("limit", limit), ("eventType", "custom")]).await;
        assert_eq!(filtered.len(), 300);
    }
}

async fn offsets_and_limits_cut_the_same_list(world: World) {
    let events: Vec<Value> = (0..120).map(|number| note("s", &number.to_string())).collect();
    world.send(&events).await;
    let all = world.walk(&[("limit", "1000")]).await;
    let default = world.read("/api/events").await;
    assert_eq!(default["events"].as_array().unwrap()[..], all[..50]);
    for (offset, limit) in [(0, 10), (10, 10), (115, 10), (120, 10), (500, 1), (0, 5000)] {
        for filter in ["", "&agentId=agent-1", "&severity=info", "&search=text"] {
            let page = world.read(&format!("/api/events?offset={offset}&limit={limit}{filter}")).await;
            let expected: Vec<Value> = all.iter().skip(offset).take(limit).cloned().collect();
            assert_eq!(page["events"], json!(expected), "{offset} {limit} {filter}");
            assert_eq!((&page["total"], &page["totalIsExact"]), (&json!(120), &json!(true)));
            assert_eq!(page["limit"], limit.min(1000));
            assert_eq!(page["hasMore"], offset + limit < 120);
        }
    }
}

async fn unclear_parameters_are_refused(world: World) {
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "offset=-1",
        "offset=10001",
        "offset=x",
        "order=up",
        "from=soon",
        "to=x",
        "eventType=nonsense",
        "eventType=custom,nonsense",
        "severity=loud",
        "cursor=nonsense",
        "cursor=AAAAAAAAAAAAAAAA",
        "from=9999999999999999999",
        "from=-999999999999999999",
    ] {
        let answer = world.get(&format!("/api/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        let refusal = answer.refusal(400);
        let name = query.split('=').next().unwrap();
        assert!(refusal["error"].as_str().unwrap().contains(name), "{query}: {refusal}");
    }
    // Published clients send offsets with a plus that was not encoded, dates alone, and milliseconds.
    for query in [
        "from=2026-01-02T03:04:05+00:00",
        "from=2026-01-02",
        "to=1767323045678",
        "limit=5000",
        "search=",
        "sessionId=",
    ] {
        world.read(&format!("/api/events?{query}")).await;
    }
    world.get(&format!("/api/events?search={}", "x".repeat(1025))).await.refusal(400);
}

async fn one_event_is_found_or_not(world: World) {
    let answer = world
        .send(&[event("s", "tool_call", json!({ "toolName": "t", "callId": "c", "arguments": 1 }))])
        .await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    let event = world.read(&format!("/api/events/{id}")).await;
    assert_eq!(event["id"], id);
    assert_eq!(event["tenantId"], "default");
    assert_eq!(event["seq"], 1);
    for missing in ["nobody", "01HZX3V9K2ABCDEFGHJKMNPQRS", "%00", "%ff", "..", "%2e%2e%2fx"] {
        let answer = world.get(&format!("/api/events/{missing}")).await;
        assert!([400, 404].contains(&answer.status), "{missing}: {} {}", answer.status, answer.text);
    }
}

async fn python_clients_get_what_they_can_decode(world: World) {
    world.send(&[event("s", "retrieval", json!({ "query": "q" }))]).await;
    let as_python = world.request("GET", "/api/events").header("user-agent", "python-httpx/0.27");
    assert_eq!(world.answer(as_python).await.expect(200)["events"][0]["eventType"], "custom");
    assert_eq!(world.read("/api/events").await["events"][0]["eventType"], "retrieval");
}
