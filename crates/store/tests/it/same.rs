//! Both engines make the same of the same batches: every row of every table, and every answer.

use agentlens_domain::rollups::{Dimension, Tier};
use agentlens_store::{EventFilter, Order, Org, SessionFilter};

use crate::batches::{NOW_US, batch, batch_of, mixture};
use crate::world::{Workspaces, World, apply, cell_queries};

#[test]
fn both_engines_store_the_same() {
    crate::world::run_postgres(|postgres| async move {
        let sqlite = World::sqlite().await;
        let (of_sqlite, of_postgres) = (fill(&sqlite).await, fill(&postgres).await);
        for (left, right) in of_sqlite.iter().zip(&of_postgres) {
            assert_eq!(left, right);
        }
        assert_eq!(of_sqlite.len(), of_postgres.len());
        assert!(of_sqlite.iter().all(|part| part.len() > 15), "nothing to compare");
    });
}

async fn fill(world: &World) -> Vec<String> {
    let org = world.org("acme").await;
    let events = mixture(300);
    for (number, chunk) in events.chunks(37).enumerate() {
        apply(&org, vec![batch(&format!("b{number}"), chunk)]).await;
    }
    // Repeats, clashes, several batches at once, another workspace.
    let mut clash = events[3].clone();
    clash["severity"] = "critical".into();
    let report = apply(
        &org,
        vec![
            batch("b0", &events[..37]),
            batch("again", &events[10..20]),
            batch("clash", &[clash, events[4].clone()]),
        ],
    )
    .await;
    let mut elsewhere = events[..20].to_vec();
    for event in &mut elsewhere {
        event["id"] = format!("other-{}", event["id"].as_str().unwrap()).into();
    }
    apply(&org, vec![batch_of("project", "other", &elsewhere)]).await;
    let mut parts = vec![format!("{:?}", report.batches)];
    parts.extend(dump(&org).await);
    parts
}

async fn dump(org: &Org) -> Vec<String> {
    let mut parts = vec![
        format!("{:#?}", org.ledger().counts().await.unwrap()),
        format!("{:#?}", org.chains().verify_all().await.unwrap()),
        format!(
            "{:?}",
            org.ws("default")
                .events()
                .key_digests((0..400).map(|number| format!("e{number}")).collect())
                .await
                .map(sorted)
        ),
    ];
    for workspace in ["default", "project"] {
        let filter = SessionFilter { now_us: NOW_US, ..SessionFilter::default() };
        parts.push(format!("{:#?}", org.ws(workspace).events().after(0, 10_000).await.unwrap()));
        parts.push(format!("{:?}", org.ws(workspace).sessions().ids(None, "", 1000).await.unwrap()));
        parts
            .push(format!("{:#?}", org.ws(workspace).sessions().list(&filter, None, 0, 1000).await.unwrap()));
        parts.push(format!("{:#?}", org.ws(workspace).agents().list(None, 1000).await.unwrap()));
        parts.push(format!(
            "{:#?}",
            org.ws(workspace).sessions().costliest((None, None), (0, i64::MAX), 100).await.unwrap()
        ));
        for query in cell_queries() {
            let (tier, dimension) = (query.tier, query.dimension);
            let cells = org.ws(workspace).analytics().cells(&query).await.unwrap();
            if tier == Tier::Day || dimension != Dimension::User {
                assert!(!cells.is_empty(), "{tier:?} {dimension:?}");
            }
            parts.push(format!("{tier:?} {dimension:?} {workspace} {cells:#?}"));
        }
        for order in [Order::Ascending, Order::Descending] {
            let filter = EventFilter {
                event_types: vec!["tool_call".to_owned(), "llm_response".to_owned()],
                severities: vec!["error".to_owned()],
                order,
                ..EventFilter::default()
            };
            parts.push(format!(
                "{:#?}",
                org.ws(workspace).events().list(&filter, None, 1, 1000).await.unwrap()
            ));
            parts.push(format!(
                "{:#?}",
                org.ws(workspace).events().search(&filter, Some("字"), None, 0, 1000).await.unwrap()
            ));
            parts.push(format!(
                "a number of events: {}",
                org.ws(workspace).events().count(&filter, 1000).await.unwrap()
            ));
        }
    }
    parts
}

fn sorted(mut digests: Vec<(String, [u8; 16])>) -> Vec<(String, [u8; 16])> {
    digests.sort();
    digests
}
