//! `agentlens`: the command line, configuration and wiring. The only place that names an engine, a queue and a server
//! together.

mod boot;
mod clock;
mod commands;
mod config;
mod logging;
mod output;

use std::process::ExitCode;

use clap::Parser;

use config::{Cli, Command};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("agentlens").build() {
            Ok(runtime) => runtime,
            Err(error) => return output::fail(&format!("the runtime can't be started: {error}")),
        };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Serve(options) => Box::pin(commands::serve::run(*options)).await,
        Command::Migrate(options) => commands::migrate::run(&options).await,
        Command::Org(command) => commands::orgs::run(command).await,
        Command::Key(command) => commands::keys::run(command).await,
        Command::Price(command) => commands::prices::run(command).await,
        Command::Verify(options) => commands::verify::run(options).await,
        Command::DeadLetters(command) => commands::dead_letters::run(command).await,
        Command::Demo(options) => commands::demo::run(options).await,
        Command::Openapi => commands::documents::openapi(),
        Command::ConfigurationDocs => commands::documents::configuration(),
    }
}
