//! What real client libraries sent (`tests/otel/corpus`), read and shown: every field that `expected.json` says was
//! transmitted must be there. It was written from the stub's log, never from the captured bytes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use agentlens_domain::spans::Arrival;
use agentlens_otlp::dialects::{ClientReport, present};
use serde_json::{Map, Value as Json, json};

use common::{expected, families, requests};

const NOW_US: i64 = 1_900_000_000_000_000;

/// A span of a capture: the facts of its arrivals, and how it is shown.
struct Shown {
    arrivals: Vec<Arrival>,
    view: Map<String, Json>,
}

fn read(family: &Path) -> (Vec<Shown>, Vec<ClientReport>) {
    let mut spans: BTreeMap<(String, String), (Vec<Arrival>, Vec<String>)> = BTreeMap::new();
    let mut clients = Vec::new();
    for request in requests(family, NOW_US) {
        clients.extend(request.clients);
        for event in request.events {
            let arrival = *event.span.unwrap();
            let slot = spans.entry((arrival.trace_id.clone(), arrival.span_id.clone())).or_default();
            slot.0.push(arrival);
            slot.1.push(event.payload);
        }
    }
    let shown = spans.into_values().map(|(arrivals, payloads)| {
        let texts: Vec<&str> = payloads.iter().map(String::as_str).collect();
        Shown { arrivals, view: present(&texts) }
    });
    (shown.collect(), clients)
}

/// The spans that tell of a call: more than one where a library and the client below it both do.
fn telling<'s>(spans: &'s [Shown], call: &Json) -> Vec<&'s Shown> {
    let is_told = |shown: &&Shown| {
        let view = &shown.view;
        let kind = view.get("kind").and_then(Json::as_str);
        match call["kind"].as_str().unwrap() {
            "tool" => kind == Some("tool"),
            "error" => kind == Some("llm") && view.contains_key("error"),
            expected => {
                let input = view.get("usage").map(|usage| &usage["inputTokens"]);
                kind == Some(expected) && input == Some(&call["input_tokens"])
            }
        }
    };
    spans.iter().filter(is_told).collect()
}

/// What the view of a span says where `expected.json` says `field`.
fn shown_as(view: &Map<String, Json>, field: &str) -> Json {
    let usage =
        |key: &str| view.get("usage").map_or(json!(0), |usage| usage.get(key).cloned().unwrap_or(json!(0)));
    let plain = |key: &str| view.get(key).cloned().unwrap_or(Json::Null);
    match field {
        "response_id" => plain("responseId"),
        "provider" => plain("provider"),
        "request_model" => plain("requestModel"),
        "response_model" => plain("responseModel"),
        "input_tokens" => usage("inputTokens"),
        "output_tokens" => usage("outputTokens"),
        "cache_read" => usage("cacheReadTokens"),
        "cache_write" => usage("cacheWriteTokens"),
        "reasoning" => usage("thinkingTokens"),
        "cost_usd" => plain("costUsd"),
        "system_text" => plain("system"),
        "finish_reason" => plain("finishReason"),
        "tool_name" => plain("toolName"),
        "tool_args" => plain("arguments"),
        "tool_call_id" => plain("callId"),
        "has_error" => json!(view.contains_key("error")),
        "has_ttft" => json!(view.contains_key("timeToFirstTokenMs")),
        other => panic!("{other}"),
    }
}

const EXACT: [&str; 17] = [
    "response_id",
    "provider",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_read",
    "cache_write",
    "reasoning",
    "cost_usd",
    "system_text",
    "finish_reason",
    "tool_name",
    "tool_args",
    "tool_call_id",
    "has_error",
    "has_ttft",
];

fn problems_of_call(spans: &[Shown], call: &Json) -> Vec<String> {
    let step = call["step"].as_str().unwrap();
    let told = telling(spans, call);
    if told.is_empty() {
        return vec![format!("{step}: no span tells of it")];
    }
    let absent: Vec<&str> =
        call["not_transmitted"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
    let mut problems = Vec::new();
    for field in EXACT.into_iter().filter(|field| !absent.contains(field) && !call[*field].is_null()) {
        let seen: Vec<Json> = told.iter().map(|shown| shown_as(&shown.view, field)).collect();
        if !seen.contains(&call[field]) {
            problems.push(format!("{step}: {field} is {seen:?}, not {}", call[field]));
        }
    }
    let texts = |keys: &[&str]| -> String {
        let shown = told.iter().flat_map(|shown| keys.iter().filter_map(|key| shown.view.get(*key)));
        shown.map(Json::to_string).collect()
    };
    for (field, keys) in
        [("input_contains", &["inputMessages", "input"][..]), ("output_contains", &["outputMessages"][..])]
    {
        for wanted in call[field].as_array().unwrap().iter().filter_map(Json::as_str) {
            if !texts(keys).contains(wanted) {
                problems.push(format!("{step}: {wanted:?} is not in {keys:?}: {}", texts(keys)));
            }
        }
    }
    let wanted = call["tool_result_contains"].as_str().filter(|_| !absent.contains(&"tool_result_contains"));
    if wanted.is_some_and(|wanted| !texts(&["result"]).contains(wanted)) {
        problems.push(format!("{step}: {wanted:?} is not in the result: {}", texts(&["result"])));
    }
    problems
}

fn problems_of_family(family: &Path) -> Vec<String> {
    let expected = expected(family);
    let (spans, clients) = read(family);
    let mut problems: Vec<String> = expected["calls"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|call| problems_of_call(&spans, call))
        .collect();
    let arrivals: Vec<&Arrival> = spans.iter().flat_map(|shown| &shown.arrivals).collect();
    let names_session = |arrival: &&Arrival| {
        arrival.session.as_ref().map(|claim| json!(claim.id)) == Some(expected["session_id"].clone())
    };
    if !arrivals.iter().any(names_session) {
        problems.push("no span names the session".to_owned());
    }
    let is = |value: Option<&str>, wanted: &Json| wanted.is_null() || value == wanted.as_str();
    if !arrivals.iter().any(|arrival| is(arrival.user_id.as_deref(), &expected["user_id"])) {
        problems.push("no span names the user".to_owned());
    }
    if !arrivals.iter().any(|arrival| is(arrival.agent_name.as_deref(), &expected["agent_name"])) {
        problems.push("no span names the agent".to_owned());
    }
    if !arrivals.iter().all(|arrival| is(arrival.environment.as_deref(), &expected["environment"])) {
        problems.push("a span names no environment".to_owned());
    }
    for client in clients.iter().filter(|client| !client.unmapped.is_empty()) {
        problems.push(format!("{} {}: unmapped {:?}", client.name, client.version, client.unmapped));
    }
    problems
}

#[test]
fn every_transmitted_field_of_every_capture_is_shown() {
    let mut all = String::new();
    for family in families() {
        for problem in problems_of_family(&family) {
            all += &format!("{}: {problem}\n", family.file_name().unwrap().display());
        }
    }
    assert!(all.is_empty(), "\n{all}");
}
