//! A whole AgentLens with all it needs, started from nothing: the embedded form (one process) or the
//! cloud form (PostgreSQL, Redis, and the server in one process or as gateway and worker).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::keys::find_key;
use crate::process::{Recipe, Running, User, free_port, is_ready, wait_until};
use crate::services::{AppendFsync, Postgres, Redis};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// After so many ends while a server is waited for, nothing is started again.
const MOST_ENDS: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// One process on SQLite.
    Embedded,
    /// PostgreSQL and Redis.
    Cloud,
}

/// Which processes the cloud form has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Roles {
    /// One process with every role.
    Together,
    /// A gateway and a worker.
    Split,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct StackArgs {
    /// The agentlens binary.
    #[arg(long, value_name = "FILE")]
    pub(crate) server: PathBuf,
    #[arg(long, default_value = "embedded")]
    pub(crate) form: Form,
    /// An empty or missing folder for all data and logs; a temporary one by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Folder with `initdb` and `postgres`; by default they are found on the PATH.
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
    #[arg(long, value_name = "FILE", default_value = "redis-server")]
    pub(crate) redis_server: PathBuf,
    #[arg(long, default_value = "everysec")]
    pub(crate) appendfsync: AppendFsync,
    /// The user PostgreSQL runs as when this runs as root; `postgres` or `nobody` by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) run_as: Option<String>,
    /// A further environment variable of the server (repeatable).
    #[arg(long = "server-env", value_name = "NAME=VALUE")]
    pub(crate) server_env: Vec<String>,
    /// A further argument of `agentlens serve` (repeatable).
    #[arg(long = "server-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_args: Vec<String>,
}

/// What can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The embedded server, or the gateway, or the one process of the cloud form.
    Server,
    Worker,
    Redis,
    Postgres,
}

/// Where the services of the cloud form listen.
pub(crate) struct ServiceUrls {
    /// As the application's role.
    pub(crate) database: String,
    /// As the superuser, for measuring only.
    pub(crate) superuser: String,
    pub(crate) redis: String,
}

pub(crate) struct Stack {
    pub(crate) port: u16,
    pub(crate) key: String,
    program: PathBuf,
    dir: PathBuf,
    env: Vec<(String, String)>,
    server: Recipe,
    worker: Option<Recipe>,
    server_running: Option<Running>,
    worker_running: Option<Running>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    // Removed with all data when the stack goes; declared last, so after the processes.
    _temporary: Option<tempfile::TempDir>,
}

impl Stack {
    /// Prepares and starts everything and waits until the server is ready.
    pub(crate) fn start(args: &StackArgs, roles: Roles) -> Result<Self> {
        let (dir, temporary) = folder(args.dir.as_deref())?;
        let mut stack = Self {
            port: free_port()?,
            key: String::new(),
            program: args
                .server
                .canonicalize()
                .with_context(|| format!("no binary at {}", args.server.display()))?,
            env: vec![("AGENTLENS_DATA_DIR".to_owned(), dir.join("data").display().to_string())],
            server: serve_recipe(args, &dir, "server"),
            worker: None,
            server_running: None,
            worker_running: None,
            postgres: None,
            redis: None,
            dir,
            _temporary: temporary,
        };
        if args.form == Form::Cloud {
            stack.start_services(args)?;
        }
        stack.key =
            find_key(&stack.command(&["key", "generate"])?).context("`key generate` printed no key")?;
        stack.write_recipes(args, roles)?;
        stack.revive(Part::Server)?;
        stack.wait_ready()?;
        if stack.worker.is_some() {
            stack.revive(Part::Worker)?;
        }
        Ok(stack)
    }

    fn start_services(&mut self, args: &StackArgs) -> Result<()> {
        let mut names = vec!["postgres", "nobody"];
        if let Some(name) = &args.run_as {
            names = vec![name];
        }
        let bin = args.pg_bin.as_ref().map_or_else(|| Ok(PathBuf::new()), std::fs::canonicalize)?;
        let postgres = Postgres::create(&bin, &self.dir, User::other_than_root(&names)?)?;
        let redis = Redis::create(&args.redis_server, &self.dir, args.appendfsync)?;
        for (name, value) in [
            ("AGENTLENS_DATABASE_URL", postgres.url("agentlens_app")),
            ("AGENTLENS_DATABASE_OWNER_URL", postgres.url("agentlens_owner")),
            ("AGENTLENS_REDIS_URL", redis.url()),
            ("AGENTLENS_SECRET_KEY", "5e".repeat(32)),
        ] {
            self.env.push((name.to_owned(), value));
        }
        (self.postgres, self.redis) = (Some(postgres), Some(redis));
        Ok(())
    }

    fn write_recipes(&mut self, args: &StackArgs, roles: Roles) -> Result<()> {
        let mut env = self.env.clone();
        env.push(("AGENTLENS_BOOTSTRAP_API_KEY".to_owned(), self.key.clone()));
        for pair in &args.server_env {
            let (name, value) = pair.split_once('=').context("--server-env is NAME=VALUE")?;
            env.push((name.to_owned(), value.to_owned()));
        }
        let split = args.form == Form::Cloud && roles == Roles::Split;
        let serve = |log: &str, port: u16, role: &str| {
            let mut recipe = serve_recipe(args, &self.dir, log);
            recipe.args.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
            recipe.args.extend(["--role".to_owned(), role.to_owned()]);
            recipe.args.extend(args.server_args.iter().cloned());
            recipe.env.clone_from(&env);
            recipe
        };
        self.server = serve("server", self.port, if split { "gateway" } else { "all" });
        self.worker = split.then(free_port).transpose()?.map(|port| serve("worker", port, "worker"));
        Ok(())
    }

    /// Runs a command of the binary with the stack's stores, and returns what it printed.
    pub(crate) fn command(&self, args: &[&str]) -> Result<String> {
        let recipe = Recipe {
            program: self.program.clone(),
            args: args.iter().map(|&text| text.to_owned()).collect(),
            env: self.env.clone(),
            log: self.dir.join("command.log"),
            user: None,
        };
        recipe.output()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Of the cloud form.
    pub(crate) fn service_urls(&self) -> Option<ServiceUrls> {
        let (postgres, redis) = (self.postgres.as_ref()?, self.redis.as_ref()?);
        let (database, superuser) = (postgres.url("agentlens_app"), postgres.superuser_url());
        Some(ServiceUrls { database, superuser, redis: redis.url() })
    }

    pub(crate) fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Server];
        if self.worker.is_some() {
            parts.push(Part::Worker);
        }
        if self.postgres.is_some() {
            parts.extend([Part::Redis, Part::Postgres]);
        }
        parts
    }

    pub(crate) fn pid(&self, part: Part) -> Option<u32> {
        match part {
            Part::Server => self.server_running.as_ref().map(Running::pid),
            Part::Worker => self.worker_running.as_ref().map(Running::pid),
            Part::Redis => self.redis.as_ref().and_then(Redis::pid),
            Part::Postgres => self.postgres.as_ref().and_then(Postgres::pid),
        }
    }

    /// SIGKILL. The part stays down until it is revived.
    pub(crate) fn kill(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Server => self.server_running.take().map_or(Ok(()), |mut running| running.kill()),
            Part::Worker => self.worker_running.take().map_or(Ok(()), |mut running| running.kill()),
            Part::Redis => self.redis.as_mut().map_or(Ok(()), Redis::kill),
            Part::Postgres => self.postgres.as_mut().map_or(Ok(()), Postgres::kill),
        }
        .with_context(|| format!("killing {part:?}"))
    }

    pub(crate) fn revive(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Server => self.server_running = Some(self.server.start()?),
            Part::Worker => self.worker_running = self.worker.as_ref().map(Recipe::start).transpose()?,
            Part::Redis => self.redis.as_mut().map_or(Ok(()), Redis::start)?,
            Part::Postgres => self.postgres.as_mut().map_or(Ok(()), Postgres::start)?,
        }
        Ok(())
    }

    /// Starts again what ended without being killed, as a supervisor would, and says what it was.
    pub(crate) fn revive_ended(&mut self) -> Result<Vec<Part>> {
        let mut ended = Vec::new();
        if self.server_running.as_mut().is_some_and(Running::has_ended) {
            ended.push(Part::Server);
        }
        if self.worker_running.as_mut().is_some_and(Running::has_ended) {
            ended.push(Part::Worker);
        }
        for part in &ended {
            self.revive(*part)?;
        }
        Ok(ended)
    }

    /// Waits until the server is ready; starts what ends meanwhile again, and returns how often that was.
    pub(crate) fn wait_ready(&mut self) -> Result<usize> {
        let port = self.port;
        let mut ends = 0;
        let waited = wait_until(READY_LIMIT, || {
            if ends < MOST_ENDS {
                let ended = self.revive_ended().map_or(0, |ended| ended.len());
                if ended > 0 {
                    ends += ended;
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            is_ready(port)
        });
        waited.with_context(|| format!("the server is not ready; its log ends: {}", self.log_tail()))?;
        Ok(ends)
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.server.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Ends the server's processes in good order; the services go on.
    pub(crate) fn end_server(&mut self) -> Result<()> {
        if let Some(running) = self.worker_running.take() {
            running.end("-TERM").context("ending the worker")?;
        }
        self.server_running.take().map_or(Ok(()), |running| running.end("-TERM").context("ending the server"))
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.end_server()?;
        self.redis.as_mut().map_or(Ok(()), Redis::end)?;
        self.postgres.as_mut().map_or(Ok(()), Postgres::end)
    }
}

fn serve_recipe(args: &StackArgs, dir: &Path, log: &str) -> Recipe {
    let data = dir.join("data").display().to_string();
    Recipe {
        program: args.server.canonicalize().unwrap_or_else(|_| args.server.clone()),
        args: vec!["serve".to_owned(), "--data-dir".to_owned(), data],
        env: Vec::new(),
        log: dir.join(format!("{log}.log")),
        user: None,
    }
}

fn folder(dir: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    let Some(dir) = dir else {
        let temporary = tempfile::tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    if dir.exists() && std::fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty", dir.display());
    }
    std::fs::create_dir_all(dir)?;
    Ok((dir.canonicalize()?, None))
}
