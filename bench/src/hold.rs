//! `stack`: starts a whole AgentLens, creates further orgs, writes where everything is to a file a
//! shell can read, and holds it until it is told to end (SIGTERM, SIGINT).

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::keys::find_key;
use crate::stack::{Part, Roles, Stack, StackArgs};

#[derive(Args, Clone, Debug)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    stack: StackArgs,
    #[arg(long, default_value = "together")]
    roles: Roles,
    /// Orgs created with `agentlens org create`; their keys go to a file beside the state file.
    #[arg(long, default_value_t = 0)]
    orgs: usize,
    /// Written once everything is ready: NAME=value lines.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
}

pub(crate) fn run(args: &HoldArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    })?;
    let stack = Stack::start(&args.stack, args.roles)?;
    let keys_file = args.state.with_extension("keys");
    let mut keys = String::new();
    for number in 1..=args.orgs {
        let printed = stack.command(&["org", "create", &format!("Bench {number}"), "--json"])?;
        keys += &find_key(&printed).context("`org create --json` printed no key")?;
        keys.push('\n');
    }
    std::fs::write(&keys_file, keys)?;
    let mut state = format!("BENCH_URL={}\nBENCH_KEY={}\n", stack.url(), stack.key);
    state += &format!("BENCH_KEYS_FILE='{}'\n", keys_file.display());
    state += &format!("BENCH_DATA_DIR='{}'\n", stack.data_dir().display());
    let pids: Vec<String> = [Part::Server, Part::Worker, Part::Redis]
        .into_iter()
        .filter_map(|part| Some(format!("--pid {}", stack.pid(part)?)))
        .chain(stack.pid(Part::Postgres).map(|pid| format!("--pid-tree {pid}")))
        .collect();
    state += &format!("BENCH_PIDS='{}'\n", pids.join(" "));
    if let Some(urls) = stack.service_urls() {
        state += &format!("BENCH_DATABASE_URL='{}'\nBENCH_REDIS_URL='{}'\n", urls.database, urls.redis);
        state += &format!("BENCH_DATABASE_SUPERUSER_URL='{}'\n", urls.superuser);
    }
    let fresh = args.state.with_extension("new");
    std::fs::write(&fresh, state)?;
    std::fs::rename(fresh, &args.state)?;
    println!("ready at {}", stack.url());
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    });
    stack.end()
}
