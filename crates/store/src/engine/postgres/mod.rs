//! PostgreSQL: pools of connections under the application's role, which owns nothing and can't bypass row security.
//!
//! Every tenant statement runs in a transaction that begins by naming its org in `app.current_org` and its workspace, or `*` for
//! all of the org's, in `app.current_workspace` (see [`RowScope`]); the policies of tenant tables compare with both.

pub(crate) mod apply;
mod guard;
mod insert;
pub(crate) mod migrate;
mod spans;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Config;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

use agentlens_domain::apply::NEVER_EXPIRES_DAY;
use agentlens_domain::ids::OrgId;
use agentlens_fairness::{FairShare, Rule};

use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{Row, Value};

/// Prepared statements that a connection keeps.
const MAX_STATEMENTS: usize = 256;
/// How long a read waits for its org's turn.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long a request waits for a connection before it is told to come back.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Two pools under the application's role: reads never take the connections that writing needs.
pub(crate) struct PostgresEngine {
    writes: Pool,
    reads: Pool,
    /// Who may use how many of the connections for reading.
    turns: FairShare<OrgId>,
    /// Days of expiry that are known to have a partition.
    partitions: parking_lot::Mutex<BTreeSet<i32>>,
}

impl PostgresEngine {
    /// Connects, and refuses to go on if the role could read across orgs.
    pub(crate) async fn open(url: &str, max_connections: usize) -> Result<Self, StoreError> {
        let reading = (max_connections / 2).max(1);
        let (writes, reads) =
            (pool(url, max_connections.saturating_sub(reading).max(1))?, pool(url, reading)?);
        let turns = FairShare::new(Rule::new(reading as u64).with_floor(1));
        let engine = Self { writes, reads, turns, partitions: parking_lot::Mutex::default() };
        guard::check_role(&engine).await?;
        Ok(engine)
    }

    /// A connection to write with.
    pub(crate) async fn connection(&self) -> Result<Object, StoreError> {
        connection(&self.writes).await
    }

    /// Of days of expiry, those that are not known to have a partition.
    pub(crate) fn without_partition(&self, days: impl Iterator<Item = i32>) -> Vec<i32> {
        let days: BTreeSet<i32> = days.filter(|day| *day != NEVER_EXPIRES_DAY).collect();
        days.difference(&self.partitions.lock()).copied().collect()
    }

    /// Makes the partitions of days of expiry where they are missing.
    pub(crate) async fn ensure_partitions(
        &self,
        client: &Object,
        days: &[i32],
        today: i32,
    ) -> Result<(), StoreError> {
        for day in days {
            client.execute("select ensure_event_partition($1, $2)", &[day, &today]).await?;
            self.partitions.lock().insert(*day);
        }
        Ok(())
    }

    /// Where the oldest partition ends, if its last day is over today.
    pub(crate) async fn oldest_partition(&self, today: i32) -> Result<Option<i32>, StoreError> {
        let sql = "select min((regexp_match(c.relname, '^events_\\d+_(\\d+)$'))[1]::integer)
             from pg_inherits i join pg_class c on c.oid = i.inhrelid
             where i.inhparent = 'tenant.events'::regclass and c.relname ~ '^events_\\d+_\\d+$'";
        let row = self.connection().await?.query_one(sql, &[]).await?;
        Ok(row.try_get::<_, Option<i32>>(0)?.filter(|end_day| *end_day <= today))
    }

    /// Drops the oldest partition if it ends by a day and nobody is reading it; returns whether it was dropped.
    pub(crate) async fn drop_expired_partition(&self, end_day: i32) -> Result<bool, StoreError> {
        let client = self.connection().await?;
        let row = client.query_one("select drop_expired_event_partition($1)", &[&end_day]).await?;
        self.partitions.lock().retain(|day| *day >= end_day);
        Ok(row.try_get::<_, Option<i32>>(0)?.is_some())
    }

    /// Runs one reading statement, for one org when it is its turn, or (control tables) for none.
    pub(crate) async fn query(
        &self,
        scope: Option<RowScope<'_>>,
        sql: &str,
        args: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let Some(org) = scope.map(RowScope::org) else { return self.query_for_write(scope, sql, args).await };
        let reading = self.begin_reading(org).await?;
        let rows = query(reading.client()?, scope, sql, args).await;
        reading.finish();
        rows
    }

    /// Takes a connection for reading when it is the org's turn.
    async fn begin_reading(&self, org: &OrgId) -> Result<Reading, StoreError> {
        let turn = self.turns.take(org, 1, READ_PATIENCE).await.map_err(|_| StoreError::Busy)?;
        let client = connection(&self.reads).await?;
        Ok(Reading { client: Some(client), turn: Some(Box::new(turn)) })
    }

    /// Runs one reading statement that somebody needs who is about to write.
    pub(crate) async fn query_for_write(
        &self,
        scope: Option<RowScope<'_>>,
        sql: &str,
        args: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        query(&self.connection().await?, scope, sql, args).await
    }

    /// Runs one reading statement for an org and hands its rows over one by one, as they arrive.
    pub(crate) async fn for_each(
        &self,
        scope: RowScope<'_>,
        sql: &str,
        args: &[Value],
        step: impl FnMut(&Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reading = self.begin_reading(scope.org()).await?;
        let done = for_each(reading.client()?, scope, sql, args, step).await;
        reading.finish();
        done
    }

    /// Runs statements in one transaction; returns how many rows each changed.
    pub(crate) async fn execute_all(
        &self,
        scope: Option<RowScope<'_>>,
        statements: &[(String, Vec<Value>)],
    ) -> Result<Vec<u64>, StoreError> {
        let mut client = self.connection().await?;
        let transaction = client.transaction().await?;
        if let Some(scope) = scope {
            transaction.batch_execute(&scope.set_local()).await?;
        }
        let mut prepared = Vec::with_capacity(statements.len());
        for (sql, args) in statements {
            prepared.push((transaction.prepare_cached(sql).await?, params(args)));
        }
        // All are sent at once and run in their order: one round trip, however many they are.
        let transaction_ref = &transaction;
        let runs = prepared
            .iter()
            .map(|(statement, params)| async move { transaction_ref.execute(statement, params).await });
        let changed = futures_util::future::try_join_all(runs).await?;
        transaction.commit().await?;
        Ok(changed)
    }
}

/// A connection whose statements are bounded: filters and lists of ids make thousands of texts, and each is kept otherwise.
async fn connection(pool: &Pool) -> Result<Object, StoreError> {
    let connection = pool.get().await?;
    if connection.statement_cache.size() > MAX_STATEMENTS {
        connection.statement_cache.clear();
    }
    Ok(connection)
}

/// A read under way. If the one who waits for it goes away, its statement is cancelled before its turn is over, and its connection is
/// closed: the next read would wait behind the statement.
struct Reading {
    client: Option<Object>,
    turn: Option<Box<dyn Send>>,
}

/// How long a statement is tried to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

impl Reading {
    fn client(&self) -> Result<&Object, StoreError> {
        self.client.as_ref().ok_or_else(|| StoreError::Unavailable("the read is over".to_owned()))
    }

    /// The statement has ended: the connection goes back to its pool.
    fn finish(mut self) {
        self.client = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let (client, turn) = (self.client.take(), self.turn.take());
        let Some((client, runtime)) = client.zip(tokio::runtime::Handle::try_current().ok()) else { return };
        let cancel = client.cancel_token();
        let client = Object::take(client);
        runtime.spawn(async move {
            if let Ok(tls) = tls() {
                let _ = tokio::time::timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await;
            }
            drop(client);
            drop(turn);
        });
    }
}

async fn for_each(
    client: &Object,
    scope: RowScope<'_>,
    sql: &str,
    args: &[Value],
    mut step: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let statement = client.prepare_cached(sql).await?;
    let begin = begin_to_read(scope);
    let params = args.iter().map(|value| value as &(dyn ToSql + Sync));
    let reading = async {
        let mut rows = std::pin::pin!(client.query_raw(&statement, params).await?);
        // After a failure the rows are still taken, or the connection would wait for someone to take them.
        let mut outcome = Ok(());
        while let Some(row) = rows.as_mut().try_next().await? {
            outcome = outcome.and_then(|()| step(&Row::from_postgres(&row)?));
        }
        outcome
    };
    // The three are sent together, so that a request that is given up leaves no transaction open.
    let (begun, read, ended) =
        tokio::join!(client.batch_execute(&begin), reading, client.batch_execute("commit"));
    begun?;
    read?;
    ended?;
    Ok(())
}

async fn query(
    client: &Object,
    scope: Option<RowScope<'_>>,
    sql: &str,
    args: &[Value],
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    let params = params(args);
    let rows = match scope {
        None => client.query(&statement, &params).await?,
        Some(scope) => {
            // The three are sent together and answered in order: one round trip.
            let begin = begin_to_read(scope);
            let (begun, rows, ended) = tokio::join!(
                client.batch_execute(&begin),
                client.query(&statement, &params),
                client.batch_execute("commit")
            );
            begun?;
            let rows = rows?;
            ended?;
            rows
        }
    };
    rows.iter().map(Row::from_postgres).collect()
}

/// Reads are planned with their values and the tables as they are now: orgs differ in size, and a plan that is kept was made for
/// another one, or for a table that was still empty.
const CUSTOM_PLANS: &str = "; set local plan_cache_mode = force_custom_plan";

/// A statement that runs longer has lost its way, or its client: the server's own are bounded in rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// A pool for any role; the schemas are found through the search path.
pub(crate) fn pool(url: &str, max_connections: usize) -> Result<Pool, StoreError> {
    let mut config: Config = url
        .parse()
        .map_err(|error| StoreError::Misconfigured(format!("the database URL can't be read: {error}")))?;
    // A table holds the rows of all orgs: no statement walks one, however many of the rows an org is thought to have, or
    // however few rows there were when the plan was made. What all of them read is a page or two of an index, which is not worth
    // compiling a statement or starting workers, as the server does for an org that it takes to be large.
    config.options(format!(
        "-c search_path=tenant,control -c timezone=UTC -c enable_seqscan=off -c jit=off -c max_parallel_workers_per_gather=0 \
         -c statement_timeout={}",
        STATEMENT_TIMEOUT.as_millis()
    ));
    config.application_name("agentlens");
    config.connect_timeout(Duration::from_secs(5));
    config.keepalives_idle(Duration::from_secs(30));
    let manager =
        Manager::from_config(config, tls()?, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager)
        .max_size(max_connections)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(WAIT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Misconfigured(error.to_string()))
}

/// TLS with the system's root certificates (`SSL_CERT_FILE` names others). Whether it is used is the URL's `sslmode`:
/// `prefer` unless given, `require` for everything beyond a private network.
fn tls() -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // One unreadable certificate of the system must not keep the others from being used.
        let _ = roots.add(certificate);
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Misconfigured(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The start of a transaction of one reading statement.
fn begin_to_read(scope: RowScope<'_>) -> String {
    format!("begin read only; {}{CUSTOM_PLANS}", scope.set_local())
}

pub(crate) fn params(args: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    args.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}
