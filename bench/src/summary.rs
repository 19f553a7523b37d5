//! `summary`: copies the records of one run of a form to `<results>/<date>/` and writes their page beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::report::keep_records;

#[derive(Args, Clone, Debug)]
pub(crate) struct SummaryArgs {
    /// `embedded` or `cloud`.
    #[arg(long)]
    form: String,
    /// The folder of results.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
    /// Records written by `--json`.
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<PathBuf>,
}

/// A line of the page: what it says, where its figure stands, its unit, and the aim per form.
struct Line {
    says: &'static str,
    record: &'static str,
    pointer: &'static str,
    unit: &'static str,
    aims: (&'static str, &'static str),
}

const fn line(
    says: &'static str,
    record: &'static str,
    pointer: &'static str,
    unit: &'static str,
    aims: (&'static str, &'static str),
) -> Line {
    Line { says, record, pointer, unit, aims }
}

const LINES: [Line; 40] = [
    line(
        "Durable events/s, one org, search off",
        "load max, search off",
        "/stored_per_s",
        "/s",
        ("60,000 or half of SQLite alone", "25,000 or half of inserts alone"),
    ),
    line("Durable events/s, one org, search on", "load max, search on", "/stored_per_s", "/s", ("", "")),
    line(
        "Four orgs in turn, over HTTP/2, search off",
        "load max four orgs, search off",
        "/stored_per_s",
        "/s",
        ("60,000 or half of SQLite alone", "25,000 or half of inserts alone"),
    ),
    line("Four orgs in turn, search on", "load max four orgs, search on", "/stored_per_s", "/s", ("", "")),
    line(
        "The same over HTTP/2, 32 requests in flight, search off",
        "load max http2, search off",
        "/stored_per_s",
        "/s",
        ("", ""),
    ),
    line(
        "The same over HTTP/2, 32 requests in flight, search on",
        "load max http2, search on",
        "/stored_per_s",
        "/s",
        ("", ""),
    ),
    line(
        "Of 30,000/s offered, search off",
        "load 30000, search off",
        "/stored_per_s",
        "/s",
        ("", "25,000 or half of inserts alone"),
    ),
    line("Of 30,000/s offered, search on", "load 30000, search on", "/stored_per_s", "/s", ("", "")),
    line("SQLite alone, same rows", "sqlite-baseline", "/rows_per_s", "/s", ("", "")),
    line("PostgreSQL alone, same rows", "postgres-baseline", "/rows_per_s", "/s", ("", "")),
    line(
        "Server CPU per event, search off",
        "load max, search off",
        "/server_cpu_us_per_event",
        "us",
        ("20", "40"),
    ),
    line(
        "Server CPU per event, search on",
        "load max, search on",
        "/server_cpu_us_per_event",
        "us",
        ("36", "70"),
    ),
    line(
        "The same over HTTP/2, search off",
        "load max http2, search off",
        "/server_cpu_us_per_event",
        "us",
        ("20", "40"),
    ),
    line(
        "The same over HTTP/2, search on",
        "load max http2, search on",
        "/server_cpu_us_per_event",
        "us",
        ("36", "70"),
    ),
    line(
        "Server CPU per event, four orgs, search off",
        "load max four orgs, search off",
        "/server_cpu_us_per_event",
        "us",
        ("20", "40"),
    ),
    line(
        "Server CPU per event, four orgs, search on",
        "load max four orgs, search on",
        "/server_cpu_us_per_event",
        "us",
        ("36", "70"),
    ),
    line(
        "Server CPU per event at 30,000/s, search off",
        "load 30000, search off",
        "/server_cpu_us_per_event",
        "us",
        ("", "40"),
    ),
    line(
        "Server CPU per event at 30,000/s, search on",
        "load 30000, search on",
        "/server_cpu_us_per_event",
        "us",
        ("", "70"),
    ),
    line("Accept p99 at 10,000/s", "load 10000", "/accept/p99_ms", "ms", ("50", "50")),
    line("Requests not sent in time at 10,000/s", "load 10000", "/unsent_requests", "", ("0", "0")),
    line("Accepted to visible, p95, at 10,000/s", "load 10000", "/visible/p95_ms", "ms", ("100", "300")),
    line("Ready after first start", "startup", "/first_ready_ms", "ms", ("1000", "1000")),
    line("Ready after later starts, worst", "startup", "/later_ready_max_ms", "ms", ("1000", "1000")),
    line("Resident memory, idle", "startup", "/idle_rss_mib", "MiB", ("80", "80")),
    line("Binary", "startup", "/binary_mib", "MiB", ("60", "60")),
    line(
        "Session list, p95 (largest org, another)",
        "reads",
        "/largest_org/session_list/p95_ms",
        "ms",
        ("100", "100"),
    ),
    line("Event list, p95", "reads", "/largest_org/event_list_first_page/p95_ms", "ms", ("100", "100")),
    line(
        "Event list, deep page, p95",
        "reads",
        "/largest_org/event_list_deep_page/p95_ms",
        "ms",
        ("100", "100"),
    ),
    line(
        "Timeline of 1,000 events, p95",
        "reads",
        "/largest_org/timeline_1000_events/p95_ms",
        "ms",
        ("100", "100"),
    ),
    line("24-hour analytics, p95", "reads", "/largest_org/analytics_24h/p95_ms", "ms", ("100", "100")),
    line("90-day analytics, p95", "reads", "/largest_org/analytics_90d/p95_ms", "ms", ("50", "50")),
    line("90-day model analytics, p95", "reads", "/largest_org/analytics_llm_90d/p95_ms", "ms", ("50", "50")),
    line("Search, rare word, p95", "reads", "/largest_org/search_rare_word/p95_ms", "ms", ("100", "100")),
    line("Search, common word, p95", "reads", "/largest_org/search_common_word/p95_ms", "ms", ("100", "100")),
    line(
        "Search, CJK substring, p95",
        "reads",
        "/largest_org/search_cjk_substring/p95_ms",
        "ms",
        ("100", "100"),
    ),
    line("Search, absent word, p95", "reads", "/largest_org/search_absent_word/p95_ms", "ms", ("100", "100")),
    line("Events acknowledged under kills", "crash", "/acknowledged", "", ("", "")),
    line("of them missing", "crash", "/missing", "", ("0", "0")),
    line("of them stored twice", "crash", "/stored_twice", "", ("0", "0")),
    line("Crash run passed", "crash", "/passed", "", ("true", "true")),
];

pub(crate) fn run(args: &SummaryArgs) -> Result<()> {
    let kept = keep_records(&args.out, &args.form, &args.records)?;
    let page = page(&args.form, &kept.head, &kept.records);
    std::fs::write(&kept.page, &page)?;
    println!("{page}\nwrote {}", kept.page.display());
    Ok(())
}

fn page(form: &str, head: &str, records: &[Value]) -> String {
    let mut out = format!("# The {form} form, {head}\n\n| | measured | aim |\n|---|---|---|\n");
    for line in &LINES {
        let Some(value) = figure(records, line) else { continue };
        let aim = if form == "cloud" { line.aims.1 } else { line.aims.0 };
        out += &format!("| {} | {value} {} | {aim} |\n", line.says, line.unit);
    }
    out + &peaks(records)
}

fn figure(records: &[Value], line: &Line) -> Option<String> {
    let record = records.iter().find(|record| record["what"] == line.record)?;
    let results = &record["results"];
    let figure = results.pointer(line.pointer)?.to_string();
    let other = line.pointer.strip_prefix("/largest_org/").map(|rest| format!("/median_org/{rest}"));
    match other.and_then(|pointer| results.pointer(&pointer)) {
        Some(other) => Some(format!("{figure}, {other}")),
        None => Some(figure),
    }
}

/// The peak memory of each process over all loads.
fn peaks(records: &[Value]) -> String {
    let mut peaks: BTreeMap<String, f64> = BTreeMap::new();
    for record in records {
        for (process, mib) in record["results"]["peak_rss_mib"].as_object().into_iter().flatten() {
            let name = process.split(' ').next().unwrap_or(process).to_owned();
            let peak = peaks.entry(name).or_default();
            *peak = peak.max(mib.as_f64().unwrap_or(0.0));
        }
    }
    let aim = |name: &str| if name.starts_with("agentlens") { "512" } else { "" };
    peaks
        .iter()
        .map(|(name, mib)| format!("| Peak memory under load, {name} | {mib} MiB | {} |\n", aim(name)))
        .collect()
}
