//! Updates the search index shortly after events are stored, without blocking the writer.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio_util::task::TaskTracker;

use agentlens_domain::ids::OrgId;
use agentlens_domain::limits::SEGMENT_EVENTS;
use agentlens_store::Org;

/// If more segments than this are not indexed, the writer waits for the index.
const MAX_LAG_SEGMENTS: usize = 16;

/// Starts indexing when an org has enough events for a segment. Each org is indexed by one task at a time.
#[derive(Clone)]
pub(crate) struct Indexer {
    tasks: TaskTracker,
    running: Arc<Mutex<FxHashSet<OrgId>>>,
    with_text: bool,
}

impl Indexer {
    pub(crate) fn new(tasks: TaskTracker, with_text: bool) -> Self {
        Self { tasks, running: Arc::default(), with_text }
    }

    /// To be called after each commit, with the number of events that are not indexed.
    pub(crate) async fn follow(&self, org: &Org, lag_events: i64) {
        let lag = usize::try_from(lag_events).unwrap_or(0);
        if lag < SEGMENT_EVENTS || !self.running.lock().insert(org.id().clone()) {
            return;
        }
        let run = Run { indexer: self.clone(), org: org.clone() };
        let task = self.tasks.spawn(run.index());
        if lag > SEGMENT_EVENTS * MAX_LAG_SEGMENTS {
            let _ = task.await;
        }
    }
}

struct Run {
    indexer: Indexer,
    org: Org,
}

impl Run {
    async fn index(self) {
        loop {
            match self.org.segments().index_next(self.indexer.with_text).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // Events that are not indexed stay searchable. The next commit tries again.
                    tracing::warn!(org.id = %self.org.id(), error = %error, "indexing for search failed");
                    return;
                }
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.indexer.running.lock().remove(self.org.id());
    }
}
