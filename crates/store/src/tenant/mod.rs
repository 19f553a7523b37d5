//! An org's data. A [`Org`] is opened for one org, and that org is bound as `$1` of every statement it runs: no
//! function of it takes an org id, so no caller can name another.
//!
//! On PostgreSQL each statement also runs in a transaction that names the org to row security; on SQLite the
//! handle holds the org's own file.

mod agents;
mod analytics;
mod apply;
mod chains;
mod dead_letters;
mod edges;
pub(crate) mod environments;
mod events;
mod figures;
mod ingest_requests;
mod ledger;
mod numbers;
mod prices;
mod recount;
mod removals;
mod retention;
mod rollups;
mod seal;
mod sessions;
pub(crate) mod spans;

use std::sync::Arc;

use agentlens_domain::chain::SealKey;
use agentlens_domain::clock::Clock;
use agentlens_domain::cost::PriceTable;
use agentlens_domain::ids::OrgId;
use agentlens_domain::time::day_of;

pub use agents::AgentRow;
pub use analytics::{CellQuery, CellRow, OrgStats};
pub use apply::{Applied, ApplyReport, Commit};
pub(crate) use apply::{
    Ending, EventRow, LateKey, NumberedSession, OrgState, Plan, PlanInput, SessionKey, Verdict, plan,
    session_keys,
};
pub use chains::{BrokenChain, ChainReport, SessionChain};
pub use dead_letters::DeadLetter;
pub use events::{EventFilter, EventPage, Order, SearchPage, StoredEvent, StreamPlace};
pub use figures::{Figures, TableKey, TableOrder, TablePage, TablePlace, provider_and_model};
pub use ingest_requests::{IngestRequestRow, MAX_REQUESTS_PER_KEY};
pub use ledger::LedgerRow;
pub(crate) use prices::embedded as embedded_prices;
pub use removals::{Removal, RemovalOrder, RemovalReason};
pub(crate) use retention::{drop_partitions, make_partitions};
pub(crate) use rollups::{Cell, encode_changes, merged, merged_latency};
pub use sessions::{SessionFilter, SessionPage, SessionRow};
pub use spans::{SpanRow, span_address};

use crate::control::Control;
use crate::engine::postgres::PostgresEngine;
use crate::engine::sqlite::{self, SqliteFile};
use crate::error::StoreError;
use crate::statement::{FromRow, Row, Value};

/// `expire_day` of events that are kept for ever: 9999-12-31.
pub(crate) const NEVER_EXPIRES_DAY: i32 = 2_932_896;

#[derive(Clone)]
pub(crate) enum Place {
    Sqlite(Arc<SqliteFile>),
    Postgres(Arc<PostgresEngine>),
}

/// What applying and reading need to know of the org.
#[derive(Clone)]
pub(crate) struct OrgContext {
    pub(crate) org: OrgId,
    pub(crate) retention_days: Option<i32>,
    pub(crate) prices: Arc<PriceTable>,
    pub(crate) seals: SealKey,
}

impl OrgContext {
    /// The day on which an event of the given instant may be deleted: its day, the retention, and a day of grace.
    pub(crate) fn expire_day(&self, ts_us: i64) -> i32 {
        self.retention_days.map_or(NEVER_EXPIRES_DAY, |days| day_of(ts_us) + days + 1)
    }
}

/// The handle of one org.
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
        let sql = sql.into();
        let args = self.bind(args);
        let rows = match &self.place {
            Place::Sqlite(file) => {
                let read = Arc::clone(file);
                file.readers()
                    .read(self.id(), read, move |connection| sqlite::query(connection, &sql, &args))
                    .await?
            }
            Place::Postgres(engine) => engine.query(Some(self.id()), &sql, &args).await?,
        };
        rows.iter().map(T::from_row).collect()
    }

    /// Like [`Org::fetch`] for what a write has to know before it can begin: it does not wait behind the org's reads.
    pub(crate) async fn fetch_for_write<T: FromRow>(
        &self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let args = self.bind(args);
        let rows = match &self.place {
            Place::Sqlite(file) => {
                let file = Arc::clone(file);
                blocking(move || file.read(|connection| sqlite::query(connection, sql, &args))).await?
            }
            Place::Postgres(engine) => engine.query_for_write(Some(self.id()), sql, &args).await?,
        };
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

    /// Runs a statement and hands its rows one by one to `step`, which collects what it needs in `start`. For statements with
    /// more rows than memory should hold.
    pub(crate) async fn fold<A: Send + 'static>(
        &self,
        sql: String,
        args: Vec<Value>,
        start: A,
        mut step: impl FnMut(&mut A, &Row) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<A, StoreError> {
        let args = self.bind(args);
        let mut collected = start;
        match &self.place {
            Place::Sqlite(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    file.read(|connection| {
                        sqlite::for_each(connection, &sql, &args, |row| step(&mut collected, row))
                    })?;
                    Ok(collected)
                })
                .await
            }
            Place::Postgres(engine) => {
                engine.for_each(self.id(), &sql, &args, |row| step(&mut collected, row)).await?;
                Ok(collected)
            }
        }
    }

    /// Runs statements in one transaction; `args` begin at `$2`. Returns how many rows each changed.
    pub(crate) async fn execute_all(
        &self,
        statements: Vec<(String, Vec<Value>)>,
    ) -> Result<Vec<u64>, StoreError> {
        let statements: Vec<_> = statements.into_iter().map(|(sql, args)| (sql, self.bind(args))).collect();
        match &self.place {
            Place::Sqlite(file) => {
                let file = Arc::clone(file);
                blocking(move || file.write(|connection| sqlite::execute_all(connection, &statements))).await
            }
            Place::Postgres(engine) => engine.execute_all(Some(self.id()), &statements).await,
        }
    }

    fn bind(&self, mut args: Vec<Value>) -> Vec<Value> {
        args.insert(0, Value::from(self.id().as_str()));
        args
    }
}

/// Runs blocking work on the pool that is there for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // A fault of ours that what was given has met, and will meet again.
        Err(error) if error.is_panic() => Err(StoreError::Refused(format!("a store task panicked: {error}"))),
        Err(error) => Err(StoreError::Unavailable(format!("a store task ended early: {error}"))),
    }
}
