//! Retention: what is past its day goes, everything else stays.

use agentlens_domain::ids::OrgId;
use agentlens_domain::time::{day_of, day_start, format_rfc3339};
use agentlens_store::Tenant;
use serde_json::json;

use crate::batches::{DAY_US, NOW_US, batch, batch_at, note, real_now_us};
use crate::world::{World, apply, connect};

on_both_engines!(
    expired_days_go_and_others_stay,
    a_session_that_lives_on_keeps_its_chain,
    orgs_without_retention_keep_everything
);

/// An org that keeps events for 7 days.
async fn with_retention(world: &World, name: &str) -> Tenant {
    let org = OrgId::parse(name).unwrap();
    world.store.control().insert_org(&org, "Short", NOW_US).await.unwrap();
    world.store.control().set_retention(&org, Some(7)).await.unwrap();
    world.store.tenant(&org).await.unwrap()
}

/// What comes of an attempt, given the name of an org and the clock. PostgreSQL drops days by its own clock, so that nobody
/// can make it drop more: an attempt over which midnight passed proves nothing, and another org makes it once more.
async fn within_a_day<T>(attempt: &impl AsyncFn(&'static str, i64) -> T) -> T {
    let mut names = ["short", "short-again"].into_iter();
    loop {
        // No more: two days do not end in one test.
        let name = names.next().unwrap();
        let now_us = real_now_us();
        let outcome = Box::pin(attempt(name, now_us)).await;
        if day_of(real_now_us()) == day_of(now_us) {
            return outcome;
        }
    }
}

async fn ids(tenant: &Tenant) -> Vec<String> {
    tenant.events_after(0, 1000).await.unwrap().into_iter().map(|event| event.id).collect()
}

async fn expired_days_go_and_others_stay(world: World) {
    let (tenant, keeper) = within_a_day(&async |name: &'static str, now_us: i64| {
        let tenant = with_retention(&world, name).await;
        let keeper = world.org(&format!("{name}-keeper")).await;
        let aged = |days: i64| note(&format!("age-{days}"), &format!("s{days}"), now_us - days * DAY_US);
        let events: Vec<_> = [0, 6, 7, 8, 9, 20].into_iter().map(aged).collect();
        apply(&tenant, vec![batch_at(now_us, "b1", &events)]).await;
        apply(&keeper, vec![batch_at(now_us, "b1", &events)]).await;
        world.store.maintain_partitions(now_us).await.unwrap();
        tenant.delete_expired(now_us).await.unwrap();
        keeper.delete_expired(now_us).await.unwrap();
        (tenant, keeper)
    })
    .await;
    assert_eq!(ids(&tenant).await, ["age-8", "age-7", "age-6", "age-0"]);
    for (days, is_left) in [(0, true), (8, true), (9, false), (20, false)] {
        let session = tenant.find_session("default", &format!("s{days}")).await.unwrap();
        assert_eq!(session.is_some(), is_left, "{days}");
    }
    assert_eq!(ids(&keeper).await.len(), 6);
    for tenant in [&tenant, &keeper] {
        assert_eq!(tenant.verify_all(None, None).await.unwrap().broken, []);
    }
    let digests =
        tenant.event_key_digests("default", vec!["age-20".to_owned(), "age-0".to_owned()]).await.unwrap();
    assert_eq!(digests.len(), 1);
}

/// Its oldest events expire, and events that come later go on in its chain.
async fn a_session_that_lives_on_keeps_its_chain(world: World) {
    let event = |id: &str, us: i64| {
        json!({ "id": id, "sessionId": "s", "agentId": "a", "eventType": "custom", "timestamp": format_rfc3339(us),
            "payload": { "type": "t", "data": {} } })
    };
    let (tenant, now_us, left) = within_a_day(&async |name: &'static str, now_us: i64| {
        let tenant = with_retention(&world, name).await;
        // The middle of a day, and an event whose day ends with this one.
        let now_us = day_start(now_us) + DAY_US / 2;
        let near = batch_at(now_us, "b1", &[event("old", now_us - 8 * DAY_US - DAY_US / 24)]);
        apply(&tenant, vec![near]).await;
        world.store.maintain_partitions(now_us).await.unwrap();
        tenant.delete_expired(now_us).await.unwrap();
        let left = ids(&tenant).await;
        (tenant, now_us, left)
    })
    .await;
    assert_eq!(left, ["old"], "its day has not come");
    let next = batch_at(now_us, "b2", &[event("new", now_us)]);
    apply(&tenant, vec![next]).await;
    let session = tenant.find_session("default", "s").await.unwrap().unwrap();
    assert_eq!(session.last_seq, 2);
    assert_eq!(tenant.verify_session(&session).await.unwrap().broken, None);
    // Two days later the first is gone, and the rest of the chain holds.
    if world.store.is_embedded() {
        tenant.delete_expired(now_us + 2 * DAY_US).await.unwrap();
        assert_eq!(ids(&tenant).await, ["new"]);
        let session = tenant.find_session("default", "s").await.unwrap().unwrap();
        assert_eq!(tenant.verify_session(&session).await.unwrap().broken, None);
    }
}

async fn orgs_without_retention_keep_everything(world: World) {
    let tenant = world.org("keeper").await;
    apply(&tenant, vec![batch("b1", &[note("x", "s", NOW_US - 3000 * DAY_US)])]).await;
    world.store.maintain_partitions(real_now_us()).await.unwrap();
    tenant.delete_expired(real_now_us() + 1000 * DAY_US).await.unwrap();
    assert_eq!(ids(&tenant).await, ["x"]);
    assert!(tenant.find_session("default", "s").await.unwrap().is_some());
}

#[test]
fn partitions_are_made_ahead_and_dropped_when_over() {
    crate::world::run_postgres(|world| async move {
        let tenant = with_retention(&world, "short").await;
        let owner = connect(&world.database.as_ref().unwrap().owner_url).await;
        let now_us = real_now_us();
        let today = day_of(now_us);
        let (dropped, strays) = world.store.maintain_partitions(now_us).await.unwrap();
        assert_eq!((dropped, strays), (0, 0));
        let partitions = async || -> Vec<String> {
            let rows = owner
                .query("select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'tenant.events'::regclass", &[])
                .await
                .unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let ahead = partitions().await;
        for day in today + 1..=today + 8 {
            assert!(ahead.contains(&format!("events_{day}_{}", day + 1)), "{ahead:?}");
        }
        let old =
            batch_at(now_us, "b1", &[note("old", "s1", now_us - 20 * DAY_US), note("new", "s2", now_us)]);
        apply(&tenant, vec![old]).await;
        assert_eq!(ids(&tenant).await, ["old", "new"]);
        let (dropped, _) = world.store.maintain_partitions(now_us).await.unwrap();
        assert_eq!(dropped, 1);
        assert_eq!(ids(&tenant).await, ["new"]);
        let strays: i64 =
            owner.query_one("select count(*) from tenant.events_default", &[]).await.unwrap().get(0);
        assert_eq!(strays, 0);
    });
}
