//! `load`: sends events at a fixed rate, or as fast as they are taken, and reports what was accepted,
//! how late, at what processor time per event, and how soon an accepted event could be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::events::{EventFeed, Mix};
use crate::http::{Connection, Origin, Target, Version};
use crate::keys::Keys;
use crate::procstat::{Watched, thread_cpu_seconds};
use crate::report::{publish, round};
use crate::sender::{self, Outcome, Plan, REQUEST_TIMEOUT, Rate, Schedule};
use crate::text::Text;
use crate::used::{Used, pairs};
use crate::visible;

const EVENTS_PATH: &str = "/api/events";
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
const DRAIN_POLL: Duration = Duration::from_millis(50);

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[command(flatten)]
    keys: Keys,
    /// Events per second, or `max`.
    #[arg(long, default_value = "10000")]
    rate: Rate,
    /// Measured seconds, after the warm-up.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds sent before measuring starts.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight per connection; by default 1 over HTTP/1.1 and 8 over HTTP/2.
    #[arg(long)]
    in_flight: Option<usize>,
    /// Events per request.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Mean size of one event's JSON.
    #[arg(long, default_value_t = 600)]
    event_bytes: usize,
    /// Conversations open at the same time.
    #[arg(long, default_value_t = 400)]
    sessions: usize,
    #[arg(long, default_value = "1")]
    http: Version,
    #[command(flatten)]
    watched: Watched,
    /// Also measures how long after its acceptance an event can be read.
    #[arg(long)]
    visible: bool,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Says in the record what this run is.
    #[arg(long, default_value = "load")]
    label: String,
    /// Writes the record there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &LoadArgs) -> Result<()> {
    // One thread: the generator must leave the processors to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args))?;
    let parameters = json!({
        "rate": match args.rate { Rate::Max => json!("max"), Rate::PerSecond(rate) => json!(rate) },
        "seconds": args.seconds, "warmup_seconds": args.warmup, "connections": args.connections,
        "in_flight": in_flight(args), "batch": args.batch, "event_bytes": args.event_bytes,
        "sessions": args.sessions, "http": args.http as u8 + 1, "keys": args.keys.load()?.len(), "seed": args.seed,
    });
    publish(&args.label, &parameters, &results, args.json.as_deref())
}

fn in_flight(args: &LoadArgs) -> usize {
    args.in_flight.unwrap_or(match args.http {
        Version::One => 1,
        Version::Two => 8,
    })
}

async fn measure(args: &LoadArgs) -> Result<Value> {
    let plan = Plan {
        origin: Origin::parse(&args.url, args.http)?,
        target: Target::json(EVENTS_PATH),
        keys: args.keys.load()?,
        rate: args.rate,
        warmup: Duration::from_secs(args.warmup),
        duration: Duration::from_secs(args.seconds),
        connections: args.connections,
        in_flight: in_flight(args),
        batch: args.batch,
        request_timeout: REQUEST_TIMEOUT,
    };
    let mix = Mix { event_bytes: args.event_bytes, open_sessions: args.sessions, seed: args.seed };
    let text = Arc::new(Text::new());
    args.watched.reset_peak();
    let schedule = Schedule::new(&plan);
    let used = tokio::spawn(Used::begin(args.watched.clone(), schedule.measure_from));
    let probes = args.visible.then(|| tokio::spawn(visible::probe(plan.clone(), schedule.clone())));
    let outcome =
        sender::run(&plan, &schedule, |lane, lanes| EventFeed::new(&text, &mix, &plan, lane, lanes)).await?;
    let answered = Instant::now();
    let generator_cpu = thread_cpu_seconds();
    let drained = wait_until_stored(&plan).await?;
    let used = Used::since(&used.await?, &args.watched, generator_cpu);
    let mut results = report(&outcome, &schedule, answered, drained, &used);
    if let (Some(probes), Some(map)) = (probes, results.as_object_mut()) {
        map.insert("visible".to_owned(), probes.await??);
    }
    if let (false, Some(map)) = (args.watched.is_empty(), results.as_object_mut()) {
        map.insert("peak_rss_mib".to_owned(), pairs(&args.watched.peak_rss_mib(), 1.0));
    }
    Ok(results)
}

/// Polls the ledger until nothing waits. `None` when the server has no ledger.
async fn wait_until_stored(plan: &Plan) -> Result<Option<Instant>> {
    let mut connection = plan.origin.connect().await?;
    for key in &plan.keys {
        if !wait_for_key(&mut connection, key).await? {
            return Ok(None);
        }
    }
    Ok(Some(Instant::now()))
}

async fn wait_for_key(connection: &mut Connection, key: &str) -> Result<bool> {
    let limit = Instant::now() + DRAIN_LIMIT;
    loop {
        let answer = connection.get("/v1/ingest/ledger", Some(key)).await?;
        if !answer.status.is_success() {
            return Ok(false);
        }
        if sum_of("waiting", &answer.json()?) == 0 {
            return Ok(true);
        }
        anyhow::ensure!(
            Instant::now() < limit,
            "the queue was not empty {} s after the load",
            DRAIN_LIMIT.as_secs()
        );
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

/// The sum of every field of that name, wherever the ledger nests its keys.
pub(crate) fn sum_of(field: &str, value: &Value) -> u64 {
    match value {
        Value::Object(map) => map
            .iter()
            .map(
                |(name, inner)| {
                    if name == field { inner.as_u64().unwrap_or(0) } else { sum_of(field, inner) }
                },
            )
            .sum(),
        Value::Array(items) => items.iter().map(|item| sum_of(field, item)).sum(),
        _ => 0,
    }
}

fn report(
    outcome: &Outcome,
    schedule: &Schedule,
    answered: Instant,
    drained: Option<Instant>,
    used: &Used,
) -> Value {
    // The last answer comes before the end when the rate leaves pauses, and after it under overload.
    let since_start = |moment: Instant| (moment.max(schedule.end) - schedule.measure_from).as_secs_f64();
    let window = since_start(answered);
    let accepted = outcome.accepted.max(1) as f64;
    let mut results = json!({
        "accepted_events": outcome.accepted,
        "refused_events": outcome.rejected,
        "accepted_per_s": round(outcome.accepted as f64 / window, 0),
        "answers": outcome.statuses,
        "unsent_requests": outcome.unsent,
        "accept": outcome.latencies.summary(),
        "mean_event_bytes": round(outcome.sent_bytes as f64 / outcome.sent_events.max(1) as f64, 0),
        "generator": {
            "cpu_us_per_event": round(used.generator * 1e6 / outcome.sent_events.max(1) as f64, 2),
            "cores": round(used.generator / window, 2),
        },
    });
    let Some(map) = results.as_object_mut() else { return results };
    if let Some(drained) = drained {
        map.insert(
            "stored_per_s".to_owned(),
            json!(round(outcome.accepted as f64 / since_start(drained), 0)),
        );
        map.insert("drain_ms".to_owned(), json!((drained - answered).as_millis()));
    }
    if !used.server.is_empty() {
        map.insert(
            "server_cpu_us_per_event".to_owned(),
            json!(round(used.server_total() * 1e6 / accepted, 2)),
        );
        map.insert("server_cpu_us_by_process".to_owned(), pairs(&used.server, 1e6 / accepted));
    }
    results
}

/// The plan of a background load, for `reads`, and what its events are like.
pub(crate) fn background_plan(origin: Origin, keys: Vec<String>, rate: f64) -> Result<(Plan, Mix)> {
    anyhow::ensure!(rate > 0.0, "the background rate must be positive");
    let (warmup, duration) = (Duration::ZERO, Duration::from_secs(24 * 3600));
    let rate = Rate::PerSecond(rate);
    let plan = Plan {
        origin,
        target: Target::json(EVENTS_PATH),
        keys,
        rate,
        warmup,
        duration,
        connections: 2,
        in_flight: 1,
        batch: 100,
        request_timeout: REQUEST_TIMEOUT,
    };
    Ok((plan, Mix { event_bytes: 600, open_sessions: 400, seed: 7 }))
}
