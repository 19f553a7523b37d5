//! Orgs and their workspaces.

use agentlens_domain::ids::OrgId;

use super::Control;
use crate::error::StoreError;
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

impl Control {
    /// Makes an org with its default workspace.
    pub async fn insert_org(&self, org: &OrgId, name: &str, now_us: i64) -> Result<(), StoreError> {
        let changed = self
            .execute_all(vec![
                ("insert into orgs (org_id, name, created_us) values ($1, $2, $3) on conflict do nothing", args![org.as_str(), name, now_us]),
                (
                    "insert into workspaces (org_id, workspace_id, name, created_us) values ($1, 'default', 'Default', $2) on conflict do nothing",
                    args![org.as_str(), now_us],
                ),
            ])
            .await?;
        if changed.first() == Some(&1) { Ok(()) } else { Err(StoreError::Exists("org")) }
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
