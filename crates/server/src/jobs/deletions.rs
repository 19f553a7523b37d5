//! Purges orgs whose deletion can no longer be undone: what waits in the queue, then everything in the store.

use std::sync::Arc;
use std::time::Duration;

use agentlens_ingest::Queue;
use agentlens_store::{DuePurge, Store, StoreError};

use super::Schedule;

pub(super) const SCHEDULE: Schedule = Schedule {
    name: "deletions",
    about: "delete everything of orgs whose deletion can no longer be undone",
    every: Duration::from_secs(10),
    deadline: Duration::from_secs(1800),
    parallel: 1,
};

/// One run; returns how many rows were deleted. An org that can't be purged keeps no other from it.
pub(super) async fn run(store: Store, queue: Option<Arc<dyn Queue>>) -> Result<u64, StoreError> {
    let queue = queue.ok_or_else(|| {
        StoreError::Refused("orgs are purged by a running server, which reaches the queue".to_owned())
    })?;
    let (mut deleted, mut failure) = (0, None);
    for due in store.begin_purges().await? {
        match purge(&store, &*queue, &due).await {
            Ok(rows) => deleted += rows,
            Err(error) => {
                tracing::error!(receipt.id = due.receipt_id, error = %error, "an org can't be purged; it is tried again");
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(deleted), Err)
}

async fn purge(store: &Store, queue: &dyn Queue, due: &DuePurge) -> Result<u64, StoreError> {
    let waiting = queue.purge(&due.org).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    store.note_purged(due, "queue", i64::try_from(waiting).unwrap_or(i64::MAX)).await?;
    let deleted = store.purge(due).await?;
    tracing::info!(receipt.id = due.receipt_id, rows = deleted, "an org is deleted");
    Ok(deleted)
}
