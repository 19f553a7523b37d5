//! A span is shown the same whatever order its arrivals come in, and however often.

use serde_json::{Value as Json, json};

use super::super::present;
use super::{log, read_logs, read_spans, span};

fn arrivals() -> Vec<String> {
    let messages = |content: &str| {
        json!([{"role": "user", "parts": [{"type": "text", "content": content}]}]).to_string()
    };
    let spans = vec![
        span(
            &json!({"name": "early", "ms": [0, 10], "attributes": {"gen_ai.request.model": "m", "only.early": 1, "gen_ai.usage.input_tokens": 1}}),
        ),
        span(&json!({"name": "late", "ms": [0, 500], "status": {"code": "ERROR", "message": "boom"},
            "attributes": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m2", "gen_ai.usage.input_tokens": 7},
            "events": [{"name": "exception", "ms": 400, "attributes": {"exception.type": "E"}}]})),
        span(
            &json!({"name": "late", "ms": [0, 500], "attributes": {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 7}}),
        ),
    ];
    let logs = vec![
        log(&json!({"name": "gen_ai.client.inference.operation.details", "ms": 600,
            "attributes": {"gen_ai.input.messages": messages("hello")}})),
        log(&json!({"name": "gen_ai.choice", "ms": 450, "body": {"message": {"content": "hi"}}})),
        log(
            &json!({"name": "gen_ai.evaluation.result", "ms": 900, "attributes": {"gen_ai.evaluation.name": "a"}}),
        ),
        log(
            &json!({"name": "gen_ai.evaluation.result", "ms": 900, "attributes": {"gen_ai.evaluation.name": "b"}}),
        ),
    ];
    let events = read_spans(spans).events.into_iter().chain(read_logs(logs).events);
    events.map(|event| event.payload).collect()
}

fn shown(texts: &[&str]) -> String {
    serde_json::to_string(&Json::Object(present(texts))).unwrap()
}

#[test]
fn every_order_shows_the_same() {
    let arrivals = arrivals();
    let mut texts: Vec<&str> = arrivals.iter().map(String::as_str).collect();
    let first = shown(&texts);
    // Heap's algorithm would do all 5040; rotations and swaps of each pair reach every pair of neighbours.
    for turn in 0..texts.len() {
        texts.rotate_left(1);
        for other in 0..texts.len() {
            texts.swap(turn, other);
            assert_eq!(shown(&texts), first);
        }
    }
    texts.extend(arrivals.iter().map(String::as_str));
    assert_eq!(shown(&texts), first);
}

#[test]
fn the_longest_span_wins_and_nothing_is_lost() {
    let arrivals = arrivals();
    let view = present(&arrivals.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        (&view["name"], &view["durationMs"], &view["requestModel"]),
        (&json!("late"), &json!(500), &json!("m2"))
    );
    assert_eq!(view["attributes"]["only.early"], 1);
    assert_eq!((&view["error"]["type"], &view["error"]["message"]), (&json!("E"), &json!("boom")));
    assert_eq!(view["inputMessages"][0]["parts"][0]["content"], "hello");
    assert_eq!(view["completion"], "hi");
    assert_eq!(view["evaluations"].as_array().unwrap().len(), 2);
}

#[test]
fn the_longest_span_wins_over_one_that_ends_later() {
    let long = span(&json!({"name": "long", "ms": [0, 500]}));
    let later = span(&json!({"name": "later", "ms": [900, 1000]}));
    let events = read_spans(vec![long, later]).events;
    assert_eq!(present(&[&events[0].payload, &events[1].payload])["name"], "long");
}

#[test]
fn what_is_no_arrival_is_left_out() {
    assert!(present(&[]).is_empty());
    assert!(present(&["", "[]", "nonsense"]).is_empty());
}

#[test]
fn a_log_record_alone_is_shown_too() {
    let log = read_logs(vec![log(
        &json!({"name": "gen_ai.choice", "ms": 450, "body": {"message": {"content": "hi"}}}),
    )]);
    let view = present(&[&log.events[0].payload]);
    assert_eq!((&view["spanId"], &view["completion"]), (&json!("0b0b0b0b0b0b0b0b"), &json!("hi")));
    assert!(!view.contains_key("durationMs"));
}
