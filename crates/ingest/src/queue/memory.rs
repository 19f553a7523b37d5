//! The queue in process: a bounded channel to each org's writer, which commits what waits as one group.
//!
//! The answer waits until the disk has the commit, so a 202 means durable without any second copy. While the disk takes one
//! group, the next is applied and a third gathers: under load groups grow by themselves and the cost of a sync is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;
use agentlens_store::{Applied, StoreError, Tenant};

use super::{Queue, QueueError, QueueStatus, Receipt};
use crate::indexer::Indexer;
use crate::live::Live;

/// Batches of one org that may wait.
const MAX_WAITING_BATCHES: usize = 512;
/// Bytes of all orgs that may wait, in units of 1 KiB.
const MAX_WAITING_KIB: usize = 128 * 1024;
/// Events of one group commit: enough to share the cost of a sync, few enough that the next group gathers meanwhile.
const MAX_GROUP_EVENTS: usize = 2_000;
/// When to come back after a refusal.
const RETRY_AFTER_S: u32 = 1;
/// A writer without work goes away after this long.
const IDLE: Duration = Duration::from_secs(60);

struct Job {
    tenant: Tenant,
    batch: Batch,
    reply: oneshot::Sender<Result<Applied, QueueError>>,
    claims: Claims,
}

/// What a job holds until it is done, whether or not its client still waits.
type Claims = (OwnedSemaphorePermit, Waiting);

/// Events that are counted as waiting until this is dropped.
struct Waiting {
    count: Arc<AtomicI64>,
    events: i64,
}

impl Waiting {
    fn begin(count: Arc<AtomicI64>, events: i64) -> Self {
        count.fetch_add(events, Ordering::Relaxed);
        Self { count, events }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count.fetch_sub(self.events, Ordering::Relaxed);
    }
}

/// The queue of a process that applies by itself.
pub struct MemoryQueue {
    orgs: Arc<Mutex<FxHashMap<OrgId, mpsc::Sender<Job>>>>,
    bytes: Arc<Semaphore>,
    waiting_batches: Arc<AtomicU64>,
    waiting_events: Arc<Mutex<FxHashMap<OrgId, Arc<WaitingEvents>>>>,
    tasks: TaskTracker,
    live: Live,
    indexer: Indexer,
}

#[derive(Default)]
struct WaitingEvents(Mutex<FxHashMap<String, Arc<AtomicI64>>>);

impl MemoryQueue {
    /// A queue whose writers run on `tasks`; `index_text` says whether payload texts are indexed for search.
    pub fn new(tasks: TaskTracker, live: Live, index_text: bool) -> Self {
        let indexer = Indexer::new(tasks.clone(), index_text);
        Self {
            orgs: Arc::default(),
            bytes: Arc::new(Semaphore::new(MAX_WAITING_KIB)),
            waiting_batches: Arc::default(),
            waiting_events: Arc::default(),
            tasks,
            live,
            indexer,
        }
    }

    /// The channel of the org's writer, started when there is none.
    fn writer(&self, org: &OrgId) -> mpsc::Sender<Job> {
        let mut orgs = self.orgs.lock();
        if let Some(sender) = orgs.get(org).filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
        orgs.insert(org.clone(), sender.clone());
        let writer = Writer {
            receiver,
            live: self.live.clone(),
            indexer: self.indexer.clone(),
            tasks: self.tasks.clone(),
            waiting_batches: Arc::clone(&self.waiting_batches),
            answering: None,
        };
        self.tasks.spawn(writer.run());
        sender
    }

    fn waiting_of(&self, org: &OrgId, key: &str) -> Arc<AtomicI64> {
        let org = Arc::clone(self.waiting_events.lock().entry(org.clone()).or_default());
        let mut keys = org.0.lock();
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, tenant: &Tenant, batch: Batch) -> Result<Receipt, QueueError> {
        let full = || QueueError::Full { retry_after_s: RETRY_AFTER_S };
        let kib = u32::try_from(size_of_batch(&batch) / 1024 + 1)
            .unwrap_or(u32::MAX)
            .min(u32::try_from(MAX_WAITING_KIB).unwrap_or(u32::MAX));
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(kib).map_err(|_| full())?;
        let waiting = self.waiting_of(tenant.org(), batch.key_id.as_str());
        let events = i64::from(batch.received_count);
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting::begin(waiting, events);
        let job = Job { tenant: tenant.clone(), batch, reply, claims: (bytes, waiting) };
        self.waiting_batches.fetch_add(1, Ordering::Relaxed);
        let sent = self.writer(tenant.org()).try_send(job);
        if sent.is_err() {
            self.waiting_batches.fetch_sub(1, Ordering::Relaxed);
            return Err(full());
        }
        match answer.await {
            Ok(result) => result.map(Receipt::Applied),
            Err(_) => Err(QueueError::Unavailable("the writer stopped".to_owned())),
        }
    }

    async fn waiting(&self, tenant: &Tenant) -> Result<FxHashMap<String, i64>, QueueError> {
        let org = self.waiting_events.lock().get(tenant.org()).cloned();
        let Some(org) = org else { return Ok(FxHashMap::default()) };
        let keys = org.0.lock();
        Ok(keys.iter().map(|(key, count)| (key.clone(), count.load(Ordering::Relaxed))).collect())
    }

    fn status(&self) -> QueueStatus {
        let used = MAX_WAITING_KIB - self.bytes.available_permits();
        QueueStatus { batches: self.waiting_batches.load(Ordering::Relaxed), bytes: used as u64 * 1024 }
    }
}

/// Bytes that a batch keeps in memory, about.
fn size_of_batch(batch: &Batch) -> usize {
    batch.events.iter().map(|event| 600 + event.payload.len() + event.metadata.len()).sum()
}

/// The one writer of an org.
struct Writer {
    receiver: mpsc::Receiver<Job>,
    live: Live,
    indexer: Indexer,
    tasks: TaskTracker,
    waiting_batches: Arc<AtomicU64>,
    /// The group before, which is applied, and answered when the disk has it.
    answering: Option<JoinHandle<()>>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let first = match tokio::time::timeout(IDLE, self.receiver.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => return,
                Err(_) => {
                    // No more jobs are taken from here on; those that slipped in are still done.
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
            self.waiting_batches.fetch_sub(group.len() as u64, Ordering::Relaxed);
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, group: Vec<Job>) {
        let Some(tenant) = group.first().map(|job| job.tenant.clone()) else { return };
        let mut waiting = Vec::with_capacity(group.len());
        let mut batches = Vec::with_capacity(group.len());
        for job in group {
            batches.push(job.batch);
            waiting.push((job.reply, job.claims));
        }
        let batches = Arc::new(batches);
        match tenant.apply_ahead(Arc::clone(&batches), tenant.clock().now_us()).await {
            Ok((report, commit)) => {
                let lag = report.last_position - report.indexed_position;
                if let Some(before) = self.answering.take() {
                    // A panic there has been reported by the task itself.
                    let _ = before.await;
                }
                let (live, org) = (self.live.clone(), tenant.org().clone());
                self.answering = Some(self.tasks.spawn(async move {
                    let durable = commit.durable().await;
                    if durable.is_ok() {
                        live.advance(&org, report.last_position);
                    }
                    for ((reply, claims), applied) in waiting.into_iter().zip(report.batches) {
                        drop(claims);
                        // A client that went away does not need its answer.
                        let _ = reply.send(durable.as_ref().map(|()| applied).map_err(refusal));
                    }
                    drop(batches);
                }));
                self.indexer.follow(&tenant, lag).await;
            }
            // Where the store is away, none of them would fare better alone.
            Err(error) if waiting.len() == 1 || error.is_transient() => {
                for (reply, claims) in waiting {
                    drop(claims);
                    let _ = reply.send(Err(refusal(&error)));
                }
            }
            // One bad batch must not take its neighbours with it: each is tried alone.
            Err(_) => {
                let mut reached = None;
                for ((reply, claims), batch) in waiting.into_iter().zip(batches.iter()) {
                    let result = apply_alone(&tenant, batch.clone()).await;
                    reached = result.as_ref().map_or(reached, |(_, positions)| Some(*positions));
                    drop(claims);
                    let _ = reply.send(result.map(|(applied, _)| applied));
                }
                if let Some((last, indexed)) = reached {
                    self.live.advance(tenant.org(), last);
                    self.indexer.follow(&tenant, last - indexed).await;
                }
            }
        }
    }
}

async fn apply_alone(tenant: &Tenant, batch: Batch) -> Result<(Applied, (i64, i64)), QueueError> {
    let report = tenant
        .apply(Arc::new(vec![batch]), tenant.clock().now_us())
        .await
        .map_err(|error| refusal(&error))?;
    let applied =
        report.batches.into_iter().next().ok_or_else(|| QueueError::Unavailable("no outcome".to_owned()))?;
    Ok((applied, (report.last_position, report.indexed_position)))
}

fn refusal(error: &StoreError) -> QueueError {
    tracing::error!(error = %error, "a batch could not be applied");
    if error.is_transient() {
        QueueError::Unavailable(error.to_string())
    } else {
        QueueError::Refused(error.to_string())
    }
}
