//! API keys at rest: digests, never secrets.

use agentlens_domain::ids::{KeyId, OrgId};
use agentlens_domain::keys::{ApiKey, KeyOptions, ServerSecret};
use agentlens_domain::limits;

use super::Control;
use crate::error::StoreError;
use crate::statement::Value;
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
        /// The environment that its events get.
        pub environment: String,
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
    /// production, staging or development.
    pub environment: String,
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
            scopes: scopes.join(" "),
            expires_us: options.expires_us,
        }
    }

    /// Arguments 1 to 10 of a statement that inserts the key.
    pub(super) fn args(&self, org: &OrgId, now_us: i64) -> Vec<Value> {
        args![
            org.as_str(),
            self.key_id.as_str(),
            &self.digest,
            &self.shown_prefix,
            &self.name,
            &self.workspace_id,
            &self.environment,
            &self.scopes,
            now_us,
            self.expires_us,
        ]
    }
}

pub(super) const BUMP_VERSION: &str = "insert into settings (name, value) values ('keys_version', '1')
   on conflict (name) do update set value = cast(cast(settings.value as bigint) + 1 as text)";

impl Control {
    /// Stores a key. Refused when the org has as many active keys as the limit allows.
    pub async fn insert_key(&self, org: &OrgId, key: &NewKey, now_us: i64) -> Result<(), StoreError> {
        let insert = "insert into api_keys (org_id, key_id, digest, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
             where (select count(*) from api_keys where org_id = $1 and revoked_us is null) < $11
               and exists (select 1 from orgs where org_id = $1 and deleted_us is null)
             on conflict do nothing";
        let mut args = key.args(org, now_us);
        args.push(Value::from(limits::MAX_ACTIVE_KEYS));
        let changed = self.execute_all(vec![(insert, args), (BUMP_VERSION, args![])]).await?;
        if changed.first() == Some(&1) {
            return Ok(());
        }
        if self.find_org(org).await?.is_none() {
            return Err(StoreError::NotFound);
        }
        if self.find_key_by_digest(&key.digest).await?.is_some() {
            return Err(StoreError::Exists("key"));
        }
        Err(StoreError::LimitReached(format!(
            "the org has {} active keys, which is the limit",
            limits::MAX_ACTIVE_KEYS
        )))
    }

    /// The key with this digest, whatever its state.
    pub async fn find_key_by_digest(&self, digest: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        self.find(
            "select k.org_id, k.key_id, k.shown_prefix, k.name, k.workspace_id, k.environment, k.scopes, k.created_us, k.expires_us,
               k.revoked_us, k.last_used_us
             from api_keys k join orgs o on o.org_id = k.org_id and o.deleted_us is null
             where k.digest = $1",
            args![digest],
        )
        .await
    }

    /// An org's keys, newest first.
    pub async fn list_keys(&self, org: &OrgId) -> Result<Vec<KeyRow>, StoreError> {
        self.fetch(
            "select org_id, key_id, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us, revoked_us, last_used_us
             from api_keys where org_id = $1 order by created_us desc, key_id",
            args![org.as_str()],
        )
        .await
    }

    /// Revokes a key; every node stops taking it within a second.
    pub async fn revoke_key(&self, org: &OrgId, key_id: &KeyId, now_us: i64) -> Result<(), StoreError> {
        let revoke =
            "update api_keys set revoked_us = $3 where org_id = $1 and key_id = $2 and revoked_us is null";
        let changed = self
            .execute_all(vec![
                (revoke, args![org.as_str(), key_id.as_str(), now_us]),
                (BUMP_VERSION, args![]),
            ])
            .await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::NotFound) }
    }

    /// A number that grows with every change of any key; caches of keys are dropped when it moves.
    pub async fn keys_version(&self) -> Result<i64, StoreError> {
        let value: Option<String> =
            self.find("select value from settings where name = 'keys_version'", args![]).await?;
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    /// Notes when keys were last used.
    pub async fn touch_keys(&self, used: Vec<(OrgId, KeyId, i64)>) -> Result<(), StoreError> {
        let touch = "update api_keys set last_used_us = $3 where org_id = $1 and key_id = $2 and coalesce(last_used_us, 0) < $3";
        let statements =
            used.into_iter().map(|(org, key, at)| (touch, args![org.as_str(), key.as_str(), at])).collect();
        self.execute_all(statements).await.map(|_| ())
    }
}
