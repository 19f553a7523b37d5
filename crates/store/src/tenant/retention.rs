//! Retention: what is past its day is deleted. On PostgreSQL expired days of events go as whole partitions.

use agentlens_domain::time::{DAY_US, day_of};

use super::{Place, Tenant};
use crate::args;
use crate::engine::postgres::PostgresEngine;
use crate::error::StoreError;
use crate::statement::Value;

/// Hours of detail that are kept as hourly rollups; beyond, daily ones answer.
const HOURLY_DAYS: i64 = 35;
/// Applied batches are remembered this long: longer than any queue holds a message.
const APPLIED_DAYS: i64 = 14;

impl Tenant {
    /// Deletes what expired before `now_us`; returns how many rows went.
    pub async fn delete_expired(&self, now_us: i64) -> Result<u64, StoreError> {
        let today = day_of(now_us);
        let mut statements: Vec<(String, Vec<Value>)> = vec![
            ("delete from event_keys where org_id = $1 and expire_day < $2".to_owned(), args![today]),
            ("delete from spans where org_id = $1 and expire_day < $2".to_owned(), args![today]),
            ("delete from traces where org_id = $1 and expire_day < $2".to_owned(), args![today]),
            (
                "delete from rollup_hour where org_id = $1 and bucket_us < $2".to_owned(),
                args![now_us - HOURLY_DAYS * DAY_US],
            ),
            (
                "delete from applied_batches where org_id = $1 and applied_us < $2".to_owned(),
                args![now_us - APPLIED_DAYS * DAY_US],
            ),
            (
                "delete from search_shards where org_id = $1 and first_position in
                   (select first_position from search_segments where org_id = $1 and max_expire_day < $2)"
                    .to_owned(),
                args![today],
            ),
            (
                "delete from search_segments where org_id = $1 and max_expire_day < $2".to_owned(),
                args![today],
            ),
        ];
        if let Place::Sqlite(_) = self.place {
            statements
                .push(("delete from events where org_id = $1 and expire_day < $2".to_owned(), args![today]));
        }
        if let Some(days) = self.retention_days() {
            // Whole days, as events expire. While one event is left its session stays, whatever the org's retention was
            // when it came: without the session, the next event would begin a second chain.
            let before_us = (i64::from(today) - i64::from(days) - 1) * DAY_US;
            statements.push((
                "delete from sessions where org_id = $1 and last_event_us < $2 and not exists
                   (select 1 from events e where e.org_id = $1 and e.workspace_id = sessions.workspace_id and e.session_id = sessions.session_id)"
                    .to_owned(),
                args![before_us],
            ));
            statements.push((
                "delete from rollup_day where org_id = $1 and bucket_us < $2".to_owned(),
                args![before_us - DAY_US],
            ));
        }
        Ok(self.execute_all(statements).await?.iter().sum())
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
    let estimate = engine.query(None, "select greatest(reltuples, 0)::bigint from pg_class where oid = 'tenant.events_default'::regclass", &[]).await?;
    Ok((dropped, estimate.first().map_or(Ok(0), |row| row.get::<i64>(0))?))
}
