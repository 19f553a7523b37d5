//! API keys at rest: digests, never secrets.

use std::collections::BTreeMap;

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{KeyId, OrgId};
use agentlens_domain::keys::{ApiKey, KeyOptions, KeyScope, ServerSecret};
use agentlens_domain::limits;
use agentlens_domain::people::roles;
use agentlens_domain::permissions::{Actor, Caller};

use super::members::lock_org;
use super::people::NewMail;
use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::statement::Value;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A key as it is stored.
    pub struct KeyRow {
        /// The org it belongs to.
        pub org_id: String,
        /// Its public id.
        pub key_id: String,
        /// The start of the key, for people.
        pub shown_prefix: String,
        /// Its name for people.
        pub name: String,
        /// The workspace that it writes to and reads from.
        pub workspace_id: String,
        /// The environment of events that name none.
        pub environment: String,
        /// Whether events that name another environment are refused.
        pub is_environment_bound: bool,
        /// Its scopes, separated by spaces.
        pub scopes: String,
        /// When it was made, microseconds UTC.
        pub created_us: i64,
        /// When it stops working.
        pub expires_us: Option<i64>,
        /// When it was revoked.
        pub revoked_us: Option<i64>,
        /// When it was last used, to the minute.
        pub last_used_us: Option<i64>,
        /// How many requests a minute it may make.
        pub rate_per_minute: Option<i64>,
        /// The networks that it may be used from, separated by spaces; empty for all.
        pub allowed_networks: String,
        /// Whether its workspace is archived, so that it is refused.
        pub is_workspace_archived: bool,
    }
}

impl KeyRow {
    /// What it may do. A scope that only a newer program knows is left out.
    pub fn scopes(&self) -> Vec<KeyScope> {
        read_scopes(&self.scopes)
    }

    /// Whether it neither was revoked nor has expired.
    pub fn is_active(&self, now_us: i64) -> bool {
        self.revoked_us.is_none() && self.expires_us.is_none_or(|at| at > now_us)
    }

    /// What the audit log says of it.
    fn shown(&self) -> serde_json::Value {
        json!({ "prefix": self.shown_prefix, "name": self.name, "expires_us": self.expires_us })
    }
}

fn read_scopes(text: &str) -> Vec<KeyScope> {
    text.split(' ').filter_map(KeyScope::parse).collect()
}

/// A key about to be stored.
#[derive(Debug)]
pub struct NewKey {
    /// Its public id.
    pub key_id: KeyId,
    /// HMAC-SHA-256 of the whole key under the server's secret.
    pub digest: [u8; 32],
    /// The start of the key, for people.
    pub shown_prefix: String,
    /// Its name for people.
    pub name: String,
    /// The workspace.
    pub workspace_id: String,
    /// The environment of events that name none.
    pub environment: String,
    /// Whether events that name another environment are refused.
    pub is_environment_bound: bool,
    /// Scopes separated by spaces.
    pub scopes: String,
    /// When it stops working, microseconds UTC.
    pub expires_us: Option<i64>,
    /// How many requests a minute it may make.
    pub rate_per_minute: Option<i64>,
    /// The networks that it may be used from, separated by spaces; empty for all.
    pub allowed_networks: String,
}

/// What a key is when another takes its place: the secret alone is new.
#[derive(Debug)]
pub struct NewSecret {
    /// The id of the new key.
    pub key_id: KeyId,
    /// HMAC-SHA-256 of the whole key under the server's secret.
    pub digest: [u8; 32],
    /// The start of the key, for people.
    pub shown_prefix: String,
}

impl NewSecret {
    /// The parts of a key that are stored.
    pub fn of(secret: &ServerSecret, key: &ApiKey) -> Self {
        let digest = secret.digest(key.reveal());
        Self { key_id: KeyId::random(), digest, shown_prefix: key.shown_prefix().to_owned() }
    }

    /// The key that takes the place of another, with the same settings.
    fn in_place_of(self, row: &KeyRow) -> NewKey {
        NewKey {
            key_id: self.key_id,
            digest: self.digest,
            shown_prefix: self.shown_prefix,
            name: row.name.clone(),
            workspace_id: row.workspace_id.clone(),
            environment: row.environment.clone(),
            is_environment_bound: row.is_environment_bound,
            scopes: row.scopes.clone(),
            expires_us: row.expires_us,
            rate_per_minute: row.rate_per_minute,
            allowed_networks: row.allowed_networks.clone(),
        }
    }
}

impl NewKey {
    /// The row of a key: its digest under the server's secret, never the key itself.
    pub fn of(secret: &ServerSecret, key: &ApiKey, options: &KeyOptions) -> Self {
        let scopes: Vec<&str> = options.scopes.iter().map(|scope| scope.as_str()).collect();
        Self {
            key_id: KeyId::random(),
            digest: secret.digest(key.reveal()),
            shown_prefix: key.shown_prefix().to_owned(),
            name: options.name.clone(),
            workspace_id: options.workspace.clone(),
            environment: options.environment.clone(),
            is_environment_bound: options.is_environment_bound,
            scopes: scopes.join(" "),
            expires_us: options.expires_us,
            rate_per_minute: options.rate_per_minute.map(i64::from),
            allowed_networks: options.allowed_networks.join(" "),
        }
    }

    /// Arguments of [`INSERT_KEY`], from `$2` on.
    pub(super) fn args(&self, now_us: i64) -> Vec<Value> {
        args![
            self.key_id.as_str(),
            &self.digest,
            &self.shown_prefix,
            &self.name,
            &self.workspace_id,
            &self.environment,
            &self.scopes,
            now_us,
            self.expires_us,
            self.is_environment_bound,
            self.rate_per_minute,
            &self.allowed_networks,
        ]
    }

    /// What the audit log says of it.
    fn shown(&self) -> serde_json::Value {
        json!({
            "prefix": self.shown_prefix, "name": self.name, "workspace_id": self.workspace_id,
            "environment": self.environment, "environment_bound": self.is_environment_bound, "scopes": self.scopes,
            "expires_us": self.expires_us, "rate_per_minute": self.rate_per_minute, "allowed_networks": self.allowed_networks,
        })
    }
}

/// Stores a key of the transaction's org.
pub(super) const INSERT_KEY: &str = "insert into api_keys (org_id, key_id, digest, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us,
     is_environment_bound, rate_per_minute, allowed_networks)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Begins every statement that reads keys `k` with their workspaces `w`.
macro_rules! key_columns {
    () => {
        "select k.org_id, k.key_id, k.shown_prefix, k.name, k.workspace_id, k.environment, k.is_environment_bound, k.scopes, k.created_us, k.expires_us,
           k.revoked_us, k.last_used_us, k.rate_per_minute, k.allowed_networks, w.archived_us is not null
         from api_keys k left join workspaces w on w.org_id = k.org_id and w.workspace_id = k.workspace_id"
    };
}

/// What is found of a key by its digest.
const KEY_BY_DIGEST: &str = concat!(
    key_columns!(),
    " join orgs o on o.org_id = k.org_id and o.deleted_us is null where k.digest = $1"
);

/// The same, before the org is known. On PostgreSQL row security shows keys of the transaction's org only, so this is a
/// function of the owner, which the application's role may call.
const KEY_BY_DIGEST_OF_OWNER: &str =
    "select org_id, key_id, shown_prefix, name, workspace_id, environment, is_environment_bound, scopes, created_us, expires_us,
     revoked_us, last_used_us, rate_per_minute, allowed_networks, is_workspace_archived
   from key_by_digest($1)";

/// Digests of valid keys, in pages.
const DIGESTS: &str = "select k.digest
   from api_keys k join orgs o on o.org_id = k.org_id and o.deleted_us is null
   where k.digest > $1 and k.revoked_us is null
   order by k.digest limit $2";

/// The same for the application's role on PostgreSQL.
const DIGESTS_OF_OWNER: &str = "select key_digests($1, $2)";

/// Digests that are read at a time.
const MAX_DIGESTS: i64 = 20_000;

impl Control {
    /// The next digests of keys that aren't revoked, of all orgs, in their order.
    pub async fn key_digests(&self, after: &[u8; 32]) -> Result<Vec<[u8; 32]>, StoreError> {
        let sql = match self.place {
            ControlPlace::Sqlite(_) => DIGESTS,
            ControlPlace::Postgres(_) => DIGESTS_OF_OWNER,
        };
        self.fetch(sql, args![after, MAX_DIGESTS]).await
    }

    /// The digests of an org's keys that aren't revoked.
    pub async fn key_digests_of(&self, org: &OrgId) -> Result<Vec<[u8; 32]>, StoreError> {
        let sql = "select digest from api_keys where org_id = $1 and revoked_us is null";
        self.fetch_of(org, sql, args![]).await
    }

    /// Stores a key of the caller's org. Refused beyond the caller's own rights, for a workspace that isn't there or is archived, and
    /// where the org has `limit` active keys.
    pub async fn insert_key(
        &self,
        caller: &Caller,
        key: NewKey,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let (by, now_us) = (caller.clone(), self.clock.now_us());
        self.write(caller, "keys.create", move |tx| {
            Box::pin(async move {
                // Two transactions that count at once would both see room for one more: the org's row is locked first.
                lock_org(tx).await?;
                insert(tx, &by, &key, limit, now_us).await?;
                Ok(Record::of(key.key_id.as_str()).after(key.shown()).changing(Topic::Keys).returning(()))
            })
        })
        .await
    }

    /// Gives a key of the caller's org another name.
    pub async fn rename_key(&self, caller: &Caller, key_id: &KeyId, name: &str) -> Result<(), StoreError> {
        let (key_id, name) = (key_id.clone(), name.to_owned());
        self.write(caller, "keys.rename", move |tx| {
            Box::pin(async move {
                let before = find(tx, &key_id).await?.ok_or(StoreError::NotFound)?;
                let update = "update api_keys set name = $3 where org_id = $1 and key_id = $2";
                tx.execute(update, args![key_id.as_str(), &name]).await?;
                let record = Record::of(key_id.as_str())
                    .before(json!({ "name": before.name }))
                    .after(json!({ "name": name }));
                Ok(record.returning(()))
            })
        })
        .await
    }

    /// Puts a new key with the same settings in the place of an active one, which works for `grace_us` longer. Whoever rotates a key
    /// learns the new one, so this is refused like making it. Returns when the old one stops.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        key_id: &KeyId,
        secret: NewSecret,
        grace_us: i64,
        limit: Option<i64>,
    ) -> Result<i64, StoreError> {
        let (by, key_id, now_us) = (caller.clone(), key_id.clone(), self.clock.now_us());
        self.write(caller, "keys.rotate", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let old = find(tx, &key_id).await?.filter(|row| row.is_active(now_us));
                let old = old.ok_or(StoreError::NotFound)?;
                let ends_us = old.expires_us.unwrap_or(i64::MAX).min(now_us.saturating_add(grace_us));
                let revoked_us = (ends_us <= now_us).then_some(now_us);
                let end = "update api_keys set expires_us = $3, revoked_us = $4 where org_id = $1 and key_id = $2";
                tx.execute(end, args![key_id.as_str(), ends_us, revoked_us]).await?;
                let key = secret.in_place_of(&old);
                insert(tx, &by, &key, limit, now_us).await?;
                let record = Record::of(key_id.as_str())
                    .before(old.shown())
                    .after(json!({ "expires_us": ends_us, "new_key_id": key.key_id, "new_prefix": key.shown_prefix }));
                Ok(record.changing(Topic::Keys).returning(ends_us))
            })
        })
        .await
    }

    /// The key with this digest, whatever its state.
    pub async fn find_key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let sql = match self.place {
            ControlPlace::Sqlite(_) => KEY_BY_DIGEST,
            ControlPlace::Postgres(_) => KEY_BY_DIGEST_OF_OWNER,
        };
        self.find(sql, args![digest]).await
    }

    /// An org's keys, newest first.
    pub async fn list_keys(&self, org: &OrgId) -> Result<Vec<KeyRow>, StoreError> {
        const ALL: &str =
            concat!(key_columns!(), " where k.org_id = $1 order by k.created_us desc, k.key_id");
        self.fetch_of(org, ALL, args![]).await
    }

    /// A key of an org.
    pub async fn find_key(&self, org: &OrgId, key_id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
        const ONE: &str = concat!(key_columns!(), " where k.org_id = $1 and k.key_id = $2");
        Ok(self.fetch_of(org, ONE, args![key_id.as_str()]).await?.into_iter().next())
    }

    /// A page of an org's keys, newest first, after the key that was made at an instant and has an id.
    pub async fn list_keys_after(
        &self,
        org: &OrgId,
        created_us: i64,
        key_id: &str,
        limit: u32,
    ) -> Result<Vec<KeyRow>, StoreError> {
        const PAGE: &str = concat!(
            key_columns!(),
            " where k.org_id = $1 and (k.created_us < $2 or (k.created_us = $2 and k.key_id > $3))
              order by k.created_us desc, k.key_id limit $4"
        );
        self.fetch_of(org, PAGE, args![created_us, key_id, limit]).await
    }

    /// Revokes a key of the caller's org; every node stops taking it within a second.
    pub async fn revoke_key(&self, caller: &Caller, key_id: &KeyId) -> Result<(), StoreError> {
        self.revoke(caller, "keys.revoke", key_id, Vec::new()).await
    }

    /// Revokes a key that someone found. `caller` is the key itself: whoever reported it holds it.
    pub async fn revoke_leaked_key(
        &self,
        caller: &Caller,
        key_id: &KeyId,
        mails: Vec<NewMail>,
    ) -> Result<(), StoreError> {
        self.revoke(caller, "keys.revoke_leaked", key_id, mails).await
    }

    async fn revoke(
        &self,
        caller: &Caller,
        act: &'static str,
        key_id: &KeyId,
        mails: Vec<NewMail>,
    ) -> Result<(), StoreError> {
        let (key_id, now_us) = (key_id.clone(), self.clock.now_us());
        let mails: Vec<NewMail> = mails.into_iter().map(|mail| self.sealed(mail)).collect();
        self.write(caller, act, move |tx| {
            Box::pin(async move {
                let revoke =
                    "update api_keys set revoked_us = $3 where org_id = $1 and key_id = $2 and revoked_us is null";
                if tx.execute(revoke, args![key_id.as_str(), now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                for mail in mails {
                    mail.insert(tx, now_us).await?;
                }
                let row = find(tx, &key_id).await?.ok_or(StoreError::NotFound)?;
                let record = Record::of(key_id.as_str()).before(row.shown());
                Ok(record.changing(Topic::Keys).returning(()))
            })
        })
        .await
    }

    /// The addresses of an org's owners.
    pub async fn owner_addresses(&self, org: &OrgId) -> Result<Vec<String>, StoreError> {
        let sql = "select u.email from org_members m join users u on u.user_id = m.user_id
             where m.org_id = $1 and m.role = 'owner' and u.disabled_us is null order by u.email_key";
        self.fetch_of(org, sql, args![]).await
    }

    /// Notes when keys were last used.
    pub async fn touch_keys(&self, used: Vec<(OrgId, KeyId, i64)>) -> Result<(), StoreError> {
        let mut by_org: BTreeMap<OrgId, Vec<(KeyId, i64)>> = BTreeMap::new();
        for (org, key, at_us) in used {
            by_org.entry(org).or_default().push((key, at_us));
        }
        for (org, keys) in by_org {
            self.transact(&org, move |tx| {
                Box::pin(async move {
                    let touch = "update api_keys set last_used_us = $3 where org_id = $1 and key_id = $2 and coalesce(last_used_us, 0) < $3";
                    for (key, at_us) in keys {
                        tx.execute(touch, args![key.as_str(), at_us]).await?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }
}

/// A key of the transaction's org.
async fn find(tx: &Tx<'_>, key_id: &KeyId) -> Result<Option<KeyRow>, StoreError> {
    tx.find(concat!(key_columns!(), " where k.org_id = $1 and k.key_id = $2"), args![key_id.as_str()]).await
}

/// Stores a key in the transaction's org, which is locked.
async fn insert(
    tx: &Tx<'_>,
    by: &Caller,
    key: &NewKey,
    limit: Option<i64>,
    now_us: i64,
) -> Result<(), StoreError> {
    refuse_more_than_own(tx, by, key).await?;
    let workspace =
        "select count(*) from workspaces where org_id = $1 and workspace_id = $2 and archived_us is null";
    if tx.find(workspace, args![&key.workspace_id]).await? != Some(1_i64) {
        return Err(StoreError::NoWorkspace(key.workspace_id.clone()));
    }
    let same = "select count(*) from api_keys where org_id = $1 and digest = $2";
    if tx.find(same, args![&key.digest]).await? != Some(0_i64) {
        return Err(StoreError::Exists("key"));
    }
    let count = "select count(*) from api_keys where org_id = $1 and revoked_us is null and (expires_us is null or expires_us > $2)";
    let limit = limit.unwrap_or(i64::MAX).min(limits::MAX_ACTIVE_KEYS);
    if tx.find(count, args![now_us]).await?.is_some_and(|active: i64| active >= limit) {
        return Err(StoreError::LimitReached(format!("the org has {limit} active keys, which is the limit")));
    }
    tx.execute(INSERT_KEY, key.args(now_us)).await.map(|_| ())
}

/// Refuses a key that could do more than whoever makes it: by its scopes, and if a key makes it, by what restricts that one. Only a
/// key with the scope `*` makes keys of other workspaces.
async fn refuse_more_than_own(tx: &Tx<'_>, by: &Caller, key: &NewKey) -> Result<(), StoreError> {
    let scopes = read_scopes(&key.scopes);
    let is_known = scopes.len() == key.scopes.split(' ').filter(|scope| !scope.is_empty()).count();
    if !is_known || !roles::can_give_scopes(by, &scopes) {
        return Err(StoreError::NotAllowed);
    }
    let Actor::Key { key_id, scopes } = &by.actor else { return Ok(()) };
    let own = find(tx, key_id).await?.ok_or(StoreError::NotAllowed)?;
    let is_in_reach = own.workspace_id == key.workspace_id || scopes.contains(&KeyScope::All);
    let is_as_bound =
        !own.is_environment_bound || (key.is_environment_bound && own.environment == key.environment);
    let ends_in_time = own.expires_us.is_none_or(|own| key.expires_us.is_some_and(|at| at <= own));
    let is_as_slow = own.rate_per_minute.is_none_or(|own| key.rate_per_minute.is_some_and(|it| it <= own));
    let networks: Vec<&str> = own.allowed_networks.split_whitespace().collect();
    let is_as_closed = networks.is_empty()
        || (!key.allowed_networks.is_empty()
            && key.allowed_networks.split_whitespace().all(|network| networks.contains(&network)));
    if is_in_reach && is_as_bound && ends_in_time && is_as_slow && is_as_closed {
        Ok(())
    } else {
        Err(StoreError::NotAllowed)
    }
}
