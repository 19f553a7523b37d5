//! Orgs, keys, people and settings.

use agentlens_domain::ids::{KeyId, OrgId, UserId};
use agentlens_store::{FirstStart, NewKey, NewLogin, NewOrg, StoreError};

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

async fn orgs(world: World) {
    let control = world.store.control();
    control.ping().await.unwrap();
    assert!(control.list_orgs().await.unwrap().is_empty());
    control.insert_org(&org("b"), "B \"ü\"", 7).await.unwrap();
    control.ensure_org(&org("a"), "A", 8).await.unwrap();
    control.ensure_org(&org("a"), "another name", 9).await.unwrap();
    assert!(matches!(control.insert_org(&org("b"), "B", 9).await, Err(StoreError::Exists(_))));
    let listed = control.list_orgs().await.unwrap();
    let names: Vec<_> =
        listed.iter().map(|row| (row.org_id.as_str(), row.name.as_str(), row.created_us)).collect();
    assert_eq!(names, [("a", "A", 8), ("b", "B \"ü\"", 7)]);
    control.set_retention(&org("b"), Some(30)).await.unwrap();
    assert_eq!(control.find_org(&org("b")).await.unwrap().unwrap().retention_days, Some(30));
    control.set_retention(&org("b"), None).await.unwrap();
    assert_eq!(control.find_org(&org("b")).await.unwrap().unwrap().retention_days, None);
    assert!(control.find_org(&org("c")).await.unwrap().is_none());
    assert!(matches!(control.set_retention(&org("c"), None).await, Err(StoreError::NotFound)));
    assert!(matches!(world.store.tenant(&org("c")).await, Err(StoreError::NotFound)));
    assert_eq!(world.store.is_embedded(), world.database.is_none());
}

fn key(id: &str, digest: u8) -> NewKey {
    NewKey {
        key_id: KeyId::parse(id).unwrap(),
        digest: [digest; 32],
        shown_prefix: "al_live_abcd".to_owned(),
        name: "n".to_owned(),
        workspace_id: "default".to_owned(),
        environment: "staging".to_owned(),
        scopes: "events:read events:write".to_owned(),
        expires_us: Some(99),
    }
}

async fn keys(world: World) {
    let control = world.store.control();
    control.insert_org(&org("a"), "A", 1).await.unwrap();
    let before = control.keys_version().await.unwrap();
    control.insert_key(&org("a"), &key("key_1", 1), 5).await.unwrap();
    control.insert_key(&org("a"), &key("key_2", 2), 6).await.unwrap();
    assert!(control.keys_version().await.unwrap() > before);
    assert!(matches!(control.insert_key(&org("a"), &key("key_3", 1), 5).await, Err(StoreError::Exists(_))));
    assert!(matches!(control.insert_key(&org("x"), &key("key_4", 4), 5).await, Err(StoreError::NotFound)));
    let found = control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap();
    assert_eq!(
        (found.org_id.as_str(), found.key_id.as_str(), found.environment.as_str()),
        ("a", "key_1", "staging")
    );
    assert_eq!((found.expires_us, found.revoked_us, found.last_used_us), (Some(99), None, None));
    assert!(control.find_key_by_digest(&[9; 32]).await.unwrap().is_none());
    let listed = control.list_keys(&org("a")).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.key_id.as_str()).collect::<Vec<_>>(), ["key_2", "key_1"]);

    let first = KeyId::parse("key_1").unwrap();
    control.touch_keys(vec![(org("a"), first.clone(), 70), (org("x"), first.clone(), 71)]).await.unwrap();
    control.touch_keys(vec![(org("a"), first.clone(), 60)]).await.unwrap();
    control.touch_keys(Vec::new()).await.unwrap();
    assert_eq!(control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap().last_used_us, Some(70));

    let before = control.keys_version().await.unwrap();
    assert!(matches!(control.revoke_key(&org("x"), &first, 80).await, Err(StoreError::NotFound)));
    control.revoke_key(&org("a"), &first, 80).await.unwrap();
    assert!(control.keys_version().await.unwrap() > before);
    assert!(matches!(control.revoke_key(&org("a"), &first, 81).await, Err(StoreError::NotFound)));
    assert_eq!(control.find_key_by_digest(&[1; 32]).await.unwrap().unwrap().revoked_us, Some(80));
}

async fn people_and_settings(world: World) {
    let control = world.store.control();
    control.insert_org(&org("a"), "A", 1).await.unwrap();
    assert_eq!(control.count_users().await.unwrap(), 0);
    let user = UserId::parse("user_1").unwrap();
    control.insert_owner(&org("a"), &user, "a@b", "hash", NOW_US).await.unwrap();
    let again =
        control.insert_owner(&org("a"), &UserId::parse("user_2").unwrap(), "a@b", "hash", NOW_US).await;
    assert!(matches!(again, Err(StoreError::Exists(_))));
    assert_eq!(control.count_users().await.unwrap(), 1);
    assert_eq!(control.find_setting("x").await.unwrap(), None);
    assert_eq!(control.ensure_setting("x", "first").await.unwrap(), "first");
    assert_eq!(control.ensure_setting("x", "second").await.unwrap(), "first");
    assert_eq!(control.find_setting("x").await.unwrap().as_deref(), Some("first"));
}

async fn an_org_and_its_key_are_made_together(world: World) {
    let control = world.store.control();
    let new = |id: &str| NewOrg { org_id: org(id), name: "Acme".to_owned(), retention_days: Some(30) };
    control.create_org(&new("a"), Some(&key("key_1", 1)), 5).await.unwrap();
    assert_eq!(control.find_org(&org("a")).await.unwrap().unwrap().retention_days, Some(30));
    assert_eq!(control.list_keys(&org("a")).await.unwrap().len(), 1);
    // The digest is taken, so the key can't be stored: then there is no org either.
    assert!(control.create_org(&new("b"), Some(&key("key_2", 1)), 6).await.is_err());
    assert!(control.find_org(&org("b")).await.unwrap().is_none());
    assert!(matches!(control.create_org(&new("a"), None, 7).await, Err(StoreError::Exists(_))));
    assert_eq!(control.find_orgs_named("Acme").await.unwrap().len(), 1);
    assert!(control.find_orgs_named("acme").await.unwrap().is_empty());
}

async fn one_of_many_first_starts_makes_both(world: World) {
    let control = world.store.control();
    control.ensure_org(&org("a"), "A", 1).await.unwrap();
    assert!(!control.is_started().await.unwrap());
    let mut starts = Vec::new();
    for number in 0..4_u8 {
        let control = control.clone();
        starts.push(tokio::spawn(async move {
            let login = NewLogin {
                user_id: UserId::parse(&format!("user_{number}")).unwrap(),
                email: "a@b".to_owned(),
                password_hash: "hash".to_owned(),
            };
            let key = key(&format!("key_{number}"), number);
            control.first_start(&org("a"), Some(&key), &login, NOW_US).await.unwrap()
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
