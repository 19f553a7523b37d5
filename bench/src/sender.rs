//! The open-loop sender: requests leave at times fixed in advance, whatever the server does.
//!
//! Request k is due at `start + k / rate`. A lane that is free takes the next due time, prepares the
//! body, waits for that time and sends. Latency counts from the due time, so a stalled server is
//! charged for the requests it kept from being sent as well (no coordinated omission). With
//! `Rate::Max` a request is due the moment a lane is free.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::StatusCode;

use crate::events::{Generator, now_ms};
use crate::http::{Answer, Connection, Origin};
use crate::latency::Latencies;
use crate::text::Text;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// A refused request is repeated after what `Retry-After` says, but a run lasts a minute.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rate {
    PerSecond(f64),
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.replace('_', "").parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => Err("a number of events per second, or `max`".to_owned()),
        }
    }
}

/// What is sent, and how.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) origin: Origin,
    pub(crate) keys: Vec<String>,
    pub(crate) rate: Rate,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
    pub(crate) event_bytes: usize,
    pub(crate) open_sessions: usize,
    pub(crate) seed: u64,
}

/// What came of it; only requests due after the warm-up are counted.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) statuses: BTreeMap<String, u64>,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) sent_events: u64,
    pub(crate) sent_bytes: u64,
    /// Requests whose time had come before the end and that no lane was free to send.
    pub(crate) unsent: u64,
}

impl Outcome {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Latencies::new()?,
            statuses: BTreeMap::new(),
            accepted: 0,
            rejected: 0,
            sent_events: 0,
            sent_bytes: 0,
            unsent: 0,
        })
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.latencies.merge(&other.latencies)?;
        for (status, count) in &other.statuses {
            *self.statuses.entry(status.clone()).or_default() += count;
        }
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.sent_events += other.sent_events;
        self.sent_bytes += other.sent_bytes;
        self.unsent += other.unsent;
        Ok(())
    }

    fn count_status(&mut self, status: &str) {
        *self.statuses.entry(status.to_owned()).or_default() += 1;
    }
}

/// The times at which requests are due, shared by all lanes.
pub(crate) struct Schedule {
    pub(crate) measure_from: Instant,
    pub(crate) end: Instant,
    start: Instant,
    interval: Option<Duration>,
    next: AtomicU64,
    stopped: AtomicBool,
}

impl Schedule {
    pub(crate) fn new(plan: &Plan) -> Arc<Self> {
        let start = Instant::now() + Duration::from_millis(20);
        let interval = match plan.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(Duration::from_secs_f64(plan.batch as f64 / rate)),
        };
        let measure_from = start + plan.warmup;
        let end = measure_from + plan.duration;
        let (next, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { measure_from, end, start, interval, next, stopped })
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || Instant::now() >= self.end
    }

    /// When the next request is due; `None` when the run is over.
    fn next(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let Some(interval) = self.interval else { return Some(Instant::now().max(self.start)) };
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs_f64(interval.as_secs_f64() * slot as f64);
        (due < self.end).then_some(due)
    }

    /// Requests due before the end that were never taken.
    fn untaken(&self) -> u64 {
        let (Some(interval), false) = (self.interval, self.stopped.load(Ordering::Relaxed)) else { return 0 };
        let due = ((self.end - self.start).as_secs_f64() / interval.as_secs_f64()) as u64;
        due.saturating_sub(self.next.load(Ordering::Relaxed))
    }
}

/// Sends until the schedule is over and every answer has come.
pub(crate) async fn run(plan: &Plan, schedule: &Arc<Schedule>, text: &Arc<Text>) -> Result<Outcome> {
    if plan.keys.is_empty() {
        bail!("no API key given");
    }
    let lanes = open_lanes(plan).await?;
    let sessions = plan.open_sessions.div_ceil(lanes.len() * plan.keys.len());
    let mut tasks = Vec::new();
    for (index, connection) in lanes.into_iter().enumerate() {
        let generators = (0..plan.keys.len())
            .map(|key| {
                let seed = plan.seed ^ ((index as u64) << 32) ^ ((key as u64) << 48);
                Generator::new(text.clone(), seed, sessions, plan.event_bytes)
            })
            .collect();
        let lane = Lane {
            plan: plan.clone(),
            schedule: schedule.clone(),
            connection,
            generators,
            outcome: Outcome::new()?,
        };
        tasks.push(tokio::spawn(lane.run(index)));
    }
    let mut outcome = Outcome::new()?;
    for task in tasks {
        outcome.merge(&task.await??)?;
    }
    outcome.unsent += schedule.untaken();
    Ok(outcome)
}

async fn open_lanes(plan: &Plan) -> Result<Vec<Connection>> {
    let mut lanes = Vec::new();
    for _ in 0..plan.connections {
        let first = plan.origin.connect().await.context("connecting")?;
        for _ in 1..plan.in_flight {
            lanes.push(
                first
                    .share()
                    .context("HTTP/1.1 carries one request at a time: --in-flight needs --http 2")?,
            );
        }
        lanes.push(first);
    }
    Ok(lanes)
}

struct Lane {
    plan: Plan,
    schedule: Arc<Schedule>,
    connection: Connection,
    generators: Vec<Generator>,
    outcome: Outcome,
}

impl Lane {
    async fn run(mut self, index: usize) -> Result<Outcome> {
        let mut turn = index;
        while let Some(due) = self.schedule.next() {
            let key = turn % self.plan.keys.len();
            turn += 1;
            let body = Bytes::from(self.generators[key].body(self.plan.batch, now_ms(), 0));
            // The timer rounds up to the next millisecond, even for a time that is already past.
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            if self.schedule.is_over() {
                self.outcome.unsent += 1;
                break;
            }
            self.deliver(due, key, body).await?;
        }
        Ok(self.outcome)
    }

    /// One request; at full speed a refused one is repeated until it is taken or the run is over.
    async fn deliver(&mut self, due: Instant, key: usize, body: Bytes) -> Result<()> {
        loop {
            let bytes = body.len() as u64;
            let sending = self.connection.post("/api/events", &self.plan.keys[key], body.clone());
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, sending).await;
            let elapsed = due.elapsed();
            let answer = match answer {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(_)) | Err(_) => None,
            };
            if due >= self.schedule.measure_from {
                self.record(answer.as_ref(), elapsed, bytes);
            }
            let pause = match &answer {
                None => {
                    self.reconnect().await?;
                    RECONNECT_PAUSE
                }
                Some(answer) if is_refusal(answer.status) => answer.retry_after.unwrap_or(RECONNECT_PAUSE),
                Some(_) => return Ok(()),
            };
            if !matches!(self.plan.rate, Rate::Max) || self.schedule.is_over() {
                return Ok(());
            }
            tokio::time::sleep(pause.min(LONGEST_RETRY_PAUSE)).await;
        }
    }

    fn record(&mut self, answer: Option<&Answer>, elapsed: Duration, bytes: u64) {
        let batch = self.plan.batch as u64;
        self.outcome.sent_events += batch;
        self.outcome.sent_bytes += bytes;
        let Some(answer) = answer else {
            self.outcome.count_status("no answer");
            return;
        };
        self.outcome.count_status(answer.status.as_str());
        if answer.status.is_success() {
            self.outcome.latencies.record(elapsed);
            let accepted = answer.count("accepted").or_else(|| answer.count("ingested")).unwrap_or(0);
            self.outcome.accepted += accepted;
            self.outcome.rejected += batch.saturating_sub(accepted);
        }
    }

    async fn reconnect(&mut self) -> Result<()> {
        while !self.schedule.is_over() {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            if let Ok(connection) = self.plan.origin.connect().await {
                self.connection = connection;
                return Ok(());
            }
        }
        Ok(())
    }
}

fn is_refusal(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
