//! Applying batches: exactly once, all or nothing, whatever the order.

use agentlens_domain::batches::Outcome;
use agentlens_domain::cost::PriceSpec;
use agentlens_domain::ids::BatchId;
use agentlens_domain::permissions::Caller;
use agentlens_store::{Applied, CellRow, DeadLetter, Org, StoreError};
use serde_json::json;

use crate::batches::{NOW_US, batch, batch_of, mixture, note};
use crate::world::{Workspaces, World, apply, cell_queries};

on_both_engines!(
    a_batch_has_its_effect_once,
    ids_are_taken_once,
    writers_of_one_org_line_up,
    the_ledger_adds_up,
    own_prices_stand_before_the_table,
    dead_letters_are_kept,
    rollups_are_the_same_however_many_changes_wait,
);

async fn a_batch_has_its_effect_once(world: World) {
    let org = world.org("acme").await;
    assert_eq!(org.ws("default").events().last_position().await.unwrap(), 0);
    let events = mixture(50);
    let first = apply(&org, vec![batch("b1", &events)]).await;
    assert_eq!(first.last_position, 50);
    assert!(matches!(&first.batches[..], [Applied::Now(outcomes)] if outcomes.len() == 50));
    let stored = org.ws("default").events().after(0, 1000).await.unwrap();
    assert_eq!(stored.iter().map(|event| event.position).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    // Alone, twice in one group, and beside a new one.
    let again = apply(&org, vec![batch("b1", &events)]).await;
    assert_eq!(again.batches, [Applied::Before]);
    let group = vec![
        batch("b1", &events),
        batch("b2", &[note("x", "s", NOW_US)]),
        batch("b2", &[note("x", "s", NOW_US)]),
    ];
    let group = apply(&org, group).await;
    assert!(matches!(&group.batches[..], [Applied::Before, Applied::Now(_), Applied::Before]), "{group:?}");
    assert_eq!(org.ws("default").events().last_position().await.unwrap(), 51);
    assert_eq!(org.ws("default").events().after(50, 1000).await.unwrap().len(), 1);
    let empty = apply(&org, vec![batch("b3", &[])]).await;
    assert_eq!(empty.batches, [Applied::Now(Vec::new())]);
    assert_eq!(apply(&org, Vec::new()).await.batches, []);
}

async fn ids_are_taken_once(world: World) {
    let org = world.org("acme").await;
    let mut other = note("x", "s", NOW_US);
    other["severity"] = json!("error");
    let report = apply(
        &org,
        vec![
            batch("b1", &[note("x", "s", NOW_US), note("x", "s", NOW_US), other.clone()]),
            batch("b2", &[other.clone(), note("y", "s", NOW_US)]),
        ],
    )
    .await;
    let kinds = |applied: &Applied| match applied {
        Applied::Before => panic!("applied before"),
        Applied::Now(outcomes) => outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Stored { .. } => "stored",
                Outcome::Duplicate => "duplicate",
                Outcome::Conflict => "conflict",
                Outcome::Refused => "refused",
            })
            .collect::<Vec<_>>(),
    };
    assert_eq!(kinds(&report.batches[0]), ["stored", "duplicate", "conflict"]);
    assert_eq!(kinds(&report.batches[1]), ["conflict", "stored"]);
    // An id is the workspace's: another one may use it for an event of its own.
    let elsewhere = apply(&org, vec![batch_of("project", "b3", &[note("x", "s", NOW_US)])]).await;
    assert_eq!(kinds(&elsewhere.batches[0]), ["stored"]);
    assert_eq!(org.ws("default").events().after(0, 100).await.unwrap().len(), 2);
    assert_eq!(org.ws("project").events().after(0, 100).await.unwrap().len(), 1);
}

async fn writers_of_one_org_line_up(world: World) {
    let org = world.org("acme").await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let org = org.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let ids: Vec<_> = (0..10)
                        .map(|number| note(&format!("{writer}-{round}-{number}"), "s", NOW_US))
                        .collect();
                    // Every batch comes from two writers at once.
                    let id = format!("b-{}-{round}", writer / 2);
                    let events: Vec<_> = ids.into_iter().take(if writer % 2 == 0 { 10 } else { 0 }).collect();
                    let mine = if writer % 2 == 0 { id } else { format!("c-{writer}-{round}") };
                    apply(&org, vec![batch(&mine, &events)]).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let session = org.ws("default").sessions().find("s").await.unwrap().unwrap();
    assert_eq!((session.event_count, session.last_seq), (200, 200));
    assert_eq!(org.ws("default").chains().verify_session(&session).await.unwrap().broken, None);
    assert_eq!(org.ws("default").events().last_position().await.unwrap(), 200);
}

async fn the_ledger_adds_up(world: World) {
    let org = world.org("acme").await;
    let events = mixture(40);
    apply(&org, vec![batch("b1", &events[..30]), batch("b2", &events[20..])]).await;
    let rows = org.ledger().counts().await.unwrap();
    let count =
        |outcome: &str| rows.iter().find(|row| row.outcome == outcome).map_or(0, |row| row.event_count);
    assert_eq!(
        (count("received"), count("stored"), count("duplicate"), count("missing_field")),
        (52, 40, 10, 2)
    );
    assert!(rows.iter().all(|row| row.key_id == "key_1"));
}

async fn own_prices_stand_before_the_table(world: World) {
    let org = world.org("acme").await;
    let spec: PriceSpec =
        serde_json::from_value(json!({ "model": "own-model", "input": "1000", "output": "2000" })).unwrap();
    org.prices().set(&Caller::service("test", org.id()), &spec, 0).await.unwrap();
    org.prices().set(&Caller::service("test", org.id()), &spec, 0).await.unwrap();
    // A handle keeps its prices for some seconds; another store reads them at once.
    let answer = json!({ "id": "x", "sessionId": "s", "agentId": "a", "eventType": "llm_response",
        "payload": { "callId": "c", "model": "own-model", "completion": "x", "usage": { "inputTokens": 1_000_000, "outputTokens": 0, "totalTokens": 0 } } });
    let store = match &world.database {
        Some(database) => {
            agentlens_store::Store::open_postgres(&database.app_url, 2, &crate::world::secret())
                .await
                .unwrap()
        }
        None => return,
    };
    let org = store.org(org.id()).await.unwrap();
    apply(&org, vec![batch("b1", &[answer])]).await;
    let stored = org.ws("default").events().find("x").await.unwrap().unwrap();
    assert_eq!(stored.cost_source.as_deref(), Some("computed"));
    assert_eq!(stored.cost_nanos, Some(1000 * 1_000_000_000));
}

async fn dead_letters_are_kept(world: World) {
    let org = world.org("acme").await;
    let letter = |id: &str, at: i64| DeadLetter {
        batch_id: id.to_owned(),
        key_id: "key_1".to_owned(),
        failed_us: at,
        reason: "because".to_owned(),
        event_count: 3,
    };
    let bytes = [0u8, 1, 255, 254];
    org.dead_letters().insert(&letter("b2", 20), &bytes).await.unwrap();
    org.dead_letters().insert(&letter("b1", 10), &bytes).await.unwrap();
    org.dead_letters().insert(&letter("b1", 11), &bytes).await.unwrap();
    let ids: Vec<_> = org
        .dead_letters()
        .list(10)
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.batch_id, row.failed_us))
        .collect();
    assert_eq!(ids, [("b1".to_owned(), 11), ("b2".to_owned(), 20)]);
    assert_eq!(org.dead_letters().list(1).await.unwrap().len(), 1);
    let sums = org.dead_letters().event_counts().await.unwrap();
    assert_eq!((sums.len(), sums[0].event_count, sums[0].outcome.as_str()), (1, 6, "dead_letter"));
    let id = BatchId::parse("b1").unwrap();
    assert_eq!(org.dead_letters().message(&id).await.unwrap(), bytes);
    org.dead_letters().delete(&Caller::service("test", org.id()), "dead_letters.replay", &id).await.unwrap();
    assert!(matches!(
        org.dead_letters().delete(&Caller::service("test", org.id()), "dead_letters.replay", &id).await,
        Err(StoreError::NotFound)
    ));
    assert!(matches!(org.dead_letters().message(&id).await, Err(StoreError::NotFound)));
}

/// Every cell, by tier, dimension and the order of lists.
async fn all_cells(org: &Org) -> Vec<Vec<CellRow>> {
    let mut all = Vec::new();
    for query in cell_queries() {
        all.push(org.ws("default").analytics().cells(&query).await.unwrap());
    }
    all
}

async fn rollups_are_the_same_however_many_changes_wait(world: World) {
    // Changes are merged with every seventeenth transaction.
    const TRANSACTIONS: usize = 40;
    let events = mixture(TRANSACTIONS);
    let (slow, fast) = (world.org("slow").await, world.org("fast").await);
    for (number, event) in events.iter().enumerate() {
        apply(&slow, vec![batch(&format!("b{number}"), std::slice::from_ref(event))]).await;
        // One that brings nothing new changes nothing.
        apply(&slow, vec![batch(&format!("c{number}"), &[])]).await;
        apply(&fast, vec![batch(&format!("b{number}"), &events[..=number])]).await;
        if [14, 15, 16, 17, 32, 33, 34, 39].contains(&number) {
            let org = world.org(&format!("fresh-{number}")).await;
            apply(&org, vec![batch("b", &events[..=number])]).await;
            assert_eq!(all_cells(&slow).await, all_cells(&org).await, "after {number}");
            assert_eq!(all_cells(&fast).await, all_cells(&org).await, "after {number}");
        }
    }
    let total = &all_cells(&slow).await[0];
    let counted: i64 = total.iter().map(|cell| cell.measures.event_count).sum();
    assert_eq!(usize::try_from(counted).unwrap(), TRANSACTIONS);
    let sessions: i64 = total.iter().map(|cell| cell.measures.session_count).sum();
    assert_eq!(slow.ws("default").analytics().stats().await.unwrap().session_count, sessions);
}
