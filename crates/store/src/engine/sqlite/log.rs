//! Syncs of the write-ahead log, outside the writer's lock: while the disk takes one transaction, the next is made.
//!
//! SQLite would sync within the commit. Told `synchronous = normal`, it only writes the log, and whoever wants to say that a
//! commit is durable syncs it here; one sync serves all commits before it. What a checkpoint copies, and a log that
//! begins anew, SQLite syncs by itself, so the file is whole at every moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
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
    /// The database and its log, as they were when they were opened.
    places: Vec<Place>,
}

/// A path, and the file that was there when it was opened.
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: PathBuf) -> io::Result<Self> {
        let data = std::fs::metadata(&path)?;
        Ok(Self { path, device: data.dev(), inode: data.ino() })
    }

    /// Whether the file is still the one at its path. One that was deleted or replaced can be written and synced without any
    /// error, and everything is gone when it is closed.
    fn check(&self) -> Result<(), StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(data) if (data.dev(), data.ino()) == (self.device, self.inode) => Ok(()),
            Ok(_) => Err(StoreError::Replaced(self.path.display().to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Replaced(self.path.display().to_string()))
            }
            Err(error) => Err(StoreError::Unavailable(format!("{}: {error}", self.path.display()))),
        }
    }
}

impl Log {
    /// The log of a database that is open, and stays open as long as this.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let database = database.canonicalize()?;
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&log)?;
        // Its name is durable too.
        if let Some(directory) = database.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self::of(file, vec![Place::of(database)?, Place::of(log)?]))
    }

    fn of(file: File, places: Vec<Place>) -> Self {
        let (committed, synced) = (AtomicU64::new(0), Mutex::new(0));
        Self { file, committed, synced, is_broken: AtomicBool::new(false), places }
    }

    /// Refuses to go on if the files were deleted or replaced since they were opened.
    pub(super) fn check_places(&self) -> Result<(), StoreError> {
        self.places.iter().try_for_each(Place::check)
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
        self.check_places()?;
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
    fn nothing_is_durable_in_files_that_were_deleted_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let (log_path, aside) = (folder.path().join("file.db-wal"), folder.path().join("aside"));
        File::create(&path).unwrap();
        let log = Log::open(&path).unwrap();
        log.sync(log.committed()).unwrap();
        for moved in [&path, &log_path] {
            std::fs::rename(moved, &aside).unwrap();
            assert!(matches!(log.sync(log.committed()), Err(StoreError::Replaced(_))));
            File::create(moved).unwrap();
            let error = log.sync(log.committed()).unwrap_err();
            assert!(error.is_transient() && error.to_string().contains(moved.to_str().unwrap()), "{error}");
            // Put back, it is good again.
            std::fs::rename(&aside, moved).unwrap();
            log.sync(log.committed()).unwrap();
        }
    }

    #[test]
    fn nothing_is_durable_after_a_sync_that_failed() {
        // A pipe can't be synced.
        let (reader, _writer) = io::pipe().unwrap();
        let log = Log::of(File::from(std::os::fd::OwnedFd::from(reader)), Vec::new());
        let commit = log.committed();
        assert!(log.check().is_ok());
        assert!(log.sync(commit).unwrap_err().is_transient());
        assert!(log.check().is_err());
        assert!(log.sync(commit).is_err());
    }
}
