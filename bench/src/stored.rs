//! How much of what was accepted is stored: by AgentLens' ledger, or by counting rows in a peer's SQLite file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags};

use crate::http::Origin;
use crate::load::sum_of;

const POLL: Duration = Duration::from_millis(50);
/// Counting rows takes a peer's cores, so it is asked seldom.
const ROWS_POLL: Duration = Duration::from_millis(500);
/// A peer that stored nothing more for so long has given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Who says what is stored.
#[derive(Clone)]
pub(crate) enum Store {
    /// `GET /v1/ingest/ledger` of each key.
    Ledger { origin: Origin, keys: Vec<String> },
    /// The rows of a table of a SQLite file.
    Rows { file: PathBuf, table: String },
}

/// What was stored in the end, and since when.
pub(crate) struct Settled {
    pub(crate) stored: u64,
    pub(crate) at: Instant,
}

impl Store {
    pub(crate) async fn count(&self) -> Result<u64> {
        match self {
            Self::Ledger { .. } => Ok(self.ledger().await?.0),
            Self::Rows { file, table } => rows(file, table),
        }
    }

    /// Waits until nothing is waiting: for the ledger until it says so, for rows until there are `expected` or no more
    /// come.
    pub(crate) async fn settle(&self, expected: u64, limit: Duration) -> Result<Settled> {
        let end = Instant::now() + limit;
        let mut last = Settled { stored: self.count().await?, at: Instant::now() };
        loop {
            let (stored, waiting) = match self {
                Self::Ledger { .. } => self.ledger().await?,
                Self::Rows { .. } => {
                    let stored = self.count().await?;
                    (stored, expected.saturating_sub(stored))
                }
            };
            if stored != last.stored {
                last = Settled { stored, at: Instant::now() };
            }
            let has_given_up = matches!(self, Self::Rows { .. }) && last.at.elapsed() > STALL_LIMIT;
            if waiting == 0 || has_given_up {
                return Ok(last);
            }
            ensure!(Instant::now() < end, "{waiting} spans still wait {} s after the load", limit.as_secs());
            let is_ledger = matches!(self, Self::Ledger { .. });
            tokio::time::sleep(if is_ledger { POLL } else { ROWS_POLL }).await;
        }
    }

    /// Stored and waiting.
    async fn ledger(&self) -> Result<(u64, u64)> {
        let Self::Ledger { origin, keys } = self else { return Ok((0, 0)) };
        let mut connection = origin.connect().await?;
        let mut sums = (0, 0);
        for key in keys {
            let ledger = connection.get_json("/v1/ingest/ledger", key).await?;
            sums.0 += sum_of("stored", &ledger);
            sums.1 += sum_of("waiting", &ledger);
        }
        Ok(sums)
    }
}

/// Opened anew for each count, so that no lock of ours outlasts it.
fn rows(file: &Path, table: &str) -> Result<u64> {
    ensure!(table.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{table} is no name of a table");
    let count: i64 = open(file)?.query_row(&format!("select count(*) from {table}"), [], |row| row.get(0))?;
    Ok(u64::try_from(count)?)
}

/// Bytes of all files in a folder. Of a SQLite database what it holds, whether it stands in the file already or only in
/// the write-ahead log, whose size says nothing.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| {
            let path = entry.path();
            let name = path.to_string_lossy();
            match entry.metadata() {
                Ok(data) if data.is_dir() => folder_bytes(&path),
                Ok(_) if name.ends_with("-wal") || name.ends_with("-shm") => 0,
                Ok(data) if name.ends_with(".db") => database_bytes(&path).unwrap_or(data.len()),
                Ok(data) => data.len(),
                Err(_) => 0,
            }
        })
        .sum()
}

fn database_bytes(file: &Path) -> Result<u64> {
    let connection = open(file)?;
    let pragma = |name: &str| connection.query_row(&format!("pragma {name}"), [], |row| row.get::<_, i64>(0));
    Ok(u64::try_from(pragma("page_count")? * pragma("page_size")?)?)
}

fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("opening {}", file.display()))?;
    connection.busy_timeout(Duration::from_secs(20))?;
    Ok(connection)
}
