//! Keys that were looked up, kept for speed and dropped within half a second of any change of their org's keys (see
//! [`crate::feed`]).
//!
//! A node knows short forms of the digests of all valid keys, so it tells guesses from keys without asking the store. A key that is
//! not among them is a guess, or was made within the last second: few of these are looked up at the same time, networks take
//! turns, and a key that turns out to be unknown holds its place for a while. What was unknown is remembered until any key changes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{KeyId, OrgId, WorkspaceId};
use agentlens_domain::keys::{ApiKey, ServerSecret};
use agentlens_domain::permissions::{Actor, Caller, Origin};
use agentlens_domain::rates::{Rate, Refused};
use agentlens_fairness::{FairShare, Rule};
use agentlens_ingest::Sender;
use agentlens_store::{Change, KeyRow, Store, StoreError};

use crate::error::note_rate;
use crate::feed::Cached;
use crate::proxies::ClientAddress;
use crate::rates::Counts;
use crate::shares::ClientNetwork;

/// How often it is looked whether something is unread that could not be read before.
const CHECK_UNREAD_EVERY: Duration = Duration::from_secs(5);
/// How often the times of last use are written.
const TOUCH_EVERY: Duration = Duration::from_secs(30);
/// Keys that are kept, about; of more, those that are used seldom are looked up each time.
const MAX_CACHED_KEYS: usize = 100_000;
/// Unknown keys that are remembered, about.
const MAX_UNKNOWN_KEYS: usize = 20_000;
/// Valid keys of which a node knows the short form, 16 bytes each; of more, some are looked up like guesses.
const MAX_KNOWN_KEYS: usize = 2_000_000;
/// Keys not known on this node that are looked up at the same time; one network has half of them at most.
const MAX_GUESSES: u64 = 16;
/// How long such a look-up waits for its turn.
const GUESS_PATIENCE: Duration = Duration::from_secs(5);
/// How long an unknown key holds its place, so that all guesses together are at most 320 a second.
const GUESS_PENALTY: Duration = Duration::from_millis(50);

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
    /// What restricts it further; most keys have nothing of that kind.
    restrictions: Option<Arc<Restrictions>>,
    digest: Digest,
}

/// What restricts a key beside its scopes and its expiry.
#[derive(Debug)]
struct Restrictions {
    is_workspace_archived: bool,
    /// The networks that it may be used from; all if there are none.
    networks: Vec<IpNet>,
    rate: Option<Rate>,
}

impl Restrictions {
    fn of(row: &KeyRow) -> Option<Arc<Self>> {
        // A network that can't be read must not open the key to all others.
        let none = IpNet::from(IpAddr::from([0_u8; 16]));
        let networks = row.allowed_networks.split_whitespace();
        let networks: Vec<IpNet> = networks.map(|text| text.parse().unwrap_or(none)).collect();
        let rate = row.rate_per_minute.map(|rate| Rate::per_minute(u32::try_from(rate).unwrap_or(1)));
        let is_workspace_archived = row.is_workspace_archived;
        let restricts = is_workspace_archived || !networks.is_empty() || rate.is_some();
        restricts.then(|| Arc::new(Self { is_workspace_archived, networks, rate }))
    }

    fn admits(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
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
    /// Too many unknown keys come from the client's network.
    Guessing,
    /// Its workspace is archived.
    Archived,
    /// It may not be used from the client's address.
    Elsewhere,
    /// It is used more often than its own rate allows.
    TooOften(Refused),
    /// It can't be looked up now.
    Store(StoreError),
}

/// A key's digest.
type Digest = [u8; 32];

/// Eight bytes of a digest. Two keys that share them only make one guess in 2^64 cost a look-up at once.
fn short_form(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Keys whose short forms have to be read.
enum Unread {
    /// Those of every org.
    Everything,
    /// Those of these orgs.
    Orgs(FxHashSet<OrgId>),
}

impl Unread {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Orgs(FxHashSet::default()))
    }

    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Orgs(orgs), Self::Orgs(more)) => orgs.extend(more),
        }
    }
}

/// The cache of one node.
pub struct KeyCache {
    store: Store,
    secret: ServerSecret,
    entries: Cache<Digest, Principal>,
    /// Short forms of keys that are valid, or were when they were read.
    known: RwLock<FxHashSet<u64>>,
    /// What has to be read for `known`.
    unread: Mutex<Unread>,
    has_unread: Notify,
    /// Keys that were unknown when the change feed had been read so far.
    unknown: Cache<Digest, i64>,
    /// How far the feed had been read when any key changed last.
    changed: AtomicI64,
    guesses: FairShare<ClientNetwork>,
    has_relay: bool,
    used: Mutex<FxHashMap<(OrgId, KeyId), i64>>,
    /// Counts of keys that have a rate of their own.
    rates: Counts<Digest>,
}

impl KeyCache {
    /// An empty cache.
    pub fn new(store: Store, secret: ServerSecret) -> Self {
        Self {
            store,
            secret,
            entries: Cache::new(MAX_CACHED_KEYS),
            known: RwLock::default(),
            unread: Mutex::new(Unread::Everything),
            has_unread: Notify::new(),
            unknown: Cache::new(MAX_UNKNOWN_KEYS),
            changed: AtomicI64::new(i64::MIN),
            guesses: FairShare::new(Rule::new(MAX_GUESSES).with_floor(1)),
            has_relay: false,
            used: Mutex::default(),
            rates: Counts::new(),
        }
    }

    /// The same cache for a node that goes on while the database is away.
    #[must_use]
    pub fn with_relay(self, has_relay: bool) -> Self {
        Self { has_relay, ..self }
    }

    /// Whether this node takes events although the database does not answer.
    pub fn goes_on_without_store(&self) -> bool {
        self.has_relay && self.store.is_trusted()
    }

    /// The secret that digests keys and signs reports.
    pub fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    /// Whether a key that was valid still is; for answers that go on for long.
    pub async fn is_still_valid(&self, principal: &Principal, now_us: i64) -> bool {
        let is_known = self.store.is_trusted() && self.entries.get(&principal.digest).is_some();
        let is_expired = principal.expires_us.is_some_and(|at| at <= now_us);
        // A change of the key or its workspace drops it from the cache.
        let is_open = |found: Principal| found.restrictions.is_none_or(|it| !it.is_workspace_archived);
        !is_expired && (is_known || self.look_up(principal.digest).await.is_ok_and(is_open))
    }

    /// Whom a key stands for that was presented by a client.
    pub async fn authenticate(
        &self,
        presented: &str,
        client: ClientAddress,
        now_us: i64,
    ) -> Result<Principal, KeyError> {
        let key = ApiKey::parse(presented).ok_or(KeyError::Malformed)?;
        let digest = self.secret.digest(key.reveal());
        let cached = if self.store.is_trusted() { self.entries.get(&digest) } else { None };
        let principal = match cached {
            Some(principal) => principal,
            None => self.find(digest, client.network()).await?,
        };
        if principal.expires_us.is_some_and(|at| at <= now_us) {
            return Err(KeyError::Expired);
        }
        if let Some(restrictions) = &principal.restrictions {
            self.check(restrictions, digest, client, now_us)?;
        }
        self.used.lock().insert((principal.org.clone(), principal.key_id.clone()), now_us);
        Ok(principal)
    }

    /// Refuses what restricts a key beside its scopes.
    fn check(
        &self,
        restrictions: &Restrictions,
        digest: Digest,
        client: ClientAddress,
        now_us: i64,
    ) -> Result<(), KeyError> {
        if restrictions.is_workspace_archived {
            return Err(KeyError::Archived);
        }
        if !restrictions.admits(client.0) {
            return Err(KeyError::Elsewhere);
        }
        let Some(rate) = restrictions.rate else { return Ok(()) };
        let (left, counted) = self.rates.count(rate, digest, now_us);
        note_rate(left);
        counted.map_err(KeyError::TooOften)
    }

    /// Looks a key up; one that isn't known waits for its turn among guesses.
    async fn find(&self, digest: Digest, network: ClientNetwork) -> Result<Principal, KeyError> {
        if self.is_unknown(&digest) {
            return Err(KeyError::Invalid);
        }
        if self.known.read().contains(&short_form(&digest)) {
            return self.look_up(digest).await;
        }
        let turn = self.guesses.take(&network, 1, GUESS_PATIENCE).await;
        let turn = turn.map_err(|_| KeyError::Guessing)?;
        if self.is_unknown(&digest) {
            return Err(KeyError::Invalid);
        }
        let found = self.look_up(digest).await;
        if matches!(found, Err(KeyError::Invalid)) {
            tokio::time::sleep(GUESS_PENALTY).await;
        }
        drop(turn);
        found
    }

    /// Whether a key was unknown and no key has changed since.
    fn is_unknown(&self, digest: &Digest) -> bool {
        let read_to = self.unknown.get(digest);
        self.store.is_trusted() && read_to.is_some_and(|to| to >= self.changed.load(Ordering::Acquire))
    }

    /// Looks a key up, once for all requests that present it at the same time.
    async fn look_up(&self, digest: Digest) -> Result<Principal, KeyError> {
        if !self.store.is_trusted() {
            return Ok(self.read(digest).await?.0);
        }
        let guard = match self.entries.get_value_or_guard_async(&digest).await {
            Ok(principal) => return Ok(principal),
            Err(guard) => guard,
        };
        let (principal, position) = self.read(digest).await?;
        self.remember([short_form(&digest)]);
        // Whoever reads of a change moves the position before it drops entries: one of the two sees the other.
        let _ = guard.insert(principal.clone());
        if self.store.feed_position() != position {
            self.entries.remove(&digest);
        }
        Ok(principal)
    }

    /// Reads a key from the store, and says how far the change feed had been read before.
    async fn read(&self, digest: Digest) -> Result<(Principal, i64), KeyError> {
        let position = self.store.feed_position();
        let row = self.store.control().find_key_by_digest(&digest).await.map_err(KeyError::Store)?;
        let row = row.filter(|row| row.revoked_us.is_none());
        match row.and_then(|row| principal_of(&row, digest)) {
            Some(principal) => Ok((principal, position)),
            None => {
                if self.store.is_trusted() {
                    self.unknown.insert(digest, position);
                }
                Err(KeyError::Invalid)
            }
        }
    }

    fn remember(&self, keys: impl IntoIterator<Item = u64>) {
        let mut known = self.known.write();
        for key in keys {
            if known.len() >= MAX_KNOWN_KEYS {
                return;
            }
            known.insert(key);
        }
    }

    /// Keeps what is slow up to date until shutdown: which keys there are, and when keys were last used.
    pub async fn keep_up(&self, shutdown: CancellationToken) {
        let mut touched = Instant::now();
        while !shutdown.is_cancelled() {
            self.read_unread().await;
            if touched.elapsed() >= TOUCH_EVERY {
                self.write_last_use().await;
                touched = Instant::now();
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.has_unread.notified() => {}
                () = tokio::time::sleep(CHECK_UNREAD_EVERY) => {}
            }
        }
        self.write_last_use().await;
    }

    /// Reads which keys there are of orgs whose keys have changed; what can't be read is tried again.
    async fn read_unread(&self) {
        let unread = self.unread.lock().take();
        let read = match &unread {
            Unread::Everything => self.read_every_key().await,
            Unread::Orgs(orgs) => self.read_keys_of(orgs).await,
        };
        if let Err(error) = read {
            tracing::warn!(error = %error, "the keys can't be read; new ones wait among guesses");
            self.unread.lock().add(unread);
        }
    }

    async fn read_every_key(&self) -> Result<(), StoreError> {
        let mut known = FxHashSet::default();
        let mut after: Digest = [0; 32];
        loop {
            let digests = self.store.control().key_digests(&after).await?;
            let Some(last) = digests.last().filter(|_| known.len() < MAX_KNOWN_KEYS) else { break };
            after = *last;
            known.extend(digests.iter().map(short_form));
        }
        *self.known.write() = known;
        Ok(())
    }

    async fn read_keys_of(&self, orgs: &FxHashSet<OrgId>) -> Result<(), StoreError> {
        for org in orgs {
            let digests = self.store.control().key_digests_of(org).await?;
            self.remember(digests.iter().map(short_form));
        }
        Ok(())
    }

    fn note_unread(&self, unread: Unread) {
        self.unread.lock().add(unread);
        self.has_unread.notify_one();
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

impl Cached for KeyCache {
    fn forget(&self, changes: &[Change]) {
        let concerns_keys =
            |change: &&Change| !matches!(change.topic, Some(Topic::Prices | Topic::Members | Topic::People));
        let orgs: FxHashSet<&OrgId> =
            changes.iter().filter(concerns_keys).map(|change| &change.org).collect();
        if !orgs.is_empty() {
            self.changed.fetch_max(self.store.feed_position(), Ordering::AcqRel);
            self.entries.retain(|_, principal| !orgs.contains(&principal.org));
            self.note_unread(Unread::Orgs(orgs.into_iter().cloned().collect()));
        }
    }

    fn forget_all(&self) {
        self.changed.fetch_max(self.store.feed_position(), Ordering::AcqRel);
        self.unknown.clear();
        self.entries.clear();
        self.note_unread(Unread::Everything);
    }
}

fn principal_of(row: &KeyRow, digest: Digest) -> Option<Principal> {
    let (org, key_id) = (OrgId::parse(&row.org_id).ok()?, KeyId::parse(&row.key_id).ok()?);
    let workspace_id = WorkspaceId::parse(&row.workspace_id).ok()?;
    let actor = Actor::Key { key_id: key_id.clone(), scopes: row.scopes() };
    Some(Principal {
        caller: Arc::new(Caller {
            org: org.clone(),
            workspace: Some(workspace_id.clone()),
            actor,
            origin: Origin::default(),
        }),
        org,
        key_id,
        workspace_id,
        environment: row.environment.clone(),
        is_environment_bound: row.is_environment_bound,
        expires_us: row.expires_us,
        restrictions: Restrictions::of(row),
        digest,
    })
}

#[cfg(test)]
mod tests;
