//! Syncs of the write-ahead log, outside the writer's lock: while the disk takes one transaction, the next is made.
//!
//! SQLite would sync within the commit. Told `synchronous = normal`, it only writes the log, and whoever wants to say that a
//! commit is durable syncs it here; one sync serves all commits before it. What a checkpoint copies, and a log that
//! begins anew, SQLite syncs by itself, so the file is whole at every moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::StoreError;

/// The write-ahead log of one database file.
pub(super) struct Log {
    file: File,
    committed: AtomicU64,
    synced: Mutex<u64>,
    /// What the system failed to sync once it may report as synced the next time, though it is lost.
    is_broken: AtomicBool,
}

impl Log {
    /// The log of a database that is open, and stays open as long as this.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let database = database.canonicalize()?;
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(log)?;
        // Its name is durable too.
        if let Some(directory) = database.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self::of(file))
    }

    fn of(file: File) -> Self {
        Self { file, committed: AtomicU64::new(0), synced: Mutex::new(0), is_broken: AtomicBool::new(false) }
    }

    /// Counts a commit, to be called under the writer's lock; [`Log::sync`] takes the number.
    pub(super) fn committed(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Returns when the commit is durable. Blocking.
    pub(super) fn sync(&self, commit: u64) -> Result<(), StoreError> {
        let mut synced = self.synced.lock();
        self.check()?;
        if *synced >= commit {
            return Ok(());
        }
        let upto = self.committed.load(Ordering::Acquire);
        if let Err(error) = self.file.sync_data() {
            self.is_broken.store(true, Ordering::Release);
            tracing::error!(error = %error, "the write-ahead log can't be synced; nothing is written until a restart");
        }
        self.check()?;
        *synced = upto;
        Ok(())
    }

    /// Refuses to go on after a sync that failed: SQLite itself recovers the log when the file is opened next.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable(
                "the disk failed to keep what was written; restart the server".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sync_serves_all_commits_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        File::create(&path).unwrap();
        let log = Log::open(&path).unwrap();
        let (first, second) = (log.committed(), log.committed());
        log.sync(second).unwrap();
        assert_eq!(*log.synced.lock(), second);
        log.sync(first).unwrap();
        let third = log.committed();
        assert!(*log.synced.lock() < third);
        log.sync(third).unwrap();
        assert_eq!(*log.synced.lock(), third);
    }

    #[test]
    fn nothing_is_durable_after_a_sync_that_failed() {
        // A pipe can't be synced.
        let (reader, _writer) = io::pipe().unwrap();
        let log = Log::of(File::from(std::os::fd::OwnedFd::from(reader)));
        let commit = log.committed();
        assert!(log.check().is_ok());
        assert!(log.sync(commit).unwrap_err().is_transient());
        assert!(log.check().is_err());
        assert!(log.sync(commit).is_err());
    }
}
