//! Every option of the program; those of servers are also variables. One file per concern. `docs/configuration.md` is
//! generated from these files.

mod commands;
mod http;
mod log;
mod outbound;
mod people;
mod secrets;
mod serve;
mod store;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use commands::{
    DeadLettersCommand, DemoOptions, DoctorOptions, JobCommand, KeyCommand, OrgCommand, PriceCommand,
    SecretCommand, UserCommand, VerifyOptions, WorkspaceCommand,
};
pub(crate) use http::{HttpOptions, ListenAddress};
pub(crate) use log::{LogFormat, LogOptions};
pub(crate) use outbound::OutboundOptions;
pub(crate) use people::PeopleOptions;
pub(crate) use serve::{Role, ServeOptions, Switch};
pub(crate) use store::{StoreOptions, StoreSettings};

/// AgentLens shows what your AI agents do, what they cost and where they fail.
#[derive(Debug, Parser)]
#[command(name = "agentlens", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where data is.
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Cli {
    /// Reads the arguments and the variables. An empty variable is like none: compose files and charts set what has no value.
    /// What is wrong is printed and ends the program.
    pub(crate) fn read() -> Self {
        let read = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&read).unwrap_or_else(|error| error.exit())
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| {
        let is_empty = argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { argument.env(None::<&'static str>) } else { argument }
    });
    command.mut_subcommands(without_empty_variables)
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Common {
    /// Where data is.
    pub(crate) store: StoreSettings,
    /// Print JSON.
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Box<ServeOptions>),
    /// Create or update the schema, policies and grants in PostgreSQL.
    Migrate,
    /// Manage orgs.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Manage an org's workspaces.
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Manage the keys by which the server signs.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Manage people.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Manage an org's own prices of models.
    #[command(subcommand)]
    Price(PriceCommand),
    /// Verify what is stored: the hash chains of all sessions, the sums that are shown of them, the search index, and the audit log.
    /// Names the first broken event of each session.
    Verify(VerifyOptions),
    /// List and replay batches that could not be applied.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// List periodic jobs, or run one now.
    #[command(subcommand)]
    Job(JobCommand),
    /// Send a few hundred realistic sessions to a running server.
    Demo(DemoOptions),
    /// Check a running server from a client's side: address, API key, and an event that is sent and read back.
    Doctor(DoctorOptions),
    /// Print the API's description (openapi.json).
    #[command(hide = true)]
    Openapi,
    /// Print the page of all options (docs/configuration.md).
    #[command(hide = true)]
    ConfigurationDocs,
    /// Print the page of all event types (docs/events.md).
    #[command(hide = true)]
    EventDocs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for arguments in [
            &["agentlens", "--data-dir", "d", "key", "list", "--json"][..],
            &["agentlens", "key", "--data-dir", "d", "--json", "list"],
            &["agentlens", "key", "list", "--json", "--data-dir", "d"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert!(cli.json && cli.store.data_dir.as_os_str() == "d", "{arguments:?}");
        }
    }
}
