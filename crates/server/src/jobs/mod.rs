//! Periodic jobs. A job defines its interval, the time limit of a run and its work; the runner does the rest.
//!
//! One node runs a job at a time (a lease in the control tables). A job runs once for the server, or once for each org: orgs
//! with priority first, several at a time, each with its own due time. A run that was missed is caught up by one run, which
//! learns since when. A run that fails is tried again with growing pauses and delays no other org.
//!
//! A new job is a file here and a line in [`registry`].

mod changes;
mod deletions;
mod outbox;
mod partitions;
mod people;
mod retention;
mod runner;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agentlens_store::{Org, Store, StoreError};

pub use runner::{RunReport, Runner};

use crate::metrics::Metrics;

/// When a run happens.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The time, microseconds UTC.
    pub now_us: i64,
    /// When the last good run began; none if there was none.
    pub since_us: Option<i64>,
}

/// A job's name, interval and limits, without its work.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Its name: a noun, unique.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// How often it runs.
    pub every: Duration,
    /// How long one run may take.
    pub deadline: Duration,
    /// Orgs that are worked on at a time.
    pub parallel: usize,
}

/// A job that runs once for each org. The count it returns is what it did, for the log.
pub trait OrgJob: Send + Sync + 'static {
    /// When and how it runs.
    const SCHEDULE: Schedule;

    /// Does the work for one org.
    fn run(org: Org, run: Run) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

/// A job that runs once for the server as a whole.
pub trait ServerJob: Send + Sync + 'static {
    /// When and how it runs.
    const SCHEDULE: Schedule;

    /// Does the work.
    fn run(
        store: Store,
        metrics: Arc<Metrics>,
        run: Run,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}

type Doing = Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send>>;

#[derive(Clone)]
enum Work {
    EachOrg(Arc<dyn Fn(Org, Run) -> Doing + Send + Sync>),
    Server(Arc<dyn Fn(Store, Arc<Metrics>, Run) -> Doing + Send + Sync>),
    /// Deleting orgs, which needs the queue too.
    Deletions,
}

/// A job as the runner holds it.
#[derive(Clone)]
pub struct Job {
    /// When and how it runs.
    pub schedule: Schedule,
    work: Work,
}

impl Job {
    /// A job that runs once for each org.
    pub fn each_org<J: OrgJob>() -> Self {
        let work = |org, run| -> Doing { Box::pin(J::run(org, run)) };
        Self { schedule: J::SCHEDULE, work: Work::EachOrg(Arc::new(work)) }
    }

    /// A job that runs once for the server.
    pub fn server<J: ServerJob>() -> Self {
        let work = |store, metrics, run| -> Doing { Box::pin(J::run(store, metrics, run)) };
        Self { schedule: J::SCHEDULE, work: Work::Server(Arc::new(work)) }
    }
}

/// All jobs.
pub fn registry() -> Vec<Job> {
    vec![
        Job::each_org::<retention::Retention>(),
        Job::server::<partitions::Partitions>(),
        Job::server::<outbox::Outbox>(),
        Job::server::<changes::TrimChanges>(),
        Job::server::<people::TrimPeople>(),
        Job { schedule: deletions::SCHEDULE, work: Work::Deletions },
    ]
}

/// The job with a name.
pub fn find(name: &str) -> Option<Job> {
    registry().into_iter().find(|job| job.schedule.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_schedules_make_sense() {
        let jobs = registry();
        for job in &jobs {
            let Schedule { name, every, deadline, parallel, about } = job.schedule;
            assert_eq!(jobs.iter().filter(|other| other.schedule.name == name).count(), 1, "{name}");
            assert!(parallel > 0 && !about.is_empty(), "{name}");
            assert!(every >= Duration::from_secs(1) && deadline >= Duration::from_secs(1), "{name}");
        }
    }
}
