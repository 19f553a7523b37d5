//! Batches: the accepted events of one request on their way from the gateway to an org's tables.

use serde::{Deserialize, Serialize};

use crate::events::NewEvent;
use crate::ids::{BatchId, KeyId, WorkspaceId};
use crate::ledger::Refusals;

/// What one request brought, after validation. The org is not in it: it is the handle that the batch is applied to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Applying the same batch twice has the effect of once.
    pub batch_id: BatchId,
    /// The workspace of the key.
    pub workspace_id: WorkspaceId,
    /// The environment of the key.
    pub environment: String,
    /// The key that sent it.
    pub key_id: KeyId,
    /// When it was accepted, in microseconds UTC.
    pub received_us: i64,
    /// How many events the request held, refused ones included.
    pub received_count: u32,
    /// What validation refused.
    pub refused: Refusals,
    /// The accepted events in the order of the request.
    pub events: Vec<NewEvent>,
}

/// What became of one accepted event when it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, chained and counted.
    Stored {
        /// Its hash in the chain of its session.
        hash: [u8; 32],
    },
    /// The same event was stored before.
    Duplicate,
    /// Its id was used before for another content; it is not stored.
    Conflict,
    /// The store refused it; it is not stored.
    Refused,
}
