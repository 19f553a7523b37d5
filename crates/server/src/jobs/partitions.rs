//! Makes the partitions of the coming days and drops expired ones (PostgreSQL).

use std::sync::Arc;
use std::time::Duration;

use agentlens_store::{Store, StoreError};

use super::{Run, Schedule, ServerJob};
use crate::metrics::Metrics;

pub(super) struct Partitions;

impl ServerJob for Partitions {
    const SCHEDULE: Schedule = Schedule {
        name: "partitions",
        about: "make partitions for coming days and drop expired ones",
        every: Duration::from_secs(600),
        deadline: Duration::from_secs(600),
        parallel: 1,
    };

    async fn run(store: Store, metrics: Arc<Metrics>, run: Run) -> Result<u64, StoreError> {
        store.make_partitions(run.now_us).await?;
        let report = store.drop_partitions(run.now_us).await?;
        for org in &report.waiting_for {
            tracing::warn!(org.id = %org, "expired partitions of all orgs wait for this one, whose retention fails");
        }
        for org in &report.unrecorded {
            metrics.count_unrecorded_loss(org.as_str());
        }
        Ok(report.dropped)
    }
}
