//! Roles that row security would not hold back are refused. Making such roles takes a superuser, so this test starts a
//! PostgreSQL of its own (`AGENTLENS_TEST_POSTGRES_BIN`, see `scripts/services.sh`).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agentlens_store::{Store, StoreError};
use tempfile::TempDir;

use crate::world::{block_on, connect};

/// A PostgreSQL that trusts whoever connects.
struct Cluster {
    programs: PathBuf,
    /// Whom it runs as; none where the caller may.
    user: Option<User>,
    directory: TempDir,
    port: u16,
}

/// A user of the operating system, with the number of its group, which may have another name.
struct User {
    name: String,
    group: String,
}

impl User {
    fn named(name: String) -> Self {
        let printed = Command::new("id").args(["-g", &name]).output().unwrap();
        assert!(printed.status.success(), "there is no user {name}");
        Self { name, group: String::from_utf8(printed.stdout).unwrap().trim().to_owned() }
    }
}

impl Cluster {
    fn start() -> Option<Self> {
        let programs = PathBuf::from(std::env::var("AGENTLENS_TEST_POSTGRES_BIN").ok()?);
        let user = std::env::var("AGENTLENS_TEST_POSTGRES_USER").ok().filter(|name| !name.is_empty());
        let user = user.map(User::named);
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if let Some(user) = &user {
            assert!(Command::new("chown").arg(&user.name).arg(&data).status().unwrap().success());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { programs, user, directory, port };
        cluster
            .run("initdb", &["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]);
        let options =
            format!("-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -p {port}");
        cluster.run("pg_ctl", &["-w", "-o", &options, "start"]);
        Some(cluster)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A program of PostgreSQL, which refuses to run as root.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.programs.join(program);
        let mut command = match &self.user {
            None => Command::new(&program),
            Some(User { name, group }) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={name}"))
                    .arg(format!("--regid={group}"))
                    .arg("--clear-groups")
                    .arg(&program);
                command
            }
        };
        command.arg("-D").arg(self.data()).args(arguments).current_dir(Path::new("/"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        assert!(self.command(program, arguments).status().unwrap().success(), "{program}");
    }

    fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Whatever comes of it: a panic while unwinding would end all tests.
        let _ = self.command("pg_ctl", &["-m", "immediate", "stop"]).status();
    }
}

#[test]
fn roles_that_bypass_row_security_are_refused() {
    let Some(cluster) = Cluster::start() else {
        eprintln!(
            "AGENTLENS_TEST_POSTGRES_BIN is not set: superusers are not tested (scripts/services.sh sets it)"
        );
        return;
    };
    block_on(async {
        connect(&cluster.url("postgres", "postgres"))
            .await
            .batch_execute(
                "create role owner login createdb; create role app login; create role member login; create role heir login;
                 create role bypasser login bypassrls; create role admin superuser; create role heir_of_owner login;
                 grant bypasser to member; grant admin to heir; grant owner to heir_of_owner",
            )
            .await
            .unwrap();
        connect(&cluster.url("owner", "postgres")).await.batch_execute("create database lens").await.unwrap();
        let owner_url = cluster.url("owner", "lens");
        for (role, said) in [
            ("postgres", "superuser"),
            ("heir", "superuser"),
            ("bypasser", "bypass"),
            ("member", "bypass"),
            ("owner", "owns tables"),
            ("heir_of_owner", "owns tables"),
        ] {
            let url = cluster.url(role, "lens");
            let opened = match Store::migrate_postgres(&owner_url, Some(&url)).await {
                Ok(_) => Store::open_postgres(&url, 1, &crate::world::secret()).await,
                Err(error) => Err(error),
            };
            match opened {
                Err(StoreError::Misconfigured(text)) => assert!(text.contains(said), "{role}: {text}"),
                Err(other) => panic!("{role}: {other}"),
                Ok(_) => panic!("{role} was let in"),
            }
        }
        let app_url = cluster.url("app", "lens");
        Store::migrate_postgres(&owner_url, Some(&app_url)).await.unwrap();
        assert!(Store::open_postgres(&app_url, 1, &crate::world::secret()).await.is_ok());
    });
}
