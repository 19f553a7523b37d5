//! `agentlens-bench`: the programs that measure AgentLens from outside, by its front door.
//!
//! Each subcommand prints a table and, with `--json FILE`, leaves a record with the machine, the
//! date and the commit. README.md says how each figure comes about.

mod authenticate;
mod crash;
mod events;
mod fairness;
mod hold;
mod http;
mod keys;
mod latency;
mod load;
mod long_trace;
mod neighbours;
mod normalise;
mod otlp;
mod otlp_summary;
mod peak;
mod postgres_baseline;
mod postgres_table;
mod process;
mod procstat;
mod reads;
mod report;
mod rows;
mod seed;
mod sender;
mod services;
mod spans;
mod sqlite_baseline;
mod stack;
mod startup;
mod stored;
mod summary;
mod text;
mod trace_page;
mod used;
mod visible;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The server's allocator, or `normalise` would measure another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(name = "agentlens-bench", version, about = "Measures AgentLens from outside")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends events at a fixed rate or as fast as they are taken.
    Load(load::LoadArgs),
    /// SQLite alone, inserting the same rows.
    SqliteBaseline(sqlite_baseline::SqliteArgs),
    /// PostgreSQL alone, inserting the same rows.
    PostgresBaseline(postgres_baseline::PostgresArgs),
    /// Fills a server with events of many orgs over the past days.
    Seed(seed::SeedArgs),
    /// How long reading takes while events arrive.
    Reads(reads::ReadsArgs),
    /// Kills processes under load and checks that nothing was lost.
    Crash(crash::CrashArgs),
    /// Time to ready, idle memory, binary size.
    Startup(startup::StartupArgs),
    /// Starts a whole AgentLens and holds it until told to end.
    Stack(hold::HoldArgs),
    /// Sends OTLP spans at a fixed rate or as fast as they are taken, to AgentLens or another receiver.
    Otlp(otlp::OtlpArgs),
    /// How long one org's events take while another org makes trouble.
    Neighbours(neighbours::NeighboursArgs),
    /// Processor time of decoding and normalising spans, in this process.
    Normalise(normalise::NormaliseArgs),
    /// How soon a page of a trace of 100,000 spans comes.
    TracePage(trace_page::TracePageArgs),
    /// What a request costs that adds to a long trace.
    LongTrace(long_trace::LongTraceArgs),
    /// What it costs to find out who asks, by key and by cookie.
    Authenticate(authenticate::AuthenticateArgs),
    /// What one org's idle connections and searches do to another org.
    Fairness(fairness::FairnessArgs),
    /// Writes the page of the records of `otlp`, `normalise` and `trace-page`.
    OtlpSummary(otlp_summary::OtlpSummaryArgs),
    /// Joins records into one file per form and writes the results page.
    Summary(summary::SummaryArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load::run(&args),
        Command::SqliteBaseline(args) => sqlite_baseline::run(&args),
        Command::PostgresBaseline(args) => postgres_baseline::run(&args),
        Command::Seed(args) => seed::run(&args),
        Command::Reads(args) => reads::run(&args),
        Command::Crash(args) => crash::run(&args),
        Command::Startup(args) => startup::run(&args),
        Command::Stack(args) => hold::run(&args),
        Command::Otlp(args) => otlp::run(&args),
        Command::Neighbours(args) => neighbours::run(&args),
        Command::Normalise(args) => normalise::run(&args),
        Command::TracePage(args) => trace_page::run(&args),
        Command::LongTrace(args) => long_trace::run(&args),
        Command::Authenticate(args) => authenticate::run(&args),
        Command::Fairness(args) => fairness::run(&args),
        Command::OtlpSummary(args) => otlp_summary::run(&args),
        Command::Summary(args) => summary::run(&args),
    }
}
