//! How far this node has read the change feed, and what it drops when something changed.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Store;
use crate::control::Change;
use crate::error::StoreError;

/// How long what is cached is trusted after the last good reading of the feed began.
const TRUST_FOR: Duration = Duration::from_secs(1);
/// How long it is trusted while the database is away, where changes come another way too ([`Store::go_on_without_feed`]).
pub const TRUST_WHILE_AWAY: Duration = Duration::from_secs(15 * 60);
/// How long a reading may take while the feed is trusted: the next one has to begin before that trust ends.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// The same when it is not: the database may be slow rather than away.
const SLOW_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The position before the first reading.
const UNREAD: i64 = -1;

/// This node's place in the change feed.
#[derive(Debug)]
pub(crate) struct Feed {
    position: AtomicI64,
    /// When the last good reading began.
    checked: Mutex<Option<Instant>>,
    /// Whether the database is away and this node goes on with what it knows.
    goes_on: AtomicBool,
}

impl Default for Feed {
    fn default() -> Self {
        Self { position: AtomicI64::new(UNREAD), checked: Mutex::default(), goes_on: AtomicBool::new(false) }
    }
}

impl Feed {
    /// Whether caches may be used: not before the first reading, nor when the feed can't be read.
    pub(crate) fn is_trusted(&self) -> bool {
        let limit = if self.goes_on.load(Ordering::Acquire) { TRUST_WHILE_AWAY } else { TRUST_FOR };
        self.checked.lock().is_some_and(|at| at.elapsed() < limit)
    }

    /// The number of the last change that was read. What was looked up while it moved must not be cached.
    pub(crate) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }
}

/// What a reading of the change feed found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These changes, perhaps none.
    Changes(Vec<Change>),
    /// This node was away for so long that anything may have changed.
    Anything,
}

impl Store {
    /// Reads what changed since the last reading and drops the contexts of the orgs concerned. A server calls it some times a
    /// second; until the first call, and when calls fail, nothing that is cached is used.
    pub async fn read_changes(&self) -> Result<News, StoreError> {
        // Before the reading: a slow one may miss what was committed since.
        let asked = Instant::now();
        let is_away = self.feed.goes_on.load(Ordering::Acquire) || !self.feed.is_trusted();
        let limit = if is_away { SLOW_READ_TIMEOUT } else { READ_TIMEOUT };
        let reading = tokio::time::timeout(limit, self.control.changes_after(self.feed.position()));
        let read = reading.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the change feed was not read in time".to_owned()))
        })?;
        self.feed.position.store(read.newest, Ordering::Release);
        let news = match read.changes {
            None => {
                self.contexts.clear();
                News::Anything
            }
            Some(changes) => {
                for change in &changes {
                    self.contexts.remove(&change.org);
                }
                News::Changes(changes)
            }
        };
        *self.feed.checked.lock() = Some(asked);
        self.feed.goes_on.store(false, Ordering::Release);
        Ok(news)
    }

    /// The database is away: what is cached is used for up to [`TRUST_WHILE_AWAY`] after the last good reading. Only for
    /// nodes that are told of changes another way meanwhile.
    pub fn go_on_without_feed(&self) {
        self.feed.goes_on.store(true, Ordering::Release);
    }

    /// What is cached is not used any more until the feed is read again.
    pub fn stop_without_feed(&self) {
        self.feed.goes_on.store(false, Ordering::Release);
    }

    /// Whether what was cached may be used: the feed was read within the last second, or this node goes on without.
    pub fn is_trusted(&self) -> bool {
        self.feed.is_trusted()
    }

    /// How far the feed was read. What was looked up while it moved must not be cached.
    pub fn feed_position(&self) -> i64 {
        self.feed.position()
    }
}
