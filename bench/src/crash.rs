//! `crash`: the program behind "nothing lost". Senders write under ids of their own and repeat every
//! batch until it is acknowledged, while processes are killed with SIGKILL at random moments. Then
//! everything is read back and compared: see `check`.
//!
//! The seed decides the events, the victims and the pauses. Where exactly a kill falls is the
//! machine's doing, so a repeated run meets the same storm, not the same instant.

mod check;
mod recount;
mod senders;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::http::{Origin, Version};
use crate::report::publish;
use crate::services::AppendFsync;
use crate::stack::{Form, Part, Roles, Stack, StackArgs};
use senders::{Ledger, Senders};

const LONGEST_UPTIME_MS: u64 = 1200;
const LONGEST_DOWNTIME_MS: u64 = 250;
/// With AOF at every second, what was acknowledged this long before a Redis kill may be gone: one
/// second of buffer, and up to two that Redis postpones a write behind a running fsync.
const EVERYSEC_WINDOW: Duration = Duration::from_secs(3);

#[derive(Args, Clone, Debug)]
pub(crate) struct CrashArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// How many kills: 200 for a recorded run, 6 for a short one.
    #[arg(long, default_value_t = 6)]
    kills: usize,
    /// Repeats a run; by default the clock decides.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, default_value_t = 4)]
    senders: usize,
    /// The largest batch; sizes are random.
    #[arg(long, default_value_t = 50)]
    batch: usize,
    /// The longest pause of a sender between two batches.
    #[arg(long, default_value_t = 40)]
    pause_ms: u64,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What the killing did.
#[derive(Default)]
struct Storm {
    kills: BTreeMap<String, usize>,
    redis_kills: Vec<Instant>,
    /// Processes that ended though nobody killed them. Told, and no finding, in the embedded form too: a kill frees the port,
    /// and should another program take it meanwhile, the next server ends at its start.
    unasked_ends: usize,
    /// Rounds in which not one event was acknowledged.
    idle_rounds: usize,
}

pub(crate) fn run(args: &CrashArgs) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| crate::events::now_ms() % 1_000_000_007);
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut stack = Stack::start(&args.stack, Roles::Split)?;
    let outcome = storm_and_check(args, seed, &runtime, &mut stack);
    let mut results = match outcome {
        Ok(results) => results,
        Err(error) => {
            let hint = match &args.stack.dir {
                Some(dir) => format!("data and logs are in {}", dir.display()),
                None => "name a folder with --dir to keep data and logs".to_owned(),
            };
            return Err(error.context(format!("seed {seed}; {hint}")));
        }
    };
    stack.end().context("ending what is left")?;
    let passed = results["findings"].as_array().is_some_and(Vec::is_empty);
    if let Some(map) = results.as_object_mut() {
        map.insert("passed".to_owned(), json!(passed));
    }
    let cloud = args.stack.form == Form::Cloud;
    let parameters = json!({
        "form": if cloud { "cloud" } else { "embedded" }, "kills": args.kills, "seed": seed,
        "senders": args.senders, "largest_batch": args.batch, "longest_pause_ms": args.pause_ms,
        "appendfsync": cloud.then(|| args.stack.appendfsync.name()),
    });
    publish("crash", &parameters, &results, args.json.as_deref())?;
    if !passed {
        bail!("something was lost or wrong (seed {seed}): see the findings");
    }
    Ok(())
}

fn storm_and_check(args: &CrashArgs, seed: u64, runtime: &Runtime, stack: &mut Stack) -> Result<Value> {
    let origin = Origin::parse(&stack.url(), Version::One)?;
    let began = Instant::now();
    let senders = Senders::start(runtime, args, seed, origin.clone(), &stack.key);
    let mut storm = storm(args, seed, stack, &senders.ledger)?;
    storm.unasked_ends += stack.wait_ready()?;
    std::thread::sleep(Duration::from_millis(500));
    let ledger = senders.stop(runtime)?;
    let stormed = began.elapsed();
    let tolerated =
        if args.stack.appendfsync == AppendFsync::Everysec { storm.redis_kills.clone() } else { Vec::new() };
    let may_be_lost = |acknowledged: Instant| {
        tolerated.iter().any(|&kill| kill > acknowledged && kill - acknowledged < EVERYSEC_WINDOW)
    };
    let mut results = runtime.block_on(check::check(&origin, &stack.key, &ledger, &may_be_lost))?;
    stack.end_server().context("ending the server in good order")?;
    let verified = check::verify_by_command(stack);
    if let Some(map) = results.as_object_mut() {
        if let (Err(error), Some(findings)) =
            (verified, map.get_mut("findings").and_then(Value::as_array_mut))
        {
            findings.push(json!(format!("agentlens verify: {error:#}")));
        }
        map.insert("kills".to_owned(), json!(storm.kills));
        map.insert("unasked_ends".to_owned(), json!(storm.unasked_ends));
        map.insert("rounds_without_an_event".to_owned(), json!(storm.idle_rounds));
        map.insert("answers".to_owned(), json!(ledger.statuses));
        map.insert("storm_seconds".to_owned(), json!(stormed.as_secs()));
        map.insert("all_seconds".to_owned(), json!(began.elapsed().as_secs()));
    }
    Ok(results)
}

/// Kills and revives until the number is reached.
fn storm(args: &CrashArgs, seed: u64, stack: &mut Stack, ledger: &Arc<Mutex<Ledger>>) -> Result<Storm> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut storm, mut deck) = (Storm::default(), Deck::new(stack.parts()));
    let (mut killed, mut acknowledged) = (0, 0);
    while killed < args.kills {
        std::thread::sleep(Duration::from_millis(rng.random_range(1..LONGEST_UPTIME_MS)));
        storm.unasked_ends += stack.revive_ended()?.len();
        let victims = deck.victims(&mut rng, args.kills - killed);
        for &part in &victims {
            if part == Part::Redis {
                storm.redis_kills.push(Instant::now());
            }
            stack.kill(part)?;
            *storm.kills.entry(format!("{part:?}").to_lowercase()).or_default() += 1;
            killed += 1;
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..LONGEST_DOWNTIME_MS)));
        // Services before servers: a server may refuse to start without its stores.
        for part in [Part::Postgres, Part::Redis, Part::Server, Part::Worker] {
            if victims.contains(&part) {
                stack.revive(part)?;
            }
        }
        // Three times of ten the next kill may fall into the recovery.
        if rng.random_ratio(7, 10) {
            storm.unasked_ends += stack.wait_ready()?;
        }
        let now = ledger.lock().events.len();
        storm.idle_rounds += usize::from(now == acknowledged);
        acknowledged = now;
        println!("kill {killed:>4} of {}: {victims:?}, {now} events acknowledged", args.kills);
    }
    Ok(storm)
}

/// Deals the parts in turns of random order, so that a short storm meets every one of them.
struct Deck {
    parts: Vec<Part>,
    left: Vec<Part>,
}

impl Deck {
    fn new(parts: Vec<Part>) -> Self {
        Self { parts, left: Vec::new() }
    }

    fn draw(&mut self, rng: &mut SmallRng) -> Part {
        if self.left.is_empty() {
            self.left.clone_from(&self.parts);
        }
        self.left.swap_remove(rng.random_range(0..self.left.len()))
    }

    /// One part, or now and then two at once, as far as kills are left.
    fn victims(&mut self, rng: &mut SmallRng, kills_left: usize) -> Vec<Part> {
        let mut victims = vec![self.draw(rng)];
        if self.parts.len() > 1 && kills_left > 1 && rng.random_ratio(1, 5) {
            let second = self.draw(rng);
            if !victims.contains(&second) {
                victims.push(second);
            }
        }
        victims
    }
}
