//! Leases and runs of jobs.

use agentlens_domain::ids::OrgId;
use agentlens_store::RunResult;

use crate::batches::NOW_US;
use crate::world::World;

on_both_engines!(a_lease_has_one_holder, orgs_are_due_one_by_one);

async fn a_lease_has_one_holder(world: World) {
    let control = world.store.control();
    assert!(control.take_lease("job/x", "one", 100, 200).await.unwrap());
    assert!(!control.take_lease("job/x", "two", 150, 250).await.unwrap());
    assert!(control.take_lease("job/y", "two", 150, 250).await.unwrap());
    assert!(control.take_lease("job/x", "one", 190, 290).await.unwrap(), "renewed");
    assert!(!control.take_lease("job/x", "two", 289, 400).await.unwrap());
    assert_eq!(control.find_lease("job/x", 289).await.unwrap().as_deref(), Some("one"));
    assert!(control.take_lease("job/x", "two", 290, 400).await.unwrap(), "run out");
    assert!(!control.take_lease("job/x", "one", 291, 400).await.unwrap());
    control.drop_lease("job/x", "one").await.unwrap();
    assert_eq!(control.find_lease("job/x", 300).await.unwrap().as_deref(), Some("two"));
    control.drop_lease("job/x", "two").await.unwrap();
    assert!(control.take_lease("job/x", "one", 301, 400).await.unwrap(), "given back");
}

async fn orgs_are_due_one_by_one(world: World) {
    let control = world.store.control();
    for name in ["a", "b", "c"] {
        world.org(name).await;
    }
    world.control_by_hand("c", "update orgs set priority = 1 where org_id = 'c'").await;
    let due = |now_us: i64| async move {
        let due = control.due_orgs("x", now_us, 10).await.unwrap();
        due.into_iter().map(|due| due.org.unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(due(NOW_US).await, ["c", "a", "b"]);
    let note = |org: &'static str, due_us: i64, error: Option<&str>| {
        let error = error.map(str::to_owned);
        async move {
            let org = OrgId::parse(org).unwrap();
            let result = RunResult { org: Some(&org), began_us: NOW_US, due_us, error };
            control.note_run("x", &result).await.unwrap();
        }
    };
    note("c", NOW_US + 10, None).await;
    note("b", NOW_US + 5, Some("no")).await;
    assert_eq!(due(NOW_US).await, ["a"], "the rest goes on where a run ended");
    note("a", NOW_US + 10, None).await;
    assert_eq!(due(NOW_US + 4).await, Vec::<String>::new());
    assert_eq!(due(NOW_US + 5).await, ["b"]);
    let failed = control.due_orgs("x", NOW_US + 5, 10).await.unwrap().remove(0);
    assert_eq!((failed.failures, failed.since_us), (1, None));
    let summary = control.job_summary("x").await.unwrap();
    assert_eq!((summary.orgs, summary.failing, summary.last_error.as_deref()), (3, 1, Some("no")));
    note("b", NOW_US + 10, None).await;
    assert_eq!(due(NOW_US + 10).await, ["c", "a", "b"]);
    assert_eq!(control.due_orgs("x", NOW_US + 10, 10).await.unwrap()[0].since_us, Some(NOW_US));

    let server = RunResult { org: None, began_us: NOW_US, due_us: NOW_US + 10, error: None };
    assert!(control.due_server_run("y", NOW_US).await.unwrap().is_some());
    control.note_run("y", &server).await.unwrap();
    assert!(control.due_server_run("y", NOW_US).await.unwrap().is_none());
    assert_eq!(control.due_server_run("y", NOW_US + 10).await.unwrap().unwrap().since_us, Some(NOW_US));
}
