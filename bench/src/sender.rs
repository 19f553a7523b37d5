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

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::StatusCode;

use crate::http::{Answer, Connection, Origin, Target};
use crate::latency::Latencies;

/// After which a request counts as unanswered, unless the plan knows better.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
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
    pub(crate) target: Target,
    /// They take turns; without any, requests carry no key.
    pub(crate) keys: Vec<String>,
    pub(crate) rate: Rate,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
    pub(crate) request_timeout: Duration,
}

/// Where a lane gets its bodies from.
pub(crate) trait Feed: Send {
    /// The next body for the key of that index; `None` when there is nothing left to send.
    fn next(&mut self, key: usize) -> Option<Bytes>;

    /// How many of a batch were taken, by what a successful answer says.
    fn accepted(&self, answer: &Answer, batch: u64) -> u64;
}

/// What came of it; only requests due after the warm-up are counted.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) statuses: BTreeMap<String, u64>,
    pub(crate) accepted: u64,
    /// Accepted before measuring began.
    pub(crate) accepted_before: u64,
    pub(crate) rejected: u64,
    pub(crate) sent_events: u64,
    pub(crate) sent_bytes: u64,
    /// Requests whose time had come before the end and that no lane was free to send.
    pub(crate) unsent: u64,
    /// Whether the feeds were empty before the time was over.
    pub(crate) is_exhausted: bool,
}

impl Outcome {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Latencies::new()?,
            statuses: BTreeMap::new(),
            accepted: 0,
            accepted_before: 0,
            rejected: 0,
            sent_events: 0,
            sent_bytes: 0,
            unsent: 0,
            is_exhausted: false,
        })
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.latencies.merge(&other.latencies)?;
        for (status, count) in &other.statuses {
            *self.statuses.entry(status.clone()).or_default() += count;
        }
        self.accepted += other.accepted;
        self.accepted_before += other.accepted_before;
        self.rejected += other.rejected;
        self.sent_events += other.sent_events;
        self.sent_bytes += other.sent_bytes;
        self.unsent += other.unsent;
        self.is_exhausted |= other.is_exhausted;
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

/// Sends until the schedule is over or the feeds are empty, and every answer has come. `feed` is asked once for each
/// lane, by its index and the number of lanes.
pub(crate) async fn run<F: Feed + 'static>(
    plan: &Plan,
    schedule: &Arc<Schedule>,
    mut feed: impl FnMut(usize, usize) -> F,
) -> Result<Outcome> {
    let connections = open_lanes(plan).await?;
    let lanes = connections.len();
    let mut tasks = Vec::new();
    for (index, connection) in connections.into_iter().enumerate() {
        let lane = Lane {
            plan: plan.clone(),
            schedule: schedule.clone(),
            connection,
            feed: feed(index, lanes),
            outcome: Outcome::new()?,
        };
        tasks.push(tokio::spawn(lane.run(index)));
    }
    let mut outcome = Outcome::new()?;
    for task in tasks {
        outcome.merge(&task.await??)?;
    }
    if !outcome.is_exhausted {
        outcome.unsent += schedule.untaken();
    }
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

struct Lane<F> {
    plan: Plan,
    schedule: Arc<Schedule>,
    connection: Connection,
    feed: F,
    outcome: Outcome,
}

impl<F: Feed> Lane<F> {
    async fn run(mut self, index: usize) -> Result<Outcome> {
        let mut turn = index;
        while let Some(due) = self.schedule.next() {
            let key = turn % self.plan.keys.len().max(1);
            turn += 1;
            let Some(body) = self.feed.next(key) else {
                self.outcome.is_exhausted = true;
                break;
            };
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
            let key = self.plan.keys.get(key).map(String::as_str);
            let sending = self.connection.post_to(&self.plan.target, key, body.clone());
            let answer = tokio::time::timeout(self.plan.request_timeout, sending).await;
            let elapsed = due.elapsed();
            let answer = match answer {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(_)) | Err(_) => None,
            };
            if due >= self.schedule.measure_from {
                self.record(answer.as_ref(), elapsed, bytes);
            } else if let Some(answer) = answer.as_ref().filter(|answer| answer.status.is_success()) {
                self.outcome.accepted_before += self.feed.accepted(answer, self.plan.batch as u64);
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
            let accepted = self.feed.accepted(answer, batch);
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
