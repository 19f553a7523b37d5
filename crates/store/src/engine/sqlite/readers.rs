//! The threads that read, shared fairly among orgs.
//!
//! Reads have threads of their own, few and with a lower priority than those that write: however many searches run, writers
//! find a thread and the processor. A read ends at its deadline, or when nobody waits for it any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use agentlens_domain::ids::OrgId;
use agentlens_fairness::{FairShare, Rule};

use super::SqliteFile;
use crate::error::StoreError;

/// Reads at the same time for each processor, within the bounds below.
const READS_PER_CPU: usize = 2;
const MIN_READS: usize = 4;
const MAX_READS: usize = 16;
/// How long a read waits for its turn.
pub(crate) const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long one statement may read.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Steps of SQLite's machine between two looks at the clock: a few tenths of a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 4_000;
/// How much lower the priority of threads that read is than that of the others; a third of their share when both want all.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// The threads that read.
pub(crate) struct Readers {
    turns: FairShare<OrgId>,
    threads: usize,
    jobs: Mutex<Option<Sender<Job>>>,
}

impl Default for Readers {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads((cpus * READS_PER_CPU).clamp(MIN_READS, MAX_READS))
    }
}

impl Readers {
    fn with_threads(threads: usize) -> Self {
        let turns = FairShare::new(Rule::new(threads as u64).with_floor(1));
        Self { turns, threads, jobs: Mutex::new(None) }
    }

    /// Runs a closure with a reading connection of the file when it is the org's turn.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        org: &OrgId,
        file: Arc<SqliteFile>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turns.take(org, 1, READ_PATIENCE).await.map_err(|_| StoreError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted::default();
        let is_wanted = Arc::clone(&wanted.0);
        self.send(Box::new(move || {
            if is_wanted.load(Ordering::Relaxed) {
                let result = file.read(|connection| until_deadline(connection, &is_wanted, work));
                let _ = reply.send(result);
            }
            drop(turn);
        }))?;
        let result = answer.await;
        drop(wanted);
        result.map_err(|_| StoreError::Unavailable("a read ended early".to_owned()))?
    }

    /// Hands a job to the threads, which begin with the first one.
    fn send(&self, job: Job) -> Result<(), StoreError> {
        let unavailable = |error: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("the threads that read can't be started: {error}"))
        };
        let mut jobs = self.jobs.lock();
        let sender = match &*jobs {
            Some(sender) => sender,
            None => jobs.insert(self.start().map_err(|error| unavailable(&error))?),
        };
        sender.send(job).map_err(|error| unavailable(&error))
    }

    fn start(&self) -> std::io::Result<Sender<Job>> {
        let (sender, receiver) = channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..self.threads {
            let receiver = Arc::clone(&receiver);
            // They end when the sender is dropped, with the engine.
            std::thread::Builder::new().name("reader".to_owned()).spawn(move || run(&receiver))?;
        }
        Ok(sender)
    }
}

fn run(jobs: &Mutex<Receiver<Job>>) {
    // Without it reads only compete with writers as equals.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        // Whoever waits for the answer learns of it by the dropped sender; the thread is there for the next.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Set while somebody waits for the answer.
struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Runs work that SQLite interrupts at the deadline, or when it isn't wanted any more.
fn until_deadline<T>(
    connection: &Connection,
    is_wanted: &Arc<AtomicBool>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (deadline, is_wanted) = (Instant::now() + READ_DEADLINE, Arc::clone(is_wanted));
    let is_over = move || !is_wanted.load(Ordering::Relaxed) || Instant::now() >= deadline;
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(is_over));
    let result = work(connection);
    connection.progress_handler(0, None::<fn() -> bool>);
    result
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rusqlite::params;

    use super::*;

    const ENDLESS: &str =
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

    fn file() -> (tempfile::TempDir, Arc<SqliteFile>) {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(
            &folder.path().join("file.db"),
            &[("first", "create table t (v integer)")],
            &Arc::default(),
        )
        .unwrap();
        (folder, Arc::new(file))
    }

    static A: LazyLock<OrgId> = LazyLock::new(|| OrgId::parse("a").unwrap());
    static OTHER: LazyLock<OrgId> = LazyLock::new(|| OrgId::parse("other").unwrap());

    fn count(connection: &Connection, sql: &str) -> Result<i64, StoreError> {
        Ok(connection.query_row(sql, params![], |row| row.get(0))?)
    }

    async fn until(is_so: impl Fn() -> bool) {
        for _ in 0..2_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain");
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_is_interrupted() {
        let (_folder, file) = file();
        let readers = Arc::new(Readers::with_threads(2));
        let reading = tokio::spawn({
            let (readers, file) = (Arc::clone(&readers), Arc::clone(&file));
            async move { readers.read(&A, file, |connection| count(connection, ENDLESS)).await }
        });
        until(|| readers.turns.used() == 1).await;
        reading.abort();
        until(|| readers.turns.used() == 0).await;
        // The connection is as good as new.
        let rows = readers.read(&A, file, |connection| count(connection, "select count(*) from t"));
        assert_eq!(rows.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_org_cannot_take_all_turns() {
        let (_folder, file) = file();
        let readers = Arc::new(Readers::with_threads(4));
        let greedy: Vec<_> = (0..20)
            .map(|_| {
                let (readers, file) = (Arc::clone(&readers), Arc::clone(&file));
                tokio::spawn(
                    async move { readers.read(&A, file, |connection| count(connection, ENDLESS)).await },
                )
            })
            .collect();
        until(|| readers.turns.used() == 2).await;
        for _ in 0..10 {
            let read = readers
                .read(&OTHER, Arc::clone(&file), |connection| count(connection, "select count(*) from t"));
            assert_eq!(read.await.unwrap(), 0);
        }
        assert_eq!(readers.turns.held_by(&A), 2);
        for read in greedy {
            read.abort();
        }
        until(|| readers.turns.used() == 0).await;
    }

    #[tokio::test]
    async fn a_panic_costs_no_thread() {
        let (_folder, file) = file();
        let readers = Readers::with_threads(1);
        for _ in 0..3 {
            let read = readers.read(&A, Arc::clone(&file), |_| -> Result<(), StoreError> {
                std::panic::panic_any("on purpose")
            });
            assert!(read.await.unwrap_err().is_transient());
        }
        let read = readers.read(&A, file, |connection| count(connection, "select count(*) from t"));
        assert_eq!(read.await.unwrap(), 0);
    }

    #[test]
    fn a_read_ends_at_its_deadline() {
        let (_folder, file) = file();
        let unwanted = Arc::new(AtomicBool::new(false));
        let read = file.read(|connection| {
            until_deadline(connection, &unwanted, |connection| count(connection, ENDLESS))
        });
        assert!(matches!(read, Err(StoreError::TimedOut)), "{read:?}");
    }
}
