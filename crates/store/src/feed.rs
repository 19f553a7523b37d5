//! How far this node has read the change feed, and what it drops when something changed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Store;
use crate::control::Change;
use crate::error::StoreError;

/// How long what is cached is trusted after the last good reading of the feed began.
const TRUST_FOR: Duration = Duration::from_secs(1);
/// The position before the first reading.
const UNREAD: i64 = -1;

/// This node's place in the change feed.
#[derive(Debug)]
pub(crate) struct Feed {
    position: AtomicI64,
    /// When the last good reading began.
    checked: Mutex<Option<Instant>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { position: AtomicI64::new(UNREAD), checked: Mutex::default() }
    }
}

impl Feed {
    /// Whether caches may be used: not before the first reading, nor when the feed can't be read.
    pub(crate) fn is_trusted(&self) -> bool {
        self.checked.lock().is_some_and(|at| at.elapsed() < TRUST_FOR)
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
        let read = self.control.changes_after(self.feed.position()).await?;
        self.feed.position.store(read.newest, Ordering::Release);
        let mut contexts = self.contexts.lock();
        let news = match read.changes {
            None => {
                contexts.clear();
                News::Anything
            }
            Some(changes) => {
                for change in &changes {
                    contexts.remove(&change.org);
                }
                News::Changes(changes)
            }
        };
        drop(contexts);
        *self.feed.checked.lock() = Some(asked);
        Ok(news)
    }

    /// Whether what was cached may be used: the feed was read within the last second.
    pub fn is_trusted(&self) -> bool {
        self.feed.is_trusted()
    }

    /// How far the feed was read. What was looked up while it moved must not be cached.
    pub fn feed_position(&self) -> i64 {
        self.feed.position()
    }
}
