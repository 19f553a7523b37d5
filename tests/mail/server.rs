//! Starts `server.py`, an SMTP server on loopback, for tests in Rust. Another crate's tests take this file in by
//! `#[path = "../../../../tests/mail/server.rs"] mod mail_server;`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value as Json;
use tempfile::TempDir;

/// A server of one test. It ends with it.
pub(crate) struct MailServer {
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    directory: TempDir,
    process: Child,
    /// The server ends when this is closed, even if the test is killed.
    _input: ChildStdin,
}

impl MailServer {
    /// Starts it; `arguments` are those of `server.py`, such as `--tls starttls`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new(python())
            .arg(root().join("tests/mail/server.py"))
            .arg(directory.path())
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server prints its port");
        Self { port, directory, process, _input: input }
    }

    /// Every mail so far, oldest first. A mail is there before its sender gets an answer.
    pub(crate) fn mails(&self) -> Vec<Json> {
        let kept = std::fs::read_to_string(self.directory.path().join("mails.jsonl")).unwrap_or_default();
        kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The authority that the server's certificate is from, unless it was started without TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The Python of an environment of its own, made when it is first needed.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let tools = root().join(".tools");
        std::fs::create_dir_all(&tools).unwrap();
        // Tests of several programs may come here at the same time.
        let lock = File::create(tools.join("venv-mail.lock")).unwrap();
        lock.lock().unwrap();
        let environment = tools.join("venv-mail");
        let status = Command::new(root().join("scripts/venv.sh"))
            .arg(&environment)
            .arg("-r")
            .arg(root().join("tests/mail/requirements.txt"))
            .status()
            .unwrap();
        assert!(status.success(), "scripts/venv.sh can't make {}", environment.display());
        environment.join("bin/python")
    })
}

/// The repository: the only folder above a crate that has this file.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|folder| folder.join("tests/mail/server.py").exists())
        .expect("the tests lie in the repository")
}
