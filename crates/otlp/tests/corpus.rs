//! Captures of real client libraries, read and resolved without a server: whatever the order in which spans come, the
//! tokens are those that the stub of the model's API logged, in one session and one tree.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use agentlens_domain::cost::PriceTable;
use agentlens_domain::spans::{Forest, Span, StoredArrival, Trace, resolve};

use common::{expected, families, requests};

const NOW_US: i64 = 1_900_000_000_000_000;

/// What arrives of spans, in the order of the capture.
fn arrivals(family: &Path) -> Vec<StoredArrival> {
    requests(family, NOW_US)
        .into_iter()
        .flat_map(|request| request.events)
        .filter_map(|event| {
            let arrival = *event.span?;
            Some(StoredArrival { event_id: event.id, environment: "production".to_owned(), arrival })
        })
        .collect()
}

fn forest(arrivals: &[StoredArrival]) -> Forest {
    let mut forest = Forest::default();
    for stored in arrivals {
        let trace_id = &stored.arrival.trace_id;
        let at = forest.traces.iter().position(|trace| trace.trace_id == *trace_id).unwrap_or_else(|| {
            forest.traces.push(Trace::of(trace_id.clone()));
            forest.traces.len() - 1
        });
        let spans = &mut forest.traces[at].spans;
        let known =
            spans.iter_mut().find(|span| span.arrivals()[0].arrival.span_id == stored.arrival.span_id);
        match known {
            Some(span) if span.has(&stored.arrival) => {}
            Some(span) => span.add(stored.clone()),
            None => spans.push(Span::of(stored.clone())),
        }
    }
    resolve(&mut forest, PriceTable::embedded());
    forest
}

fn check(family: &Path, replay: &str, arrivals: &[StoredArrival]) {
    let expected = expected(family);
    let forest = forest(arrivals);
    let place = format!("{} {replay}", family.file_name().unwrap().to_string_lossy());
    let spans: Vec<&Span> = forest.traces.iter().flat_map(|trace| &trace.spans).collect();
    let sum = |part: fn(&Span) -> i64| spans.iter().map(|span| part(span)).sum::<i64>();
    let totals = &expected["totals"];
    let found = serde_json::json!({
        "input_tokens": sum(|span| span.shown.counted.usage.input),
        "output_tokens": sum(|span| span.shown.counted.usage.output),
        "cache_read": sum(|span| span.shown.counted.usage.cache_read),
        "cache_write": sum(|span| {
            span.shown.counted.usage.cache_write_5m + span.shown.counted.usage.cache_write_1h
        }),
        "reasoning": sum(|span| span.shown.counted.usage.reasoning),
    });
    for (name, total) in totals.as_object().unwrap() {
        assert_eq!(&found[name], total, "{place}: {name}");
    }
    for trace in &forest.traces {
        assert_eq!(trace.shown.session_id, expected["session_id"].as_str().unwrap(), "{place}");
    }
    let roots = spans
        .iter()
        .filter(|span| span.shown.parent_span_id.is_none() && span.shown.part_of.is_none())
        .count();
    assert_eq!(roots, 1, "{place}: trees");
    let top = spans.iter().map(|span| span.shown.subtree.input_tokens).max();
    assert_eq!(top, totals["input_tokens"].as_i64(), "{place}: the root's sum");
    if let Some(agent) = expected["agent_name"].as_str() {
        let owners = spans.iter().filter(|span| span.shown.counted.llm_calls > 0);
        let others: Vec<&str> =
            owners.map(|span| span.shown.counted.agent_id.as_str()).filter(|name| *name != agent).collect();
        assert!(others.is_empty(), "{place}: calls of {others:?} instead of {agent}");
    }
    if let Some(user) = expected["user_id"].as_str() {
        assert!(
            spans.iter().all(|span| span.shown.counted.user_id.as_deref() == Some(user)),
            "{place}: user"
        );
    }
}

#[test]
fn every_replay_of_every_capture_counts_every_token_once() {
    for family in families() {
        let all = arrivals(&family);
        check(&family, "as is", &all);
        let doubled: Vec<_> = all.iter().chain(&all).cloned().collect();
        check(&family, "doubled", &doubled);
        for seed in 1..6_u64 {
            let mut shuffled = all.clone();
            shuffled.sort_by_key(|stored| {
                let id = u64::from_str_radix(&stored.arrival.span_id, 16).unwrap();
                (id ^ u64::from(stored.arrival.digest[0])).wrapping_mul(seed | 0x9e37_79b9_7f4a_7c15)
            });
            check(&family, "shuffled", &shuffled);
        }
        let mut reversed = all.clone();
        reversed.sort_by_key(|stored| std::cmp::Reverse(stored.arrival.start_us));
        check(&family, "children first", &reversed);
    }
}
