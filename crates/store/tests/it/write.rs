//! The door for changes: audit log, outbox, change feed, and what is left when something fails in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agentlens_domain::changes::Topic;
use agentlens_domain::clock::Clock;
use agentlens_domain::cost::{PriceSpec, RatesSpec};
use agentlens_domain::ids::{KeyId, OrgId, WorkspaceId};
use agentlens_domain::permissions::{Caller, Origin};
use agentlens_store::{Change, News, Org, Store, StoreError, Target, Targets};

use crate::batches::NOW_US;
use crate::control::{caller, key};
use crate::world::World;

on_both_engines!(
    every_change_is_in_the_audit_log,
    a_failed_change_leaves_nothing,
    tampering_with_the_audit_log_is_found,
    a_cut_audit_log_stays_found_after_further_changes,
    an_emptied_audit_log_is_found,
    changes_reach_other_nodes,
    a_change_whose_process_died_is_delivered,
    failing_deliveries_pause_and_end_as_dead_letters,
    a_caller_of_another_org_changes_nothing,
    keys_made_at_once_stay_within_the_limit,
);

fn price(input: &str) -> PriceSpec {
    let rates = RatesSpec { input: input.to_owned(), output: "2".to_owned(), ..RatesSpec::default() };
    PriceSpec { model: "m".to_owned(), rates, ..PriceSpec::default() }
}

async fn acts(org: &Org) -> Vec<(String, String)> {
    let rows = org.audit().list(100).await.unwrap();
    let mut acts: Vec<_> = rows.into_iter().map(|row| (row.act, row.target)).collect();
    acts.sort();
    acts
}

async fn every_change_is_in_the_audit_log(world: World) {
    let org = world.org("a").await;
    let control = world.store.control();
    control.ensure_org(&caller("a"), "again").await.unwrap();
    control.insert_key(&caller("a"), key("key_1", 1), None).await.unwrap();
    control.revoke_key(&caller("a"), &KeyId::parse("key_1").unwrap()).await.unwrap();
    control.set_retention(&caller("a"), Some(9)).await.unwrap();
    org.prices().set(&caller("a"), &price("1"), 0).await.unwrap();
    let origin = Origin { address: Some("192.0.2.1".to_owned()), ..Origin::default() };
    let workspace = Some(WorkspaceId::default_workspace());
    let from_elsewhere = Caller { origin, workspace, ..caller("a") };
    org.prices().set(&from_elsewhere, &price("3"), 0).await.unwrap();
    let expected = [
        ("keys.create", "key_1"),
        ("keys.revoke", "key_1"),
        ("orgs.create", "a"),
        ("orgs.set_retention", "a"),
        ("prices.set", "m"),
        ("prices.set", "m"),
    ];
    assert_eq!(acts(&org).await, expected.map(|(act, target)| (act.to_owned(), target.to_owned())));
    let rows = org.audit().list(100).await.unwrap();
    let last = rows.iter().filter(|row| row.act == "prices.set").max_by_key(|row| row.seq).unwrap();
    assert_eq!(last.actor, "service:test");
    assert_eq!(last.workspace.as_deref(), Some("default"));
    assert_eq!(last.origin, r#"{"address":"192.0.2.1"}"#);
    let first = rows.iter().find(|row| row.act == "orgs.create").unwrap();
    assert_eq!((first.workspace.as_deref(), first.origin.as_str()), (None, "{}"));
    let details: serde_json::Value = serde_json::from_str(&last.details).unwrap();
    assert_eq!((&details["before"]["input"], &details["after"]["input"]), (&"1".into(), &"3".into()));
    let report = org.audit().verify().await.unwrap();
    assert_eq!((report.entries, report.broken), (6, Vec::new()));
    // No secret gets in.
    assert!(rows.iter().all(|row| !row.details.contains("digest")));
    // Another org has a log of its own.
    assert_eq!(acts(&world.org("b").await).await, [("orgs.create".to_owned(), "b".to_owned())]);
}

async fn a_failed_change_leaves_nothing(world: World) {
    let org = world.org("a").await;
    let control = world.store.control();
    control.insert_key(&caller("a"), key("key_1", 1), None).await.unwrap();
    let before = (org.audit().list(100).await.unwrap(), world.store.read_changes().await.unwrap());
    assert!(matches!(before.1, News::Anything));
    let again = control.insert_key(&caller("a"), key("key_2", 1), None).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    assert!(control.revoke_key(&caller("a"), &KeyId::parse("key_9").unwrap()).await.is_err());
    assert!(matches!(control.set_retention(&caller("x"), None).await, Err(StoreError::NotFound)));
    control.ensure_org(&caller("a"), "A").await.unwrap();
    assert_eq!(org.audit().list(100).await.unwrap(), before.0);
    assert_eq!(world.store.read_changes().await.unwrap(), News::Changes(Vec::new()));
}

async fn tampering_with_the_audit_log_is_found(world: World) {
    let statements = [
        "update audit_log set actor = 'service:nobody' where seq = 2 and org_id = '",
        "update audit_log set details = '{}' where seq = 2 and org_id = '",
        "delete from audit_log where seq = 2 and org_id = '",
        "delete from audit_log where seq = 3 and org_id = '",
        "delete from audit_log where org_id = '",
        "update audit_heads set last_seq = 2 where org_id = '",
        "delete from audit_heads where org_id = '",
    ];
    for (number, statement) in statements.into_iter().enumerate() {
        let name = format!("org{number}");
        let org = world.org(&name).await;
        for input in ["1", "2", "3"] {
            org.prices().set(&caller(&name), &price(input), 0).await.unwrap();
        }
        assert!(org.audit().verify().await.unwrap().broken.is_empty());
        assert!(world.by_owner(&org, &format!("{statement}{name}'")).await > 0, "{statement}");
        let report = org.audit().verify().await.unwrap();
        assert_eq!(report.broken.len(), 1, "{statement}: {report:?}");
    }
}

async fn a_cut_audit_log_stays_found_after_further_changes(world: World) {
    let org = world.org("a").await;
    for input in ["1", "2", "3"] {
        org.prices().set(&caller("a"), &price(input), 0).await.unwrap();
    }
    // The last entry is removed and the head set back to the entry before, by someone without the secret.
    world.by_owner(&org, "delete from audit_log where org_id = 'a' and seq = 3").await;
    let back = "update audit_heads set last_seq = 2,
      last_seal = (select seal from audit_log where org_id = 'a' and seq = 2) where org_id = 'a'";
    world.by_owner(&org, back).await;
    assert!(!org.audit().verify().await.unwrap().broken.is_empty());
    org.prices().set(&caller("a"), &price("4"), 0).await.unwrap();
    assert!(!org.audit().verify().await.unwrap().broken.is_empty(), "the next change covered the cut");
}

/// Bug: a log of which nothing was left looked like one that nothing had been written to.
async fn an_emptied_audit_log_is_found(world: World) {
    let org = world.org("a").await;
    assert_eq!(org.audit().verify().await.unwrap().broken, [""; 0]);
    for input in ["1", "2", "3"] {
        org.prices().set(&caller("a"), &price(input), 0).await.unwrap();
    }
    for table in ["audit_log", "audit_heads"] {
        assert!(world.by_owner(&org, &format!("delete from {table} where org_id = 'a'")).await > 0);
    }
    let expected = ["org/a: there are 0 entries, but 3 were written"];
    assert_eq!(org.audit().verify().await.unwrap().broken, expected);
    // Entries that follow do not hide it, and the number can't be changed to fit.
    org.prices().set(&caller("a"), &price("4"), 0).await.unwrap();
    assert_eq!(
        org.audit().verify().await.unwrap().broken,
        ["org/a: there are 1 entries, but 4 were written"]
    );
    assert_eq!(org.chains().verify_all().await.unwrap().broken, []);
    assert_eq!(world.by_hand(&org, "update org_state set audit_seq = 1").await, 1);
    let broken = org.chains().verify_all().await.unwrap().broken;
    assert_eq!(broken[0].reason, "The counters of the org were changed: their seal does not match");
}

fn change(org: &str, topic: Topic) -> Change {
    Change { org: OrgId::parse(org).unwrap(), topic: Some(topic) }
}

async fn changes_reach_other_nodes(world: World) {
    let (a, _) = (world.org("a").await, world.org("b").await);
    let other: Store = world.reopened().await;
    assert!(!other.is_trusted());
    assert_eq!(other.read_changes().await.unwrap(), News::Anything);
    assert!(other.is_trusted());
    assert_eq!(other.read_changes().await.unwrap(), News::Changes(Vec::new()));
    assert_eq!(other.org(a.id()).await.unwrap().retention_days(), None);

    let control = world.store.control();
    control.set_retention(&caller("a"), Some(30)).await.unwrap();
    a.prices().set(&caller("a"), &price("1"), 0).await.unwrap();
    control.insert_key(&caller("b"), key("key_1", 1), None).await.unwrap();
    // What was cached is in force until the feed is read, and not after it.
    assert_eq!(other.org(a.id()).await.unwrap().retention_days(), None);
    let expected = [change("a", Topic::Org), change("a", Topic::Prices), change("b", Topic::Keys)];
    assert_eq!(other.read_changes().await.unwrap(), News::Changes(expected.to_vec()));
    assert_eq!(other.org(a.id()).await.unwrap().retention_days(), Some(30));
    assert_eq!(other.read_changes().await.unwrap(), News::Changes(Vec::new()));

    // A node that slept while the feed was trimmed drops everything.
    control.set_retention(&caller("a"), Some(31)).await.unwrap();
    let trimmed = control.trim_changes(i64::MAX).await.unwrap();
    assert!(trimmed >= 4, "{trimmed}");
    assert_eq!(other.read_changes().await.unwrap(), News::Anything);
    assert_eq!(other.org(a.id()).await.unwrap().retention_days(), Some(31));
}

async fn a_change_whose_process_died_is_delivered(world: World) {
    let org = world.org("a").await;
    world.store.read_changes().await.unwrap();
    org.prices().set(&caller("a"), &price("1"), 0).await.unwrap();
    let now_us = world.store.clock().now_us();
    assert_eq!(world.store.deliver_outboxes(now_us + 60_000_000).await.unwrap(), 0, "nothing is left");
    world.store.read_changes().await.unwrap();

    // A process that died between the two commits leaves the intent and the message.
    world.store.control().note_intent(org.id(), now_us).await.unwrap();
    let message = format!(
        "insert into outbox (org_id, message_id, kind, body, created_us, due_us, attempts)
         values ('a', 'm1', 'change', 'prices', {now_us}, {now_us}, 0)"
    );
    world.by_hand(&org, &message).await;
    // Whoever is writing now is left alone.
    assert_eq!(world.store.deliver_outboxes(now_us + 1_000).await.unwrap(), 0);
    assert_eq!(world.store.deliver_outboxes(now_us + 60_000_000).await.unwrap(), 1);
    let delivered = world.store.read_changes().await.unwrap();
    assert_eq!(delivered, News::Changes(vec![change("a", Topic::Prices)]));
    assert_eq!(world.store.deliver_outboxes(now_us + 61_000_000).await.unwrap(), 0);
}

/// Fails until it is mended.
struct Broken(AtomicBool);

#[async_trait::async_trait]
impl Target for Broken {
    fn kind(&self) -> &'static str {
        "mail"
    }

    async fn deliver(&self, _: &OrgId, body: &str) -> Result<(), StoreError> {
        assert_eq!(body, "hello");
        if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err(StoreError::Unavailable("down".to_owned())) }
    }
}

async fn failing_deliveries_pause_and_end_as_dead_letters(world: World) {
    let org = world.org("a").await;
    let insert = format!(
        "insert into outbox (org_id, message_id, kind, body, created_us, due_us, attempts)
         values ('a', 'm1', 'mail', 'hello', {NOW_US}, {NOW_US}, 0)"
    );
    world.by_hand(&org, &insert).await;
    let target = Arc::new(Broken(AtomicBool::new(false)));
    let targets = Targets::new(vec![Arc::clone(&target) as Arc<dyn Target>]);
    let clock = Clock::manual(NOW_US);
    let mut tries = 0;
    while org.outbox().list_dead(10).await.unwrap().is_empty() {
        assert_eq!(
            org.outbox().deliver(&targets, clock.now_us()).await.unwrap().waiting,
            i64::from(tries < 11)
        );
        // At once again, nothing is due.
        org.outbox().deliver(&targets, clock.now_us()).await.unwrap();
        tries += 1;
        clock.advance(3_600_000_000);
    }
    assert_eq!(tries, 12);
    let dead = org.outbox().list_dead(10).await.unwrap();
    assert_eq!(
        (dead[0].attempts, dead[0].last_error.as_deref()),
        (12, Some("the store is unavailable: down"))
    );
    target.0.store(true, Ordering::Relaxed);
    org.outbox().retry_dead("m1", clock.now_us()).await.unwrap();
    assert!(org.outbox().retry_dead("m1", clock.now_us()).await.is_err(), "it waits already");
    assert_eq!(org.outbox().deliver(&targets, clock.now_us()).await.unwrap().delivered, 1);
    assert!(org.outbox().list_dead(10).await.unwrap().is_empty());
}

async fn a_caller_of_another_org_changes_nothing(world: World) {
    let (a, b) = (world.org("a").await, world.org("b").await);
    assert!(a.prices().set(&caller("b"), &price("1"), 0).await.is_err());
    assert!(a.prices().list().await.unwrap().is_empty() && b.prices().list().await.unwrap().is_empty());
    let control = world.store.control();
    control.insert_key(&caller("a"), key("key_1", 1), None).await.unwrap();
    assert!(control.revoke_key(&caller("b"), &KeyId::parse("key_1").unwrap()).await.is_err());
    assert_eq!(control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap().revoked_us, None);
}

async fn keys_made_at_once_stay_within_the_limit(world: World) {
    world.org("a").await;
    let control = world.store.control().clone();
    let fill = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 998)
      insert into api_keys (org_id, key_id, digest, shown_prefix, workspace_id, environment, scopes, created_us)";
    let fill = if world.database.is_some() {
        "insert into api_keys (org_id, key_id, digest, shown_prefix, workspace_id, environment, scopes, created_us)
         select 'a', 'k' || i, sha256(i::text::bytea), 'x', 'default', 'production', '*', 1 from generate_series(1, 998) i"
            .to_owned()
    } else {
        format!(
            "{fill} select 'a', 'k' || i, cast('d' || i as blob), 'x', 'default', 'production', '*', 1 from n"
        )
    };
    world.control_by_hand("a", &fill).await;
    let mut tasks = Vec::new();
    for number in 0..8u8 {
        let control = control.clone();
        tasks.push(tokio::spawn(async move {
            control.insert_key(&caller("a"), key(&format!("key_{number}"), number), None).await
        }));
    }
    let (mut made, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => made += 1,
            Err(StoreError::LimitReached(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((made, refused), (2, 6));
}
