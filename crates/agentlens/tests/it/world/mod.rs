//! A server of one test: the real binary on a free port, with its own data directory, and in the cloud form its own
//! database and its own names in Redis. It is killed when the test ends.

mod api;
mod browser;
mod database;
mod described;
mod queue;

pub(crate) use api::{Answer, Api};
pub(crate) use browser::Browser;
pub(crate) use database::{Database, connect};

use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use agentlens_domain::keys::{ApiKey, KeyKind};
use serde_json::Value;
use tempfile::TempDir;

use crate::samples::now_us;

/// How long anything that happens after an answer may take to show, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running server and the ways into it. Derefs to the [`Api`] of a key that may do everything in the org `default`.
pub(crate) struct World {
    api: Api,
    /// Where the rows are, for looking behind the server's back.
    pub(crate) database: Database,
    /// What the names in Redis begin with.
    pub(crate) redis_prefix: String,
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    server: Option<Child>,
}

/// What a command printed.
pub(crate) struct Printed {
    /// Whether it succeeded.
    pub(crate) is_success: bool,
    /// Standard output as JSON; null if it is none.
    pub(crate) json: Value,
    /// Standard output.
    pub(crate) text: String,
    /// Standard error.
    pub(crate) error: String,
}

impl World {
    /// A server on the embedded store.
    pub(crate) async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::embedded(directory.path());
        Self::start(directory, database, Vec::new(), String::new()).await
    }

    /// A server on PostgreSQL and Redis; `None` when the variables that name them are not set.
    pub(crate) async fn cloud() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let services = (
            variable("AGENTLENS_TEST_DATABASE_OWNER_URL"),
            variable("AGENTLENS_TEST_DATABASE_URL"),
            variable("AGENTLENS_TEST_REDIS_URL"),
        );
        let (Some(owner_url), Some(app_url), Some(redis_url)) = services else { return None };
        let directory = tempfile::tempdir().unwrap();
        let database = Database::cloud(&owner_url, &app_url).await;
        let redis_prefix = format!("test-{:016x}", rand::random::<u64>());
        let (owner_url, app_url) = database.urls();
        let environment = vec![
            ("AGENTLENS_DATABASE_OWNER_URL", owner_url),
            ("AGENTLENS_DATABASE_URL", app_url),
            ("AGENTLENS_REDIS_URL", redis_url),
            ("AGENTLENS_REDIS_PREFIX", redis_prefix.clone()),
            ("AGENTLENS_SECRET_KEY", "5e".repeat(32)),
        ];
        Some(Self::start(directory, database, environment, redis_prefix).await)
    }

    async fn start(
        directory: TempDir,
        database: Database,
        mut environment: Vec<(&'static str, String)>,
        redis_prefix: String,
    ) -> Self {
        let key = ApiKey::generate(KeyKind::Live).reveal().to_owned();
        let clock = directory.path().join("clock");
        std::fs::write(&clock, "0").unwrap();
        environment.push(("AGENTLENS_TEST_CLOCK", clock.display().to_string()));
        environment.push(("AGENTLENS_DATA_DIR", directory.path().display().to_string()));
        environment.push(("AGENTLENS_BOOTSTRAP_API_KEY", key.clone()));
        let mut world = Self {
            api: Api::new(String::new(), key),
            database,
            redis_prefix,
            directory,
            environment,
            server: None,
        };
        world.start_server().await;
        world
    }

    /// The time of this world's server and commands, in microseconds UTC.
    pub(crate) fn now_us(&self) -> i64 {
        now_us() + self.clock_ahead_us()
    }

    fn clock_ahead_us(&self) -> i64 {
        std::fs::read_to_string(self.directory.path().join("clock")).unwrap().parse().unwrap()
    }

    /// Moves the time of this world's server and commands forward (or back, below zero).
    pub(crate) fn move_clock(&self, by_us: i64) {
        let (clock, partial) = (self.directory.path().join("clock"), self.directory.path().join("clock.new"));
        std::fs::write(&partial, (self.clock_ahead_us() + by_us).to_string()).unwrap();
        std::fs::rename(partial, clock).unwrap();
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Whether this is the embedded form.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.database, Database::Embedded { .. })
    }

    /// Starts the server (again), on a new port.
    pub(crate) async fn start_server(&mut self) {
        self.start_server_with(&[]).await;
    }

    /// The same with further arguments.
    pub(crate) async fn start_server_with(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let arguments = [&["serve", "--listen", "127.0.0.1:0"][..], arguments].concat();
        let mut child = self.command(&arguments).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        self.server = Some(child);
        let address = match printed_address(stdout) {
            Ok(address) => address,
            Err(RecvTimeoutError::Timeout) => panic!("the server did not start:\n{}", self.log()),
            Err(RecvTimeoutError::Disconnected) => panic!("the server ended at its start:\n{}", self.log()),
        };
        self.api = Api::new(address, self.api.key().to_owned());
        assert_eq!(self.api.get("/readyz").await.status, 200);
    }

    /// Asks the server to stop, as a service manager does, and waits until it has.
    pub(crate) async fn stop_gracefully(&mut self) {
        self.signal("TERM");
        let ended = self.ended().await;
        assert!(ended.success(), "the server ended with {ended}:\n{}", self.log());
    }

    /// Sets a variable of this world's server and commands, from the next start on.
    pub(crate) fn add_environment(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.server.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        until("the server to stop", || {
            let status = server.try_wait().unwrap();
            async move { status }
        })
        .await
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Runs a command of the program on this world's data.
    pub(crate) fn run(&self, arguments: &[&str]) -> Printed {
        printed(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed, and reads the JSON that it prints.
    pub(crate) fn run_json(&self, arguments: &[&str]) -> Value {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let printed = self.run(&with_json);
        assert!(printed.is_success, "{arguments:?}: {}", printed.error);
        assert!(!printed.json.is_null(), "{arguments:?} printed no JSON: {}", printed.text);
        printed.json
    }

    /// The same way in, for another task.
    pub(crate) fn same_key(&self) -> Api {
        self.api.clone()
    }

    /// A person of the default org with a role, who has signed in with a browser.
    pub(crate) async fn person(&self, email: &str, role: &str) -> Browser {
        let made = self.run_json(&["user", "create", email, "--role", role]);
        let browser = Browser::new(&self.api);
        browser.sign_in(email, made["password"].as_str().unwrap()).await;
        browser
    }

    /// A key with the given further arguments of `key create`; its workspace is made first.
    pub(crate) fn make_key(&self, arguments: &[&str]) -> Api {
        if let Some(["--workspace", workspace]) = arguments.windows(2).find(|pair| pair[0] == "--workspace") {
            // It may be there already.
            self.run(&["workspace", "create", workspace, "--id", workspace]);
        }
        let made = self.run_json(&[&["key", "create"], arguments].concat());
        self.api.with_key(made["api_key"].as_str().unwrap())
    }

    /// A further org: its id, and a key of it that may do everything.
    pub(crate) fn org(&self, name: &str) -> (String, Api) {
        let made = self.run_json(&["org", "create", name]);
        let api = self.api.with_key(made["api_key"].as_str().unwrap());
        (made["org_id"].as_str().unwrap().to_owned(), api)
    }

    /// A command of the program with this world's settings and none of the caller's.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentlens"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AGENTLENS_")) {
            command.env_remove(name);
        }
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::null()).current_dir(self.directory.path());
        command
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// The most memory that the server ever held.
    pub(crate) fn peak_memory_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.server.as_ref().unwrap().id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

/// The address that a server prints at its start.
fn printed_address(stdout: ChildStdout) -> Result<String, RecvTimeoutError> {
    let (sender, receiver) = mpsc::channel();
    // To the end: a server must never wait for someone to read what it prints.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("running at ") {
                let _ = sender.send(address.trim().to_owned());
            }
        }
    });
    receiver.recv_timeout(START_PATIENCE)
}

fn printed(output: Output) -> Printed {
    let text = String::from_utf8(output.stdout).unwrap();
    Printed {
        is_success: output.status.success(),
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Deref for World {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            eprintln!("the server's warnings:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.database.remove();
        if let Some((_, url)) = self.environment.iter().find(|(name, _)| *name == "AGENTLENS_REDIS_URL") {
            let _ = queue::remove(url, &self.redis_prefix);
        }
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Runs a test on the embedded store.
pub(crate) fn run_embedded<F: Future<Output = ()>>(test: fn(World) -> F) {
    block_on(async { Box::pin(test(Box::pin(World::embedded()).await)).await });
}

/// Runs a test on PostgreSQL and Redis, or says that they are missing.
pub(crate) fn run_cloud<F: Future<Output = ()>>(test: fn(World) -> F) {
    static MISSING: std::sync::Once = std::sync::Once::new();
    block_on(async {
        match Box::pin(World::cloud()).await {
            Some(world) => Box::pin(test(world)).await,
            None => MISSING.call_once(|| {
                eprintln!(
                    "AGENTLENS_TEST_* is not set: the cloud form is not tested (scripts/services.sh sets it)"
                );
            }),
        }
    });
}
