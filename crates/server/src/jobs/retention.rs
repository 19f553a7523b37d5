//! Deletes what is past its day.

use std::time::Duration;

use agentlens_store::{Org, RETENTION_JOB, StoreError};

use super::{OrgJob, Run, Schedule};

pub(super) struct Retention;

impl OrgJob for Retention {
    const SCHEDULE: Schedule = Schedule {
        name: RETENTION_JOB,
        about: "delete what is past its day of expiry",
        every: Duration::from_secs(3600),
        deadline: Duration::from_secs(900),
        parallel: 4,
    };

    async fn run(org: Org, run: Run) -> Result<u64, StoreError> {
        org.retention().delete_expired(run.now_us).await
    }
}
