//! Deleting an org: it stops at once, can be undone, and then nothing is left of it but a signed receipt.

use std::path::Path;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use agentlens_domain::ids::OrgId;
use agentlens_domain::signing;
use agentlens_domain::time::HOUR_US;

use crate::samples::note;
use crate::world::{Api, Browser, World, connect, until};

on_both_engines!(
    a_deletion_stops_the_org_and_is_undone,
    nothing_is_left_after_a_purge,
    a_purge_goes_on_after_a_crash,
    a_forged_deletion_is_found,
    a_suspended_org_is_refused_and_kept,
);

const CANARY: &str = "canary-of-the-deleted-org";
const OWNER: &str = "ann@deleted.example";
const MEMBER: &str = "bob@deleted.example";
const KEPT: &str = "carol@kept.example";

/// An org with data, an owner who is in no other org, and a member.
struct Acme {
    org: String,
    api: Api,
    owner: Browser,
    password: String,
    member: Browser,
    user_id: String,
}

async fn acme(world: &World) -> Acme {
    let (org, api) = world.org("Acme");
    api.send(&[note("s", CANARY), note("s", "x"), note("t", CANARY)]).await;
    let made = world.run_json(&["user", "create", OWNER, "--org", &org, "--role", "owner"]);
    let (owner, member) = (Browser::new(world), Browser::new(world));
    let password = made["password"].as_str().unwrap().to_owned();
    owner.sign_in(OWNER, &password).await;
    let viewer = world.run_json(&["user", "create", MEMBER, "--org", &org, "--role", "viewer"]);
    member.sign_in(MEMBER, viewer["password"].as_str().unwrap()).await;
    let user_id = made["user_id"].as_str().unwrap().to_owned();
    Acme { org, api, owner, password, member, user_id }
}

impl Acme {
    /// Deletes the org; returns the id of the receipt.
    async fn delete(&self) -> String {
        let begun = self.owner.send("DELETE", "/v1/org", Some(json!({ "name": "Acme" }))).await.expect(202);
        begun["receipt_id"].as_str().unwrap().to_owned()
    }
}

async fn redis() -> MultiplexedConnection {
    let url = std::env::var("AGENTLENS_TEST_REDIS_URL").unwrap();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Puts a message of an org into its stream, as a gateway does, that no worker can read.
async fn leave_a_message(world: &World, org: &str) {
    let prefix = &world.redis_prefix;
    let shard = OrgId::parse(org).unwrap().as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }) % 8;
    redis::pipe()
        .cmd("XADD")
        .arg(format!("{prefix}:ingest:{shard}"))
        .arg("*")
        .arg(&[("org", org), ("key", "key_x"), ("events", "1"), ("batch", "\u{1}nonsense")])
        .cmd("HINCRBY")
        .arg(format!("{prefix}:waiting:{org}"))
        .arg("key_x")
        .arg(1)
        .cmd("HINCRBY")
        .arg(format!("{prefix}:ingest_room"))
        .arg(org)
        .arg(1)
        .exec_async(&mut redis().await)
        .await
        .unwrap();
}

/// Everything that Redis holds of this world.
async fn all_of_redis(world: &World) -> String {
    let (mut redis, mut all) = (redis().await, String::new());
    let names: Vec<String> =
        redis::cmd("KEYS").arg(format!("{}:*", world.redis_prefix)).query_async(&mut redis).await.unwrap();
    for name in names {
        let kind: String = redis::cmd("TYPE").arg(&name).query_async(&mut redis).await.unwrap();
        let read = match kind.as_str() {
            "stream" => redis::cmd("XRANGE").arg(&name).arg("-").arg("+").to_owned(),
            "hash" => redis::cmd("HGETALL").arg(&name).to_owned(),
            _ => redis::cmd("GET").arg(&name).to_owned(),
        };
        let value: redis::Value = read.query_async(&mut redis).await.unwrap();
        all.push_str(&format!("{name} {value:?}\n"));
    }
    all
}

/// The number that a statement on the control tables gives.
async fn control_number(world: &World, sql: &str) -> i64 {
    if world.is_embedded() {
        let control = rusqlite::Connection::open(world.directory().join("control.db")).unwrap();
        control.busy_timeout(crate::world::PATIENCE).unwrap();
        return control.query_row(sql, [], |row| row.get(0)).unwrap();
    }
    let client = connect(&world.database.urls().0).await;
    client.batch_execute("set search_path = control").await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn search_files(directory: &Path, needles: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search_files(&path, needles, found);
            continue;
        }
        // The log is this test's own.
        if path.file_name().is_some_and(|name| name == "server.log") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        for needle in needles {
            if path.to_string_lossy().contains(needle)
                || bytes.windows(needle.len()).any(|part| part == needle.as_bytes())
            {
                found.push(format!("{needle} in {}", path.display()));
            }
        }
    }
}

/// Looks for texts in every table, in the name of every org or person that could have rows.
async fn search_tables(world: &World, scopes: &[&str], needles: &[&str], found: &mut Vec<String>) {
    let client = connect(&world.database.urls().0).await;
    let tables = "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('tenant', 'control') and c.relkind in ('r', 'p') and not c.relispartition order by 1";
    let tables: Vec<String> = client.query(tables, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() > 40, "{tables:?}");
    for scope in scopes {
        let set = format!("set app.current_org = '{scope}'; set app.current_workspace = '*'");
        client.batch_execute(&set).await.unwrap();
        for table in &tables {
            for needle in needles {
                let hex = data_encoding::HEXLOWER.encode(needle.as_bytes());
                let sql = format!(
                    "select count(*) from {table} t where t::text like '%{needle}%' or t::text like '%{hex}%'"
                );
                let count: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
                if count > 0 {
                    found.push(format!("{needle} in {count} rows of {table} seen by {scope}"));
                }
            }
        }
    }
}

/// Where anything of the org is found.
async fn traces(world: &World, acme: &Acme) -> Vec<String> {
    let prefix = &acme.api.key()[..12];
    let needles = [&acme.org, prefix, OWNER, MEMBER, CANARY, &acme.user_id];
    let mut found = Vec::new();
    if world.is_embedded() {
        search_files(world.directory(), &needles, &mut found);
    } else {
        search_tables(world, &[&acme.org, &acme.user_id, "default"], &needles, &mut found).await;
        let redis = all_of_redis(world).await;
        found.extend(needles.iter().filter(|it| redis.contains(**it)).map(|it| format!("{it} in Redis")));
    }
    found
}

async fn until_deleted(world: &World, receipt: &str) -> Value {
    let path = format!("/v1/deletions/{receipt}");
    until("the org to be purged", || async {
        let deletion = world.answer(world.bare("GET", &path)).await.expect(200);
        (deletion["state"] == "deleted").then_some(deletion)
    })
    .await
}

/// Checks the signature of a receipt with the keys that the server publishes.
async fn check_signature(world: &World, deletion: &Value) {
    let keys = world.answer(world.bare("GET", "/.well-known/jwks.json")).await.expect(200);
    let jws = deletion["jws"].as_str().unwrap();
    let decode = |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let header: Value = serde_json::from_slice(&decode(jws.split('.').next().unwrap())).unwrap();
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    let text = signing::verify(&decode(key["x"].as_str().unwrap()), jws).expect("a good signature");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), deletion["receipt"]);
    assert_eq!(deletion["sha256"], signing::digest(&text));
}

/// Only an owner who has proved it lately deletes the org, by its name.
async fn try_to_delete(world: &World, acme: &Acme) {
    let named = |name: &str| Some(json!({ "name": name }));
    let refusal = acme.owner.send("DELETE", "/v1/org", named("acme")).await.refusal(400);
    assert_eq!(refusal["details"][0]["path"], "name");
    let refusal = acme.member.send("DELETE", "/v1/org", named("Acme")).await.refusal(403);
    assert_eq!(refusal["code"], "insufficient_role");
    let by_key = acme.api.request("DELETE", "/v1/org").json(&json!({ "name": "Acme" }));
    assert_eq!(acme.api.answer(by_key).await.refusal(403)["code"], "insufficient_scope");
    world.move_clock(11 * 60_000_000);
    let refusal = acme.owner.send("DELETE", "/v1/org", named("Acme")).await.refusal(403);
    assert_eq!(refusal["code"], "proof_required");
    let proof = json!({ "password": acme.password });
    assert_eq!(acme.owner.post("/v1/me/prove", proof).await.status, 204);
}

async fn a_deletion_stops_the_org_and_is_undone(world: World) {
    let acme = acme(&world).await;
    let before = (acme.api.timeline("s").await, acme.owner.read("/v1/members").await["members"].clone());
    try_to_delete(&world, &acme).await;
    let mut stream = acme.api.stream(&[], None).await;
    let receipt = acme.delete().await;

    while stream.next().await.is_some_and(|message| message.event == "heartbeat") {}
    until("the key to stop", || async { (acme.api.get("/api/sessions").await.status == 401).then_some(()) })
        .await;
    acme.member.send("GET", "/api/sessions", None).await.refusal(403);
    acme.owner.send("GET", "/v1/org", None).await.refusal(403);
    let orgs = acme.owner.read("/v1/orgs").await;
    assert_eq!(orgs["orgs"][0]["org_id"], acme.org.as_str());
    assert!(orgs["orgs"][0]["undo_until"].is_string(), "{orgs}");
    assert_eq!(acme.owner.read("/v1/me").await["orgs"], json!([]));
    let deletion = world.answer(world.bare("GET", &format!("/v1/deletions/{receipt}"))).await.expect(200);
    assert_eq!(deletion["state"], "pending");
    assert!(!deletion.to_string().contains(&acme.org), "{deletion}");
    world.answer(world.bare("GET", "/v1/deletions/del_nobody")).await.refusal(404);
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    until("the owner to be told", || async {
        world.log().contains(&format!("Mail to {OWNER}, not sent")).then_some(())
    })
    .await;
    if !world.is_embedded() {
        leave_a_message(&world, &acme.org).await;
    }

    acme.member.send("POST", "/v1/org/undelete", None).await.refusal(403);
    let other = world.person(KEPT, "owner").await.in_org(&acme.org);
    other.send("POST", "/v1/org/undelete", None).await.refusal(404);
    assert_eq!(acme.owner.send("POST", "/v1/org/undelete", None).await.status, 204);
    let refusal = acme.owner.send("POST", "/v1/org/undelete", None).await.refusal(409);
    assert_eq!(refusal["code"], "not_being_deleted");
    until("the key to work", || async { (acme.api.get("/api/sessions").await.status == 200).then_some(()) })
        .await;
    let after = (acme.api.timeline("s").await, acme.owner.read("/v1/members").await["members"].clone());
    assert_eq!((before.0, before.1.as_array().unwrap().len()), (after.0, after.1.as_array().unwrap().len()));
    if !world.is_embedded() {
        // What waited has been kept for the org.
        until("the message to be read", || async {
            let letters = world.run_json(&["dead-letters", "list", "--org", &acme.org]);
            (letters["dead_letters"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    }
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    nothing_is_purged(&world, &acme).await;
}

/// The day passes, and the org that was undeleted is as it was.
async fn nothing_is_purged(world: &World, acme: &Acme) {
    world.move_clock(13 * HOUR_US);
    let now = agentlens_domain::time::format_rfc3339(world.now_us() - HOUR_US);
    until("the job to run", || async {
        let jobs = world.run_json(&["job", "list"]);
        let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "deletions").unwrap();
        job["last_run_at"].as_str().is_some_and(|at| at > now.as_str()).then_some(())
    })
    .await;
    assert_eq!(acme.api.timeline("s").await.len(), 2);
    assert_eq!(world.run_json(&["org", "receipts"])["receipts"][0]["state"], "undone");
}

async fn nothing_is_left_after_a_purge(world: World) {
    let acme = acme(&world).await;
    let kept = world.person(KEPT, "member").await;
    let join = format!(
        "insert into org_members (org_id, user_id, role, created_us) select '{}', user_id, 'admin', 1 from users where email = '{KEPT}'",
        acme.org
    );
    world.database.execute_control(&acme.org, &join).await;
    let invite = json!({ "email": "dan@deleted.example", "role": "viewer" });
    acme.owner.post("/v1/invitations", invite).await.expect(201);
    assert!(!traces(&world, &acme).await.is_empty(), "the search finds what is there");
    world.send(&[note("ours", "x")]).await;
    let receipt = acme.delete().await;
    if !world.is_embedded() {
        leave_a_message(&world, &acme.org).await;
    }
    world.move_clock(12 * HOUR_US + 1);
    let deletion = until_deleted(&world, &receipt).await;
    assert_eq!(traces(&world, &acme).await, Vec::<String>::new());

    let counts = &deletion["receipt"]["deleted"];
    let expected = [("events", 3), ("sessions", 2), ("api_keys", 1), ("users", 2), ("org_members", 3)];
    for (place, count) in expected {
        assert_eq!(counts[place], count, "{place}: {counts}");
    }
    assert_eq!(counts["orgs"], 1, "{counts}");
    if world.is_embedded() {
        assert!(counts["files"].as_i64().unwrap() >= 1, "{counts}");
    } else {
        assert_eq!(counts["queue"], 3, "{counts}");
    }
    let org_digest = signing::digest(&format!("agentlens org {}", acme.org));
    assert_eq!(deletion["receipt"]["org_sha256"], org_digest);
    check_signature(&world, &deletion).await;
    // What an earlier key signed can be checked as long as the server lives.
    world.run_json(&["secret", "rotate"]);
    let keys = world.answer(world.bare("GET", "/.well-known/jwks.json")).await.expect(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    check_signature(&world, &deletion).await;
    let printed = world.run_json(&["org", "receipts"]);
    assert_eq!(printed["receipts"][0]["jws"], deletion["jws"]);
    assert_eq!(world.run_json(&["verify"])["verified"], true);

    acme.api.get("/api/sessions").await.refusal(401);
    acme.owner.send("GET", "/v1/me", None).await.refusal(401);
    acme.owner.send("POST", "/v1/org/undelete", None).await.refusal(401);
    assert_eq!(kept.read("/v1/me").await["orgs"].as_array().unwrap().len(), 1);
    assert_eq!(world.timeline("ours").await.len(), 1);
}

async fn a_purge_goes_on_after_a_crash(mut world: World) {
    let acme = acme(&world).await;
    let many: Vec<Value> = (0..900).map(|number| note(&format!("s{}", number % 9), CANARY)).collect();
    for _ in 0..6 {
        acme.api.try_send(&many).await.expect(202);
    }
    acme.api.settled().await;
    let receipt = acme.delete().await;
    world.move_clock(12 * HOUR_US + 1);
    until("the purge to begin", || async {
        let counted = control_number(&world, "select count(*) from org_deletion_counts").await;
        (counted > 0).then_some(())
    })
    .await;
    world.kill();
    assert_eq!(control_number(&world, "select count(*) from org_deletions where purged_us is null").await, 1);
    world.start_server().await;
    // The process that was killed still has the lease of the job, for a minute.
    world.move_clock(61_000_000);
    let deletion = until_deleted(&world, &receipt).await;
    assert_eq!(deletion["receipt"]["deleted"]["events"], 3 + 6 * 900, "{deletion}");
    assert_eq!(deletion["receipt"]["deleted"]["users"], 2, "{deletion}");
    check_signature(&world, &deletion).await;
    assert_eq!(traces(&world, &acme).await, Vec::<String>::new());
}

async fn a_forged_deletion_is_found(world: World) {
    let acme = acme(&world).await;
    let seal = if world.is_embedded() { "zeroblob(32)" } else { "decode(repeat('00', 32), 'hex')" };
    let forge = format!(
        "update orgs set deleted_us = 1 where org_id = '{org}';
         insert into org_deletions (receipt_id, org_id, org_digest, requested_us, undo_until_us, seal) values ('del_x', '{org}', '{digest}', 1, 2, {seal})",
        org = acme.org,
        digest = signing::digest(&format!("agentlens org {}", acme.org)),
    );
    world.database.execute_control(&acme.org, &forge).await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    assert_eq!(printed.json["unreadable_orgs"][0]["org_id"], acme.org.as_str());
    until("the job to refuse it", || async {
        world.log().contains("was not asked for through the server").then_some(())
    })
    .await;
    assert_eq!(control_number(&world, "select count(*) from org_deletion_counts").await, 0);
}

async fn a_suspended_org_is_refused_and_kept(world: World) {
    let acme = acme(&world).await;
    world.run_json(&["org", "suspend", &acme.org]);
    until("the key to be refused", || async {
        (acme.api.get("/api/sessions").await.status == 403).then_some(())
    })
    .await;
    assert_eq!(acme.api.get("/api/sessions").await.refusal(403)["code"], "org_suspended");
    assert_eq!(acme.api.try_send(&[note("s", "x")]).await.refusal(403)["code"], "org_suspended");
    assert_eq!(acme.owner.send("GET", "/v1/org", None).await.refusal(403)["code"], "org_suspended");
    let delete = acme.owner.send("DELETE", "/v1/org", Some(json!({ "name": "Acme" }))).await;
    assert_eq!(delete.refusal(403)["code"], "org_suspended");
    // The account is the person's, and other orgs go on.
    acme.owner.read("/v1/me").await;
    world.send(&[note("s", "x")]).await;
    assert!(!world.run(&["org", "suspend", "nobody"]).is_success);
    world.run_json(&["org", "resume", &acme.org]);
    until("the key to work", || async { (acme.api.get("/api/sessions").await.status == 200).then_some(()) })
        .await;
    assert_eq!(acme.api.timeline("s").await.len(), 2);
    let acts = ["orgs.suspend", "orgs.resume"];
    for act in acts {
        let sql = format!("select count(*) from control_audit_log where act = '{act}'");
        let counted = if world.is_embedded() {
            control_number(&world, &sql).await
        } else {
            world.database.number(&acme.org, &sql.replace("control_", "control.control_")).await
        };
        assert_eq!(counted, 1, "{act}");
    }
    assert_eq!(world.run_json(&["verify"])["verified"], true);
}
