//! The view of a span does not depend on the order of its arrivals or on repetitions.

use serde_json::{Value as Json, json};

use super::super::{Normalised, present};
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

/// The roles and contents of the messages that were sent, in the order in which they are shown.
fn sent(payloads: &[String]) -> Vec<String> {
    let view = present(&payloads.iter().map(String::as_str).collect::<Vec<_>>());
    let messages = view["inputMessages"].as_array().unwrap();
    let text = |part: &Json| part.get("content").or_else(|| part.get("response")).cloned();
    let told = messages.iter().map(|message| (message["role"].clone(), text(&message["parts"][0])));
    told.map(|(role, text)| format!("{role} {}", text.unwrap())).collect()
}

fn payloads(normalised: Normalised) -> Vec<String> {
    normalised.events.into_iter().map(|event| event.payload).collect()
}

#[test]
fn messages_of_one_instant_stay_in_the_order_of_their_span() {
    let told = |name: &str, content: &str| json!({"name": name, "ms": 5, "attributes": {"content": content}});
    let events = json!([
        told("gen_ai.user.message", "z"),
        told("gen_ai.assistant.message", "y"),
        told("gen_ai.user.message", "x"),
        told("gen_ai.user.message", "z")
    ]);
    let version = |ms: i64| {
        span(&json!({"ms": [0, ms], "attributes": {"gen_ai.operation.name": "chat"}, "events": events}))
    };
    let mut versions = payloads(read_spans(vec![version(10), version(20)]));
    let expected = ["\"user\" \"z\"", "\"assistant\" \"y\"", "\"user\" \"x\""];
    assert_eq!(sent(&versions), expected);
    versions.reverse();
    assert_eq!(sent(&versions), expected);
}

#[test]
fn log_records_of_one_instant_follow_their_roles() {
    let call = span(&json!({"attributes": {"gen_ai.operation.name": "chat"}}));
    let told = |role: &str, content: &str| {
        log(&json!({"name": format!("gen_ai.{role}.message"), "ms": 5, "body": {"content": content}}))
    };
    let mut records = vec![told("tool", "a"), told("assistant", "b"), told("user", "d"), told("system", "e")];
    // Observed later, as it was written later.
    let mut second = told("user", "c");
    records[2].observed_time_unix_nano = 1;
    second.observed_time_unix_nano = 2;
    records[1].observed_time_unix_nano = 3;
    records[0].observed_time_unix_nano = 3;
    records.push(second);
    let mut arrivals = payloads(read_logs(records));
    arrivals.extend(payloads(read_spans(vec![call])));
    let expected =
        ["\"system\" \"e\"", "\"user\" \"d\"", "\"user\" \"c\"", "\"assistant\" \"b\"", "\"tool\" \"a\""];
    assert_eq!(sent(&arrivals), expected);
    arrivals.reverse();
    assert_eq!(sent(&arrivals), expected);
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
