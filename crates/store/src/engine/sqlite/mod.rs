//! SQLite: a control file and a file per org, each in WAL mode; what is written is synced before anyone is told.
//!
//! One connection writes, a few read. Work on a connection is blocking: writes run on tokio's blocking pool, where a hot
//! path is one closure, reads on threads of their own ([`readers`]). Open org files are kept in an LRU, so that thousands of orgs cost only their directory entries.

pub(crate) mod apply;
mod checkpoint;
mod insert;
mod log;
pub(crate) mod readers;
mod spans;

use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags, params_from_iter};

use agentlens_domain::chain::Seal;
use agentlens_domain::ids::OrgId;
use agentlens_domain::latency::{decode_change, is_no_change};

use self::checkpoint::Checkpointer;
use self::log::Log;
use self::readers::Readers;
use crate::directory::DataDirectory;
use crate::error::StoreError;
use crate::schema::{self, Dialect};
use crate::statement::{Row, Value, for_sqlite};
use crate::tenant::INSERT_STATE;
use crate::tenant::merged_latency;

/// Org files that stay open.
const MAX_OPEN_ORGS: usize = 128;
/// Reading connections that a file keeps for the next reader.
const MAX_IDLE_READERS: usize = 4;
/// Bytes that SQLite keeps in memory, mostly pages of files: all connections of all orgs together.
const MAX_SQLITE_BYTES: i64 = 160 * 1024 * 1024;
/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 96;

/// All files of one data directory.
pub(crate) struct SqliteEngine {
    directory: PathBuf,
    control: Arc<SqliteFile>,
    orgs: Mutex<LruCache<OrgId, Arc<SqliteFile>>>,
    readers: Arc<Readers>,
}

impl SqliteEngine {
    /// Opens the control file, creating directory and file where they are missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let orgs = DataDirectory::new(directory).make()?;
        let readers = Arc::new(Readers::default());
        let control = directory.join("control.db");
        let control = Arc::new(SqliteFile::open(&control, schema::CONTROL, &readers)?);
        control.write(bound_memory)?;
        control.write(erase_deleted)?;
        let capacity = NonZeroUsize::new(MAX_OPEN_ORGS).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { directory: orgs, control, orgs: Mutex::new(LruCache::new(capacity)), readers })
    }

    pub(crate) fn control(&self) -> &Arc<SqliteFile> {
        &self.control
    }

    /// Refuses if a file that is open was deleted or replaced.
    pub(crate) fn check_places(&self) -> Result<(), StoreError> {
        self.control.log.check_places()?;
        let open: Vec<_> = self.orgs.lock().iter().map(|(_, file)| Arc::clone(file)).collect();
        open.iter().try_for_each(|file| file.log.check_places())
    }

    /// Copies all logs into their files, so that a stopped server leaves files that are whole by themselves. Blocking.
    pub(crate) fn checkpoint(&self) {
        let mut open: Vec<_> = self.orgs.lock().iter().map(|(_, file)| Arc::clone(file)).collect();
        open.push(Arc::clone(&self.control));
        for file in open {
            let writer = file.writer.lock();
            let done = writer.connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()));
            if let Err(error) = done {
                tracing::warn!(error = %error, path = %file.path.display(), "a log can't be copied into its file at the stop");
            }
        }
    }

    /// The org's file if it is open.
    pub(crate) fn opened(&self, org: &OrgId) -> Option<Arc<SqliteFile>> {
        self.orgs.lock().get(org).map(Arc::clone)
    }

    /// Makes the file of a new org, with its row of counters.
    pub(crate) fn create_org(&self, org: &OrgId, state_seal: &Seal) -> Result<(), StoreError> {
        let file = SqliteFile::open(&self.path(org), schema::TENANT, &self.readers)?;
        file.write(|connection| {
            connection.execute(&for_sqlite(INSERT_STATE), rusqlite::params![org.as_str(), state_seal])?;
            Ok(())
        })
    }

    /// Whether the org's file is there. An empty one is not: whatever was in it is gone.
    pub(crate) fn has_file(&self, org: &OrgId) -> bool {
        std::fs::metadata(self.path(org)).is_ok_and(|data| data.len() > 0)
    }

    /// The orgs that have a file, by the names of the files.
    pub(crate) fn stored_orgs(&self) -> Result<Vec<String>, StoreError> {
        let unreadable =
            |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", self.directory.display()));
        let mut orgs = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "db") {
                orgs.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        orgs.sort_unstable();
        Ok(orgs)
    }

    /// How many rows the org's file has in each table; none if it is not there, or not whole. Blocking.
    pub(crate) fn count_rows(&self, org: &OrgId) -> Vec<(String, i64)> {
        let Ok(file) = self.org(org) else { return Vec::new() };
        let counted = file.read(|connection| {
            let tables = "select name from sqlite_master where type = 'table' and name <> 'migrations' and name not like 'sqlite_%'";
            let tables: Vec<String> =
                connection.prepare(tables)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let count = |table: String| {
                let rows = connection.query_row(&format!("select count(*) from \"{table}\""), [], |row| row.get(0))?;
                Ok((table, rows))
            };
            tables.into_iter().map(count).collect()
        });
        counted.unwrap_or_default()
    }

    /// Removes the org's file with its log; returns how many files those were. Blocking.
    pub(crate) fn remove_org(&self, org: &OrgId) -> Result<i64, StoreError> {
        // Closing the last connection may write the file once more, so that comes first.
        let open = self.orgs.lock().pop(org);
        drop(open);
        let mut removed = 0;
        for ending in ["db-wal", "db-shm", "db"] {
            let path = self.path(org).with_extension(ending);
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", path.display()))),
            }
        }
        let directory = std::fs::File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.directory.display())))?;
        Ok(removed)
    }

    /// Leaves nothing of deleted rows in the control file and its log. Blocking.
    pub(crate) fn scrub_control(&self) -> Result<(), StoreError> {
        self.control.write(|connection| {
            connection.execute_batch("vacuum")?;
            let busy: i64 = connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
            let still_read = || StoreError::Unavailable("the control file's log is being read".to_owned());
            if busy == 0 { Ok(()) } else { Err(still_read()) }
        })
    }

    fn path(&self, org: &OrgId) -> PathBuf {
        self.directory.join(format!("{org}.db"))
    }

    /// The org's file, which was made with the org: a new one in its place would hide that the data are lost.
    pub(crate) fn org(&self, org: &OrgId) -> Result<Arc<SqliteFile>, StoreError> {
        if let Some(file) = self.opened(org) {
            return Ok(file);
        }
        if !self.has_file(org) {
            let path = self.path(org);
            return Err(StoreError::Corrupt(format!(
                "{} is missing or empty; restore it from a backup",
                path.display()
            )));
        }
        // The other orgs don't wait while this file is opened and migrated, nor while the one that makes room for it is closed.
        let file = Arc::new(SqliteFile::open(&self.path(org), schema::TENANT, &self.readers)?);
        let mut orgs = self.orgs.lock();
        if let Some(first) = orgs.get(org) {
            return Ok(Arc::clone(first));
        }
        let evicted = orgs.push(org.clone(), Arc::clone(&file));
        drop(orgs);
        drop(evicted);
        Ok(file)
    }
}

/// The writing connection and what keeps its log short.
struct Writer {
    connection: Connection,
    checkpointer: Checkpointer,
}

/// One database file.
pub(crate) struct SqliteFile {
    path: PathBuf,
    writer: Mutex<Writer>,
    log: Log,
    idle_readers: Mutex<Vec<Connection>>,
    readers: Arc<Readers>,
}

impl SqliteFile {
    fn open(path: &Path, steps: &[schema::Step], readers: &Arc<Readers>) -> Result<Self, StoreError> {
        make_private(path)?;
        let mut writer = Connection::open(path)?;
        writer.execute_batch(
            "pragma page_size = 16384; pragma journal_mode = wal; pragma synchronous = normal;
             pragma journal_size_limit = 134217728; pragma cache_size = -65536; pragma foreign_keys = on; pragma temp_store = memory;",
        )?;
        prepare_connection(&writer)?;
        migrate(&mut writer, steps)?;
        Checkpointer::watch(&writer);
        let writer = Writer { connection: writer, checkpointer: Checkpointer::default() };
        let log = Log::open(path).map_err(|error| {
            StoreError::Unavailable(format!("the write-ahead log of {}: {error}", path.display()))
        })?;
        let (path, writer, readers) = (path.to_owned(), Mutex::new(writer), Arc::clone(readers));
        Ok(Self { path, writer, log, idle_readers: Mutex::default(), readers })
    }

    /// The threads that read.
    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Runs a closure with the writing connection; what it committed is durable then. Blocking.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (done, commit) = self.write_ahead(work)?;
        self.sync(commit)?;
        Ok(done)
    }

    /// Runs a closure with the writing connection; what it committed is visible, but durable only after [`Self::sync`] of the
    /// number that is returned. Blocking.
    pub(crate) fn write_ahead<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<(T, u64), StoreError> {
        let mut writer = self.writer.lock();
        self.log.check()?;
        let result = work(&mut writer.connection);
        let commit = self.log.committed();
        let Writer { connection, checkpointer } = &mut *writer;
        checkpointer.after_work(connection, &self.path);
        Ok((result?, commit))
    }

    /// Returns when a commit is durable. Blocking.
    pub(crate) fn sync(&self, commit: u64) -> Result<(), StoreError> {
        self.log.sync(commit)
    }

    /// Runs a closure with a reading connection. Blocking.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle_readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open_reader()?,
        };
        let result = work(&connection);
        let mut readers = self.idle_readers.lock();
        if readers.len() < MAX_IDLE_READERS {
            readers.push(connection);
        }
        result
    }

    fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.execute_batch(
            "pragma cache_size = -8192; pragma temp_store = memory; pragma query_only = on;",
        )?;
        prepare_connection(&connection)?;
        Ok(connection)
    }
}

/// Makes the file, if it is missing, for its owner alone; SQLite gives its log the same mode. One that exists keeps the mode
/// that it was given.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Unavailable(format!("{} can't be made: {error}", path.display()))),
    }
}

/// Bounds what all connections of the process keep in memory together; beyond it pages are taken from whoever used them
/// longest ago.
fn bound_memory(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "soft_heap_limit", MAX_SQLITE_BYTES)?;
    Ok(())
}

/// Has what is deleted overwritten in the file.
fn erase_deleted(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "secure_delete", "on")?;
    Ok(())
}

/// Runs a statement that returns rows.
pub(crate) fn query(connection: &Connection, sql: &str, args: &[Value]) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(&for_sqlite(sql))?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(args))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(Row::from_sqlite(row, columns)?);
    }
    Ok(all)
}

/// Runs a statement; returns how many rows it changed.
pub(crate) fn execute(connection: &Connection, sql: &str, args: &[Value]) -> Result<u64, StoreError> {
    let count = connection.prepare_cached(&for_sqlite(sql))?.execute(params_from_iter(args))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Runs a statement and hands its rows over one by one.
pub(crate) fn for_each(
    connection: &Connection,
    sql: &str,
    args: &[Value],
    mut step: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(&for_sqlite(sql))?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(args))?;
    while let Some(row) = rows.next()? {
        step(&Row::from_sqlite(row, columns)?)?;
    }
    Ok(())
}

/// Runs statements in one transaction; returns how many rows each changed.
pub(crate) fn execute_all(
    connection: &mut Connection,
    statements: &[(String, Vec<Value>)],
) -> Result<Vec<u64>, StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut changed = Vec::with_capacity(statements.len());
    for (sql, args) in statements {
        let count = transaction.prepare_cached(&for_sqlite(sql))?.execute(params_from_iter(args))?;
        changed.push(u64::try_from(count).unwrap_or(0));
    }
    transaction.commit()?;
    Ok(changed)
}

fn prepare_connection(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("latency_merge", 2, flags, |context| {
        let (stored, change) = (context.get_raw(0).as_blob()?, context.get_raw(1).as_blob()?);
        if is_no_change(change) {
            return Ok(stored.to_vec());
        }
        let unreadable =
            || rusqlite::Error::UserFunctionError("a change of a rollup's latency sketch".into());
        let (added, removed) = decode_change(change).ok_or_else(unreadable)?;
        Ok(merged_latency(stored, (&added, &removed)))
    })?;
    Ok(())
}

/// Brings a file to the newest schema; each step is one transaction.
fn migrate(connection: &mut Connection, steps: &[schema::Step]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction
        .execute_batch("create table if not exists migrations (name text primary key) without rowid")?;
    transaction.commit()?;
    for (name, source) in steps {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another process may have migrated while this one waited for the lock.
        let done: Vec<String> = transaction
            .prepare("select name from migrations")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        schema::refuse_unknown(steps, &done)?;
        if !done.iter().any(|done| done == name) {
            transaction.execute_batch(&schema::text_for(Dialect::Sqlite, source))?;
            transaction.execute("insert into migrations (name) values (?1)", [name])?;
        }
        transaction.commit()?;
    }
    Ok(())
}
