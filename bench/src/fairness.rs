//! `fairness`: what one org does to another. A quiet org sends events at a steady pace, alone and beside a noisy org that
//! holds idle and slow connections, and beside one that searches with many clients. Quiet and noisy rounds take turns, so
//! that both meet the same machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::events::{Generator, now_ms};
use crate::http::{Connection, Origin, Version, escape};
use crate::keys::find_key;
use crate::latency::Latencies;
use crate::procstat::status_mib;
use crate::report::{publish, round};
use crate::stack::{Part, Roles, Stack, StackArgs};
use crate::text::{COMMON_WORD, Text};

const EVENTS_PER_REQUEST: usize = 10;
const SEED_BATCH: usize = 500;
const EVENT_BYTES: usize = 1_000;
/// Between two requests of the quiet org.
const PACE: Duration = Duration::from_millis(20);
/// Between two bytes of a slow connection.
const DRIP: Duration = Duration::from_secs(1);
/// How long a searching client waits for its answer before it hangs up.
const PATIENCE: Duration = Duration::from_secs(20);
/// From the beginning of the noise to the first request that is measured.
const SETTLE: Duration = Duration::from_secs(2);
/// What the noise may do: the quiet org's p99 as a multiple of what it is alone, and the server's memory.
const MAX_RATIO_IDLE: f64 = 1.10;
const MAX_RATIO_SEARCHES: f64 = 2.0;
const MAX_MEMORY_MIB: f64 = 512.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct FairnessArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// Idle and slow connections of the noisy org.
    #[arg(long, default_value_t = 500)]
    connections: usize,
    /// Clients of the noisy org that search without a pause.
    #[arg(long, default_value_t = 250)]
    searches: usize,
    /// Events of the noisy org that are searched.
    #[arg(long, default_value_t = 50_000)]
    events: usize,
    /// Requests of the quiet org in each round.
    #[arg(long, default_value_t = 500)]
    samples: usize,
    /// Quiet and noisy rounds of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// End with an error if a limit is exceeded.
    #[arg(long)]
    check: bool,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &FairnessArgs) -> Result<()> {
    let stack = Stack::start(&args.stack, Roles::Together)?;
    let noisy = new_org(&stack, "Noisy")?;
    let quiet = Quiet { origin: Origin::parse(&stack.url(), Version::One)?, key: new_org(&stack, "Quiet")? };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(seed(&quiet.origin, &noisy, args.events))?;
    let idle = compare(args, &runtime, &quiet, |noise| {
        hold_connections(noise, format!("127.0.0.1:{}", stack.port), noisy.clone(), args.connections)
    })?;
    let searches = compare(args, &runtime, &quiet, |noise| {
        search(noise, quiet.origin.clone(), noisy.clone(), args.searches)
    })?;
    let memory = stack.pid(Part::Server).map_or(0.0, |pid| round(status_mib(pid, "VmHWM"), 1));
    let verdict = [
        ("idle_connections", idle["ratio_p99"].as_f64(), MAX_RATIO_IDLE),
        ("searches", searches["ratio_p99"].as_f64(), MAX_RATIO_SEARCHES),
        ("peak_memory_mib", Some(memory), MAX_MEMORY_MIB),
    ];
    let exceeded: Vec<String> = verdict
        .into_iter()
        .filter(|(_, value, limit)| value.is_none_or(|value| value > *limit))
        .map(|(name, value, limit)| format!("{name} is {value:?}, the limit {limit}"))
        .collect();
    let results = json!({
        "idle_connections": idle, "searches": searches, "peak_memory_mib": memory, "exceeded": exceeded,
    });
    stack.end()?;
    let parameters = json!({
        "connections": args.connections, "searches": args.searches, "events": args.events,
        "samples": args.samples, "rounds": args.rounds, "events_per_request": EVENTS_PER_REQUEST,
    });
    publish("fairness", &parameters, &results, args.json.as_deref())?;
    ensure!(!args.check || exceeded.is_empty(), "{}", exceeded.join("; "));
    Ok(())
}

fn new_org(stack: &Stack, name: &str) -> Result<String> {
    let printed = stack.command(&["org", "create", name, "--json"])?;
    find_key(&printed).context("`org create --json` printed no key")
}

async fn seed(origin: &Origin, key: &str, events: usize) -> Result<()> {
    let mut connection = origin.connect().await?;
    let mut generator = Generator::new(Arc::new(Text::new()), 1, 50, EVENT_BYTES);
    for _ in 0..events.div_ceil(SEED_BATCH) {
        let body = generator.body(SEED_BATCH, now_ms(), 10);
        let answer = connection.post("/api/events", key, Bytes::from(body)).await?;
        ensure!(answer.status.is_success(), "seeding answered {}", answer.status);
    }
    Ok(())
}

/// The org whose events must not have to wait.
struct Quiet {
    origin: Origin,
    key: String,
}

impl Quiet {
    /// Sends requests at a steady pace and records how long each one took from when it was due.
    async fn send(&self, samples: usize, latencies: &mut Latencies) -> Result<()> {
        let mut connection = self.origin.connect().await?;
        let mut generator = Generator::new(Arc::new(Text::new()), 2, 5, EVENT_BYTES);
        let begun = Instant::now();
        for number in 0..u32::try_from(samples)? {
            let body = Bytes::from(generator.body(EVENTS_PER_REQUEST, now_ms(), 10));
            let due = begun + PACE * number;
            tokio::time::sleep_until(due.into()).await;
            let answer = connection.post("/api/events", &self.key, body).await?;
            ensure!(answer.status.is_success(), "the quiet org was answered {}", answer.status);
            latencies.record(due.elapsed());
        }
        Ok(())
    }
}

/// Runs quiet and noisy rounds in turn.
fn compare(
    args: &FairnessArgs,
    runtime: &tokio::runtime::Runtime,
    quiet: &Quiet,
    make_noise: impl Fn(Arc<Noise>) -> JoinHandle<Result<()>>,
) -> Result<Value> {
    let (mut alone, mut beside) = (Latencies::new()?, Latencies::new()?);
    let mut counted = 0;
    for _ in 0..args.rounds {
        runtime.block_on(quiet.send(args.samples, &mut alone))?;
        let noise = Arc::new(Noise::default());
        let thread = make_noise(Arc::clone(&noise));
        std::thread::sleep(SETTLE);
        let sent = runtime.block_on(quiet.send(args.samples, &mut beside));
        noise.is_over.store(true, Ordering::Relaxed);
        let Ok(made) = thread.join() else { bail!("the noisy thread ended badly") };
        made?;
        sent?;
        counted += noise.count.load(Ordering::Relaxed);
    }
    ensure!(counted > 0, "there was no noise");
    let ratio = beside.quantile_ms(0.99) / alone.quantile_ms(0.99).max(0.001);
    Ok(json!({
        "alone": alone.summary(), "beside": beside.summary(), "ratio_p99": round(ratio, 2), "noise": counted,
    }))
}

/// What the noisy org does, counted, until it is over.
#[derive(Default)]
struct Noise {
    is_over: AtomicBool,
    count: AtomicU64,
}

impl Noise {
    fn is_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }
}

fn on_thread<F: Future<Output = Result<()>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })
}

/// Holds connections: a third says nothing, a third sends a head byte by byte, a third a body. Those that the server closes
/// are opened again.
fn hold_connections(noise: Arc<Noise>, address: String, key: String, count: usize) -> JoinHandle<Result<()>> {
    on_thread(move || async move {
        let (address, key) = (Arc::new(address), Arc::new(key));
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let (noise, address, key) = (Arc::clone(&noise), Arc::clone(&address), Arc::clone(&key));
                tokio::spawn(async move {
                    while noise.is_on() {
                        // Refused or closed is what a noisy org deserves; it goes on all the same.
                        let _ = hold(number, &address, &key, &noise).await;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}

async fn hold(number: usize, address: &str, key: &str, noise: &Noise) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "POST /api/events HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\ncontent-length: 16777216\r\n\r\n"
    );
    let (first, drips) = match number % 3 {
        0 => ("", false),
        1 => (&head[..20], true),
        _ => (&*head, true),
    };
    stream.write_all(first.as_bytes()).await?;
    noise.count.fetch_add(1, Ordering::Relaxed);
    while noise.is_on() {
        tokio::time::sleep(DRIP).await;
        if drips {
            stream.write_all(b"x").await?;
        }
    }
    Ok(())
}

/// Searches with many clients, each of which asks again as soon as it is answered.
fn search(noise: Arc<Noise>, origin: Origin, key: String, clients: usize) -> JoinHandle<Result<()>> {
    on_thread(move || async move {
        let (origin, key) = (Arc::new(origin), Arc::new(key));
        let path = Arc::new(format!("/api/events?limit=100&search={}", escape(COMMON_WORD)));
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let (noise, origin, key, path) =
                    (Arc::clone(&noise), Arc::clone(&origin), Arc::clone(&key), Arc::clone(&path));
                tokio::spawn(async move {
                    let mut connection: Option<Connection> = None;
                    while noise.is_on() {
                        let open = match connection.take() {
                            Some(open) => Ok(open),
                            None => origin.connect().await,
                        };
                        let Ok(mut open) = open else {
                            tokio::time::sleep(PACE).await;
                            continue;
                        };
                        let asked = tokio::time::timeout(PATIENCE, open.get(&path, Some(&key))).await;
                        // A client that loses patience hangs up; one that is answered asks again.
                        if matches!(asked, Ok(Ok(_))) {
                            noise.count.fetch_add(1, Ordering::Relaxed);
                            connection = Some(open);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}
