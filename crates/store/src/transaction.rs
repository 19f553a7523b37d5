//! A transaction that reads and writes, on both engines.
//!
//! [`Org::transact`] and [`Control::transact`] begin it, name the org to row security, run the work, and commit if the work
//! succeeded. On SQLite the work runs on the blocking pool with the writing connection: its statements are ready at once, and it
//! must await nothing else.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use rusqlite::Connection;

use agentlens_domain::ids::OrgId;

use crate::control::{Control, ControlPlace};
use crate::engine::postgres::PostgresEngine;
use crate::engine::sqlite::{self, SqliteFile};
use crate::error::StoreError;
use crate::statement::{FromRow, Row, Value};
use crate::tenant::{Org, Place, blocking};

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

impl Org {
    /// Runs work in one transaction: all of it is committed, or, if it fails, nothing. On SQLite it is durable when this returns.
    pub(crate) async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T> + Send + 'static,
    {
        match &self.place {
            Place::Sqlite(file) => on_sqlite(Arc::clone(file), self.id().clone(), work).await,
            Place::Postgres(engine) => on_postgres(engine, self.id(), work).await,
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
            ControlPlace::Postgres(engine) => on_postgres(engine, org, work).await,
        }
    }
}

async fn on_postgres<T, F>(engine: &PostgresEngine, org: &OrgId, work: F) -> Result<T, StoreError>
where
    F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, T>,
{
    let mut client = engine.connection().await?;
    let transaction = client.transaction().await?;
    let org = org.as_str();
    transaction.batch_execute(&format!("set local app.current_org = '{org}'")).await?;
    let done = work(&Tx { org, connection: TxConnection::Postgres(&transaction) }).await?;
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
        work(&tx).now_or_never().unwrap_or_else(|| {
            Err(StoreError::Unavailable("a transaction waited for something outside the store".to_owned()))
        })
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
