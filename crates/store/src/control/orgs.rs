//! Orgs and their workspaces.

use std::sync::Arc;

use agentlens_domain::ids::OrgId;

use super::keys::{BUMP_VERSION, NewKey};
use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::tenant::blocking;
use crate::{args, row_type};

row_type! {
    /// An org.
    pub struct OrgRow {
        /// Its id.
        pub org_id: String,
        /// Its name for people.
        pub name: String,
        /// `pool` (shared database) or `silo` (one of its own).
        pub placement: String,
        /// How long events are kept; null for ever.
        pub retention_days: Option<i32>,
        /// When it was made, microseconds UTC.
        pub created_us: i64,
    }
}

/// An org about to be stored.
#[derive(Debug)]
pub struct NewOrg {
    /// Its id.
    pub org_id: OrgId,
    /// Its name for people.
    pub name: String,
    /// How long its events are kept; `None` for ever.
    pub retention_days: Option<i32>,
}

impl Control {
    /// Makes an org with its default workspace.
    pub async fn insert_org(&self, org: &OrgId, name: &str, now_us: i64) -> Result<(), StoreError> {
        let org = NewOrg { org_id: org.clone(), name: name.to_owned(), retention_days: None };
        self.create_org(&org, None, now_us).await
    }

    /// Makes an org with its default workspace and, if given, its first key: all of it or nothing.
    pub async fn create_org(
        &self,
        org: &NewOrg,
        first_key: Option<&NewKey>,
        now_us: i64,
    ) -> Result<(), StoreError> {
        // The file comes first: an org without its file has lost its data, and must never look like that when it is new.
        if let ControlPlace::Sqlite(engine) = &self.place
            && self.find_org(&org.org_id).await?.is_none()
        {
            let (engine, org) = (Arc::clone(engine), org.org_id.clone());
            blocking(move || engine.create_org(&org)).await?;
        }
        let id = org.org_id.as_str();
        let mut statements = vec![
            (
                "insert into orgs (org_id, name, retention_days, created_us) values ($1, $2, $3, $4) on conflict do nothing",
                args![id, &org.name, org.retention_days, now_us],
            ),
            (
                "insert into workspaces (org_id, workspace_id, name, created_us) values ($1, 'default', 'Default', $2) on conflict do nothing",
                args![id, now_us],
            ),
        ];
        if let Some(key) = first_key {
            let insert_key = "insert into api_keys (org_id, key_id, digest, shown_prefix, name, workspace_id, environment, scopes, created_us, expires_us)
                 select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
                 where not exists (select 1 from api_keys where org_id = $1)";
            statements.extend([(insert_key, key.args(&org.org_id, now_us)), (BUMP_VERSION, args![])]);
        }
        let changed = self.execute_all(statements).await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::Exists("org")) }
    }

    /// Orgs that bear a name.
    pub async fn find_orgs_named(&self, name: &str) -> Result<Vec<OrgRow>, StoreError> {
        self.fetch("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null and name = $1 order by org_id", args![name]).await
    }

    /// Makes the org unless it is there.
    pub async fn ensure_org(&self, org: &OrgId, name: &str, now_us: i64) -> Result<(), StoreError> {
        match self.insert_org(org, name, now_us).await {
            Err(StoreError::Exists(_)) => Ok(()),
            other => other,
        }
    }

    /// One org.
    pub async fn find_org(&self, org: &OrgId) -> Result<Option<OrgRow>, StoreError> {
        self.find("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null and org_id = $1", args![org.as_str()]).await
    }

    /// All orgs, in the order of their ids.
    pub async fn list_orgs(&self) -> Result<Vec<OrgRow>, StoreError> {
        self.fetch("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null order by org_id", args![]).await
    }

    /// Sets how long an org's events are kept; `None` for ever. Events that are stored already keep their day of expiry.
    pub async fn set_retention(&self, org: &OrgId, days: Option<i32>) -> Result<(), StoreError> {
        let changed = self
            .execute_all(vec![(
                "update orgs set retention_days = $2 where org_id = $1 and deleted_us is null",
                args![org.as_str(), days],
            )])
            .await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::NotFound) }
    }
}
