//! The last requests of OpenTelemetry clients: a bounded list of each key.

use agentlens_domain::page::Cursor;
use agentlens_store::{IngestRequestRow, MAX_REQUESTS_PER_KEY};

use crate::world::{Workspaces, World};

on_both_engines!(
    a_request_is_read_as_it_was_written,
    the_newest_of_a_key_are_kept,
    lists_go_on_and_keep_to_workspace_and_key
);

/// The request of a number; its id grows with it.
pub(crate) fn request(key: &str, number: u32) -> IngestRequestRow {
    IngestRequestRow {
        request_id: format!("01M820B9FBT0KFFW7RC9{number:06}"),
        key_id: key.to_owned(),
        received_us: i64::from(number),
        signal: "traces".to_owned(),
        user_agent: Some("OTel".to_owned()),
        item_count: 5,
        refused_count: 2,
        report: r#"{"reasons":["a\u0000b"]}"#.to_owned(),
    }
}

async fn a_request_is_read_as_it_was_written(world: World) {
    let org = world.org("acme").await;
    let nameless = IngestRequestRow { user_agent: None, ..request("k", 2) };
    for row in [&request("k", 1), &nameless, &request("k", 1)] {
        org.ws("default").ingest_requests().insert(row).await.unwrap();
    }
    let rows = org.ws("default").ingest_requests().list(None, None, 10).await.unwrap();
    assert_eq!(rows, [nameless, request("k", 1)]);
    let other = world.org("other").await;
    assert!(other.ws("default").ingest_requests().list(None, None, 10).await.unwrap().is_empty());
}

async fn the_newest_of_a_key_are_kept(world: World) {
    let org = world.org("acme").await;
    org.ws("default").ingest_requests().insert(&request("quiet", 0)).await.unwrap();
    for number in 1..=MAX_REQUESTS_PER_KEY + 30 {
        org.ws("default").ingest_requests().insert(&request("k", number)).await.unwrap();
    }
    let rows = org.ws("default").ingest_requests().list(None, None, 1000).await.unwrap();
    let (of_key, of_quiet): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.key_id == "k");
    assert_eq!((of_key.len(), of_quiet.len()), (MAX_REQUESTS_PER_KEY as usize, 1));
    assert_eq!(of_key.iter().map(|row| row.received_us).min(), Some(31));
}

async fn lists_go_on_and_keep_to_workspace_and_key(world: World) {
    let org = world.org("acme").await;
    for number in 0..9 {
        let row = request(["a", "b"][number as usize % 2], number);
        org.ws("default").ingest_requests().insert(&row).await.unwrap();
    }
    let elsewhere = request("a", 100);
    org.ws("project").ingest_requests().insert(&elsewhere).await.unwrap();
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let rows = org.ws("default").ingest_requests().list(Some("a"), before.as_ref(), 2).await.unwrap();
        let Some(last) = rows.last() else { break };
        before = Some(Cursor { value: last.received_us, id: last.request_id.clone() });
        numbers.extend(rows.iter().map(|row| row.received_us));
    }
    assert_eq!(numbers, [8, 6, 4, 2, 0]);
    assert_eq!(org.ws("default").ingest_requests().list(None, None, 100).await.unwrap().len(), 9);
    assert_eq!(org.ws("project").ingest_requests().list(None, None, 100).await.unwrap(), [elsewhere]);
}
