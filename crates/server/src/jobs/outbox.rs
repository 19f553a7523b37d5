//! Delivers what was left in outboxes when a process died, and what could not be delivered at once.

use std::sync::Arc;
use std::time::Duration;

use agentlens_store::{Store, StoreError};

use super::{Run, Schedule, ServerJob};
use crate::metrics::Metrics;

pub(super) struct Outbox;

impl ServerJob for Outbox {
    const SCHEDULE: Schedule = Schedule {
        name: "outbox",
        about: "deliver what waits in the outboxes of orgs",
        every: Duration::from_secs(30),
        deadline: Duration::from_secs(120),
        parallel: 1,
    };

    async fn run(store: Store, _: Arc<Metrics>, run: Run) -> Result<u64, StoreError> {
        store.deliver_outboxes(run.now_us).await
    }
}
