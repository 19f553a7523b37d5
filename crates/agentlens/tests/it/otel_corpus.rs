//! Captures of real clients (`tests/otel/corpus`) by HTTP: in whatever order, split and encoding they come, the same
//! session, tree and sums are read back, with the tokens that the stub of the model's API logged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentlens_domain::time::{DAY_US, day_start, parse_rfc3339};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::otel_requests::{Body, Export, Item, tree};
use crate::samples::at;
use crate::world::{Api, World};

on_both_engines!(
    every_replay_of_every_capture_is_read_back_the_same,
    messages_in_log_records_end_on_the_call_whichever_comes_first,
);

/// A capture of one client library.
struct Family {
    name: String,
    /// `expected.json`, which was written from the stub's log.
    expected: Value,
    /// What was sent, in order: as captured, and decoded.
    bodies: Vec<Body>,
    exports: Vec<Export>,
}

/// What can be read back.
struct Outcome {
    session: Value,
    tree: Value,
    events: Value,
    figures: Value,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/otel/corpus")
}

fn families() -> Vec<Family> {
    let mut directories: Vec<PathBuf> =
        std::fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    assert!(directories.len() >= 16, "the corpus is not whole");
    directories.iter().map(|directory| family(directory)).collect()
}

fn family(directory: &Path) -> Family {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut bodies, mut exports) = (Vec::new(), Vec::new());
    for file in files {
        let file_name = file.file_name().unwrap().to_str().unwrap();
        if !file_name.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let export = Export::read(file_name, &bytes);
        bodies.push(export.captured(file_name, bytes));
        exports.push(export);
    }
    Family {
        name: directory.file_name().unwrap().to_str().unwrap().to_owned(),
        expected: serde_json::from_slice(&std::fs::read(directory.join("expected.json")).unwrap()).unwrap(),
        bodies,
        exports,
    }
}

impl Family {
    fn items(&self) -> Vec<Item> {
        self.exports.iter().flat_map(Export::items).collect()
    }

    fn metrics(&self) -> impl Iterator<Item = Body> {
        self.exports.iter().filter(|export| matches!(export, Export::Metrics(_))).map(Export::protobuf)
    }

    /// Every span and log record in an order of chance, a few to a request.
    fn shuffled(&self) -> Vec<Body> {
        let mut random = SmallRng::seed_from_u64(3);
        let mut items = self.items();
        items.shuffle(&mut random);
        let mut requests: Vec<Export> = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let joins = number % 3 != 0 && requests.last_mut().is_some_and(|last| last.absorb(&item.export));
            if !joins {
                requests.push(item.export.clone());
            }
        }
        requests.iter().map(Export::protobuf).chain(self.metrics()).collect()
    }

    /// The other encoding: JSON in every spelling for what came as protobuf, protobuf for what came as JSON.
    fn exchanged(&self, first_spelling: usize) -> Vec<Body> {
        let exports = self.exports.iter().zip(&self.bodies).zip(first_spelling..);
        exports
            .map(|((export, body), spelling)| match export.protobuf() {
                protobuf if protobuf.is_as(body) => export.json(spelling),
                protobuf => protobuf,
            })
            .collect()
    }

    /// The six replays by name.
    fn replays(&self, number: usize) -> Vec<(&'static str, Vec<Body>)> {
        let single = |items: &[Item]| -> Vec<Body> {
            items.iter().map(|item| item.export.protobuf()).chain(self.metrics()).collect()
        };
        let mut latest_first = self.items();
        latest_first.sort_by_key(|item| std::cmp::Reverse(item.start_ns));
        vec![
            ("as is", self.bodies.clone()),
            ("doubled", self.bodies.iter().chain(&self.bodies).cloned().collect()),
            ("shuffled", self.shuffled()),
            ("split", single(&self.items())),
            ("children first", single(&latest_first)),
            // And once more as it was captured: the same in another encoding is the same.
            ("exchanged", self.exchanged(number).into_iter().chain(self.bodies.iter().cloned()).collect()),
        ]
    }

    fn calls(&self, kind: &str) -> Vec<&Value> {
        let calls = self.expected["calls"].as_array().unwrap().iter();
        calls.filter(|call| call["kind"] == kind).collect()
    }
}

async fn every_replay_of_every_capture_is_read_back_the_same(world: World) {
    let mut tasks = JoinSet::new();
    for (number, family) in families().into_iter().enumerate() {
        let replays = family.replays(number);
        let orgs: Vec<Api> =
            replays.iter().map(|(replay, _)| world.org(&format!("{} {replay}", family.name)).1).collect();
        tasks.spawn(async move {
            let mut first: Option<Outcome> = None;
            for ((replay, bodies), api) in replays.into_iter().zip(orgs) {
                let place = format!("{} {replay}", family.name);
                for body in &bodies {
                    body.post(&api).await;
                }
                api.settled().await;
                let repetitions = if ["doubled", "exchanged"].contains(&replay) { 1 } else { 0 };
                check_ledger(&api, &place, family.items().len(), repetitions).await;
                let outcome = outcome(&api, &place, &family.expected).await;
                check(&family, &place, &outcome);
                match &first {
                    None => first = Some(outcome),
                    Some(first) => check_same(first, &outcome, &place),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn check_ledger(api: &Api, place: &str, items: usize, repetitions: usize) {
    let ledger = api.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    let refused = key["refused"].as_object().unwrap();
    let refused: i64 = refused.values().map(|count| count.as_i64().unwrap()).sum();
    let number = |field: &str| key[field].as_i64().unwrap();
    assert_eq!(number("received"), number("stored") + refused + number("waiting"), "{place}: {ledger}");
    assert_eq!(key["received"], items * (repetitions + 1), "{place}: {ledger}");
    assert_eq!(key["stored"], items, "{place}: {ledger}");
    let duplicates = key["refused"]["duplicate"].as_u64().unwrap_or(0);
    assert_eq!(duplicates, (items * repetitions) as u64, "{place}: {ledger}");
}

/// Reads back everything; what says when and in which order something came is left out.
async fn outcome(api: &Api, place: &str, expected: &Value) -> Outcome {
    let sessions = api.read("/api/sessions").await;
    let list = sessions["sessions"].as_array().unwrap();
    assert_eq!(list.len(), 1, "{place}: {sessions}");
    let id = expected["session_id"].as_str().unwrap();
    let mut session = api.read(&format!("/api/sessions/{id}")).await;
    assert_eq!(list[0], session, "{place}");
    session.as_object_mut().unwrap().remove("tenantId");
    let timeline = api.timeline(id).await;
    let events = api.walk(&[("sessionId", id), ("limit", "1000")]).await;
    assert_eq!(events.len(), timeline.len(), "{place}");
    let events: BTreeMap<String, Value> = events.iter().map(content).collect();
    assert_eq!(events.len(), timeline.len(), "{place}: a span is listed twice");
    let mut nodes = tree(api, id).await;
    nodes.iter_mut().for_each(without_events);
    let started_us = parse_rfc3339(session["startedAt"].as_str().unwrap()).unwrap();
    let figures = figures(api, started_us).await;
    Outcome { session, tree: json!(nodes), events: json!(events), figures }
}

/// A span's id, and what its event says of it.
fn content(event: &Value) -> (String, Value) {
    let mut event = event.clone();
    let span_id = event["span"]["spanId"].as_str().unwrap().to_owned();
    for arrival in ["id", "hash", "prevHash", "seq", "tenantId", "receivedAt"] {
        event.as_object_mut().unwrap().remove(arrival);
    }
    event["span"].as_object_mut().unwrap().remove("eventIds");
    (span_id, event)
}

fn without_events(node: &mut Value) {
    let object = node.as_object_mut().unwrap();
    object.remove("id");
    object.remove("eventIds");
    node["span"].as_object_mut().unwrap().remove("eventIds");
    node["children"].as_array_mut().unwrap().iter_mut().for_each(without_events);
}

/// Figures of the days around an instant: all, of models, and by agent.
async fn figures(api: &Api, around_us: i64) -> Value {
    let day = day_start(around_us);
    let (from, to) = (at(day - DAY_US), at(day + 2 * DAY_US - 1));
    let range = [("from", from.as_str()), ("to", to.as_str())];
    let totals = api.query("/api/analytics", &range).await.expect(200)["totals"].take();
    let llm = api.query("/api/analytics/llm", &range).await.expect(200);
    let mut agents = api.read("/api/agents").await["agents"].take();
    for agent in agents.as_array_mut().unwrap() {
        let id = agent["id"].as_str().unwrap().to_owned();
        let of_agent = [range[0], range[1], ("agentId", id.as_str())];
        let analytics = api.query("/api/analytics", &of_agent).await.expect(200);
        agent["totals"] = analytics["totals"].clone();
        // It was last seen when a span began, or in a log record that came before its span.
        for passing in ["tenantId", "lastSeenAt"] {
            agent.as_object_mut().unwrap().remove(passing);
        }
    }
    json!({ "totals": totals, "summary": llm["summary"], "byModel": llm["byModel"], "agents": agents })
}

fn check(family: &Family, place: &str, outcome: &Outcome) {
    let (expected, session) = (&family.expected, &outcome.session);
    let totals = &expected["totals"];
    assert_eq!(session["id"], expected["session_id"], "{place}");
    assert_eq!(session["environment"], expected["environment"], "{place}");
    assert_eq!(session["userId"], expected["user_id"], "{place}");
    if expected["agent_name"].is_string() {
        assert_eq!(session["agentId"], expected["agent_name"], "{place}");
    }
    assert_eq!(session["toolCallCount"], family.calls("tool").len(), "{place}");
    // A call that the model refused is a call of a model.
    let calls = family.calls("llm").len() + family.calls("error").len();
    assert_eq!(session["llmCallCount"], calls, "{place}");
    assert_eq!(session["status"], "completed", "{place}");
    let places = [
        (session, "totalInputTokens", "totalOutputTokens"),
        (&outcome.figures["totals"], "totalInputTokens", "totalOutputTokens"),
        (&outcome.figures["summary"], "totalInputTokens", "totalOutputTokens"),
    ];
    for (object, input, output) in places {
        assert_eq!(
            (&object[input], &object[output]),
            (&totals["input_tokens"], &totals["output_tokens"]),
            "{place}"
        );
    }
    let summary = &outcome.figures["summary"];
    for (ours, theirs) in [
        ("totalCacheReadTokens", "cache_read"),
        ("totalCacheWriteTokens", "cache_write"),
        ("totalReasoningTokens", "reasoning"),
    ] {
        assert_eq!(summary[ours], totals[theirs], "{place}: {ours}");
    }
    assert_eq!(outcome.figures["totals"]["uniqueSessions"], 1, "{place}");
    check_agents(place, outcome, totals);
    check_tree(place, outcome, totals);
}

fn check_agents(place: &str, outcome: &Outcome, totals: &Value) {
    let agents = outcome.figures["agents"].as_array().unwrap();
    let sum = |number: &dyn Fn(&Value) -> Option<i64>| -> i64 { agents.iter().filter_map(number).sum() };
    for (ours, theirs) in [("totalInputTokens", "input_tokens"), ("totalOutputTokens", "output_tokens")] {
        assert_eq!(sum(&|agent| agent["totals"][ours].as_i64()), totals[theirs], "{place}: agents");
    }
    assert_eq!(sum(&|agent| agent["sessionCount"].as_i64()), 1, "{place}: agents");
    assert_eq!(sum(&|agent| agent["eventCount"].as_i64()), outcome.session["eventCount"], "{place}: agents");
    assert_eq!(sum(&|agent| agent["errorCount"].as_i64()), outcome.session["errorCount"], "{place}: agents");
}

fn check_tree(place: &str, outcome: &Outcome, totals: &Value) {
    let roots = outcome.tree.as_array().unwrap();
    assert_eq!(roots.len(), 1, "{place}: {}", outcome.tree);
    let (root, session) = (&roots[0], &outcome.session);
    let subtree = &root["subtree"];
    assert_eq!(
        (&subtree["inputTokens"], &subtree["outputTokens"]),
        (&totals["input_tokens"], &totals["output_tokens"]),
        "{place}"
    );
    assert_eq!(subtree["errors"], session["errorCount"], "{place}");
    assert_eq!(root["subtreeCostUsd"], session["totalCostUsd"], "{place}");
    let mut sums = Sums::default();
    sums.add(root);
    let added = [sums.spans, sums.input_tokens, sums.output_tokens];
    assert_eq!(
        json!(added),
        json!([subtree["spans"], subtree["inputTokens"], subtree["outputTokens"]]),
        "{place}"
    );
}

/// A recount of the nodes that are shown.
#[derive(Default)]
struct Sums {
    spans: i64,
    input_tokens: i64,
    output_tokens: i64,
}

impl Sums {
    fn add(&mut self, node: &Value) {
        let children = node["children"].as_array().unwrap();
        assert_eq!(node["childCount"], children.len(), "{node}");
        self.spans += 1;
        self.input_tokens += node["span"]["inputTokens"].as_i64().unwrap();
        self.output_tokens += node["span"]["outputTokens"].as_i64().unwrap();
        children.iter().for_each(|child| self.add(child));
    }
}

fn check_same(first: &Outcome, other: &Outcome, place: &str) {
    for (what, left, right) in [
        ("session", &first.session, &other.session),
        ("tree", &first.tree, &other.tree),
        ("figures", &first.figures, &other.figures),
        ("events", &first.events, &other.events),
    ] {
        let difference = first_difference(what, left, right);
        assert!(difference.is_none(), "{place}: {}", difference.unwrap_or_default());
    }
}

/// Where two values differ first.
pub(crate) fn first_difference(path: &str, left: &Value, right: &Value) -> Option<String> {
    match (left, right) {
        (Value::Object(left_fields), Value::Object(right_fields)) => {
            let missing = right_fields.keys().find(|key| !left_fields.contains_key(*key));
            if let Some(key) = missing {
                return Some(format!("{path}.{key} is nothing and then {}", right_fields[key]));
            }
            left_fields.iter().find_map(|(key, value)| {
                first_difference(&format!("{path}.{key}"), value, right.get(key).unwrap_or(&Value::Null))
            })
        }
        (Value::Array(left_items), Value::Array(right_items)) if left_items.len() == right_items.len() => {
            let pairs = left_items.iter().zip(right_items).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (left, right))| first_difference(&format!("{path}[{index}]"), left, right))
        }
        _ => (left != right).then(|| format!("{path} is {left} and then {right}")),
    }
}

async fn messages_in_log_records_end_on_the_call_whichever_comes_first(world: World) {
    let family = family(&corpus().join("otel-openai-event-only"));
    let session = family.expected["session_id"].as_str().unwrap();
    for order in [[0, 1], [1, 0]] {
        let (_, api) = world.org(&format!("{order:?}"));
        for index in order {
            family.bodies[index].post(&api).await;
        }
        api.settled().await;
        let events = api.walk(&[("sessionId", session), ("eventType", "llm_response")]).await;
        let calls = family.calls("llm");
        assert_eq!(events.len(), calls.len() + family.calls("error").len(), "{order:?}");
        for call in calls {
            let told = events.iter().find(|event| event["payload"]["responseId"] == call["response_id"]);
            let payload = &told.unwrap_or_else(|| panic!("{order:?}: {call}"))["payload"];
            for (field, wanted) in
                [("inputMessages", "input_contains"), ("outputMessages", "output_contains")]
            {
                let text = payload[field].to_string();
                for wanted in call[wanted].as_array().unwrap() {
                    assert!(text.contains(wanted.as_str().unwrap()), "{order:?}: {wanted} in {text}");
                }
            }
            assert_eq!(payload["usage"]["inputTokens"], call["input_tokens"], "{order:?}");
            assert_eq!(payload["system"], call["system_text"], "{order:?}");
        }
    }
}
