//! What real client libraries sent (`tests/otel/corpus`): a folder for each, with its requests and `expected.json`.

use std::path::{Path, PathBuf};

use agentlens_otlp::dialects::{Context, Normalised, events_of_logs, events_of_traces};
use agentlens_otlp::wire::{Encoding, decode_logs, decode_traces};
use serde_json::Value;

/// The folders of all captures.
pub(crate) fn families() -> Vec<PathBuf> {
    let families = sorted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/otel/corpus"));
    assert!(families.len() >= 16, "the corpus is not whole");
    families
}

/// What the requests of spans and log records become, in the order of the capture: all of it is taken.
pub(crate) fn requests(family: &Path, now_us: i64) -> Vec<Normalised> {
    let context = Context { now_us };
    let mut requests = Vec::new();
    for file in sorted(family) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let encoding = if name.ends_with(".json") { Encoding::Json } else { Encoding::Protobuf };
        let body = std::fs::read(&file).unwrap();
        let (broken, normalised) = if name.contains(".traces.") {
            let decoded = decode_traces(encoding, &body).unwrap();
            (decoded.broken, events_of_traces(&decoded.request, &context))
        } else if name.contains(".logs.") {
            let decoded = decode_logs(encoding, &body).unwrap();
            (decoded.broken, events_of_logs(&decoded.request, &context))
        } else {
            continue;
        };
        assert_eq!(broken, [], "{name}");
        assert_eq!(normalised.refused, [], "{name}");
        requests.push(normalised);
    }
    requests
}

/// What the stub of the model's API says of a capture.
pub(crate) fn expected(family: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(family.join("expected.json")).unwrap()).unwrap()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
