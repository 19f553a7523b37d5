//! Partitions of `events` by their day of expiry (PostgreSQL): made ahead, dropped when their last day is over.
//!
//! A partition holds events of all orgs, so it goes when each of them has recorded what it loses. An org whose retention keeps failing
//! is waited for, but not for ever: it must not fill the disks of all others. If it loses events that it has not recorded, an entry of
//! its audit log says so, and verification repeats it.

use serde_json::json;

use agentlens_domain::ids::OrgId;
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::{DAY_US, day_of, format_rfc3339};

use crate::Store;
use crate::args;
use crate::control::{Control, OrgBehind};
use crate::engine::postgres::PostgresEngine;
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::Row;
use crate::write::{Audited, Record};

/// The job that deletes what expired, and records what chains lose by it.
pub const RETENTION_JOB: &str = "retention";

/// An org whose retention has failed for so long is no longer waited for,
const MAX_WAIT_US: i64 = 3 * DAY_US;
/// if it was tried so often since. A server that was stopped for days tries first.
const MIN_FAILED_RUNS: i64 = 24;

/// The act under which the audit log says that events were deleted without a record.
const DROP_UNRECORDED: &str = "events.drop_unrecorded";

/// What dropping partitions did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DroppedPartitions {
    /// How many were dropped.
    pub dropped: u64,
    /// Orgs that lost events without having recorded them, once for each partition.
    pub unrecorded: Vec<OrgId>,
    /// Orgs whose retention fails, and for which the next partition waits.
    pub waiting_for: Vec<OrgId>,
}

/// What an org is about to lose without having recorded it. Absent figures could not be read.
struct Unrecorded {
    event_count: Option<i64>,
    first_us: Option<i64>,
    last_us: Option<i64>,
}

/// Makes the partitions of the coming days: those of the longest retention in use.
pub(crate) async fn make_partitions(
    engine: &PostgresEngine,
    longest_retention_days: Option<i32>,
    now_us: i64,
) -> Result<(), StoreError> {
    let today = day_of(now_us);
    let last = longest_retention_days.map_or(today, |days| today.saturating_add(days).saturating_add(3));
    let days = engine.without_partition(today + 1..=last);
    engine.ensure_partitions(&engine.connection().await?, &days, today).await
}

/// Drops the partitions whose last day is over, the oldest first. See [`Store::drop_partitions`].
pub(crate) async fn drop_partitions(
    store: &Store,
    engine: &PostgresEngine,
    now_us: i64,
) -> Result<DroppedPartitions, StoreError> {
    let (control, mut report) = (store.control(), DroppedPartitions::default());
    while let Some(end_day) = engine.oldest_partition(day_of(now_us)).await? {
        let behind = control.orgs_behind(RETENTION_JOB, end_day).await?;
        // An org that has not run yet will.
        if behind.iter().any(|org| org.failures == 0) {
            break;
        }
        let mut losses = Vec::new();
        for org in behind {
            let Ok(id) = OrgId::parse(&org.org_id) else { continue };
            match find_unrecorded(engine, &id, &org, end_day).await {
                None => {}
                Some(_) if !is_given_up(&org, now_us) => report.waiting_for.push(id),
                Some(unrecorded) => losses.push((id, org, unrecorded)),
            }
        }
        if !report.waiting_for.is_empty() {
            break;
        }
        for (id, org, unrecorded) in &losses {
            note_loss(store, id, (org, unrecorded), end_day).await?;
        }
        if !engine.drop_expired_partition(end_day).await? {
            break;
        }
        report.dropped += 1;
        report.unrecorded.extend(losses.into_iter().map(|(id, ..)| id));
    }
    Ok(report)
}

fn is_given_up(org: &OrgBehind, now_us: i64) -> bool {
    org.failures >= MIN_FAILED_RUNS && org.failing_since_us.is_some_and(|since| now_us - since >= MAX_WAIT_US)
}

/// What an org that is behind has in the partitions up to a day; `None` if that is nothing. It reads as little as it can, because
/// something of this org can't be read.
async fn find_unrecorded(
    engine: &PostgresEngine,
    id: &OrgId,
    org: &OrgBehind,
    end_day: i32,
) -> Option<Unrecorded> {
    let args = args![id.as_str(), org.recorded_day, end_day];
    let find = "select seq from events where org_id = $1 and expire_day >= $2 and expire_day < $3 limit 1";
    let found = engine.query_for_write(Some(RowScope::Org(id)), find, &args).await;
    if found.is_ok_and(|rows| rows.is_empty()) {
        return None;
    }
    let count = "select count(*), min(ts_us), max(ts_us) from events where org_id = $1 and expire_day >= $2 and expire_day < $3";
    let counted = engine.query_for_write(Some(RowScope::Org(id)), count, &args).await.unwrap_or_default();
    let figure = |index| counted.first().and_then(|row: &Row| row.get::<Option<i64>>(index).ok().flatten());
    Some(Unrecorded { event_count: figure(0), first_us: figure(1), last_us: figure(2) })
}

/// Writes into the org's audit log what it loses, before it goes.
async fn note_loss(
    store: &Store,
    id: &OrgId,
    (org, unrecorded): (&OrgBehind, &Unrecorded),
    end_day: i32,
) -> Result<(), StoreError> {
    let since = org.failing_since_us.map(format_rfc3339);
    let count = unrecorded.event_count;
    tracing::error!(org.id = %id, event_count = count, failing_since = since, error = org.last_error,
        "expired events are dropped without a record, because the retention of their org fails");
    let target = format!("events that expire before {}", date(end_day));
    let after = json!({ "expire_before": date(end_day), "recorded_before": date(org.recorded_day), "event_count": count,
        "first_at": unrecorded.first_us.map(format_rfc3339), "last_at": unrecorded.last_us.map(format_rfc3339),
        "retention_failing_since": since });
    store
        .control()
        .write(&Caller::service("partitions", id), DROP_UNRECORDED, move |tx| {
            Box::pin(async move {
                // The last run may have been unable to drop the partition.
                let known =
                    "select count(*) from control_audit_log where org_id = $1 and act = $2 and target = $3";
                match tx.find::<i64>(known, args![DROP_UNRECORDED, target.as_str()]).await? {
                    None | Some(0) => Ok(Record::of(target).after(after).returning(())),
                    Some(_) => Ok(Audited::unchanged(())),
                }
            })
        })
        .await?;
    // Sums that count these events can't be counted again. An org that can't be opened has other faults to report.
    if let Ok(org) = store.org(id).await
        && let Err(error) = org.retention().remember_unrecorded(end_day).await
    {
        tracing::warn!(org.id = %id, error = %error, "what an org lost can't be noted in its counters");
    }
    Ok(())
}

fn date(day: i32) -> String {
    format_rfc3339(i64::from(day) * DAY_US).split('T').next().unwrap_or_default().to_owned()
}

impl Control {
    /// What was deleted of an org without a record of its own, in words.
    pub(crate) async fn unrecorded_losses(&self, org: &OrgId) -> Result<Vec<String>, StoreError> {
        let sql = "select at_us, target, details from control_audit_log where org_id = $1 and act = $2 order by seq";
        let rows: Vec<Row> = self.fetch_of(org, sql, args![DROP_UNRECORDED]).await?;
        let words = |row: &Row| {
            let (at_us, target, details): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let details: serde_json::Value = serde_json::from_str(&details).unwrap_or_default();
            let count = details["after"]["event_count"].as_i64().map(|count| format!("{count} "));
            Ok(format!(
                "On {}, {}{target} were deleted without a record of the org's own, because its retention had failed since {}. \
                 Sessions that go on miss them at their beginning",
                format_rfc3339(at_us),
                count.unwrap_or_default(),
                details["after"]["retention_failing_since"].as_str().unwrap_or("an unknown time"),
            ))
        };
        rows.iter().map(words).collect()
    }
}
