//! Options of the commands beside `serve`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::secrets::resolve;

/// Commands on orgs.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum OrgCommand {
    /// Create an org and print its first API key.
    Create {
        /// Its name for people.
        name: String,
        /// Days to keep its events; default: forever.
        #[arg(long, allow_negative_numbers = true)]
        retention_days: Option<i32>,
    },
    /// List orgs.
    List,
    /// Suspend an org: its keys and members are refused within a second, its data are kept.
    Suspend {
        /// The org's id.
        org: String,
    },
    /// Let a suspended org go on.
    Resume {
        /// The org's id.
        org: String,
    },
    /// List deletions of orgs with their signed receipts.
    Receipts,
}

/// Commands on the secrets of the server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make a new key that signs receipts from now on. What earlier keys signed can still be checked.
    Rotate,
}

/// Commands on workspaces.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace in an org.
    Create {
        /// Its name for people.
        name: String,
        /// Its id: 1 to 64 of a-z, A-Z, 0-9, `_` and `-`. Made of the name unless given.
        #[arg(long)]
        id: Option<String>,
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// List an org's workspaces.
    List {
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
}

/// Commands on people.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a person who has a role in an org, and print a password, once.
    Create {
        /// The e-mail address.
        email: String,
        /// The name for people; the beginning of the address unless given.
        #[arg(long)]
        name: Option<String>,
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
        /// owner, admin, auditor, member or viewer.
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// List people.
    List,
    /// Give a person a new password and print it, once. All sessions of the person end; a second factor stays.
    ResetPassword {
        /// The e-mail address.
        email: String,
    },
    /// Disable a person: all sessions end, and nobody can sign in. What the person made stays.
    Disable {
        /// The e-mail address.
        email: String,
    },
    /// Enable a disabled person.
    Enable {
        /// The e-mail address.
        email: String,
    },
}

/// Commands on keys.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new key without storing it (see `AGENTLENS_BOOTSTRAP_API_KEY`).
    Generate,
    /// Create a key and print it, once.
    Create {
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
        /// What it may do: *, events:write, events:read, audit:read, keys:manage, org:read, org:manage, members:manage, workspaces:manage, prices:manage, dead_letters:manage. Repeatable; everything unless given.
        #[arg(long)]
        scope: Vec<String>,
        /// When it stops working: 12h, 30d, ... from now; never unless given.
        #[arg(long, allow_hyphen_values = true)]
        expires_in: Option<String>,
        /// Its name for people.
        #[arg(long, default_value = "")]
        name: String,
        /// The workspace it writes to and reads from.
        #[arg(long, default_value = "default")]
        workspace: String,
        /// The environment of events that name none: production, staging, development or a name of your own.
        #[arg(long, default_value = "production")]
        environment: String,
        /// Refuse events that name another environment.
        #[arg(long)]
        bind_environment: bool,
    },
    /// List an org's keys.
    List {
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// Revoke a key; every node stops accepting it within a second.
    Revoke {
        /// The key's id (`key list` shows it).
        key_id: String,
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
}

/// Commands on an org's own prices, which come before the program's price table.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PriceCommand {
    /// Set the price of a model from an instant on; costs that are already computed do not change.
    Set {
        /// The model; its dated releases have the same price.
        model: String,
        /// US dollars per million input tokens, such as 2.50.
        #[arg(long, allow_negative_numbers = true)]
        input: String,
        /// US dollars per million output tokens.
        #[arg(long, allow_negative_numbers = true)]
        output: String,
        /// US dollars per million input tokens read from a cache; by the provider's rule unless given.
        #[arg(long, allow_negative_numbers = true)]
        cache_read: Option<String>,
        /// US dollars per million input tokens written to a cache; by the provider's rule unless given.
        #[arg(long, allow_negative_numbers = true)]
        cache_write: Option<String>,
        /// The only provider this price is for; all unless given.
        #[arg(long)]
        provider: Option<String>,
        /// A date or an RFC 3339 instant from which the price applies; default: always.
        #[arg(long)]
        from: Option<String>,
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// List an org's own prices.
    List {
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
}

/// Options of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyOptions {
    /// The org's id; all orgs unless given.
    #[arg(long)]
    pub(crate) org: Option<String>,
}

/// Commands on dead letters.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List batches that could not be applied, oldest first.
    List {
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
    /// Apply them again; what succeeds is removed from the list.
    Replay {
        /// One batch; all of the org unless given.
        batch_id: Option<String>,
        /// The org's id.
        #[arg(long, default_value = "default")]
        org: String,
    },
}

/// Commands on jobs.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, when each last ran and for how many orgs it fails.
    List,
    /// Run a job now, whether it is due or not. Refused while another process runs it.
    Run {
        /// The job's name (`job list` shows it).
        name: String,
        /// The org's id; all orgs unless given. Jobs of the server as a whole take none.
        #[arg(long)]
        org: Option<String>,
    },
}

/// The running server that a command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// The server.
    #[arg(long, env = "AGENTLENS_SERVER_URL", default_value = "http://127.0.0.1:3400")]
    url: String,
    /// An API key.
    #[arg(long, env = "AGENTLENS_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// A file that holds the API key.
    #[arg(long, env = "AGENTLENS_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
}

impl ServerOptions {
    /// The server's address, without a slash at its end.
    pub(crate) fn url(&self) -> Result<&str, String> {
        let url = self.url.trim().trim_end_matches('/');
        if url.contains("://") {
            return Ok(url);
        }
        Err(format!("--url `{url}` must begin with http:// or https://; write http://{url}"))
    }

    /// The API key, which must be given.
    pub(crate) fn api_key(&self) -> Result<String, String> {
        resolve("AGENTLENS_API_KEY", self.api_key.as_deref(), self.api_key_file.as_deref())?.ok_or_else(|| {
            "an API key is needed: set AGENTLENS_API_KEY or give --api-key (the server prints one at its first start; `agentlens key create` makes another)".to_owned()
        })
    }
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoOptions {
    /// The server; the key must be one that may send events.
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// How many sessions to send.
    #[arg(long, default_value_t = 300)]
    pub(crate) sessions: u32,
    /// Days over which they are spread, up to now.
    #[arg(long, default_value_t = 7)]
    pub(crate) days: u32,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorOptions {
    /// The server; the key must be one that may send and read events.
    #[command(flatten)]
    pub(crate) server: ServerOptions,
}
