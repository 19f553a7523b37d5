//! Whatever the order in which spans arrive and however they are split over requests, the same is shown and counted.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::otel_corpus::first_difference;
use crate::otel_requests::{agent, chat, send_spans, span, timed, tree};
use crate::world::{Api, World};

on_both_engines!(spans_in_any_order_end_the_same);

/// Spans of a few traces that name agents, users, sessions and answers as chance will have it.
fn tangle(random: &mut SmallRng) -> Vec<Value> {
    let mut spans = Vec::new();
    for number in 1..60_u32 {
        let (trace, id) = (1 + number % 4, number);
        // Its parent may be of its trace or not, come later or never.
        let parent = random.random_bool(0.8).then(|| random.random_range(1..62));
        let mut attributes = match random.random_range(0..6) {
            0 => agent(["planner", "critic", "coder"].choose(random).unwrap()),
            1 => json!({ "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search" }),
            2 => json!({}),
            _ => chat(random.random_range(1..500), random.random_range(1..50)),
        };
        let mut sometimes = |chance: f64, key: &str, values: &[&str]| {
            if let Some(value) = values.choose(random).copied().filter(|_| random.random_bool(chance)) {
                attributes[key] = json!(value);
            }
        };
        // Traces 1 and 2 are of one session, trace 3 of another, and trace 4 is that of those whose answers it repeats.
        let session = ["s1", "s1", "s2"].get(trace as usize - 1);
        sometimes(0.1, "session.id", &session.copied().into_iter().collect::<Vec<_>>());
        sometimes(0.1, "gen_ai.conversation.id", &[&*format!("conversation {trace}")]);
        sometimes(0.1, "user.id", &["bob", "eve"]);
        sometimes(0.2, "gen_ai.response.id", &["a1", "a2", "a3", "a4"]);
        sometimes(0.1, "error.type", &["Timeout"]);
        let start_ms = random.random_range(0..5_000);
        let span =
            timed(span(trace, id, parent, attributes), start_ms, start_ms + random.random_range(1..3_000));
        if random.random_bool(0.2) {
            // An earlier version, as long-lived spans are sent.
            let mut version = span.clone();
            version["endTimeUnixNano"] = version["startTimeUnixNano"].clone();
            spans.push(version);
        }
        spans.push(span);
    }
    spans
}

/// Everything that is shown, without what says in which order it came.
async fn everything(api: &Api) -> Value {
    let mut sessions = api.read("/api/sessions").await["sessions"].take();
    let mut trees = Vec::new();
    for session in sessions.as_array_mut().unwrap() {
        let id = session["id"].as_str().unwrap().to_owned();
        api.timeline(&id).await;
        trees.push((id.clone(), tree(api, &id).await));
        // Of users of several spans, the session's is the first that came.
        for passing in ["tenantId", "userId"] {
            session.as_object_mut().unwrap().remove(passing);
        }
    }
    let mut agents = api.read("/api/agents").await["agents"].take();
    let agents = agents.as_array_mut().unwrap();
    // One that was named only until more was known keeps its row, with nothing in it.
    agents.retain(|agent| agent["eventCount"] != 0);
    agents.sort_by_key(|agent| agent["id"].to_string());
    for agent in agents.iter_mut() {
        for passing in ["tenantId", "firstSeenAt", "lastSeenAt"] {
            agent.as_object_mut().unwrap().remove(passing);
        }
    }
    sessions.as_array_mut().unwrap().sort_by_key(|session| session["id"].to_string());
    let mut all = json!({
        "sessions": sessions,
        "agents": agents,
        "analytics": api.read("/api/analytics").await,
        "models": api.read("/api/analytics/llm").await,
        "users": api.read("/api/analytics/users").await,
        "trees": trees.into_iter().collect::<BTreeMap<_, _>>(),
    });
    strip(&mut all);
    all
}

/// Takes away which event was the first of a span.
fn strip(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Object(object) => {
            if object.remove("eventIds").is_some() && object.contains_key("children") {
                object.remove("id");
            }
            object.values_mut().for_each(strip);
        }
        _ => {}
    }
}

async fn spans_in_any_order_end_the_same(world: World) {
    for seed in 0..3 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut spans = tangle(&mut random);
        let mut first = None;
        for round in 0..4 {
            let api = world.make_key(&["--workspace", &format!("w{seed}-{round}")]);
            let size = [1_000, 1, 7, 3][round];
            for chunk in spans.chunks(size) {
                send_spans(&api, chunk).await;
            }
            let found = everything(&api).await;
            let first = first.get_or_insert_with(|| found.clone());
            let difference = first_difference("", first, &found);
            assert!(difference.is_none(), "seed {seed} round {round}: {}", difference.unwrap_or_default());
            spans.shuffle(&mut random);
        }
    }
}
