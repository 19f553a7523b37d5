//! `reads`: how long the screens' requests take while events arrive, for the largest org and for one
//! of the others. The kinds take turns, so that all meet the same conditions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Args;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::events::{EventFeed, Generator, now_ms};
use crate::http::{Connection, Origin, Version, escape};
use crate::keys::Keys;
use crate::latency::Latencies;
use crate::load::background_plan;
use crate::report::{publish, round};
use crate::sender::{self, Outcome, Schedule};
use crate::text::{ABSENT_WORD, CJK_SUBSTRING, COMMON_WORD, RARE_WORD, Text};

const TIMELINE_EVENTS: u64 = 1000;
/// `4 * rounds + 4` events.
const TIMELINE_ROUNDS: u32 = 249;
const VISIBLE_LIMIT: Duration = Duration::from_secs(30);
const DAY_MS: u64 = 86_400_000;

#[derive(Args, Clone, Debug)]
pub(crate) struct ReadsArgs {
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    /// Keys of all orgs: the first is the largest org, the middle one stands for the others.
    #[command(flatten)]
    keys: Keys,
    /// Events per second that arrive meanwhile, over all orgs; 0 for none.
    #[arg(long, default_value_t = 2000.0)]
    write_rate: f64,
    /// Requests of each kind and org.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Pages of 500 walked before a deep page is measured.
    #[arg(long, default_value_t = 100)]
    deep_after_pages: usize,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    SessionList,
    EventList,
    EventListDeep,
    Timeline,
    Analytics24h,
    Llm24h,
    Analytics90d,
    Llm90d,
    SearchRare,
    SearchCommon,
    SearchCjk,
    SearchAbsent,
}

const READS: [(Read, &str); 12] = [
    (Read::SessionList, "session_list"),
    (Read::EventList, "event_list_first_page"),
    (Read::EventListDeep, "event_list_deep_page"),
    (Read::Timeline, "timeline_1000_events"),
    (Read::Analytics24h, "analytics_24h"),
    (Read::Llm24h, "analytics_llm_24h"),
    (Read::Analytics90d, "analytics_90d"),
    (Read::Llm90d, "analytics_llm_90d"),
    (Read::SearchRare, "search_rare_word"),
    (Read::SearchCommon, "search_common_word"),
    (Read::SearchCjk, "search_cjk_substring"),
    (Read::SearchAbsent, "search_absent_word"),
];

/// One org as a reader sees it.
struct Reader {
    connection: Connection,
    key: String,
    timeline_session: String,
    deep_cursor: Option<String>,
}

pub(crate) fn run(args: &ReadsArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args))?;
    let parameters = json!({
        "write_rate": args.write_rate, "samples": args.samples, "orgs": args.keys.load()?.len(),
        "deep_after_pages": args.deep_after_pages,
    });
    publish("reads", &parameters, &results, args.json.as_deref())
}

async fn measure(args: &ReadsArgs) -> Result<Value> {
    let origin = Origin::parse(&args.url, Version::One)?;
    let keys = args.keys.load()?;
    let writer =
        (args.write_rate > 0.0).then(|| Writer::start(&origin, &keys, args.write_rate)).transpose()?;
    let mut results = Map::new();
    let median = keys.len() / 2;
    for (name, index) in [("largest_org", 0), ("median_org", median)] {
        let mut reader =
            Reader::open(&origin, &keys[index]).await.with_context(|| format!("preparing {name}"))?;
        reader.walk_deep(args.deep_after_pages).await?;
        results.insert(name.to_owned(), reader.measure(args.samples).await.with_context(|| name.to_owned())?);
    }
    if let Some(writer) = writer {
        results.insert("writer".to_owned(), writer.stop()?);
    }
    Ok(Value::Object(results))
}

/// The load in the background, on a thread of its own so that its work delays no reading.
struct Writer {
    schedule: Arc<Schedule>,
    thread: std::thread::JoinHandle<Result<Outcome>>,
    started: Instant,
}

impl Writer {
    fn start(origin: &Origin, keys: &[String], rate: f64) -> Result<Self> {
        let (plan, mix) = background_plan(origin.clone(), keys.to_vec(), rate)?;
        let schedule = Schedule::new(&plan);
        let shared = schedule.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let text = Arc::new(Text::new());
            let feed = |lane, lanes| EventFeed::new(&text, &mix, &plan, lane, lanes);
            runtime.block_on(sender::run(&plan, &shared, feed))
        });
        Ok(Self { schedule, thread, started: Instant::now() })
    }

    fn stop(self) -> Result<Value> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.schedule.stop();
        let Ok(outcome) = self.thread.join() else { bail!("the writer's thread ended badly") };
        let outcome = outcome?;
        Ok(json!({
            "accepted_per_s": round(outcome.accepted as f64 / seconds, 0),
            "answers": outcome.statuses,
            "accept": outcome.latencies.summary(),
        }))
    }
}

impl Reader {
    async fn open(origin: &Origin, key: &str) -> Result<Self> {
        let mut connection = origin.connect().await?;
        let session = format!("long-{}", now_ms());
        let mut generator = Generator::of_one_session(Arc::new(Text::new()), &session, TIMELINE_ROUNDS);
        for _ in 0..2 {
            let body = generator.body(usize::try_from(TIMELINE_EVENTS / 2)?, now_ms(), 1000);
            let answer = connection.post("/api/events", key, Bytes::from(body)).await?;
            ensure!(answer.status.is_success(), "the long session was refused with {}", answer.status);
        }
        let limit = Instant::now() + VISIBLE_LIMIT;
        loop {
            let answer = connection.get(&format!("/api/sessions/{session}"), Some(key)).await?;
            if answer.status == StatusCode::OK && answer.json()?["eventCount"] == TIMELINE_EVENTS {
                break;
            }
            ensure!(Instant::now() < limit, "the long session did not become visible");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { connection, key: key.to_owned(), timeline_session: session, deep_cursor: None })
    }

    /// Goes far down the event list, so that later pages show what depth costs.
    async fn walk_deep(&mut self, pages: usize) -> Result<()> {
        for _ in 0..pages {
            let page = self.connection.get_json(&self.path(Read::EventListDeep, 500), &self.key).await?;
            let cursor = page["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
            self.deep_cursor = cursor;
        }
        ensure!(pages == 0 || self.deep_cursor.is_some(), "the event list gave no nextCursor");
        Ok(())
    }

    async fn measure(&mut self, samples: usize) -> Result<Value> {
        let mut latencies: Vec<Latencies> =
            (0..READS.len()).map(|_| Latencies::new()).collect::<Result<_>>()?;
        let mut returned = vec![0usize; READS.len()];
        for _ in 0..samples {
            for (index, (read, name)) in READS.iter().enumerate() {
                let path = self.path(*read, 50);
                let started = Instant::now();
                let answer = self.connection.get(&path, Some(&self.key)).await?;
                latencies[index].record(started.elapsed());
                ensure!(answer.status == StatusCode::OK, "{name} answered {}", answer.status);
                let body = answer.json()?;
                returned[index] = items(&body);
                if let (Read::EventListDeep, Some(cursor)) = (read, body["nextCursor"].as_str()) {
                    self.deep_cursor = Some(cursor.to_owned());
                }
            }
        }
        let mut results = Map::new();
        for (((_, name), latencies), returned) in READS.iter().zip(&latencies).zip(returned) {
            let mut summary = latencies.summary();
            if let Some(map) = summary.as_object_mut() {
                map.insert("items".to_owned(), json!(returned));
            }
            results.insert((*name).to_owned(), summary);
        }
        Ok(Value::Object(results))
    }

    fn path(&self, read: Read, limit: usize) -> String {
        let search = |word: &str| format!("/api/events?limit={limit}&search={}", escape(word));
        match read {
            Read::SessionList => format!("/api/sessions?limit={limit}"),
            Read::EventList => format!("/api/events?limit={limit}"),
            Read::EventListDeep => match &self.deep_cursor {
                Some(cursor) => format!("/api/events?limit={limit}&cursor={}", escape(cursor)),
                None => format!("/api/events?limit={limit}"),
            },
            Read::Timeline => format!("/api/sessions/{}/timeline", escape(&self.timeline_session)),
            Read::Analytics24h => format!("/api/analytics?{}&granularity=hour", range(1)),
            Read::Llm24h => format!("/api/analytics/llm?{}&granularity=hour", range(1)),
            Read::Analytics90d => format!("/api/analytics?{}&granularity=day", range(90)),
            Read::Llm90d => format!("/api/analytics/llm?{}&granularity=day", range(90)),
            Read::SearchRare => search(RARE_WORD),
            Read::SearchCommon => search(COMMON_WORD),
            Read::SearchCjk => search(CJK_SUBSTRING),
            Read::SearchAbsent => search(ABSENT_WORD),
        }
    }
}

/// The days up to this millisecond, so that no two requests are the same.
fn range(days: u64) -> String {
    let stamp = |ms: u64| {
        let instant = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
        escape(&instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    };
    let now = now_ms();
    format!("from={}&to={}", stamp(now - days * DAY_MS), stamp(now))
}

/// How many things the answer lists.
fn items(body: &Value) -> usize {
    let lists = ["events", "sessions", "buckets", "byTime"];
    lists.iter().filter_map(|name| body[*name].as_array()).map(Vec::len).next().unwrap_or(0)
}
