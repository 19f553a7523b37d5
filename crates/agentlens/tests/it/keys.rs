//! API keys: who is let in, with what, and how fast a revocation works.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::samples::{HOUR_US, note};
use crate::world::World;

on_both_engines!(
    a_key_works_in_every_place_where_clients_put_it,
    wrong_keys_are_refused,
    scopes_decide,
    an_expired_key_is_refused,
    a_revocation_by_another_process_works_within_a_second,
    a_key_made_while_the_server_runs_works_at_once,
    the_list_shows_keys_without_their_secrets,
    last_use_is_noted,
    environments_and_workspaces_are_those_of_the_key,
);

async fn a_key_works_in_every_place_where_clients_put_it(world: World) {
    for (header, value) in [
        ("authorization", format!("Bearer {}", world.key())),
        ("authorization", format!("bearer  {} ", world.key())),
        ("x-api-key", world.key().to_owned()),
    ] {
        world.answer(world.bare("GET", "/api/events").header(header, value)).await.expect(200);
    }
    // Only streams take it from the address, which logs and histories keep.
    world.answer(world.bare("GET", &format!("/api/events?token={}", world.key()))).await.refusal(401);
}

async fn wrong_keys_are_refused(world: World) {
    let key = world.key().to_owned();
    let mistyped = format!("{}{}{}", &key[..12], if &key[12..13] == "a" { "b" } else { "a" }, &key[13..]);
    let unknown = world.run_json(&["key", "generate"])["api_key"].as_str().unwrap().to_owned();
    for wrong in [
        "x",
        "al_live_",
        &key[..key.len() - 1],
        &format!("{key}x"),
        &mistyped,
        &unknown,
        &key.to_uppercase(),
        "als_0123",
    ] {
        let refusal = world.with_key(wrong).get("/api/events").await.refusal(401);
        assert_eq!(refusal["code"], "invalid_key", "{wrong}");
        let is_form = wrong == unknown;
        let said = if is_form { "Invalid or revoked API key" } else { "Not a well-formed AgentLens API key" };
        assert!(refusal["error"].as_str().unwrap().starts_with(said), "{wrong}: {refusal}");
        assert_eq!(refusal["hint"].is_string(), is_form, "{refusal}");
    }
    for authorization in ["", "Bearer", "Bearer ", "Basic dTpw", &key] {
        let request = world.bare("GET", "/api/events").header("authorization", authorization);
        let answer = world.answer(request).await;
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        answer.refusal(401);
    }
    let answer = world.answer(world.bare("GET", "/api/events")).await.refusal(401);
    assert_eq!(answer["error"], "Authentication required");
    assert!(answer["hint"].as_str().unwrap().contains("Authorization: Bearer"), "{answer}");
    let bare = world.bare("GET", "/api/events").header("authorization", &key);
    let answer = world.answer(bare).await.refusal(401);
    assert!(answer["hint"].as_str().unwrap().contains("`Bearer` before the key"), "{answer}");
    let path = format!("/api/sessions?token={key}");
    let answer = world.answer(world.bare("GET", &path)).await.refusal(401);
    assert!(answer["hint"].as_str().unwrap().contains("/api/stream only"), "{answer}");
    assert!(!world.log().contains(&key), "a key is in the log");
}

async fn scopes_decide(world: World) {
    world.send(&[note("s", "x")]).await;
    let all = ["events:write", "events:read", "audit:read", "keys:manage"];
    for scope in all {
        let api = world.make_key(&["--scope", scope]);
        let expected = |needed: &str, good: u16| if scope == needed { good } else { 403 };
        assert_eq!(api.try_send(&[note("s", "x")]).await.status, expected("events:write", 202), "{scope}");
        assert_eq!(api.get("/api/sessions").await.status, expected("events:read", 200), "{scope}");
        let verify = api.get("/api/audit/verify?sessionId=s").await;
        assert_eq!(verify.status, expected("audit:read", 200), "{scope}");
    }
    let both = world.make_key(&["--scope", "events:write", "--scope", "events:read"]);
    both.send(&[note("s", "x")]).await;
    both.get("/api/audit/verify?sessionId=s").await.refusal(403);
    assert!(!world.run(&["key", "create", "--scope", "everything"]).is_success);
}

async fn an_expired_key_is_refused(world: World) {
    let made = world.run_json(&["key", "create", "--expires-in", "1h"]);
    let api = world.with_key(made["api_key"].as_str().unwrap());
    api.read("/api/events").await;
    world.move_clock(HOUR_US - 60_000_000);
    api.read("/api/events").await;
    world.move_clock(60_000_000);
    assert_eq!(api.get("/api/events").await.refusal(401)["code"], "expired_key");
    world.read("/api/events").await;
    for bad in ["5", "x", "d", "-d", "1.5d", ""] {
        let printed = world.run(&["key", "create", "--expires-in", bad]);
        assert!(!printed.is_success && printed.error.contains("a number and m, h or d"), "{bad}");
    }
    for bad in ["0d", "-1h", "-1d", "3651d", "99999999999d", "99999999999999999999d"] {
        let printed = world.run(&["key", "create", "--expires-in", bad]);
        assert!(!printed.is_success && printed.error.contains("from 1m to 3650d"), "{bad}");
    }
}

async fn a_revocation_by_another_process_works_within_a_second(world: World) {
    for _ in 0..3 {
        let made = world.run_json(&["key", "create"]);
        let api = world.with_key(made["api_key"].as_str().unwrap());
        api.read("/api/events").await;
        let id = made["key_id"].as_str().unwrap();
        assert_eq!(world.run_json(&["key", "revoke", id]), json!({ "key_id": id, "revoked": true }));
        let revoked = Instant::now();
        loop {
            // What counts is when it was asked: the answer to a request in time may take long.
            let asked = Instant::now();
            let answer = api.get("/api/events").await;
            if answer.status != 200 {
                answer.refusal(401);
                break;
            }
            let late = asked.duration_since(revoked);
            assert!(late < Duration::from_secs(1), "the key still works after {late:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!world.run(&["key", "revoke", id]).is_success, "revoked twice");
    }
    world.read("/api/events").await;
}

async fn a_key_made_while_the_server_runs_works_at_once(world: World) {
    for _ in 0..3 {
        world.make_key(&[]).read("/api/events").await;
    }
}

async fn the_list_shows_keys_without_their_secrets(world: World) {
    let made = world.run_json(&[
        "key",
        "create",
        "--name",
        "build",
        "--scope",
        "events:read",
        "--environment",
        "staging",
    ]);
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with("al_test_"));
    let printed = world.run(&["key", "list", "--json"]);
    assert!(!printed.text.contains(&key[16..]) && !printed.text.contains(&world.key()[16..]));
    let keys = printed.json["keys"].as_array().unwrap();
    let listed = keys.iter().find(|listed| listed["key_id"] == made["key_id"]).unwrap();
    assert_eq!(listed["name"], "build");
    assert_eq!(listed["scopes"], json!(["events:read"]));
    assert_eq!(listed["environment"], "staging");
    assert!(key.starts_with(listed["prefix"].as_str().unwrap()));
    assert!(listed["revoked_at"].is_null());
    let text = world.run(&["key", "list"]).text;
    assert!(text.contains("build") && !text.contains(&key[16..]));
}

async fn last_use_is_noted(mut world: World) {
    let reader = world.make_key(&["--name", "reader"]);
    world.make_key(&["--name", "idle"]);
    reader.read("/api/events").await;
    // Uses are written now and then, and when the server stops.
    world.stop_gracefully().await;
    let listed = world.run_json(&["key", "list"]);
    let last_use = |name: &str| {
        let keys = listed["keys"].as_array().unwrap();
        keys.iter().find(|key| key["name"] == name).unwrap()["last_used_at"].clone()
    };
    assert!(last_use("reader").is_string(), "{listed}");
    assert!(last_use("idle").is_null());
}

async fn environments_and_workspaces_are_those_of_the_key(world: World) {
    let staging = world.make_key(&["--environment", "staging"]);
    let project = world.make_key(&["--workspace", "project"]);
    world.send(&[note("s1", "production")]).await;
    staging.send(&[note("s2", "staging")]).await;
    project.send(&[note("s1", "project")]).await;
    assert_eq!(world.read("/api/events").await["total"], 2);
    assert_eq!(project.read("/api/events").await["total"], 1);
    assert_eq!(world.read("/api/events?environment=staging").await["events"][0]["sessionId"], "s2");
    assert_eq!(world.read("/api/sessions/s2").await["environment"], "staging");
    project.get("/api/sessions/s2").await.refusal(404);
    // The same session id in two workspaces is two sessions, each with its chain.
    for api in [&*world, &project] {
        let timeline = api.timeline("s1").await;
        assert_eq!(timeline.len(), 1);
        assert!(timeline[0]["prevHash"].is_null());
    }
    assert_eq!(world.read("/api/analytics?environment=staging").await["totals"]["eventCount"], 1);
}
