//! Applying batches: what the worker does to an org's tables, in one transaction.
//!
//! The engines load what the plan needs (which batches are new, which ids are taken, the touched sessions and spans),
//! [`agentlens_domain::apply`] computes it, and the engines write it.

mod tables;

pub(crate) use tables::{
    AgentsTable, CellWrite, DaysTable, EventsTable, HoursTable, LedgerTable, SessionWrite, SessionsTable,
    SpansTable, TracesTable, UsageTable, span_rows, trace_rows,
};

use std::sync::Arc;

pub use agentlens_domain::batches::Applied;
use agentlens_domain::batches::Batch;

use super::{Org, Place};
use crate::engine;
use crate::engine::sqlite::SqliteFile;
use crate::error::StoreError;

/// What applying a group of batches did.
#[derive(Debug)]
pub struct ApplyReport {
    /// One for each batch, in order.
    pub batches: Vec<Applied>,
    /// The position of the last stored event of the org.
    pub last_position: i64,
    /// How far the search index reaches.
    pub indexed_position: i64,
}

/// A commit that readers see already. Nobody may be told that it is done before [`Commit::durable`] returns.
#[must_use]
pub struct Commit(Option<(Arc<SqliteFile>, u64)>);

impl Commit {
    /// Returns when the disk has it.
    pub async fn durable(self) -> Result<(), StoreError> {
        let Some((file, commit)) = self.0 else { return Ok(()) };
        super::blocking(move || file.sync(commit)).await
    }
}

/// What becomes of the transaction when everything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Commit,
    /// It was only tried out.
    RollBack,
}

impl Org {
    /// Tries out whether batches can be applied, and changes nothing.
    pub async fn try_apply(&self, batches: Arc<Vec<Batch>>, now_us: i64) -> Result<(), StoreError> {
        let context = self.context();
        match &self.place {
            Place::Sqlite(file) => {
                let file = file.clone();
                super::blocking(move || {
                    file.write(|connection| {
                        engine::sqlite::apply::apply(connection, &context, &batches, now_us, Ending::RollBack)
                    })
                })
                .await?;
            }
            Place::Postgres(engine) => {
                engine::postgres::apply::apply(engine, &context, &batches, now_us, Ending::RollBack).await?;
            }
        }
        Ok(())
    }

    /// Applies batches in one transaction: events, chain, sessions, agents, rollups, usage, ledger. All or nothing.
    pub async fn apply(&self, batches: Arc<Vec<Batch>>, now_us: i64) -> Result<ApplyReport, StoreError> {
        let (report, commit) = self.apply_ahead(batches, now_us).await?;
        commit.durable().await?;
        Ok(report)
    }

    /// Like [`Org::apply`], but does not wait for the disk, so that the next batches can be applied meanwhile.
    pub async fn apply_ahead(
        &self,
        batches: Arc<Vec<Batch>>,
        now_us: i64,
    ) -> Result<(ApplyReport, Commit), StoreError> {
        match &self.place {
            Place::Sqlite(file) => {
                let (file, context) = (file.clone(), self.context());
                super::blocking(move || {
                    let (report, commit) = file.write_ahead(|connection| {
                        engine::sqlite::apply::apply(connection, &context, &batches, now_us, Ending::Commit)
                    })?;
                    Ok((report, Commit(Some((file, commit)))))
                })
                .await
            }
            Place::Postgres(engine) => {
                let context = self.context();
                let report =
                    engine::postgres::apply::apply(engine, &context, &batches, now_us, Ending::Commit)
                        .await?;
                Ok((report, Commit(None)))
            }
        }
    }
}
