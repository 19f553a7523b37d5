//! Makes the partitions of the coming days and drops expired ones (PostgreSQL).

use std::time::Duration;

use agentlens_domain::time::day_start;
use agentlens_store::{Store, StoreError};

use super::retention::Retention;
use super::{OrgJob, Run, Schedule, ServerJob};

pub(super) struct Partitions;

impl ServerJob for Partitions {
    const SCHEDULE: Schedule = Schedule {
        name: "partitions",
        about: "make partitions for coming days and drop expired ones",
        every: Duration::from_secs(600),
        deadline: Duration::from_secs(600),
        parallel: 1,
    };

    async fn run(store: Store, run: Run) -> Result<u64, StoreError> {
        store.make_partitions(run.now_us).await?;
        // A partition holds events of all orgs: it goes when each of them has recorded, today, what it loses.
        let today_us = day_start(run.now_us);
        if !store.control().has_run_everywhere(Retention::SCHEDULE.name, today_us).await? {
            return Ok(0);
        }
        let dropped = store.drop_partitions(run.now_us).await?;
        Ok(dropped.unsigned_abs())
    }
}
