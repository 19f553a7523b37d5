//! What can happen to data. Nothing here is ever shown to a client: the server turns it into its own words.

use agentlens_domain::rollups::ChangesError;
use agentlens_domain::spans::StateError;

/// How an error begins that a full disk caused.
const DISK_FULL: &str = "the disk is full";

/// Whether the text of an error says that the server's disk is full.
pub fn names_a_full_disk(text: &str) -> bool {
    text.contains(DISK_FULL) || text.contains("No space left on device")
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The row that was asked for is not there (or belongs to another org, which is the same).
    #[error("not found")]
    NotFound,
    /// A row with this key exists already.
    #[error("already exists: {0}")]
    Exists(&'static str),
    /// The caller's rights do not allow it.
    #[error("not allowed")]
    NotAllowed,
    /// The org has no such workspace, or it is archived.
    #[error("there is no workspace {0}, or it is archived")]
    NoWorkspace(String),
    /// The org would have no owner left.
    #[error("the org would have no owner left")]
    LastOwner,
    /// The person would have no way to sign in left.
    #[error("the person would have no way to sign in left")]
    LastWayToSignIn,
    /// A limit does not allow it.
    #[error("{0}")]
    LimitReached(String),
    /// The database can't be reached or is too busy; trying again later can help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The database gave up a statement that took too long or too much memory. That may be because of what it was
    /// given, or because the database is busy.
    #[error("the store gave up a statement: {0}")]
    Stopped(String),
    /// A statement failed for another reason than what it was given, as with a missing privilege.
    #[error("a statement failed: {0}")]
    Failed(String),
    /// A file of the data directory is no longer the one that was opened.
    #[error(
        "{0} was deleted or replaced while the server runs; restore the data directory and restart the server"
    )]
    Replaced(String),
    /// The org has so many reads under way that another one waited in vain for its turn.
    #[error("too many reads of this org are under way")]
    Busy,
    /// A read took longer than it may.
    #[error("the read took too long")]
    TimedOut,
    /// The database refused what it was given; trying again does not help.
    #[error("the store refused a statement: {0}")]
    Refused(String),
    /// What is stored can't be read: corruption, or a newer version's data.
    #[error("unreadable data: {0}")]
    Corrupt(String),
    /// The server may not run like this; the text says what to change.
    #[error("{0}")]
    Misconfigured(String),
}

impl StoreError {
    /// Whether the same call may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Stopped(_) | Self::Busy | Self::Replaced(_))
    }

    /// Whether the database is away for everyone, so that nothing can be said about what it was given.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Replaced(_))
    }

    /// Whether the database refused what it was given, and will again.
    pub fn is_of_input(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl From<StateError> for StoreError {
    fn from(error: StateError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<ChangesError> for StoreError {
    fn from(error: ChangesError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase,
            OperationInterrupted, OutOfMemory, ReadOnly, SystemIoFailure,
        };
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Unavailable(format!("{DISK_FULL}: {error}")),
            Some(DatabaseBusy | DatabaseLocked | SystemIoFailure | CannotOpen | ReadOnly) => {
                Self::Unavailable(error.to_string())
            }
            Some(OutOfMemory) => Self::Stopped(error.to_string()),
            Some(OperationInterrupted) => Self::TimedOut,
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        // Without a code it is the connection; why it failed is in the source: "error connecting to server: Connection refused".
        let Some(state) = error.code() else {
            return Self::Unavailable(with_cause(&error));
        };
        let text = error
            .as_db_error()
            .map_or_else(|| error.to_string(), |detail| format!("{}: {}", state.code(), detail.message()));
        match state.code() {
            // A statement's own time or memory.
            "57014" | "53200" => return Self::Stopped(text),
            // A lock that was not free in time, and a server that takes no writes during a failover.
            "55P03" | "25006" => return Self::Unavailable(text),
            _ => {}
        }
        match state.code().get(..2) {
            Some("53") if *state == tokio_postgres::error::SqlState::DISK_FULL => {
                Self::Unavailable(format!("{DISK_FULL}: {text}"))
            }
            // Connection trouble, lost races, resources, operator intervention and system errors heal by themselves.
            Some("08" | "28" | "3D" | "40" | "53" | "57" | "58") => Self::Unavailable(text),
            // Bad data, a broken constraint, a limit of the program.
            Some("22" | "23" | "54") => Self::Refused(text),
            _ => Self::Failed(text),
        }
    }
}

/// The error and what caused it, such as "error connecting to server: Connection refused".
fn with_cause(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            // Whatever keeps a connection from being made, what it was for is not at fault.
            deadpool_postgres::PoolError::Backend(error) => {
                let text = error.as_db_error().map(ToString::to_string);
                Self::Unavailable(text.unwrap_or_else(|| with_cause(&error)))
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let error = StoreError::from(rusqlite::Error::SqliteFailure(full, None));
        assert!(error.is_transient() && names_a_full_disk(&error.to_string()), "{error}");
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let error = StoreError::from(rusqlite::Error::SqliteFailure(busy, None));
        assert!(error.is_transient() && !names_a_full_disk(&error.to_string()), "{error}");
    }
}
