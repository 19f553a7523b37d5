//! Retention: deletes what is past its day, in bounded steps, and records what chains lose by it.
//!
//! Days of expiry never fall along a chain, so retention only ever removes the beginning of one. Each step first writes or extends
//! the record of the removal (see `removals`), in the transaction that deletes the events on SQLite. On PostgreSQL the events go
//! later, with their partition, once every org has written its records.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentlens_domain::apply::{OrgContext, OrgState};
use agentlens_domain::ids::ulid_of;
use agentlens_domain::rollups::Dimension;
use agentlens_domain::time::{DAY_US, day_of};

use super::events::{StoredEvent, places_of_segment};
use super::org_state::{lock_state, put_state};
use super::recording::record_events;
use super::removals::{LastRemoved, record_expired};
use super::{Org, Place, SessionRow};
use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{NamedRow, Row, Value};
use crate::transaction::Tx;

/// Hours of detail that are kept as hourly rollups; beyond, daily ones answer.
pub(super) const HOURLY_DAYS: i64 = 35;
/// Applied batches are remembered this long: longer than any queue holds a message.
const APPLIED_DAYS: i64 = 14;
/// Rows that are kept for ever (see [`agentlens_domain::apply::NEVER_EXPIRES_DAY`]) are in no index of days; a statement that says so uses the index.
const EXPIRES: &str = "expire_day < 2932896";
/// Events that one transaction removes on SQLite.
const EVENTS_AT_A_TIME: i64 = 1_000;
/// Sessions that one transaction deletes.
const SESSIONS_AT_A_TIME: i64 = 200;
/// Rows of other tables that one statement deletes.
const ROWS_AT_A_TIME: i64 = 5_000;

row_type! {
    /// An expired event.
    struct Expired {
        pub session_number: i64,
        pub seq: i64,
        pub expire_day: i32,
        pub position: i64,
    }
}

row_type! {
    /// What the records need to know of a session.
    struct Named {
        pub workspace_id: String,
        pub session_id: String,
    }
}

/// What one step did.
pub(super) struct Step {
    pub(super) rows: u64,
    pub(super) is_last: bool,
    /// Day of expiry and position of the last event that was looked at (SQLite only).
    pub(super) place: (i32, i64),
}

/// What deletes an org's old data.
#[derive(Clone, Copy)]
pub struct Retention<'o>(&'o Org);

impl Org {
    /// What deletes its old data.
    pub fn retention(&self) -> Retention<'_> {
        Retention(self)
    }
}

impl Retention<'_> {
    /// Deletes what expired before `now_us`; returns how many rows went. On PostgreSQL events are only recorded as removed:
    /// [`crate::Store::drop_partitions`] deletes them.
    pub async fn delete_expired(self, now_us: i64) -> Result<u64, StoreError> {
        let today = day_of(now_us);
        let mut deleted = 0;
        let mut place = (0, 0);
        self.remember_expired(today).await?;
        loop {
            let step = self.remove_events(today, now_us, place).await?;
            deleted += step.rows;
            place = step.place;
            if step.is_last {
                break;
            }
        }
        loop {
            let step = self.delete_sessions(today).await?;
            deleted += step.rows;
            if step.is_last {
                break;
            }
        }
        for (sql, args) in rest(now_us) {
            deleted += self.delete_in_steps(&sql, args).await?;
        }
        deleted += self.delete_segments(today).await?;
        Ok(deleted + self.delete_cells(now_us).await?)
    }

    /// Remembers the latest instant of all that expired, before any of it goes: what is counted up to then can't be counted again.
    /// Nothing is ever stored among what expired, so the set only shrinks meanwhile. On PostgreSQL, where events go later, those are
    /// remembered with the records of what chains lose.
    async fn remember_expired(self, today: i32) -> Result<(), StoreError> {
        let events = match &self.0.place {
            Place::Sqlite(_) => {
                format!(
                    "union all select max(ts_us) from events where org_id = $1 and {EXPIRES} and expire_day < $2"
                )
            }
            Place::Postgres(_) => String::new(),
        };
        let sql = format!(
            "select coalesce(max(us), 0) from (
               select max(last_event_us) as us from sessions where org_id = $1 and {EXPIRES} and expire_day < $2
               union all select max(start_us) from spans where org_id = $1 and {EXPIRES} and expire_day < $2 {events}) e"
        );
        let expired_us: i64 = self.0.find(sql, args![today]).await?.unwrap_or_default();
        let cells_from_us = self.cells_from_us(today).unwrap_or_default();
        let (context, all) = (self.0.context(), (expired_us, cells_from_us));
        self.0.transact(move |tx| Box::pin(remember_expired(tx, context, all))).await
    }

    /// Remembers that all that expires before a day may be gone. For a partition that is dropped before this org recorded what it
    /// loses by it.
    pub(super) async fn remember_unrecorded(self, day: i32) -> Result<(), StoreError> {
        let context = self.0.context();
        self.0
            .transact(move |tx| {
                Box::pin(async move {
                    let state = lock_state(tx, &context).await?;
                    let expired_us = state.expired_us.max(may_expire_before_us(&state, day) - 1);
                    put_state(tx, &context, OrgState { expired_us, ..state }).await
                })
            })
            .await
    }

    /// Removes a handful of expired events, so that what arrives meanwhile is stored between the handfuls.
    async fn remove_events(self, today: i32, now_us: i64, after: (i32, i64)) -> Result<Step, StoreError> {
        let context = self.0.context();
        match &self.0.place {
            Place::Sqlite(_) => {
                self.0.transact(move |tx| Box::pin(remove_events(tx, context, (today, now_us), after))).await
            }
            Place::Postgres(_) => {
                self.0.transact(move |tx| Box::pin(record_events(tx, context, today, now_us))).await
            }
        }
    }

    /// Deletes a handful of sessions that have no events left. While one is left its session stays: without the session, the
    /// next event would begin a second chain.
    async fn delete_sessions(self, today: i32) -> Result<Step, StoreError> {
        let context = self.0.context();
        self.0.transact(move |tx| Box::pin(delete_sessions(tx, context, today))).await
    }

    /// Runs a deletion that is bounded by `$3` until nothing is left for it.
    async fn delete_in_steps(self, sql: &str, args: Vec<Value>) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let rows: u64 = self.0.execute_all(vec![(sql.to_owned(), args.clone())]).await?.iter().sum();
            deleted += rows;
            if rows < ROWS_AT_A_TIME.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }

    /// Deletes the search segments of which all events expired.
    async fn delete_segments(self, today: i32) -> Result<u64, StoreError> {
        let expired: Vec<i64> = self
            .0
            .fetch(
                "select first_position from search_segments where org_id = $1 and max_expire_day < $2",
                args![today],
            )
            .await?;
        let mut deleted = 0;
        for first_position in expired {
            let places = places_of_segment(first_position);
            let statements = vec![
                (
                    "delete from search_shards where org_id = $1 and place >= $2 and place < $3".to_owned(),
                    args![places.start, places.end],
                ),
                (
                    "delete from search_segments where org_id = $1 and first_position = $2".to_owned(),
                    args![first_position],
                ),
            ];
            deleted += self.0.execute_all(statements).await?.iter().sum::<u64>();
        }
        Ok(deleted)
    }

    /// From when on daily cells are kept; absent if all are.
    fn cells_from_us(self, today: i32) -> Option<i64> {
        self.0.retention_days().map(|days| (i64::from(today) - i64::from(days) - 2) * DAY_US)
    }

    /// Deletes hourly cells that daily ones answer for, and daily ones of days that the org no longer keeps.
    async fn delete_cells(self, now_us: i64) -> Result<u64, StoreError> {
        let mut tables = vec![("rollup_hour", now_us - HOURLY_DAYS * DAY_US)];
        tables.extend(self.cells_from_us(day_of(now_us)).map(|from_us| ("rollup_day", from_us)));
        let sql = "select distinct workspace_id from agents where org_id = $1";
        let workspaces: Vec<String> = self.0.fetch(sql, args![]).await?;
        let mut deleted = 0;
        for (table, before_us) in tables {
            for workspace in &workspaces {
                for dimension in Dimension::ALL {
                    let statement = format!(
                        "delete from {table} where org_id = $1 and workspace_id = $2 and dimension = $3 and bucket_us < $4"
                    );
                    let args = args![workspace, dimension.as_str(), before_us];
                    deleted += self.0.execute_all(vec![(statement, args)]).await?.iter().sum::<u64>();
                }
            }
        }
        Ok(deleted)
    }
}

/// Records and deletes, on SQLite. Positions rise along a chain as days do, so what this takes is the beginning of each chain. What must
/// not go stays in its place, so each step begins after the last.
async fn remove_events(
    tx: &Tx<'_>,
    context: Arc<OrgContext>,
    (today, now_us): (i32, i64),
    (after_day, after_position): (i32, i64),
) -> Result<Step, StoreError> {
    let state = lock_state(tx, &context).await?;
    let sql = format!(
        "select session_number, seq, expire_day, position from events
         where org_id = $1 and {EXPIRES} and expire_day < $2 and ts_us < $3 and (expire_day, position) > ($4, $5)
         order by expire_day, position limit $6"
    );
    let may_expire = may_expire_before_us(&state, today);
    let args = args![today, may_expire, after_day, after_position, EVENTS_AT_A_TIME];
    let expired: Vec<Expired> = tx.fetch(sql, args).await?;
    let mut ends = BTreeMap::new();
    for event in &expired {
        let end = ends.entry(event.session_number).or_insert(event.seq);
        *end = event.seq.max(*end);
    }
    let mut rows = 0;
    for (session_number, last_seq) in ends {
        if record(tx, &context, (session_number, last_seq), now_us).await? {
            let sql = "delete from events where org_id = $1 and session_number = $2 and seq <= $3";
            rows += tx.execute(sql, args![session_number, last_seq]).await?;
        }
    }
    let is_last = i64::try_from(expired.len()).unwrap_or(i64::MAX) < EVENTS_AT_A_TIME;
    let place =
        expired.last().map_or((after_day, after_position), |event| (event.expire_day, event.position));
    Ok(Step { rows, is_last, place })
}

/// Records that the beginning of a chain goes, up to an event. Days of expiry never fall along a chain, so the seal of that event, which
/// covers its own, vouches for all before it. Returns whether they may go: if someone changed the event by hand they stay, for
/// verification to find.
async fn record(
    tx: &Tx<'_>,
    context: &OrgContext,
    (session_number, last_seq): (i64, i64),
    now_us: i64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "select {} from events where org_id = $1 and session_number = $2 and seq = $3",
        StoredEvent::COLUMNS
    );
    let Some(end) = tx.find::<StoredEvent>(sql, args![session_number, last_seq]).await? else {
        return Ok(false);
    };
    let sql = "select coalesce((select seal from events where org_id = $1 and session_number = $2 and seq = $3),
         (select last_seal from removals where org_id = $1 and session_number = $2 and last_seq = $3 limit 1))";
    let before: Option<Row> = tx.find(sql, args![session_number, last_seq - 1]).await?;
    let before = before.map_or(Ok(None), |row| row.get(0))?;
    if !end.is_sealed_after(before, context) {
        return Ok(false);
    }
    let sql = "select workspace_id, session_id from sessions
         where org_id = $1 and number = $2 and workspace_id = $3 and session_id = $4";
    let args = args![session_number, end.workspace_id.as_str(), end.session_id.as_str()];
    // Events without a session are a fault that verification reports by the count of sessions; they expire all the same.
    let Some(Named { workspace_id, session_id }) = tx.find(sql, args).await? else { return Ok(true) };
    let seal = end.seal.as_slice().try_into();
    let seal = seal.map_err(|_| StoreError::Corrupt("the seal of an event".to_owned()))?;
    let last = LastRemoved { seq: end.seq, hash: end.hash, seal };
    record_expired(tx, context, (&workspace_id, &session_id, session_number), &last, now_us).await?;
    Ok(true)
}

async fn delete_sessions(tx: &Tx<'_>, context: Arc<OrgContext>, today: i32) -> Result<Step, StoreError> {
    // No event of an expired session expires later, so none need be looked for in later partitions. The org is locked only when there
    // is something to delete.
    let is_expired = format!(
        "org_id = $1 and {EXPIRES} and expire_day < $2 and not exists
           (select 1 from events e where e.org_id = $1 and e.session_number = sessions.number and e.expire_day < $2)"
    );
    let sql = format!("select number from sessions where {is_expired} limit $3");
    let numbers: Vec<i64> = tx.fetch(sql, args![today, SESSIONS_AT_A_TIME]).await?;
    let is_last = i64::try_from(numbers.len()).unwrap_or(i64::MAX) < SESSIONS_AT_A_TIME;
    if numbers.is_empty() {
        return Ok(Step { rows: 0, is_last, place: (0, 0) });
    }
    let state = lock_state(tx, &context).await?;
    let sql = format!("select {} from sessions where {is_expired} and number = any($3)", SessionRow::COLUMNS);
    let expired: Vec<SessionRow> = tx.fetch(sql, args![today, numbers]).await?;
    // The day of expiry is sealed. A session whose row was changed by hand stays, for verification to find.
    let stored = expired.into_iter().filter_map(|session| session.checked(&context).ok());
    let numbers: Vec<i64> =
        stored.filter(|session| session.is_authentic).map(|session| session.number).collect();
    // Where there are none but such, it ends.
    if numbers.is_empty() {
        return Ok(Step { rows: 0, is_last: true, place: (0, 0) });
    }
    let sql = format!(
        "delete from sessions where org_id = $1 and {EXPIRES} and expire_day < $2 and number = any($3)"
    );
    let rows = tx.execute(sql, args![today, numbers.clone()]).await?;
    tx.execute("delete from removals where org_id = $1 and session_number = any($2)", args![numbers]).await?;
    forget_sessions(tx, &context, state, i64::try_from(rows).unwrap_or(0), 0).await?;
    Ok(Step { rows, is_last, place: (0, 0) })
}

/// Counts `gone` sessions fewer, `removed` of which were deleted on purpose.
pub(super) async fn forget_sessions(
    tx: &Tx<'_>,
    context: &OrgContext,
    state: OrgState,
    gone: i64,
    removed: i64,
) -> Result<(), StoreError> {
    let session_count = state.session_count - gone;
    let removed_session_count = state.removed_session_count + removed;
    put_state(tx, context, OrgState { session_count, removed_session_count, ..state }).await
}

/// Remembers the latest instant of what is about to be deleted, and up to where daily cells go.
async fn remember_expired(
    tx: &Tx<'_>,
    context: Arc<OrgContext>,
    (expired_us, cells_from_us): (i64, i64),
) -> Result<(), StoreError> {
    let state = lock_state(tx, &context).await?;
    let expired_us = expired_us.max(state.expired_us);
    let cells_from_us = cells_from_us.max(state.cells_from_us);
    if (expired_us, cells_from_us) == (state.expired_us, state.cells_from_us) {
        return Ok(());
    }
    put_state(tx, &context, OrgState { expired_us, cells_from_us, ..state }).await
}

/// Events before this instant may have expired by today. Those after it have a day of expiry that was changed by hand: they are
/// neither deleted nor recorded as removed, so verification finds it if they go.
pub(super) fn may_expire_before_us(state: &OrgState, today: i32) -> i64 {
    let first_kept_day = i64::from(today) - i64::from(state.shortest_retention_days) - 1;
    first_kept_day.saturating_mul(DAY_US)
}

/// Other tables: statements that delete up to `$3` rows, and their arguments.
fn rest(now_us: i64) -> Vec<(String, Vec<Value>)> {
    let (today, before_us) = (day_of(now_us), now_us - APPLIED_DAYS * DAY_US);
    let by_day = args![today, ROWS_AT_A_TIME];
    vec![
        (
            format!(
                "delete from event_keys where org_id = $1 and (workspace_id, id) in
                   (select workspace_id, id from event_keys where org_id = $1 and {EXPIRES} and expire_day < $2 limit $3)"
            ),
            by_day.clone(),
        ),
        // A trace goes as a whole: what is left of it would be counted without what went.
        (
            format!(
                "delete from spans where org_id = $1 and (trace_number, span_id) in
                   (select trace_number, span_id from spans s where s.org_id = $1 and s.{EXPIRES} and s.expire_day < $2 and not exists
                     (select 1 from traces t where t.org_id = $1 and t.workspace_id = s.workspace_id
                        and t.trace_id = s.trace_id and t.expire_day >= $2) limit $3)"
            ),
            by_day.clone(),
        ),
        (
            format!(
                "delete from traces where org_id = $1 and (workspace_id, trace_id) in
                   (select workspace_id, trace_id from traces where org_id = $1 and {EXPIRES} and expire_day < $2 limit $3)"
            ),
            by_day,
        ),
        (
            // Their ids sort by the time they came in.
            "delete from applied_batches where org_id = $1 and batch_id in
               (select batch_id from applied_batches where org_id = $1 and batch_id < $2 order by batch_id limit $3)"
                .to_owned(),
            args![ulid_of(before_us, 0), ROWS_AT_A_TIME],
        ),
    ]
}
