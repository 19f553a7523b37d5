//! API keys over HTTP: made within one's own rights, restricted, rotated, revoked; and the audit log that tells of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::samples::note;
use crate::world::{Api, Browser, World, until};

on_both_engines!(
    a_person_makes_lists_renames_and_revokes_keys,
    a_key_never_does_more_than_whoever_makes_it,
    wrong_settings_are_refused_by_name,
    a_rotated_key_works_until_its_grace_ends,
    a_key_has_a_rate_of_its_own,
    a_key_is_used_from_its_networks_only,
    keys_of_an_archived_workspace_are_refused,
    a_leaked_key_is_revoked_by_whoever_holds_it,
    concurrent_requests_never_exceed_the_limit_of_keys,
    another_org_learns_nothing_of_keys,
    the_audit_log_tells_of_keys_and_holds_no_secret,
    the_audit_log_is_paged_filtered_and_exported,
);

const JSON: &str = "application/json";

impl Api {
    async fn send_json(&self, method: &str, path: &str, body: &Value) -> crate::world::Answer {
        let request = self.request(method, path).header("content-type", JSON).body(body.to_string());
        self.answer(request).await
    }
}

/// The key of an answer that made one.
fn key_of(world: &World, made: &Value) -> Api {
    world.with_key(made["api_key"].as_str().unwrap())
}

async fn make(browser: &Browser, settings: Value) -> Value {
    browser.post("/v1/keys", settings).await.expect(201)
}

async fn find(browser: &Browser, id: &Value) -> Value {
    let listed = browser.read("/v1/keys").await;
    listed["keys"].as_array().unwrap().iter().find(|key| key["key_id"] == *id).unwrap().clone()
}

async fn is_out(api: &Api, status: u16) {
    until("the key to be refused", || async {
        (api.get("/api/sessions").await.status == status).then_some(())
    })
    .await;
}

async fn a_person_makes_lists_renames_and_revokes_keys(world: World) {
    let admin = world.person("admin@example.com", "admin").await;
    let made = make(
        &admin,
        json!({ "name": "ci", "scopes": ["events:read", "events:write"], "environment": "staging", "is_environment_bound": true }),
    )
    .await;
    let api = key_of(&world, &made);
    assert!(api.key().starts_with("al_test_"));
    api.send(&[note("s", "x")]).await;
    assert_eq!(api.read("/api/sessions/s").await["environment"], "staging");
    let path = format!("/v1/keys/{}", made["key_id"].as_str().unwrap());
    assert_eq!(admin.send("PATCH", &path, Some(json!({ "name": "build" }))).await.status, 204);
    let key = find(&admin, &made["key_id"]).await;
    assert_eq!((&key["name"], &key["state"]), (&json!("build"), &json!("active")));
    assert_eq!(key["scopes"], json!(["events:read", "events:write"]));
    assert!(api.key().starts_with(key["prefix"].as_str().unwrap()) && key["prefix"] != api.key());
    // A key without scopes may do nothing.
    let nothing = key_of(&world, &make(&admin, json!({ "name": "none" })).await);
    nothing.get("/api/sessions").await.refusal(403);
    // Pages go on where the one before ended.
    let first = admin.read("/v1/keys?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = admin.read(&format!("/v1/keys?limit=100&cursor={cursor}")).await;
    let ids = |page: &Value| -> Vec<String> {
        page["keys"].as_array().unwrap().iter().map(|key| key["key_id"].to_string()).collect()
    };
    let all = ids(&admin.read("/v1/keys").await);
    assert_eq!([ids(&first), ids(&second)].concat(), all);
    assert!(second["next_cursor"].is_null());

    assert_eq!(admin.send("DELETE", &path, None).await.status, 204);
    is_out(&api, 401).await;
    admin.send("DELETE", &path, None).await.refusal(404);
    assert_eq!(find(&admin, &made["key_id"]).await["state"], "revoked");
    let viewer = world.person("viewer@example.com", "viewer").await;
    viewer.send("GET", "/v1/keys", None).await.refusal(403);
    viewer.post("/v1/keys", json!({ "name": "x" })).await.refusal(403);
}

async fn a_key_never_does_more_than_whoever_makes_it(world: World) {
    let admin = world.person("admin@example.com", "admin").await;
    let owner = world.person("owner@example.com", "owner").await;
    admin.post("/v1/keys", json!({ "name": "x", "scopes": ["*"] })).await.refusal(403);
    let all = make(&owner, json!({ "name": "x", "scopes": ["*"] })).await;
    // Nor does anyone gain by rotating what others made.
    let rotate = format!("/v1/keys/{}/rotate", all["key_id"].as_str().unwrap());
    assert_eq!(admin.post(&rotate, json!({})).await.refusal(403)["code"], "not_allowed");

    world.run_json(&["workspace", "create", "project"]);
    let maker = world.make_key(&["--scope", "keys:manage,events:read"]);
    let try_make =
        |api: Api, settings: Value| async move { api.send_json("POST", "/v1/keys", &settings).await };
    try_make(maker.clone(), json!({ "name": "x", "scopes": ["events:read"] })).await.expect(201);
    for scopes in [json!(["events:write"]), json!(["*"])] {
        try_make(maker.clone(), json!({ "name": "x", "scopes": scopes })).await.refusal(403);
    }
    let elsewhere = json!({ "name": "x", "scopes": ["events:read"], "workspace_id": "project" });
    try_make(maker.clone(), elsewhere.clone()).await.refusal(403);
    try_make(world.same_key(), elsewhere).await.expect(201);
    maker.send_json("POST", &rotate, &json!({})).await.refusal(403);
    // A key that is restricted makes only keys that are as restricted.
    let restricted = make(
        &owner,
        json!({ "name": "x", "scopes": ["*"], "rate_per_minute": 600, "allowed_networks": ["127.0.0.0/8", "::1"],
            "environment": "staging", "is_environment_bound": true, "expires_at": "2030-01-01T00:00:00Z" }),
    )
    .await;
    let restricted = key_of(&world, &restricted);
    let same = json!({ "name": "x", "rate_per_minute": 600, "allowed_networks": ["127.0.0.0/8"],
        "environment": "staging", "is_environment_bound": true, "expires_at": "2030-01-01T00:00:00Z" });
    try_make(restricted.clone(), same.clone()).await.expect(201);
    for (field, value) in [
        ("rate_per_minute", json!(null)),
        ("rate_per_minute", json!(601)),
        ("allowed_networks", json!([])),
        ("allowed_networks", json!(["0.0.0.0/0"])),
        ("environment", json!("production")),
        ("is_environment_bound", json!(false)),
        ("expires_at", json!(null)),
        ("expires_at", json!("2030-01-01T00:00:01Z")),
    ] {
        let mut wider = same.clone();
        wider[field] = value;
        try_make(restricted.clone(), wider).await.refusal(403);
    }
}

async fn wrong_settings_are_refused_by_name(world: World) {
    for (settings, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "x", "scopes": ["everything"] }), "scopes"),
        (json!({ "name": "x", "workspace_id": "nowhere" }), "workspace_id"),
        (json!({ "name": "x", "environment": " " }), "environment"),
        (json!({ "name": "x", "rate_per_minute": 0 }), "rate_per_minute"),
        (json!({ "name": "x", "allowed_networks": ["example.com"] }), "allowed_networks"),
        (json!({ "name": "x", "expires_at": "2020-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "name": "x", "expires_at": "soon" }), "expires_at"),
    ] {
        let refusal = world.send_json("POST", "/v1/keys", &settings).await.refusal(400);
        assert_eq!(refusal["details"][0]["path"], field, "{refusal}");
    }
    world.send_json("POST", "/v1/keys", &json!({ "name": "x", "org_id": "o" })).await.refusal(400);
    let printed = world.run(&["key", "create", "--workspace", "nowhere"]);
    assert!(!printed.is_success && printed.error.contains("workspace create"), "{}", printed.error);
    let listed = world.run_json(&["workspace", "list"]);
    assert_eq!(listed["workspaces"][0]["workspace_id"], "default");
}

async fn a_rotated_key_works_until_its_grace_ends(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let made = make(&owner, json!({ "name": "ci", "scopes": ["events:read"], "rate_per_minute": 900 })).await;
    let old = key_of(&world, &made);
    let path = format!("/v1/keys/{}/rotate", made["key_id"].as_str().unwrap());
    for hours in [-1, 169] {
        owner.post(&path, json!({ "grace_hours": hours })).await.refusal(400);
    }
    let rotated = owner.post(&path, json!({})).await.expect(201);
    let new = key_of(&world, &rotated);
    assert_ne!(old.key(), new.key());
    old.read("/api/sessions").await;
    new.read("/api/sessions").await;
    let key = find(&owner, &rotated["key_id"]).await;
    assert_eq!((&key["name"], &key["scopes"]), (&json!("ci"), &json!(["events:read"])));
    assert_eq!(key["rate_per_minute"], 900);
    world.move_clock(24 * 3_600_000_000);
    is_out(&old, 401).await;
    assert_eq!(old.get("/api/sessions").await.refusal(401)["code"], "expired_key");
    new.read("/api/sessions").await;
    owner.post(&path, json!({})).await.refusal(404);
    // Without grace the old one is out at once.
    let path = format!("/v1/keys/{}/rotate", rotated["key_id"].as_str().unwrap());
    let last = owner.post(&path, json!({ "grace_hours": 0 })).await.expect(201);
    is_out(&new, 401).await;
    key_of(&world, &last).read("/api/sessions").await;
}

async fn a_key_has_a_rate_of_its_own(world: World) {
    let settings = json!({ "name": "slow", "scopes": ["events:read"], "rate_per_minute": 3 });
    let slow = key_of(&world, &world.send_json("POST", "/v1/keys", &settings).await.expect(201));
    for left in ["2", "1", "0"] {
        let answer = slow.get("/api/sessions").await;
        assert_eq!(answer.headers["x-ratelimit-limit"], "3");
        assert_eq!(answer.headers["x-ratelimit-remaining"], left);
        answer.expect(200);
    }
    let refused = slow.get("/api/sessions").await;
    let header = |name: &str| refused.headers[name].to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=20).contains(&header("retry-after")), "{:?}", refused.headers);
    assert_eq!(header("x-ratelimit-remaining"), 0);
    assert!((40..=60).contains(&header("x-ratelimit-reset")), "{:?}", refused.headers);
    assert_eq!(refused.refusal(429)["code"], "key_rate_exceeded");
    // Others are not held up, and are told of no rate.
    let other = world.get("/api/sessions").await;
    assert!(other.headers.get("x-ratelimit-limit").is_none());
    other.expect(200);
    world.move_clock(20_000_000);
    slow.read("/api/sessions").await;
    slow.get("/api/sessions").await.refusal(429);
}

async fn a_key_is_used_from_its_networks_only(world: World) {
    let make = |networks: Value| {
        let settings = json!({ "name": "x", "scopes": ["events:read"], "allowed_networks": networks });
        let world = &world;
        async move { key_of(world, &world.send_json("POST", "/v1/keys", &settings).await.expect(201)) }
    };
    make(json!(["192.0.2.0/24", "127.0.0.1"])).await.read("/api/sessions").await;
    let elsewhere = make(json!(["192.0.2.0/24", "2001:db8::/32"])).await;
    let refusal = elsewhere.get("/api/sessions").await.refusal(403);
    assert_eq!(refusal["code"], "address_not_allowed");
    // No header of the client's own changes that.
    let pretending = elsewhere.request("GET", "/api/sessions").header("x-forwarded-for", "192.0.2.1");
    elsewhere.answer(pretending).await.refusal(403);
}

async fn keys_of_an_archived_workspace_are_refused(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let api = world.make_key(&["--workspace", "project"]);
    api.send(&[note("s", "x")]).await;
    let update = |is_archived: bool| {
        owner.send("PATCH", "/v1/workspaces/project", Some(json!({ "is_archived": is_archived })))
    };
    assert_eq!(update(true).await.status, 204);
    is_out(&api, 403).await;
    assert_eq!(api.get("/api/sessions").await.refusal(403)["code"], "workspace_archived");
    api.try_send(&[note("s", "y")]).await.refusal(403);
    let settings = json!({ "name": "x", "workspace_id": "project" });
    owner.post("/v1/keys", settings.clone()).await.refusal(400);
    let listed = owner.read("/v1/keys").await;
    assert!(listed["keys"].as_array().unwrap().iter().any(|key| key["state"] == "archived"));
    assert_eq!(update(false).await.status, 204);
    is_out(&api, 200).await;
    owner.post("/v1/keys", settings).await.expect(201);
}

async fn report(world: &World, key: &str) {
    let body = json!({ "api_key": key }).to_string();
    let request = world.bare("POST", "/v1/keys/revoke-leaked").header("content-type", JSON).body(body);
    let answer = world.answer(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}

async fn a_leaked_key_is_revoked_by_whoever_holds_it(mut world: World) {
    world.stop_gracefully().await;
    world.start_server_with(&["--log", "info"]).await;
    let owner = world.person("owner@example.com", "owner").await;
    let made = make(&owner, json!({ "name": "leaky", "scopes": ["events:read"] })).await;
    let api = key_of(&world, &made);
    // Nothing tells whether a key is one.
    report(&world, "al_live_x").await;
    report(&world, world.run_json(&["key", "generate"])["api_key"].as_str().unwrap()).await;
    api.read("/api/sessions").await;
    report(&world, api.key()).await;
    is_out(&api, 401).await;
    report(&world, api.key()).await;
    until("a mail in the log", || {
        let log = world.log();
        async move { log.contains("Mail to owner@example.com").then_some(()) }
    })
    .await;
    assert!(!world.log().contains(api.key()), "a key is in the log");
    let page = owner.read("/v1/audit?act=keys.revoke_leaked").await;
    assert_eq!(page["entries"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(page["entries"][0]["target"], made["key_id"]);
    // One network can't ask as often as it likes.
    until("a refusal", || async {
        let body = json!({ "api_key": "x" }).to_string();
        let request = world.bare("POST", "/v1/keys/revoke-leaked").header("content-type", JSON).body(body);
        (world.answer(request).await.status == 429).then_some(())
    })
    .await;
}

async fn concurrent_requests_never_exceed_the_limit_of_keys(mut world: World) {
    world.stop_gracefully().await;
    world.add_environment("AGENTLENS_LIMITS", "api_keys=20");
    world.start_server().await;
    let owner = world.person("owner@example.com", "owner").await;
    let active = |listed: Value| {
        listed["keys"].as_array().unwrap().iter().filter(|key| key["state"] == "active").count()
    };
    let before = active(owner.read("/v1/keys").await);
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let api = world.same_key();
            tokio::spawn(async move { api.send_json("POST", "/v1/keys", &json!({ "name": "x" })).await })
        })
        .collect();
    let mut made = Vec::new();
    for request in requests {
        let answer = request.await.unwrap();
        if answer.status == 201 {
            made.push(answer.expect(201));
        } else {
            assert_eq!(answer.refusal(403)["code"], "limit_reached");
        }
    }
    assert_eq!(before + made.len(), 20);
    assert_eq!(active(owner.read("/v1/keys?limit=1000").await), 20);
    // Rotating makes no room, but needs none without grace.
    let path = format!("/v1/keys/{}/rotate", made[0]["key_id"].as_str().unwrap());
    owner.post(&path, json!({})).await.refusal(403);
    owner.post(&path, json!({ "grace_hours": 0 })).await.expect(201);
    assert_eq!(active(owner.read("/v1/keys?limit=1000").await), 20);
}

async fn another_org_learns_nothing_of_keys(world: World) {
    let (_, other) = world.org("Other");
    let made = world.send_json("POST", "/v1/keys", &json!({ "name": "ours" })).await.expect(201);
    let path = format!("/v1/keys/{}", made["key_id"].as_str().unwrap());
    let listed = other.read("/v1/keys").await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    let said = |refusal: Value| (refusal["error"].clone(), refusal["code"].clone());
    for (method, path, body) in [
        ("PATCH", path.clone(), json!({ "name": "theirs" })),
        ("DELETE", path.clone(), json!({})),
        ("POST", format!("{path}/rotate"), json!({})),
    ] {
        let refusal = other.send_json(method, &path, &body).await.refusal(404);
        // It is as if it were not there.
        let path = path.replace(made["key_id"].as_str().unwrap(), "key_nothing");
        assert_eq!(said(refusal), said(other.send_json(method, &path, &body).await.refusal(404)));
    }
    world.send_json("DELETE", &path, &json!({})).await.expect(204);
}

async fn the_audit_log_tells_of_keys_and_holds_no_secret(world: World) {
    let owner = world.person("owner@example.com", "owner").await;
    let made = make(&owner, json!({ "name": "ci", "scopes": ["events:read"] })).await;
    let path = format!("/v1/keys/{}", made["key_id"].as_str().unwrap());
    let rotated = owner.post(&format!("{path}/rotate"), json!({})).await.expect(201);
    world.send_json("DELETE", &path, &json!({})).await.expect(204);

    let me = owner.read("/v1/me").await;
    let page = owner.read(&format!("/v1/audit?target={}", made["key_id"].as_str().unwrap())).await;
    let entries = page["entries"].as_array().unwrap();
    let acts: Vec<&str> = entries.iter().map(|entry| entry["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["keys.revoke", "keys.rotate", "keys.create"]);
    let person = format!("person:{}", me["user_id"].as_str().unwrap());
    assert_eq!((&entries[1]["actor"], &entries[2]["actor"]), (&json!(person), &json!(person)));
    assert!(entries[0]["actor"].as_str().unwrap().starts_with("key:key_"), "{}", entries[0]);
    for entry in entries {
        assert_eq!(entry["origin"]["address"], "127.0.0.1", "{entry}");
        assert!(entry["origin"]["request_id"].is_string(), "{entry}");
    }
    // A browser says through which session.
    assert!(entries[2]["origin"]["session_id"].as_str().unwrap().starts_with("ses_"));
    assert_eq!(entries[2]["after"]["scopes"], "events:read");
    assert_eq!(entries[1]["after"]["new_key_id"], rotated["key_id"]);
    assert_eq!(entries[0]["before"]["name"], "ci");
    assert_eq!(entries[0]["workspace_id"], "default");

    let everything = owner.send("GET", "/v1/audit/export", None).await.text;
    let secret = |api_key: &Value| api_key.as_str().unwrap()[16..].to_owned();
    for key in [&made["api_key"], &rotated["api_key"], &json!(world.key())] {
        assert!(!everything.contains(&secret(key)), "the log holds a key");
    }
    assert!(!everything.contains(&owner.cookie("al_session").unwrap()), "the log holds a session's token");
    assert!(!everything.contains("digest") && !everything.contains("password_hash"));

    // Another org sees nothing of it.
    let (_, other) = world.org("Other");
    let theirs = other.get("/v1/audit").await.text;
    let ours: BTreeSet<String> =
        [&made["key_id"], &rotated["key_id"], &me["user_id"]].iter().map(ToString::to_string).collect();
    assert!(ours.iter().all(|id| !theirs.contains(id.trim_matches('"'))), "{theirs}");
    let exported = other.get("/v1/audit/export").await.text;
    assert!(ours.iter().all(|id| !exported.contains(id.trim_matches('"'))));
    assert_eq!(world.run_json(&["verify"])["verified"], true);
}

async fn the_audit_log_is_paged_filtered_and_exported(world: World) {
    let auditor = world.person("auditor@example.com", "auditor").await;
    world.run_json(&["price", "set", "m", "--input", "1", "--output", "2"]);
    for number in 0..5 {
        world.send_json("POST", "/v1/keys", &json!({ "name": format!("k{number}") })).await.expect(201);
    }
    let all = auditor.read("/v1/audit").await["entries"].as_array().unwrap().clone();
    assert!(all.iter().any(|entry| entry["chain"] == "org" && entry["act"] == "prices.set"));
    let at = |entry: &Value| entry["at"].as_str().unwrap().trim_end_matches('Z').to_owned();
    assert!(all.windows(2).all(|pair| at(&pair[0]) >= at(&pair[1])), "{all:?}");
    // Page by page nothing is missing and nothing comes twice.
    let (mut walked, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = auditor.read(&format!("/v1/audit?limit=2{cursor}")).await;
        walked.extend(page["entries"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(walked, all);
    let count = |query: &'static str| {
        let auditor = &auditor;
        async move { auditor.read(&format!("/v1/audit?{query}")).await["entries"].as_array().unwrap().len() }
    };
    assert_eq!(count("act=keys.create&actor=key").await, 5);
    assert_eq!(count("act=keys&actor=key").await, 5);
    assert_eq!(count("act=key").await, 0);
    assert_eq!(count("actor=service:cli&act=prices").await, 1);
    assert_eq!(count("target=m").await, 1);
    assert_eq!(count("to=2020-01-01").await, 0);
    assert_eq!(count("from=2020-01-01").await, all.len());
    for bad in ["cursor=x", "limit=0", "from=x", "sort=at"] {
        auditor.send("GET", &format!("/v1/audit?{bad}"), None).await.refusal(400);
    }
    // The export is the same, line by line, and is noted itself.
    let export = auditor.send("GET", "/v1/audit/export", None).await;
    assert_eq!(export.headers["content-type"], "application/jsonl; charset=utf-8");
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["act"], "audit.export");
    assert_eq!(lines[1..], all[..]);
    let member = world.person("member@example.com", "member").await;
    for path in ["/v1/audit", "/v1/audit/export"] {
        member.send("GET", path, None).await.refusal(403);
        world.make_key(&["--scope", "events:read"]).get(path).await.refusal(403);
    }
}
