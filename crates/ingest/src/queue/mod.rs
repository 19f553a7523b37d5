//! The queue between accepting and applying: one trait, two real implementations.

pub mod memory;
pub mod redis;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rustc_hash::FxHashMap;

use agentlens_domain::batches::Batch;
use agentlens_store::{Applied, Org};

use self::redis::SHARDS;

/// The queue's result for a durable batch, returned to the gateway.
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
    /// Orgs whose batches failed and are retried after a pause, by this process's worker.
    pub parked_orgs: u64,
    /// Orgs with a message that only a newer version can read, in the shards of this process's worker.
    pub blocked_orgs: u64,
    /// Batches that this process moved to the dead letters since it started.
    pub buried_batches: u64,
}

/// What the worker of a process counts, by shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    parked: [AtomicU64; SHARDS as usize],
    blocked: [AtomicU64; SHARDS as usize],
    pub(crate) buried: AtomicU64,
}

impl Counters {
    /// Notes how many orgs of a shard wait after a failure, and for a newer version.
    pub(crate) fn note_shard(&self, shard: u64, parked: usize, blocked: usize) {
        let place = usize::try_from(shard).unwrap_or(0);
        for (counts, count) in [(&self.parked, parked), (&self.blocked, blocked)] {
            if let Some(known) = counts.get(place) {
                known.store(count as u64, Ordering::Relaxed);
            }
        }
    }

    /// Adds the counts to what else is known of the queue.
    pub(crate) fn status(&self, batches: u64, bytes: u64) -> QueueStatus {
        let sum = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        QueueStatus {
            batches,
            bytes,
            parked_orgs: sum(&self.parked),
            blocked_orgs: sum(&self.blocked),
            buried_batches: self.buried.load(Ordering::Relaxed),
        }
    }
}

/// A queue of batches. Cheap to share.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Makes a batch durable, in the order of the calls for one org.
    async fn publish(&self, org: &Org, batch: Batch) -> Result<Receipt, QueueError>;

    /// How many events of each of the org's keys wait to be applied.
    async fn waiting(&self, org: &Org) -> Result<FxHashMap<String, i64>, QueueError>;

    /// Whether the queue answers.
    async fn ping(&self) -> Result<(), QueueError>;

    /// How full the queue is, as last seen.
    fn status(&self) -> QueueStatus;
}

/// Bytes that a batch takes in memory, about.
pub(crate) fn size_of_batch(batch: &Batch) -> usize {
    batch.events.iter().map(|event| 600 + event.payload.len() + event.metadata.len()).sum()
}
