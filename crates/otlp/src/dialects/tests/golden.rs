//! A short capture of each client: its spans and log records, and exactly the facts and views they give.
//!
//! `UPDATE_GOLDEN=1 cargo test -p agentlens-otlp golden` rewrites the expected parts; review the difference.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::super::{events_of_logs, events_of_traces, present};
use super::{CONTEXT, log, log_request, slim, span, trace_request};

/// Members of a view that repeat the input.
const RAW: [&str; 7] = ["traceId", "spanId", "attributes", "events", "resource", "scope", "links"];

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialects/tests/golden");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The facts of the spans and log records of one case, and the view of the span.
fn read(case: &Json) -> Json {
    let spans: Vec<Json> = case["spans"].as_array().cloned().unwrap_or_default();
    let logs: Vec<Json> = case["logs"].as_array().cloned().unwrap_or_default();
    let mut normalised = events_of_traces(&trace_request(spans.iter().map(span).collect(), case), &CONTEXT);
    let of_logs = events_of_logs(&log_request(logs.iter().map(log).collect(), case), &CONTEXT);
    assert_eq!((&normalised.refused[..], &of_logs.refused[..]), (&[][..], &[][..]), "{}", case["emitter"]);
    let unmapped: Vec<&String> =
        normalised.clients.iter().chain(&of_logs.clients).flat_map(|client| client.unmapped.keys()).collect();
    assert_eq!(unmapped, Vec::<&String>::new(), "{}", case["emitter"]);
    normalised.events.extend(of_logs.events);
    let payloads: Vec<&str> = normalised.events.iter().map(|event| event.payload.as_str()).collect();
    let mut view: Map<String, Json> = present(&payloads);
    view.retain(|key, _| !RAW.contains(&&**key));
    let events: Vec<Json> = normalised
        .events
        .iter()
        .map(|event| {
            json!({
                "type": event.event_type.as_str(),
                "severity": event.severity.as_str(),
                "sessionId": event.session_id,
                "agentId": event.agent_id,
                "arrival": event.span.as_deref().map(slim),
            })
        })
        .collect();
    json!({"events": events, "view": view})
}

#[test]
fn every_emitter_is_read_as_it_means() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for file in files() {
        let mut case: Json = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let found = read(&case);
        if update {
            case["expected"] = found;
            std::fs::write(&file, serde_json::to_string_pretty(&case).unwrap() + "\n").unwrap();
        } else {
            let found = serde_json::to_string_pretty(&found).unwrap();
            let expected = serde_json::to_string_pretty(&case["expected"]).unwrap();
            assert!(found == expected, "{}:\n{found}\nbut expected was\n{expected}", file.display());
        }
        cases += 1;
    }
    assert!(cases >= 18, "{cases}");
}
