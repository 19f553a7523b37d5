//! Leases: the right to do one piece of work, held by one process at a time.
//!
//! A separate task renews a lease, so that slow work does not lose it. The holder calls [`Held::is_held`] before each
//! write and stops when it returns `false`. The result comes from the local clock and turns `false` a second before
//! the lease can end in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::aio::ConnectionManager;
use redis::{Client, RedisError, Script};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::queue::redis::connect;

/// How long a lease lasts without renewal. The work of a dead process is taken over after at most this long.
pub const LEASE: Duration = Duration::from_secs(6);
/// How often it is renewed, and how long one renewal may take.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// A holder stops this long before its lease ends, because the clocks of two machines may run at different speeds.
const MARGIN: Duration = Duration::from_secs(1);

/// Takes a lease that is free, or renews one that we hold.
const TAKE: &str = "
local holder = redis.call('get', KEYS[1])
if holder == false or holder == ARGV[1] then redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2]) return 1 end
return 0";
const GIVE_UP: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// The store of leases is unavailable.
#[derive(Debug, thiserror::Error)]
#[error("leases can't be reached: {0}")]
pub struct LeaseError(pub String);

impl From<RedisError> for LeaseError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

/// The store of leases.
#[async_trait]
pub trait LeaseKeeper: Send + Sync {
    /// Takes a lease for `duration`, or renews it if `holder` has it. Returns `false` if another holder has it.
    async fn take(&self, name: &str, holder: &str, duration: Duration) -> Result<bool, LeaseError>;

    /// Ends a lease if `holder` has it.
    async fn give_up(&self, name: &str, holder: &str) -> Result<(), LeaseError>;
}

/// Leases in Redis. All of them share one connection.
pub struct RedisLeases {
    client: Client,
    connection: OnceCell<ConnectionManager>,
    take: Script,
    give_up: Script,
}

impl RedisLeases {
    /// Leases of a Redis server. It connects when the first lease is taken.
    pub fn new(client: Client) -> Self {
        Self { client, connection: OnceCell::new(), take: Script::new(TAKE), give_up: Script::new(GIVE_UP) }
    }

    async fn connection(&self) -> Result<ConnectionManager, RedisError> {
        self.connection.get_or_try_init(|| connect(&self.client)).await.cloned()
    }
}

#[async_trait]
impl LeaseKeeper for RedisLeases {
    async fn take(&self, name: &str, holder: &str, duration: Duration) -> Result<bool, LeaseError> {
        let mut take = self.take.key(name);
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let taken: i64 = take.arg(holder).arg(millis).invoke_async(&mut self.connection().await?).await?;
        Ok(taken == 1)
    }

    async fn give_up(&self, name: &str, holder: &str) -> Result<(), LeaseError> {
        let mut give_up = self.give_up.key(name);
        let _: i64 = give_up.arg(holder).invoke_async(&mut self.connection().await?).await?;
        Ok(())
    }
}

/// A lease that this process holds. It is renewed until it is given up or dropped.
pub struct Lease {
    keeper: Arc<dyn LeaseKeeper>,
    name: String,
    holder: Arc<str>,
    held: Held,
    renewing: JoinHandle<()>,
}

/// Shows whether a lease is still held. Cheap to clone.
#[derive(Clone)]
pub struct Held(Arc<State>);

struct State {
    begun: Instant,
    /// Milliseconds after `begun` at which the holder stops relying on the lease.
    until_ms: AtomicU64,
    lost: CancellationToken,
}

impl Held {
    fn from(asked: Instant) -> Self {
        let state = State { begun: asked, until_ms: AtomicU64::default(), lost: CancellationToken::new() };
        let held = Self(Arc::new(state));
        held.extend(asked);
        held
    }

    fn extend(&self, asked: Instant) {
        let until = asked.duration_since(self.0.begun) + LEASE.saturating_sub(MARGIN);
        self.0.until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.begun.elapsed().as_millis() >= u128::from(self.0.until_ms.load(Ordering::Relaxed))
    }

    /// Whether the lease allows a write now.
    pub fn is_held(&self) -> bool {
        !self.0.lost.is_cancelled() && !self.is_over()
    }

    /// Returns when the lease is lost.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }
}

impl Lease {
    /// Takes the lease `name`; `None` if another holder has it.
    pub async fn take(
        keeper: &Arc<dyn LeaseKeeper>,
        name: &str,
        holder: &Arc<str>,
    ) -> Result<Option<Self>, LeaseError> {
        // Measured before the request, because the lease may have started long before a slow answer arrives.
        let asked = Instant::now();
        if !keeper.take(name, holder, LEASE).await? {
            return Ok(None);
        }
        let held = Held::from(asked);
        let renewing =
            tokio::spawn(renew(Arc::clone(keeper), name.to_owned(), Arc::clone(holder), held.clone()));
        let (keeper, name, holder) = (Arc::clone(keeper), name.to_owned(), Arc::clone(holder));
        Ok(Some(Self { keeper, name, holder, held, renewing }))
    }

    /// Shows whether the lease is still held, for tasks that depend on it.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Ends the lease, so that another process can take it at once.
    pub async fn give_up(self) {
        self.renewing.abort();
        self.held.0.lost.cancel();
        if let Err(error) = self.keeper.give_up(&self.name, &self.holder).await {
            tracing::debug!(lease = %self.name, error = %error, "a lease was not given up; it ends by itself");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        self.held.0.lost.cancel();
    }
}

async fn renew(keeper: Arc<dyn LeaseKeeper>, name: String, holder: Arc<str>, held: Held) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let asked = Instant::now();
        match tokio::time::timeout(RENEW_EVERY, keeper.take(&name, &holder, LEASE)).await {
            // If the lease had ended, another process may have held it in between.
            Ok(Ok(true)) if !held.is_over() => held.extend(asked),
            Ok(Ok(_)) => break,
            Ok(Err(error)) => {
                tracing::warn!(lease = %name, error = %error, "a lease could not be renewed");
            }
            Err(_) => tracing::warn!(lease = %name, "a lease could not be renewed in time"),
        }
        if held.is_over() {
            break;
        }
    }
    tracing::warn!(lease = %name, "a lease was lost");
    held.0.lost.cancel();
}
