//! Reads that no HTTP test reaches: long searches, indexing, lists of ids.

use agentlens_store::{EventFilter, Order, SessionFilter};
use serde_json::json;

use crate::batches::{NOW_US, batch, mixture, note};
use crate::world::{Workspaces, World, apply};

on_both_engines!(
    a_long_search_ends_and_finds_each_event_once,
    segments_are_built_when_enough_waits,
    lists_of_ids_go_on
);

/// More events than one search may read, in segments that all span the same time.
async fn a_long_search_ends_and_finds_each_event_once(world: World) {
    let org = world.org("acme").await;
    let (count, spread) = (57_000_i64, 9973);
    for from in (0..count).step_by(3000) {
        let events: Vec<_> = (from..from + 3000)
            .map(|number| {
                // Without ids of their own, as most events are.
                json!({ "sessionId": "s", "agentId": "a", "eventType": "custom",
                    "timestamp": agentlens_domain::time::format_rfc3339(NOW_US - (number * 7919 % spread) * 1_000_000),
                    "payload": { "type": "t", "data": { "n": if number % 1000 == 0 { "needle" } else { "hay" } } } })
            })
            .collect();
        apply(&org, vec![batch(&format!("b{from}"), &events)]).await;
    }
    while org.segments().index_next(true).await.unwrap() {}
    // Two bytes are too few for the index, so everything is read.
    for needle in ["ee", "needle"] {
        for order in [Order::Ascending, Order::Descending] {
            let filter = EventFilter { order, ..EventFilter::default() };
            let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = org
                    .ws("default")
                    .events()
                    .search(&filter, Some(needle), cursor.as_ref(), 0, 20)
                    .await
                    .unwrap();
                found.extend(page.events.into_iter().map(|event| (event.ts_us, event.id)));
                pages += 1;
                assert!(pages < 60, "the search does not end");
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            let mut sorted = found.clone();
            sorted.sort();
            sorted.dedup();
            if order == Order::Descending {
                sorted.reverse();
            }
            assert_eq!(found, sorted, "{needle} {order:?}");
            assert_eq!(found.len(), 57, "{needle} {order:?}");
        }
    }
}

async fn segments_are_built_when_enough_waits(world: World) {
    let org = world.org("acme").await;
    assert!(!org.segments().index_next(true).await.unwrap());
    let events = mixture(4095);
    for (number, chunk) in events.chunks(1000).enumerate() {
        apply(&org, vec![batch(&format!("b{number}"), chunk)]).await;
    }
    assert!(!org.segments().index_next(true).await.unwrap());
    let report = apply(&org, vec![batch("last", &[note("needle", "s", NOW_US)])]).await;
    assert_eq!((report.last_position, report.indexed_position), (4096, 0));
    assert!(org.segments().index_next(true).await.unwrap());
    assert!(!org.segments().index_next(true).await.unwrap());
    let filter = EventFilter::default();
    let page = org.ws("default").events().search(&filter, Some("of needle"), None, 0, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
    let report = apply(&org, vec![batch("more", &[note("x", "s", NOW_US)])]).await;
    assert_eq!(report.indexed_position, 4096);
}

async fn lists_of_ids_go_on(world: World) {
    let org = world.org("acme").await;
    apply(&org, vec![batch("b1", &mixture(70))]).await;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let ids = org.ws("default").sessions().ids(None, &after, 3).await.unwrap();
        let Some(last) = ids.last() else { break };
        after.clone_from(last);
        all.extend(ids);
    }
    assert_eq!(all, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    let filter = SessionFilter { now_us: NOW_US, ..SessionFilter::default() };
    assert_eq!(org.ws("default").sessions().count(&filter, 5).await.unwrap(), 5);
    assert_eq!(org.ws("default").sessions().count(&filter, 100).await.unwrap(), 7);
    assert_eq!(org.ws("default").agents().count().await.unwrap(), 2);
    assert!(org.ws("default").agents().find("a0").await.unwrap().is_some());
    assert!(org.ws("project").agents().find("a0").await.unwrap().is_none());
    let stats = org.ws("default").analytics().stats().await.unwrap();
    assert_eq!((stats.session_count, stats.storage_bytes > 0), (7, true));
    let session = org.ws("default").sessions().find("s1").await.unwrap().unwrap();
    assert_eq!(
        org.ws("default")
            .events()
            .of_session(&session, 2, 3)
            .await
            .unwrap()
            .iter()
            .map(|event| event.seq)
            .collect::<Vec<_>>(),
        [3, 4, 5]
    );
}
