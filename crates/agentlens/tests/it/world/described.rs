//! Whether `openapi.json` says that an operation may answer with a status. Every answer of every test is held to it.

use std::sync::LazyLock;

use serde_json::Value;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    serde_json::from_str(&std::fs::read_to_string(format!("{root}/openapi.json")).unwrap()).unwrap()
});

/// Fails for an operation that the document describes without this status.
#[track_caller]
pub(super) fn assert_described(method: &str, path: &str, status: u16) {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    // `/api/agents/x` fits `/api/agents/{id}` unless a path without a parameter fits, too.
    let fitting = paths.iter().filter(|(template, _)| fits(template, path));
    let Some((template, item)) = fitting.min_by_key(|(template, _)| template.matches('{').count()) else {
        return;
    };
    let Some(operation) = item.get(method) else { return };
    let responses = operation["responses"].as_object().unwrap();
    assert!(
        responses.contains_key(&status.to_string()),
        "{method} {template} answered {status}, which openapi.json does not say"
    );
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(wanted, given)| wanted == given || wanted.starts_with('{') && !given.is_empty())
}
