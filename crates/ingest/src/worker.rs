//! Workers of the Redis queue: each shard has one consumer at a time, by lease, and applies what waits org by org.
//!
//! A lease is only the way not to do work twice; correctness does not hang on it. Should two workers apply the same
//! batch, the org's row lock puts them in line and the second finds the batch applied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::ConnectionManager;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{Client, RedisError, Script};
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;
use agentlens_store::{DeadLetter, Store, StoreError};

use crate::indexer::Indexer;
use crate::live::Live;
use crate::message;
use crate::queue::QueueError;
use crate::queue::redis::{GROUP, Keys, SHARDS, connect, ensure_groups};

/// How long a lease lives without being renewed; a dead worker's shard is taken over after at most this long.
const LEASE_MS: u64 = 6_000;
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a worker looks for messages that were read and never finished.
const CLAIM_EVERY: Duration = Duration::from_secs(5);
/// How often a worker tries to take a shard that another one holds.
const ACQUIRE_EVERY: Duration = Duration::from_secs(1);
/// Messages read at a time, and events applied in one transaction.
const READ_MESSAGES: usize = 128;
const MAX_GROUP_EVENTS: usize = 5_000;
/// How long a read waits for messages.
const BLOCK_MS: u64 = 250;
/// A batch that the store refused this often goes to the dead letters.
const MAX_ATTEMPTS: u32 = 3;
/// How long to wait when the store is away.
const STORE_AWAY: Duration = Duration::from_millis(500);

/// Takes the lease, or renews it if it is held by us.
const TAKE_LEASE: &str = "
local holder = redis.call('get', KEYS[1])
if holder == false or holder == ARGV[1] then redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2]) return 1 end
return 0";
const DROP_LEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";
/// Acknowledges and removes one message; the counters move only with the acknowledgement, so never twice.
const FINISH: &str = "
if redis.call('xack', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('xdel', KEYS[1], ARGV[2])
if redis.call('hincrby', KEYS[2], ARGV[3], -tonumber(ARGV[4])) <= 0 then redis.call('hdel', KEYS[2], ARGV[3]) end
redis.call('decrby', KEYS[3], ARGV[5])
return 1";

/// The worker of one process.
#[derive(Clone)]
pub struct Worker {
    client: Client,
    keys: Keys,
    store: Store,
    live: Live,
    indexer: Indexer,
    /// Names this process in leases and in the consumer group.
    name: Arc<str>,
    scripts: Arc<Scripts>,
}

struct Scripts {
    take_lease: Script,
    drop_lease: Script,
    finish: Script,
}

/// A message on its way.
struct Message {
    stream_id: String,
    org: OrgId,
    key: String,
    events: i64,
    bytes: usize,
    raw: Vec<u8>,
    /// The batch, or why the bytes are none. It is taken out while it is applied.
    batch: Result<Option<Batch>, String>,
}

/// The two connections of a shard: a read that waits for messages would hold up everything behind it.
struct Connections {
    reads: ConnectionManager,
    commands: ConnectionManager,
}

impl Worker {
    /// A worker named `name`, which no other live process may bear.
    pub fn new(
        url: &str,
        prefix: &str,
        name: &str,
        store: Store,
        live: Live,
        tasks: &TaskTracker,
        index_text: bool,
    ) -> Result<Self, QueueError> {
        let client = Client::open(url).map_err(|error| QueueError::Unavailable(error.to_string()))?;
        let scripts = Scripts {
            take_lease: Script::new(TAKE_LEASE),
            drop_lease: Script::new(DROP_LEASE),
            finish: Script::new(FINISH),
        };
        let indexer = Indexer::new(tasks.clone(), index_text);
        Ok(Self {
            client,
            keys: Keys::new(prefix),
            store,
            live,
            indexer,
            name: name.into(),
            scripts: Arc::new(scripts),
        })
    }

    /// Consumes until shutdown; what is being applied then is finished first.
    pub fn start(&self, tasks: &TaskTracker, shutdown: &CancellationToken) {
        for shard in 0..SHARDS {
            let (worker, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                while !shutdown.is_cancelled() {
                    let (worker, shutdown) = (worker.clone(), shutdown.clone());
                    let consuming = tokio::spawn(async move { worker.run_shard(shard, shutdown).await });
                    if let Err(error) = consuming.await {
                        tracing::error!(shard, error = %error, "a shard of the ingest queue is begun anew");
                        tokio::time::sleep(ACQUIRE_EVERY).await;
                    }
                }
            });
        }
    }

    async fn run_shard(&self, shard: u64, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            match self.try_shard(shard, &shutdown).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(shard, error = %error, "a shard of the ingest queue can't be read")
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(ACQUIRE_EVERY) => {}
            }
        }
    }

    async fn try_shard(&self, shard: u64, shutdown: &CancellationToken) -> Result<(), RedisError> {
        let mut connections =
            Connections { reads: connect(&self.client).await?, commands: connect(&self.client).await? };
        if !self.take_lease(&mut connections.commands, shard).await? {
            return Ok(());
        }
        tracing::debug!(shard, "shard taken");
        let result = self.consume(&mut connections, shard, shutdown).await;
        let mut drop_lease = self.scripts.drop_lease.key(self.keys.lease(shard));
        let _: Result<i64, RedisError> =
            drop_lease.arg(&*self.name).invoke_async(&mut connections.commands).await;
        result
    }

    async fn take_lease(&self, connection: &mut ConnectionManager, shard: u64) -> Result<bool, RedisError> {
        let mut take_lease = self.scripts.take_lease.key(self.keys.lease(shard));
        let taken: i64 = take_lease.arg(&*self.name).arg(LEASE_MS).invoke_async(connection).await?;
        Ok(taken == 1)
    }

    /// Applies what waits; while one group is applied, the next is read and decoded.
    async fn consume(
        &self,
        connections: &mut Connections,
        shard: u64,
        shutdown: &CancellationToken,
    ) -> Result<(), RedisError> {
        let Connections { reads, commands } = connections;
        ensure_groups(commands, &self.keys).await?;
        let mut attempts: FxHashMap<String, u32> = FxHashMap::default();
        let (mut renewed, mut claimed_at) = (Instant::now(), Instant::now());
        // What was read and not finished, by us or by a worker before us, comes before what is new.
        let mut has_pending = true;
        let mut ready = Vec::new();
        while !shutdown.is_cancelled() {
            if renewed.elapsed() >= RENEW_EVERY {
                if !self.take_lease(commands, shard).await? {
                    return Ok(());
                }
                renewed = Instant::now();
            }
            if ready.is_empty() && claimed_at.elapsed() >= CLAIM_EVERY {
                // A worker that lost its lease may have read something after we looked, and never finished it.
                has_pending = true;
            }
            if has_pending {
                claimed_at = Instant::now();
                let claimed = self.claim(commands, shard).await?;
                has_pending = claimed.len() >= READ_MESSAGES;
                ready = decode(claimed).await;
                if !self.apply(commands, shard, std::mem::take(&mut ready), &mut attempts).await? {
                    has_pending = true;
                    tokio::time::sleep(STORE_AWAY).await;
                }
                continue;
            }
            if ready.is_empty() {
                ready = decode(self.read(reads, shard).await?).await;
                continue;
            }
            let current = std::mem::take(&mut ready);
            let next = async { Ok::<_, RedisError>(decode(self.read(reads, shard).await?).await) };
            let (is_all_done, next) = tokio::join!(self.apply(commands, shard, current, &mut attempts), next);
            ready = next?;
            if !is_all_done? {
                // What was just read is pending too, and comes again in its order.
                ready.clear();
                has_pending = true;
                tokio::time::sleep(STORE_AWAY).await;
            }
        }
        Ok(())
    }

    /// Everything that was read and not acknowledged, by whoever.
    async fn claim(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
    ) -> Result<Vec<StreamId>, RedisError> {
        let mut all = Vec::new();
        let mut start = "0-0".to_owned();
        loop {
            let reply: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
                .arg(self.keys.stream(shard))
                .arg(GROUP)
                .arg(&*self.name)
                .arg(0)
                .arg(&start)
                .arg("COUNT")
                .arg(READ_MESSAGES)
                .query_async(connection)
                .await?;
            all.extend(reply.claimed);
            if reply.next_stream_id == "0-0" || all.len() >= READ_MESSAGES {
                return Ok(all);
            }
            start = reply.next_stream_id;
        }
    }

    async fn read(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
    ) -> Result<Vec<StreamId>, RedisError> {
        let reply: Option<StreamReadReply> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&*self.name)
            .arg("COUNT")
            .arg(READ_MESSAGES)
            .arg("BLOCK")
            .arg(BLOCK_MS)
            .arg("STREAMS")
            .arg(self.keys.stream(shard))
            .arg(">")
            .query_async(connection)
            .await?;
        Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
    }

    /// Applies messages org by org; returns whether all of them are finished.
    async fn apply(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
        entries: Vec<Entry>,
        attempts: &mut FxHashMap<String, u32>,
    ) -> Result<bool, RedisError> {
        let mut orgs: Vec<(OrgId, Vec<Message>)> = Vec::new();
        for entry in entries {
            let message = match entry {
                Entry::Ours(message) => *message,
                Entry::Foreign(id) => {
                    tracing::error!(stream.id = %id, "a message of the ingest queue is not ours; it is removed");
                    self.finish_foreign(connection, shard, &id).await?;
                    continue;
                }
            };
            match orgs.iter_mut().find(|(org, _)| *org == message.org) {
                Some((_, group)) => group.push(message),
                None => orgs.push((message.org.clone(), vec![message])),
            }
        }
        let mut is_all_done = true;
        for (org, group) in orgs {
            for chunk in chunks(group) {
                is_all_done &= self.apply_org(connection, shard, &org, chunk, attempts).await?;
            }
        }
        Ok(is_all_done)
    }

    async fn apply_org(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
        org: &OrgId,
        mut group: Vec<Message>,
        attempts: &mut FxHashMap<String, u32>,
    ) -> Result<bool, RedisError> {
        match self.store_batches(org, &mut group).await {
            Ok(()) => {
                self.finish(connection, shard, &group).await?;
                Ok(true)
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(org.id = %org, error = %error, "the store is away; the batches stay in the queue");
                Ok(false)
            }
            Err(_) if group.len() > 1 => {
                let mut is_all_done = true;
                for message in group {
                    is_all_done &=
                        Box::pin(self.apply_org(connection, shard, org, vec![message], attempts)).await?;
                }
                Ok(is_all_done)
            }
            Err(error) => self.note_failure(connection, shard, org, group, &error, attempts).await,
        }
    }

    /// Applies the batches of messages of one org; they are back in their messages afterwards.
    async fn store_batches(&self, org: &OrgId, group: &mut [Message]) -> Result<(), StoreError> {
        let tenant = self.store.tenant(org).await?;
        if group.iter().any(|message| message.batch.is_err()) {
            return Err(StoreError::Corrupt("unreadable message".to_owned()));
        }
        let slots: Vec<&mut Option<Batch>> =
            group.iter_mut().filter_map(|message| message.batch.as_mut().ok()).collect();
        let batches: Vec<Batch> = slots.into_iter().filter_map(Option::take).collect();
        let batches = Arc::new(batches);
        let applying = {
            let (tenant, batches) = (tenant.clone(), Arc::clone(&batches));
            tokio::spawn(async move { tenant.apply(batches, tenant.clock().now_us()).await })
        };
        // A batch that ends in a panic is refused like any other, and costs neither its neighbours nor the shard.
        let result = applying.await.unwrap_or_else(|error| Err(StoreError::Refused(error.to_string())));
        let batches = Arc::try_unwrap(batches).unwrap_or_else(|shared| shared.to_vec());
        for (message, batch) in group.iter_mut().zip(batches) {
            message.batch = Ok(Some(batch));
        }
        let report = result?;
        self.live.advance(org, report.last_position);
        self.indexer.follow(&tenant, report.last_position - report.indexed_position).await;
        Ok(())
    }

    /// Counts a refusal; after the last attempt the batch goes to the dead letters with its reason.
    async fn note_failure(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
        org: &OrgId,
        group: Vec<Message>,
        error: &StoreError,
        attempts: &mut FxHashMap<String, u32>,
    ) -> Result<bool, RedisError> {
        let mut is_all_done = true;
        for message in group {
            let count = attempts.entry(message.stream_id.clone()).or_default();
            *count += 1;
            tracing::error!(org.id = %org, error = %error, attempt = *count, "a batch could not be applied");
            let is_unreadable = message.batch.is_err();
            if *count < MAX_ATTEMPTS && !is_unreadable {
                is_all_done = false;
                continue;
            }
            let reason = message.batch.as_ref().err().cloned().unwrap_or_else(|| error.to_string());
            if let Err(error) = self.bury(org, &message, reason).await {
                tracing::error!(org.id = %org, error = %error, "a dead letter could not be kept; the batch stays in the queue");
                is_all_done = false;
                continue;
            }
            attempts.remove(&message.stream_id);
            self.finish(connection, shard, std::slice::from_ref(&message)).await?;
        }
        Ok(is_all_done)
    }

    async fn bury(&self, org: &OrgId, message: &Message, reason: String) -> Result<(), StoreError> {
        let tenant = match self.store.tenant(org).await {
            // The org is gone, and its data with it.
            Err(StoreError::NotFound) => return Ok(()),
            other => other?,
        };
        let batch_id = match &message.batch {
            Ok(Some(batch)) => batch.batch_id.as_str().to_owned(),
            _ => format!("stream-{}", message.stream_id.replace(':', "-")),
        };
        let letter = DeadLetter {
            batch_id,
            key_id: message.key.clone(),
            failed_us: tenant.clock().now_us(),
            reason,
            event_count: message.events,
        };
        tenant.insert_dead_letter(&letter, &message.raw).await
    }

    async fn finish(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
        group: &[Message],
    ) -> Result<(), RedisError> {
        let mut pipe = redis::pipe();
        for message in group {
            pipe.invoke_script(
                self.scripts
                    .finish
                    .key(self.keys.stream(shard))
                    .key(self.keys.waiting(message.org.as_str()))
                    .key(self.keys.bytes())
                    .arg(GROUP)
                    .arg(&message.stream_id)
                    .arg(&message.key)
                    .arg(message.events)
                    .arg(message.bytes),
            )
            .ignore();
        }
        // A pipeline sends only the script's digest; a Redis that restarted has to be told the text first.
        self.scripts.finish.prepare_invoke().load_async(connection).await?;
        pipe.query_async(connection).await
    }

    async fn finish_foreign(
        &self,
        connection: &mut ConnectionManager,
        shard: u64,
        id: &str,
    ) -> Result<(), RedisError> {
        let stream = self.keys.stream(shard);
        redis::pipe()
            .cmd("XACK")
            .arg(&stream)
            .arg(GROUP)
            .arg(id)
            .ignore()
            .cmd("XDEL")
            .arg(&stream)
            .arg(id)
            .ignore()
            .query_async(connection)
            .await
    }
}

/// An entry of the stream.
enum Entry {
    /// A message of ours.
    Ours(Box<Message>),
    /// Something else; its id.
    Foreign(String),
}

/// Decodes on the blocking pool: some milliseconds for a full read.
async fn decode(ids: Vec<StreamId>) -> Vec<Entry> {
    if ids.is_empty() {
        return Vec::new();
    }
    let read = move || {
        ids.into_iter()
            .map(|id| {
                read_message(&id).map_or(Entry::Foreign(id.id), |message| Entry::Ours(Box::new(message)))
            })
            .collect()
    };
    // The messages of a task that failed are pending, and are claimed again.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn read_message(id: &StreamId) -> Option<Message> {
    let org = OrgId::parse(&id.get::<String>("org")?).ok()?;
    let raw: Vec<u8> = id.get("batch")?;
    let batch = message::decode(&raw).map(Some).map_err(|error| error.to_string());
    let (key, events) = (id.get("key")?, id.get("events")?);
    Some(Message { stream_id: id.id.clone(), org, key, events, bytes: raw.len(), raw, batch })
}

/// Groups of at most so many events that one transaction takes.
fn chunks(messages: Vec<Message>) -> Vec<Vec<Message>> {
    let mut all: Vec<Vec<Message>> = Vec::new();
    let mut events = usize::MAX;
    for message in messages {
        let size = message.batch.as_ref().ok().and_then(Option::as_ref).map_or(0, |batch| batch.events.len());
        if events.saturating_add(size) > MAX_GROUP_EVENTS {
            all.push(Vec::new());
            events = 0;
        }
        events += size;
        if let Some(chunk) = all.last_mut() {
            chunk.push(message);
        }
    }
    all
}
