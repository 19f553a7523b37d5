//! Checkpoints beside the writer: the write-ahead log is copied into the file by a thread of its own.
//!
//! SQLite would do it inside the commit that crosses a threshold, and every client of the org would wait for the sync of
//! the whole file. A passive checkpoint runs beside a writer, so the writer only does one itself when the log
//! has grown so long that the thread evidently can't keep up.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

/// Pages that the log gains between two checkpoints: 24 MiB. Answers wait for the disk while the file is synced, so little and often.
const PAGES_BETWEEN: u32 = 1_500;
/// Pages of the log at which the writer checkpoints by itself: 288 MiB.
const MAX_LOG_PAGES: u32 = 18_000;

thread_local! {
    /// Pages in the log after the last commit of this thread.
    static LOG_PAGES: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The checkpoints of one file.
#[derive(Default)]
pub(super) struct Checkpointer {
    worker: Option<Worker>,
    /// Pages in the log when a checkpoint was last asked for.
    asked_at: u32,
}

struct Worker {
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Takes the checkpoints of a connection over from SQLite.
    pub(super) fn watch(connection: &Connection) {
        connection.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(u32::try_from(pages).ok());
            Ok(())
        }));
    }

    /// To be called after work on the watched connection, on the thread that did it.
    pub(super) fn after_work(&mut self, connection: &Connection, path: &Path) {
        let Some(pages) = LOG_PAGES.take() else { return };
        // The log began anew.
        self.asked_at = self.asked_at.min(pages);
        if pages >= MAX_LOG_PAGES {
            checkpoint(connection);
        }
        if pages < self.asked_at + PAGES_BETWEEN {
            return;
        }
        self.asked_at = pages;
        let worker = self.worker.get_or_insert_with(|| Worker::start(path.to_owned()));
        if let Some(requests) = &worker.requests {
            // Full means that one is asked for already.
            let _ = requests.try_send(());
        }
    }
}

impl Worker {
    fn start(path: PathBuf) -> Self {
        let (requests, receiver) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || run(&path, &receiver));
        // Without a thread the writer checkpoints by itself, only later.
        Self { requests: Some(requests), thread: thread.ok() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, requests: &Receiver<()>) {
    let connection = match Connection::open(path) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(error = %error, "the write-ahead log can't be checkpointed beside the writer");
            return;
        }
    };
    while requests.recv().is_ok() {
        checkpoint(&connection);
    }
}

/// Copies what can be copied without waiting for anyone.
fn checkpoint(connection: &Connection) {
    let done = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::warn!(error = %error, "a checkpoint of the write-ahead log failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_copied_into_the_file_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("pragma journal_mode = wal; pragma synchronous = full; create table t (v blob);")
            .unwrap();
        Checkpointer::watch(&connection);
        let mut checkpointer = Checkpointer::default();
        let before = std::fs::metadata(&path).unwrap().len();
        for _ in 0..32 {
            connection.execute("insert into t values (zeroblob(4000000))", []).unwrap();
            checkpointer.after_work(&connection, &path);
        }
        drop(checkpointer);
        assert!(std::fs::metadata(&path).unwrap().len() > before + 16_000_000);
        let rows: i64 = connection.query_row("select count(*) from t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 32);
    }
}
