//! Workspaces of an org, and the names of its environments.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, WorkspaceId};
use agentlens_domain::permissions::Caller;

use super::Control;
use super::members::lock_org;
use crate::error::StoreError;
use crate::write::Record;
use crate::{args, row_type};

/// Names of environments that an org may add.
const MAX_ENVIRONMENTS: i64 = 50;

row_type! {
    /// A workspace.
    pub struct WorkspaceRow {
        /// Its id.
        pub workspace_id: String,
        /// Its name for people.
        pub name: String,
        /// When it was made, microseconds UTC.
        pub created_us: i64,
        /// When it was archived.
        pub archived_us: Option<i64>,
    }
}

impl Control {
    /// The workspaces of an org, the oldest first, archived ones too.
    pub async fn list_workspaces(&self, org: &OrgId) -> Result<Vec<WorkspaceRow>, StoreError> {
        let sql = "select workspace_id, name, created_us, archived_us from workspaces where org_id = $1 order by created_us, workspace_id";
        self.fetch_of(org, sql, args![]).await
    }

    /// One workspace.
    pub async fn find_workspace(
        &self,
        org: &OrgId,
        workspace: &WorkspaceId,
    ) -> Result<Option<WorkspaceRow>, StoreError> {
        let sql = "select workspace_id, name, created_us, archived_us from workspaces where org_id = $1 and workspace_id = $2";
        Ok(self.fetch_of(org, sql, args![workspace.as_str()]).await?.into_iter().next())
    }

    /// Makes a workspace in the caller's org. Refused where the org has `limit` that aren't archived.
    pub async fn create_workspace(
        &self,
        caller: &Caller,
        workspace: &WorkspaceId,
        name: &str,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let (workspace, name, now_us) = (workspace.to_string(), name.to_owned(), self.clock.now_us());
        self.write(caller, "workspaces.create", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                check_room(tx, limit).await?;
                let insert = "insert into workspaces (org_id, workspace_id, name, created_us) values ($1, $2, $3, $4) on conflict do nothing";
                if tx.execute(insert, args![&workspace, &name, now_us]).await? == 0 {
                    return Err(StoreError::Exists("workspace"));
                }
                let record = Record::of(workspace).after(json!({ "name": name }));
                Ok(record.changing(Topic::Workspaces).returning(()))
            })
        })
        .await
    }

    /// Gives a workspace another name.
    pub async fn rename_workspace(
        &self,
        caller: &Caller,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<(), StoreError> {
        let (workspace, name) = (workspace.to_string(), name.to_owned());
        self.write(caller, "workspaces.rename", move |tx| {
            Box::pin(async move {
                let find = "select name from workspaces where org_id = $1 and workspace_id = $2";
                let before: String = tx.find(find, args![&workspace]).await?.ok_or(StoreError::NotFound)?;
                let update = "update workspaces set name = $3 where org_id = $1 and workspace_id = $2";
                tx.execute(update, args![&workspace, &name]).await?;
                let record =
                    Record::of(workspace).before(json!({ "name": before })).after(json!({ "name": name }));
                Ok(record.changing(Topic::Workspaces).returning(()))
            })
        })
        .await
    }

    /// Archives a workspace, or takes it back. An archived one can be read; its keys are refused.
    pub async fn archive_workspace(
        &self,
        caller: &Caller,
        workspace: &WorkspaceId,
        is_archived: bool,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let (workspace, now_us) = (workspace.to_string(), self.clock.now_us());
        let act = if is_archived { "workspaces.archive" } else { "workspaces.restore" };
        self.write(caller, act, move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                if !is_archived {
                    check_room(tx, limit).await?;
                }
                let update = "update workspaces set archived_us = $3 where org_id = $1 and workspace_id = $2";
                if tx.execute(update, args![&workspace, is_archived.then_some(now_us)]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(Record::of(workspace).changing(Topic::Workspaces).returning(()))
            })
        })
        .await
    }

    /// The names of environments that an org has added, in order.
    pub async fn list_environments(&self, org: &OrgId) -> Result<Vec<String>, StoreError> {
        self.fetch_of(org, "select name from org_environments where org_id = $1 order by name", args![]).await
    }

    /// Adds the name of an environment to the caller's org.
    pub async fn create_environment(&self, caller: &Caller, name: &str) -> Result<(), StoreError> {
        let (name, now_us) = (name.to_owned(), self.clock.now_us());
        self.write(caller, "environments.create", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let count = "select count(*) from org_environments where org_id = $1";
                if tx.find(count, args![]).await?.is_some_and(|count: i64| count >= MAX_ENVIRONMENTS) {
                    return Err(StoreError::LimitReached(format!(
                        "the org has added {MAX_ENVIRONMENTS} environments, which is the limit"
                    )));
                }
                let insert = "insert into org_environments (org_id, name, created_us) values ($1, $2, $3) on conflict do nothing";
                if tx.execute(insert, args![&name, now_us]).await? == 0 {
                    return Err(StoreError::Exists("environment"));
                }
                Ok(Record::of(name).returning(()))
            })
        })
        .await
    }

    /// Takes the name of an environment off the caller's org's list. Its events and keys stay as they are.
    pub async fn remove_environment(&self, caller: &Caller, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(caller, "environments.remove", move |tx| {
            Box::pin(async move {
                let delete = "delete from org_environments where org_id = $1 and name = $2";
                if tx.execute(delete, args![&name]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(Record::of(name).returning(()))
            })
        })
        .await
    }
}

async fn check_room(tx: &crate::transaction::Tx<'_>, limit: Option<i64>) -> Result<(), StoreError> {
    let Some(limit) = limit else { return Ok(()) };
    let count = "select count(*) from workspaces where org_id = $1 and archived_us is null";
    if tx.find(count, args![]).await?.is_some_and(|count: i64| count >= limit) {
        return Err(StoreError::LimitReached(format!(
            "the org has {limit} workspaces, which is the limit of its plan"
        )));
    }
    Ok(())
}
