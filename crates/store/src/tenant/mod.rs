//! The data of an org and of its workspaces, a file for each noun.
//!
//! An [`Org`] binds the org as `$1` of every statement it runs, and a [`Workspace`] also binds the workspace as `$2`. Once they
//! are opened, no function of theirs takes an id of either, so no caller can name another one. Nouns are views of a handle:
//! `workspace.sessions().list(..)`, `org.ledger().counts()`.
//!
//! On PostgreSQL each statement also runs in a transaction that names the org and the workspace to row security; on SQLite the
//! handle holds the org's own file.

mod agents;
mod analytics;
mod apply;
mod chains;
mod dead_letters;
mod edges;
mod events;
mod figures;
mod ingest_requests;
mod ledger;
mod numbers;
mod org;
mod org_state;
mod partitions;
mod place;
mod prices;
mod recording;
mod recount;
mod recount_cells;
mod removals;
mod retention;
mod rollups;
mod seal;
mod sealed_rows;
mod sessions;
mod spans;
mod workspace;

pub use agents::{AgentRow, Agents};
pub use analytics::{Analytics, CellQuery, CellRow, WorkspaceStats};
pub(crate) use apply::{
    AgentsTable, CellWrite, DaysTable, Ending, EventsTable, HoursTable, LedgerTable, SessionWrite,
    SessionsTable, SpansTable, TracesTable, UsageTable, span_rows, trace_rows,
};
pub use apply::{Applied, ApplyReport, Commit};
pub use chains::{BrokenChain, ChainReport, Chains, OrgChains, SessionChain};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use events::{
    EventFilter, EventPage, Events, Order, SearchPage, Segments, StoredEvent, StreamPlace, StreamPlaces,
};
pub use figures::{Figures, TableKey, TableOrder, TablePage, TablePlace, provider_and_model};
pub use ingest_requests::{IngestRequestRow, IngestRequests, MAX_REQUESTS_PER_KEY};
pub use ledger::{Ledger, LedgerRow};
pub use org::Org;
pub(crate) use org_state::{INSERT_STATE, LOCK_STATE, OrgStateRow, lock_state, put_state};
pub use partitions::{DroppedPartitions, RETENTION_JOB};
pub(crate) use partitions::{drop_partitions, make_partitions};
pub(crate) use place::Place;
pub use prices::Prices;
pub(crate) use prices::embedded as embedded_prices;
pub use removals::{OrgRemovals, Removal, RemovalOrder, RemovalReason, Removals};
pub use retention::Retention;
pub(crate) use rollups::merged_latency;
pub(crate) use sealed_rows::{
    SPAN_STATE, SealedRow, SpanSeal, TRACE_STATE, TraceSeal, is_authentic_span, is_authentic_trace,
};
pub use sessions::{SessionFilter, SessionPage, SessionRow, Sessions};
pub use spans::{SpanRow, Spans, span_address};
pub use workspace::Workspace;

use crate::error::StoreError;

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
