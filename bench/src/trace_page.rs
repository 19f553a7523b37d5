//! `trace-page`: how soon a page of a trace of 100,000 spans comes. Three traces are sent and then read: a star (one
//! agent with nearly all spans directly below it, and a chain in depth), a tree of agents' runs under workflows, and
//! spans whose parent never comes, each of which is a root.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};

use crate::http::{Connection, Origin, Target, Version, escape};
use crate::keys::Keys;
use crate::latency::Latencies;
use crate::report::{publish, round};
use crate::spans::{
    Encoding, Mark, Place, Shape, Story, begin_ns, conversation_id, first_serial, hex_text, refused, template,
};
use crate::stored::Store;
use crate::text::Text;

const DRAIN_LIMIT: Duration = Duration::from_secs(300);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const BATCH: usize = 500;
/// Spans of the star that hang below one another. A page nests two levels of JSON for each, and many decoders, ours
/// too, follow no more than 128.
const CHAIN_SPANS: u32 = 50;
/// Runs of ten spans below one workflow of the tree.
const WORKFLOW_RUNS: u32 = 100;
/// Pages of a thousand that are turned before a late page is measured.
const LATE_AFTER_PAGES: usize = 80;

#[derive(Args, Clone, Debug)]
pub(crate) struct TracePageArgs {
    #[arg(long, default_value = "http://127.0.0.1:3400")]
    url: String,
    #[command(flatten)]
    keys: Keys,
    /// Spans of each trace.
    #[arg(long, default_value_t = 100_000)]
    spans: u32,
    /// Requests of each kind.
    #[arg(long, default_value_t = 20)]
    samples: usize,
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &TracePageArgs) -> Result<()> {
    ensure!((5_000..=200_000).contains(&args.spans), "--spans is from 5,000 to 200,000");
    ensure!(args.samples > 0, "at least one sample");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(measure(args))?;
    let parameters = json!({"spans": args.spans, "samples": args.samples, "page_nodes": 200});
    publish("trace-page", &parameters, &results, args.json.as_deref())
}

async fn measure(args: &TracePageArgs) -> Result<Value> {
    let origin = Origin::parse(&args.url, Version::One)?;
    let key = args.keys.load()?.into_iter().next().context("no key")?;
    let text = Text::new();
    let mut story = Story::new(&text, 1);
    let traces = [
        ("star", star(&mut story, args.spans)),
        ("tree", tree(&mut story, args.spans)),
        ("roots", roots(&mut story, args.spans)),
    ];
    let mut results = Map::new();
    for ((name, shapes), serial) in traces.into_iter().zip(first_serial()..) {
        let mut reader =
            Reader { connection: origin.connect().await?, key: key.clone(), serial, samples: args.samples };
        let started = Instant::now();
        reader.send(&shapes).await?;
        let store = Store::Ledger { origin: origin.clone(), keys: vec![key.clone()] };
        store.settle(0, DRAIN_LIMIT).await?;
        let stored_per_s = shapes.len() as f64 / started.elapsed().as_secs_f64();
        let mut figures = match name {
            "roots" => reader.measure_roots().await?,
            _ => reader.measure_below_a_root(args.spans).await?,
        };
        figures.insert("stored_per_s_over_one_connection".to_owned(), json!(round(stored_per_s, 0)));
        results.insert(name.to_owned(), Value::Object(figures));
    }
    Ok(Value::Object(results))
}

fn place(first: u32, parent: Option<u32>) -> Place {
    // Siblings begin one after another, as they would.
    Place { trace: 0, conversation: 0, first, parent, start_ticks: first / 2 }
}

fn star(story: &mut Story, spans: u32) -> Vec<Shape> {
    let mut shapes = vec![story.agent(place(0, None), "research-scout", 0)];
    shapes.extend((1..spans).map(|number| {
        let parent = if (2..=CHAIN_SPANS).contains(&number) { number - 1 } else { 0 };
        story.tool(place(number, Some(parent)), "research-scout")
    }));
    shapes
}

fn tree(story: &mut Story, spans: u32) -> Vec<Shape> {
    let mut shapes = vec![story.agent(place(0, None), "research-scout", 0)];
    let mut workflow = 0;
    let mut runs = WORKFLOW_RUNS;
    while shapes.len() < spans as usize {
        let number = u32::try_from(shapes.len()).unwrap_or(spans);
        if runs == WORKFLOW_RUNS {
            (workflow, runs) = (number, 0);
            shapes.push(story.agent(place(number, Some(0)), "sales-writer", 1));
        } else {
            shapes.extend(story.run(place(number, Some(workflow))));
            runs += 1;
        }
    }
    shapes.truncate(spans as usize);
    shapes
}

fn roots(story: &mut Story, spans: u32) -> Vec<Shape> {
    (1..=spans).map(|number| story.tool(place(number, Some(0)), "ops-watcher")).collect()
}

/// Sends one trace and reads it.
struct Reader {
    connection: Connection,
    key: String,
    serial: u64,
    samples: usize,
}

impl Reader {
    async fn send(&mut self, shapes: &[Shape]) -> Result<()> {
        let content_type = HeaderValue::from_static(Encoding::Protobuf.content_type());
        let target = Target { path: "/v1/traces".to_owned(), headers: vec![(CONTENT_TYPE, content_type)] };
        let begin_ns = begin_ns();
        for shapes in shapes.chunks(BATCH) {
            let body = Bytes::from(template(shapes, Encoding::Protobuf).stamp(self.serial, begin_ns));
            loop {
                let answer = self.connection.post_to(&target, Some(&self.key), body.clone()).await?;
                if answer.status.is_success() {
                    ensure!(refused(&answer.body) == 0, "spans were refused");
                    break;
                }
                let is_full = answer.status.as_u16() == 429 || answer.status.as_u16() == 503;
                ensure!(is_full, "POST /v1/traces answered {}", answer.status);
                tokio::time::sleep(answer.retry_after.unwrap_or(RETRY_PAUSE)).await;
            }
        }
        Ok(())
    }

    /// A trace with one root: its first page, pages of the root's children one after another, the first page below
    /// each of several spans, and a page far behind.
    async fn measure_below_a_root(&mut self, spans: u32) -> Result<Map<String, Value>> {
        let root = self.span_path(0);
        let mut first = Latencies::new()?;
        let mut page = Value::Null;
        for _ in 0..self.samples {
            page = self.page("", &mut first).await?;
        }
        let tree = &page["tree"];
        ensure!(
            tree.as_array().is_some_and(|roots| roots.len() == 1)
                && tree[0]["subtree"]["spans"] == json!(spans),
            "the trace is not one tree of {spans} spans: {} roots, {} spans below the first",
            tree.as_array().map_or(0, Vec::len),
            tree[0]["subtree"]["spans"]
        );
        let children: Vec<String> = tree[0]["children"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|child| child["childCount"].as_i64() > Some(0))
            .filter_map(|child| {
                Some(format!("{}:{}", child["span"]["traceId"].as_str()?, child["span"]["spanId"].as_str()?))
            })
            .collect();
        let (child_count, nodes) = (tree[0]["childCount"].clone(), count_nodes(tree));
        let next = match tree[0]["childrenCursor"].as_str() {
            Some(cursor) => self.turn_pages(&root, cursor.to_owned()).await?,
            None => self.turn_pages(&root, String::new()).await?,
        };
        let mut below = Latencies::new()?;
        for index in 0..self.samples {
            let parent = children.get(index % children.len().max(1)).unwrap_or(&root);
            self.page(&format!("parent={}", escape(parent)), &mut below).await?;
        }
        let mut figures = Map::new();
        figures.insert("children_of_root".to_owned(), child_count);
        figures.insert("nodes_of_first_page".to_owned(), json!(nodes));
        figures.insert("first_page".to_owned(), first.summary());
        figures.insert("next_page".to_owned(), next.summary());
        figures.insert("children_page".to_owned(), below.summary());
        if let Some(late) = self.late_page(&format!("parent={}", escape(&root))).await? {
            figures.insert("late_page".to_owned(), late.summary());
        }
        Ok(figures)
    }

    async fn measure_roots(&mut self) -> Result<Map<String, Value>> {
        let mut first = Latencies::new()?;
        let mut page = Value::Null;
        for _ in 0..self.samples {
            page = self.page("", &mut first).await?;
        }
        let mut next = Latencies::new()?;
        for _ in 0..self.samples {
            let cursor =
                page["nextCursor"].as_str().context("the first page of roots is the last")?.to_owned();
            page = self.page(&format!("cursor={}", escape(&cursor)), &mut next).await?;
        }
        let mut figures = Map::new();
        figures.insert("first_page".to_owned(), first.summary());
        figures.insert("next_page".to_owned(), next.summary());
        if let Some(late) = self.late_page("").await? {
            figures.insert("late_page".to_owned(), late.summary());
        }
        Ok(figures)
    }

    /// Pages of a span's children from a cursor on; from the beginning again when they end.
    async fn turn_pages(&mut self, parent: &str, cursor: String) -> Result<Latencies> {
        let mut latencies = Latencies::new()?;
        let mut cursor = cursor;
        for _ in 0..self.samples {
            let mut query = format!("parent={}", escape(parent));
            if !cursor.is_empty() {
                query += &format!("&cursor={}", escape(&cursor));
            }
            let page = self.page(&query, &mut latencies).await?;
            cursor = page["nextCursor"].as_str().unwrap_or_default().to_owned();
        }
        Ok(latencies)
    }

    /// A page of 200 behind many pages of a thousand; `None` if there are not as many.
    async fn late_page(&mut self, query: &str) -> Result<Option<Latencies>> {
        let mut turning = Latencies::new()?;
        let mut cursor = String::new();
        for _ in 0..LATE_AFTER_PAGES {
            let page = self.page(&format!("{query}&limit=1000{cursor}"), &mut turning).await?;
            let Some(next) = page["nextCursor"].as_str() else { return Ok(None) };
            cursor = format!("&cursor={}", escape(next));
        }
        let mut late = Latencies::new()?;
        for _ in 0..self.samples {
            self.page(&format!("{query}{cursor}"), &mut late).await?;
        }
        Ok(Some(late))
    }

    async fn page(&mut self, query: &str, latencies: &mut Latencies) -> Result<Value> {
        let session = conversation_id(&hex_text(Mark::Conversation(0).id(self.serial)));
        let path = format!("/api/sessions/{session}/trace?{query}");
        let started = Instant::now();
        let page = self.connection.get_json(&path, &self.key).await?;
        latencies.record(started.elapsed());
        ensure!(page["tree"].as_array().is_some_and(|nodes| !nodes.is_empty()), "GET {path}: an empty page");
        Ok(page)
    }

    /// A span as `parent=` names it.
    fn span_path(&self, number: u32) -> String {
        let id = |mark: Mark| hex_text(mark.id(self.serial));
        format!("{}{}:{}", id(Mark::TraceHead(0)), id(Mark::TraceTail(0)), id(Mark::Span(number)))
    }
}

fn count_nodes(nodes: &Value) -> usize {
    nodes.as_array().into_iter().flatten().map(|node| 1 + count_nodes(&node["children"])).sum()
}
