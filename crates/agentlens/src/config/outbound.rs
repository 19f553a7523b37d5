//! Which private addresses the server may send requests to.

use agentlens_outbound::Allow;
use clap::Args;

/// Options of requests to addresses that customers choose.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutboundOptions {
    /// Private hosts and networks that customers' addresses, such as webhooks, may reach, separated by commas:
    /// hooks.internal, *.internal, 10.1.0.0/16. Only these may be reached without encryption.
    #[arg(long, env = "AGENTLENS_OUTBOUND_ALLOW", value_delimiter = ',')]
    pub(crate) outbound_allow: Vec<Allow>,
}
