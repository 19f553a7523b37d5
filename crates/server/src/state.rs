//! What every handler can reach.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use agentlens_domain::entitlements::Entitlements;
use agentlens_ingest::{Gateway, Live};
use agentlens_outbound::Outbound;
use agentlens_store::Store;

use crate::auth::sessions::SessionCache;
use crate::ingest_requests::Recorder;
use crate::keys::KeyCache;
use crate::metrics::Metrics;
use crate::people::People;
use crate::proxies::TrustedProxies;
use crate::reading::Reading;
use crate::shares::Shares;

/// The state of a server; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Data at rest.
    pub store: Store,
    /// The write path.
    pub gateway: Gateway,
    /// Who is told of new events.
    pub live: Live,
    /// Keys that were looked up.
    pub keys: Arc<KeyCache>,
    /// Browser sessions that were looked up.
    pub sessions: Arc<SessionCache>,
    /// What signing in needs.
    pub people: Arc<People>,
    /// How many of something an org may have.
    pub entitlements: Arc<Entitlements>,
    /// What became of the last requests of OpenTelemetry clients.
    pub ingest_requests: Arc<Recorder>,
    /// Counters for `/metrics`.
    pub metrics: Arc<Metrics>,
    /// What orgs and clients share, so that none of them takes it all.
    pub shares: Arc<Shares>,
    /// The proxies whose word on a client's address is taken.
    pub proxies: Arc<TrustedProxies>,
    /// The threads that answer requests that read.
    pub reading: Arc<Reading>,
    /// The one way to addresses that customers choose.
    pub outbound: Outbound,
    /// Set when the server is to stop; streams end then.
    pub shutdown: CancellationToken,
}

impl AppState {
    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        self.store.clock().now_us()
    }
}
