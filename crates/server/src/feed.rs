//! Following the change feed: every node reads it twice a second, and drops what it had cached of whatever changed.
//!
//! When the feed can't be read, nothing cached is trusted for longer than a second, except on nodes with a [`ChangeRelay`]: they go
//! on with what they know for up to [`TRUST_WHILE_AWAY`](agentlens_store::TRUST_WHILE_AWAY), as long as the relay tells of no
//! change.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use agentlens_ingest::queue::redis::ChangeRelay;
use agentlens_store::{Change, News, Store, StoreError};

/// How often the change feed is read.
const CHECK_EVERY: Duration = Duration::from_millis(400);

/// What is cached of settings.
pub trait Cached: Send + Sync {
    /// Drops what these changes concern. The feed's position is already behind them.
    fn forget(&self, changes: &[Change]);

    /// Drops everything.
    fn forget_all(&self);
}

/// Reads the feed for all caches of a node.
pub struct ChangeFeed {
    store: Store,
    relay: Option<ChangeRelay>,
    caches: Vec<Arc<dyn Cached>>,
}

impl ChangeFeed {
    /// A feed for these caches; with a relay, the node goes on while the database is away.
    pub fn new(store: Store, relay: Option<ChangeRelay>, caches: Vec<Arc<dyn Cached>>) -> Self {
        Self { store, relay, caches }
    }

    /// Follows the feed until shutdown.
    pub async fn follow(&self, shutdown: CancellationToken) {
        let mut published = None;
        while !shutdown.is_cancelled() {
            match self.store.read_changes().await {
                Ok(News::Anything) => self.forget_all(),
                Ok(News::Changes(changes)) if changes.is_empty() => {}
                Ok(News::Changes(changes)) => self.caches.iter().for_each(|cache| cache.forget(&changes)),
                Err(error) => {
                    tracing::warn!(error = %error, "the change feed can't be read");
                    self.go_on_or_stop(&error).await;
                }
            }
            self.publish(&mut published).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
        }
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
                    // Perhaps a revocation. Whom it concerns is not known, so everything has to be looked up again.
                    self.forget_all();
                }
                self.store.go_on_without_feed();
            }
            Err(error) => {
                tracing::warn!(error = %error, "changes can't be read from Redis either; nothing cached is trusted");
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

    fn forget_all(&self) {
        self.caches.iter().for_each(|cache| cache.forget_all());
    }
}
