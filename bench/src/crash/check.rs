//! Reads everything back and compares: every acknowledged event there exactly once with the payload
//! that was sent, nothing else there, every chain valid and without a gap, every counter and rollup
//! equal to a recount of the stored events, the ledger in balance.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::recount::Recount;
use super::senders::{Ledger, fingerprint};
use crate::events::now_ms;
use crate::http::{Connection, Origin, escape};
use crate::load::sum_of;
use crate::stack::Stack;

const PAGE_EVENTS: usize = 500;
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// Rollups may be written shortly after the events they come from.
const ROLLUP_LIMIT: Duration = Duration::from_secs(10);
/// Findings told in full; the rest is counted.
const TOLD_FINDINGS: usize = 40;
const HOUR_MS: u64 = 3_600_000;

/// Faults, the first of them in words.
#[derive(Default)]
struct Findings {
    told: Vec<String>,
    untold: usize,
}

impl Findings {
    fn push(&mut self, finding: String) {
        if self.told.len() < TOLD_FINDINGS {
            self.told.push(finding);
        } else {
            self.untold += 1;
        }
    }

    fn extend(&mut self, about: &str, found: Vec<String>) {
        for finding in found {
            self.push(format!("{about}: {finding}"));
        }
    }
}

/// What was read back.
struct Stored {
    /// How often each id occurs.
    ids: HashMap<String, u32>,
    recount: Recount,
    changed: u64,
}

pub(super) async fn check(
    origin: &Origin,
    key: &str,
    ledger: &Ledger,
    may_be_lost: &dyn Fn(Instant) -> bool,
) -> Result<Value> {
    let mut connection = origin.connect().await?;
    let mut findings = Findings::default();
    drain(&mut connection, key, &mut findings).await?;
    let stored = read_all(&mut connection, key, ledger, &mut findings).await?;
    let (missing, lost_in_last_second) = compare_ids(ledger, &stored, may_be_lost, &mut findings);
    let linked = check_sessions(&mut connection, key, &stored.recount, &mut findings).await?;
    check_verify(&mut connection, key, &mut findings).await?;
    check_rollups(&mut connection, key, &stored.recount, &mut findings).await?;
    for refusal in &ledger.refusals {
        findings.push(format!("refused: {refusal}"));
    }
    if findings.untold > 0 {
        findings.told.push(format!("and {} more", findings.untold));
    }
    Ok(json!({
        "acknowledged": ledger.events.len(),
        "stored": stored.recount.all.events,
        "missing": missing,
        "lost_within_everysec_window": lost_in_last_second,
        "stored_twice": stored.ids.values().filter(|&&count| count > 1).count(),
        "never_acknowledged": stored.ids.keys().filter(|id| !ledger.events.contains_key(*id)).count(),
        "changed_payloads": stored.changed,
        "sessions": stored.recount.sessions.len(),
        "links_checked": linked,
        "findings": findings.told,
    }))
}

/// Waits until nothing waits, then checks that the ledger's columns add up.
async fn drain(connection: &mut Connection, key: &str, findings: &mut Findings) -> Result<()> {
    let limit = Instant::now() + DRAIN_LIMIT;
    loop {
        let ledger = connection.get_json("/v1/ingest/ledger", key).await?;
        if sum_of("waiting", &ledger) == 0 {
            let refused = refused_total(&ledger);
            let (received, stored) = (sum_of("received", &ledger), sum_of("stored", &ledger));
            if received != stored + refused {
                findings.push(format!("ledger: received {received}, stored {stored}, refused {refused}"));
            }
            return Ok(());
        }
        ensure!(Instant::now() < limit, "the queue is not empty after {} s: {ledger}", DRAIN_LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The sum over all reasons of all keys.
fn refused_total(ledger: &Value) -> u64 {
    match ledger {
        Value::Object(map) => map
            .iter()
            .map(|(name, inner)| match (name.as_str(), inner) {
                ("refused", Value::Object(reasons)) => reasons.values().filter_map(Value::as_u64).sum(),
                ("refused", Value::Number(count)) => count.as_u64().unwrap_or(0),
                _ => refused_total(inner),
            })
            .sum(),
        Value::Array(items) => items.iter().map(refused_total).sum(),
        _ => 0,
    }
}

async fn read_all(
    connection: &mut Connection,
    key: &str,
    ledger: &Ledger,
    findings: &mut Findings,
) -> Result<Stored> {
    let mut stored = Stored { ids: HashMap::new(), recount: Recount::default(), changed: 0 };
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor.as_ref().map_or_else(String::new, |cursor| format!("&cursor={}", escape(cursor)));
        let page =
            connection.get_json(&format!("/api/events?limit={PAGE_EVENTS}&order=asc{after}"), key).await?;
        let events = page["events"].as_array().context("the event list has no events field")?;
        for event in events {
            let id = event["id"].as_str().context("an event without id")?;
            if let Some(sent) = ledger.events.get(id)
                && sent.payload != fingerprint(&event["payload"])
            {
                stored.changed += 1;
                findings.push(format!(
                    "event {id}: its payload is not the one that was sent: {}",
                    event["payload"]
                ));
            }
            stored.recount.add(event);
            *stored.ids.entry(id.to_owned()).or_default() += 1;
        }
        let next = page["nextCursor"].as_str().map(str::to_owned);
        if next.is_none() || events.is_empty() {
            return Ok(stored);
        }
        ensure!(next != cursor, "the event list gives the same cursor again");
        cursor = next;
    }
}

/// Returns how many acknowledged events are missing, and how many of them AOF at every second explains.
fn compare_ids(
    ledger: &Ledger,
    stored: &Stored,
    may_be_lost: &dyn Fn(Instant) -> bool,
    findings: &mut Findings,
) -> (usize, usize) {
    let (mut missing, mut explained) = (0, 0);
    for (id, acknowledged) in &ledger.events {
        if stored.ids.contains_key(id) {
            continue;
        }
        if may_be_lost(acknowledged.at) {
            explained += 1;
        } else {
            missing += 1;
            findings.push(format!("event {id}: acknowledged and not there"));
        }
    }
    for (id, &count) in &stored.ids {
        if count > 1 {
            findings.push(format!("event {id}: there {count} times"));
        }
        if !ledger.events.contains_key(id) {
            findings.push(format!("event {id}: there and never acknowledged"));
        }
    }
    (missing, explained)
}

/// Every session's counters and chain. Returns the number of links checked.
async fn check_sessions(
    connection: &mut Connection,
    key: &str,
    recount: &Recount,
    findings: &mut Findings,
) -> Result<usize> {
    let mut links = 0;
    for (id, counters) in &recount.sessions {
        let path = format!("/api/sessions/{}", escape(id));
        let session = connection.get_json(&path, key).await?;
        findings.extend(&format!("session {id}"), counters.differences_from_session(&session));
        let timeline = connection.get_json(&format!("{path}/timeline"), key).await?;
        let events = timeline["events"].as_array().context("the timeline has no events field")?;
        if timeline["chainValid"] != true {
            findings.push(format!("session {id}: chainValid is {}", timeline["chainValid"]));
        }
        if events.len() as u64 != counters.events {
            findings.push(format!(
                "session {id}: {} events in its timeline, {} stored",
                events.len(),
                counters.events
            ));
        }
        findings.extend(&format!("session {id}"), broken_links(events));
        links += events.len();
    }
    Ok(links)
}

/// Each event must name the hash of the one before it, and their numbers must be 1, 2, 3 and so on.
fn broken_links(events: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    if events.first().is_some_and(|event| !event["prevHash"].is_null()) {
        found.push("the first event names a predecessor".to_owned());
    }
    for pair in events.windows(2) {
        if pair[1]["prevHash"] != pair[0]["hash"] || pair[0]["hash"].is_null() {
            found.push(format!("event {} does not name the hash of its predecessor", pair[1]["id"]));
        }
    }
    for (event, number) in events.iter().zip(1_u64..) {
        if event["seq"] != number {
            found.push(format!("event {} has the number {} instead of {number}", event["id"], event["seq"]));
        }
    }
    found
}

async fn check_verify(connection: &mut Connection, key: &str, findings: &mut Findings) -> Result<()> {
    let report = connection.get_json(&format!("/api/audit/verify?{}", range()), key).await?;
    if report["verified"] != true {
        findings.push(format!("audit: {report}"));
    }
    Ok(())
}

/// Totals of the rollups against the recount; they may lag the events by a moment.
async fn check_rollups(
    connection: &mut Connection,
    key: &str,
    recount: &Recount,
    findings: &mut Findings,
) -> Result<()> {
    let limit = Instant::now() + ROLLUP_LIMIT;
    loop {
        let mut found = Vec::new();
        for granularity in ["hour", "day"] {
            let query = format!("{}&granularity={granularity}", range());
            let analytics = connection.get_json(&format!("/api/analytics?{query}"), key).await?;
            let about = |finding| format!("totals by {granularity}: {finding}");
            found.extend(recount.all.differences_from_totals(&analytics["totals"]).into_iter().map(about));
            let models = connection.get_json(&format!("/api/analytics/llm?{query}"), key).await?;
            let about = |finding| format!("models by {granularity}: {finding}");
            found.extend(recount.all.differences_from_llm_summary(&models["summary"]).into_iter().map(about));
        }
        let stats = connection.get_json("/api/stats", key).await?;
        for (name, counted) in
            [("totalEvents", recount.all.events), ("totalSessions", recount.sessions.len() as u64)]
        {
            if stats[name] != json!(counted) {
                found.push(format!("stats: {name} is {}, counted {counted}", stats[name]));
            }
        }
        if found.is_empty() || Instant::now() > limit {
            findings.extend("rollups", found);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Two whole days around now, so that hourly and daily totals cover the whole run.
fn range() -> String {
    let stamp = |ms: u64| {
        let whole_day = i64::try_from(ms / (24 * HOUR_MS) * 24 * HOUR_MS).unwrap_or(0);
        let instant = jiff::Timestamp::from_millisecond(whole_day).unwrap_or_default();
        escape(&instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let now = now_ms();
    format!("from={}&to={}", stamp(now - 24 * HOUR_MS), stamp(now + 24 * HOUR_MS))
}

/// The command line's own walk over the org, with the server stopped.
pub(super) fn verify_by_command(stack: &Stack) -> Result<()> {
    let printed = stack.command(&["verify", "--json"])?;
    let report: Value = serde_json::from_str(&printed).context("it printed no JSON")?;
    ensure!(report["verified"] == true, "{report}");
    Ok(())
}
