//! What someone with access to the database, but without the server's secret, changes by hand is found by verification.

use std::sync::Arc;

use agentlens_domain::apply::OrgContext;
use agentlens_domain::chain::SealKey;
use agentlens_domain::cost::PriceTable;
use agentlens_domain::permissions::Caller;
use agentlens_domain::spans::Arrival;
use agentlens_domain::time::day_of;
use agentlens_store::{Applied, Org, RemovalOrder, RemovalReason, SessionFilter};
use serde_json::json;

use crate::batches::{DAY_US, NOW_US, batch, batch_at, mixture, note};
use crate::retention::{retain, with_retention};
use crate::spans::{one_span, span_batch};
use crate::world::{Workspaces, World, apply, apply_at, secret};

on_both_engines!(
    an_untouched_org_holds,
    cut_tails_are_found,
    missing_and_exchanged_sessions_are_found,
    forged_events_are_found,
    counters_that_were_set_back_are_found,
    removals_cannot_be_forged_or_moved,
    events_of_one_session_cannot_be_moved_to_another,
    what_is_moved_to_another_workspace_is_found,
    changed_sums_are_found,
    every_column_of_a_session_is_sealed,
    later_events_do_not_hide_what_was_changed,
    later_arrivals_do_not_hide_a_changed_span,
    retention_does_not_delete_what_was_made_to_expire,
    retention_does_not_delete_what_a_longer_one_keeps,
    an_emptied_org_is_found,
    forged_events_in_a_removed_range_are_found,
    what_cannot_be_read_hides_no_other_fault,
    changed_rollups_agents_and_counts_are_found,
    a_deleted_record_of_a_deleted_session_is_found,
    changed_and_missing_spans_are_found,
    what_is_left_of_a_session_is_still_checked,
);

/// What is wrong, as verification reports it.
async fn faults(org: &Org) -> Vec<String> {
    let report = org.chains().verify_all().await.unwrap();
    let broken = report.broken.into_iter().map(|fault| format!("{}: {}", fault.session_id, fault.reason));
    broken.chain(org.chains().verify_sums(NOW_US).await.unwrap()).collect()
}

/// Makes an org of its own with events of seven sessions, changes it by hand, and returns what verification reports.
async fn after(world: &World, name: &str, statements: &[&str]) -> Vec<String> {
    let org = world.org(name).await;
    apply(&org, vec![batch("b1", &mixture(60))]).await;
    assert_eq!(faults(&org).await, [""; 0], "before: {statements:?}");
    for sql in statements {
        assert!(world.by_hand(&org, sql).await > 0, "{sql}");
    }
    faults(&org).await
}

fn assert_found(faults: &[String], part: &str) {
    assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
}

async fn an_untouched_org_holds(world: World) {
    let org = world.org("empty").await;
    assert_eq!(faults(&org).await, [""; 0]);
    assert_eq!(after(&world, "full", &[]).await, [""; 0]);
}

async fn cut_tails_are_found(world: World) {
    let deleted = "delete from events where session_id = 's1' and seq > 3";
    assert_found(&after(&world, "a", &[deleted]).await, "s1: Session ends at event 3 but 9 were stored");
    let head = "update sessions set last_seq = 3, last_hash = (select hash from events where session_id = 's1' and seq = 3),
         last_seal = (select seal from events where session_id = 's1' and seq = 3) where session_id = 's1'";
    assert_found(&after(&world, "b", &[deleted, head]).await, "s1: The row of the session was changed");
}

async fn missing_and_exchanged_sessions_are_found(world: World) {
    let row = "delete from sessions where session_id = 's1'";
    let faults = after(&world, "a", &[row]).await;
    assert_found(&faults, ": The org has 6 sessions but 7 were counted");
    assert_found(&faults, "have no session");
    let whole = after(&world, "b", &["delete from events where session_id = 's1'", row]).await;
    assert_found(&whole, ": The org has 6 sessions but 7 were counted");
    let counted = "update org_state set session_count = 6";
    let counted = after(&world, "c", &["delete from events where session_id = 's1'", row, counted]).await;
    assert_found(&counted, ": The counters of the org were changed");
    // An empty session instead of the real one.
    let emptied = "update sessions set number = 99999, last_seq = 0 where session_id = 's1'";
    assert_found(&after(&world, "d", &[emptied]).await, "s1: The row of the session was changed");
    let state = after(&world, "e", &["delete from org_state"]).await;
    assert_found(&state, ": The row of the org is missing");
}

async fn forged_events_are_found(world: World) {
    // A copy of the last event, put behind it.
    let columns = "org_id, workspace_id, environment, session_id, session_number, agent_id, event_type, severity, timestamp, ts_us,
         received_us, expire_day, prev_hash, hash, seal, metadata, encoding, payload";
    let forged = format!(
        "insert into events (position, id, seq, {columns}) select 1000000, 'forged', 10, {columns} from events
           where session_id = 's1' and seq = 9"
    );
    let found = after(&world, "a", &[&forged]).await;
    assert_found(&found, "s1: ");
    assert_found(&found, ": The counters of the org are behind its sessions or events");
}

async fn what_is_moved_to_another_workspace_is_found(world: World) {
    for (number, workspace) in ["project", "", "no such name"].into_iter().enumerate() {
        let moved = format!("update sessions set workspace_id = '{workspace}' where session_id = 's1'");
        let found = after(&world, &format!("session-{number}"), &[&moved]).await;
        let expected = match workspace {
            "project" => "s1: The row of the session was changed".to_owned(),
            other => format!(": Sessions were moved to a workspace `{other}`"),
        };
        assert_found(&found, &expected);
        let moved =
            format!("update events set workspace_id = '{workspace}' where session_id = 's1' and seq = 3");
        assert_found(&after(&world, &format!("event-{number}"), &[&moved]).await, "s1: Event 2 is missing");
    }
}

async fn counters_that_were_set_back_are_found(world: World) {
    for (name, counter) in [("a", "last_position"), ("b", "last_session")] {
        let sql = format!("update org_state set {counter} = {counter} - 1");
        let found = after(&world, name, &[&sql]).await;
        assert_found(&found, ": The counters of the org were changed");
        assert_found(&found, ": The counters of the org are behind its sessions or events");
    }
}

async fn removals_cannot_be_forged_or_moved(world: World) {
    let org = world.org("a").await;
    world.store.control().set_retention(&Caller::service("test", org.id()), Some(7)).await.unwrap();
    let org = world.reopened().await.org(org.id()).await.unwrap();
    for day in 0..10 {
        let us = NOW_US + day * DAY_US;
        let events = [note(&format!("s{day}"), "s", us), note(&format!("t{day}"), "t", us)];
        apply_at(&org, us, vec![batch_at(us, &format!("b{day}"), &events)]).await;
    }
    retain(&world, &[&org], NOW_US + 11 * DAY_US).await;
    assert_eq!(faults(&org).await, [""; 0]);
    let removed: i64 = org.ws("default").removals().of_session(1).await.unwrap()[0].last_seq;
    assert_eq!(removed, 3, "of day {}", day_of(NOW_US));

    // A longer range, to cover one more event that was deleted by hand.
    world.by_hand(&org, "delete from events where session_id = 's' and seq = 4").await;
    assert_found(&faults(&org).await, "s: Event 3 is missing: expected sequence 4, got 5");
    world.by_hand(&org, "update removals set last_seq = 4 where session_id = 's'").await;
    assert_found(&faults(&org).await, "s: A record of removed events was changed");
    // No record at all.
    world.by_hand(&org, "delete from removals").await;
    let found = faults(&org).await;
    assert_found(&found, "s: Event 0 is missing: expected sequence 1, got 5");
    assert_found(&found, "t: Event 0 is missing: expected sequence 1, got 4");
}

async fn events_of_one_session_cannot_be_moved_to_another(world: World) {
    let moved =
        "update events set session_number = (select number from sessions where session_id = 's2'), seq = 100
         where session_id = 's1' and seq = 9";
    let found = after(&world, "a", &[moved]).await;
    assert_found(&found, "s1: Session ends at event 8 but 9 were stored");
}

async fn changed_sums_are_found(world: World) {
    let sums = [
        "event_count",
        "tool_call_count",
        "error_count",
        "llm_call_count",
        "input_tokens",
        "output_tokens",
        "cost_nanos",
        "own_events",
    ];
    for sum in sums {
        let org = world.org(&sum.replace('_', "-")).await;
        apply(&org, vec![batch("b1", &mixture(60))]).await;
        let changed = format!("update sessions set {sum} = {sum} + 1 where session_id = 's1'");
        assert!(world.by_hand(&org, &changed).await > 0);
        assert_found(&faults(&org).await, "s1: The row of the session was changed");
        reseal(&world, &org, "s1").await;
        assert_found(&faults(&org).await, &format!("s1: Session says {sum}"));
    }
}

/// Seals the row of a session anew, as a fault of the server, or someone with its secret, might.
async fn reseal(world: &World, org: &Org, session_id: &str) {
    let session = org.ws("default").sessions().find(session_id).await.unwrap().unwrap();
    let context = OrgContext {
        org: org.id().clone(),
        retention_days: None,
        prices: Arc::new(PriceTable::embedded().clone()),
        seals: SealKey::of(&secret()),
    };
    let seal = session.as_stored().unwrap().seal(&context, ("default", session_id));
    let hex = data_encoding::HEXLOWER.encode(&seal);
    let literal = if world.database.is_some() { format!("'\\x{hex}'") } else { format!("x'{hex}'") };
    let sql = format!("update sessions set seal = {literal} where session_id = '{session_id}'");
    assert_eq!(world.by_hand(org, &sql).await, 1);
}

async fn every_column_of_a_session_is_sealed(world: World) {
    let changes = [
        "status = case when status = 'error' then 'active' else 'error' end",
        "expire_day = expire_day - 1",
        "started_us = started_us - 1",
        "last_event_us = last_event_us + 1",
        "ended_us = 5",
        "opened_us = 5",
        "ended_in_error = not ended_in_error",
        "agent_id = 'mallory'",
        "agent_name = 'Mallory'",
        "user_id = 'mallory'",
        "environment = 'staging'",
        "tags = '[\"x\"]'",
        "tags = 'x'",
        "moved_to = 's2'",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let changed = format!("update sessions set {change} where session_id = 's1'");
        let found = after(&world, &format!("column-{number}"), &[&changed]).await;
        assert_found(&found, "s1: The row of the session was changed");
    }
}

async fn changed_rollups_agents_and_counts_are_found(world: World) {
    let changes = [
        (
            "update rollup_day set cost_nanos = cost_nanos + 1 where dimension = 'agent'",
            "in production (agent a",
        ),
        (
            "update rollup_hour set event_count = event_count - 1 where dimension = 'total'",
            "(total) says event_count",
        ),
        (
            "update rollup_hour set input_tokens = input_tokens * 2 where dimension = 'model'",
            "says input_tokens",
        ),
        (
            "update rollup_day set latency = (select latency from rollup_day where dimension = 'tool' limit 1) where dimension = 'model'",
            "latenc",
        ),
        ("delete from rollup_day where dimension = 'user'", "(user "),
        ("delete from rollup_hour", "The rollup of the hour"),
        (
            "update rollup_day set environment = 'staging' where dimension = 'total'",
            "in staging (total) says event_count",
        ),
        ("update agents set cost_nanos = cost_nanos + 1", "says cost_nanos"),
        ("update agents set session_count = session_count - 1", "says session_count"),
        ("delete from agents where agent_id = (select min(agent_id) from agents)", "is missing"),
        ("delete from agents", "is missing"),
        (
            "update rollup_day set bucket_us = -9223372036854775807 where dimension = 'total' and bucket_us = (select min(bucket_us) from rollup_day)",
            "(total) says event_count 0",
        ),
        (
            "update events set session_number = 9223372036854775807 where session_id = 's1' and seq = 9",
            "Events of session number 9223372036854775807 have no session",
        ),
        (
            "update ingest_ledger set event_count = event_count - 1 where outcome = 'stored'",
            "The ledger says that 79 events were stored, but 80 were",
        ),
        ("delete from usage_days", "The usage of all days says that 0 events were stored, but 80 were"),
    ];
    for (number, (change, part)) in changes.into_iter().enumerate() {
        let org = world.org(&format!("sums-{number}")).await;
        apply(&org, vec![batch("b1", &mixture(60))]).await;
        merge_rollups(&org).await;
        assert_eq!(faults(&org).await, [""; 0], "before: {change}");
        assert!(world.by_hand(&org, change).await > 0, "{change}");
        assert_found(&faults(&org).await, part);
    }
}

/// Brings so many transactions that the changes of those before are merged into the cells of rollups.
async fn merge_rollups(org: &Org) {
    for number in 0..20 {
        let id = format!("m{number}");
        apply(org, vec![batch(&id, &[note(&id, "merging", NOW_US)])]).await;
    }
}

/// What was changed by hand is not sealed anew by the next event of the session, nor by the next transaction of the org.
async fn later_events_do_not_hide_what_was_changed(world: World) {
    let changes = [
        (
            "update sessions set user_id = 'mallory' where session_id = 's1'",
            "s1: The row of the session was changed",
        ),
        ("update org_state set expired_us = 9000000000000000000", ": The counters of the org were changed"),
    ];
    for (number, (change, part)) in changes.into_iter().enumerate() {
        let org = world.org(&format!("later-{number}")).await;
        apply(&org, vec![batch("b1", &mixture(60))]).await;
        assert!(world.by_hand(&org, change).await > 0);
        apply(&org, vec![batch("b2", &[note("e2", "s1", NOW_US)])]).await;
        retain(&world, &[&org], NOW_US).await;
        assert_found(&faults(&org).await, part);
    }
}

/// What was changed by hand in a span or its trace is not sealed anew by a later arrival of the span, or of a span below it.
async fn later_arrivals_do_not_hide_a_changed_span(world: World) {
    let changes = [
        "update spans set is_root = not is_root",
        "update spans set start_us = start_us + 1",
        "update spans set seal = (select seal from traces)",
        "update traces set chains = '[\"s2\"]'",
        "update traces set expire_day = expire_day - 1",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for (name, later) in [("same", again as fn(Arrival) -> Arrival), ("below", below)] {
            let org = world.org(&format!("arrivals-{name}-{number}")).await;
            apply(&org, vec![span_batch("b1", "production", vec![one_span()])]).await;
            assert_eq!(faults(&org).await, [""; 0]);
            assert!(world.by_hand(&org, change).await > 0, "{change}");
            for batch in ["b2", "b3"] {
                let mut span = later(one_span());
                span.digest = if batch == "b2" { [2; 8] } else { [3; 8] };
                span.end_us += i64::from(batch == "b3");
                let report = apply(&org, vec![span_batch(batch, "production", vec![span])]).await;
                assert!(
                    matches!(&report.batches[..], [Applied::Now(stored)] if stored.len() == 1),
                    "{report:?}"
                );
            }
            assert_found(&faults(&org).await, "was changed: its seal does not match");
        }
    }
    // Where nothing was changed, everything still holds.
    let org = world.org("unchanged").await;
    for (number, span) in [one_span(), again(one_span()), below(one_span())].into_iter().enumerate() {
        apply(&org, vec![span_batch(&format!("b{number}"), "production", vec![span])]).await;
        assert_eq!(faults(&org).await, [""; 0]);
    }
}

fn again(span: Arrival) -> Arrival {
    Arrival { digest: [2; 8], end_us: span.end_us + 1_000_000, ..span }
}

fn below(span: Arrival) -> Arrival {
    Arrival { span_id: "00000000000000ff".to_owned(), parent_span_id: Some(span.span_id), ..span }
}

/// A day of expiry that was changed by hand makes retention delete nothing unseen.
async fn retention_does_not_delete_what_was_made_to_expire(world: World) {
    for (name, changes) in [
        ("events", &["update events set expire_day = 100 where session_id = 's1'"][..]),
        (
            "sessions",
            &[
                "update events set expire_day = 100 where session_id = 's1'",
                "update sessions set expire_day = 100 where session_id = 's1'",
            ],
        ),
    ] {
        let org = world.org(name).await;
        apply(&org, vec![batch("b1", &mixture(60))]).await;
        for change in changes {
            if world.database.is_some() && change.starts_with("update events") {
                // Rows move between partitions only by the owner's hand.
                world.by_hand(&org, "delete from events where session_id = 's1'").await;
            } else {
                assert!(world.by_hand(&org, change).await > 0);
            }
        }
        retain(&world, &[&org], NOW_US + 100 * DAY_US).await;
        assert!(org.removals().list("", 10).await.unwrap().is_empty());
        let left = org.ws("default").events().after(0, 100).await.unwrap().len();
        assert!(left == 60 || faults(&org).await.iter().any(|fault| fault.starts_with("s1: ")), "{name}");
        if name == "sessions" {
            assert_found(&faults(&org).await, "s1: ");
        }
    }
}

/// Bug: an org that once kept events for a week, and keeps them for ever since, could be made to lose what it stored since: a lowered
/// day of expiry was in no seal.
async fn retention_does_not_delete_what_a_longer_one_keeps(world: World) {
    let org = with_retention(&world, "upgraded").await;
    apply(&org, vec![batch("b0", &[note("x", "x", NOW_US)])]).await;
    world.store.control().set_retention(&Caller::service("test", org.id()), None).await.unwrap();
    let org = world.reopened().await.org(org.id()).await.unwrap();
    apply(&org, vec![batch("b1", &mixture(60))]).await;
    let day = day_of(NOW_US) + 8;
    for (session, condition) in [("s1", "seq <= 5"), ("s2", "true")] {
        let change =
            format!("update events set expire_day = {day} where session_id = '{session}' and {condition}");
        assert!(world.by_owner(&org, &change).await > 0);
        assert_found(
            &faults(&org).await,
            &format!("{session}: Event 0 seal does not match its stored columns"),
        );
    }
    retain(&world, &[&org], NOW_US + 9 * DAY_US).await;
    assert!(org.removals().list("", 10).await.unwrap().is_empty());
    let found = faults(&org).await;
    let left = org.ws("default").events().after(0, 100).await.unwrap();
    for session in ["s1", "s2"] {
        assert_found(&found, &format!("{session}: "));
        let is_whole = left.iter().any(|event| event.session_id == session && event.seq == 1);
        assert_eq!(is_whole, world.database.is_none(), "{session}: a partition goes with all that is in it");
    }
    assert!(left.iter().all(|event| event.session_id != "x"), "what did expire is gone");
}

/// A range that was removed on purpose is no place for forged events.
async fn forged_events_in_a_removed_range_are_found(world: World) {
    let org = world.org("a").await;
    let mut erased = note("e1", "s", NOW_US);
    erased["metadata"] = json!({ "userId": "ada" });
    apply(&org, vec![batch("b1", &[erased, note("e2", "s", NOW_US)])]).await;
    let order =
        RemovalOrder { why: RemovalReason::Erasure, removed_by: "person:bob".to_owned(), now_us: NOW_US };
    assert_eq!(org.ws("default").events().remove_of_user("ada", &order).await.unwrap(), 1);
    assert_eq!(faults(&org).await, [""; 0]);
    let columns = "org_id, workspace_id, environment, session_id, session_number, agent_id, event_type, severity, timestamp, ts_us,
         received_us, expire_day, prev_hash, hash, seal, metadata, encoding, payload";
    let forged = format!(
        "insert into events (position, id, seq, {columns}) select 1, 'e1', 1, {columns} from events where seq = 2"
    );
    assert_eq!(world.by_hand(&org, &forged).await, 1);
    assert_found(&faults(&org).await, "s: Event 0 was removed, but is stored");
}

async fn an_emptied_org_is_found(world: World) {
    let tables = ["events", "sessions", "org_state", "agents", "rollup_hour", "rollup_day", "rollup_changes"];
    let org = world.org("a").await;
    apply(&org, vec![batch("b1", &mixture(60))]).await;
    for table in tables {
        world.by_hand(&org, &format!("delete from {table}")).await;
    }
    assert_found(&faults(&org).await, ": The row of the org is missing");
    let batches = Arc::new(vec![batch("b2", &mixture(3))]);
    assert!(org.apply(batches, NOW_US).await.is_err(), "it is not begun anew");
}

async fn what_cannot_be_read_hides_no_other_fault(world: World) {
    let changes = [
        "update events set hash = 'x' where session_id = 's1' and seq = 1",
        "update sessions set last_hash = 'x' where session_id = 's3'",
        "update events set model = 'gpt-9' where session_id = 's2' and seq = 3",
    ];
    let found = after(&world, "a", &changes).await;
    for part in ["s1: ", "s2: ", "s3: "] {
        assert_found(&found, part);
    }
}

async fn a_deleted_record_of_a_deleted_session_is_found(world: World) {
    let org = world.org("a").await;
    apply(&org, vec![batch("b1", &mixture(60))]).await;
    let workspace = org.ws("default");
    let sessions = workspace.sessions();
    let order =
        RemovalOrder { why: RemovalReason::Deletion, removed_by: "person:bob".to_owned(), now_us: NOW_US };
    for id in ["s1", "s2"] {
        let session = sessions.find(id).await.unwrap().unwrap();
        sessions.remove(&session, &order).await.unwrap();
    }
    apply(&org, vec![batch("b2", &[note("later", "s1", NOW_US)])]).await;
    assert_eq!(faults(&org).await, [""; 0]);
    let one = "delete from removals where removal_id = (select min(removal_id) from removals)";
    assert_eq!(world.by_hand(&org, one).await, 1);
    assert_found(&faults(&org).await, ": The org has 1 records of deleted sessions but 2 were counted");
    assert_eq!(world.by_hand(&org, "update org_state set removed_session_count = 1").await, 1);
    assert_found(&faults(&org).await, ": The counters of the org were changed");
}

async fn changed_and_missing_spans_are_found(world: World) {
    let changes = [
        (
            "update spans set state = (select payload from events limit 1)",
            "was changed: its seal does not match",
        ),
        ("update spans set start_us = start_us + 1", "was changed: its seal does not match"),
        ("update spans set is_root = not is_root", "was changed: its seal does not match"),
        ("update spans set is_part = not is_part", "was changed: its seal does not match"),
        ("update spans set response_id = 'x'", "was changed: its seal does not match"),
        ("update spans set named_parent_span_id = 'x'", "was changed: its seal does not match"),
        ("update spans set expire_day = expire_day - 1", "was changed: its seal does not match"),
        ("update traces set chains = '[\"s2\"]'", "was changed: its seal does not match"),
        ("update traces set expire_day = expire_day - 1", "was changed: its seal does not match"),
        ("update traces set seal = (select seal from spans)", "was changed: its seal does not match"),
        ("delete from spans", "Session says event_count 1 but its events say 0"),
        ("delete from traces", "Session says event_count 1 but its events say 0"),
    ];
    for (number, (change, part)) in changes.into_iter().enumerate() {
        let org = world.org(&format!("spans-{number}")).await;
        apply(&org, vec![span_batch("b1", "production", vec![one_span()])]).await;
        assert_eq!(faults(&org).await, [""; 0]);
        assert!(world.by_hand(&org, change).await > 0);
        assert_found(&faults(&org).await, part);
    }
}

async fn what_is_left_of_a_session_is_still_checked(world: World) {
    let changes = [
        ("update spans set start_us = start_us + 1", "was changed: its seal does not match"),
        ("update traces set seal = (select seal from spans)", "was changed: its seal does not match"),
        (
            "update sessions set event_count = event_count - 1",
            "Session says event_count 1 but its events say at least 2",
        ),
    ];
    for (number, (change, part)) in changes.into_iter().enumerate() {
        let org = world.org(&format!("left-{number}")).await;
        apply(&org, vec![span_batch("b1", "production", vec![one_span()])]).await;
        let sessions =
            org.ws("default").sessions().list(&SessionFilter::default(), None, 0, 2).await.unwrap();
        let session = sessions.sessions[0].session_id.as_str();
        let (mut erased, kept) = (note("e1", session, NOW_US), note("e2", session, NOW_US));
        erased["metadata"] = json!({ "userId": "ada" });
        apply(&org, vec![batch("b2", &[erased, kept])]).await;
        let order =
            RemovalOrder { why: RemovalReason::Erasure, removed_by: "person:bob".to_owned(), now_us: NOW_US };
        assert_eq!(org.ws("default").events().remove_of_user("ada", &order).await.unwrap(), 1);
        assert_eq!(faults(&org).await, [""; 0]);
        // The erased event is still counted, so one may be taken away before the sum is too small.
        if change.contains("event_count") {
            assert!(world.by_hand(&org, change).await > 0);
        }
        assert!(world.by_hand(&org, change).await > 0);
        if change.contains("event_count") {
            reseal(&world, &org, session).await;
        }
        assert_found(&faults(&org).await, part);
    }
}
