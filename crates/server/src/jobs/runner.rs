//! Runs jobs when they are due, on one node each.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_domain::ids::{OrgId, ulid_at};
use agentlens_ingest::Queue;
use agentlens_store::{DueRun, RunResult, Store, StoreError};

use super::{Doing, Job, Run, Work, deletions, registry};
use crate::metrics::Metrics;

/// How long a lease lasts. It is renewed three times as often.
const LEASE: Duration = Duration::from_secs(60);
/// How often a node looks whether something is due, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Orgs that are taken at a time.
const ORGS_AT_A_TIME: u32 = 200;
/// The pause after a first failed run; it doubles with each further one, up to the job's own interval.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// What was done when a job ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RunReport {
    /// Runs that went well.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// What the runs did, as each job counts it.
    pub done: u64,
}

/// The runner of one node.
#[derive(Clone)]
pub struct Runner {
    store: Store,
    metrics: Arc<Metrics>,
    queue: Option<Arc<dyn Queue>>,
    /// Names this process in leases.
    holder: Arc<str>,
}

impl Runner {
    /// A runner for this process.
    pub fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        let holder = format!("{}-{}", std::process::id(), ulid_at(store.clock().now_us()));
        Self { store, metrics, queue: None, holder: holder.into() }
    }

    /// The same runner with the queue, which some jobs need.
    #[must_use]
    pub fn with_queue(self, queue: Arc<dyn Queue>) -> Self {
        Self { queue: Some(queue), ..self }
    }

    /// Runs all jobs until shutdown. What is running then is given up; jobs can be run again at any point.
    pub fn start(&self, tasks: &TaskTracker, shutdown: &CancellationToken) {
        for job in registry() {
            let (runner, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                let repeat = async {
                    loop {
                        if let Err(error) = runner.run_due(&job).await {
                            tracing::error!(job = job.schedule.name, error = %error, "a job can't be run");
                        }
                        let (least, most) = LOOK_EVERY;
                        tokio::time::sleep((job.schedule.every / 4).clamp(least, most)).await;
                    }
                };
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = repeat => {}
                }
                let _ = runner.store.control().drop_lease(&lease_of(&job), &runner.holder).await;
            });
        }
    }

    /// Runs a job where it is due, unless another node does.
    pub async fn run_due(&self, job: &Job) -> Result<RunReport, StoreError> {
        if self.next_due(job).await?.is_empty() || !self.take_lease(job).await? {
            return Ok(RunReport::default());
        }
        let work = async {
            let mut report = RunReport::default();
            loop {
                let due = self.next_due(job).await?;
                if due.is_empty() {
                    return Ok(report);
                }
                report.add(self.run_all(job, due).await?);
            }
        };
        self.under_lease(job, work).await
    }

    /// Runs a job now, for one org or for all. Refused while another node runs it.
    pub async fn run_now(&self, job: &Job, org: Option<&OrgId>) -> Result<RunReport, StoreError> {
        let runs = match (&job.work, org) {
            (Work::Server(_) | Work::Deletions, _) => vec![DueRun { org: None, since_us: None, failures: 0 }],
            (Work::EachOrg(_), Some(org)) => {
                vec![DueRun { org: Some(org.clone()), since_us: None, failures: 0 }]
            }
            // Everything is due at the end of time.
            (Work::EachOrg(_), None) => {
                self.store.control().due_orgs(job.schedule.name, i64::MAX, u32::MAX).await?
            }
        };
        if !self.take_lease(job).await? {
            return Err(StoreError::Unavailable(format!(
                "another node is running {}; try again when it is done",
                job.schedule.name
            )));
        }
        self.under_lease(job, self.run_all(job, runs)).await
    }

    async fn next_due(&self, job: &Job) -> Result<Vec<DueRun>, StoreError> {
        let (control, name) = (self.store.control(), job.schedule.name);
        let now_us = self.store.clock().now_us();
        match job.work {
            Work::EachOrg(_) => control.due_orgs(name, now_us, ORGS_AT_A_TIME).await,
            Work::Server(_) | Work::Deletions => {
                Ok(control.due_server_run(name, now_us).await?.into_iter().collect())
            }
        }
    }

    async fn take_lease(&self, job: &Job) -> Result<bool, StoreError> {
        let now_us = self.store.clock().now_us();
        let until_us = now_us + micros(LEASE);
        self.store.control().take_lease(&lease_of(job), &self.holder, now_us, until_us).await
    }

    /// Does work while this node has the lease: without it, another node may be doing the same.
    async fn under_lease(
        &self,
        job: &Job,
        work: impl Future<Output = Result<RunReport, StoreError>>,
    ) -> Result<RunReport, StoreError> {
        let keep = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                match self.take_lease(job).await {
                    Ok(true) => {}
                    Ok(false) => return StoreError::Unavailable("another node took the lease".to_owned()),
                    Err(error) => return error,
                }
            }
        };
        let done = tokio::select! {
            done = work => done,
            lost = keep => Err(lost),
        };
        let _ = self.store.control().drop_lease(&lease_of(job), &self.holder).await;
        done
    }

    async fn run_all(&self, job: &Job, runs: Vec<DueRun>) -> Result<RunReport, StoreError> {
        let mut results =
            stream::iter(runs).map(|due| self.run_one(job, due)).buffer_unordered(job.schedule.parallel);
        let mut report = RunReport::default();
        while let Some(result) = results.next().await {
            report.add(result?);
        }
        Ok(report)
    }

    /// One run. Only what concerns the control tables is an error here; what the job itself can't do is noted.
    async fn run_one(&self, job: &Job, due: DueRun) -> Result<RunReport, StoreError> {
        let name = job.schedule.name;
        let (began, began_us) = (Instant::now(), self.store.clock().now_us());
        let run = Run { now_us: began_us, since_us: due.since_us };
        let done = self.attempt(job, due.org.as_ref(), run).await;
        self.metrics.count_job(name, done.is_ok(), began.elapsed().as_secs_f64(), began_us);
        let org = due.org.as_ref().map(tracing::field::display);
        match &done {
            Ok(0) => {}
            Ok(count) => tracing::info!(job = name, org.id = org, count, "job done"),
            Err(error) => {
                tracing::error!(job = name, org.id = org, error = %error, "a job failed; it is tried again")
            }
        }
        let pause = match &done {
            Ok(_) => job.schedule.every + jitter(job, due.org.as_ref()),
            Err(_) => pause_after(due.failures, job.schedule.every),
        };
        let result = RunResult {
            org: due.org.as_ref(),
            began_us,
            due_us: began_us + micros(pause),
            error: done.as_ref().err().map(ToString::to_string),
        };
        self.store.control().note_run(name, &result).await?;
        Ok(match done {
            Ok(count) => RunReport { succeeded: 1, failed: 0, done: count },
            Err(_) => RunReport { succeeded: 0, failed: 1, done: 0 },
        })
    }

    /// Does the work within its deadline, in a task of its own, so that a panic costs only this run.
    async fn attempt(&self, job: &Job, org: Option<&OrgId>, run: Run) -> Result<u64, StoreError> {
        let doing: Doing = match (&job.work, org) {
            (Work::Server(work), _) => work(self.store.clone(), Arc::clone(&self.metrics), run),
            (Work::Deletions, _) => Box::pin(deletions::run(self.store.clone(), self.queue.clone())),
            (Work::EachOrg(work), Some(org)) => work(self.store.org(org).await?, run),
            (Work::EachOrg(_), None) => return Err(StoreError::NotFound),
        };
        let mut task = AbortOnDrop(tokio::spawn(doing));
        match tokio::time::timeout(job.schedule.deadline, &mut task.0).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(StoreError::Refused(format!("the job ended early: {error}"))),
            Err(_) => {
                Err(StoreError::Unavailable(format!("not done after {} s", job.schedule.deadline.as_secs())))
            }
        }
    }
}

impl RunReport {
    fn add(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.done += other.done;
    }
}

/// A task that ends with whoever waits for it: after its deadline, or when the lease is lost.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lease_of(job: &Job) -> String {
    format!("job/{}", job.schedule.name)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Up to a tenth of the interval, the same for each org every time, so that orgs spread over it.
fn jitter(job: &Job, org: Option<&OrgId>) -> Duration {
    let Some(org) = org else { return Duration::ZERO };
    let mut hasher = DefaultHasher::new();
    (job.schedule.name, org).hash(&mut hasher);
    let tenths = u32::try_from(hasher.finish() % 100).unwrap_or(0);
    job.schedule.every * tenths / 1000
}

fn pause_after(failures: i64, every: Duration) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(0).min(10);
    (FIRST_PAUSE * (1 << doublings)).min(every)
}

#[cfg(test)]
mod tests {
    use agentlens_domain::clock::{Clock, ManualClock};
    use agentlens_domain::keys::ServerSecret;
    use agentlens_domain::permissions::Caller;
    use agentlens_store::Org;

    use super::super::{OrgJob, Schedule};
    use super::*;

    /// Fails for some orgs, in every way in which a job can.
    struct Mixed;

    impl OrgJob for Mixed {
        const SCHEDULE: Schedule = Schedule {
            name: "mixed",
            about: "a test",
            every: Duration::from_secs(3600),
            deadline: Duration::from_secs(1),
            parallel: 2,
        };

        async fn run(org: Org, run: Run) -> Result<u64, StoreError> {
            match org.id().as_str() {
                "fails" => Err(StoreError::Refused("no".to_owned())),
                "hangs" => std::future::pending().await,
                "panics" => panic!("a bug"),
                _ => Ok(u64::from(run.since_us.is_some())),
            }
        }
    }

    async fn world(orgs: &[&str]) -> (tempfile::TempDir, Runner, ManualClock, Job) {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_790_000_000_000_000);
        let store = Store::open_sqlite(directory.path(), &ServerSecret::generate()).await.unwrap();
        let store = store.with_clock(clock.clock());
        for org in orgs {
            let org = OrgId::parse(org).unwrap();
            store.control().ensure_org(&Caller::service("test", &org), "x").await.unwrap();
        }
        let runner = Runner::new(store, Arc::new(Metrics::default()));
        (directory, runner, clock, Job::each_org::<Mixed>())
    }

    #[tokio::test]
    async fn an_org_whose_run_fails_keeps_no_other_from_theirs() {
        let (_directory, runner, clock, job) = world(&["a", "b", "fails", "hangs", "panics", "z"]).await;
        let report = runner.run_due(&job).await.unwrap();
        assert_eq!((report.succeeded, report.failed), (3, 3));
        assert_eq!(runner.run_due(&job).await.unwrap(), RunReport::default(), "nothing is due");
        // Those that failed are tried again before the others are due.
        clock.advance(31_000_000);
        assert_eq!(runner.run_due(&job).await.unwrap().failed, 3);
        // After a long sleep each org is caught up by one run, which learns since when.
        clock.advance(20 * 3_600_000_000);
        let report = runner.run_due(&job).await.unwrap();
        assert_eq!((report.succeeded, report.failed, report.done), (3, 3, 3));
        let summary = runner.store.control().job_summary("mixed").await.unwrap();
        assert_eq!((summary.orgs, summary.failing), (6, 3));
        let text = runner.metrics.render(agentlens_ingest::QueueStatus::default());
        assert!(text.contains("agentlens_job_runs_total{job=\"mixed\",outcome=\"failed\"} 9"), "{text}");
    }

    #[tokio::test]
    async fn a_job_runs_on_one_node_at_a_time() {
        let (_directory, runner, clock, job) = world(&["a", "b"]).await;
        let other = Runner::new(runner.store.clone(), Arc::new(Metrics::default()));
        assert!(other.take_lease(&job).await.unwrap());
        assert_eq!(runner.run_due(&job).await.unwrap(), RunReport::default());
        assert!(matches!(runner.run_now(&job, None).await, Err(StoreError::Unavailable(_))));
        // The other node dies: its lease runs out.
        clock.advance(micros(LEASE));
        assert_eq!(runner.run_due(&job).await.unwrap().succeeded, 2);
        // A lease is given back at once.
        let org = OrgId::parse("a").unwrap();
        assert_eq!(other.run_now(&job, Some(&org)).await.unwrap().succeeded, 1);
        assert_eq!(other.run_now(&job, None).await.unwrap().succeeded, 2);
    }

    #[test]
    fn pauses_after_failures_grow_up_to_the_interval() {
        let hour = Duration::from_secs(3600);
        let pauses = [0, 1, 2, 7, 100].map(|failures| pause_after(failures, hour).as_secs());
        assert_eq!(pauses, [30, 60, 120, 3600, 3600]);
        assert_eq!(pause_after(0, Duration::from_secs(5)).as_secs(), 5);
    }

    #[test]
    fn jitter_is_below_a_tenth_and_the_same_each_time() {
        let job = super::super::find("retention").unwrap();
        let org = OrgId::default_org();
        assert_eq!(jitter(&job, Some(&org)), jitter(&job, Some(&org)));
        assert!(jitter(&job, Some(&org)) < job.schedule.every / 10);
    }
}
