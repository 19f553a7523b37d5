//! What a server is and does.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::secrets::resolve;
use super::{HttpOptions, LogOptions, OutboundOptions, PeopleOptions};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything.
    All,
    /// Serve the API: ingest and reads.
    Gateway,
    /// Apply batches from the queue in Redis.
    Worker,
    /// Run periodic jobs.
    Scheduler,
}

impl Role {
    /// The name of the option's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }

    /// Whether it answers the API.
    pub(crate) fn takes_requests(self) -> bool {
        matches!(self, Self::All | Self::Gateway)
    }
}

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeOptions {
    /// Where it listens.
    #[command(flatten)]
    pub(crate) http: HttpOptions,
    /// What this node does.
    #[arg(long, env = "AGENTLENS_ROLE", value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,
    /// Index payload texts for full-text search. Off saves CPU and space; searches then read everything they cover.
    #[arg(long, env = "AGENTLENS_SEARCH", value_enum, default_value_t = Switch::On)]
    pub(crate) search: Switch,
    /// A key that the default org gets at start (`agentlens key generate` prints one), for containers and tests. Another one
    /// later adds a key; the one before stays valid until it is revoked.
    #[arg(long, env = "AGENTLENS_BOOTSTRAP_API_KEY", hide_env_values = true)]
    bootstrap_api_key: Option<String>,
    /// A file that holds that key.
    #[arg(long, env = "AGENTLENS_BOOTSTRAP_API_KEY_FILE")]
    bootstrap_api_key_file: Option<PathBuf>,
    /// How it logs.
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// People.
    #[command(flatten)]
    pub(crate) people: PeopleOptions,
    /// Requests to customers' addresses.
    #[command(flatten)]
    pub(crate) outbound: OutboundOptions,
}

impl ServeOptions {
    /// The key that the default org gets at start.
    pub(crate) fn bootstrap_key(&self) -> Result<Option<String>, String> {
        resolve(
            "AGENTLENS_BOOTSTRAP_API_KEY",
            self.bootstrap_api_key.as_deref(),
            self.bootstrap_api_key_file.as_deref(),
        )
    }
}
