//! The directory of the embedded store: whether it holds one, making it, and the lock of the server that uses it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// The file that a running server holds locked; in it is the server's process id.
const LOCK_FILE: &str = "server.lock";
/// Bytes of the lock file that are read: a process id.
const MAX_LOCK_BYTES: u64 = 32;

/// The directory of an embedded store, which may not be there yet.
#[derive(Debug, Clone)]
pub struct DataDirectory(PathBuf);

/// Held by the one server that uses a directory; released when it is dropped, and when the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DataDirectory {
    /// The directory with this path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether a store was made here.
    pub fn holds_store(&self) -> bool {
        self.0.join("control.db").exists()
    }

    /// The path from the root, for messages.
    pub fn shown(&self) -> String {
        std::path::absolute(&self.0).unwrap_or_else(|_| self.0.clone()).display().to_string()
    }

    /// Makes the directory unless it is there, and returns the directory of the orgs' files in it. Prompts lie here: what
    /// is made is the owner's alone. A directory that exists keeps its mode.
    pub(crate) fn make(&self) -> Result<PathBuf, StoreError> {
        let orgs = self.0.join("orgs");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&orgs);
        made.map(|()| orgs).map_err(|error| self.unusable(&error))
    }

    /// Locks the directory for a server, and makes it unless it is there. Refused while another server holds it.
    pub fn lock(&self) -> Result<DirectoryLock, StoreError> {
        self.make()?;
        let path = self.0.join(LOCK_FILE);
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(|error| self.unusable(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.taken(&mut file)),
            Err(TryLockError::Error(error)) => return Err(self.unusable(&error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| self.unusable(&error))?;
        Ok(DirectoryLock { _file: file })
    }

    fn taken(&self, file: &mut File) -> StoreError {
        let mut holder = String::new();
        let read = file.take(MAX_LOCK_BYTES).read_to_string(&mut holder);
        let process = match (read, holder.trim().parse::<u32>()) {
            (Ok(_), Ok(id)) => format!(" (process {id})"),
            _ => String::new(),
        };
        StoreError::Misconfigured(format!(
            "another agentlens server{process} uses the data directory {}; stop it first, or choose another directory with --data-dir",
            self.shown()
        ))
    }

    fn unusable(&self, error: &std::io::Error) -> StoreError {
        let what = if self.0.exists() { "used" } else { "made" };
        StoreError::Misconfigured(format!("the data directory {} can't be {what}: {error}", self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_directory_is_refused_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(&folder.path().join("data"));
        assert!(!directory.holds_store());
        let lock = directory.lock().unwrap();
        let refusal = directory.lock().unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(refusal.contains(&directory.shown()), "{refusal}");
        drop(lock);
        assert!(directory.lock().is_ok());
    }

    #[test]
    fn a_path_below_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.join("data"), file] {
            let refusal = DataDirectory::new(&path).lock().unwrap_err().to_string();
            assert!(refusal.contains("the data directory") && refusal.contains("can't be"), "{refusal}");
        }
    }
}
