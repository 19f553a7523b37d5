//! `long-trace`: what a request costs that adds to a long trace. One trace is sent in many requests, one after another:
//! a root, and agents' runs of ten spans below it. The root comes first, or last as it does from clients that export a
//! span when it ends.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use crate::http::{Connection, Origin, Target, Version};
use crate::keys::Keys;
use crate::latency::Latencies;
use crate::procstat::Watched;
use crate::report::{publish, round};
use crate::spans::{Encoding, Place, Shape, Story, begin_ns, first_serial, refused, template};
use crate::stored::Store;
use crate::text::Text;
use crate::used::{Used, pairs};

const DRAIN_LIMIT: Duration = Duration::from_secs(300);
/// As many as a body's numbers can tell apart, and then some room for the last run.
const MAX_SPANS: u32 = 200_000;
/// The first and the last requests of a trace that are compared, one in so many.
const COMPARED_ONE_IN: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Root {
    First,
    Last,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LongTraceArgs {
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[command(flatten)]
    keys: Keys,
    #[arg(long, default_value_t = 200)]
    requests: u32,
    /// Spans per request.
    #[arg(long, default_value_t = 500)]
    batch: u32,
    /// When the root of the trace is sent.
    #[arg(long, default_value = "first")]
    root: Root,
    #[command(flatten)]
    watched: Watched,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &LongTraceArgs) -> Result<()> {
    let spans = args.requests.checked_mul(args.batch).filter(|spans| *spans <= MAX_SPANS);
    let spans = spans.with_context(|| format!("a trace has at most {MAX_SPANS} spans"))?;
    ensure!(spans > 0, "at least one span");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args, spans))?;
    let root = if args.root == Root::First { "first" } else { "last" };
    let parameters = json!({"requests": args.requests, "batch": args.batch, "root": root});
    publish("long-trace", &parameters, &results, args.json.as_deref())
}

async fn measure(args: &LongTraceArgs, spans: u32) -> Result<Value> {
    let origin = Origin::parse(&args.url, Version::One)?;
    let key = args.keys.load()?.into_iter().next().context("no key")?;
    let store = Store::Ledger { origin: origin.clone(), keys: vec![key.clone()] };
    let before = store.count().await?;
    let (serial, begin_ns) = (first_serial(), begin_ns());
    let bodies: Vec<Bytes> = shapes(args.root, spans)
        .chunks(args.batch as usize)
        .map(|shapes| Bytes::from(template(shapes, Encoding::Protobuf).stamp(serial, begin_ns)))
        .collect();
    let mut connection = origin.connect().await?;
    let baseline = Used::begin(args.watched.clone(), Instant::now()).await;
    let started = Instant::now();
    let mut times = Vec::with_capacity(bodies.len());
    for body in bodies {
        times.push(send(&mut connection, &key, body).await?);
    }
    let answered = started.elapsed();
    store.settle(before + u64::from(spans), DRAIN_LIMIT).await?;
    let stored = started.elapsed();
    let used = Used::since(&baseline, &args.watched, 0.0);
    let compared = (times.len() / COMPARED_ONE_IN).max(1);
    let (first, last) = (&times[..compared], &times[times.len() - compared..]);
    Ok(json!({
        "accepted_per_s": round(f64::from(spans) / answered.as_secs_f64(), 0),
        "stored_per_s": round(f64::from(spans) / stored.as_secs_f64(), 0),
        "request": summary(&times)?,
        "first_requests": summary(first)?,
        "last_requests": summary(last)?,
        "last_request_ms": times.last().map(|time| round(time.as_secs_f64() * 1000.0, 3)),
        "cpu_us_per_span": pairs(&used.server, 1e6 / f64::from(spans)),
    }))
}

fn summary(times: &[Duration]) -> Result<Value> {
    let mut latencies = Latencies::new()?;
    times.iter().for_each(|time| latencies.record(*time));
    Ok(latencies.summary())
}

/// The spans in the order in which they are sent.
fn shapes(root: Root, spans: u32) -> Vec<Shape> {
    let text = Text::new();
    let mut story = Story::new(&text, 1);
    let place = |first: u32, parent: Option<u32>| Place {
        trace: 0,
        conversation: 0,
        first,
        parent,
        start_ticks: first / 2,
    };
    let agent = story.agent(place(0, None), "research-scout", 0);
    let mut shapes: Vec<Shape> = Vec::with_capacity(spans as usize);
    let mut number = 1;
    while shapes.len() + 1 < spans as usize {
        let run = story.run(place(number, Some(0)));
        number += u32::try_from(run.len()).unwrap_or(0);
        shapes.extend(run);
    }
    shapes.truncate(spans as usize - 1);
    match root {
        Root::First => shapes.insert(0, agent),
        Root::Last => shapes.push(agent),
    }
    shapes
}

async fn send(connection: &mut Connection, key: &str, body: Bytes) -> Result<Duration> {
    let content_type = HeaderValue::from_static(Encoding::Protobuf.content_type());
    let target = Target { path: "/v1/traces".to_owned(), headers: vec![(CONTENT_TYPE, content_type)] };
    let started = Instant::now();
    let answer = connection.post_to(&target, Some(key), body).await?;
    ensure!(answer.status.is_success(), "POST /v1/traces answered {}", answer.status);
    ensure!(refused(&answer.body) == 0, "spans were refused");
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_sent_once_below_the_root() {
        for root in [Root::First, Root::Last] {
            let shapes = shapes(root, 96);
            let numbers: std::collections::BTreeSet<u32> = shapes.iter().map(|shape| shape.number).collect();
            assert_eq!((shapes.len(), numbers.len()), (96, 96));
            assert_eq!(shapes.iter().filter(|shape| shape.parent.is_none()).count(), 1);
            let root_at = if root == Root::First { 0 } else { 95 };
            assert_eq!(shapes[root_at].parent, None);
        }
    }
}
