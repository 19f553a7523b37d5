//! The record every subcommand leaves: what was measured, on which machine, when, at which commit,
//! with which parameters, and the figures.
//!
//! A record never names a path, a host or a key, so it can be committed as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

/// Prints the figures as a table and, when a file is named, writes the whole record there as JSON.
pub(crate) fn publish(
    what: &str,
    parameters: &Value,
    results: &Value,
    json_file: Option<&Path>,
) -> Result<()> {
    println!("\n{what}");
    print_table(results);
    let Some(path) = json_file else { return Ok(()) };
    let record = json!({
        "what": what,
        "machine": machine(),
        "date": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "commit": commit(),
        "parameters": parameters,
        "results": results,
    });
    let text = serde_json::to_string_pretty(&record)?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

/// The records of one run, as they are kept.
pub(crate) struct Kept {
    pub(crate) records: Vec<Value>,
    /// What the page says of all of them: date, machine, commit.
    pub(crate) head: String,
    /// Where the page goes.
    pub(crate) page: PathBuf,
}

/// Copies the records to `<results>/<date>/<name>-<file>`; their page belongs beside them.
pub(crate) fn keep_records(results: &Path, name: &str, files: &[PathBuf]) -> Result<Kept> {
    let records = files.iter().map(|path| read_record(path)).collect::<Result<Vec<_>>>()?;
    let first = records.first().context("no record")?;
    let commits: BTreeSet<&str> = records.iter().filter_map(|record| record["commit"].as_str()).collect();
    ensure!(commits.len() == 1, "the records are of different commits: {commits:?}");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let folder = results.join(&date);
    std::fs::create_dir_all(&folder)?;
    for path in files {
        let file = path.file_name().context("a record is a file")?.to_string_lossy().into_owned();
        std::fs::copy(path, folder.join(format!("{name}-{file}")))?;
    }
    let machine = &first["machine"];
    let head = format!(
        "{date}\n\n{}, {} cores shared with the generator, {} GiB; commit {}. Made by `bench/run.sh`; how each figure is \
         measured: [../../README.md](../../README.md).",
        machine["cpu"].as_str().unwrap_or("unknown"),
        machine["cores"],
        machine["memory_gib"],
        commits.first().unwrap_or(&"unknown")
    );
    Ok(Kept { head, page: folder.join(format!("{name}.md")), records })
}

fn read_record(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a record", path.display()))
}

/// The processor, how many cores this process may use, and the memory.
pub(crate) fn machine() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: f64 =
        field(&meminfo, "MemTotal").and_then(|v| v.split(' ').next()?.parse().ok()).unwrap_or(0.0);
    json!({
        "cpu": field(&cpuinfo, "model name").unwrap_or("unknown"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": round(memory_kib / 1048576.0, 1),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(name))?.split_once(':').map(|(_, value)| value.trim())
}

/// The commit the working tree stands on; `+changes` says that tracked files differ from it.
fn commit() -> String {
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|out| !out.is_empty());
    if changed { head + "+changes" } else { head }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Rounds for print: figures with fifteen digits claim a precision no measurement has.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// One line per figure; the figures of a latency summary share one line.
pub(crate) fn print_table(results: &Value) {
    let mut rows = Vec::new();
    flatten("", results, &mut rows);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        println!("  {name:width$}  {value}");
    }
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if map.keys().any(|key| key.starts_with("p50")) => {
            rows.push((prefix.to_owned(), one_line(map)));
        }
        Value::Object(map) => {
            for (key, inner) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, inner, rows);
            }
        }
        Value::String(text) => rows.push((prefix.to_owned(), text.clone())),
        other => rows.push((prefix.to_owned(), other.to_string())),
    }
}

fn one_line(map: &Map<String, Value>) -> String {
    let cells: Vec<String> = map
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key} {text}"),
            other => format!("{key} {other}"),
        })
        .collect();
    cells.join("   ")
}
