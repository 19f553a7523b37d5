//! API keys given on the command line or in a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Keys {
    /// An API key (repeatable; several keys of several orgs take turns).
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// A file with one key per line: bare, or the JSON that `agentlens org create --json` prints.
    #[arg(long, value_name = "FILE")]
    pub(crate) keys_file: Option<PathBuf>,
}

impl Keys {
    pub(crate) fn load(&self) -> Result<Vec<String>> {
        let mut keys = self.keys.clone();
        if let Some(path) = &self.keys_file {
            keys.extend(read(path)?);
        }
        if keys.is_empty() {
            bail!("give --key or --keys-file");
        }
        Ok(keys)
    }
}

fn read(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            find_key(line).with_context(|| "a line of the keys file holds no al_live_ or al_test_ key")
        })
        .collect()
}

/// The first thing in the text that looks like an AgentLens key.
pub(crate) fn find_key(text: &str) -> Option<String> {
    let start = text.find("al_live_").or_else(|| text.find("al_test_"))?;
    let rest = &text[start..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}
