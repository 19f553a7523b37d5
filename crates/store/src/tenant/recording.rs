//! Recording what chains lose when their events expire, on PostgreSQL, where the events themselves go later, with their partition.
//!
//! Each step takes some hundred sessions, in the order of their numbers, and needs the same few statements however many they are: the
//! end of the expired part of each chain is read, then all records are written. How far it came is kept in `org_state`, so that
//! a run that was cut short is continued, by whichever run comes next.

use std::sync::Arc;

use agentlens_domain::apply::{OrgContext, OrgState};

use super::OrgStateRow;
use super::org_state::{lock_state, put_state};
use super::removals::{LastRemoved, Removal, put_all};
use super::retention::{Step, may_expire_before_us};
use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::transaction::Tx;

/// Sessions of one step. The org stores nothing meanwhile.
const SESSIONS_AT_A_TIME: i64 = 500;

/// A plan that reads the sessions in their order and stops. The planner might take a part of a large table for a small one, because
/// nothing has counted it yet, and would then read and sort all of it in each step.
const IN_ORDER: &str = "select set_config('enable_bitmapscan', 'off', true), set_config('enable_hashagg', 'off', true),
       set_config('enable_sort', 'off', true) where $1 <> ''";

/// The end of the expired part of each chain. Lookups by key are lateral, see `engine::postgres::apply`.
const EXPIRED: &str = "with expired as materialized (
         select session_number, max(seq) as seq, max(ts_us) as last_us from events
         where org_id = $1 and expire_day >= $2 and expire_day < $3 and ts_us < $4 and session_number > $5
         group by session_number order by session_number limit $6)
       select x.session_number, x.seq, x.last_us, e.hash, e.seal, s.workspace_id, s.session_id, r.removal_id, r.last_seq
       from expired x
       cross join lateral (select workspace_id, session_id, hash, seal from events e
         where e.org_id = $1 and e.session_number = x.session_number and e.seq = x.seq and e.expire_day >= $2 and e.expire_day < $3
         limit 1) e
       left join lateral (select workspace_id, session_id from sessions s
         where s.org_id = $1 and s.workspace_id = e.workspace_id and s.session_id = e.session_id and s.number = x.session_number
         limit 1) s on true
       left join lateral (select removal_id, last_seq from removals r
         where r.org_id = $1 and r.session_number = x.session_number and r.why = 'retention' and r.first_seq = 1 limit 1) r on true
       order by x.session_number";

row_type! {
    /// How far the recording is: the days before `recorded_day` are done, and of the run of `recording_day` the sessions up to
    /// `recorded_session`.
    struct Progress {
        pub recorded_day: i32,
        pub recording_day: i32,
        pub recorded_session: i64,
    }
}

row_type! {
    struct Expired {
        pub session_number: i64,
        pub seq: i64,
        pub last_us: i64,
        pub hash: [u8; 32],
        pub seal: [u8; 17],
        pub workspace_id: Option<String>,
        pub session_id: Option<String>,
        pub removal_id: Option<String>,
        pub removed_seq: Option<i64>,
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
    /// The record that is missing. None without a session, which is a fault that verification reports by the count of sessions.
    fn into_record(self, now_us: i64) -> Option<Removal> {
        if self.removed_seq.is_some_and(|removed| removed >= self.seq) {
            return None;
        }
        let (workspace_id, session_id) = self.workspace_id.zip(self.session_id)?;
        let session = (workspace_id.as_str(), session_id.as_str(), self.session_number);
        let last = LastRemoved { seq: self.seq, hash: self.hash, seal: self.seal };
        Some(Removal::by_retention(self.removal_id, session, &last, now_us))
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
    let expired: Vec<Expired> = tx.fetch(EXPIRED, args).await?;
    let is_done = i64::try_from(expired.len()).unwrap_or(i64::MAX) < SESSIONS_AT_A_TIME;
    let last_session = expired.last().map_or(after_session, |part| part.session_number);
    let expired_us = expired.iter().map(|part| part.last_us).fold(state.expired_us, i64::max);
    let records = expired.into_iter().filter_map(|part| part.into_record(now_us)).collect();
    put_all(tx, &context, records).await?;
    if expired_us > state.expired_us {
        put_state(tx, &context, OrgState { expired_us, ..state }).await?;
    }
    let (recorded_day, recording_day, recorded_session) =
        if is_done { (until_day, 0, 0) } else { (progress.recorded_day, until_day, last_session) };
    let sql =
        "update org_state set recorded_day = $2, recording_day = $3, recorded_session = $4 where org_id = $1";
    tx.execute(sql, args![recorded_day, recording_day, recorded_session]).await?;
    Ok(Step { rows: 0, is_last: is_done && until_day == today })
}
