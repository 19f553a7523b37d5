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

use config::{Cli, Command, Common};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::read();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("agentlens").build() {
            Ok(runtime) => runtime,
            Err(error) => return output::fail(&format!("the runtime can't be started: {error}")),
        };
    match runtime.block_on(run(cli)) {
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
