//! Private PostgreSQL and Redis instances, for the cloud form: their own folders and ports, durable
//! settings, nothing shared with what else runs on the machine.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio_postgres::NoTls;

use crate::process::{Recipe, Running, User, free_port, redis_answers, wait_until};

const START_LIMIT: Duration = Duration::from_secs(60);
/// The application's role owns nothing; the owner's makes schema, policies and grants.
const ROLES: [&str; 3] = [
    "create role agentlens_owner login nosuperuser nobypassrls",
    "create role agentlens_app login nosuperuser nobypassrls nocreatedb nocreaterole",
    "create database agentlens owner agentlens_owner",
];

/// How often Redis brings its append-only file to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AppendFsync {
    Always,
    Everysec,
}

impl AppendFsync {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
        }
    }
}

pub(crate) struct Postgres {
    port: u16,
    recipe: Recipe,
    running: Option<Running>,
}

impl Postgres {
    /// Makes the cluster, starts it, and creates the two roles and the database.
    pub(crate) fn create(bin: &Path, dir: &Path, user: Option<User>) -> Result<Self> {
        let data = dir.join("postgres");
        let log = dir.join("postgres.log");
        make_folder(&data, user)?;
        let argument = |text: &str| text.to_owned();
        let data_text = data.display().to_string();
        let init = Recipe {
            program: bin.join("initdb"),
            args: ["-D", &data_text, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]
                .map(argument)
                .to_vec(),
            env: Vec::new(),
            log: log.clone(),
            user,
        };
        init.output().context("initdb")?;
        let port = free_port()?;
        let mut args = vec!["-D".to_owned(), data_text, "-p".to_owned(), port.to_string()];
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=1GB",
            "max_wal_size=4GB",
            "max_connections=200",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
        ] {
            args.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let recipe = Recipe { program: bin.join("postgres"), args, env: Vec::new(), log, user };
        let mut postgres = Self { port, recipe, running: None };
        postgres.start()?;
        for statement in ROLES {
            postgres.execute(statement).with_context(|| format!("PostgreSQL: {statement}"))?;
        }
        Ok(postgres)
    }

    pub(crate) fn url(&self, role: &str) -> String {
        let database = if role == "postgres" { "postgres" } else { "agentlens" };
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// The superuser in the server's database, for measuring only.
    pub(crate) fn superuser_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/agentlens", self.port)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Starts it, again if a killed predecessor's memory is still being released, until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut running = self.recipe.start()?;
        let recipe = &self.recipe;
        let port = self.port;
        wait_until(START_LIMIT, || {
            if running.has_ended()
                && let Ok(again) = recipe.start()
            {
                running = again;
                std::thread::sleep(Duration::from_millis(50));
            }
            execute(port, "select 1").is_ok()
        })
        .context("PostgreSQL does not answer")?;
        self.running = Some(running);
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.kill_with_children())
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| running.end("-INT"))
    }

    fn execute(&self, statement: &str) -> Result<()> {
        execute(self.port, statement)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A postmaster killed alone would leave its children to notice by themselves.
        let _ = self.kill();
    }
}

fn execute(port: u16, statement: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?connect_timeout=2");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client.batch_execute(statement).await?)
    })
}

pub(crate) struct Redis {
    port: u16,
    recipe: Recipe,
    running: Option<Running>,
}

impl Redis {
    pub(crate) fn create(program: &Path, dir: &Path, append: AppendFsync) -> Result<Self> {
        let data = dir.join("redis");
        make_folder(&data, None)?;
        let port = free_port()?;
        let settings = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--dir", data.display().to_string()),
            ("--appendonly", "yes".to_owned()),
            ("--appendfsync", append.name().to_owned()),
            ("--save", String::new()),
            ("--daemonize", "no".to_owned()),
        ];
        let args = settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let recipe = Recipe {
            program: program.to_owned(),
            args,
            // Some hosts name a locale that is not installed.
            env: vec![("LC_ALL".to_owned(), "C".to_owned())],
            log: dir.join("redis.log"),
            user: None,
        };
        let mut redis = Self { port, recipe, running: None };
        redis.start()?;
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let running = self.recipe.start()?;
        let port = self.port;
        wait_until(START_LIMIT, || redis_answers(port)).context("Redis does not answer")?;
        self.running = Some(running);
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |mut running| running.kill())
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| running.end("-TERM"))
    }
}

fn make_folder(path: &PathBuf, user: Option<User>) -> Result<()> {
    std::fs::create_dir_all(path)?;
    if let Some(user) = user {
        // The other user must be able to pass through the folder above.
        if let Some(parent) = path.parent() {
            std::fs::set_permissions(parent, Permissions::from_mode(0o711))?;
        }
        chown(path, Some(user.uid), Some(user.gid))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
