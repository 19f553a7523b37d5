//! Streams of a node that does not apply events: other nodes store what they wait for.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use agentlens_ingest::Live;
use agentlens_store::Store;

/// How often the positions of followed orgs are looked up.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// Advances this node's live streams to what other nodes stored, until shutdown. One statement looks up all followed orgs.
pub async fn follow(store: Store, live: Live, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
        let followed = live.followed();
        if followed.is_empty() {
            continue;
        }
        match store.last_positions(&followed).await {
            Ok(positions) => positions.iter().for_each(|(org, position)| live.advance(org, *position)),
            Err(error) => tracing::warn!(error = %error, "the positions of followed orgs can't be read"),
        }
    }
}
