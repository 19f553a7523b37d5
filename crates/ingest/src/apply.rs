//! Applies batches so that a bad one does not affect the others. A panic counts as a refusal. If the store refuses a batch, the
//! refused events are searched.

use std::ops::Range;
use std::sync::Arc;

use agentlens_domain::batches::Batch;
use agentlens_domain::events::NewEvent;
use agentlens_domain::ledger::Refusals;
use agentlens_store::{ApplyReport, Commit, Org, StoreError};

/// Trials in the search for refused events. Parts that are not tried by then are refused as a whole.
const MAX_TRIALS: usize = 64;

/// Applies batches in one transaction.
pub(crate) async fn apply(org: &Org, batches: &Arc<Vec<Batch>>) -> Result<ApplyReport, StoreError> {
    let (org, batches) = (org.clone(), Arc::clone(batches));
    caught(tokio::spawn(async move { org.apply(batches, org.clock().now_us()).await })).await
}

/// Applies batches in one transaction, without waiting until it is on disk.
pub(crate) async fn apply_ahead(
    org: &Org,
    batches: &Arc<Vec<Batch>>,
) -> Result<(ApplyReport, Commit), StoreError> {
    let (org, batches) = (org.clone(), Arc::clone(batches));
    caught(tokio::spawn(async move { org.apply_ahead(batches, org.clock().now_us()).await })).await
}

/// Turns a panic into a refusal.
async fn caught<T>(applying: tokio::task::JoinHandle<Result<T, StoreError>>) -> Result<T, StoreError> {
    match applying.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(StoreError::Refused(format!("applying panicked: {error}"))),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// Finds the events of a batch that the store refuses; returns their indexes and the reason. Nothing is stored. The batch is
/// split in halves again and again, so few trials find a few bad events among thousands.
pub(crate) async fn refused_events(
    org: &Org,
    batch: &Batch,
    reason: String,
) -> Result<(Vec<usize>, String), StoreError> {
    let (mut refused, mut reason, mut trials) = (Vec::new(), reason, 0);
    let whole = 0..batch.events.len();
    let mut parts = if whole.len() < 2 {
        refused.extend(whole);
        Vec::new()
    } else {
        halves(whole)
    };
    while let Some(part) = parts.pop() {
        trials += 1;
        if trials > MAX_TRIALS {
            refused.extend(part);
            continue;
        }
        let trial = part_of(batch, batch.events.get(part.clone()).unwrap_or_default().to_vec());
        match try_out(org, trial).await {
            Ok(()) => {}
            Err(error) if !error.is_of_input() => return Err(error),
            Err(_) if part.len() > 1 => parts.extend(halves(part)),
            Err(error) => {
                reason = error.to_string();
                refused.extend(part);
            }
        }
    }
    refused.sort_unstable();
    Ok((refused, reason))
}

/// A copy of a batch with other events.
pub(crate) fn part_of(batch: &Batch, events: Vec<NewEvent>) -> Batch {
    Batch {
        batch_id: batch.batch_id.clone(),
        workspace_id: batch.workspace_id.clone(),
        environment: batch.environment.clone(),
        key_id: batch.key_id.clone(),
        received_us: batch.received_us,
        received_count: u32::try_from(events.len()).unwrap_or(u32::MAX),
        refused: Refusals::default(),
        events,
    }
}

/// The second half comes first, because the caller takes the last element next.
fn halves(range: Range<usize>) -> Vec<Range<usize>> {
    let middle = range.start + range.len() / 2;
    vec![middle..range.end, range.start..middle]
}

async fn try_out(org: &Org, batch: Batch) -> Result<(), StoreError> {
    let org = org.clone();
    caught(tokio::spawn(async move { org.try_apply(Arc::new(vec![batch]), org.clock().now_us()).await }))
        .await
}

/// Removes events from a batch by their sorted indexes, and returns them.
pub(crate) fn take_events(batch: &mut Batch, indexes: &[usize]) -> Vec<NewEvent> {
    let all = std::mem::take(&mut batch.events);
    let mut taken = Vec::with_capacity(indexes.len());
    for (index, event) in all.into_iter().enumerate() {
        if indexes.binary_search(&index).is_ok() {
            taken.push(event);
        } else {
            batch.events.push(event);
        }
    }
    taken
}
