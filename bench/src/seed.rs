//! `seed`: fills a server through its own front door with events of many orgs, spread over the past
//! days in time order: a fifth of them in the first org, the rest shared evenly.
//!
//! Every event has an id that follows from the seed, so a run that was stopped goes on where its
//! state file says, and what was sent but not noted is not stored twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use hyper::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::events::{Generator, now_ms};
use crate::http::{Connection, Origin, Version};
use crate::keys::Keys;
use crate::report::{publish, round};
use crate::stored::Store;
use crate::text::Text;

const MS_PER_DAY: u64 = 86_400_000;
const OPEN_SESSIONS_PER_ORG: usize = 40;
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long the largest org may take to be stored once everything is accepted.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
const SEND_LIMIT: Duration = Duration::from_secs(120);
/// Failures in a row after which a server is taken to be gone.
const MOST_FAILURES: u32 = 120;

#[derive(Args, Clone, Debug)]
pub(crate) struct SeedArgs {
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[command(flatten)]
    keys: Keys,
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// How many of the keys are used.
    #[arg(long, default_value_t = 40)]
    orgs: usize,
    /// The part of all events that the first org has.
    #[arg(long, default_value_t = 0.2)]
    largest_share: f64,
    #[arg(long, default_value_t = 90)]
    days: u64,
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    #[arg(long, default_value_t = 600)]
    event_bytes: usize,
    /// Requests in flight in all; an org has one at a time.
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    /// Where progress is kept; name the same file to go on after a stop.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

struct Org {
    index: usize,
    key: String,
    events: u64,
    /// Batches acknowledged.
    done: Arc<AtomicU64>,
}

struct Run {
    origin: Origin,
    text: Arc<Text>,
    permits: Semaphore,
    progress: ProgressBar,
    start_ms: u64,
    span_ms: u64,
    batch: u64,
    event_bytes: usize,
}

pub(crate) fn run(args: &SeedArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(seed(args))?;
    let parameters = json!({
        "events": args.events, "orgs": args.orgs, "largest_share": args.largest_share, "days": args.days,
        "batch": args.batch, "event_bytes": args.event_bytes, "parallel": args.parallel,
    });
    publish("seed", &parameters, &results, args.json.as_deref())
}

async fn seed(args: &SeedArgs) -> Result<Value> {
    let state = load_state(args)?;
    let orgs = plan_orgs(args, &state)?;
    let already: u64 =
        orgs.iter().map(|org| (org.done.load(Ordering::Relaxed) * args.batch as u64).min(org.events)).sum();
    let progress = ProgressBar::new(args.events).with_position(already);
    let style = "{elapsed_precise} {bar:40} {human_pos}/{human_len} events  {per_sec}  {eta} left";
    progress.set_style(ProgressStyle::with_template(style)?);
    progress.reset_eta();
    let end_ms = state["end_ms"].as_u64().context("the state file has no end_ms")?;
    let span_ms = args.days * MS_PER_DAY;
    let run = Arc::new(Run {
        origin: Origin::parse(&args.url, Version::One)?,
        text: Arc::new(Text::new()),
        permits: Semaphore::new(args.parallel),
        progress,
        start_ms: end_ms - span_ms,
        span_ms,
        batch: args.batch as u64,
        event_bytes: args.event_bytes,
    });
    let started = Instant::now();
    let keys: Vec<String> = orgs.iter().map(|org| org.key.clone()).collect();
    let done: Vec<Arc<AtomicU64>> = orgs.iter().map(|org| org.done.clone()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for org in orgs {
        tasks.spawn(fill(run.clone(), org));
    }
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = clock.tick() => save_state(args, end_ms, &done)?,
            finished = tasks.join_next() => match finished {
                Some(result) => result??,
                None => break,
            },
        }
    }
    save_state(args, end_ms, &done)?;
    run.progress.finish();
    // What is accepted is durable, and not yet what reads would find.
    let ledger = Store::Ledger { origin: run.origin.clone(), keys };
    ledger.settle(0, DRAIN_LIMIT).await?;
    let seconds = started.elapsed().as_secs_f64();
    let sent = args.events - already;
    Ok(json!({"events": sent, "seconds": round(seconds, 1), "events_per_s": round(sent as f64 / seconds, 0)}))
}

fn plan_orgs(args: &SeedArgs, state: &Value) -> Result<Vec<Org>> {
    let keys = args.keys.load()?;
    if keys.len() < args.orgs || args.orgs == 0 {
        bail!("{} orgs need as many keys; {} given", args.orgs, keys.len());
    }
    let largest = if args.orgs == 1 { args.events } else { (args.events as f64 * args.largest_share) as u64 };
    let others = args.orgs.saturating_sub(1).max(1) as u64;
    let (share, remainder) = ((args.events - largest) / others, (args.events - largest) % others);
    let orgs = keys.into_iter().take(args.orgs).enumerate().map(|(index, key)| {
        let events = if index == 0 { largest } else { share + u64::from((index as u64) <= remainder) };
        let done = Arc::new(AtomicU64::new(state["batches"][index].as_u64().unwrap_or(0)));
        Org { index, key, events, done }
    });
    Ok(orgs.collect())
}

/// Sends one org's events in time order, one request at a time.
async fn fill(run: Arc<Run>, org: Org) -> Result<()> {
    let mut connection = run.origin.connect().await?;
    let mut generator =
        Generator::new(run.text.clone(), 1000 + org.index as u64, OPEN_SESSIONS_PER_ORG, run.event_bytes)
            .with_client_ids();
    let batches = org.events.div_ceil(run.batch);
    let done = org.done.load(Ordering::Relaxed);
    let step_us = run.span_ms * 1000 / org.events.max(1);
    for number in 0..batches {
        let first = number * run.batch;
        let count = run.batch.min(org.events - first);
        let at_ms = run.start_ms + first * step_us / 1000;
        let permit = run.permits.acquire().await?;
        let body = Bytes::from(generator.body(usize::try_from(count)?, at_ms, step_us));
        // Bodies already taken are made again only to bring the generator to where it was.
        if number < done {
            continue;
        }
        deliver(&run, &mut connection, &org.key, body)
            .await
            .with_context(|| format!("org {}", org.index + 1))?;
        drop(permit);
        org.done.store(number + 1, Ordering::Relaxed);
        run.progress.inc(count);
    }
    Ok(())
}

async fn deliver(run: &Run, connection: &mut Connection, key: &str, body: Bytes) -> Result<()> {
    let mut failures = 0;
    loop {
        let answer =
            tokio::time::timeout(SEND_LIMIT, connection.post("/api/events", key, body.clone())).await;
        let pause = match answer {
            Ok(Ok(answer)) if answer.status.is_success() => match answer.count("rejected").unwrap_or(0) {
                0 => return Ok(()),
                refused => bail!("{refused} events refused: {}", first_error(&answer.json()?)),
            },
            Ok(Ok(answer))
                if answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error() =>
            {
                answer.retry_after.unwrap_or(Duration::from_millis(200))
            }
            Ok(Ok(answer)) => bail!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Ok(Err(_)) | Err(_) => {
                if let Ok(fresh) = run.origin.connect().await {
                    *connection = fresh;
                }
                Duration::from_millis(500)
            }
        };
        failures += 1;
        anyhow::ensure!(failures < MOST_FAILURES, "no success in {MOST_FAILURES} attempts");
        tokio::time::sleep(pause.min(LONGEST_RETRY_PAUSE)).await;
    }
}

fn first_error(answer: &Value) -> String {
    answer["errors"][0].to_string()
}

fn load_state(args: &SeedArgs) -> Result<Value> {
    let fresh = json!({"end_ms": now_ms() - 60_000, "plan": plan_text(args), "batches": []});
    let Some(path) = args.state.as_deref().filter(|path| Path::exists(path)) else { return Ok(fresh) };
    let state: Value =
        serde_json::from_str(&std::fs::read_to_string(path)?).context("reading the state file")?;
    if state["plan"] != fresh["plan"] {
        bail!("the state file belongs to another plan ({}); remove it to start anew", state["plan"]);
    }
    Ok(state)
}

fn save_state(args: &SeedArgs, end_ms: u64, done: &[Arc<AtomicU64>]) -> Result<()> {
    let Some(path) = &args.state else { return Ok(()) };
    let batches: Vec<u64> = done.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let state = json!({"end_ms": end_ms, "plan": plan_text(args), "batches": batches});
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, state.to_string())?;
    Ok(std::fs::rename(fresh, path)?)
}

fn plan_text(args: &SeedArgs) -> String {
    let (events, orgs, days, batch) = (args.events, args.orgs, args.days, args.batch);
    format!("{events} events, {orgs} orgs, {days} days, batches of {batch}, {} bytes", args.event_bytes)
}
