//! Workers of the Redis queue. A lease gives each shard one consumer at a time.
//!
//! The orgs of a shard are applied concurrently, each in the order of the stream. If an org's batches fail, only that org pauses.
//! Leases avoid doing work twice, but correctness does not depend on them. If two workers apply the same batch, the org's row lock
//! makes the second one wait, and it then finds the batch applied.

mod job;
mod lanes;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::ConnectionManager;
use redis::{Client, RedisError};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_domain::ids::OrgId;
use agentlens_store::Store;

use crate::indexer::Indexer;
use crate::lease::{Held, Lease, LeaseError, LeaseKeeper, RedisLeases};
use crate::live::Live;
use crate::queue::Counters;
use crate::queue::redis::{Keys, RedisQueue, SHARDS, connect, ensure_groups};
use job::{Done, Job};
use lanes::Lanes;
use stream::{Entry, Message, MessageId, Pending, ShardStream};

/// How often a worker tries to take a shard that another one holds.
const ACQUIRE_EVERY: Duration = Duration::from_millis(250);
/// How long a worker waits after a Redis error.
const REDIS_PAUSE: Duration = Duration::from_secs(1);
/// How often a worker looks for messages that another worker read and never finished.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// Orgs of a shard that are applied at a time. Groups that take longer than `SLOW` don't count, but `MAX_RUNNING` limits all.
const MAX_FAST: usize = 2;
const MAX_RUNNING: usize = 8;
const SLOW: Duration = Duration::from_millis(200);
/// Fetches at a time.
const MAX_FETCHES: usize = 2;
/// How long running jobs may take to end when the shard is released.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a worker keeps a shard with a message that only a newer program can read. It doubles each time that no other worker
/// takes the shard.
const FIRST_KEEP: Duration = Duration::from_secs(1);
const LONGEST_KEEP: Duration = Duration::from_secs(60);
/// How long it then leaves the shard to others.
const LEAVE_TO_OTHERS: Duration = Duration::from_millis(750);

/// The worker of one process.
#[derive(Clone)]
pub struct Worker {
    client: Client,
    keys: Keys,
    store: Store,
    live: Live,
    indexer: Indexer,
    counters: Arc<Counters>,
    /// The name of this process in leases and in the consumer group.
    name: Arc<str>,
    leases: Arc<dyn LeaseKeeper>,
    /// One permit, so that suspect messages are applied one at a time. See [`Job`].
    suspects: Arc<Semaphore>,
}

/// Why a worker stopped consuming a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    LeaseLost,
    /// Only a newer program can read one of the messages.
    NewerMessage,
}

#[derive(Debug, thiserror::Error)]
enum ShardError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("a task of the shard ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Worker {
    /// A worker on a queue. No other running process may have the same `name`.
    pub fn new(
        queue: &RedisQueue,
        name: &str,
        store: Store,
        live: Live,
        tasks: &TaskTracker,
        index_text: bool,
    ) -> Self {
        Self {
            client: queue.client.clone(),
            keys: queue.keys.clone(),
            store,
            live,
            indexer: Indexer::new(tasks.clone(), index_text),
            counters: Arc::clone(&queue.counters),
            name: name.into(),
            leases: Arc::new(RedisLeases::new(queue.client.clone())),
            suspects: Arc::new(Semaphore::new(1)),
        }
    }

    /// Consumes all shards until shutdown. Jobs that run at that time are finished.
    pub fn start(&self, tasks: &TaskTracker, shutdown: &CancellationToken) {
        for shard in 0..SHARDS {
            let (worker, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                while !shutdown.is_cancelled() {
                    let (worker, shutdown) = (worker.clone(), shutdown.clone());
                    let consuming = tokio::spawn(async move { worker.run_shard(shard, shutdown).await });
                    if let Err(error) = consuming.await {
                        tracing::error!(shard, error = %error, "the consumer of a shard panicked; restarting it");
                        tokio::time::sleep(REDIS_PAUSE).await;
                    }
                }
            });
        }
    }

    async fn run_shard(&self, shard: u64, shutdown: CancellationToken) {
        let mut keep = FIRST_KEEP;
        while !shutdown.is_cancelled() {
            let pause = match self.try_shard(shard, keep, &shutdown).await {
                Ok(Some(End::NewerMessage)) => {
                    keep = (keep * 2).min(LONGEST_KEEP);
                    LEAVE_TO_OTHERS
                }
                Ok(_) => {
                    keep = FIRST_KEEP;
                    ACQUIRE_EVERY
                }
                Err(error) => {
                    tracing::warn!(shard, error = %error, "a shard of the ingest queue can't be read");
                    REDIS_PAUSE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Consumes the shard if its lease is free.
    async fn try_shard(
        &self,
        shard: u64,
        keep: Duration,
        shutdown: &CancellationToken,
    ) -> Result<Option<End>, ShardError> {
        let Some(lease) = Lease::take(&self.leases, &self.keys.lease(shard), &self.name).await? else {
            return Ok(None);
        };
        tracing::debug!(shard, "shard taken");
        let result = self.consume(shard, lease.held(), keep, shutdown).await;
        lease.give_up().await;
        result.map(Some)
    }

    async fn consume(
        &self,
        shard: u64,
        held: Held,
        keep: Duration,
        shutdown: &CancellationToken,
    ) -> Result<End, ShardError> {
        let (reads, mut commands) = (connect(&self.client).await?, connect(&self.client).await?);
        ensure_groups(&mut commands, &self.keys).await?;
        let stream = ShardStream::new(&self.keys, shard, &self.name, commands);
        let (sender, mut arriving) = mpsc::channel(1);
        let (stop, known) = (CancellationToken::new(), Known::default());
        let reader =
            Reader { stream: stream.clone(), reads, sender, stop: stop.clone(), known: Arc::clone(&known) };
        let reading = tokio::spawn(reader.run());
        let mut shard = Shard {
            worker: self.clone(),
            number: shard,
            stream,
            held,
            known,
            lanes: Lanes::default(),
            jobs: JoinSet::new(),
            running: FxHashMap::default(),
            fetching: 0,
            keep_until: None,
            keep,
        };
        let end = shard.run(&mut arriving, shutdown).await;
        stop.cancel();
        arriving.close();
        let limit =
            if matches!(end, Ok(End::Shutdown)) { None } else { Some(Instant::now() + DRAIN_TIMEOUT) };
        let drained = shard.drain(limit).await;
        self.counters.note_shard(shard.number, 0, 0);
        reading.await??;
        drained?;
        end
    }
}

/// The ids of messages that this consumer has read and not finished.
type Known = Arc<Mutex<FxHashSet<MessageId>>>;

/// Reads a shard: first the messages that others read and did not finish, then new ones. It never waits for messages to be
/// applied, only until the consumer has received them.
struct Reader {
    stream: ShardStream,
    reads: ConnectionManager,
    sender: mpsc::Sender<Vec<Entry>>,
    stop: CancellationToken,
    known: Known,
}

impl Reader {
    async fn run(mut self) -> Result<(), RedisError> {
        self.read_pending().await?;
        let mut listed = Instant::now();
        // A read is never cancelled, because messages that Redis has already delivered would be lost.
        while !self.stop.is_cancelled() {
            let entries = self.stream.read(&mut self.reads).await?;
            self.hand_over(entries).await;
            if listed.elapsed() >= LIST_EVERY {
                // A worker that lost its lease may have read messages after our last look and not finished them.
                if self.stream.pending_count().await? > self.known.lock().len() {
                    self.read_pending().await?;
                }
                listed = Instant::now();
            }
        }
        Ok(())
    }

    async fn read_pending(&mut self) -> Result<(), RedisError> {
        let mut last = None;
        while !self.stop.is_cancelled() {
            let listed = self.stream.list_pending(last).await?;
            let Some(end) = listed.last() else { return Ok(()) };
            last = Some(end.id);
            let unknown: Vec<Pending> = {
                let known = self.known.lock();
                listed.into_iter().filter(|pending| !known.contains(&pending.id)).collect()
            };
            if !unknown.is_empty() {
                let entries = self.stream.fetch(&unknown).await?;
                self.hand_over(entries).await;
            }
        }
        Ok(())
    }

    async fn hand_over(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        {
            let mut known = self.known.lock();
            for entry in &entries {
                if let Entry::Ours(message) = entry {
                    known.insert(message.head.id);
                }
            }
        }
        tokio::select! {
            _ = self.sender.send(entries) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The state of a consumer and its running jobs.
struct Shard {
    worker: Worker,
    number: u64,
    stream: ShardStream,
    held: Held,
    known: Known,
    lanes: Lanes,
    jobs: JoinSet<Result<Finished, RedisError>>,
    /// For each org that is being applied: since when, and the ids of the messages.
    running: FxHashMap<OrgId, (Instant, Vec<MessageId>)>,
    fetching: usize,
    /// When the shard is released because of a message for a newer program.
    keep_until: Option<Instant>,
    keep: Duration,
}

enum Finished {
    Applied(Done),
    Fetched { org: OrgId, asked: Vec<MessageId>, entries: Vec<Entry> },
}

impl Shard {
    async fn run(
        &mut self,
        arriving: &mut mpsc::Receiver<Vec<Entry>>,
        shutdown: &CancellationToken,
    ) -> Result<End, ShardError> {
        loop {
            if !self.held.is_held() {
                return Ok(End::LeaseLost);
            }
            if self.keep_until.is_some_and(|end| end <= Instant::now()) {
                return Ok(End::NewerMessage);
            }
            self.start_jobs();
            self.report_blocked();
            let wake = self.next_wake();
            let (held, jobs) = (self.held.clone(), &mut self.jobs);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                () = held.lost() => return Ok(End::LeaseLost),
                entries = arriving.recv() => match entries {
                    Some(entries) => self.take(entries).await?,
                    // The reader has ended. Its error is returned when it is awaited.
                    None => return Ok(End::LeaseLost),
                },
                Some(finished) = jobs.join_next() => self.end(finished??).await?,
                () = sleep_until(wake) => {}
            }
        }
    }

    async fn take(&mut self, entries: Vec<Entry>) -> Result<(), RedisError> {
        for entry in entries {
            match entry {
                Entry::Ours(message) => {
                    let running = self.running.get(&message.head.org);
                    if !running.is_some_and(|(_, ids)| ids.contains(&message.head.id)) {
                        self.lanes.push(message);
                    }
                }
                Entry::Foreign(id) => {
                    tracing::error!(stream.id = %id, "a message of the ingest queue is not ours; it is removed");
                    self.stream.remove_foreign(&id).await?;
                }
            }
        }
        Ok(())
    }

    /// Starts as many jobs and fetches as may run at a time.
    fn start_jobs(&mut self) {
        let now = Instant::now();
        while self.running.len() < MAX_RUNNING
            && self.running.values().filter(|(since, _)| now.duration_since(*since) < SLOW).count() < MAX_FAST
            && let Some(group) = self.lanes.next_group(now)
        {
            let ids = group.messages.iter().map(|message| message.head.id).collect();
            self.running.insert(group.org.clone(), (now, ids));
            let job =
                Job { worker: self.worker.clone(), stream: self.stream.clone(), held: self.held.clone() };
            self.jobs.spawn(async move { job.run(group).await.map(Finished::Applied) });
        }
        while self.fetching < MAX_FETCHES
            && let Some((org, wanted)) = self.lanes.next_fetch()
        {
            self.fetching += 1;
            let stream = self.stream.clone();
            self.jobs.spawn(async move {
                let entries = stream.fetch(&wanted).await?;
                let asked = wanted.into_iter().map(|pending| pending.id).collect();
                Ok(Finished::Fetched { org, asked, entries })
            });
        }
    }

    async fn end(&mut self, finished: Finished) -> Result<(), RedisError> {
        match finished {
            Finished::Applied(Done { org, rest, has_failed }) => {
                if let Some((_, ids)) = self.running.remove(&org) {
                    let mut known = self.known.lock();
                    for id in ids.iter().filter(|id| !rest.iter().any(|message| message.head.id == **id)) {
                        known.remove(id);
                    }
                }
                self.lanes.end_group(&org, rest, has_failed, Instant::now());
            }
            Finished::Fetched { org, asked, entries } => {
                self.fetching -= 1;
                let mut messages: Vec<Message> = Vec::with_capacity(entries.len());
                for entry in entries {
                    match entry {
                        Entry::Ours(message) => messages.push(*message),
                        Entry::Foreign(id) => self.stream.remove_foreign(&id).await?,
                    }
                }
                {
                    let mut known = self.known.lock();
                    for id in
                        asked.iter().filter(|id| !messages.iter().any(|message| message.head.id == **id))
                    {
                        known.remove(id);
                    }
                }
                self.lanes.end_fetch(&org, &asked, messages);
            }
        }
        Ok(())
    }

    /// Reports messages that only a newer program can read. Their orgs wait, and the shard is soon released to another worker.
    fn report_blocked(&mut self) {
        self.worker.counters.note_shard(self.number, self.lanes.parked_orgs(), self.lanes.blocked_orgs());
        if self.lanes.blocked_orgs() > 0 && self.keep_until.is_none() {
            tracing::error!(
                shard = self.number,
                "a message of the ingest queue was written by a newer version; its org waits for a worker that can read it"
            );
            self.keep_until = Some(Instant::now() + self.keep);
        }
    }

    /// The next instant at which there is work to do without an event that wakes the loop.
    fn next_wake(&self) -> Option<Instant> {
        let turns_slow = self.running.values().map(|(since, _)| *since + SLOW);
        let turns_slow =
            turns_slow.filter(|at| *at > Instant::now()).min().filter(|_| self.lanes.is_any_ready());
        [turns_slow, self.lanes.next_wake(), self.keep_until].into_iter().flatten().min()
    }

    /// Waits for running jobs. Those that don't end in time are aborted; another worker finds out whether they were applied.
    async fn drain(&mut self, limit: Option<Instant>) -> Result<(), ShardError> {
        loop {
            tokio::select! {
                finished = self.jobs.join_next() => match finished {
                    Some(finished) => {
                        finished??;
                    }
                    None => return Ok(()),
                },
                () = sleep_until(limit) => {
                    self.jobs.abort_all();
                    return Ok(());
                }
            }
        }
    }
}

/// Sleeps until an instant, or forever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
