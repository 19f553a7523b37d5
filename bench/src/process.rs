//! Starting, killing and ending child processes, and asking whether they are ready.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::procstat;

const ASK_TIMEOUT: Duration = Duration::from_millis(500);
const END_LIMIT: Duration = Duration::from_secs(30);

/// The user a child runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// PostgreSQL refuses to run as root: then the first of these names that exists is used.
    pub(crate) fn other_than_root(names: &[&str]) -> Result<Option<Self>> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let user = names.iter().find_map(|name| Self::find(&passwd, name));
        Ok(Some(user.context("root needs another user to run PostgreSQL as: --run-as NAME")?))
    }

    fn find(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

/// How a process is started, as often as need be.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) log: PathBuf,
    pub(crate) user: Option<User>,
}

impl Recipe {
    pub(crate) fn start(&self) -> Result<Running> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.command();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Running { child: child.with_context(|| format!("starting {}", self.program.display()))? })
    }

    /// Runs to the end and returns what was printed.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self.command().stdin(Stdio::null()).output()?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "{} {} failed: {stderr}{stdout}",
            self.program.display(),
            self.args.join(" ")
        );
        Ok(stdout.into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // The caller's own settings must not reach what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AGENTLENS_")) {
                command.env_remove(name);
            }
        }
        command.args(&self.args).envs(self.env.iter().cloned());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid).current_dir("/");
        }
        command
    }
}

/// A child process; killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGKILL to the process and all its children, parent first, as a power cut would.
    pub(crate) fn kill_with_children(&mut self) -> Result<()> {
        let children = procstat::children(self.pid());
        self.kill()?;
        if !children.is_empty() {
            let pids = children.iter().map(u32::to_string);
            Command::new("kill").arg("-9").args(pids).stderr(Stdio::null()).status()?;
        }
        wait_until(END_LIMIT, || !children.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()))
    }

    /// Asks the process to end and waits for it.
    pub(crate) fn end(mut self, signal: &str) -> Result<()> {
        Command::new("kill").args([signal, &self.pid().to_string()]).stderr(Stdio::null()).status()?;
        wait_until(END_LIMIT, || self.has_ended()).context("it did not end when asked to")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port nobody listens on at this moment.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether `GET /readyz` answers 200.
pub(crate) fn is_ready(port: u16) -> bool {
    ask(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}

/// Whether Redis answers and has finished loading.
pub(crate) fn redis_answers(port: u16) -> bool {
    ask(port, b"PING\r\n").is_some_and(|answer| answer.starts_with(b"+PONG"))
}

fn ask(port: u16, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), ASK_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(ASK_TIMEOUT)).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = vec![0; 64];
    let bytes = stream.read(&mut answer).ok()?;
    answer.truncate(bytes);
    Some(answer)
}

/// Asks every two milliseconds until it holds.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !holds() {
        ensure!(Instant::now() < end, "still not so after {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
