//! A world's database, as someone with access to the machine sees it.

use std::path::{Path, PathBuf};

use tokio_postgres::{Client, NoTls};

/// Where the rows are.
pub(crate) enum Database {
    /// A file per org.
    Embedded {
        /// The data directory.
        directory: PathBuf,
    },
    /// A database of its own on the test server.
    Cloud {
        /// The test server under the owner's role.
        server_url: String,
        /// This world's database under the owner's role.
        owner_url: String,
        /// The same under the application's role.
        app_url: String,
        /// Its name.
        name: String,
    },
}

impl Database {
    pub(super) fn embedded(directory: &Path) -> Self {
        Self::Embedded { directory: directory.to_owned() }
    }

    pub(crate) async fn cloud(owner_url: &str, app_url: &str) -> Self {
        let name = format!("agentlens_test_{:016x}", rand::random::<u64>());
        let owner = connect(owner_url).await;
        owner.batch_execute(&format!("create database {name}")).await.unwrap();
        Self::Cloud {
            server_url: owner_url.to_owned(),
            owner_url: with_database(owner_url, &name),
            app_url: with_database(app_url, &name),
            name,
        }
    }

    /// The URLs of the owner's and of the application's role.
    pub(crate) fn urls(&self) -> (String, String) {
        match self {
            Self::Embedded { .. } => (String::new(), String::new()),
            Self::Cloud { owner_url, app_url, .. } => (owner_url.clone(), app_url.clone()),
        }
    }

    /// The org's file (embedded form).
    pub(crate) fn file(&self, org: &str) -> rusqlite::Connection {
        let Self::Embedded { directory } = self else { panic!("orgs share tables here") };
        let connection =
            rusqlite::Connection::open(directory.join("orgs").join(format!("{org}.db"))).unwrap();
        connection.busy_timeout(super::PATIENCE).unwrap();
        connection
    }

    /// Runs statements on an org's rows, behind the server's back.
    pub(crate) async fn execute(&self, org: &str, sql: &str) {
        match self {
            Self::Embedded { .. } => {
                self.file(org).execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
            }
            Self::Cloud { owner_url, .. } => {
                let client = client_of(owner_url, org).await;
                client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        }
    }

    /// Runs statements on the control tables, behind the server's back, in the name of an org.
    pub(crate) async fn execute_control(&self, org: &str, sql: &str) {
        match self {
            Self::Embedded { directory } => {
                let control = rusqlite::Connection::open(directory.join("control.db")).unwrap();
                control.busy_timeout(super::PATIENCE).unwrap();
                control.execute_batch(&format!("pragma foreign_keys = off; {sql}")).unwrap();
            }
            Self::Cloud { .. } => self.execute(org, &format!("set search_path = control; {sql}")).await,
        }
    }

    /// The number that a statement on an org's rows gives.
    pub(crate) async fn number(&self, org: &str, sql: &str) -> i64 {
        match self {
            Self::Embedded { .. } => self.file(org).query_row(sql, [], |row| row.get(0)).unwrap(),
            Self::Cloud { owner_url, .. } => {
                client_of(owner_url, org).await.query_one(sql, &[]).await.unwrap().get(0)
            }
        }
    }

    /// Ends all connections to this world's database and lets no new ones in (cloud form).
    pub(crate) async fn go_away(&self) {
        self.allow_connections(false).await;
        let Self::Cloud { server_url, app_url, name, .. } = self else { return };
        let (server, _) = app_url.split_once(name.as_str()).unwrap();
        let (_, database) = server_url.rsplit_once('/').unwrap();
        // The application's role ends its own connections.
        let app = connect(&format!("{server}{database}")).await;
        let end = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and usename = current_user"
        );
        app.batch_execute(&end).await.unwrap();
    }

    /// Lets connections in again.
    pub(crate) async fn come_back(&self) {
        self.allow_connections(true).await;
    }

    async fn allow_connections(&self, allow: bool) {
        let Self::Cloud { server_url, name, .. } = self else { panic!("a file is never away") };
        let sql = format!("alter database {name} allow_connections {allow}");
        connect(server_url).await.batch_execute(&sql).await.unwrap();
    }

    pub(crate) fn remove(&self) {
        let Self::Cloud { server_url, name, .. } = self else { return };
        let (server_url, name) = (server_url.clone(), name.clone());
        // A runtime of its own: this may run while the test's own runtime unwinds.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let dropping = format!("drop database if exists {name} with (force)");
                let _ = connect(&server_url).await.batch_execute(&dropping).await;
            });
        });
        let _ = removal.join();
    }
}

async fn client_of(owner_url: &str, org: &str) -> Client {
    let client = connect(owner_url).await;
    client
        .batch_execute(&format!(
            "set search_path = tenant; set app.current_org = '{org}'; set app.current_workspace = '*'"
        ))
        .await
        .unwrap();
    client
}

/// A connection that lives as long as its client.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// The same URL for another database of the server.
fn with_database(url: &str, name: &str) -> String {
    let (before_options, options) =
        url.split_once('?').map_or((url, None), |(url, options)| (url, Some(options)));
    let (server, _) = before_options.rsplit_once('/').expect("a URL that names a database");
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{server}/{name}{options}")
}
