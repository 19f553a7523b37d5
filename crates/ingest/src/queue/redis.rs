//! The queue on Redis Streams: one stream per shard, one message per batch.
//!
//! All batches of an org go to the same shard, so they stay in order. Each shard has one consumer at a time (see the worker).
//! Counters of each org's bytes and waiting events are changed together with the stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;
use agentlens_fairness::Rule;
use agentlens_store::Org;

use super::{Counters, Queue, QueueError, QueueStatus, Receipt};
use crate::message;

/// The number of streams. It is fixed, because an org must stay in its shard.
pub(crate) const SHARDS: u64 = 8;
/// The consumer group of all workers.
pub(crate) const GROUP: &str = "workers";
/// The capacity of the queue in bytes. An org may use as much as is still free, so alone it gets half. An org whose batches
/// fail and pile up can't fill the queue.
const ROOM: Rule = Rule::new(512 << 20);
/// Bytes counted for a message in addition to its compressed size. So about 20,000 small batches fill the queue.
const MESSAGE_ROOM: u64 = 26 << 10;
/// How often the size of the queue is read.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How long Redis may take to answer before it counts as unavailable.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// The `Retry-After` of a refusal.
const RETRY_AFTER_S: u32 = 2;

/// The names of keys in Redis.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(crate) fn stream(&self, shard: u64) -> String {
        format!("{}:ingest:{shard}", self.prefix)
    }

    pub(crate) fn lease(&self, shard: u64) -> String {
        format!("{}:lease:{shard}", self.prefix)
    }

    pub(crate) fn room(&self) -> String {
        format!("{}:ingest_room", self.prefix)
    }

    fn changes(&self) -> String {
        format!("{}:changes", self.prefix)
    }

    pub(crate) fn waiting(&self, org: &str) -> String {
        format!("{}:waiting:{org}", self.prefix)
    }
}

/// The shard of an org. Stable across versions and machines: FNV-1a over the id.
pub(crate) fn shard_of(org: &OrgId) -> u64 {
    let hash = org.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % SHARDS
}

/// The bytes of the queue that a message occupies.
pub(crate) fn room_of(message: &[u8]) -> u64 {
    message.len() as u64 + MESSAGE_ROOM
}

/// The queue of a gateway.
pub struct RedisQueue {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) counters: Arc<Counters>,
    connection: ConnectionManager,
    fill: Arc<Fill>,
}

/// The size of the queue when it was last read, and what this process added since.
#[derive(Default)]
struct Fill {
    batches: AtomicU64,
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    used: u64,
    orgs: FxHashMap<String, u64>,
}

/// Opens a connection that reconnects automatically and fails within seconds if Redis is unavailable.
pub(crate) async fn connect(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(3)))
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_number_of_retries(3);
    client.get_connection_manager_with_config(config).await
}

impl RedisQueue {
    /// Connects, creates the consumer groups, and starts a task on `tasks` that reads the size of the queue.
    pub async fn open(
        url: &str,
        prefix: &str,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, QueueError> {
        let client = Client::open(url).map_err(|error| unavailable(&error))?;
        let mut connection = connect(&client).await.map_err(|error| unavailable(&error))?;
        let keys = Keys::new(prefix);
        ensure_groups(&mut connection, &keys).await.map_err(|error| unavailable(&error))?;
        let queue = Self { client, keys, counters: Arc::default(), connection, fill: Arc::default() };
        queue.refresh().await?;
        tasks.spawn(watch_fill(
            queue.connection.clone(),
            queue.keys.clone(),
            Arc::clone(&queue.fill),
            shutdown,
        ));
        Ok(queue)
    }

    /// The position of the change feed, by which gateways learn of changes while the database is unavailable.
    pub fn change_relay(&self) -> ChangeRelay {
        ChangeRelay {
            connection: self.connection.clone(),
            key: self.keys.changes(),
            advance: Arc::new(Script::new(ADVANCE)),
        }
    }

    async fn refresh(&self) -> Result<(), QueueError> {
        read_fill(&mut self.connection.clone(), &self.keys, &self.fill)
            .await
            .map_err(|error| unavailable(&error))
    }
}

/// The newest position of the change feed that any node has read, kept in Redis. It tells a gateway that can't reach the database
/// that something changed, such as that a key was revoked.
#[derive(Clone)]
pub struct ChangeRelay {
    connection: ConnectionManager,
    key: String,
    advance: Arc<Script>,
}

/// Sets the position if it is higher, so that a slow node can't set it back.
const ADVANCE: &str = "
local known = redis.call('get', KEYS[1])
if known == false or tonumber(known) < tonumber(ARGV[1]) then redis.call('set', KEYS[1], ARGV[1]) end
return 1";

impl ChangeRelay {
    /// Publishes the position that this node has read.
    pub async fn publish(&self, position: i64) -> Result<(), QueueError> {
        let mut advance = self.advance.key(&self.key);
        let done: Result<i64, RedisError> =
            advance.arg(position).invoke_async(&mut self.connection.clone()).await;
        done.map(|_| ()).map_err(|error| unavailable(&error))
    }

    /// The newest position that any node published; `None` if there is none yet.
    pub async fn newest(&self) -> Result<Option<i64>, QueueError> {
        let newest: Result<Option<i64>, RedisError> =
            redis::cmd("GET").arg(&self.key).query_async(&mut self.connection.clone()).await;
        newest.map_err(|error| unavailable(&error))
    }
}

/// Messages that are looked at in one step of a purge. Redis answers nobody else meanwhile.
const PURGED_AT_A_TIME: u64 = 100;

/// Removes the messages of one org from a part of a stream; answers how many, and the last message that was looked at.
const PURGE: &str = "
local removed, last = 0, false
for _, message in ipairs(redis.call('xrange', KEYS[1], ARGV[3], '+', 'count', ARGV[4])) do
  last = message[1]
  for i = 1, #message[2], 2 do
    if message[2][i] == 'org' and message[2][i + 1] == ARGV[2] then
      redis.call('xack', KEYS[1], ARGV[1], last)
      removed = removed + redis.call('xdel', KEYS[1], last)
    end
  end
end
return {removed, last}";

/// Creates the consumer groups that are missing. They read from the start of the stream.
pub(crate) async fn ensure_groups(connection: &mut ConnectionManager, keys: &Keys) -> Result<(), RedisError> {
    for shard in 0..SHARDS {
        let made: Result<(), RedisError> = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(keys.stream(shard))
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(connection)
            .await;
        match made {
            Err(error) if error.code() != Some("BUSYGROUP") => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn watch_fill(
    mut connection: ConnectionManager,
    keys: Keys,
    fill: Arc<Fill>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(STATUS_INTERVAL) => {}
        }
        if let Err(error) = read_fill(&mut connection, &keys, &fill).await {
            tracing::warn!(error = %error, "the fill of the ingest queue can't be read");
        }
    }
}

async fn read_fill(connection: &mut ConnectionManager, keys: &Keys, fill: &Fill) -> Result<(), RedisError> {
    let mut pipe = redis::pipe();
    for shard in 0..SHARDS {
        pipe.cmd("XLEN").arg(keys.stream(shard));
    }
    pipe.cmd("HGETALL").arg(keys.room());
    let (a, b, c, d, e, f, g, h, orgs): (u64, u64, u64, u64, u64, u64, u64, u64, HashMap<String, i64>) =
        pipe.query_async(connection).await?;
    fill.batches.store(a + b + c + d + e + f + g + h, Ordering::Relaxed);
    let orgs: FxHashMap<String, u64> =
        orgs.into_iter().filter_map(|(org, room)| Some((org, u64::try_from(room).ok()?))).collect();
    *fill.room.lock() = Room { used: orgs.values().sum(), orgs };
    Ok(())
}

fn unavailable(error: &RedisError) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

#[async_trait]
impl Queue for RedisQueue {
    async fn publish(&self, org: &Org, batch: Batch) -> Result<Receipt, QueueError> {
        let org = org.id();
        let message = message::encode(&batch).map_err(|error| QueueError::Refused(error.to_string()))?;
        let wanted = room_of(&message);
        {
            let room = self.fill.room.lock();
            let held = room.orgs.get(org.as_str()).copied().unwrap_or(0);
            if ROOM.check(room.used, held, wanted).is_err() {
                return Err(QueueError::Full { retry_after_s: RETRY_AFTER_S });
            }
        }
        let mut pipe = redis::pipe();
        pipe.atomic()
            .cmd("XADD")
            .arg(self.keys.stream(shard_of(org)))
            .arg("*")
            .arg(&[("org", org.as_str()), ("key", batch.key_id.as_str())])
            .arg("events")
            .arg(batch.received_count)
            .arg("batch")
            .arg(&message)
            .ignore()
            .cmd("HINCRBY")
            .arg(self.keys.waiting(org.as_str()))
            .arg(batch.key_id.as_str())
            .arg(batch.received_count)
            .ignore()
            .cmd("HINCRBY")
            .arg(self.keys.room())
            .arg(org.as_str())
            .arg(wanted)
            .ignore();
        let sent: Result<(), RedisError> = pipe.query_async(&mut self.connection.clone()).await;
        sent.map_err(|error| unavailable(&error))?;
        self.fill.batches.fetch_add(1, Ordering::Relaxed);
        let mut room = self.fill.room.lock();
        room.used += wanted;
        *room.orgs.entry(org.as_str().to_owned()).or_default() += wanted;
        Ok(Receipt::Queued)
    }

    async fn waiting(&self, org: &Org) -> Result<FxHashMap<String, i64>, QueueError> {
        let all: HashMap<String, i64> = redis::cmd("HGETALL")
            .arg(self.keys.waiting(org.id().as_str()))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(all.into_iter().collect())
    }

    async fn purge(&self, org: &OrgId) -> Result<u64, QueueError> {
        let script = Script::new(PURGE);
        let (mut connection, mut removed, mut after) = (self.connection.clone(), 0, "-".to_owned());
        loop {
            let mut purge = script.key(self.keys.stream(shard_of(org)));
            let done: Result<(u64, Option<String>), RedisError> = purge
                .arg(GROUP)
                .arg(org.as_str())
                .arg(&after)
                .arg(PURGED_AT_A_TIME)
                .invoke_async(&mut connection)
                .await;
            let (count, last) = done.map_err(|error| unavailable(&error))?;
            removed += count;
            let Some(last) = last else { break };
            after = format!("({last}");
        }
        let mut pipe = redis::pipe();
        pipe.atomic()
            .cmd("DEL")
            .arg(self.keys.waiting(org.as_str()))
            .cmd("HDEL")
            .arg(self.keys.room())
            .arg(org.as_str());
        let counters: Result<(u64, u64), RedisError> = pipe.query_async(&mut connection).await;
        let (waiting, room) = counters.map_err(|error| unavailable(&error))?;
        Ok(removed + waiting + room)
    }

    async fn ping(&self) -> Result<(), QueueError> {
        let mut connection = self.connection.clone();
        let ping = async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        match tokio::time::timeout(PING_TIMEOUT, ping).await {
            Ok(answered) => answered.map_err(|error| unavailable(&error)),
            Err(_) => Err(QueueError::Unavailable("Redis does not answer".to_owned())),
        }
    }

    fn status(&self) -> QueueStatus {
        let (batches, used) = (self.fill.batches.load(Ordering::Relaxed), self.fill.room.lock().used);
        self.counters.status(batches, used.saturating_sub(batches.saturating_mul(MESSAGE_ROOM)))
    }
}
