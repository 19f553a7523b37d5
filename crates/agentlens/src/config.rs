//! Every option of the program, each also a variable. `docs/configuration.md` is generated from this file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// AgentLens shows what your AI agents do, cost and suffer from.
#[derive(Debug, Parser)]
#[command(name = "agentlens", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Box<ServeOptions>),
    /// Create or update the schema, policies and grants in PostgreSQL.
    Migrate(MigrateOptions),
    /// Manage orgs.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Manage API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Manage an org's own prices of models.
    #[command(subcommand)]
    Price(PriceCommand),
    /// Verify the hash chains of an org from the stored bytes; names the first broken event of each session.
    Verify(VerifyOptions),
    /// List and replay batches that could not be applied.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Send a few hundred realistic sessions to a running server.
    Demo(DemoOptions),
    /// Print the API's description (openapi.json).
    #[command(hide = true)]
    Openapi,
    /// Print the page of all options (docs/configuration.md).
    #[command(hide = true)]
    ConfigurationDocs,
}

/// Where data is.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreOptions {
    /// Directory of the embedded store, and of the server's secret.
    #[arg(long, env = "AGENTLENS_DATA_DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// PostgreSQL under the application's role, which owns nothing; without it the embedded store is used.
    #[arg(long, env = "AGENTLENS_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// PostgreSQL under the owner's role; used only to create schema, policies and grants.
    #[arg(long, env = "AGENTLENS_DATABASE_OWNER_URL", hide_env_values = true)]
    pub(crate) database_owner_url: Option<String>,
    /// Connections to PostgreSQL at most.
    #[arg(long, env = "AGENTLENS_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub(crate) database_connections: usize,
    /// Redis for the ingest queue; without it the queue is in process.
    #[arg(long, env = "AGENTLENS_REDIS_URL", hide_env_values = true)]
    pub(crate) redis_url: Option<String>,
    /// What the names of all keys in Redis begin with.
    #[arg(long, env = "AGENTLENS_REDIS_PREFIX", default_value = "agentlens")]
    pub(crate) redis_prefix: String,
    /// The server's secret, 64 hexadecimal digits: it digests API keys and signs reports. Without it, `secret.key` in the
    /// data directory is used, and made when missing. All nodes of one service need the same.
    #[arg(long, env = "AGENTLENS_SECRET_KEY", hide_env_values = true)]
    pub(crate) secret_key: Option<String>,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything.
    All,
    /// Take requests: ingest and reads.
    Gateway,
    /// Apply what waits in Redis.
    Worker,
    /// Run jobs on a clock.
    Scheduler,
}

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeOptions {
    /// Address to listen on.
    #[arg(long, env = "AGENTLENS_LISTEN", default_value = "127.0.0.1:3400")]
    pub(crate) listen: SocketAddr,
    /// A further address that serves the same, such as 127.0.0.1:4317 where OpenTelemetry exporters look by default. OTLP
    /// over HTTP and gRPC is served on the address above in any case.
    #[arg(long, env = "AGENTLENS_OTLP_LISTEN")]
    pub(crate) otlp_listen: Option<SocketAddr>,
    /// What this node does.
    #[arg(long, env = "AGENTLENS_ROLE", value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,
    /// Index payload texts for full-text search. Off saves CPU and space; searches then read everything they cover.
    #[arg(long, env = "AGENTLENS_SEARCH", value_enum, default_value_t = Switch::On)]
    pub(crate) search: Switch,
    /// A key that the default org gets at start (`agentlens key generate` prints one), for containers and tests.
    #[arg(long, env = "AGENTLENS_BOOTSTRAP_API_KEY", hide_env_values = true)]
    pub(crate) bootstrap_api_key: Option<String>,
    /// How logs are written.
    #[arg(long, env = "AGENTLENS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, or filters by module.
    #[arg(long, env = "AGENTLENS_LOG", default_value = "info")]
    pub(crate) log: String,
    /// Seconds that requests and batches under way get to finish at shutdown.
    #[arg(long, env = "AGENTLENS_SHUTDOWN_SECONDS", default_value_t = 25)]
    pub(crate) shutdown_seconds: u64,
    /// Where data is.
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

/// Options of `migrate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateOptions {
    /// Where data is.
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands on orgs.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum OrgCommand {
    /// Make an org and print its first API key.
    Create {
        /// Its name for people.
        name: String,
        /// Days that its events are kept; for ever unless given.
        #[arg(long)]
        retention_days: Option<i32>,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List orgs.
    List {
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Commands on keys.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a well-formed key; it is stored nowhere (see `AGENTLENS_BOOTSTRAP_API_KEY`).
    Generate {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a key and print it, once.
    Create {
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// What it may do: *, events:write, events:read, audit:read, keys:manage. Repeatable; everything unless given.
        #[arg(long)]
        scope: Vec<String>,
        /// When it stops working: 12h, 30d, ... from now; never unless given.
        #[arg(long)]
        expires_in: Option<String>,
        /// Its name for people.
        #[arg(long, default_value = "")]
        name: String,
        /// The workspace it writes to and reads from.
        #[arg(long, default_value = "default")]
        workspace: String,
        /// The environment of its events: production, staging or development.
        #[arg(long, default_value = "production")]
        environment: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List an org's keys.
    List {
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; every node stops taking it within a second.
    Revoke {
        /// The key's id (`key list` shows it).
        key_id: String,
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Commands on an org's own prices; they stand before the program's price table.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PriceCommand {
    /// Set the price of a model from an instant on; costs that were computed before stay.
    Set {
        /// The model; dated releases of it are priced alike.
        model: String,
        /// US dollars per million input tokens, such as 2.50.
        #[arg(long)]
        input: String,
        /// US dollars per million output tokens.
        #[arg(long)]
        output: String,
        /// US dollars per million input tokens read from a cache; by the provider's rule unless given.
        #[arg(long)]
        cache_read: Option<String>,
        /// US dollars per million input tokens written to a cache; by the provider's rule unless given.
        #[arg(long)]
        cache_write: Option<String>,
        /// The only provider this price is for; all unless given.
        #[arg(long)]
        provider: Option<String>,
        /// A date or an RFC 3339 instant from which the price holds; always unless given.
        #[arg(long)]
        from: Option<String>,
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List an org's own prices.
    List {
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyOptions {
    /// The org; all orgs unless given.
    #[arg(long)]
    pub(crate) org: Option<String>,
    /// Where data is.
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Commands on dead letters.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List batches that could not be applied, the oldest first.
    List {
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Apply them again; what succeeds is removed from the list.
    Replay {
        /// One batch; all of the org unless given.
        batch_id: Option<String>,
        /// The org.
        #[arg(long, default_value = "default")]
        org: String,
        /// Where data is.
        #[command(flatten)]
        store: StoreOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoOptions {
    /// The server.
    #[arg(long, env = "AGENTLENS_SERVER_URL", default_value = "http://127.0.0.1:3400")]
    pub(crate) url: String,
    /// An API key that may send events.
    #[arg(long, env = "AGENTLENS_API_KEY", hide_env_values = true)]
    pub(crate) api_key: String,
    /// How many sessions to send.
    #[arg(long, default_value_t = 300)]
    pub(crate) sessions: u32,
    /// Days over which they are spread, up to now.
    #[arg(long, default_value_t = 7)]
    pub(crate) days: u32,
    /// Print JSON at the end.
    #[arg(long)]
    pub(crate) json: bool,
}
