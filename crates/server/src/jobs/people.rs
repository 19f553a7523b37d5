//! Deletes what people no longer need: links, sessions and counters that have expired, and what is kept of mail that was given up.

use std::sync::Arc;
use std::time::Duration;

use agentlens_domain::people::guessing::FORGET_AFTER_US;
use agentlens_domain::time::DAY_US;
use agentlens_store::{Store, StoreError};

use super::{Run, Schedule, ServerJob};
use crate::metrics::Metrics;

/// How long it is kept that a mail was given up.
const GIVEN_UP_US: i64 = 30 * DAY_US;

pub(super) struct TrimPeople;

impl ServerJob for TrimPeople {
    const SCHEDULE: Schedule = Schedule {
        name: "people",
        about: "delete expired links, sessions and counters of guesses",
        every: Duration::from_secs(600),
        deadline: Duration::from_secs(60),
        parallel: 1,
    };

    async fn run(store: Store, _: Arc<Metrics>, run: Run) -> Result<u64, StoreError> {
        let control = store.control();
        let trimmed = control.trim_people(run.now_us - FORGET_AFTER_US).await?;
        Ok(trimmed + control.trim_mail(run.now_us - GIVEN_UP_US).await?)
    }
}
