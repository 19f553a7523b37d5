//! The handle of one org, for what concerns all of its workspaces.

use std::sync::Arc;

use agentlens_domain::apply::OrgContext;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::{OrgId, WorkspaceId};

use super::{Place, Workspace};
use crate::control::Control;
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{FromRow, Value};

/// The handle of one org. It is `$1` of every statement.
#[derive(Clone)]
pub struct Org {
    pub(crate) place: Place,
    pub(crate) context: Arc<OrgContext>,
    pub(crate) clock: Clock,
    pub(crate) control: Control,
}

impl Org {
    /// The org that this handle is bound to.
    pub fn id(&self) -> &OrgId {
        &self.context.org
    }

    /// The handle of one of its workspaces. Whether there is such a workspace is not checked; one that nothing was sent to is empty.
    pub fn workspace(&self, id: &WorkspaceId) -> Workspace {
        Workspace::of(self.clone(), id.clone())
    }

    /// The clock of the store that opened this handle.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long events are kept, in days; `None` for ever.
    pub fn retention_days(&self) -> Option<i32> {
        self.context.retention_days
    }

    pub(crate) fn context(&self) -> Arc<OrgContext> {
        Arc::clone(&self.context)
    }

    /// Runs a statement that returns rows. `args` begin at `$2`.
    pub(crate) async fn fetch<T: FromRow>(
        &self,
        sql: impl Into<String>,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.place.query(self.scope(), sql.into(), self.bind(args)).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// Like [`Org::fetch`] for a statement with one row or none.
    pub(crate) async fn find<T: FromRow>(
        &self,
        sql: impl Into<String>,
        args: Vec<Value>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Runs statements in one transaction; `args` begin at `$2`. Returns how many rows each changed.
    pub(crate) async fn execute_all(
        &self,
        statements: Vec<(String, Vec<Value>)>,
    ) -> Result<Vec<u64>, StoreError> {
        let statements = statements.into_iter().map(|(sql, args)| (sql, self.bind(args))).collect();
        self.place.execute_all(self.scope(), statements).await
    }

    pub(crate) fn scope(&self) -> RowScope<'_> {
        RowScope::Org(self.id())
    }

    fn bind(&self, mut args: Vec<Value>) -> Vec<Value> {
        args.insert(0, Value::from(self.id().as_str()));
        args
    }
}
