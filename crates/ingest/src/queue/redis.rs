//! The queue on Redis Streams: one stream per shard, one message per batch.
//!
//! An org's batches always go to the same shard, so they stay in order, and a shard has one consumer at a time (see
//! the worker). Beside each stream stand counters of bytes and of events that wait, changed together with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_domain::batches::Batch;
use agentlens_domain::ids::OrgId;
use agentlens_store::Tenant;

use super::{Counters, Queue, QueueError, QueueStatus, Receipt};
use crate::message;

/// Streams; fixed, because an org must keep its shard.
pub(crate) const SHARDS: u64 = 8;
/// The consumer group of all workers.
pub(crate) const GROUP: &str = "workers";
/// Batches of all shards that may wait.
const MAX_WAITING_BATCHES: u64 = 20_000;
/// Compressed bytes of all shards that may wait.
const MAX_WAITING_BYTES: u64 = 512 * 1024 * 1024;
/// How often the fill is read.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How long Redis has to answer before it counts as away.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// When to come back after a refusal.
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

    pub(crate) fn bytes(&self) -> String {
        format!("{}:ingest_bytes", self.prefix)
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

/// The queue of a gateway.
pub struct RedisQueue {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) counters: Arc<Counters>,
    connection: ConnectionManager,
    fill: Arc<Fill>,
}

#[derive(Default)]
struct Fill {
    batches: AtomicU64,
    bytes: AtomicU64,
}

/// Connects a manager that reconnects by itself and answers within seconds when Redis is away.
pub(crate) async fn connect(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(3)))
        .set_response_timeout(Some(Duration::from_secs(5)))
        .set_number_of_retries(3);
    client.get_connection_manager_with_config(config).await
}

impl RedisQueue {
    /// Connects, makes the consumer groups, and starts reading the fill on `tasks`.
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

    async fn refresh(&self) -> Result<(), QueueError> {
        read_fill(&mut self.connection.clone(), &self.keys, &self.fill)
            .await
            .map_err(|error| unavailable(&error))
    }
}

/// Makes the consumer groups where they are missing, reading from the beginning.
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
    pipe.cmd("GET").arg(keys.bytes());
    let (a, b, c, d, e, f, g, h, bytes): (u64, u64, u64, u64, u64, u64, u64, u64, Option<i64>) =
        pipe.query_async(connection).await?;
    fill.batches.store(a + b + c + d + e + f + g + h, Ordering::Relaxed);
    fill.bytes.store(u64::try_from(bytes.unwrap_or(0)).unwrap_or(0), Ordering::Relaxed);
    Ok(())
}

fn unavailable(error: &RedisError) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

#[async_trait]
impl Queue for RedisQueue {
    async fn publish(&self, tenant: &Tenant, batch: Batch) -> Result<Receipt, QueueError> {
        let status = self.status();
        if status.batches >= MAX_WAITING_BATCHES || status.bytes >= MAX_WAITING_BYTES {
            return Err(QueueError::Full { retry_after_s: RETRY_AFTER_S });
        }
        let org = tenant.org();
        let message = message::encode(&batch).map_err(|error| QueueError::Refused(error.to_string()))?;
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
            .cmd("INCRBY")
            .arg(self.keys.bytes())
            .arg(message.len())
            .ignore();
        let sent: Result<(), RedisError> = pipe.query_async(&mut self.connection.clone()).await;
        sent.map_err(|error| unavailable(&error))?;
        self.fill.batches.fetch_add(1, Ordering::Relaxed);
        self.fill.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        Ok(Receipt::Queued)
    }

    async fn waiting(&self, tenant: &Tenant) -> Result<FxHashMap<String, i64>, QueueError> {
        let all: std::collections::HashMap<String, i64> = redis::cmd("HGETALL")
            .arg(self.keys.waiting(tenant.org().as_str()))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(all.into_iter().collect())
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
        let (batches, bytes) =
            (self.fill.batches.load(Ordering::Relaxed), self.fill.bytes.load(Ordering::Relaxed));
        self.counters.status(batches, bytes)
    }
}
