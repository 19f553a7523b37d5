//! The queue between accepting and applying: one trait, two real implementations.

pub mod memory;
pub mod redis;

use async_trait::async_trait;
use rustc_hash::FxHashMap;

use agentlens_domain::batches::Batch;
use agentlens_store::{Applied, Tenant};

/// What the queue says to the gateway once a batch is durable.
#[derive(Debug)]
pub enum Receipt {
    /// It is applied; the outcome of each event is known.
    Applied(Applied),
    /// It is in the queue and will be applied.
    Queued,
}

/// Why a batch was not taken; nothing of it is kept then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// Too much is waiting.
    #[error("the ingest queue is full")]
    Full {
        /// When to come back.
        retry_after_s: u32,
    },
    /// The queue or the store behind it can't be reached.
    #[error("the ingest queue is unavailable: {0}")]
    Unavailable(String),
    /// The batch was refused; sending it again does not help.
    #[error("the batch was refused: {0}")]
    Refused(String),
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Batches waiting.
    pub batches: u64,
    /// Bytes waiting.
    pub bytes: u64,
}

/// A queue of batches. Cheap to share.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Makes a batch durable, in the order of the calls for one org.
    async fn publish(&self, tenant: &Tenant, batch: Batch) -> Result<Receipt, QueueError>;

    /// How many events of each of the org's keys wait to be applied.
    async fn waiting(&self, tenant: &Tenant) -> Result<FxHashMap<String, i64>, QueueError>;

    /// How full the queue is, as last seen.
    fn status(&self) -> QueueStatus;
}
