//! `otlp`: sends OTLP spans at a fixed rate, or as fast as they are taken, to AgentLens or to any other receiver of
//! OTLP over HTTP, and reports what was accepted, what was stored, and what that cost.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::http::{Origin, Target, Version};
use crate::keys::Keys;
use crate::peak::TreePeak;
use crate::procstat::{Watched, thread_cpu_seconds};
use crate::report::{publish, round};
use crate::sender::{self, Outcome, Plan, Rate, Schedule};
use crate::spans::{Encoding, Pool, SpanFeed};
use crate::stored::{Settled, Store, folder_bytes};
use crate::text::Text;
use crate::used::{Used, pairs};

/// A run of a fixed number of spans ends when they are sent, however long that takes.
const LONGEST_RUN_SECONDS: u64 = 24 * 3600;

#[derive(Args, Clone, Debug)]
pub(crate) struct OtlpArgs {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[arg(long, default_value = "/v1/traces")]
    path: String,
    #[command(flatten)]
    keys: Keys,
    /// Sends no key.
    #[arg(long, conflicts_with_all = ["keys", "keys_file"])]
    no_auth: bool,
    /// A further header (repeatable).
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<Header>,
    /// Spans per second, or `max`.
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// Measured seconds, after the warm-up.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds sent before measuring starts.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Sends so many spans, all of them measured, instead of for a time.
    #[arg(long, conflicts_with_all = ["seconds", "warmup"])]
    spans: Option<u64>,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Spans per request, in traces of ten.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    #[arg(long, default_value = "protobuf")]
    encoding: Encoding,
    /// Compresses the bodies, before the run; needs --spans.
    #[arg(long, requires = "spans")]
    gzip: bool,
    #[arg(long, default_value = "1")]
    http: Version,
    #[command(flatten)]
    watched: Watched,
    /// Counts what is stored in this SQLite file instead of asking AgentLens' ledger.
    #[arg(long, value_name = "FILE", requires = "stored_table")]
    stored_in: Option<PathBuf>,
    /// The table with one row per span.
    #[arg(long, value_name = "NAME")]
    stored_table: Option<String>,
    /// A folder whose growth is reported per stored span.
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Seconds the server has for storing what it accepted.
    #[arg(long, default_value_t = 300)]
    drain_seconds: u64,
    /// Seconds after which a request counts as unanswered and is sent again.
    #[arg(long, default_value_t = 300)]
    timeout_seconds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Says in the record what this run is.
    #[arg(long, default_value = "otlp")]
    label: String,
    /// A further figure for the record (repeatable).
    #[arg(long = "figure", value_name = "NAME=NUMBER")]
    figures: Vec<String>,
    /// Writes the record there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is NAME:VALUE")?;
        let name = name.trim().parse::<HeaderName>().map_err(|error| error.to_string())?;
        let value = value.trim().parse::<HeaderValue>().map_err(|error| error.to_string())?;
        Ok(Self(name, value))
    }
}

pub(crate) fn run(args: &OtlpArgs) -> Result<()> {
    // One thread: the generator must leave the processors to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = runtime.block_on(measure(args))?;
    for figure in &args.figures {
        let (name, number) = figure.split_once('=').context("--figure is NAME=NUMBER")?;
        let number: f64 = number.parse().with_context(|| format!("{number} is no number"))?;
        results.insert(name.to_owned(), json!(number));
    }
    let parameters = json!({
        "rate": match args.rate { Rate::Max => json!("max"), Rate::PerSecond(rate) => json!(rate) },
        "seconds": args.spans.is_none().then_some(args.seconds),
        "warmup_seconds": args.spans.is_none().then_some(args.warmup),
        "spans": args.spans, "connections": args.connections, "in_flight": args.in_flight, "batch": args.batch,
        "encoding": args.encoding.content_type(), "gzip": args.gzip, "http": args.http as u8 + 1, "seed": args.seed,
        "stored_counted_in": if args.stored_in.is_some() { "rows" } else { "ledger" },
    });
    publish(&args.label, &parameters, &Value::Object(results), args.json.as_deref())
}

fn plan(args: &OtlpArgs) -> Result<Plan> {
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static(args.encoding.content_type()))];
    if args.gzip {
        headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    headers.extend(args.headers.iter().map(|Header(name, value)| (name.clone(), value.clone())));
    let (warmup, seconds) = match args.spans {
        Some(_) => (0, LONGEST_RUN_SECONDS),
        None => (args.warmup, args.seconds),
    };
    Ok(Plan {
        origin: Origin::parse(&args.url, args.http)?,
        target: Target { path: args.path.clone(), headers },
        keys: if args.no_auth { Vec::new() } else { args.keys.load()? },
        rate: args.rate,
        warmup: Duration::from_secs(warmup),
        duration: Duration::from_secs(seconds),
        connections: args.connections,
        in_flight: args.in_flight,
        batch: args.batch,
        request_timeout: Duration::from_secs(args.timeout_seconds),
    })
}

fn store(args: &OtlpArgs, plan: &Plan) -> Option<Store> {
    match (&args.stored_in, &args.stored_table) {
        (Some(file), Some(table)) => Some(Store::Rows { file: file.clone(), table: table.clone() }),
        _ if args.no_auth => None,
        _ => Some(Store::Ledger { origin: plan.origin.clone(), keys: plan.keys.clone() }),
    }
}

/// What was stored at the three moments that matter.
struct Stored {
    before: u64,
    when_measuring_began: u64,
    at_last_answer: u64,
    settled: Settled,
}

async fn measure(args: &OtlpArgs) -> Result<Map<String, Value>> {
    let plan = plan(args)?;
    let store = store(args, &plan);
    let requests = args.spans.map(|spans| spans.div_ceil(args.batch.max(1) as u64));
    let mut pool = Pool::new(&Text::new(), args.seed, args.batch, args.encoding, requests)?;
    if args.gzip {
        pool.pack()?;
    }
    let pool = Arc::new(pool);
    let disk_before = args.disk.as_deref().map_or(0, folder_bytes);
    let before = count(store.as_ref()).await?;
    args.watched.reset_peak();
    let peak = TreePeak::watch(&args.watched.trees);
    let schedule = Schedule::new(&plan);
    let used = tokio::spawn(Used::begin(args.watched.clone(), schedule.measure_from));
    let began = tokio::spawn(count_at(store.clone(), schedule.measure_from));
    let outcome = sender::run(&plan, &schedule, |_, _| SpanFeed(pool.clone())).await?;
    let answered = Instant::now();
    let generator_cpu = thread_cpu_seconds();
    let stored = match &store {
        Some(store) => Some(Stored {
            before,
            when_measuring_began: began.await??,
            at_last_answer: store.count().await?,
            settled: store.settle(before + outcome.accepted_before + outcome.accepted, drain(args)).await?,
        }),
        None => None,
    };
    let used = Used::since(&used.await?, &args.watched, generator_cpu);
    let end = if outcome.is_exhausted { answered } else { answered.max(schedule.end) };
    let mut results = accepted(&outcome, &used, end - schedule.measure_from);
    if let Some(stored) = &stored {
        let taken = outcome.accepted_before + outcome.accepted;
        let (figures, count) = stored_figures(stored, taken, answered, &schedule);
        results.extend(figures);
        results.extend(cost_figures(&used, args.disk.as_deref(), disk_before, (count, taken)));
    }
    let mut memory = args.watched.peak_rss_mib();
    memory.extend(peak.map(|peak| ("tree".to_owned(), peak.end())));
    if !memory.is_empty() {
        results.insert("peak_rss_mib".to_owned(), pairs(&memory, 1.0));
    }
    ensure!(outcome.accepted > 0, "nothing was accepted; the answers were {:?}", outcome.statuses);
    Ok(results)
}

fn drain(args: &OtlpArgs) -> Duration {
    Duration::from_secs(args.drain_seconds)
}

async fn count(store: Option<&Store>) -> Result<u64> {
    match store {
        Some(store) => store.count().await,
        None => Ok(0),
    }
}

async fn count_at(store: Option<Store>, at: Instant) -> Result<u64> {
    tokio::time::sleep_until(at.into()).await;
    count(store.as_ref()).await
}

fn accepted(outcome: &Outcome, used: &Used, window: Duration) -> Map<String, Value> {
    let sent = outcome.sent_events.max(1) as f64;
    let results = json!({
        "accepted_spans": outcome.accepted,
        "refused_spans": outcome.rejected,
        "accepted_per_s": round(outcome.accepted as f64 / window.as_secs_f64(), 0),
        "answers": outcome.statuses,
        "unsent_requests": outcome.unsent,
        "accept": outcome.latencies.summary(),
        "mean_span_bytes": round(outcome.sent_bytes as f64 / sent, 0),
        "generator": {
            "cpu_us_per_span": round(used.generator * 1e6 / sent, 2),
            "cores": round(used.generator / window.as_secs_f64(), 2),
        },
    });
    match results {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The figures, and how many spans were stored while it was measured.
fn stored_figures(
    stored: &Stored,
    taken: u64,
    answered: Instant,
    schedule: &Schedule,
) -> (Map<String, Value>, u64) {
    let measured = stored.settled.stored.saturating_sub(stored.when_measuring_began);
    let in_all = stored.settled.stored.saturating_sub(stored.before);
    let window = stored.settled.at.max(answered) - schedule.measure_from;
    let mut map = Map::new();
    map.insert("stored_spans".to_owned(), json!(measured));
    map.insert("stored_per_s".to_owned(), json!(round(measured as f64 / window.as_secs_f64(), 0)));
    map.insert(
        "waiting_at_last_answer".to_owned(),
        json!(stored.settled.stored - stored.at_last_answer.min(stored.settled.stored)),
    );
    map.insert("accepted_not_stored".to_owned(), json!(taken.saturating_sub(in_all)));
    let drained = stored.settled.at.saturating_duration_since(answered);
    map.insert("drain_ms".to_owned(), json!(drained.as_millis()));
    (map, measured)
}

/// What a stored span cost. Time counts those stored since measuring began; disk counts all of the run.
fn cost_figures(
    used: &Used,
    disk: Option<&std::path::Path>,
    disk_before: u64,
    (measured, taken): (u64, u64),
) -> Map<String, Value> {
    let spans = measured.max(1) as f64;
    let mut map = Map::new();
    if !used.server.is_empty() {
        map.insert("server_cpu_us_per_span".to_owned(), json!(round(used.server_total() * 1e6 / spans, 1)));
        map.insert("server_cpu_us_by_process".to_owned(), pairs(&used.server, 1e6 / spans));
    }
    if let Some(disk) = disk {
        let grown = folder_bytes(disk).saturating_sub(disk_before) as f64;
        map.insert("disk_bytes_per_span".to_owned(), json!(round(grown / taken.max(1) as f64, 0)));
    }
    map
}
