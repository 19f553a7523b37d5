//! API keys at rest: digests, never secrets.

use std::collections::BTreeMap;

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{KeyId, OrgId};
use agentlens_domain::keys::{ApiKey, KeyOptions, ServerSecret};
use agentlens_domain::limits;
use agentlens_domain::permissions::Caller;

use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::statement::Value;
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
    }
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
        ]
    }

    /// What the audit log says of it.
    fn shown(&self) -> serde_json::Value {
        json!({
            "prefix": self.shown_prefix, "name": self.name, "workspace_id": self.workspace_id,
            "environment": self.environment, "environment_bound": self.is_environment_bound, "scopes": self.scopes,
            "expires_us": self.expires_us,
        })
    }
}

/// Stores a key of the transaction's org.
pub(super) const INSERT_KEY: &str = "insert into api_keys (org_id, key_id, digest, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us,
     is_environment_bound)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// What is found of a key by its digest.
const KEY_BY_DIGEST: &str = "select k.org_id, k.key_id, k.shown_prefix, k.name, k.workspace_id, k.environment, k.is_environment_bound, k.scopes, k.created_us, k.expires_us,
     k.revoked_us, k.last_used_us
   from api_keys k join orgs o on o.org_id = k.org_id and o.deleted_us is null
   where k.digest = $1";

/// The same, before the org is known. On PostgreSQL row security shows keys of the transaction's org only, so this is a
/// function of the owner, which the application's role may call.
const KEY_BY_DIGEST_OF_OWNER: &str =
    "select org_id, key_id, shown_prefix, name, workspace_id, environment, is_environment_bound, scopes, created_us, expires_us,
     revoked_us, last_used_us
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

    /// Stores a key of the caller's org. Refused when the org has as many active keys as the limit allows.
    pub async fn insert_key(&self, caller: &Caller, key: NewKey) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "keys.create", move |tx| {
            Box::pin(async move {
                // Two transactions that count at once would both see room for one more: the org's row is locked first.
                let lock = "update orgs set name = name where org_id = $1 and deleted_us is null";
                if tx.execute(lock, args![]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let same = "select count(*) from api_keys where org_id = $1 and digest = $2";
                if tx.find(same, args![&key.digest]).await? != Some(0_i64) {
                    return Err(StoreError::Exists("key"));
                }
                let count = "select count(*) from api_keys where org_id = $1 and revoked_us is null";
                if tx.find(count, args![]).await?.is_some_and(|active: i64| active >= limits::MAX_ACTIVE_KEYS)
                {
                    return Err(StoreError::LimitReached(format!(
                        "the org has {} active keys, which is the limit",
                        limits::MAX_ACTIVE_KEYS
                    )));
                }
                tx.execute(INSERT_KEY, key.args(now_us)).await?;
                Ok(Record::of(key.key_id.as_str()).after(key.shown()).changing(Topic::Keys).returning(()))
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
        self.fetch_of(
            org,
            "select org_id, key_id, shown_prefix, name, workspace_id, environment, is_environment_bound, scopes, created_us, expires_us,
               revoked_us, last_used_us
             from api_keys where org_id = $1 order by created_us desc, key_id",
            args![],
        )
        .await
    }

    /// Revokes a key of the caller's org; every node stops taking it within a second.
    pub async fn revoke_key(&self, caller: &Caller, key_id: &KeyId) -> Result<(), StoreError> {
        let (key_id, now_us) = (key_id.clone(), self.clock.now_us());
        self.write(caller, "keys.revoke", move |tx| {
            Box::pin(async move {
                let revoke =
                    "update api_keys set revoked_us = $3 where org_id = $1 and key_id = $2 and revoked_us is null";
                if tx.execute(revoke, args![key_id.as_str(), now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(Record::of(key_id.as_str()).changing(Topic::Keys).returning(()))
            })
        })
        .await
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
