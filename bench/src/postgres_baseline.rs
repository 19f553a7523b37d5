//! `postgres-baseline`: PostgreSQL alone, inserting the rows the server inserted, the way the server
//! must: `insert .. select from unnest(..) on conflict do nothing`, transactions of 1,000 rows, under
//! forced row security as the application's role.
//!
//! The table is a copy in a schema of its own: same columns, keys, indexes, partitions and policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value as Json, json};
use tokio_postgres::{Client, NoTls};

use crate::postgres_table::{self, SCHEMA, Table};
use crate::procstat::Watched;
use crate::report::{publish, round};

#[derive(Args, Clone, Debug)]
pub(crate) struct PostgresArgs {
    /// The application's role, as the server uses it.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// A role that may create a schema and read the events table.
    #[arg(long, value_name = "URL")]
    database_owner_url: String,
    #[arg(long, default_value = "tenant.events")]
    table: String,
    /// The org whose rows are copied; needed where the owner's role is under row security too.
    #[arg(long)]
    org: Option<String>,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rows per transaction.
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Connections that insert at the same time.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Rows copied from the server's table and repeated.
    #[arg(long, default_value_t = 20_000)]
    sample: i64,
    #[command(flatten)]
    watched: Watched,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &PostgresArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (parameters, results) = runtime.block_on(measure(args))?;
    publish("postgres-baseline", &parameters, &results, args.json.as_deref())
}

async fn measure(args: &PostgresArgs) -> Result<(Json, Json)> {
    let owner = connect(&args.database_owner_url).await.context("connecting as the owner")?;
    let app_role: String =
        connect(&args.database_url).await?.query_one("select current_user::text", &[]).await?.get(0);
    let table = postgres_table::read(&owner, &args.table, args.org.as_deref(), args.sample).await?;
    postgres_table::create_copy(&owner, &table, &app_role).await.context("copying the table")?;
    let table = Arc::new(table);
    let outcome = insert(args, &table).await;
    owner.batch_execute(&format!("drop schema if exists {SCHEMA} cascade")).await?;
    let results = outcome?;
    let parameters = json!({
        "table": args.table, "batch": args.batch, "seconds": args.seconds, "connections": args.connections,
        "sampled_rows": table.sample.rows.len(), "columns": table.columns.len(),
        "partitions": table.partition_bounds.len(), "row_security": "forced",
    });
    Ok((parameters, results))
}

async fn insert(args: &PostgresArgs, table: &Arc<Table>) -> Result<Json> {
    let watched_before = args.watched.cpu_seconds();
    let started = Instant::now();
    let end = started + Duration::from_secs(args.seconds);
    let mut tasks = Vec::new();
    for index in 0..args.connections {
        tasks.push(tokio::spawn(insert_until(args.clone(), table.clone(), index, end)));
    }
    let (mut rows, mut backend_cpu) = (0u64, 0.0);
    for task in tasks {
        let (inserted, cpu) = task.await??;
        rows += inserted;
        backend_cpu += cpu;
    }
    let wall = started.elapsed().as_secs_f64();
    let mut results = json!({
        "rows": rows,
        "rows_per_s": round(rows as f64 / wall, 0),
        "backend_cpu_us_per_row": round(backend_cpu * 1e6 / rows.max(1) as f64, 2),
    });
    if let (false, Some(map)) = (args.watched.is_empty(), results.as_object_mut()) {
        let pairs = args.watched.cpu_seconds().into_iter().zip(watched_before);
        let total: f64 = pairs.map(|((_, now), (_, then))| now - then).sum();
        map.insert("postgres_cpu_us_per_row".to_owned(), json!(round(total * 1e6 / rows.max(1) as f64, 2)));
    }
    Ok(results)
}

/// One connection's rows and its backend's processor seconds.
async fn insert_until(
    args: PostgresArgs,
    table: Arc<Table>,
    index: usize,
    end: Instant,
) -> Result<(u64, f64)> {
    let mut client = connect(&args.database_url).await.context("connecting as the application")?;
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await?.get(0);
    let backend = Watched { pids: vec![u32::try_from(pid)?], trees: Vec::new() };
    let before: f64 = backend.cpu_seconds().iter().map(|(_, seconds)| seconds).sum();
    let statement = client.prepare(&table.insert_statement()).await.context("preparing the insert")?;
    let mut rows = 0;
    let (mut next, mut pass) = (0usize, index as u64);
    while Instant::now() < end {
        let batch = table.batch(&mut next, &mut pass, args.connections as u64, args.batch);
        let parameters = batch.parameters();
        let transaction = client.transaction().await?;
        transaction.batch_execute(&table.set_org_statement()).await?;
        rows += transaction.execute(&statement, &parameters).await?;
        transaction.commit().await?;
    }
    let after: f64 = backend.cpu_seconds().iter().map(|(_, seconds)| seconds).sum();
    Ok((rows, after - before))
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
