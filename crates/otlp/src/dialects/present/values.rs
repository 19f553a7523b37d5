//! Looking into JSON of unknown shape.

use serde_json::{Map, Value as Json, json};

/// The first of these members that is not empty.
pub(super) fn first<'j>(object: &'j Map<String, Json>, keys: &[&str]) -> Option<&'j Json> {
    keys.iter().find_map(|key| object.get(*key).filter(|value| !value.is_null()))
}

/// The first of these members that exists.
pub(super) fn member<'j>(object: &'j Map<String, Json>, keys: &[&str]) -> Option<&'j Json> {
    keys.iter().find_map(|key| object.get(*key))
}

/// The first of these members that is a text and not empty.
pub(super) fn text_of(object: &Map<String, Json>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| object.get(*key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
}

/// A text as it is, anything else as JSON.
pub(super) fn as_text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Microseconds as milliseconds, as an integer if possible.
pub(super) fn millis(us: i64) -> Json {
    if us % 1000 == 0 { json!(us / 1000) } else { json!(us as f64 / 1000.0) }
}
