//! Retention: what is past its day is deleted. On PostgreSQL expired days of events go as whole partitions.

use agentlens_domain::ids::ulid_of;
use agentlens_domain::time::{DAY_US, day_of};

use super::events::places_of_segment;
use super::{Place, Tenant};
use crate::args;
use crate::engine::postgres::PostgresEngine;
use crate::error::StoreError;
use crate::statement::Value;

/// Hours of detail that are kept as hourly rollups; beyond, daily ones answer.
const HOURLY_DAYS: i64 = 35;
/// Applied batches are remembered this long: longer than any queue holds a message.
const APPLIED_DAYS: i64 = 14;
/// What is kept for ever (on [`super::NEVER_EXPIRES_DAY`]) is in no index of days; a statement that says so finds the rest by it.
const EXPIRES: &str = "expire_day < 2932896";
/// Events that one transaction deletes on SQLite.
const EVENTS_AT_A_TIME: i64 = 5_000;

impl Tenant {
    /// Deletes what expired before `now_us`; returns how many rows went.
    pub async fn delete_expired(&self, now_us: i64) -> Result<u64, StoreError> {
        let (today, before_us) = (day_of(now_us), now_us - APPLIED_DAYS * DAY_US);
        let deleted = match &self.place {
            Place::Sqlite(_) => self.delete_expired_events(today).await?,
            // As partitions, by `maintain_partitions`.
            Place::Postgres(_) => 0,
        };
        let mut statements: Vec<(String, Vec<Value>)> = vec![
            (
                format!("delete from event_keys where org_id = $1 and {EXPIRES} and expire_day < $2"),
                args![today],
            ),
            // A trace goes as a whole: what is left of it would be counted without what went.
            (
                format!(
                    "delete from spans where org_id = $1 and {EXPIRES} and expire_day < $2 and not exists
                       (select 1 from traces t where t.org_id = $1 and t.workspace_id = spans.workspace_id
                          and t.trace_id = spans.trace_id and t.expire_day >= $2)"
                ),
                args![today],
            ),
            (format!("delete from traces where org_id = $1 and {EXPIRES} and expire_day < $2"), args![today]),
            (
                "delete from rollup_hour where org_id = $1 and bucket_us < $2".to_owned(),
                args![now_us - HOURLY_DAYS * DAY_US],
            ),
            (
                // Their ids sort by the time they came in.
                "delete from applied_batches where org_id = $1 and batch_id < $2 and applied_us < $3"
                    .to_owned(),
                args![ulid_of(before_us, 0), before_us],
            ),
        ];
        statements.extend(self.expired_segments(today).await?);
        if let Some(days) = self.retention_days() {
            // Whole days, as events expire. While one event is left its session stays, whatever the org's retention was
            // when it came: without the session, the next event would begin a second chain.
            let before_us = (i64::from(today) - i64::from(days) - 1) * DAY_US;
            statements.push((
                "delete from sessions where org_id = $1 and last_event_us < $2 and not exists
                   (select 1 from events e where e.org_id = $1 and e.session_number = sessions.number)"
                    .to_owned(),
                args![before_us],
            ));
            statements.push((
                "delete from rollup_day where org_id = $1 and bucket_us < $2".to_owned(),
                args![before_us - DAY_US],
            ));
        }
        Ok(deleted + self.execute_all(statements).await?.iter().sum::<u64>())
    }

    /// A handful at a time, so that what arrives meanwhile is stored between them.
    async fn delete_expired_events(&self, today: i32) -> Result<u64, StoreError> {
        let statement = format!(
            "delete from events where org_id = $1 and position in (select position from events
               where {EXPIRES} and expire_day < $2 order by expire_day limit $3)"
        );
        let mut deleted = 0;
        loop {
            let some = vec![(statement.clone(), args![today, EVENTS_AT_A_TIME])];
            let rows: u64 = self.execute_all(some).await?.iter().sum();
            deleted += rows;
            if rows < EVENTS_AT_A_TIME.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }

    /// What deletes the search segments of which all events expired.
    async fn expired_segments(&self, today: i32) -> Result<Vec<(String, Vec<Value>)>, StoreError> {
        let expired: Vec<i64> = self
            .fetch(
                "select first_position from search_segments where org_id = $1 and max_expire_day < $2",
                args![today],
            )
            .await?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        let shards = expired.iter().map(|first_position| {
            let sql = "delete from search_shards where org_id = $1 and place >= $2 and place < $3";
            let places = places_of_segment(*first_position);
            (sql.to_owned(), args![places.start, places.end])
        });
        let mut statements: Vec<_> = shards.collect();
        let sql = "delete from search_segments where org_id = $1 and first_position = any($2)";
        statements.push((sql.to_owned(), args![expired]));
        Ok(statements)
    }
}

/// Makes the partitions of the coming days and drops those whose last day is over; returns how many were dropped and
/// how many rows lie in the default partition, which should be none.
pub(crate) async fn maintain_partitions(
    engine: &PostgresEngine,
    longest_retention_days: Option<i32>,
    now_us: i64,
) -> Result<(i64, i64), StoreError> {
    let today = day_of(now_us);
    let last = longest_retention_days.map_or(today, |days| today + days + 3);
    for day in today + 1..=last {
        engine.query(None, "select ensure_event_partition($1)::text", &[Value::from(day)]).await?;
    }
    let rows = engine.query(None, "select drop_expired_event_partitions()", &[]).await?;
    engine.partitions.lock().clear();
    let dropped = rows.first().map_or(Ok(0), |row| row.get::<i64>(0))?;
    let estimate = engine.query(None, "select case when pg_relation_size(oid) = 0 then 0 else greatest(reltuples, 1)::bigint end from pg_class where oid = 'tenant.events_default'::regclass", &[]).await?;
    Ok((dropped, estimate.first().map_or(Ok(0), |row| row.get::<i64>(0))?))
}
