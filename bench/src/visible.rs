//! How long after its acceptance an event can be read: every 50 ms one event of a session of its own
//! is sent, and the event list of that session is asked for until the event is in it.
//!
//! The pauses between two questions grow from 1 to 10 ms, so that the probes take little from the
//! server; a figure is late by at most that pause and the time of one answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::events::now_ms;
use crate::http::Connection;
use crate::latency::Latencies;
use crate::sender::{Plan, Schedule};

const WORKERS: u64 = 4;
const PERIOD: Duration = Duration::from_millis(50);
const GIVE_UP: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

struct Seen {
    latencies: Latencies,
    refused: u64,
    never: u64,
    questions: u64,
}

/// Probes until the schedule ends.
pub(crate) async fn probe(plan: Plan, schedule: Arc<Schedule>) -> Result<Value> {
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        workers.push(tokio::spawn(work(plan.clone(), schedule.clone(), worker)));
    }
    let mut all = Seen { latencies: Latencies::new()?, refused: 0, never: 0, questions: 0 };
    for worker in workers {
        let seen = worker.await??;
        all.latencies.merge(&seen.latencies)?;
        all.refused += seen.refused;
        all.never += seen.never;
        all.questions += seen.questions;
    }
    let mut summary = all.latencies.summary();
    if let Some(map) = summary.as_object_mut() {
        map.insert("refused".to_owned(), json!(all.refused));
        map.insert("never_seen".to_owned(), json!(all.never));
        map.insert("questions".to_owned(), json!(all.questions));
    }
    Ok(summary)
}

async fn work(plan: Plan, schedule: Arc<Schedule>, worker: u64) -> Result<Seen> {
    let mut seen = Seen { latencies: Latencies::new()?, refused: 0, never: 0, questions: 0 };
    let mut connection = plan.origin.connect().await?;
    let key = plan.keys.first().context("no key")?;
    let mut due = schedule.measure_from + PERIOD * u32::try_from(worker)?;
    let mut number = 0u64;
    while due < schedule.end {
        tokio::time::sleep_until(due.into()).await;
        number += 1;
        if probe_once(&mut connection, key, &format!("probe-{}-{worker}-{number}", now_ms()), &mut seen)
            .await
            .is_err()
        {
            seen.refused += 1;
            connection = plan.origin.connect().await?;
        }
        let period = PERIOD * u32::try_from(WORKERS)?;
        // A slow probe skips its next turns instead of catching up.
        while due <= Instant::now() {
            due += period;
        }
    }
    Ok(seen)
}

async fn probe_once(connection: &mut Connection, key: &str, session: &str, seen: &mut Seen) -> Result<()> {
    let event = json!({"events": [{
        "sessionId": session, "agentId": "probe", "eventType": "custom", "severity": "info",
        "payload": {"type": "probe", "data": {"marked": true}}, "metadata": {},
        "timestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    }]});
    let answer = connection.post("/api/events", key, Bytes::from(event.to_string())).await?;
    let accepted = Instant::now();
    if !answer.status.is_success() {
        seen.refused += 1;
        return Ok(());
    }
    let path = format!("/api/events?sessionId={session}&limit=1");
    let mut pause = FIRST_PAUSE;
    while accepted.elapsed() < GIVE_UP {
        seen.questions += 1;
        let page = connection.get_json(&path, key).await?;
        if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
            seen.latencies.record(accepted.elapsed());
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    seen.never += 1;
    Ok(())
}
