//! Leases (which node runs a job) and runs (when each org's run of a job is due, and what became of the last one).

use agentlens_domain::ids::OrgId;

use super::Control;
use crate::error::StoreError;
use crate::{args, row_type};

/// The org of a run that concerns the server as a whole.
const WHOLE_SERVER: &str = "";

row_type! {
    struct DueRow {
        pub org_id: String,
        pub last_ok_us: Option<i64>,
        pub failures: i64,
    }
}

/// A run that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRun {
    /// The org; none for the server as a whole.
    pub org: Option<OrgId>,
    /// When the last good run began, microseconds UTC; what happened since is this run's business.
    pub since_us: Option<i64>,
    /// Runs that failed since.
    pub failures: i64,
}

row_type! {
    /// What is known of a job's runs.
    pub struct JobSummary {
        /// Orgs that the job has run for.
        pub orgs: i64,
        /// Orgs whose last run failed.
        pub failing: i64,
        /// When the last run began, microseconds UTC.
        pub last_run_us: Option<i64>,
        /// The org whose last good run is the longest ago: when that was.
        pub oldest_ok_us: Option<i64>,
        /// Why a run failed last.
        pub last_error: Option<String>,
    }
}

row_type! {
    /// An org that has not recorded all that expires.
    pub(crate) struct OrgBehind {
        pub org_id: String,
        /// It has recorded what expires before this day.
        pub recorded_day: i32,
        /// Runs that failed since the last good one.
        pub failures: i64,
        /// When the first of them began, microseconds UTC.
        pub failing_since_us: Option<i64>,
        pub last_error: Option<String>,
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct RunResult<'a> {
    /// The org; none for the server as a whole.
    pub org: Option<&'a OrgId>,
    /// When it began, microseconds UTC.
    pub began_us: i64,
    /// When the next run is due.
    pub due_us: i64,
    /// Why it failed; none if it did not.
    pub error: Option<String>,
}

impl Control {
    /// Takes or renews a lease until an instant. Returns whether the holder has it.
    pub async fn take_lease(
        &self,
        name: &str,
        holder: &str,
        now_us: i64,
        until_us: i64,
    ) -> Result<bool, StoreError> {
        let take = "insert into leases (name, holder, until_us) values ($1, $2, $3)
             on conflict (name) do update set holder = excluded.holder, until_us = excluded.until_us
             where leases.holder = excluded.holder or leases.until_us <= $4";
        let changed = self.execute_all(vec![(take, args![name, holder, until_us, now_us])]).await?;
        Ok(changed.first() == Some(&1))
    }

    /// Gives a lease back.
    pub async fn drop_lease(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let delete = "delete from leases where name = $1 and holder = $2";
        self.execute_all(vec![(delete, args![name, holder])]).await.map(|_| ())
    }

    /// Who holds a lease.
    pub async fn find_lease(&self, name: &str, now_us: i64) -> Result<Option<String>, StoreError> {
        self.find("select holder from leases where name = $1 and until_us > $2", args![name, now_us]).await
    }

    /// Orgs for which a job is due: those with priority first, then those that have waited longest.
    pub async fn due_orgs(&self, job: &str, now_us: i64, limit: u32) -> Result<Vec<DueRun>, StoreError> {
        let rows: Vec<DueRow> = self
            .fetch(
                "select o.org_id, r.last_ok_us, coalesce(r.failures, 0)
                 from orgs o left join job_runs r on r.job = $1 and r.org_id = o.org_id
                 where o.deleted_us is null and coalesce(r.due_us, 0) <= $2
                 order by o.priority desc, coalesce(r.due_us, 0), o.org_id limit $3",
                args![job, now_us, limit],
            )
            .await?;
        let due = |row: DueRow| {
            let org = OrgId::parse(&row.org_id).ok()?;
            Some(DueRun { org: Some(org), since_us: row.last_ok_us, failures: row.failures })
        };
        Ok(rows.into_iter().filter_map(due).collect())
    }

    /// The run of a job for the server as a whole, if it is due.
    pub async fn due_server_run(&self, job: &str, now_us: i64) -> Result<Option<DueRun>, StoreError> {
        let row: Option<(DueRow, i64)> = self
            .fetch::<crate::statement::Row>(
                "select org_id, last_ok_us, failures, due_us from job_runs where job = $1 and org_id = $2",
                args![job, WHOLE_SERVER],
            )
            .await?
            .first()
            .map(|row| {
                let due = DueRow { org_id: row.get(0)?, last_ok_us: row.get(1)?, failures: row.get(2)? };
                Ok::<_, StoreError>((due, row.get(3)?))
            })
            .transpose()?;
        Ok(match row {
            None => Some(DueRun { org: None, since_us: None, failures: 0 }),
            Some((_, due_us)) if due_us > now_us => None,
            Some((row, _)) => Some(DueRun { org: None, since_us: row.last_ok_us, failures: row.failures }),
        })
    }

    /// Notes what became of a run.
    pub async fn note_run(&self, job: &str, result: &RunResult<'_>) -> Result<(), StoreError> {
        let note = "insert into job_runs (job, org_id, due_us, last_run_us, last_ok_us, failures, last_error, failing_since_us)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (job, org_id) do update set due_us = excluded.due_us, last_run_us = excluded.last_run_us,
               last_ok_us = coalesce(excluded.last_ok_us, job_runs.last_ok_us), last_error = excluded.last_error,
               failures = case when excluded.failures = 0 then 0 else job_runs.failures + 1 end,
               failing_since_us = case when excluded.failures = 0 then null
                 else coalesce(job_runs.failing_since_us, excluded.failing_since_us) end";
        let org = result.org.map_or(WHOLE_SERVER, OrgId::as_str);
        let ok_us = result.error.is_none().then_some(result.began_us);
        let failed = result.error.is_some();
        let failing_since_us = failed.then_some(result.began_us);
        let args = args![
            job,
            org,
            result.due_us,
            result.began_us,
            ok_us,
            failed,
            result.error.clone(),
            failing_since_us
        ];
        self.execute_all(vec![(note, args)]).await.map(|_| ())
    }

    /// What is known of a job's runs.
    pub async fn job_summary(&self, job: &str) -> Result<JobSummary, StoreError> {
        let summary = self
            .find(
                "select count(*), cast(coalesce(sum(case when failures > 0 then 1 else 0 end), 0) as bigint),
                   max(last_run_us), min(coalesce(last_ok_us, 0)), max(last_error)
                 from job_runs where job = $1",
                args![job],
            )
            .await?;
        summary.ok_or(StoreError::NotFound)
    }

    /// Orgs that have not recorded all events that expire before a day, and how the job that does so fares there (PostgreSQL only).
    pub(crate) async fn orgs_behind(&self, job: &str, day: i32) -> Result<Vec<OrgBehind>, StoreError> {
        self.fetch(
            "select o.org_id, coalesce(s.recorded_day, 0), coalesce(r.failures, 0), r.failing_since_us, r.last_error
             from orgs o
             left join recorded_days() s on s.org_id = o.org_id
             left join job_runs r on r.job = $1 and r.org_id = o.org_id
             where coalesce(s.recorded_day, 0) < $2 and (o.deleted_us is null or exists
               (select 1 from org_deletions d where d.org_id = o.org_id and d.undone_us is null and d.purging_us is null))
             order by o.org_id",
            args![job, day],
        )
        .await
    }
}
