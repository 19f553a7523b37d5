//! Browser sessions and memberships that were looked up, kept like keys: what changed is dropped within half a second on every node
//! (see [`crate::feed`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio_util::sync::CancellationToken;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, UserId, WorkspaceId};
use agentlens_domain::people::tokens::{Secret, TokenKeys, TokenPurpose};
use agentlens_domain::permissions::Role;
use agentlens_store::{BrowserSessionRow, Change, PersonsOrgRow, Store, StoreError};

use crate::feed::Cached;

/// Sessions that are kept, about; of more, those that are used seldom are looked up each time.
const MAX_CACHED_SESSIONS: usize = 100_000;
/// Roles and workspaces that are kept, about.
const MAX_CACHED_ORGS: usize = 100_000;
/// How often the times of last use are written.
const TOUCH_EVERY: Duration = Duration::from_secs(30);

/// A session that has not ended.
#[derive(Debug, Clone)]
pub struct ValidSession {
    /// Its public id.
    pub session_id: Arc<str>,
    /// Who is signed in.
    pub user_id: UserId,
    /// How long it may stay unused, in microseconds.
    pub idle_us: i64,
    /// When it ends in any case, microseconds UTC.
    pub expires_us: i64,
    /// When the person proved who they are, last.
    pub proved_us: i64,
    /// How, as words.
    pub methods: Arc<str>,
    /// The org's identity provider that vouched for the person.
    pub connection_id: Option<Arc<str>>,
    /// The digest of its cookie.
    pub digest: [u8; 32],
    seen_us: Arc<AtomicI64>,
}

impl ValidSession {
    fn of(row: BrowserSessionRow, digest: [u8; 32]) -> Option<Self> {
        Some(Self {
            session_id: row.session_id.into(),
            user_id: UserId::parse(&row.user_id).ok()?,
            idle_us: row.idle_us,
            expires_us: row.expires_us,
            proved_us: row.proved_us,
            methods: row.methods.into(),
            connection_id: row.connection_id.map(Into::into),
            digest,
            seen_us: Arc::new(AtomicI64::new(row.seen_us)),
        })
    }

    fn has_ended(&self, now_us: i64) -> bool {
        now_us >= self.expires_us || now_us >= self.seen_us.load(Ordering::Relaxed) + self.idle_us
    }
}

/// The cache of one node.
pub struct SessionCache {
    store: Store,
    tokens: TokenKeys,
    sessions: Cache<[u8; 32], ValidSession>,
    /// The roles of members.
    roles: Cache<(UserId, OrgId), Role>,
    /// The workspaces of orgs that aren't archived.
    workspaces: Cache<OrgId, Arc<FxHashSet<String>>>,
    /// Whether orgs are suspended.
    suspended: Cache<OrgId, bool>,
    used: Mutex<FxHashMap<Arc<str>, i64>>,
}

impl SessionCache {
    /// An empty cache.
    pub fn new(store: Store, tokens: TokenKeys) -> Self {
        Self {
            store,
            tokens,
            sessions: Cache::new(MAX_CACHED_SESSIONS),
            roles: Cache::new(MAX_CACHED_ORGS),
            workspaces: Cache::new(MAX_CACHED_ORGS),
            suspended: Cache::new(MAX_CACHED_ORGS),
            used: Mutex::default(),
        }
    }

    /// The session of a cookie's value; `None` if there is none, or none any more.
    pub async fn authenticate(&self, cookie: &str, now_us: i64) -> Result<Option<ValidSession>, StoreError> {
        let Some(secret) = Secret::parse(TokenPurpose::Session, cookie) else { return Ok(None) };
        let digest = *self.tokens.digest(&secret).as_bytes();
        let Some(session) = self.session(digest, now_us).await? else { return Ok(None) };
        session.seen_us.fetch_max(now_us, Ordering::Relaxed);
        self.used.lock().insert(Arc::clone(&session.session_id), now_us);
        Ok(Some(session))
    }

    /// Whether a session that was valid still is; for answers that go on for long.
    pub async fn is_still_valid(&self, session: &ValidSession, now_us: i64) -> bool {
        matches!(self.session(session.digest, now_us).await, Ok(Some(_)))
    }

    async fn session(&self, digest: [u8; 32], now_us: i64) -> Result<Option<ValidSession>, StoreError> {
        if self.store.is_trusted()
            && let Some(session) = self.sessions.get(&digest)
            && !session.has_ended(now_us)
        {
            return Ok(Some(session));
        }
        let position = self.store.feed_position();
        let row = self.store.control().find_session(&digest).await?;
        let Some(session) = row.and_then(|row| ValidSession::of(row, digest)) else {
            self.sessions.remove(&digest);
            return Ok(None);
        };
        self.keep(&self.sessions, &digest, session.clone(), position);
        Ok(Some(session))
    }

    /// The orgs of a person, by name.
    pub async fn orgs_of(&self, user: &UserId) -> Result<Vec<PersonsOrgRow>, StoreError> {
        self.store.control().orgs_of(user).await
    }

    /// The role of a person in an org; `None` for someone who is no member.
    pub async fn role_of(&self, user: &UserId, org: &OrgId) -> Result<Option<Role>, StoreError> {
        let key = (user.clone(), org.clone());
        if self.store.is_trusted()
            && let Some(role) = self.roles.get(&key)
        {
            return Ok(Some(role));
        }
        let position = self.store.feed_position();
        let role = self.store.control().role_of(org, user).await?;
        if let Some(role) = role {
            self.keep(&self.roles, &key, role, position);
        }
        Ok(role)
    }

    /// Whether an org has a workspace that isn't archived.
    pub async fn has_workspace(&self, org: &OrgId, workspace: &WorkspaceId) -> Result<bool, StoreError> {
        // One that isn't known may have just been made.
        if self.store.is_trusted()
            && self.workspaces.get(org).is_some_and(|known| known.contains(workspace.as_str()))
        {
            return Ok(true);
        }
        let position = self.store.feed_position();
        let rows = self.store.control().list_workspaces(org).await?;
        let open = rows.into_iter().filter(|row| row.archived_us.is_none()).map(|row| row.workspace_id);
        let open: Arc<FxHashSet<String>> = Arc::new(open.collect());
        let has_it = open.contains(workspace.as_str());
        self.keep(&self.workspaces, org, open, position);
        Ok(has_it)
    }

    /// Whether an org is suspended: its keys and members are refused.
    pub async fn is_suspended(&self, org: &OrgId) -> Result<bool, StoreError> {
        if self.store.is_trusted()
            && let Some(is_suspended) = self.suspended.get(org)
        {
            return Ok(is_suspended);
        }
        let position = self.store.feed_position();
        let is_suspended = self.store.control().is_suspended(org).await?;
        self.keep(&self.suspended, org, is_suspended, position);
        Ok(is_suspended)
    }

    /// Keeps what was read, unless something has changed since `position`.
    fn keep<K: std::hash::Hash + Eq + Clone, V: Clone>(
        &self,
        cache: &Cache<K, V>,
        key: &K,
        value: V,
        position: i64,
    ) {
        if !self.store.is_trusted() {
            return;
        }
        cache.insert(key.clone(), value);
        // Whoever reads of a change moves the position before it drops entries: one of the two sees the other.
        if self.store.feed_position() != position {
            cache.remove(key);
        }
    }

    /// Writes times of last use until shutdown.
    pub async fn keep_up(&self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(TOUCH_EVERY) => {}
            }
            let used = std::mem::take(&mut *self.used.lock());
            if used.is_empty() {
                continue;
            }
            let used = used.into_iter().map(|(session, at_us)| (session.to_string(), at_us)).collect();
            if let Err(error) = self.store.control().touch_sessions(used).await {
                tracing::warn!(error = %error, "the sessions' last use can't be written");
            }
        }
    }
}

impl Cached for SessionCache {
    fn forget(&self, changes: &[Change]) {
        for change in changes {
            let is = |topics: &[Topic]| change.topic.is_none_or(|topic| topics.contains(&topic));
            if is(&[Topic::People])
                && let Ok(user) = UserId::parse(change.org.as_str())
            {
                self.sessions.retain(|_, session| session.user_id != user);
            }
            if is(&[Topic::Members, Topic::Org]) {
                self.roles.retain(|(_, org), _| *org != change.org);
            }
            if is(&[Topic::Org]) {
                self.suspended.remove(&change.org);
            }
            if is(&[Topic::Workspaces, Topic::Org]) {
                self.workspaces.remove(&change.org);
            }
        }
    }

    fn forget_all(&self) {
        self.sessions.clear();
        self.roles.clear();
        self.workspaces.clear();
        self.suspended.clear();
    }
}
