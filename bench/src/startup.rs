//! `startup`: from exec to the first 200 of `/readyz`, resident memory idle after five seconds, and
//! the size of the binary. The first start creates the data folder, the others find it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::process::{Recipe, free_port, is_ready, wait_until};
use crate::procstat::status_mib;
use crate::report::{publish, round};

const READY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
pub(crate) struct StartupArgs {
    /// The agentlens binary.
    #[arg(long, value_name = "FILE")]
    server: PathBuf,
    #[arg(long, default_value_t = 6)]
    runs: usize,
    /// Seconds after which idle memory is read.
    #[arg(long, default_value_t = 5)]
    idle_seconds: u64,
    /// Measures this data folder instead of a new one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A further argument of `serve` (repeatable), for example `--database-url=...`.
    #[arg(long = "server-arg", value_name = "ARG", allow_hyphen_values = true)]
    server_args: Vec<String>,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &StartupArgs) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = args.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
    let mut ready_ms = Vec::new();
    let mut idle_mib = 0.0;
    for run in 0..args.runs.max(1) {
        let port = free_port()?;
        let mut serve = vec!["serve".to_owned(), "--data-dir".to_owned(), data.display().to_string()];
        serve.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        serve.extend(args.server_args.iter().cloned());
        let log = folder.path().join("server.log");
        let recipe = Recipe { program: args.server.clone(), args: serve, env: Vec::new(), log, user: None };
        let started = Instant::now();
        let mut server = recipe.start()?;
        wait_until(READY_LIMIT, || is_ready(port) || server.has_ended())?;
        let elapsed = started.elapsed();
        anyhow::ensure!(
            !server.has_ended(),
            "the server ended at once: {}",
            std::fs::read_to_string(&recipe.log)?
        );
        ready_ms.push(elapsed.as_secs_f64() * 1000.0);
        if run == 0 {
            std::thread::sleep(Duration::from_secs(args.idle_seconds));
            idle_mib = status_mib(server.pid(), "VmRSS");
        }
        server.end("-TERM").context("stopping the server")?;
    }
    let results = results(&ready_ms, idle_mib, std::fs::metadata(&args.server)?.len());
    let parameters = json!({"runs": args.runs, "idle_seconds": args.idle_seconds, "existing_data": args.data_dir.is_some()});
    publish("startup", &parameters, &results, args.json.as_deref())
}

fn results(ready_ms: &[f64], idle_mib: f64, binary_bytes: u64) -> Value {
    let mut later: Vec<f64> = ready_ms[1..].to_vec();
    later.sort_by(f64::total_cmp);
    let mut results = json!({
        "first_ready_ms": round(ready_ms[0], 1),
        "idle_rss_mib": idle_mib,
        "binary_mib": round(binary_bytes as f64 / 1048576.0, 1),
    });
    if let (Some(map), Some(worst)) = (results.as_object_mut(), later.last()) {
        map.insert("later_ready_median_ms".to_owned(), json!(round(later[later.len() / 2], 1)));
        map.insert("later_ready_max_ms".to_owned(), json!(round(*worst, 1)));
    }
    results
}
