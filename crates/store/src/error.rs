//! What can happen to data. Nothing here is ever shown to a client: the server turns it into its own words.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The row that was asked for is not there (or belongs to another org, which is the same).
    #[error("not found")]
    NotFound,
    /// A row with this key exists already.
    #[error("already exists: {0}")]
    Exists(&'static str),
    /// A limit does not allow it.
    #[error("{0}")]
    LimitReached(String),
    /// The database can't be reached or is too busy; trying again later can help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
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
        matches!(self, Self::Unavailable(_))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase,
            SystemIoFailure,
        };
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | CannotOpen) => {
                Self::Unavailable(error.to_string())
            }
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else { return Self::Unavailable(error.to_string()) };
        let text = error
            .as_db_error()
            .map_or_else(|| error.to_string(), |detail| format!("{}: {}", state.code(), detail.message()));
        // Connection trouble, resources, operator intervention, system errors, and lost races (40) heal by themselves.
        match state.code().get(..2) {
            Some("08" | "40" | "53" | "57" | "58") => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
