//! Orgs, keys, people and settings.

use agentlens_domain::clock::Clock;
use agentlens_domain::ids::{KeyId, OrgId, UserId};
use agentlens_domain::permissions::{Caller, Role};
use agentlens_store::{FirstStart, NewKey, NewOrg, NewPerson, StoreError};

use crate::batches::NOW_US;
use crate::world::World;

on_both_engines!(
    orgs,
    keys,
    people_and_settings,
    an_org_and_its_key_are_made_together,
    one_of_many_first_starts_makes_both
);

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

/// Who acts in a test.
pub(crate) fn caller(name: &str) -> Caller {
    Caller::service("test", &org(name))
}

async fn orgs(world: World) {
    let clock = Clock::manual(7);
    let store = world.store.clone().with_clock(clock.clock());
    let control = store.control();
    control.ping().await.unwrap();
    assert!(control.list_orgs().await.unwrap().is_empty());
    control.ensure_org(&caller("b"), "B \"ü\"").await.unwrap();
    clock.advance(1);
    control.ensure_org(&caller("a"), "A").await.unwrap();
    control.ensure_org(&caller("a"), "another name").await.unwrap();
    let listed = control.list_orgs().await.unwrap();
    let names: Vec<_> =
        listed.iter().map(|row| (row.org_id.as_str(), row.name.as_str(), row.created_us)).collect();
    assert_eq!(names, [("a", "A", 8), ("b", "B \"ü\"", 7)]);
    control.set_retention(&caller("b"), Some(30)).await.unwrap();
    assert_eq!(control.find_org(&org("b")).await.unwrap().unwrap().retention_days, Some(30));
    control.set_retention(&caller("b"), None).await.unwrap();
    assert_eq!(control.find_org(&org("b")).await.unwrap().unwrap().retention_days, None);
    assert!(control.find_org(&org("c")).await.unwrap().is_none());
    assert!(matches!(control.set_retention(&caller("c"), None).await, Err(StoreError::NotFound)));
    assert!(matches!(world.store.org(&org("c")).await, Err(StoreError::NotFound)));
    assert_eq!(world.store.is_embedded(), world.database.is_none());
}

/// Far away.
const EXPIRES_US: i64 = i64::MAX / 2;

pub(crate) fn key(id: &str, digest: u8) -> NewKey {
    NewKey {
        key_id: KeyId::parse(id).unwrap(),
        digest: [digest; 32],
        shown_prefix: "al_live_abcd".to_owned(),
        name: "n".to_owned(),
        workspace_id: "default".to_owned(),
        environment: "staging".to_owned(),
        is_environment_bound: false,
        scopes: "events:read events:write".to_owned(),
        expires_us: Some(EXPIRES_US),
        rate_per_minute: None,
        allowed_networks: String::new(),
    }
}

async fn keys(world: World) {
    let clock = Clock::manual(NOW_US);
    let store = world.store.clone().with_clock(clock.clock());
    let control = store.control();
    control.ensure_org(&caller("a"), "A").await.unwrap();
    control.insert_key(&caller("a"), key("key_1", 1), None).await.unwrap();
    clock.advance(1);
    control.insert_key(&caller("a"), key("key_2", 2), None).await.unwrap();
    assert!(matches!(
        control.insert_key(&caller("a"), key("key_3", 1), None).await,
        Err(StoreError::Exists(_))
    ));
    assert!(matches!(
        control.insert_key(&caller("x"), key("key_4", 4), None).await,
        Err(StoreError::NotFound)
    ));
    let found = control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap();
    assert_eq!(
        (found.org_id.as_str(), found.key_id.as_str(), found.environment.as_str()),
        ("a", "key_1", "staging")
    );
    assert_eq!((found.expires_us, found.revoked_us, found.last_used_us), (Some(EXPIRES_US), None, None));
    assert!(control.find_key_by_digest(&[9; 32]).await.unwrap().is_none());
    let listed = control.list_keys(&org("a")).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.key_id.as_str()).collect::<Vec<_>>(), ["key_2", "key_1"]);

    let first = KeyId::parse("key_1").unwrap();
    control.touch_keys(vec![(org("a"), first.clone(), 70), (org("x"), first.clone(), 71)]).await.unwrap();
    control.touch_keys(vec![(org("a"), first.clone(), 60)]).await.unwrap();
    control.touch_keys(Vec::new()).await.unwrap();
    assert_eq!(control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap().last_used_us, Some(70));

    assert!(matches!(control.revoke_key(&caller("x"), &first).await, Err(StoreError::NotFound)));
    control.revoke_key(&caller("a"), &first).await.unwrap();
    assert!(matches!(control.revoke_key(&caller("a"), &first).await, Err(StoreError::NotFound)));
    let revoked = control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap().revoked_us;
    assert_eq!(revoked, Some(NOW_US + 1));
}

/// A person with an address.
pub(crate) fn person(id: &str, email: &str) -> NewPerson {
    NewPerson {
        user_id: UserId::parse(id).unwrap(),
        email: email.to_owned(),
        email_key: email.to_owned(),
        name: String::new(),
        password_hash: Some("hash".to_owned()),
        terms_version: None,
    }
}

async fn people_and_settings(world: World) {
    let control = world.store.control();
    control.ensure_org(&caller("a"), "A").await.unwrap();
    assert_eq!(control.count_users().await.unwrap(), 0);
    control.create_member(&caller("a"), person("user_1", "a@b"), Role::Owner).await.unwrap();
    let again = control.create_member(&caller("a"), person("user_2", "a@b"), Role::Owner).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    assert_eq!(control.count_users().await.unwrap(), 1);
    assert_eq!(control.find_setting("x").await.unwrap(), None);
    assert_eq!(control.ensure_setting("x", "first").await.unwrap(), "first");
    assert_eq!(control.ensure_setting("x", "second").await.unwrap(), "first");
    assert_eq!(control.find_setting("x").await.unwrap().as_deref(), Some("first"));
}

async fn an_org_and_its_key_are_made_together(world: World) {
    let control = world.store.control();
    let new = || NewOrg { name: "Acme".to_owned(), retention_days: Some(30) };
    control.create_org(&caller("a"), new(), Some(key("key_1", 1))).await.unwrap();
    assert_eq!(control.find_org(&org("a")).await.unwrap().unwrap().retention_days, Some(30));
    assert_eq!(control.list_keys(&org("a")).await.unwrap().len(), 1);
    // The digest is taken, so the key can't be stored: then there is no org either.
    assert!(control.create_org(&caller("b"), new(), Some(key("key_2", 1))).await.is_err());
    assert!(control.find_org(&org("b")).await.unwrap().is_none());
    assert!(matches!(control.create_org(&caller("a"), new(), None).await, Err(StoreError::Exists(_))));
    assert_eq!(control.find_orgs_named("Acme").await.unwrap().len(), 1);
    assert!(control.find_orgs_named("acme").await.unwrap().is_empty());
}

async fn one_of_many_first_starts_makes_both(world: World) {
    let control = world.store.control();
    control.ensure_org(&caller("a"), "A").await.unwrap();
    assert!(!control.is_started().await.unwrap());
    let mut starts = Vec::new();
    for number in 0..4_u8 {
        let control = control.clone();
        starts.push(tokio::spawn(async move {
            let login = person(&format!("user_{number}"), "a@b");
            let key = key(&format!("key_{number}"), number);
            control.first_start(&caller("a"), Some(key), login).await.unwrap()
        }));
    }
    let mut made = Vec::new();
    for start in starts {
        made.push(start.await.unwrap());
    }
    let (both, neither) = (FirstStart { has_key: true, has_login: true }, FirstStart::default());
    assert_eq!(made.iter().filter(|start| **start == both).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|start| **start == neither).count(), 3, "{made:?}");
    assert!(control.is_started().await.unwrap());
    assert_eq!(
        (control.list_keys(&org("a")).await.unwrap().len(), control.count_users().await.unwrap()),
        (1, 1)
    );
}
