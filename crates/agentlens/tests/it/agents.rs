//! Agents.

use serde_json::json;

use crate::samples::{HOUR_US, at, event, note, now_us, with};
use crate::world::World;

on_both_engines!(an_agent_sums_up_its_events, lists_are_paged_latest_first, agents_of_others_are_not_there);

async fn an_agent_sums_up_its_events(world: World) {
    let now = now_us();
    let events = vec![
        with(
            event("s1", "session_started", json!({ "agentName": "Ada" })),
            "timestamp",
            at(now - 2 * HOUR_US),
        ),
        with(
            event(
                "s1",
                "cost_tracked",
                json!({ "provider": "p", "model": "m", "inputTokens": 1, "outputTokens": 1, "totalTokens": 2, "costUsd": 0.000_000_001 }),
            ),
            "timestamp",
            at(now - HOUR_US),
        ),
        with(with(note("s2", "x"), "severity", "error"), "timestamp", at(now - 3 * HOUR_US)),
    ];
    world.send(&events).await;
    let agent = world.read("/api/agents/agent-1").await;
    for (field, expected) in [
        ("id", json!("agent-1")),
        ("name", json!("Ada")),
        ("firstSeenAt", json!(at(now - 3 * HOUR_US))),
        ("lastSeenAt", json!(at(now - HOUR_US))),
        ("sessionCount", json!(2)),
        ("eventCount", json!(3)),
        ("errorCount", json!(1)),
        ("totalCostUsd", json!(1e-9)),
        ("tenantId", json!("default")),
    ] {
        assert_eq!(agent[field], expected, "{field}: {agent}");
    }
    world.get("/api/agents/nobody").await.refusal(404);
}

async fn lists_are_paged_latest_first(world: World) {
    let now = now_us();
    let events: Vec<_> = (0..25)
        .map(|number| {
            with(
                with(note("s", "x"), "agentId", format!("a{number:02}")),
                "timestamp",
                at(now - (number / 3) * 1_000_000),
            )
        })
        .collect();
    world.send(&events).await;
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.read(&format!("/api/agents?limit=4&cursor={cursor}")).await;
        assert_eq!(page["total"], 25);
        ids.extend(
            page["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = next.to_owned();
    }
    assert_eq!(ids, (0..25).map(|number| format!("a{number:02}")).collect::<Vec<_>>());
    world.get("/api/agents?limit=0").await.refusal(400);
    world.get("/api/agents?cursor=x").await.refusal(400);
}

async fn agents_of_others_are_not_there(world: World) {
    let (_, other) = world.org("Other");
    world.send(&[note("s", "x")]).await;
    other.get("/api/agents/agent-1").await.refusal(404);
    assert_eq!(other.read("/api/agents").await["total"], 0);
    let project = world.make_key(&["--workspace", "project"]);
    project.get("/api/agents/agent-1").await.refusal(404);
}
