//! The search index is checked against the events: what is changed by hand is found, and what the server does is no fault.

use agentlens_store::{Org, RemovalOrder, RemovalReason};
use serde_json::Value;

use crate::batches::{DAY_US, NOW_US, batch, batch_at, mixture, note};
use crate::retention::{retain, with_retention};
use crate::world::{Workspaces, World, apply, apply_at};

on_both_engines!(
    changes_of_the_search_index_are_found,
    what_deletion_leaves_of_the_search_index_holds,
    what_retention_leaves_of_the_search_index_holds,
    an_index_without_text_holds,
    what_is_deleted_while_sums_are_counted_is_no_fault,
);

async fn faults(org: &Org, now_us: i64) -> Vec<String> {
    org.segments().verify(now_us).await.unwrap()
}

/// An org with two segments, and events behind them.
async fn indexed(world: &World, name: &str, with_text: bool) -> Org {
    let org = world.org(name).await;
    for (number, events) in mixture(9000).chunks(3000).enumerate() {
        apply(&org, vec![batch(&format!("b{number}"), events)]).await;
    }
    while org.segments().index_next(with_text).await.unwrap() {}
    assert_eq!(faults(&org, NOW_US).await, [""; 0]);
    org
}

async fn changes_of_the_search_index_are_found(world: World) {
    let org = indexed(&world, "acme", true).await;
    let differs = "differs from its events";
    let changes = [
        ("search_segments", "delete from search_segments where first_position = 1", "Event 1 is missing in the search index"),
        ("search_segments", "delete from search_segments", "Event 1 is missing in the search index"),
        ("search_segments", "update search_segments set max_ts_us = min_ts_us where first_position = 1", differs),
        ("search_segments", "update search_segments set max_expire_day = 1", differs),
        ("search_segments", "update search_segments set block_starts = '[1]' where first_position = 1", differs),
        ("search_segments", "update search_segments set block_starts = 'x' where first_position = 1", differs),
        ("search_segments", "update search_segments set last_position = 4095 where first_position = 1", differs),
        ("search_segments", "update search_segments set last_position = 5000 where first_position = 1", "twice"),
        ("search_segments", "update search_segments set has_text = not has_text where first_position = 1", differs),
        ("search_shards", "delete from search_shards where place = (select max(place) from search_shards)", differs),
        (
            "search_shards",
            "update search_shards set grams = (select grams from search_shards where place = (select min(place) from search_shards))
               where place = (select max(place) from search_shards)",
            differs,
        ),
        ("org_state", "update org_state set indexed_position = last_position", "is missing in the search index"),
        ("org_state", "update org_state set indexed_position = last_position + 9", "but only"),
        ("org_state", "update org_state set indexed_position = 4096", "but it holds events up to 8192"),
    ];
    for table in ["search_segments", "search_shards", "org_state"] {
        world.keep(&org, table).await;
    }
    for (table, change, part) in changes {
        assert!(world.by_hand(&org, change).await > 0, "{change}");
        let found = faults(&org, NOW_US).await;
        assert!(found.iter().any(|fault| fault.contains(part)), "{change}: {found:?}");
        world.by_owner(&org, &format!("delete from {table}")).await;
        world.by_owner(&org, &format!("insert into {table} select * from {}", world.kept(table))).await;
        assert_eq!(faults(&org, NOW_US).await, [""; 0], "after {change}");
    }
}

/// The index keeps what it said of events that are gone; of the others everything must still be there.
async fn what_deletion_leaves_of_the_search_index_holds(world: World) {
    let org = indexed(&world, "acme", true).await;
    let order =
        RemovalOrder { why: RemovalReason::Deletion, removed_by: "person:bob".to_owned(), now_us: NOW_US };
    let session = org.ws("default").sessions().find("s1").await.unwrap().unwrap();
    assert!(org.ws("default").sessions().remove(&session, &order).await.unwrap() > 1000);
    assert_eq!(faults(&org, NOW_US).await, [""; 0]);
    let order = RemovalOrder { why: RemovalReason::Erasure, ..order };
    assert!(org.ws("default").events().remove_of_user("u2", &order).await.unwrap() > 1000);
    assert_eq!(faults(&org, NOW_US).await, [""; 0]);
    let changes = [
        "update search_segments set max_ts_us = min_ts_us where first_position = 1",
        "delete from search_shards where place = (select max(place) from search_shards)",
    ];
    for change in changes {
        assert!(world.by_hand(&org, change).await > 0, "{change}");
    }
    assert_eq!(
        faults(&org, NOW_US).await,
        [
            "The search index of events 1 to 4096 differs from its events",
            "The search index of events 4097 to 8192 differs from its events"
        ]
    );
}

async fn what_retention_leaves_of_the_search_index_holds(world: World) {
    let org = with_retention(&world, "short").await;
    for day in 0..10 {
        let now_us = NOW_US + day * DAY_US;
        let events: Vec<Value> = (0..1500)
            .map(|number| note(&format!("e{day}-{number}"), &format!("s{}", number % 5), now_us + number))
            .collect();
        apply_at(&org, now_us, vec![batch_at(now_us, &format!("b{day}"), &events)]).await;
        while org.segments().index_next(true).await.unwrap() {}
        assert_eq!(faults(&org, now_us).await, [""; 0], "day {day}");
    }
    // The second segment ends on the sixth day: the first goes whole, the second in parts.
    for day in 10..18 {
        let now_us = NOW_US + day * DAY_US;
        // On PostgreSQL events stay after their segment, until all orgs have recorded what they lose.
        org.retention().delete_expired(now_us).await.unwrap();
        assert_eq!(faults(&org, now_us).await, [""; 0], "day {day}");
        retain(&world, &[&org], now_us).await;
        assert_eq!(faults(&org, now_us).await, [""; 0], "day {day}");
    }
}

async fn an_index_without_text_holds(world: World) {
    let org = indexed(&world, "acme", false).await;
    assert!(world.by_hand(&org, "update search_segments set has_text = not has_text").await > 0);
    assert_eq!(faults(&org, NOW_US).await.len(), 2);
}

async fn what_is_deleted_while_sums_are_counted_is_no_fault(world: World) {
    let org = indexed(&world, "acme", true).await;
    for user in ["u0", "u1", "u2", "u3"] {
        let workspace = org.ws("default");
        let order =
            RemovalOrder { why: RemovalReason::Erasure, removed_by: "person:bob".to_owned(), now_us: NOW_US };
        let (removed, sums) =
            tokio::join!(workspace.events().remove_of_user(user, &order), org.chains().verify_sums(NOW_US));
        assert!(removed.unwrap() > 1000);
        assert_eq!(sums.unwrap(), [""; 0], "{user}");
    }
    assert_eq!(org.chains().verify_sums(NOW_US).await.unwrap(), [""; 0]);
}
