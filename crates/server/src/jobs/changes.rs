//! Deletes changes that every node has read.

use std::sync::Arc;
use std::time::Duration;

use agentlens_store::{Store, StoreError};

use super::{Run, Schedule, ServerJob};
use crate::metrics::Metrics;

pub(super) struct TrimChanges;

impl ServerJob for TrimChanges {
    const SCHEDULE: Schedule = Schedule {
        name: "changes",
        about: "trim the change feed",
        every: Duration::from_secs(600),
        deadline: Duration::from_secs(60),
        parallel: 1,
    };

    async fn run(store: Store, _: Arc<Metrics>, run: Run) -> Result<u64, StoreError> {
        store.control().trim_changes(run.now_us).await
    }
}
