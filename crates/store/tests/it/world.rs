//! A store of one test.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agentlens_domain::batches::Batch;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::{OrgId, WorkspaceId};
use agentlens_domain::keys::ServerSecret;
use agentlens_domain::permissions::Caller;
use agentlens_domain::rollups::{Dimension, Tier};
use agentlens_store::{ApplyReport, CellQuery, Org, Store, Workspace};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::batches::NOW_US;

/// A store with two orgs.
pub(crate) struct World {
    /// The store.
    pub(crate) store: Store,
    /// Its place on the test server (PostgreSQL only).
    pub(crate) database: Option<Database>,
    _directory: Option<TempDir>,
}

/// A database of its own on the test server.
pub(crate) struct Database {
    server_url: String,
    /// Under the owner's role.
    pub(crate) owner_url: String,
    /// Under the application's role.
    pub(crate) app_url: String,
    name: String,
}

impl World {
    /// On SQLite.
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_sqlite(directory.path(), &crate::world::secret()).await.unwrap();
        Self { store, database: None, _directory: Some(directory) }
    }

    /// On PostgreSQL; `None` when there is no test server.
    pub(crate) async fn postgres() -> Option<Self> {
        let database = Database::make().await?;
        let steps = Store::migrate_postgres(&database.owner_url, Some(&database.app_url)).await.unwrap();
        assert!(steps > 0);
        // Tests move time: days that have not come may expire.
        let clock = "insert into control.settings (name, value) values ('test_clock', 'on')";
        connect(&database.owner_url).await.batch_execute(clock).await.unwrap();
        let store = Store::open_postgres(&database.app_url, 4, &crate::world::secret()).await.unwrap();
        Some(Self { store, database: Some(database), _directory: None })
    }

    /// The store opened once more: nothing that it knew is remembered.
    pub(crate) async fn reopened(&self) -> Store {
        match (&self.database, &self._directory) {
            (Some(database), _) => Store::open_postgres(&database.app_url, 4, &secret()).await.unwrap(),
            (None, Some(directory)) => Store::open_sqlite(directory.path(), &secret()).await.unwrap(),
            (None, None) => panic!("a store is somewhere"),
        }
    }

    /// The directory of the embedded store.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self._directory.as_ref().unwrap().path()
    }

    /// A table with a copy of another, from where changes are taken back.
    pub(crate) fn kept(&self, table: &str) -> String {
        if self.store.is_embedded() { format!("kept_{table}") } else { format!("public.kept_{table}") }
    }

    /// Copies a table of an org there.
    pub(crate) async fn keep(&self, org: &Org, table: &str) {
        let kept = self.kept(table);
        match &self.database {
            Some(database) => {
                let copy = format!(
                    "set search_path = tenant; set app.current_org = '{}'; set app.current_workspace = '*'; create table {kept} as select * from {table};
                     grant usage on schema public to public; grant select on {kept} to public",
                    org.id()
                );
                connect(&database.owner_url).await.batch_execute(&copy).await.unwrap();
            }
            None => {
                self.by_hand(org, &format!("create table {kept} as select * from {table}")).await;
            }
        }
    }

    /// Changes an org's rows as someone with access to the database could, without the server.
    pub(crate) async fn by_hand(&self, org: &Org, sql: &str) -> u64 {
        match (&self.database, &self._directory) {
            (Some(database), _) => {
                let app = connect(&database.app_url).await;
                app.batch_execute(&format!(
                    "set search_path = tenant; set app.current_org = '{}'; set app.current_workspace = '*'",
                    org.id()
                ))
                .await
                .unwrap();
                app.execute(sql, &[]).await.unwrap()
            }
            (None, Some(directory)) => {
                let path = directory.path().join("orgs").join(format!("{}.db", org.id()));
                let file = rusqlite::Connection::open(path).unwrap();
                file.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                u64::try_from(file.execute(sql, []).unwrap()).unwrap()
            }
            (None, None) => panic!("a store is somewhere"),
        }
    }

    /// Changes rows that the server never changes, as someone who owns the database could.
    pub(crate) async fn by_owner(&self, org: &Org, sql: &str) -> u64 {
        match &self.database {
            Some(database) => self.as_owner(database, org.id().as_str(), sql).await,
            None => self.by_hand(org, sql).await,
        }
    }

    /// Changes rows of the control tables, which may belong to an org.
    pub(crate) async fn control_by_hand(&self, org: &str, sql: &str) -> u64 {
        match (&self.database, &self._directory) {
            (Some(database), _) => self.as_owner(database, org, sql).await,
            (None, Some(directory)) => {
                let file = rusqlite::Connection::open(directory.path().join("control.db")).unwrap();
                file.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                u64::try_from(file.execute(sql, []).unwrap()).unwrap()
            }
            (None, None) => panic!("a store is somewhere"),
        }
    }

    async fn as_owner(&self, database: &Database, org: &str, sql: &str) -> u64 {
        let owner = connect(&database.owner_url).await;
        let begin = format!(
            "set search_path = tenant, control; set app.current_org = '{org}'; set app.current_workspace = '*'"
        );
        owner.batch_execute(&begin).await.unwrap();
        owner.execute(sql, &[]).await.unwrap()
    }

    /// The handle of an org, which is made when it is not there.
    pub(crate) async fn org(&self, name: &str) -> Org {
        let org = OrgId::parse(name).unwrap();
        let store = self.store.clone().with_clock(Clock::manual(NOW_US).clock());
        store.control().ensure_org(&Caller::service("test", &org), name).await.unwrap();
        self.store.org(&org).await.unwrap()
    }
}

/// The server's secret, the same for every store of a test.
pub(crate) fn secret() -> ServerSecret {
    ServerSecret::parse(&"5e".repeat(32)).unwrap()
}

/// Workspaces by their names.
pub(crate) trait Workspaces {
    /// The handle of a workspace.
    fn ws(&self, name: &str) -> Workspace;
}

impl Workspaces for Org {
    fn ws(&self, name: &str) -> Workspace {
        self.workspace(&WorkspaceId::parse(name).unwrap())
    }
}

/// Queries that together ask for every cell of a workspace.
pub(crate) fn cell_queries() -> Vec<CellQuery> {
    let dimensions = [Dimension::Total, Dimension::Agent, Dimension::Model, Dimension::Tool, Dimension::User];
    let query = |tier, dimension| CellQuery {
        tier,
        dimension,
        environment: None,
        agent_id: None,
        provider: None,
        name: None,
        from_us: 0,
        to_us: i64::MAX,
    };
    let of_tier = |tier| dimensions.map(|dimension| query(tier, dimension));
    [Tier::Hour, Tier::Day].into_iter().flat_map(of_tier).collect()
}

/// Applies batches that must be good.
pub(crate) async fn apply(org: &Org, batches: Vec<Batch>) -> ApplyReport {
    apply_at(org, NOW_US, batches).await
}

/// The same at an instant.
pub(crate) async fn apply_at(org: &Org, now_us: i64, batches: Vec<Batch>) -> ApplyReport {
    org.apply(Arc::new(batches), now_us).await.unwrap()
}

impl Database {
    /// An empty one; `None` when there is no test server.
    pub(crate) async fn make() -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let owner_url = variable("AGENTLENS_TEST_DATABASE_OWNER_URL")?;
        let app_url = variable("AGENTLENS_TEST_DATABASE_URL")?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("agentlens_store_{}_{count}", std::process::id());
        let server = connect(&owner_url).await;
        server.batch_execute(&format!("drop database if exists {name} with (force)")).await.unwrap();
        server.batch_execute(&format!("create database {name}")).await.unwrap();
        Some(Self {
            server_url: owner_url.clone(),
            owner_url: with_database(&owner_url, &name),
            app_url: with_database(&app_url, &name),
            name,
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server_url, name) = (self.server_url.clone(), self.name.clone());
        let removal = std::thread::spawn(move || {
            block_on(async {
                let dropping = format!("drop database if exists {name} with (force)");
                let _ = connect(&server_url).await.batch_execute(&dropping).await;
            });
        });
        let _ = removal.join();
    }
}

/// A connection that lives as long as its client.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

fn with_database(url: &str, name: &str) -> String {
    let (before, options) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = before.rsplit_once('/').unwrap();
    if options.is_empty() { format!("{server}/{name}") } else { format!("{server}/{name}?{options}") }
}

/// Runs to the end.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Runs a test on SQLite.
pub(crate) fn run_sqlite<F: Future<Output = ()>>(test: fn(World) -> F) {
    block_on(async { Box::pin(test(World::sqlite().await)).await });
}

/// Runs a test on PostgreSQL, or says that there is none.
pub(crate) fn run_postgres<F: Future<Output = ()>>(test: fn(World) -> F) {
    block_on(async {
        match Box::pin(World::postgres()).await {
            Some(world) => Box::pin(test(world)).await,
            None => say_missing(),
        }
    });
}

fn say_missing() {
    static MISSING: std::sync::Once = std::sync::Once::new();
    MISSING.call_once(|| {
        eprintln!("AGENTLENS_TEST_DATABASE_* is not set: PostgreSQL is not tested (see scripts/services.sh)")
    });
}
