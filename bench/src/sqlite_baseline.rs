//! `sqlite-baseline`: SQLite alone, inserting the rows the server inserted: the same table and
//! indexes, one file, write-ahead log, full sync, one transaction per 1,000 rows, one prepared
//! statement. The time and processor time inside the transactions are counted, making the rows is not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use serde_json::{Value as Json, json};

use crate::procstat::thread_cpu_seconds;
use crate::report::{publish, round};
use crate::rows::Sample;

#[derive(Args, Clone, Debug)]
pub(crate) struct SqliteArgs {
    /// A data file of the server, or a folder: then the largest file in it that has the table.
    #[arg(long, value_name = "PATH")]
    schema_from: PathBuf,
    #[arg(long, default_value = "events")]
    table: String,
    /// Where the file is made; it is removed afterwards. Use the disk the server uses.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rows per transaction.
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Rows copied from the server's table and repeated.
    #[arg(long, default_value_t = 20_000)]
    sample: usize,
    /// A further pragma as the server sets it, for example `cache_size=-65536` (repeatable).
    #[arg(long = "pragma", value_name = "NAME=VALUE")]
    pragmas: Vec<String>,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is read from the server's file.
struct Source {
    statements: Vec<String>,
    columns: Vec<String>,
    page_size: i64,
    sample: Sample,
}

pub(crate) fn run(args: &SqliteArgs) -> Result<()> {
    let file = find_file(&args.schema_from, &args.table)?;
    let source = read_source(&file, args).context("reading the server's file")?;
    let folder = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let connection = create(&folder.path().join("baseline.db"), &source, args)?;
    let results = insert(&connection, &source, args)?;
    let parameters = json!({
        "table": args.table, "batch": args.batch, "seconds": args.seconds, "sampled_rows": source.sample.rows.len(),
        "columns": source.columns.len(), "indexes": source.statements.len() - 1, "page_size": source.page_size,
        "journal_mode": "wal", "synchronous": "full", "pragmas": args.pragmas,
    });
    publish("sqlite-baseline", &parameters, &results, args.json.as_deref())
}

fn insert(connection: &Connection, source: &Source, args: &SqliteArgs) -> Result<Json> {
    let names = source.columns.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    let marks = vec!["?"; source.columns.len()].join(", ");
    let mut statement =
        connection.prepare(&format!("insert into {} ({names}) values ({marks})", quote(&args.table)))?;
    let (mut rows, mut wall, mut cpu) = (0usize, Duration::ZERO, 0.0);
    let (mut next, mut pass) = (0usize, 0u64);
    while wall < Duration::from_secs(args.seconds) {
        let mut batch: Vec<Vec<Value>> = Vec::with_capacity(args.batch);
        while batch.len() < args.batch {
            batch.push(source.sample.row(next, pass));
            next += 1;
            if next == source.sample.rows.len() {
                (next, pass) = (0, pass + 1);
            }
        }
        let (started, cpu_before) = (Instant::now(), thread_cpu_seconds());
        connection.execute_batch("begin immediate")?;
        for row in &batch {
            statement.execute(params_from_iter(row))?;
        }
        connection.execute_batch("commit")?;
        cpu += thread_cpu_seconds() - cpu_before;
        wall += started.elapsed();
        rows += batch.len();
    }
    Ok(json!({
        "rows": rows,
        "rows_per_s": round(rows as f64 / wall.as_secs_f64(), 0),
        "cpu_us_per_row": round(cpu * 1e6 / rows as f64, 2),
    }))
}

fn create(path: &Path, source: &Source, args: &SqliteArgs) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "pragma page_size = {}; pragma journal_mode = wal; pragma synchronous = full;",
        source.page_size
    ))?;
    for pragma in &args.pragmas {
        connection.execute_batch(&format!("pragma {pragma}"))?;
    }
    for statement in &source.statements {
        connection.execute_batch(statement).with_context(|| format!("creating: {statement}"))?;
    }
    Ok(connection)
}

fn read_source(file: &Path, args: &SqliteArgs) -> Result<Source> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Triggers are left out: they do the search index's work, which the figure sets aside.
    let mut statement = connection.prepare(
        "select sql from sqlite_master
         where tbl_name = ?1 and sql is not null and type in ('table', 'index')
         order by type = 'index'",
    )?;
    let statements: Vec<String> =
        statement.query_map([&args.table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let columns = columns(&connection, &args.table)?;
    let unique = unique_keys(&connection, &args.table, &columns)?;
    let names = columns.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
    let mut select = connection.prepare(&format!("select {names} from {} limit ?1", quote(&args.table)))?;
    let rows: Vec<Vec<Value>> = select
        .query_map([args.sample], |row| (0..columns.len()).map(|column| row.get(column)).collect())?
        .collect::<Result<_, _>>()?;
    let fixed: Vec<usize> = columns.iter().position(|name| name == "org_id").into_iter().collect();
    let page_size = connection.query_row("pragma page_size", [], |row| row.get(0))?;
    Ok(Source { statements, sample: Sample::new(rows, &unique, &fixed)?, columns, page_size })
}

/// The columns that are stored, in order; generated ones are left out.
fn columns(connection: &Connection, table: &str) -> Result<Vec<String>> {
    let mut statement =
        connection.prepare("select name from pragma_table_xinfo(?1) where hidden = 0 order by cid")?;
    Ok(statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn unique_keys(connection: &Connection, table: &str, columns: &[String]) -> Result<Vec<Vec<usize>>> {
    let mut keys: Vec<Vec<String>> = Vec::new();
    let mut statement = connection.prepare("select name from pragma_index_list(?1) where \"unique\" = 1")?;
    let indexes: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for index in indexes {
        let mut statement = connection
            .prepare("select name from pragma_index_info(?1) where name is not null order by seqno")?;
        keys.push(statement.query_map([index], |row| row.get(0))?.collect::<Result<_, _>>()?);
    }
    let mut statement =
        connection.prepare("select name from pragma_table_xinfo(?1) where pk > 0 order by pk")?;
    let primary: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if !primary.is_empty() && !keys.contains(&primary) {
        keys.push(primary);
    }
    let position = |name: &String| columns.iter().position(|column| column == name);
    Ok(keys.iter().map(|key| key.iter().filter_map(position).collect()).collect())
}

/// The file itself, or the largest database below the folder that has rows in the table.
fn find_file(path: &Path, table: &str) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let (path, metadata) = (entry.path(), entry.metadata()?);
            if metadata.is_dir() {
                folders.push(path);
            } else if has_rows(&path, table) {
                found.push((metadata.len(), path));
            }
        }
    }
    match found.into_iter().max() {
        Some((_, file)) => Ok(file),
        None => bail!("no SQLite file with rows in {table} below the given folder"),
    }
}

fn has_rows(path: &Path, table: &str) -> bool {
    let starts_as_sqlite = std::fs::File::open(path).is_ok_and(|mut file| {
        let mut magic = [0u8; 15];
        std::io::Read::read_exact(&mut file, &mut magic).is_ok() && &magic == b"SQLite format 3"
    });
    starts_as_sqlite
        && Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).is_ok_and(|connection| {
            let statement = format!("select 1 from {} limit 1", quote(table));
            connection.query_row(&statement, [], |_| Ok(())).is_ok()
        })
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
