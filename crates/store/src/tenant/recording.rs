//! Recording what chains lose when their events expire, on PostgreSQL, where the events themselves go later, with their partition.
//!
//! Each step takes some hundred sessions, in the order of their numbers, and needs the same few statements however many they are: the
//! end of the expired part of each chain is read, then all records are written. How far it came is kept in `org_state`, so that
//! a run that was cut short is continued, by whichever run comes next.

use std::sync::{Arc, LazyLock};

use agentlens_domain::apply::{OrgContext, OrgState};
use agentlens_domain::chain::Seal;

use super::OrgStateRow;
use super::events::StoredEvent;
use super::org_state::{lock_state, put_state};
use super::removals::{LastRemoved, Removal, put_all};
use super::retention::{Step, may_expire_before_us};
use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{FromRow, NamedRow, Row};
use crate::transaction::Tx;

/// Sessions of one step. The org stores nothing meanwhile.
const SESSIONS_AT_A_TIME: i64 = 500;

/// A plan that reads the sessions in their order and stops. The planner might take a part of a large table for a small one, because
/// nothing has counted it yet, and would then read and sort all of it in each step.
const IN_ORDER: &str =
    "select set_config('enable_bitmapscan', 'off', true), set_config('enable_hashagg', 'off', true),
       set_config('enable_sort', 'off', true) where $1 <> ''";

/// The end of the expired part of each chain, with the seal of the event before it, which is that event's or in the record of its
/// removal. Lookups by key are lateral, see `engine::postgres::apply`.
static EXPIRED: LazyLock<String> = LazyLock::new(|| {
    let columns = StoredEvent::COLUMNS;
    format!(
        "with expired as materialized (
           select session_number, max(seq) as seq, max(ts_us) as last_us from events
           where org_id = $1 and expire_day >= $2 and expire_day < $3 and ts_us < $4 and session_number > $5
           group by session_number order by session_number limit $6)
         select e.*, x.session_number, x.last_us, s.number, r.removal_id, r.last_seq, coalesce(b.seal, q.last_seal)
         from expired x
         cross join lateral (select {columns} from events e
           where e.org_id = $1 and e.session_number = x.session_number and e.seq = x.seq and e.expire_day >= $2 and e.expire_day < $3
           limit 1) e
         left join lateral (select number from sessions s
           where s.org_id = $1 and s.workspace_id = e.workspace_id and s.session_id = e.session_id and s.number = x.session_number
           limit 1) s on true
         left join lateral (select removal_id, last_seq from removals r
           where r.org_id = $1 and r.session_number = x.session_number and r.why = 'retention' and r.first_seq = 1 limit 1) r on true
         left join lateral (select seal from events b
           where b.org_id = $1 and b.session_number = x.session_number and b.seq = x.seq - 1 and b.expire_day < $3 limit 1) b on true
         left join lateral (select last_seal from removals q
           where q.org_id = $1 and q.session_number = x.session_number and q.last_seq = x.seq - 1 limit 1) q on true
         order by x.session_number"
    )
});

row_type! {
    /// How far the recording is: the days before `recorded_day` are done, and of the run of `recording_day` the sessions up to
    /// `recorded_session`.
    struct Progress {
        pub recorded_day: i32,
        pub recording_day: i32,
        pub recorded_session: i64,
    }
}

/// The expired part of a chain.
struct Expired {
    /// Its last event.
    end: StoredEvent,
    session_number: i64,
    /// The latest instant of its events.
    last_us: i64,
    /// The number once more, if the session is there.
    session: Option<i64>,
    /// The record of what expired before.
    removal_id: Option<String>,
    removed_seq: Option<i64>,
    /// The seal of the event before the last.
    seal_before: Option<Seal>,
}

impl FromRow for Expired {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let first = StoredEvent::COLUMNS.split(',').count();
        Ok(Self {
            end: StoredEvent::from_row(row)?,
            session_number: row.get(first)?,
            last_us: row.get(first + 1)?,
            session: row.get(first + 2)?,
            removal_id: row.get(first + 3)?,
            removed_seq: row.get(first + 4)?,
            seal_before: row.get(first + 5)?,
        })
    }
}

impl Progress {
    /// Up to which day and from which session on the next step records. A run of an earlier day that was cut short comes first.
    fn next(&self, today: i32) -> (i32, i64) {
        if self.recorded_day < self.recording_day && self.recording_day <= today {
            (self.recording_day, self.recorded_session)
        } else {
            (today, 0)
        }
    }
}

impl Expired {
    /// The record that is missing. Days of expiry never fall along a chain, so the seal of its last event, which covers its own,
    /// vouches for all before it. There is none if someone changed that event by hand, so that verification finds the gap; and none
    /// without a session, which is a fault that verification reports by the count of sessions.
    fn into_record(self, context: &OrgContext, now_us: i64) -> Option<Removal> {
        let Self { end, session_number, session, removal_id, removed_seq, seal_before, .. } = self;
        session?;
        if removed_seq.is_some_and(|removed| removed >= end.seq) || !end.is_sealed_after(seal_before, context)
        {
            return None;
        }
        let session = (end.workspace_id.as_str(), end.session_id.as_str(), session_number);
        let last = LastRemoved { seq: end.seq, hash: end.hash, seal: end.seal.as_slice().try_into().ok()? };
        Some(Removal::by_retention(removal_id, session, &last, now_us))
    }
}

/// Records what some sessions lose by the end of a day, and remembers up to which instant events have expired.
pub(super) async fn record_events(
    tx: &Tx<'_>,
    context: Arc<OrgContext>,
    today: i32,
    now_us: i64,
) -> Result<Step, StoreError> {
    let state = lock_state(tx, &context).await?;
    let sql = "select recorded_day, recording_day, recorded_session from org_state where org_id = $1";
    let progress: Progress = tx.find(sql, args![]).await?.ok_or_else(OrgStateRow::missing)?;
    let (until_day, after_session) = progress.next(today);
    tx.fetch::<String>(IN_ORDER, args![]).await?;
    let args = args![
        progress.recorded_day,
        until_day,
        may_expire_before_us(&state, until_day),
        after_session,
        SESSIONS_AT_A_TIME
    ];
    let expired: Vec<Expired> = tx.fetch(EXPIRED.as_str(), args).await?;
    let is_done = i64::try_from(expired.len()).unwrap_or(i64::MAX) < SESSIONS_AT_A_TIME;
    let last_session = expired.last().map_or(after_session, |part| part.session_number);
    let expired_us = expired.iter().map(|part| part.last_us).fold(state.expired_us, i64::max);
    let records = expired.into_iter().filter_map(|part| part.into_record(&context, now_us)).collect();
    put_all(tx, &context, records).await?;
    if expired_us > state.expired_us {
        put_state(tx, &context, OrgState { expired_us, ..state }).await?;
    }
    let (recorded_day, recording_day, recorded_session) =
        if is_done { (until_day, 0, 0) } else { (progress.recorded_day, until_day, last_session) };
    let sql =
        "update org_state set recorded_day = $2, recording_day = $3, recorded_session = $4 where org_id = $1";
    tx.execute(sql, args![recorded_day, recording_day, recorded_session]).await?;
    Ok(Step { rows: 0, is_last: is_done && until_day == today, place: (0, 0) })
}
