//! The ledger: received = stored + refused + waiting, for each key, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::samples::{note, with};
use crate::world::World;

on_both_engines!(
    what_was_sent_is_accounted_for,
    nothing_acknowledged_is_ever_missing,
    other_orgs_are_not_in_it,
    other_workspaces_are_not_in_it
);

fn sum(key: &Value) -> i64 {
    let refused: i64 =
        key["refused"].as_object().unwrap().values().map(|count| count.as_i64().unwrap()).sum();
    key["stored"].as_i64().unwrap() + key["waiting"].as_i64().unwrap() + refused
}

async fn what_was_sent_is_accounted_for(world: World) {
    let second = world.make_key(&["--scope", "events:write"]);
    let mut random = SmallRng::seed_from_u64(7);
    let mut sent = [0i64; 2];
    for round in 0..30 {
        let events: Vec<Value> = (0..random.random_range(1..40))
            .map(|number| match random.random_range(0..6) {
                0 => with(note("s", "bad"), "severity", "loud"),
                1 => with(note("s", "bad"), "timestamp", "never"),
                2 => with(note("s", "repeat"), "id", "always the same"),
                3 => with(note("s", &format!("{round}")), "id", format!("clash {}", number % 3)),
                _ => note("s", "good"),
            })
            .collect();
        let which = usize::from(random.random_bool(0.4));
        let api = if which == 0 { &*world } else { &second };
        let path = if random.random_bool(0.2) { "/api/events?strict=true" } else { "/api/events" };
        let status = api.post(path, json!(events).to_string()).await.status;
        assert!([202, 400].contains(&status));
        sent[which] += i64::try_from(events.len()).unwrap();
    }
    // A request that can't be read holds no countable events.
    world.post("/api/events", "{").await.refusal(400);
    world.settled().await;
    let ledger = world.read("/v1/ingest/ledger").await;
    let keys = ledger["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    let mut received: Vec<i64> = keys.iter().map(|key| key["received"].as_i64().unwrap()).collect();
    assert!(keys.iter().all(|key| sum(key) == key["received"].as_i64().unwrap()), "{ledger}");
    received.sort_unstable();
    sent.sort_unstable();
    assert_eq!(received, sent);
    let stored: i64 = keys.iter().map(|key| key["stored"].as_i64().unwrap()).sum();
    assert_eq!(world.read("/api/sessions/s").await["eventCount"], stored);
}

async fn nothing_acknowledged_is_ever_missing(world: World) {
    let (writer, acknowledged) = (world.same_key(), Arc::new(AtomicI64::new(0)));
    let counter = Arc::clone(&acknowledged);
    let sending = tokio::spawn(async move {
        for _ in 0..40 {
            let events: Vec<Value> = (0..100).map(|_| note("s", "x")).collect();
            writer.try_send(&events).await.expect(202);
            counter.fetch_add(100, Ordering::Relaxed);
        }
    });
    while !sending.is_finished() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let ledger = world.read("/v1/ingest/ledger").await;
        let received = ledger["keys"][0]["received"].as_i64().unwrap_or(0);
        assert!(
            ledger["keys"]
                .as_array()
                .unwrap()
                .iter()
                .all(|key| sum(key) == key["received"].as_i64().unwrap())
        );
        assert!(received >= acknowledged, "{received} of {acknowledged}");
    }
    sending.await.unwrap();
    world.settled().await;
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"][0]["stored"], 4000);
}

async fn other_orgs_are_not_in_it(world: World) {
    let (_, other) = world.org("Other");
    other.send(&[note("s", "x")]).await;
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"], json!([]));
    assert_eq!(other.read("/v1/ingest/ledger").await["keys"][0]["stored"], 1);
}

async fn other_workspaces_are_not_in_it(world: World) {
    let project = world.make_key(&["--workspace", "project"]);
    world.send(&[note("s", "ours")]).await;
    project.send(&[note("s", "theirs"), note("s", "theirs too")]).await;
    for (api, stored) in [(&*world, 1), (&project, 2)] {
        let ledger = api.read("/v1/ingest/ledger").await;
        let keys = ledger["keys"].as_array().unwrap();
        assert_eq!((keys.len(), &keys[0]["stored"]), (1, &json!(stored)), "{ledger}");
    }
}
