//! `agentlens`: the command line, configuration and wiring. The only place that names an engine, a queue and a server
//! together.

mod boot;
mod clock;
mod commands;
mod config;
mod logging;
mod open_files;
mod output;

use std::process::ExitCode;
use std::time::Duration;

use config::{Cli, Command, Common};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the process waits in the end for work that can't be stopped, such as decoding a request that was given up.
const END_PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::read();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("agentlens").build() {
            Ok(runtime) => runtime,
            Err(error) => return output::fail(&format!("the runtime can't be started: {error}")),
        };
    let result = runtime.block_on(run(cli));
    runtime.shutdown_timeout(END_PATIENCE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

async fn run(cli: Cli) -> Result<(), String> {
    let common = Common { store: cli.store.resolve()?, json: cli.json };
    match cli.command {
        Command::Serve(options) => Box::pin(commands::serve::run(*options, &common)).await,
        Command::Migrate => commands::migrate::run(&common).await,
        Command::Org(command) => commands::orgs::run(command, &common).await,
        Command::Workspace(command) => commands::workspaces::run(command, &common).await,
        Command::Secret(command) => commands::secrets::run(command, &common).await,
        Command::User(command) => commands::users::run(command, &common).await,
        Command::Key(command) => commands::keys::run(command, &common).await,
        Command::Price(command) => commands::prices::run(command, &common).await,
        Command::Verify(options) => commands::verify::run(options, &common).await,
        Command::DeadLetters(command) => commands::dead_letters::run(command, &common).await,
        Command::Job(command) => commands::jobs::run(command, &common).await,
        Command::Demo(options) => commands::demo::run(options, &common).await,
        Command::Doctor(options) => commands::doctor::run(options, &common).await,
        Command::Openapi => commands::documents::openapi(),
        Command::ConfigurationDocs => commands::documents::configuration(),
        Command::EventDocs => commands::documents::events(),
    }
}
