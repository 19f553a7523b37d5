//! A transaction that reads and writes, on both engines.
//!
//! [`Org::transact`], [`Workspace::transact`] and [`Control::transact`] begin it, say to row security whose rows it may see and
//! write, run the work, and commit if the work succeeded. On SQLite the work runs on the blocking pool with the writing connection: its statements are ready at once, and it
//! must await nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use rusqlite::Connection;

use agentlens_domain::ids::{OrgId, WorkspaceId};

use crate::control::{Control, ControlPlace};
use crate::engine::postgres::PostgresEngine;
use crate::engine::sqlite::{self, SqliteFile};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{FromRow, Row, Value};
use crate::tenant::{Org, Place, Workspace, blocking};

/// The future of work in a transaction.
pub(crate) type Work<'t, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 't>>;

/// An open transaction of one org. `$1` of every statement is the org; arguments begin at `$2`.
pub(crate) struct Tx<'t> {
    org: &'t str,
    connection: TxConnection<'t>,
}

enum TxConnection<'t> {
    Sqlite(Mutex<&'t mut Connection>),
    Postgres(&'t deadpool_postgres::Transaction<'t>),
}

impl Tx<'_> {
    /// Runs a statement that returns rows.
    pub(crate) async fn fetch<T: FromRow>(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let (sql, args) = (sql.as_ref(), self.bind(args));
        let rows: Vec<Row> = match &self.connection {
            TxConnection::Sqlite(connection) => sqlite::query(&connection.lock(), sql, &args)?,
            TxConnection::Postgres(transaction) => {
                let statement = transaction.prepare_cached(sql).await?;
                let params = crate::engine::postgres::params(&args);
                let rows = transaction.query(&statement, &params).await?;
                rows.iter().map(Row::from_postgres).collect::<Result<_, _>>()?
            }
        };
        rows.iter().map(T::from_row).collect()
    }

    /// Like [`Tx::fetch`] for a statement with one row or none.
    pub(crate) async fn find<T: FromRow>(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<Option<T>, StoreError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Runs a statement that changes rows; returns how many.
    pub(crate) async fn execute(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<u64, StoreError> {
        let (sql, args) = (sql.as_ref(), self.bind(args));
        match &self.connection {
            TxConnection::Sqlite(connection) => sqlite::execute(&connection.lock(), sql, &args),
            TxConnection::Postgres(transaction) => {
                let statement = transaction.prepare_cached(sql).await?;
                Ok(transaction.execute(&statement, &crate::engine::postgres::params(&args)).await?)
            }
        }
    }

    fn bind(&self, mut args: Vec<Value>) -> Vec<Value> {
        args.insert(0, Value::from(self.org));
        args
    }
}

/// An open transaction of one workspace. `$1` of every statement is the org and `$2` the workspace; arguments begin at `$3`.
pub(crate) struct WorkspaceTx<'t, 'c> {
    /// For tables that the workspaces of an org share. Of others, it sees and writes only rows of this workspace on PostgreSQL.
    pub(crate) shared: &'t Tx<'c>,
    workspace: &'t WorkspaceId,
}

impl WorkspaceTx<'_, '_> {
    /// Runs a statement that returns rows.
    pub(crate) async fn fetch<T: FromRow>(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        self.shared.fetch(sql, self.bind(args)).await
    }

    /// Like [`WorkspaceTx::fetch`] for a statement with one row or none.
    pub(crate) async fn find<T: FromRow>(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<Option<T>, StoreError> {
        self.shared.find(sql, self.bind(args)).await
    }

    /// Runs a statement that changes rows; returns how many.
    pub(crate) async fn execute(
        &self,
        sql: impl AsRef<str> + Send,
        args: Vec<Value>,
    ) -> Result<u64, StoreError> {
        self.shared.execute(sql, self.bind(args)).await
    }

    fn bind(&self, mut args: Vec<Value>) -> Vec<Value> {
        args.insert(0, Value::from(self.workspace.as_str()));
        args
    }
}

impl Org {
    /// Runs work in one transaction: all of it is committed, or, if it fails, nothing. On SQLite it is durable when this returns.
    pub(crate) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static,
    {
        match &self.place {
            Place::Sqlite(file) => on_sqlite(Arc::clone(file), self.id().clone(), work).await,
            Place::Postgres(engine) => on_postgres(engine, self.scope(), work).await,
        }
    }
}

impl Workspace {
    /// The same for what belongs to one workspace.
    pub(crate) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t WorkspaceTx<'_, '_>) -> Work<'t, T> + Send + 'static,
    {
        let work = of_workspace(self.id().clone(), work);
        match self.place() {
            Place::Sqlite(file) => on_sqlite(Arc::clone(file), self.org_id().clone(), work).await,
            Place::Postgres(engine) => on_postgres(engine, self.scope(), work).await,
        }
    }
}

impl Control {
    /// The same on the control tables, for what belongs to one org.
    pub(crate) async fn transact<T, F>(&self, org: &OrgId, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static,
    {
        match &self.place {
            ControlPlace::Sqlite(engine) => on_sqlite(Arc::clone(engine.control()), org.clone(), work).await,
            ControlPlace::Postgres(engine) => on_postgres(engine, RowScope::Control(org), work).await,
        }
    }
}

impl Control {
    /// The same for deleting an org: on PostgreSQL it reaches what belongs to the org everywhere, on SQLite the control tables.
    pub(crate) async fn transact_purge<T, F>(&self, org: &OrgId, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static,
    {
        match &self.place {
            ControlPlace::Sqlite(engine) => on_sqlite(Arc::clone(engine.control()), org.clone(), work).await,
            ControlPlace::Postgres(engine) => on_postgres(engine, RowScope::Org(org), work).await,
        }
    }
}

/// Work in a transaction of an org that is about one workspace.
fn of_workspace<T, F>(
    workspace: WorkspaceId,
    work: F,
) -> impl for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t WorkspaceTx<'_, '_>) -> Work<'t, T> + Send + 'static,
{
    move |tx| {
        Box::pin(async move {
            let tx = WorkspaceTx { shared: tx, workspace: &workspace };
            work(&tx).await
        })
    }
}

async fn on_postgres<T, F>(engine: &PostgresEngine, scope: RowScope<'_>, work: F) -> Result<T, StoreError>
where
    F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T>,
{
    let mut client = engine.connection().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&scope.set_local()).await?;
    let done =
        work(&Tx { org: scope.org().as_str(), connection: TxConnection::Postgres(&transaction) }).await?;
    transaction.commit().await?;
    Ok(done)
}

async fn on_sqlite<T, F>(file: Arc<SqliteFile>, org: OrgId, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static,
{
    blocking(move || file.write(|connection| transact_sqlite(connection, org.as_str(), work))).await
}

fn transact_sqlite<T>(
    connection: &mut Connection,
    org: &str,
    work: impl for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T>,
) -> Result<T, StoreError> {
    connection.execute_batch("begin immediate")?;
    let done = {
        let tx = Tx { org, connection: TxConnection::Sqlite(Mutex::new(&mut *connection)) };
        // A panic must not leave the writing connection inside a transaction: it is shared.
        catch_unwind(AssertUnwindSafe(|| work(&tx).now_or_never()))
    };
    let done = match done {
        Ok(Some(done)) => done,
        Ok(None) => {
            Err(StoreError::Unavailable("a transaction waited for something outside the store".to_owned()))
        }
        Err(panic) => {
            let _ = connection.execute_batch("rollback");
            resume_unwind(panic);
        }
    };
    let ended = connection.execute_batch(if done.is_ok() { "commit" } else { "rollback" });
    match done {
        Ok(done) => ended.map(|()| done).map_err(|error| {
            // A commit that failed leaves the transaction open.
            let _ = connection.execute_batch("rollback");
            error.into()
        }),
        Err(error) => Err(error),
    }
}
