//! `otlp-summary`: copies the records of a run of `bench/run.sh otlp` to `<results>/<date>/` and writes their page
//! beside them: our own figures with their bars, and one line per product that took the same spans.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::report::keep_records;

/// Records of the comparison are called so, with the product's name behind.
const BESIDE: &str = "otlp beside: ";

#[derive(Args, Clone, Debug)]
pub(crate) struct OtlpSummaryArgs {
    /// The folder of results.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    out: PathBuf,
    /// Records written by `--json`.
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<PathBuf>,
}

/// A line of our own figures: what it says, which record has it and where, unit, bar.
type Line = (&'static str, &'static str, &'static str, &'static str, &'static str);

const LINES: [Line; 32] = [
    ("Durable spans/s, protobuf", "otlp max", "/stored_per_s", "/s", "30,000"),
    ("Server CPU per span", "otlp max", "/server_cpu_us_per_span", "us", ""),
    ("Durable spans/s over HTTP/2, 16 requests in flight", "otlp max http2", "/stored_per_s", "/s", "30,000"),
    ("Server CPU per span, the same", "otlp max http2", "/server_cpu_us_per_span", "us", ""),
    ("Durable spans/s, four orgs in turn", "otlp max four orgs", "/stored_per_s", "/s", "30,000"),
    ("Server CPU per span, four orgs", "otlp max four orgs", "/server_cpu_us_per_span", "us", ""),
    ("Durable spans/s, search off", "otlp max, search off", "/stored_per_s", "/s", "30,000"),
    ("Server CPU per span, search off", "otlp max, search off", "/server_cpu_us_per_span", "us", ""),
    (
        "Durable spans/s, four orgs, search off",
        "otlp max four orgs, search off",
        "/stored_per_s",
        "/s",
        "30,000",
    ),
    (
        "Server CPU per span, four orgs, search off",
        "otlp max four orgs, search off",
        "/server_cpu_us_per_span",
        "us",
        "",
    ),
    ("Accept p50", "otlp max", "/accept/p50_ms", "ms", ""),
    ("Accept p99", "otlp max", "/accept/p99_ms", "ms", ""),
    ("Accepted and not stored", "otlp max", "/accepted_not_stored", "spans", "0"),
    ("Generator's CPU per span", "otlp max", "/generator/cpu_us_per_span", "us", "2"),
    ("Durable spans/s, JSON", "otlp max json", "/stored_per_s", "/s", ""),
    ("Server CPU per span, JSON", "otlp max json", "/server_cpu_us_per_span", "us", ""),
    ("Durable spans/s, protobuf with gzip", "otlp max gzip", "/stored_per_s", "/s", ""),
    ("Server CPU per span, protobuf with gzip", "otlp max gzip", "/server_cpu_us_per_span", "us", ""),
    ("Accept p99 at 5,000 spans/s", "otlp 5000", "/accept/p99_ms", "ms", ""),
    ("Decode and normalise, protobuf, median", "normalise", "/load_protobuf/total_us/p50", "us", "15"),
    ("Decode and normalise, JSON, median", "normalise", "/load_json/total_us/p50", "us", "15"),
    (
        "Decode and normalise, captures of real clients, median",
        "normalise",
        "/corpus/total_us/p50",
        "us",
        "15",
    ),
    ("Star of 100,000 spans: first page, p95", "trace-page", "/star/first_page/p95_ms", "ms", "300"),
    ("Star: next page, p95", "trace-page", "/star/next_page/p95_ms", "ms", "300"),
    ("Star: page behind 80,000 children, p95", "trace-page", "/star/late_page/p95_ms", "ms", "300"),
    ("Star: below a span with 49 generations, p95", "trace-page", "/star/children_page/p95_ms", "ms", "300"),
    ("Tree of 100,000 spans: first page, p95", "trace-page", "/tree/first_page/p95_ms", "ms", "300"),
    ("Tree: next page, p95", "trace-page", "/tree/next_page/p95_ms", "ms", "300"),
    ("Tree: children of a span, p95", "trace-page", "/tree/children_page/p95_ms", "ms", "300"),
    ("100,000 roots: first page, p95", "trace-page", "/roots/first_page/p95_ms", "ms", "300"),
    ("100,000 roots: next page, p95", "trace-page", "/roots/next_page/p95_ms", "ms", "300"),
    ("100,000 roots: page behind 80,000, p95", "trace-page", "/roots/late_page/p95_ms", "ms", "300"),
];

/// A column of the comparison: its head, where its figure is, and the unit.
const COLUMNS: [(&str, &str, &str); 11] = [
    ("ready after", "/ready_s", "s"),
    ("memory idle", "/idle_mib", "MiB"),
    ("spans sent and accepted", "/accepted_spans", ""),
    ("accepted/s", "/accepted_per_s", ""),
    ("stored/s", "/stored_per_s", ""),
    ("waiting at the last answer", "/waiting_at_last_answer", ""),
    ("accepted, never stored", "/accepted_not_stored", ""),
    ("server CPU per stored span", "/server_cpu_us_per_span", "us"),
    ("accept p50", "/accept/p50_ms", "ms"),
    ("accept p99", "/accept/p99_ms", "ms"),
    ("disk per span", "/disk_bytes_per_span", "B"),
];

pub(crate) fn run(args: &OtlpSummaryArgs) -> Result<()> {
    let kept = keep_records(&args.out, "otlp", &args.records)?;
    let page = page(&kept.head, &kept.records);
    std::fs::write(&kept.page, &page)?;
    println!("{page}\nwrote {}", kept.page.display());
    Ok(())
}

fn page(head: &str, records: &[Value]) -> String {
    let mut out =
        format!("# OTLP, {head}\n\n## AgentLens, embedded\n\n| | measured | bar |\n|---|---|---|\n");
    for (says, record, pointer, unit, bar) in LINES {
        let record = records.iter().find(|other| other["what"] == record);
        let Some(value) = record.and_then(|record| record["results"].pointer(pointer)) else { continue };
        out += &format!("| {says} | {value} {unit} | {bar} |\n");
    }
    out + &beside(records)
}

/// One line per product.
fn beside(records: &[Value]) -> String {
    let rows: Vec<(&str, &Value)> = records
        .iter()
        .filter_map(|record| Some((record["what"].as_str()?.strip_prefix(BESIDE)?, record)))
        .collect();
    let Some((_, first)) = rows.first() else { return String::new() };
    let parameters = &first["parameters"];
    let mut out = format!(
        "\n## Side by side, in one run\n\nThe same {} spans of {} B for each, {} a request, {} connections, as fast as they are taken; \
         on SQLite, with the defaults of each product.\n\n| |",
        parameters["spans"],
        first["results"]["mean_span_bytes"],
        parameters["batch"],
        parameters["connections"]
    );
    for (head, ..) in COLUMNS {
        out += &format!(" {head} |");
    }
    out += " memory at most |\n|---|---|";
    out += &"---|".repeat(COLUMNS.len());
    out.push('\n');
    for (product, record) in rows {
        out += &format!("| {product} |");
        for (_, pointer, unit) in COLUMNS {
            let cell = record["results"]
                .pointer(pointer)
                .map_or_else(|| "-".to_owned(), |value| format!("{value} {unit}"));
            out += &format!(" {} |", cell.trim());
        }
        let peak: f64 = record["results"]["peak_rss_mib"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, mib)| mib.as_f64())
            .sum();
        out += &format!(" {peak:.0} MiB |\n");
    }
    out
}
