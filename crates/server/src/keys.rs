//! Keys that were looked up, kept for speed and dropped within half a second of any change of their org's keys.
//!
//! Every change of settings, whoever makes it, is in the change feed of the control tables. Every node reads the feed twice a
//! second, and drops what it had cached of the orgs named there. When the feed can't be read, nothing cached is trusted for
//! longer than a second, except on nodes with a [`ChangeRelay`]: they go on with the keys and orgs that they know for up to
//! [`TRUST_WHILE_AWAY`](agentlens_store::TRUST_WHILE_AWAY), as long as the relay tells of no change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{KeyId, OrgId, WorkspaceId};
use agentlens_domain::keys::{ApiKey, KeyScope, ServerSecret};
use agentlens_domain::permissions::{Actor, Caller};
use agentlens_ingest::Sender;
use agentlens_ingest::queue::redis::ChangeRelay;
use agentlens_store::{Change, KeyRow, News, Store, StoreError};

/// How often the change feed is read.
const CHECK_EVERY: Duration = Duration::from_millis(400);
/// How often the times of last use are written.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// Keys kept at most.
const MAX_CACHED_KEYS: usize = 100_000;

/// What a valid key stands for.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The org.
    pub org: OrgId,
    /// The key.
    pub key_id: KeyId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// The environment of events that name none.
    pub environment: String,
    /// Whether events that name another environment are refused.
    pub is_environment_bound: bool,
    /// Who acts, and what it may do.
    pub caller: Arc<Caller>,
    /// When it stops working, microseconds UTC.
    pub expires_us: Option<i64>,
    digest: [u8; 32],
}

impl Principal {
    /// Who sends, for the write path.
    pub fn sender(&self) -> Sender {
        Sender {
            key_id: self.key_id.clone(),
            workspace_id: self.workspace_id.clone(),
            environment: self.environment.clone(),
            is_environment_bound: self.is_environment_bound,
        }
    }
}

/// Why a key is not taken.
#[derive(Debug)]
pub enum KeyError {
    /// It has not the form of a key: mistyped, cut, or another product's.
    Malformed,
    /// Unknown or revoked.
    Invalid,
    /// Past its day.
    Expired,
    /// It can't be looked up now.
    Store(StoreError),
}

/// The cache of one node.
pub struct KeyCache {
    store: Store,
    secret: ServerSecret,
    entries: Mutex<FxHashMap<[u8; 32], Principal>>,
    relay: Option<ChangeRelay>,
    used: Mutex<FxHashMap<(OrgId, KeyId), i64>>,
}

impl KeyCache {
    /// An empty cache.
    pub fn new(store: Store, secret: ServerSecret) -> Self {
        Self { store, secret, entries: Mutex::default(), relay: None, used: Mutex::default() }
    }

    /// The same cache for a node that goes on while the database is away.
    #[must_use]
    pub fn with_relay(self, relay: Option<ChangeRelay>) -> Self {
        Self { relay, ..self }
    }

    /// Whether this node takes events although the database does not answer.
    pub fn goes_on_without_store(&self) -> bool {
        self.relay.is_some() && self.store.is_trusted()
    }

    /// The secret that digests keys and signs reports.
    pub fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    /// Whether a key that was valid still is; for answers that go on for long.
    pub async fn is_still_valid(&self, principal: &Principal, now_us: i64) -> bool {
        let is_known = self.store.is_trusted() && self.entries.lock().contains_key(&principal.digest);
        let is_expired = principal.expires_us.is_some_and(|at| at <= now_us);
        !is_expired && (is_known || self.look_up(principal.digest).await.is_ok())
    }

    /// Whom a presented key stands for.
    pub async fn authenticate(&self, presented: &str, now_us: i64) -> Result<Principal, KeyError> {
        let key = ApiKey::parse(presented).ok_or(KeyError::Malformed)?;
        let digest = self.secret.digest(key.reveal());
        let cached = if self.store.is_trusted() { self.entries.lock().get(&digest).cloned() } else { None };
        let principal = match cached {
            Some(principal) => principal,
            None => self.look_up(digest).await?,
        };
        if principal.expires_us.is_some_and(|at| at <= now_us) {
            return Err(KeyError::Expired);
        }
        self.used.lock().insert((principal.org.clone(), principal.key_id.clone()), now_us);
        Ok(principal)
    }

    async fn look_up(&self, digest: [u8; 32]) -> Result<Principal, KeyError> {
        // The position is read first: a change after it drops the entry again.
        let position = self.store.feed_position();
        let row = self
            .store
            .control()
            .find_key_by_digest(&digest)
            .await
            .map_err(KeyError::Store)?
            .ok_or(KeyError::Invalid)?;
        if row.revoked_us.is_some() {
            return Err(KeyError::Invalid);
        }
        let principal = principal_of(&row, digest).ok_or(KeyError::Invalid)?;
        let mut entries = self.entries.lock();
        if self.store.feed_position() == position && entries.len() < MAX_CACHED_KEYS {
            entries.insert(digest, principal.clone());
        }
        Ok(principal)
    }

    /// Follows the change feed and writes times of last use until shutdown.
    pub async fn watch(&self, shutdown: CancellationToken) {
        let mut touched = Instant::now();
        let mut published = None;
        while !shutdown.is_cancelled() {
            match self.store.read_changes().await {
                Ok(News::Anything) => self.entries.lock().clear(),
                Ok(News::Changes(changes)) => self.forget(&changes),
                Err(error) => {
                    tracing::warn!(error = %error, "the change feed can't be read");
                    self.go_on_or_stop(&error).await;
                }
            }
            self.publish(&mut published).await;
            if touched.elapsed() >= TOUCH_EVERY {
                self.write_last_use().await;
                touched = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
        }
        self.write_last_use().await;
    }

    /// While the database is away, a node with a relay goes on with what it knows, until the relay tells of a change or can't
    /// be reached either.
    async fn go_on_or_stop(&self, error: &StoreError) {
        let Some(relay) = self.relay.as_ref().filter(|_| error.is_away()) else {
            return self.store.stop_without_feed();
        };
        match relay.newest().await {
            Ok(newest) => {
                if newest.is_some_and(|newest| newest > self.store.feed_position()) {
                    // Perhaps a revocation. Which keys it concerns is not known, so all have to be looked up again.
                    self.entries.lock().clear();
                }
                self.store.go_on_without_feed();
            }
            Err(error) => {
                tracing::warn!(error = %error, "changes can't be read from Redis either; no key is trusted");
                self.store.stop_without_feed();
            }
        }
    }

    /// Tells nodes that can't reach the database how far this one has read.
    async fn publish(&self, published: &mut Option<i64>) {
        let position = self.store.feed_position();
        let Some(relay) = self.relay.as_ref().filter(|_| *published != Some(position) && position >= 0)
        else {
            return;
        };
        match relay.publish(position).await {
            Ok(()) => *published = Some(position),
            Err(error) => tracing::warn!(error = %error, "a change could not be passed on through Redis"),
        }
    }

    fn forget(&self, changes: &[Change]) {
        let concerns_keys = |change: &&Change| !matches!(change.topic, Some(Topic::Prices));
        let orgs: FxHashSet<&OrgId> =
            changes.iter().filter(concerns_keys).map(|change| &change.org).collect();
        if !orgs.is_empty() {
            self.entries.lock().retain(|_, principal| !orgs.contains(&principal.org));
        }
    }

    async fn write_last_use(&self) {
        let used = std::mem::take(&mut *self.used.lock());
        if used.is_empty() {
            return;
        }
        let used = used.into_iter().map(|((org, key), at)| (org, key, at)).collect();
        if let Err(error) = self.store.control().touch_keys(used).await {
            tracing::warn!(error = %error, "the keys' last use can't be written");
        }
    }
}

fn principal_of(row: &KeyRow, digest: [u8; 32]) -> Option<Principal> {
    let (org, key_id) = (OrgId::parse(&row.org_id).ok()?, KeyId::parse(&row.key_id).ok()?);
    let workspace_id = WorkspaceId::parse(&row.workspace_id).ok()?;
    let scopes = row.scopes.split(' ').filter_map(KeyScope::parse).collect();
    let actor = Actor::Key { key_id: key_id.clone(), scopes };
    Some(Principal {
        caller: Arc::new(Caller { org: org.clone(), workspace: Some(workspace_id.clone()), actor }),
        org,
        key_id,
        workspace_id,
        environment: row.environment.clone(),
        is_environment_bound: row.is_environment_bound,
        expires_us: row.expires_us,
        digest,
    })
}
