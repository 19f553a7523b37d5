//! Events that were made out of another protocol's items. They were validated where they were made and their ids are
//! ours, so what is left is the org's retention, and to be durable on return.

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::events::{NewEvent, Refusal};
use agentlens_domain::ids::BatchId;
use agentlens_domain::ledger::Refusals;
use agentlens_domain::limits::MAX_BATCH_EVENTS;
use agentlens_store::{Applied, Org};

use super::{Gateway, IngestError, Sender, clash, within_environment, within_retention};
use crate::queue::Receipt;

/// Bytes of payloads after which a batch is closed. A request of the largest size can become several times as large in
/// canonical JSON, and a message of the queue must stay readable.
const MAX_BATCH_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// One request whose items are events already.
#[derive(Debug)]
pub struct EventsRequest {
    /// Who sends.
    pub sender: Sender,
    /// The server's clock, microseconds UTC.
    pub now_us: i64,
    /// How many items the request held, refused ones included.
    pub received_count: usize,
    /// The events that were made of them.
    pub events: Vec<NewEvent>,
    /// What was refused before.
    pub refused: Refusals,
}

impl Gateway {
    /// Takes the events of one request and returns what was refused; all others are durable on return. A request that is
    /// too large for one batch becomes several: if one of them fails, the whole may be sent again, for repeats are stored
    /// once.
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
            // The last part also counts what was refused.
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

/// Where a client finds the item of an event, whose id it does not know.
fn place_of(event: &NewEvent) -> String {
    match &event.span {
        Some(arrival) => format!(" (span {} of trace {})", arrival.span_id, arrival.trace_id),
        None => format!(" (session {})", event.session_id),
    }
}

/// The events that were not stored, because another one has their id.
fn clashes(ids: &[String], receipt: &Receipt) -> Vec<Refusal> {
    let Receipt::Applied(Applied::Now(outcomes)) = receipt else { return Vec::new() };
    let outcomes = ids.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Conflict);
    outcomes.map(|(id, _)| clash(id)).collect()
}

/// The events in parts of a batch's size, in their order; one empty part if there are none.
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
