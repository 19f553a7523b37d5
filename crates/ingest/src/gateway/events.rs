//! Events that were made from items of another protocol, such as OTLP. Their ids are ours and they are already validated. Here only
//! the org's retention is checked, and they become durable.

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::events::{NewEvent, Refusal};
use agentlens_domain::ids::BatchId;
use agentlens_domain::ledger::Refusals;
use agentlens_domain::limits::MAX_BATCH_EVENTS;
use agentlens_store::{Applied, Org};

use super::{Gateway, IngestError, Sender, clash, within_environment, within_retention};
use crate::queue::Receipt;

/// A batch is closed once its payloads have this many bytes. Canonical JSON can be several times as large as the request, and a
/// message of the queue has a size limit.
const MAX_BATCH_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// One request whose items were already read into events.
#[derive(Debug)]
pub struct EventsRequest {
    /// The sender.
    pub sender: Sender,
    /// The server's clock, microseconds UTC.
    pub now_us: i64,
    /// The number of items in the request, including refused ones.
    pub received_count: usize,
    /// The events that were made from them.
    pub events: Vec<NewEvent>,
    /// The items that were already refused.
    pub refused: Refusals,
}

impl Gateway {
    /// Ingests the events of one request and returns the refused ones; all others are durable on return. A request that is too
    /// large for one batch becomes several. If one of those fails, the client can send the whole request again, because
    /// duplicates are stored once.
    pub async fn ingest_events(
        &self,
        org: &Org,
        request: EventsRequest,
    ) -> Result<Vec<Refusal>, IngestError> {
        let EventsRequest { sender, now_us, received_count, events, mut refused } = request;
        let mut refusals = Vec::new();
        if received_count == 0 {
            return Ok(refusals);
        }
        let retention_days = org.retention_days();
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            let checked = within_retention(&event, now_us, retention_days)
                .and_then(|()| within_environment(&event, &sender));
            match checked {
                Ok(()) => kept.push(event),
                Err(mut refusal) => {
                    refusal.message.push_str(&place_of(&event));
                    refused.add(refusal.reason);
                    refusals.push(refusal);
                }
            }
        }
        let mut uncounted = received_count;
        let mut parts = split(kept).into_iter().peekable();
        while let Some(events) = parts.next() {
            // Refused items are counted in the ledger with the last batch.
            let count = if parts.peek().is_none() { uncounted } else { events.len() };
            uncounted = uncounted.saturating_sub(count);
            let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
            let batch = Batch {
                batch_id: BatchId::at(now_us),
                workspace_id: sender.workspace_id.clone(),
                environment: sender.environment.clone(),
                key_id: sender.key_id.clone(),
                received_us: now_us,
                received_count: u32::try_from(count).unwrap_or(u32::MAX),
                refused: if parts.peek().is_none() {
                    std::mem::take(&mut refused)
                } else {
                    Refusals::default()
                },
                events,
            };
            let receipt = self.queue.publish(org, batch).await.map_err(IngestError::Queue)?;
            refusals.extend(clashes(&ids, &receipt));
        }
        Ok(refusals)
    }
}

/// Names the item of an event by its trace and span, because the client does not know the event's id.
fn place_of(event: &NewEvent) -> String {
    match &event.span {
        Some(arrival) => format!(" (span {} of trace {})", arrival.span_id, arrival.trace_id),
        None => format!(" (session {})", event.session_id),
    }
}

/// The events that were not stored, because their id is used by another one.
fn clashes(ids: &[String], receipt: &Receipt) -> Vec<Refusal> {
    let Receipt::Applied(Applied::Now(outcomes)) = receipt else { return Vec::new() };
    let outcomes = ids.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Conflict);
    outcomes.map(|(id, _)| clash(id)).collect()
}

/// Splits events into batches, in order. Without events there is one empty batch.
fn split(events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0usize);
    for event in events {
        let size = event.payload.len() + event.metadata.len();
        let is_full = part.len() >= MAX_BATCH_EVENTS || bytes + size > MAX_BATCH_PAYLOAD_BYTES;
        if is_full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(event);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use agentlens_domain::events::{AcceptContext, accept};
    use agentlens_domain::ids::UlidSequence;

    use super::*;

    fn event(text: &str) -> NewEvent {
        let now_us = 1_767_323_045_678_000;
        let mut ids = UlidSequence::at(now_us);
        let mut context = AcceptContext { now_us, ids: &mut ids, idempotency: None };
        let raw = format!(
            r#"{{"sessionId":"s","agentId":"a","eventType":"custom","payload":{{"type":"t","data":{{"text":"{text}"}}}}}}"#
        );
        accept(&raw, 0, &mut context).unwrap()
    }

    #[test]
    fn large_requests_become_several_batches() {
        let sizes = |events| split(events).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0]);
        assert_eq!(sizes(vec![event("x"); MAX_BATCH_EVENTS]), [MAX_BATCH_EVENTS]);
        assert_eq!(sizes(vec![event("x"); MAX_BATCH_EVENTS + 1]), [MAX_BATCH_EVENTS, 1]);
        let large = event(&"x".repeat(1_000_000));
        assert_eq!(sizes(vec![large; 70]), [33, 33, 4]);
    }
}
