//! `neighbours`: how long the events of one org take to be seen while another org makes trouble.
//!
//! A quiet org sends an event every 50 ms and asks for it until it can be read. Meanwhile, in turn: nothing happens; a
//! neighbour's batches fail every time; a neighbour's batches take seconds; someone reads the events for long
//! while an org sends events that expire on a day of their own (PostgreSQL).
//! In the cloud form the neighbour is in the same shard of the queue. The run fails when an event takes a second longer than
//! it may, or 200 ms longer than without trouble where only a reader is at work.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::events::now_ms;
use crate::http::{Connection, Origin, Version};
use crate::keys::find_key;
use crate::latency::Latencies;
use crate::report::publish;
use crate::stack::{Form, Roles, Stack, StackArgs};

/// The longest that an event may take while a neighbour's batches fail or are slow.
const LIMIT_MS: f64 = 1_000.0;
/// How much longer it may take while someone reads for long.
const READER_LIMIT_MS: f64 = 200.0;
/// Between two events of the quiet org, and between two batches of the neighbour.
const PERIOD: Duration = Duration::from_millis(50);
const TROUBLE_PERIOD: Duration = Duration::from_millis(100);
/// Before the events count: the trouble has to begin first.
const WARM_UP: Duration = Duration::from_secs(2);
/// Between two questions for an event, and how long it is asked for.
const PAUSE: Duration = Duration::from_millis(2);
const GIVE_UP: Duration = Duration::from_secs(60);
/// Orgs that are made until one is in the neighbour's shard.
const MOST_ORGS: usize = 200;
/// Shards of the queue on Redis.
const SHARDS: u64 = 8;

#[derive(Args, Clone, Debug)]
pub(crate) struct NeighboursArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// Seconds that each part is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What disturbs the quiet org.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Failing,
    Slow,
    LongReader,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::Failing => "neighbour_fails",
            Self::Slow => "neighbour_is_slow",
            Self::LongReader => "long_reader",
        }
    }
}

struct Org {
    id: String,
    key: String,
}

struct Run<'a> {
    stack: &'a Stack,
    origin: Origin,
    neighbour: Org,
    quiet: Org,
    expiring: Org,
    length: Duration,
}

pub(crate) fn run(args: &NeighboursArgs) -> Result<()> {
    ensure!(args.seconds > 0, "--seconds is at least 1");
    let stack = Stack::start(&args.stack, Roles::Together)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let neighbour = make_org(&stack, "Neighbour", &[])?;
    // Its events expire on days of their own, which may need partitions.
    let expiring = make_org(&stack, "Expiring", &["--retention-days", "200"])?;
    let quiet = quiet_org(&stack, args.stack.form, &neighbour)?;
    let origin = Origin::parse(&stack.url(), Version::One)?;
    let length = Duration::from_secs(args.seconds);
    let run = Run { stack: &stack, origin, neighbour, quiet, expiring, length };
    let mut troubles = vec![Trouble::None, Trouble::Failing, Trouble::Slow];
    if args.stack.form == Form::Cloud {
        troubles.push(Trouble::LongReader);
    }
    let mut results = Map::new();
    let mut longest = Vec::new();
    // The neighbour's data begins here: its file of the embedded form can be changed from now on.
    runtime.block_on(async {
        let mut connection = run.origin.connect().await?;
        send_and_see(&mut connection, &run.neighbour.key, "first").await
    })?;
    for trouble in troubles {
        let seen = runtime.block_on(run.measure(trouble)).with_context(|| trouble.name())?;
        longest.push((trouble, seen.quantile_ms(1.0)));
        results.insert(trouble.name().to_owned(), seen.summary());
    }
    let parameters =
        json!({"form": format!("{:?}", args.stack.form).to_lowercase(), "seconds": args.seconds});
    publish("neighbours", &parameters, &Value::Object(results), args.json.as_deref())?;
    stack.end()?;
    judge(&longest)
}

fn judge(longest: &[(Trouble, f64)]) -> Result<()> {
    let alone = longest.iter().find(|(trouble, _)| *trouble == Trouble::None).map_or(0.0, |(_, ms)| *ms);
    for (trouble, ms) in longest {
        let limit = if *trouble == Trouble::LongReader { alone + READER_LIMIT_MS } else { LIMIT_MS };
        ensure!(*ms <= limit, "{}: an event took {ms:.0} ms; the limit is {limit:.0} ms", trouble.name());
    }
    Ok(())
}

fn make_org(stack: &Stack, name: &str, arguments: &[&str]) -> Result<Org> {
    let printed = stack.command(&[&["org", "create", name, "--json"], arguments].concat())?;
    let made: Value = serde_json::from_str(&printed).context("`org create --json` printed no JSON")?;
    let id = made["org_id"].as_str().context("`org create --json` printed no org_id")?.to_owned();
    Ok(Org { id, key: find_key(&printed).context("`org create --json` printed no key")? })
}

/// An org that shares as much as possible with the neighbour.
fn quiet_org(stack: &Stack, form: Form, neighbour: &Org) -> Result<Org> {
    for number in 0..MOST_ORGS {
        let org = make_org(stack, &format!("Quiet {number}"), &[])?;
        if form == Form::Embedded || shard_of(&org.id) == shard_of(&neighbour.id) {
            return Ok(org);
        }
    }
    anyhow::bail!("none of {MOST_ORGS} orgs is in the shard of the neighbour")
}

/// FNV-1a over the id, as the queue does it.
fn shard_of(org: &str) -> u64 {
    let hash = org.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % SHARDS
}

impl Run<'_> {
    async fn measure(&self, trouble: Trouble) -> Result<Latencies> {
        let stop = CancellationToken::new();
        let making = match trouble {
            Trouble::None => None,
            Trouble::Failing | Trouble::Slow => {
                self.begin(trouble).await?;
                Some(tokio::spawn(send_trouble(
                    self.origin.clone(),
                    self.neighbour.key.clone(),
                    stop.clone(),
                )))
            }
            Trouble::LongReader => {
                let urls = self.stack.service_urls().context("the cloud form has services")?;
                let length = self.length + WARM_UP;
                let (origin, key, stop) = (self.origin.clone(), self.expiring.key.clone(), stop.clone());
                Some(tokio::spawn(async move {
                    let sending = tokio::spawn(send_trouble(origin, key, stop));
                    read_for_long(&urls.superuser, length).await?;
                    sending.await?
                }))
            }
        };
        let lock = (trouble == Trouble::Slow).then(|| self.hold_file(stop.clone())).flatten();
        tokio::time::sleep(WARM_UP).await;
        let seen = self.probe(trouble).await;
        stop.cancel();
        if let Some(making) = making {
            making.await??;
        }
        if let Some(lock) = lock {
            lock.await??;
        }
        self.end(trouble).await?;
        seen
    }

    async fn probe(&self, trouble: Trouble) -> Result<Latencies> {
        let mut seen = Latencies::new()?;
        let mut connection = self.origin.connect().await?;
        let until = Instant::now() + self.length;
        let mut number = 0_u64;
        while Instant::now() < until {
            number += 1;
            let session = format!("{}-{}-{number}", trouble.name(), now_ms());
            seen.record(send_and_see(&mut connection, &self.quiet.key, &session).await?);
            tokio::time::sleep(PERIOD).await;
        }
        Ok(seen)
    }

    /// Makes every batch of the neighbour fail or take long from now on.
    async fn begin(&self, trouble: Trouble) -> Result<()> {
        if let Some(urls) = self.stack.service_urls() {
            let then = if trouble == Trouble::Failing {
                "raise exception 'too slow' using errcode = '57014'"
            } else {
                "perform pg_sleep(5)"
            };
            let sql = format!(
                "create or replace function tenant.bench_trouble() returns trigger language plpgsql as
                   $$ begin if new.session_id like 'trouble-%' then {then}; end if; return new; end $$;
                 create or replace trigger bench_trouble before insert on tenant.sessions
                   for each row execute function tenant.bench_trouble();"
            );
            return execute(&urls.superuser, &sql).await;
        }
        if trouble == Trouble::Failing {
            let sql =
                "create trigger bench_trouble before insert on sessions when new.session_id like 'trouble-%'
                         begin select raise(abort, 'no'); end";
            self.file()?.execute_batch(sql)?;
        }
        Ok(())
    }

    async fn end(&self, trouble: Trouble) -> Result<()> {
        match (trouble, self.stack.service_urls()) {
            (Trouble::None | Trouble::LongReader, _) | (Trouble::Slow, None) => Ok(()),
            (_, Some(urls)) => {
                execute(&urls.superuser, "drop trigger bench_trouble on tenant.sessions").await
            }
            (Trouble::Failing, None) => Ok(self.file()?.execute_batch("drop trigger bench_trouble")?),
        }
    }

    fn path(&self) -> PathBuf {
        self.stack.data_dir().join("orgs").join(format!("{}.db", self.neighbour.id))
    }

    /// The neighbour's file of the embedded form.
    fn file(&self) -> Result<rusqlite::Connection> {
        open(&self.path())
    }

    /// Holds the neighbour's file of the embedded form, so that its writer has to wait.
    fn hold_file(&self, stop: CancellationToken) -> Option<tokio::task::JoinHandle<Result<()>>> {
        if self.stack.service_urls().is_some() {
            return None;
        }
        let path = self.path();
        Some(tokio::spawn(async move {
            let file = open(&path)?;
            file.execute_batch("begin immediate")?;
            stop.cancelled().await;
            Ok(file.execute_batch("rollback")?)
        }))
    }
}

fn open(path: &Path) -> Result<rusqlite::Connection> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    Ok(connection)
}

/// Sends one event of a session of its own; how long from the request until it can be read.
async fn send_and_see(connection: &mut Connection, key: &str, session: &str) -> Result<Duration> {
    let event = json!({"events": [{
        "sessionId": session, "agentId": "quiet", "eventType": "custom", "payload": {"type": "probe", "data": {}},
    }]});
    let path = format!("/api/events?sessionId={session}&limit=1");
    let begun = Instant::now();
    let answer = connection.post("/api/events", key, Bytes::from(event.to_string())).await?;
    ensure!(answer.status.is_success(), "POST /api/events answered {}", answer.status);
    while begun.elapsed() < GIVE_UP {
        let page = connection.get_json(&path, key).await?;
        if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("an event was not seen within {GIVE_UP:?}")
}

/// Sends batches that make trouble until told to stop; what is answered does not matter.
async fn send_trouble(origin: Origin, key: String, stop: CancellationToken) -> Result<()> {
    let mut number = 0_u64;
    let mut sending = tokio::task::JoinSet::new();
    while !stop.is_cancelled() {
        number += 1;
        let event = json!({"events": [{
            "sessionId": format!("trouble-{}-{number}", now_ms()), "agentId": "trouble", "eventType": "custom",
            "payload": {"type": "trouble", "data": {}},
        }]});
        let (origin, key) = (origin.clone(), key.clone());
        sending.spawn(async move {
            let mut connection = origin.connect().await?;
            connection.post("/api/events", &key, Bytes::from(event.to_string())).await
        });
        while sending.try_join_next().is_some() {}
        tokio::time::sleep(TROUBLE_PERIOD).await;
    }
    sending.abort_all();
    Ok(())
}

/// A transaction that has read the events and goes on for a while, as a backup does.
async fn read_for_long(url: &str, length: Duration) -> Result<()> {
    let sql =
        format!("begin; select count(*) from tenant.events; select pg_sleep({}); commit", length.as_secs());
    execute(url, &sql).await
}

async fn execute(url: &str, sql: &str) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connecting = tokio::spawn(connection);
    client.batch_execute(sql).await?;
    drop(client);
    connecting.await??;
    Ok(())
}
