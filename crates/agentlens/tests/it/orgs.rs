//! Orgs and the commands on them.

use serde_json::json;

use crate::samples::{HOUR_US, at, note, now_us, with};
use crate::world::World;

on_both_engines!(
    orgs_are_made_and_listed,
    an_org_with_retention_refuses_what_is_too_old,
    commands_say_what_is_wrong,
    every_command_prints_json,
    demo_fills_a_running_server,
    migrating_again_runs_nothing,
);

async fn orgs_are_made_and_listed(world: World) {
    let made = world.run_json(&["org", "create", "Acme, Inc. \"ü\""]);
    for field in ["org_id", "key_id", "api_key"] {
        assert!(made[field].is_string(), "{made}");
    }
    let listed = world.run_json(&["org", "list"]);
    let names: Vec<_> =
        listed["orgs"].as_array().unwrap().iter().map(|org| org["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"Default") && names.contains(&"Acme, Inc. \"ü\""), "{names:?}");
    let api = world.with_key(made["api_key"].as_str().unwrap());
    api.send(&[note("s", "x")]).await;
    assert_eq!(api.read("/api/sessions/s").await["tenantId"], made["org_id"]);
    // Two orgs may bear one name, but nobody should do it without knowing.
    let twin = world.run_json(&["org", "create", "Twin"]);
    assert_eq!(twin["namesakes"], json!([]));
    let again = world.run(&["org", "create", "Twin", "--json"]);
    assert_eq!(again.json["namesakes"], json!([twin["org_id"]]));
    assert!(again.error.contains("another org is named Twin"), "{}", again.error);
    for name in ["", "  ", "a\nb", "a\u{1b}[2J", &"x".repeat(201)] {
        let printed = world.run(&["org", "create", name]);
        assert!(!printed.is_success && printed.error.contains("the org's name"), "{}", printed.error);
    }
    let text = world.run(&["org", "create", "Text"]);
    assert!(text.text.contains("al_live_"), "{}", text.text);
    assert!(world.run(&["org", "list"]).text.contains("Text"));
}

async fn an_org_with_retention_refuses_what_is_too_old(world: World) {
    let made = world.run_json(&["org", "create", "Short", "--retention-days", "7"]);
    let api = world.with_key(made["api_key"].as_str().unwrap());
    let aged = |days: i64| with(note("s", "x"), "timestamp", at(now_us() - days * 24 * HOUR_US));
    let answer = api.try_send(&[aged(1), aged(8), aged(6)]).await.expect(202);
    assert_eq!((&answer["accepted"], &answer["errors"][0]["index"]), (&json!(2), &json!(1)));
    assert_eq!(answer["errors"][0]["reason"], "invalid_timestamp");
    assert!(answer["errors"][0]["error"].as_str().unwrap().contains("7 days"), "{answer}");
    api.settled().await;
    assert_eq!(api.timeline("s").await.len(), 2);
    let listed = world.run_json(&["org", "list"]);
    let row = listed["orgs"].as_array().unwrap().iter().find(|org| org["org_id"] == made["org_id"]).unwrap();
    assert_eq!(row["retention_days"], 7);
    for bad in ["0", "-1", "3651", "x"] {
        assert!(!world.run(&["org", "create", "Bad", "--retention-days", bad]).is_success, "{bad}");
    }
}

async fn commands_say_what_is_wrong(world: World) {
    for (arguments, said) in [
        (&["key", "create", "--org", "nobody"][..], "nobody"),
        (&["key", "create", "--org", "../x"], "ids"),
        (&["key", "create", "--environment", " "], "--environment"),
        (&["key", "create", "--workspace", "a b"], "ids"),
        (&["key", "create", "--workspace", "nowhere"], "has no workspace nowhere"),
        (&["workspace", "create", "Default", "--id", "default"], "already"),
        (&["workspace", "create", "x", "--id", "a b"], "--id"),
        (&["workspace", "list", "--org", "nobody"], "there is no org nobody"),
        (&["key", "create", "--expires-in", "soon"], "--expires-in"),
        (&["key", "revoke", "key_nobody"], "key_nobody"),
        (&["key", "create", "--name", "a\nb"], "--name"),
        (&["key", "list", "--org", "nobody"], "there is no org nobody"),
        (&["key", "list", "--org", "Default"], "the org named Default is default"),
        (&["key", "revoke", "key_x", "--org", "nobody"], "there is no org nobody"),
        (&["price", "list", "--org", "nobody"], "there is no org nobody"),
        (&["price", "set", "m", "--input", "-1", "--output", "1"], "-1"),
        (&["verify", "--org", "nobody"], "there is no org nobody"),
        (&["org", "create", "x", "--retention-days", "-1"], "from 1 to 3650"),
        (&["demo"], "AGENTLENS_API_KEY"),
        (&["serve", "--log", "verbose"], "warn, info"),
        (&["serve", "--listen", "3400"], "127.0.0.1:3400"),
        (&["serve", "--redis-url", "127.0.0.1:1"], "must begin with redis://"),
        (&["serve", "--database-url", "127.0.0.1:1"], "must begin with postgres://"),
        (&["dead-letters", "list", "--org", "nobody"], "nobody"),
        (&["dead-letters", "replay", "nobody"], "failed"),
        (&["migrate", "--database-owner-url", ""], ""),
        (&["serve", "--role", "sleeper"], "sleeper"),
        (&["nonsense"], "nonsense"),
    ] {
        let printed = world.run(arguments);
        assert!(!printed.is_success, "{arguments:?}");
        assert!(printed.error.contains(said), "{arguments:?}: {}", printed.error);
        assert!(!printed.error.contains("panicked"), "{arguments:?}: {}", printed.error);
    }
}

async fn every_command_prints_json(world: World) {
    let key = world.run_json(&["key", "create"])["key_id"].as_str().unwrap().to_owned();
    for (arguments, fields) in [
        (&["key", "generate"][..], &["api_key"][..]),
        (&["key", "create"], &["key_id", "api_key"]),
        (&["key", "list"], &["keys"]),
        (&["key", "revoke", &key], &["key_id", "revoked"]),
        (&["org", "create", "X"], &["org_id", "name", "key_id", "api_key"]),
        (&["org", "list"], &["orgs"]),
        (&["workspace", "create", "Second One"], &["workspace_id", "name", "org_id"]),
        (&["workspace", "list"], &["workspaces"]),
        (&["verify"], &["verified", "sessions_verified", "total_events", "broken_chains"]),
        (&["dead-letters", "list"], &["dead_letters"]),
        (&["dead-letters", "replay"], &["replayed", "failed"]),
    ] {
        let printed = world.run_json(arguments);
        for field in fields {
            assert!(!printed[field].is_null(), "{arguments:?}: {field}: {printed}");
        }
    }
}

async fn demo_fills_a_running_server(world: World) {
    let arguments = ["demo", "--url", world.address(), "--api-key", world.key(), "--sessions", "20"];
    let printed = world.run_json(&arguments);
    world.settled().await;
    let stats = world.read("/api/stats").await;
    assert_eq!(stats["totalSessions"], 20, "{printed}");
    assert!(stats["totalEvents"].as_i64().unwrap() > 100);
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"][0]["refused"], json!({}));
    assert!(!world.run(&["demo", "--url", world.address(), "--api-key", "al_live_x"]).is_success);
    assert!(!world.run(&["demo", "--url", "http://127.0.0.1:1", "--api-key", world.key()]).is_success);
}

async fn migrating_again_runs_nothing(world: World) {
    if world.is_embedded() {
        let printed = world.run(&["migrate", "--json"]);
        assert!(!printed.is_success && printed.error.contains("--database-owner-url"), "{}", printed.error);
        return;
    }
    assert_eq!(world.run_json(&["migrate"]), json!({ "steps_run": 0, "granted": true }));
    // The owner's role sees everything: the server does not start under it.
    let (owner_url, _) = world.database.urls();
    let printed = world.run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &owner_url]);
    assert!(!printed.is_success && printed.error.contains("owns tables"), "{}", printed.error);
    assert!(!printed.error.contains(&owner_url), "the password is shown");
}
