//! `normalise`: processor time per span of reading OTLP bodies into events, in this process and on one thread, with
//! the server's own code and allocator. What is read is what `otlp` sends, and the captures of real clients.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use agentlens_otlp::dialects::{Context as Clock, events_of_traces};
use agentlens_otlp::wire::{self, decode_traces};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::procstat::thread_cpu_seconds;
use crate::report::{publish, round};
use crate::spans::{Encoding, begin_ns, first_serial, templates};
use crate::text::Text;

/// The kernel counts a thread's time in ticks of up to 4 ms; a round is long enough to forget them.
const ROUND_SECONDS: f64 = 0.25;
const BODIES: usize = 8;

#[derive(Args, Clone, Debug)]
pub(crate) struct NormaliseArgs {
    /// Rounds of a quarter of a second for each of decoding and normalising, of each source.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// The captures of real clients.
    #[arg(long, value_name = "DIR", default_value = "tests/otel/corpus")]
    corpus: PathBuf,
    #[arg(long, default_value_t = 500)]
    batch: usize,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Bodies of one kind.
struct Source {
    name: String,
    bodies: Vec<(wire::Encoding, Vec<u8>)>,
}

pub(crate) fn run(args: &NormaliseArgs) -> Result<()> {
    ensure!(args.rounds > 0, "at least one round");
    let mut sources = vec![made_up(args.batch, Encoding::Protobuf)?, made_up(args.batch, Encoding::Json)?];
    sources.extend(captures(&args.corpus)?);
    let mut results = Map::new();
    for source in &sources {
        results.insert(source.name.clone(), measure(source, args.rounds)?);
    }
    let parameters = json!({"rounds": args.rounds, "batch": args.batch, "round_seconds": ROUND_SECONDS});
    publish("normalise", &parameters, &Value::Object(results), args.json.as_deref())
}

fn made_up(batch: usize, encoding: Encoding) -> Result<Source> {
    let serial = first_serial();
    let bodies = templates(&Text::new(), 1, batch, encoding, BODIES)?;
    let (name, encoding) = match encoding {
        Encoding::Protobuf => ("load_protobuf", wire::Encoding::Protobuf),
        Encoding::Json => ("load_json", wire::Encoding::Json),
    };
    let stamped =
        bodies.iter().zip(serial..).map(|(body, serial)| (encoding, body.stamp(serial, begin_ns())));
    Ok(Source { name: name.to_owned(), bodies: stamped.collect() })
}

/// A source for each family of clients, and one of all together.
fn captures(corpus: &Path) -> Result<Vec<Source>> {
    let entries = std::fs::read_dir(corpus).with_context(|| format!("reading {}", corpus.display()))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut families = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let bodies = traces_in(folder)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !bodies.is_empty() {
            families.push(Source { name, bodies });
        }
    }
    let bodies = families.iter().flat_map(|family| family.bodies.clone()).collect();
    families.insert(0, Source { name: "corpus".to_owned(), bodies });
    Ok(families)
}

fn traces_in(folder: &Path) -> Result<Vec<(wire::Encoding, Vec<u8>)>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut bodies = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let encoding = match name.as_str() {
            name if name.ends_with(".traces.pb") => wire::Encoding::Protobuf,
            name if name.ends_with(".traces.json") => wire::Encoding::Json,
            _ => continue,
        };
        bodies.push((encoding, std::fs::read(&file)?));
    }
    Ok(bodies)
}

fn measure(source: &Source, rounds: usize) -> Result<Value> {
    let clock = Clock { now_us: jiff::Timestamp::now().as_microsecond() };
    let mut requests = Vec::new();
    let (mut spans, mut refused) = (0, 0);
    for (encoding, body) in &source.bodies {
        let decoded = decode_traces(*encoding, body).context(source.name.clone())?;
        let normalised = events_of_traces(&decoded.request, &clock);
        spans += normalised.events.len() + normalised.refused.len() + decoded.broken.len();
        refused += normalised.refused.len() + decoded.broken.len();
        requests.push(decoded.request);
    }
    ensure!(spans > 0, "{}: no spans", source.name);
    let decode = timed(rounds, spans, || {
        for (encoding, body) in &source.bodies {
            black_box(decode_traces(*encoding, black_box(body)).is_ok());
        }
    });
    let normalise = timed(rounds, spans, || {
        for request in &requests {
            black_box(events_of_traces(black_box(request), &clock));
        }
    });
    let bytes: usize = source.bodies.iter().map(|(_, body)| body.len()).sum();
    Ok(json!({
        "spans": spans,
        "refused_spans": refused,
        "bytes_per_span": round(bytes as f64 / spans as f64, 0),
        "decode_us": decode.figures(),
        "normalise_us": normalise.figures(),
        "total_us": decode.plus(&normalise).figures(),
    }))
}

/// Microseconds per span.
struct Cost {
    best: f64,
    median: f64,
}

impl Cost {
    fn plus(&self, other: &Self) -> Self {
        Self { best: self.best + other.best, median: self.median + other.median }
    }

    fn figures(&self) -> Value {
        json!({"p50": round(self.median, 2), "best": round(self.best, 2)})
    }
}

fn timed(rounds: usize, spans: usize, mut work: impl FnMut()) -> Cost {
    let mut micros: Vec<f64> = (0..rounds)
        .map(|_| {
            let begin = thread_cpu_seconds();
            let mut passes = 0usize;
            let mut used = 0.0;
            while used < ROUND_SECONDS {
                // Asking for the time costs a few microseconds, so not after every small pass.
                for _ in 0..(1 + 2000 / spans) {
                    work();
                    passes += 1;
                }
                used = thread_cpu_seconds() - begin;
            }
            used * 1e6 / (passes * spans) as f64
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    Cost {
        best: micros.first().copied().unwrap_or(0.0),
        median: micros.get(micros.len() / 2).copied().unwrap_or(0.0),
    }
}
