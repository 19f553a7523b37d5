//! The queue between accepting and applying events: a trait with two implementations.

pub mod memory;
pub mod redis;

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rustc_hash::FxHashMap;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;
use agentlens_store::{Applied, Org};

use self::redis::SHARDS;

/// The state of a batch that is durable.
#[derive(Debug)]
pub enum Receipt {
    /// It is applied, and the outcome of each event is known.
    Applied(Applied),
    /// It is in the queue and will be applied.
    Queued,
}

/// Why a batch was refused. Nothing of it is stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The queue, or the org's share of it, is full.
    #[error("the ingest queue is full")]
    Full {
        /// When to try again.
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
    /// Orgs whose batches failed and will be tried again by this process's worker.
    pub parked_orgs: u64,
    /// Orgs with a message that only a newer program can read, in the shards of this process's worker.
    pub blocked_orgs: u64,
    /// Batches that this process moved to the dead letters since it started.
    pub buried_batches: u64,
}

/// Counters of this process's worker, by shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    parked: [AtomicU64; SHARDS as usize],
    blocked: [AtomicU64; SHARDS as usize],
    pub(crate) buried: AtomicU64,
}

impl Counters {
    /// Sets how many orgs of a shard wait after a failure, and how many wait for a newer program.
    pub(crate) fn note_shard(&self, shard: u64, parked: usize, blocked: usize) {
        let place = usize::try_from(shard).unwrap_or(0);
        for (counts, count) in [(&self.parked, parked), (&self.blocked, blocked)] {
            if let Some(known) = counts.get(place) {
                known.store(count as u64, Ordering::Relaxed);
            }
        }
    }

    /// Adds the counters to the state of the queue.
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
    /// Makes a batch durable. Batches of one org keep the order of the calls.
    async fn publish(&self, org: &Org, batch: Batch) -> Result<Receipt, QueueError>;

    /// The number of events that wait to be applied, for each key of the org.
    async fn waiting(&self, org: &Org) -> Result<FxHashMap<String, i64>, QueueError>;

    /// Removes everything of an org that is deleted; returns how many messages and counters those were.
    async fn purge(&self, org: &OrgId) -> Result<u64, QueueError>;

    /// Whether the queue answers.
    async fn ping(&self) -> Result<(), QueueError>;

    /// How full the queue is, as last seen.
    fn status(&self) -> QueueStatus;
}

/// Approximate bytes that a batch takes in memory.
pub(crate) fn size_of_batch(batch: &Batch) -> usize {
    batch.events.iter().map(|event| 600 + event.payload.len() + event.metadata.len()).sum()
}
