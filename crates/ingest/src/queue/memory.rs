//! The in-process queue: a bounded channel to each org's writer, which commits all waiting batches as one group.
//!
//! A request is answered when its commit is on disk, so a 202 means durable without a second copy. While one group is synced, the
//! next is applied and a third collects. Under load groups grow, so more events share the cost of a sync.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::ids::OrgId;
use agentlens_domain::ledger::Reason;
use agentlens_fairness::{FairShare, Rule, Share};
use agentlens_store::{Applied, ApplyReport, Org, StoreError};

use super::{Queue, QueueError, QueueStatus, Receipt, size_of_batch};
use crate::apply;
use crate::indexer::Indexer;
use crate::live::Live;

/// The most batches of one org that wait.
const MAX_WAITING_BATCHES: usize = 512;
/// The most bytes of all orgs together that wait. However much one org sends, another one always finds room.
const MAX_WAITING_BYTES: u64 = 128 << 20;
/// A single org can take two thirds of them, which is more than the largest batch.
const WAITING_GREED: u64 = 2;
/// Events in one group commit: enough to share the cost of a sync, and few enough that the next group can collect meanwhile.
const MAX_GROUP_EVENTS: usize = 2_000;
/// The `Retry-After` of a refusal.
const RETRY_AFTER_S: u32 = 1;
/// A writer without work stops after this long.
const IDLE: Duration = Duration::from_secs(60);
/// How often a new writer is tried when the current one is stopping and takes no more jobs.
const MAX_WRITERS_TRIED: usize = 3;

struct Job {
    org: Org,
    batch: Batch,
    reply: oneshot::Sender<Result<Applied, QueueError>>,
    room: Room,
}

/// The number of waiting batches, and of waiting events by org and key.
#[derive(Default)]
struct Waiting {
    batches: u64,
    orgs: FxHashMap<OrgId, FxHashMap<String, i64>>,
}

/// A waiting batch. It occupies its share of the queue until this is dropped, even if its client is gone.
struct Room {
    waiting: Arc<Mutex<Waiting>>,
    org: OrgId,
    key: String,
    events: i64,
    _bytes: Share<OrgId>,
}

impl Room {
    fn take(waiting: &Arc<Mutex<Waiting>>, bytes: Share<OrgId>, org: &OrgId, batch: &Batch) -> Self {
        let (key, events) = (batch.key_id.as_str().to_owned(), i64::from(batch.received_count));
        {
            let mut all = waiting.lock();
            all.batches += 1;
            *all.orgs.entry(org.clone()).or_default().entry(key.clone()).or_default() += events;
        }
        Self { waiting: Arc::clone(waiting), org: org.clone(), key, events, _bytes: bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut all = self.waiting.lock();
        all.batches -= 1;
        let Some(keys) = all.orgs.get_mut(&self.org) else { return };
        if let Some(events) = keys.get_mut(&self.key) {
            *events -= self.events;
            if *events <= 0 {
                keys.remove(&self.key);
            }
        }
        if keys.is_empty() {
            all.orgs.remove(&self.org);
        }
    }
}

/// The channel to each org's writer.
type Writers = Arc<Mutex<FxHashMap<OrgId, mpsc::Sender<Job>>>>;

/// The queue of a process that applies its own batches.
pub struct MemoryQueue {
    writers: Writers,
    waiting: Arc<Mutex<Waiting>>,
    bytes: FairShare<OrgId>,
    tasks: TaskTracker,
    live: Live,
    indexer: Indexer,
}

impl MemoryQueue {
    /// A queue whose writers run on `tasks`; `index_text` says whether payload texts are indexed for search.
    pub fn new(tasks: TaskTracker, live: Live, index_text: bool) -> Self {
        let indexer = Indexer::new(tasks.clone(), index_text);
        let bytes = FairShare::new(Rule::new(MAX_WAITING_BYTES).with_greed(WAITING_GREED));
        Self { writers: Arc::default(), waiting: Arc::default(), bytes, tasks, live, indexer }
    }

    /// The channel to the org's writer, which is started if it does not run.
    fn writer(&self, org: &OrgId) -> mpsc::Sender<Job> {
        let mut writers = self.writers.lock();
        if let Some(sender) = writers.get(org).filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
        writers.insert(org.clone(), sender.clone());
        let writer = Writer {
            org: org.clone(),
            receiver,
            writers: Arc::downgrade(&self.writers),
            live: self.live.clone(),
            indexer: self.indexer.clone(),
            tasks: self.tasks.clone(),
            answering: None,
        };
        self.tasks.spawn(writer.run());
        sender
    }

    fn send(&self, mut job: Job) -> Result<(), QueueError> {
        let org = job.org.id().clone();
        for _ in 0..MAX_WRITERS_TRIED {
            match self.writer(&org).try_send(job) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(full()),
                // The writer had no work and is stopping. A new one will be started.
                Err(TrySendError::Closed(returned)) => job = returned,
            }
        }
        Err(QueueError::Unavailable("the writer stopped".to_owned()))
    }
}

fn full() -> QueueError {
    QueueError::Full { retry_after_s: RETRY_AFTER_S }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, org: &Org, batch: Batch) -> Result<Receipt, QueueError> {
        // The largest batch may be a little larger than an org's share. Without this limit it would be refused forever.
        let size = (size_of_batch(&batch) as u64).min(self.bytes.rule().most());
        let bytes = self.bytes.try_take(org.id(), size).map_err(|_| full())?;
        let room = Room::take(&self.waiting, bytes, org.id(), &batch);
        let (reply, answer) = oneshot::channel();
        self.send(Job { org: org.clone(), batch, reply, room })?;
        match answer.await {
            Ok(result) => result.map(Receipt::Applied),
            Err(_) => Err(QueueError::Unavailable("the writer stopped".to_owned())),
        }
    }

    async fn waiting(&self, org: &Org) -> Result<FxHashMap<String, i64>, QueueError> {
        let all = self.waiting.lock();
        Ok(all.orgs.get(org.id()).cloned().unwrap_or_default())
    }

    async fn purge(&self, _org: &OrgId) -> Result<u64, QueueError> {
        // What waits here waits for a moment, and an org is purged hours after its last batch.
        Ok(0)
    }

    async fn ping(&self) -> Result<(), QueueError> {
        Ok(())
    }

    fn status(&self) -> QueueStatus {
        let batches = self.waiting.lock().batches;
        QueueStatus { batches, bytes: self.bytes.used(), ..QueueStatus::default() }
    }
}

/// The only writer of an org.
struct Writer {
    org: OrgId,
    receiver: mpsc::Receiver<Job>,
    /// Weak, because the writer ends when its sender is dropped, and its sender is in there.
    writers: Weak<Mutex<FxHashMap<OrgId, mpsc::Sender<Job>>>>,
    live: Live,
    indexer: Indexer,
    tasks: TaskTracker,
    /// The previous group. It is applied, and answered when it is on disk.
    answering: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.receiver.close();
        let Some(writers) = self.writers.upgrade() else { return };
        let mut writers = writers.lock();
        // A new writer may have started meanwhile; it must stay registered.
        if writers.get(&self.org).is_some_and(mpsc::Sender::is_closed) {
            writers.remove(&self.org);
        }
    }
}

impl Writer {
    async fn run(mut self) {
        loop {
            let first = match tokio::time::timeout(IDLE, self.receiver.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => return,
                Err(_) => {
                    // The channel takes no more jobs. Those already in it are still applied.
                    self.receiver.close();
                    match self.receiver.recv().await {
                        Some(job) => job,
                        None => return,
                    }
                }
            };
            let mut group = vec![first];
            let mut events = group.iter().map(|job| job.batch.events.len()).sum::<usize>();
            while events < MAX_GROUP_EVENTS
                && let Ok(job) = self.receiver.try_recv()
            {
                events += job.batch.events.len();
                group.push(job);
            }
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, group: Vec<Job>) {
        let Some(org) = group.first().map(|job| job.org.clone()) else { return };
        let mut waiting = Vec::with_capacity(group.len());
        let mut batches = Vec::with_capacity(group.len());
        for job in group {
            batches.push(job.batch);
            waiting.push((job.reply, job.room));
        }
        let batches = Arc::new(batches);
        match apply::apply_ahead(&org, &batches).await {
            Ok((report, commit)) => {
                let lag = report.last_position - report.indexed_position;
                if let Some(before) = self.answering.take() {
                    // The panic hook has already reported a panic there.
                    let _ = before.await;
                }
                let (live, org_id) = (self.live.clone(), org.id().clone());
                self.answering = Some(self.tasks.spawn(async move {
                    let durable = commit.durable().await;
                    if durable.is_ok() {
                        live.advance(&org_id, report.last_position);
                    }
                    for ((reply, room), applied) in waiting.into_iter().zip(report.batches) {
                        drop(room);
                        // The send fails if the client is gone; then nobody needs the answer.
                        let _ = reply.send(durable.as_ref().map(|()| applied).map_err(refusal));
                    }
                    drop(batches);
                }));
                self.indexer.follow(&org, lag).await;
            }
            // If the store is unavailable, trying batches one by one does not help.
            Err(error) if error.is_away() => {
                for (reply, room) in waiting {
                    drop(room);
                    let _ = reply.send(Err(refusal(&error)));
                }
            }
            // A bad batch must not fail the others of its group: each is tried alone.
            Err(error) => {
                let is_alone = waiting.len() == 1;
                let batches = Arc::try_unwrap(batches).unwrap_or_else(|shared| shared.to_vec());
                for ((reply, room), batch) in waiting.into_iter().zip(batches) {
                    let result = if is_alone && !error.is_of_input() {
                        Err(refusal(&error))
                    } else {
                        self.apply_alone(&org, batch).await
                    };
                    drop(room);
                    let _ = reply.send(result);
                }
            }
        }
    }

    /// Applies one batch. If the store refuses it, the events that the store accepts are applied without the others.
    async fn apply_alone(&self, org: &Org, batch: Batch) -> Result<Applied, QueueError> {
        let batches = Arc::new(vec![batch]);
        let error = match apply::apply(org, &batches).await {
            Ok(report) => return self.applied(org, report).await,
            Err(error) => error,
        };
        let Some(batch) = Arc::try_unwrap(batches).unwrap_or_else(|shared| shared.to_vec()).pop() else {
            return Err(refusal(&error));
        };
        if !error.is_of_input() {
            return Err(refusal(&error));
        }
        let found = apply::refused_events(org, &batch, error.to_string()).await;
        let (refused, reason) = found.map_err(|error| refusal(&error))?;
        let (count, mut rest) = (batch.events.len(), batch);
        apply::take_events(&mut rest, &refused);
        rest.refused.add_many(Reason::StoreRefused, u32::try_from(refused.len()).unwrap_or(u32::MAX));
        tracing::error!(org.id = %org.id(), batch.id = %rest.batch_id, events = refused.len(), reason, "the store refused events");
        // Even if no event is left: the ledger counts the refused ones.
        let report = apply::apply(org, &Arc::new(vec![rest])).await.map_err(|error| refusal(&error))?;
        let applied = self.applied(org, report).await?;
        if refused.len() == count {
            return Err(QueueError::Refused(reason));
        }
        let Applied::Now(stored) = applied else { return Ok(applied) };
        let mut stored = stored.into_iter();
        let outcome = |index| {
            if refused.binary_search(&index).is_ok() { Some(Outcome::Refused) } else { stored.next() }
        };
        Ok(Applied::Now((0..count).filter_map(outcome).collect()))
    }

    async fn applied(&self, org: &Org, report: ApplyReport) -> Result<Applied, QueueError> {
        self.live.advance(org.id(), report.last_position);
        self.indexer.follow(org, report.last_position - report.indexed_position).await;
        report.batches.into_iter().next().ok_or_else(|| QueueError::Unavailable("no outcome".to_owned()))
    }
}

fn refusal(error: &StoreError) -> QueueError {
    tracing::error!(error = %error, "a batch could not be applied");
    if error.is_of_input() {
        QueueError::Refused(error.to_string())
    } else {
        QueueError::Unavailable(error.to_string())
    }
}
