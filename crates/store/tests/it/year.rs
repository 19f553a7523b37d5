//! A year of one org, with the clock moved: retention that changes, sessions over midnight, late events, a deleted session, an
//! erased user. Every chain verifies on every day, and every deletion by hand is found.

use agentlens_domain::ids::OrgId;
use agentlens_domain::permissions::Caller;
use agentlens_store::{Org, RemovalOrder, RemovalReason};
use serde_json::{Value, json};

use crate::batches::{DAY_US, NOW_US, batch_at, note};
use crate::retention::retain;
use crate::world::{Workspaces, World, apply_at};

on_both_engines!(every_chain_verifies_on_every_day_and_every_deletion_by_hand_is_found);

/// Days of the year that are looked at: some, so that the test stays short. Retention runs on each of them.
const DAYS: i64 = 365;
const DAYS_BETWEEN: i64 = 3;
/// The sums of all that is kept are counted again on every so many days: a multiple of the days between.
const DAYS_BETWEEN_SUMS: i64 = 30;

/// Retention changes as plans do: up, down, off and on again.
fn retention_on(day: i64) -> Option<i32> {
    match day {
        0..60 => Some(30),
        60..120 => Some(7),
        120..180 => Some(90),
        180..240 => None,
        _ => Some(7),
    }
}

fn of_user(user: &str, mut event: Value) -> Value {
    event["metadata"] = json!({ "userId": user });
    event
}

/// What comes in on a day: a session of its own, one that runs over midnight, one that lives all year, and a late event.
fn events_on(day: i64, now_us: i64) -> Vec<Value> {
    let id = |name: &str| format!("{name}-{day}");
    let midnight = format!("night-{}", day / 2);
    vec![
        of_user("ann", note(&id("a"), &id("day"), now_us)),
        of_user("bob", note(&id("b"), &id("day"), now_us + 1_000)),
        of_user("ann", note(&id("c"), &id("day"), now_us + 2_000)),
        note(&id("night"), &midnight, now_us),
        of_user(if day % 2 == 0 { "ann" } else { "bob" }, note(&id("long"), "long", now_us)),
        note(&id("late"), &id("late-session"), now_us - 5 * DAY_US),
    ]
}

async fn faults(org: &Org) -> Vec<String> {
    let report = org.chains().verify_all().await.unwrap();
    report.broken.into_iter().map(|fault| format!("{}: {}", fault.session_id, fault.reason)).collect()
}

async fn every_chain_verifies_on_every_day_and_every_deletion_by_hand_is_found(world: World) {
    let id = OrgId::parse("acme").unwrap();
    world.store.control().ensure_org(&Caller::service("test", &id), "Acme").await.unwrap();
    let mut retention = Some(-1);
    let mut org = None;
    for day in (0..DAYS).step_by(usize::try_from(DAYS_BETWEEN).unwrap()) {
        let now_us = NOW_US + day * DAY_US;
        if retention != retention_on(day) {
            retention = retention_on(day);
            world.store.control().set_retention(&Caller::service("test", &id), retention).await.unwrap();
            org = None;
        }
        if org.is_none() {
            org = Some(world.reopened().await.org(&id).await.unwrap());
        }
        let org = org.as_ref().unwrap();
        let batch = batch_at(now_us, &format!("b{day}"), &events_on(day, now_us));
        apply_at(org, now_us, vec![batch]).await;
        retain(&world, &[org], now_us).await;
        let order = |why| RemovalOrder { why, removed_by: "person:ada".to_owned(), now_us };
        if day == 99 {
            let session = org.ws("default").sessions().find("day-96").await.unwrap().unwrap();
            let removed =
                org.ws("default").sessions().remove(&session, &order(RemovalReason::Deletion)).await.unwrap();
            assert_eq!(removed, 3);
        }
        if day == 150 || day == 300 {
            let order = order(RemovalReason::Erasure);
            assert!(org.ws("default").events().remove_of_user("bob", &order).await.unwrap() > 0);
            assert_eq!(org.ws("default").events().remove_of_user("bob", &order).await.unwrap(), 0);
        }
        assert_eq!(faults(org).await, [""; 0], "day {day}");
        if day % DAYS_BETWEEN_SUMS == 0 {
            assert_eq!(org.chains().verify_sums(now_us).await.unwrap(), [""; 0], "day {day}");
        }
    }
    deletions_by_hand_are_found(&world, org.as_ref().unwrap()).await;
}

async fn deletions_by_hand_are_found(world: &World, org: &Org) {
    let kept = org.ws("default").events().after(0, 1_000).await.unwrap();
    assert!(kept.len() > 100 && kept.len() < 500, "{}", kept.len());
    let tombstones = org.removals().list("", 1_000).await.unwrap();
    assert!(tombstones.iter().any(|removal| removal.what == "session" && removal.session_id == "day-96"));
    // Any single event that is left, whichever it is: each is put back before the next is tried.
    world.keep(org, "events").await;
    for event in kept.iter().step_by(kept.len() / 25) {
        let deleted = format!("delete from events where position = {}", event.position);
        assert_eq!(world.by_hand(org, &deleted).await, 1);
        assert_ne!(faults(org).await, [""; 0], "event {} of {}", event.seq, event.session_id);
        let restored = format!(
            "insert into events select * from {} where position = {}",
            world.kept("events"),
            event.position
        );
        assert_eq!(world.by_hand(org, &restored).await, 1);
    }
    assert_eq!(faults(org).await, [""; 0]);
    for sql in
        ["delete from removals where session_id = 'day-96'", "delete from removals where session_id = 'long'"]
    {
        assert!(world.by_hand(org, sql).await > 0, "{sql}");
    }
    assert_ne!(faults(org).await, [""; 0]);
}
