//! The gateway reads the events of a request, puts the accepted ones into the queue, and reports why it refused the others.

mod events;
mod split;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::events::{AcceptContext, Idempotency, NewEvent, Refusal, accept};
use agentlens_domain::ids::{BatchId, KeyId, UlidSequence, WorkspaceId};
use agentlens_domain::ledger::{Reason, Refusals};
use agentlens_domain::limits::{MAX_DECOMPRESSED_BYTES, MAX_IDEMPOTENCY_KEY_BYTES};
use agentlens_domain::time::DAY_US;
use agentlens_store::{Applied, Org, StoreError};

pub use self::events::EventsRequest;
use crate::queue::{Queue, QueueError, Receipt};

/// How long the store may take to say which ids are already used.
const CLASH_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bodies above this many bytes are read on the blocking pool.
pub const LARGE_BODY_BYTES: usize = 512 * 1024;

/// The sender of a request, taken from its credential.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The key.
    pub key_id: KeyId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The environment of events that don't name one.
    pub environment: String,
    /// Whether events that name another environment are refused.
    pub is_environment_bound: bool,
}

/// One request.
#[derive(Debug)]
pub struct IngestRequest {
    /// The sender.
    pub sender: Sender,
    /// The decompressed body.
    pub body: Bytes,
    /// The `Idempotency-Key`, if any.
    pub idempotency_key: Option<String>,
    /// Whether all events are refused if one of them is.
    pub strict: bool,
    /// The server's clock, microseconds UTC.
    pub now_us: i64,
}

/// The outcome of one event of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventResult {
    /// It is stored or durably queued.
    Accepted {
        /// Its id.
        id: String,
        /// Its hash in the chain; absent while it is only queued.
        hash: Option<[u8; 32]>,
        /// Whether the same event was stored before. It is stored once.
        is_duplicate: bool,
    },
    /// It is not stored.
    Refused(Refusal),
}

/// The outcomes of the events of a request, in their order.
#[derive(Debug, Default)]
pub struct IngestReport {
    /// One for each event.
    pub results: Vec<EventResult>,
}

/// Why a whole request was refused. Nothing of it is stored.
#[derive(Debug)]
pub enum IngestError {
    /// The body is not JSON of the expected form.
    InvalidBody(String),
    /// The body is an object without events; the text describes what is allowed.
    NoEvents(String),
    /// The batch is empty.
    EmptyBatch,
    /// The batch has more events than the limit. The number is not known, because reading stopped there.
    TooManyEvents,
    /// The `Idempotency-Key` is too long.
    InvalidIdempotencyKey,
    /// The request was all or nothing, and these events were refused.
    Strict(IngestReport),
    /// The queue refused it.
    Queue(QueueError),
    /// The store is unavailable.
    Store(StoreError),
}

/// Accepts requests and puts their events into the queue.
#[derive(Clone)]
pub struct Gateway {
    queue: Arc<dyn Queue>,
}

impl Gateway {
    /// A gateway that writes to a queue.
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue }
    }

    /// The queue.
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.queue
    }

    /// Ingests one request. Each event is accepted or refused on its own, and the accepted ones are durable on return.
    pub async fn ingest(&self, org: &Org, request: IngestRequest) -> Result<IngestReport, IngestError> {
        let retention_days = org.retention_days();
        let parsed = if request.body.len() > LARGE_BODY_BYTES {
            let parse = move || Parsed::read(request, retention_days);
            tokio::task::spawn_blocking(parse)
                .await
                .map_err(|error| IngestError::Queue(QueueError::Unavailable(error.to_string())))??
        } else {
            Parsed::read(request, retention_days)?
        };
        self.publish(org, parsed).await
    }

    async fn publish(&self, org: &Org, mut parsed: Parsed) -> Result<IngestReport, IngestError> {
        parsed.refuse_known_clashes(org).await.map_err(IngestError::Store)?;
        let is_refused_whole = parsed.request.strict && !parsed.refusals.is_empty();
        if is_refused_whole {
            parsed
                .refused
                .add_many(Reason::StrictBatch, u32::try_from(parsed.events.len()).unwrap_or(u32::MAX));
            parsed.events.clear();
        }
        let batch = parsed.batch();
        let ids: Vec<(usize, String)> = std::mem::take(&mut parsed.places)
            .into_iter()
            .zip(batch.events.iter().map(|event| event.id.clone()))
            .collect();
        let receipt = self.queue.publish(org, batch).await.map_err(IngestError::Queue)?;
        let report = parsed.report(ids, &receipt);
        if is_refused_whole { Err(IngestError::Strict(report)) } else { Ok(report) }
    }
}

/// A request whose events have been read.
struct Parsed {
    request: IngestRequest,
    count: usize,
    events: Vec<NewEvent>,
    /// The index in the request of each of `events`.
    places: Vec<usize>,
    refusals: Vec<(usize, Refusal)>,
    refused: Refusals,
}

impl Parsed {
    fn read(mut request: IngestRequest, retention_days: Option<i32>) -> Result<Self, IngestError> {
        if request.idempotency_key.as_ref().is_some_and(|key| key.len() > MAX_IDEMPOTENCY_KEY_BYTES) {
            return Err(IngestError::InvalidIdempotencyKey);
        }
        // Frees the body: the batch that was read from it may wait for a long time.
        let body = std::mem::take(&mut request.body);
        let raws = split::split(&body)?;
        if raws.is_empty() {
            return Err(IngestError::EmptyBatch);
        }
        let idempotency = request
            .idempotency_key
            .as_deref()
            .filter(|key| !key.is_empty())
            .map(|key| Idempotency::new(request.sender.key_id.as_str(), key));
        let mut ids = UlidSequence::at(request.now_us);
        let mut context =
            AcceptContext { now_us: request.now_us, ids: &mut ids, idempotency: idempotency.as_ref() };
        let mut parsed = Self {
            count: raws.len(),
            events: Vec::with_capacity(raws.len()),
            places: Vec::with_capacity(raws.len()),
            refusals: Vec::new(),
            refused: Refusals::default(),
            request,
        };
        let mut bytes = 0;
        for (index, raw) in raws.iter().enumerate() {
            match accept(raw.get(), index, &mut context)
                .and_then(|event| within_retention(&event, context.now_us, retention_days).map(|()| event))
                .and_then(|event| within_environment(&event, &parsed.request.sender).map(|()| event))
                .and_then(|event| within_batch(&event, &mut bytes).map(|()| event))
            {
                Ok(event) => {
                    parsed.events.push(event);
                    parsed.places.push(index);
                }
                Err(refusal) => parsed.refuse(index, refusal),
            }
        }
        Ok(parsed)
    }

    fn refuse(&mut self, index: usize, refusal: Refusal) {
        self.refused.add(refusal.reason);
        self.refusals.push((index, refusal));
    }

    /// Refuses events whose id is used for another content. The worker would refuse them too, but the client would not see the
    /// error.
    async fn refuse_known_clashes(&mut self, org: &Org) -> Result<(), StoreError> {
        let ids: Vec<String> = self
            .events
            .iter()
            .filter(|event| event.content_digest.is_some())
            .map(|event| event.id.clone())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        let known = self.known_digests(org, ids).await?;
        let mut taken: FxHashMap<String, [u8; 16]> = FxHashMap::default();
        let (mut events, mut places) =
            (Vec::with_capacity(self.events.len()), Vec::with_capacity(self.places.len()));
        for (event, place) in
            std::mem::take(&mut self.events).into_iter().zip(std::mem::take(&mut self.places))
        {
            let Some(digest) = event.content_digest else {
                events.push(event);
                places.push(place);
                continue;
            };
            let stored = known
                .get(&event.id)
                .copied()
                .unwrap_or_else(|| *taken.entry(event.id.clone()).or_insert(digest));
            if stored == digest {
                events.push(event);
                places.push(place);
            } else {
                self.refuse(place, clash(&event.id));
            }
        }
        (self.events, self.places) = (events, places);
        Ok(())
    }

    /// The content digests of the events that are stored under these ids. If the store is unavailable or slow, the check is
    /// skipped: the writer repeats it and counts what it refuses. Only a request that is all or nothing fails.
    async fn known_digests(
        &self,
        org: &Org,
        ids: Vec<String>,
    ) -> Result<FxHashMap<String, [u8; 16]>, StoreError> {
        let workspace = org.workspace(&self.request.sender.workspace_id);
        let asking = workspace.events().key_digests(ids);
        if self.request.strict {
            return Ok(asking.await?.into_iter().collect());
        }
        match tokio::time::timeout(CLASH_CHECK_TIMEOUT, asking).await {
            Ok(Ok(known)) => Ok(known.into_iter().collect()),
            Ok(Err(error)) if error.is_transient() => Ok(FxHashMap::default()),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(FxHashMap::default()),
        }
    }

    fn batch(&mut self) -> Batch {
        Batch {
            batch_id: BatchId::at(self.request.now_us),
            workspace_id: self.request.sender.workspace_id.clone(),
            environment: self.request.sender.environment.clone(),
            key_id: self.request.sender.key_id.clone(),
            received_us: self.request.now_us,
            received_count: u32::try_from(self.count).unwrap_or(u32::MAX),
            refused: std::mem::take(&mut self.refused),
            events: std::mem::take(&mut self.events),
        }
    }

    fn report(self, ids: Vec<(usize, String)>, receipt: &Receipt) -> IngestReport {
        let mut results: Vec<Option<EventResult>> = vec![None; self.count];
        for (order, (place, id)) in ids.into_iter().enumerate() {
            let outcome = match receipt {
                Receipt::Applied(Applied::Now(outcomes)) => outcomes.get(order),
                Receipt::Applied(Applied::Before) | Receipt::Queued => None,
            };
            results[place] = Some(match outcome {
                Some(Outcome::Stored { hash }) => {
                    EventResult::Accepted { id, hash: Some(*hash), is_duplicate: false }
                }
                Some(Outcome::Duplicate) => EventResult::Accepted { id, hash: None, is_duplicate: true },
                Some(Outcome::Conflict) => EventResult::Refused(clash(&id)),
                Some(Outcome::Refused) => EventResult::Refused(Refusal {
                    field: "event".to_owned(),
                    reason: Reason::StoreRefused,
                    message: "the store refused this event; its neighbours are stored".to_owned(),
                }),
                None => EventResult::Accepted { id, hash: None, is_duplicate: false },
            });
        }
        for (place, refusal) in self.refusals {
            results[place] = Some(EventResult::Refused(refusal));
        }
        let strict = || Refusal {
            field: "event".to_owned(),
            reason: Reason::StrictBatch,
            message: "not stored because another event of the strict batch was refused".to_owned(),
        };
        IngestReport {
            results: results
                .into_iter()
                .map(|result| result.unwrap_or_else(|| EventResult::Refused(strict())))
                .collect(),
        }
    }
}

fn clash(id: &str) -> Refusal {
    Refusal {
        field: "id".to_owned(),
        reason: Reason::IdConflict,
        message: format!("the id {id} was used before for an event with another content"),
    }
}

/// The canonical form of a text can be several times as long (`1e20` has 21 digits), so the total size of the events is limited
/// too.
fn within_batch(event: &NewEvent, bytes: &mut usize) -> Result<(), Refusal> {
    *bytes += event.payload.len() + event.metadata.len();
    if *bytes <= MAX_DECOMPRESSED_BYTES {
        return Ok(());
    }
    Err(Refusal {
        field: "payload".to_owned(),
        reason: Reason::TooLarge,
        message: format!(
            "the events of the request hold more than {MAX_DECOMPRESSED_BYTES} bytes together; send smaller batches"
        ),
    })
}

/// Refuses events of another environment if the key is bound to its own.
fn within_environment(event: &NewEvent, sender: &Sender) -> Result<(), Refusal> {
    let named = event.environment.as_deref().filter(|_| sender.is_environment_bound);
    let Some(named) = named.filter(|named| *named != sender.environment) else { return Ok(()) };
    Err(Refusal {
        field: "environment".to_owned(),
        reason: Reason::EnvironmentMismatch,
        message: format!(
            "the key is bound to the environment `{}`, and the event names `{named}`; send it with another key",
            sender.environment
        ),
    })
}

/// Refuses events that are older than the org's retention, because they would be deleted at once.
fn within_retention(event: &NewEvent, now_us: i64, retention_days: Option<i32>) -> Result<(), Refusal> {
    let Some(days) = retention_days else { return Ok(()) };
    if event.ts_us >= now_us - i64::from(days) * DAY_US {
        return Ok(());
    }
    Err(Refusal {
        field: "timestamp".to_owned(),
        reason: Reason::InvalidTimestamp,
        message: format!("timestamp lies before the {days} days that this org keeps events"),
    })
}
