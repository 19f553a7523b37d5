//! Whoever changes a stored byte is found: by `agentlens verify` and by the session's timeline.

use serde_json::json;

use crate::samples::{HOUR_US, note, now_us, one_of_each, with};
use crate::world::{Database, World};

on_both_engines!(
    every_changed_column_is_found,
    missing_events_are_found,
    a_payload_is_guarded_byte_for_byte,
    verify_names_the_first_broken_event_of_each_session,
    hidden_orgs_are_found,
    a_lost_audit_log_is_found,
    wrong_sums_are_found,
);

const ORG: &str = "default";
const TEXTS: [&str; 17] = [
    "id",
    "workspace_id",
    "environment",
    "session_id",
    "agent_id",
    "event_type",
    "severity",
    "timestamp",
    "name",
    "provider",
    "model",
    "call_id",
    "user_id",
    "usage_parts",
    "cost_source",
    "preview",
    "metadata",
];
const NUMBERS: [&str; 12] = [
    "position",
    "session_number",
    "seq",
    "ts_us",
    "received_us",
    "duration_us",
    "input_tokens",
    "output_tokens",
    "cost_nanos",
    "reported_cost_nanos",
    "computed_cost_nanos",
    "encoding",
];
const BLOBS: [&str; 4] = ["prev_hash", "hash", "seal", "payload"];
/// Columns that may move without a change of the event.
const FREE: [&str; 2] = ["org_id", "expire_day"];

async fn prepare(world: &World) {
    let metadata = json!({ "userId": "user-1", "source": "test" });
    let events: Vec<_> = one_of_each("s", now_us() - HOUR_US)
        .into_iter()
        .map(|mut event| {
            // Only long payloads have a preview of their own.
            if event["eventType"] == "llm_response" {
                event["payload"]["completion"] = json!("long ".repeat(500));
            }
            with(event, "metadata", metadata.clone())
        })
        .collect();
    world.send(&events).await;
    // A place outside of the tables of the product, from where every change is taken back.
    let keep = if world.is_embedded() { "create table kept" } else { "create table public.kept" };
    world.database.execute(ORG, &format!("{keep} as select * from events")).await;
}

async fn restore(world: &World) {
    let kept = if world.is_embedded() { "kept" } else { "public.kept" };
    world
        .database
        .execute(ORG, &format!("delete from events; insert into events select * from {kept}"))
        .await;
}

/// Whether both ways of looking find the chain broken; they must agree.
async fn is_found(world: &World) -> bool {
    let printed = world.run(&["verify", "--json"]);
    let timeline = world.read("/api/sessions/s/timeline").await;
    let by_command = !printed.json["verified"].as_bool().expect("verify prints a report");
    let by_timeline = !timeline["chainValid"].as_bool().unwrap();
    assert_eq!(printed.is_success, !by_command, "{}", printed.error);
    assert_eq!(by_command, by_timeline, "{}", printed.text);
    by_command
}

/// A statement that changes one column of the event at `seq`, whatever it holds.
fn change(column: &str, seq: i64, is_embedded: bool) -> String {
    let value = if TEXTS.contains(&column) {
        format!("coalesce({column}, '') || 'x'")
    } else if NUMBERS.contains(&column) {
        let step = if ["position", "session_number", "seq"].contains(&column) { 1_000_000 } else { 1 };
        format!("coalesce({column}, 0) + {step}")
    } else if is_embedded {
        // The last byte is another one.
        format!("cast(substr({column}, 1, length({column}) - 1) || cast(x'21' as blob) as blob)")
    } else {
        format!("set_byte({column}, length({column}) - 1, get_byte({column}, length({column}) - 1) # 1)")
    };
    format!("update events set {column} = {value} where session_id = 's' and seq = {seq}")
}

async fn every_changed_column_is_found(world: World) {
    prepare(&world).await;
    assert!(!is_found(&world).await);
    let listed = if world.is_embedded() {
        "select count(*) from pragma_table_info('events')"
    } else {
        "select count(*) from information_schema.columns where table_schema = 'tenant' and table_name = 'events'"
    };
    let known = TEXTS.len() + NUMBERS.len() + BLOBS.len() + FREE.len();
    assert_eq!(
        world.database.number(ORG, listed).await,
        i64::try_from(known).unwrap(),
        "a new column is not in this test"
    );
    // The model's answer has nearly all columns, the first event few of them.
    let answer_seq =
        world.database.number(ORG, "select seq from events where event_type = 'llm_response'").await;
    for column in TEXTS.iter().chain(&NUMBERS).chain(&BLOBS) {
        for seq in [1, answer_seq] {
            if seq == 1 && *column == "prev_hash" {
                continue;
            }
            world.database.execute(ORG, &change(column, seq, world.is_embedded())).await;
            assert!(is_found(&world).await, "a change of {column} of event {seq} was not found");
            restore(&world).await;
        }
    }
    for column in
        ["model", "cost_nanos", "user_id", "usage_parts", "preview", "prev_hash", "name", "cost_source"]
    {
        let erase = format!("update events set {column} = null where session_id = 's' and seq > 1");
        world.database.execute(ORG, &erase).await;
        assert!(is_found(&world).await, "erasing {column} was not found");
        restore(&world).await;
    }
    assert!(!is_found(&world).await);
}

async fn missing_events_are_found(world: World) {
    prepare(&world).await;
    let last = world.database.number(ORG, "select max(seq) from events").await;
    for (what, condition) in [
        ("the first", "seq = 1".to_owned()),
        ("one in the middle", "seq = 5".to_owned()),
        ("the last", format!("seq = {last}")),
        ("the last three", format!("seq > {}", last - 3)),
        ("all", "seq > 0".to_owned()),
    ] {
        world
            .database
            .execute(ORG, &format!("delete from events where session_id = 's' and {condition}"))
            .await;
        assert!(is_found(&world).await, "that {what} is missing was not found");
        restore(&world).await;
        assert!(!is_found(&world).await);
    }
    // Two events that change places.
    world
        .database
        .execute(
            ORG,
            "update events set seq = 1000 where seq = 3; update events set seq = 3 where seq = 4; update events set seq = 4 where seq = 1000",
        )
        .await;
    assert!(is_found(&world).await);
}

async fn a_payload_is_guarded_byte_for_byte(world: World) {
    world.send(&[note("s", "The quick brown fox, ü and 漢")]).await;
    let length = world.database.number(ORG, "select cast(length(payload) as bigint) from events").await;
    let table = if world.is_embedded() { "kept" } else { "public.kept" };
    world.database.execute(ORG, &format!("create table {table} as select * from events")).await;
    for position in 0..length {
        let flip = match &world.database {
            Database::Embedded { .. } => {
                let file = world.database.file(ORG);
                let mut payload: Vec<u8> =
                    file.query_row("select payload from events", [], |row| row.get(0)).unwrap();
                payload[usize::try_from(position).unwrap()] ^= 1;
                let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("update events set payload = x'{digits}'")
            }
            Database::Cloud { .. } => {
                format!(
                    "update events set payload = set_byte(payload, {position}, get_byte(payload, {position}) # 1)"
                )
            }
        };
        world.database.execute(ORG, &flip).await;
        let timeline = world.get("/api/sessions/s/timeline").await;
        // Bytes that are no text any more may make the page unreadable, but never valid.
        assert_ne!(timeline.json["chainValid"], true, "a flipped bit at {position} was not found");
        restore(&world).await;
    }
    assert!(!is_found(&world).await);
}

async fn verify_names_the_first_broken_event_of_each_session(world: World) {
    for session in ["a", "b", "c"] {
        world.send(&(0..5).map(|number| note(session, &number.to_string())).collect::<Vec<_>>()).await;
    }
    let (other_org, other) = world.org("Other");
    other.send(&[note("a", "x")]).await;
    let broken_ids: Vec<String> = {
        let mut ids = Vec::new();
        for (session, index) in [("a", 1), ("c", 3)] {
            ids.push(world.timeline(session).await[index]["id"].as_str().unwrap().to_owned());
        }
        ids
    };
    for (session, seq) in [("a", 2), ("a", 4), ("c", 4)] {
        let sql =
            format!("update events set severity = 'warn' where session_id = '{session}' and seq = {seq}");
        world.database.execute(ORG, &sql).await;
    }
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    assert_eq!(printed.json["sessions_verified"], 4);
    let chains = printed.json["broken_chains"].as_array().unwrap();
    let named: Vec<_> = chains
        .iter()
        .map(|chain| (&chain["session_id"], &chain["failed_at_index"], &chain["failed_event_id"]))
        .collect();
    assert_eq!(
        named,
        [(&json!("a"), &json!(1), &json!(broken_ids[0])), (&json!("c"), &json!(3), &json!(broken_ids[1]))]
    );
    assert!(chains.iter().all(|chain| chain["org_id"] == ORG));
    assert!(world.run(&["verify", "--org", &other_org]).is_success);
    assert!(!world.run(&["verify", "--org", ORG]).is_success);
    assert!(!world.run(&["verify", "--org", "nobody"]).is_success);
    let text = world.run(&["verify"]);
    assert!(text.text.contains("BROKEN") && text.text.contains(&broken_ids[0]), "{}", text.text);
    // The API says the same.
    let report = world.read("/api/audit/verify?sessionId=a").await;
    assert_eq!(report["verified"], false);
    assert_eq!(report["brokenChains"][0]["failedEventId"], json!(broken_ids[0]));
    assert_eq!(world.read("/api/audit/verify?sessionId=b").await["verified"], true);
}

async fn hidden_orgs_are_found(world: World) {
    let (org, _) = world.org("Acme");
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    world
        .database
        .execute_control(&org, &format!("update orgs set deleted_us = 1 where org_id = '{org}'"))
        .await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    let hidden = &printed.json["unreadable_orgs"][0];
    assert_eq!(hidden["org_id"], org.as_str());
    assert_eq!(hidden["reason"], "it is marked as deleted, but no one deleted it");
    if world.is_embedded() {
        world.database.execute_control(&org, &format!("delete from orgs where org_id = '{org}'")).await;
        let hidden = &world.run(&["verify", "--json"]).json["unreadable_orgs"][0];
        assert_eq!(hidden["reason"], "it has data but is not in the list of orgs");
    }
}

async fn a_lost_audit_log_is_found(world: World) {
    let (org, _) = world.org("Acme");
    let sql = format!(
        "delete from control_audit_log where org_id = '{org}'; delete from control_audit_heads where org_id = '{org}'"
    );
    world.database.execute_control(&org, &sql).await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    let reason = printed.json["broken_audit_logs"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.ends_with("the entry about the creation of the org is missing"), "{reason}");
}

async fn wrong_sums_are_found(world: World) {
    prepare(&world).await;
    assert_eq!(world.run_json(&["verify"])["wrong_sums"], json!([]));
    world.database.execute(ORG, "update agents set cost_nanos = cost_nanos + 1").await;
    let printed = world.run(&["verify", "--json"]);
    assert!(!printed.is_success);
    let reason = printed.json["wrong_sums"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("Agent ") && reason.contains("says cost_nanos"), "{reason}");
}
