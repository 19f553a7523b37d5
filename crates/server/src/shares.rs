//! What all requests of a server share, and how much of it one org or one client network may hold.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use agentlens_domain::ids::OrgId;
use agentlens_domain::limits::{MAX_BODIES_IN_MEMORY_BYTES, MAX_STREAM_SUBSCRIBERS};
use agentlens_fairness::{FairShare, Rule, Share};
use agentlens_store::StoreError;

use crate::error::ApiError;

/// An org alone may hold two thirds of the memory for bodies: the largest body and what is made of it fit.
const BODY_GREED: u64 = 2;
/// Bytes that large requests may take while they are decoded, for each processor; for two at least. They wait for it instead of
/// being refused.
const PARSING_BYTES_PER_CORE: u64 = 64 * 1024 * 1024;
/// Requests that read at the same time; one org has half of them at most, and all others wait for their turn.
const MAX_READING_REQUESTS: u64 = 16;
/// How long a request that reads waits for its turn.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// A network alone may hold three quarters of the connections: a proxy in front of the server is one network.
const CONNECTION_GREED: u64 = 3;

/// The shares of one process.
pub struct Shares {
    /// Bytes of bodies that are in memory, by org.
    pub bodies: FairShare<OrgId>,
    /// Bytes that are taken while large requests are decoded, by org.
    pub parsing: FairShare<OrgId>,
    /// Open connections, by client network.
    pub connections: FairShare<ClientNetwork>,
    /// Requests that read, by org. What each of them holds in memory is bounded, and a large answer keeps the turn until the
    /// client has taken it, so this bounds what all of them hold.
    pub reads: FairShare<OrgId>,
    /// Live streams, by org.
    pub streams: FairShare<OrgId>,
}

impl Shares {
    /// Shares of a server that keeps so many connections open.
    pub fn new(max_connections: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let bodies = Rule::new(MAX_BODIES_IN_MEMORY_BYTES as u64).with_greed(BODY_GREED);
        Self {
            bodies: FairShare::new(bodies),
            parsing: FairShare::new(Rule::new(cores.max(2) * PARSING_BYTES_PER_CORE)),
            connections: FairShare::new(Rule::new(max_connections).with_greed(CONNECTION_GREED)),
            reads: FairShare::new(Rule::new(MAX_READING_REQUESTS).with_floor(1)),
            streams: FairShare::new(Rule::new(MAX_STREAM_SUBSCRIBERS as u64).with_floor(1)),
        }
    }

    /// Waits until the org may begin another request that reads.
    pub(crate) async fn turn_to_read(&self, org: &OrgId) -> Result<Share<OrgId>, ApiError> {
        self.reads.take(org, 1, READ_PATIENCE).await.map_err(|_| StoreError::Busy.into())
    }
}

/// The turn to read of a request that is being answered. Whoever holds a clone keeps it.
#[derive(Clone, Default)]
pub(crate) struct HeldTurn(Arc<Mutex<Option<Share<OrgId>>>>);

impl HeldTurn {
    /// Keeps a turn.
    pub(crate) fn keep(&self, turn: Share<OrgId>) {
        *self.0.lock() = Some(turn);
    }
}

/// Where a client comes from: its IPv4 address, or the /64 network of its IPv6 address, of which one machine has many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_many_addresses_is_one_network() {
        let network = |address: &str| ClientNetwork::of(address.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.7"));
        assert_ne!(network("192.0.2.7"), network("192.0.2.8"));
    }

    #[test]
    fn the_largest_body_fits_beside_what_is_made_of_it() {
        let most = Shares::new(1).bodies.rule().most();
        assert!(most >= 2 * agentlens_domain::limits::MAX_DECOMPRESSED_BYTES as u64);
    }
}
