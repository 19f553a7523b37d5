//! The handle of one workspace of an org.

use std::sync::Arc;

use agentlens_domain::apply::OrgContext;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::{OrgId, WorkspaceId};

use super::{Org, Place};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{FromRow, Row, Value};

/// The handle of one workspace. The org is `$1` and the workspace `$2` of every statement; on PostgreSQL row security shows no row
/// of another workspace, whatever the statement says.
#[derive(Clone)]
pub struct Workspace {
    org: Org,
    id: WorkspaceId,
}

impl Workspace {
    pub(super) fn of(org: Org, id: WorkspaceId) -> Self {
        Self { org, id }
    }

    /// The workspace that this handle is bound to.
    pub fn id(&self) -> &WorkspaceId {
        &self.id
    }

    /// Its org.
    pub fn org_id(&self) -> &OrgId {
        self.org.id()
    }

    /// The clock of the store that opened this handle.
    pub fn clock(&self) -> &Clock {
        self.org.clock()
    }

    /// How long events are kept, in days; `None` for ever.
    pub fn retention_days(&self) -> Option<i32> {
        self.org.retention_days()
    }

    /// Whether events that retention recorded as removed may still be there.
    pub(super) fn may_linger(&self) -> bool {
        matches!(self.place(), Place::Postgres(_))
    }

    pub(crate) fn context(&self) -> Arc<OrgContext> {
        self.org.context()
    }

    pub(crate) fn place(&self) -> &super::Place {
        &self.org.place
    }

    /// Runs a statement that returns rows. `args` begin at `$3`.
    pub(crate) async fn fetch<T: FromRow>(
        &self,
        sql: impl Into<String>,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let sql = checked(sql.into());
        let rows = self.place().query(self.scope(), sql, self.bind(args)).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// Like [`Workspace::fetch`] for what a write has to know before it can begin: it does not wait behind the org's reads.
    pub(crate) async fn fetch_for_write<T: FromRow>(
        &self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let sql = checked(sql.to_owned());
        let rows = self.place().query_for_write(self.scope(), sql, self.bind(args)).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// Like [`Workspace::fetch`] for a statement with one row or none.
    pub(crate) async fn find<T: FromRow>(
        &self,
        sql: impl Into<String>,
        args: Vec<Value>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Runs a statement on tables that the workspaces of an org share and that name none, such as the segments of the search index.
    /// `args` begin at `$2`.
    pub(crate) async fn fetch_shared<T: FromRow>(
        &self,
        sql: impl Into<String>,
        mut args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        args.insert(0, Value::from(self.org_id().as_str()));
        let rows = self.place().query(self.scope(), sql.into(), args).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// Runs a statement and hands its rows one by one to `step`, which collects what it needs in `start`. For statements with
    /// more rows than memory should hold.
    pub(crate) async fn fold<A: Send + 'static>(
        &self,
        sql: String,
        args: Vec<Value>,
        start: A,
        step: impl FnMut(&mut A, &Row) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<A, StoreError> {
        self.place().fold(self.scope(), checked(sql), self.bind(args), start, step).await
    }

    /// Runs statements in one transaction; `args` begin at `$3`. Returns how many rows each changed.
    pub(crate) async fn execute_all(
        &self,
        statements: Vec<(String, Vec<Value>)>,
    ) -> Result<Vec<u64>, StoreError> {
        let statements = statements.into_iter().map(|(sql, args)| (checked(sql), self.bind(args))).collect();
        self.place().execute_all(self.scope(), statements).await
    }

    pub(crate) fn scope(&self) -> RowScope<'_> {
        RowScope::Workspace(self.org_id(), &self.id)
    }

    fn bind(&self, mut args: Vec<Value>) -> Vec<Value> {
        args.splice(0..0, [Value::from(self.org_id().as_str()), Value::from(self.id.as_str())]);
        args
    }
}

/// A statement that forgot the workspace would be refused by PostgreSQL alone, for an argument of unknown type.
pub(crate) fn checked(sql: String) -> String {
    debug_assert!(sql.contains("$2"), "a statement of a workspace does not name it: {sql}");
    sql
}
