//! Changes of settings: in force at once on a running server, and written down.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::samples::{event, note};
use crate::world::World;

on_both_engines!(
    a_price_set_by_another_process_is_in_force_within_a_second,
    what_commands_change_is_in_the_audit_log,
    a_changed_search_index_is_found_by_verify,
);

async fn a_price_set_by_another_process_is_in_force_within_a_second(world: World) {
    let cost_of = async |number: usize| {
        let session = format!("s{number}");
        let call = json!({ "callId": "c", "provider": "ours", "model": "ours-1", "costUsd": 0, "latencyMs": 1,
          "completion": "x", "finishReason": "stop", "usage": { "inputTokens": 1_000_000, "outputTokens": 0, "totalTokens": 1_000_000 } });
        world.send(&[event(&session, "llm_response", call)]).await;
        world.read(&format!("/api/sessions/{session}")).await["totalCostUsd"].as_f64().unwrap_or_default()
    };
    assert!(cost_of(0).await < 0.1);
    for price in 1..4 {
        world.run_json(&["price", "set", "ours-1", "--input", &price.to_string(), "--output", "1"]);
        let changed = Instant::now();
        for number in 1.. {
            // What counts is when the event was sent: it may take long to be read back.
            let sent = Instant::now();
            let cost = cost_of(price * 100 + number).await;
            if (cost - price as f64).abs() < 0.01 {
                break;
            }
            let late = sent.duration_since(changed);
            assert!(late < Duration::from_secs(1), "the price is not in force after {late:?}: {cost}");
        }
    }
}

async fn what_commands_change_is_in_the_audit_log(world: World) {
    let (org, _) = world.org("Acme");
    world.run_json(&["key", "create", "--org", &org]);
    world.run_json(&["price", "set", "m", "--input", "1", "--output", "1", "--org", &org]);
    let count = |table: &str| format!("select count(*) from {table} where org_id = '{org}'");
    assert_eq!(world.database.number(&org, &count("audit_log")).await, 1);
    let verified = world.run_json(&["verify"]);
    assert_eq!((&verified["verified"], &verified["broken_audit_logs"]), (&json!(true), &json!([])));
    // Someone with access to the database hides who set the price.
    let forge = format!("update audit_log set actor = 'service:nobody' where org_id = '{org}'");
    world.database.execute(&org, &forge).await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    assert_eq!(printed.json["broken_audit_logs"][0]["org_id"], org.as_str(), "{}", printed.text);
}

async fn a_changed_search_index_is_found_by_verify(world: World) {
    let (org, api) = world.org("Acme");
    api.send(&[note("a", "s"), note("b", "s")]).await;
    assert_eq!(world.run_json(&["verify"])["wrong_search_index"], json!([]));
    // Someone with access to the database hides events from searches.
    world
        .database
        .execute(&org, &format!("update org_state set indexed_position = 1 where org_id = '{org}'"))
        .await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    let found = json!([{ "org_id": org, "reason": "Event 1 is missing in the search index" }]);
    assert_eq!(printed.json["wrong_search_index"], found, "{}", printed.text);
    let printed = world.run(&["verify"]);
    assert!(
        printed.text.contains(&format!("WRONG  org {org}  Event 1 is missing in the search index")),
        "{}",
        printed.text
    );
    assert!(printed.error.contains("1 fault in the search index"), "{}", printed.error);
}
