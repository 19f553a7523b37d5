//! Values of attributes as they arrive (protobuf) and as they are stored (JSON), read through one trait. So the figures of a
//! span are the same when it arrives and when it is shown.

use std::borrow::Cow;

use data_encoding::BASE64;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use serde_json::Value as Json;

use super::python;

/// Deeper structures are cut when they become JSON.
const MAX_DEPTH: usize = 100;

/// One attribute's value.
pub(super) trait RawValue {
    /// A string, number or boolean as text, without the quotes of a string that a client encoded as JSON.
    fn text(&self) -> Option<Cow<'_, str>>;
    /// The value if it is a string.
    fn string(&self) -> Option<&str>;
    /// The number, also one that was sent as text.
    fn number(&self) -> Option<f64>;
    /// Whether the value is empty.
    fn is_blank(&self) -> bool;
    /// The value as JSON. A text with an object or a list in it becomes that object or list.
    fn structure(&self) -> Json;

    /// A boolean, also in the words that clients use for it.
    fn flag(&self) -> Option<bool> {
        match &*self.text()? {
            "true" | "True" | "TRUE" | "1" | "hit" | "HIT" | "yes" => Some(true),
            "false" | "False" | "FALSE" | "0" | "miss" | "MISS" | "no" => Some(false),
            _ => None,
        }
    }
}

impl RawValue for AnyValue {
    fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self.value.as_ref()? {
            Any::StringValue(text) => unquoted(text),
            Any::BoolValue(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Any::IntValue(number) => Cow::Owned(number.to_string()),
            Any::DoubleValue(number) => Cow::Owned(word_of(*number)),
            Any::BytesValue(bytes) => Cow::Owned(BASE64.encode(bytes)),
            _ => return None,
        })
    }

    fn string(&self) -> Option<&str> {
        match self.value.as_ref()? {
            Any::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self.value.as_ref()? {
            Any::IntValue(number) => Some(*number as f64),
            Any::DoubleValue(number) => Some(*number).filter(|number| number.is_finite()),
            Any::StringValue(text) => number_of(text),
            _ => None,
        }
    }

    fn is_blank(&self) -> bool {
        match &self.value {
            None | Some(Any::StringValueStrindex(_)) => true,
            Some(Any::StringValue(text)) => is_blank(text),
            Some(Any::BytesValue(bytes)) => bytes.is_empty(),
            Some(Any::ArrayValue(array)) => array.values.is_empty(),
            Some(Any::KvlistValue(list)) => list.values.is_empty(),
            _ => false,
        }
    }

    fn structure(&self) -> Json {
        match self.string() {
            Some(text) => structure_of(text),
            None => json_of(self, 0),
        }
    }
}

impl RawValue for Json {
    fn text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::String(text) => unquoted(text),
            Self::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
            Self::Number(number) => Cow::Owned(match (number.as_i64(), number.as_f64()) {
                (None, Some(double)) => word_of(double),
                _ => number.to_string(),
            }),
            _ => return None,
        })
    }

    fn string(&self) -> Option<&str> {
        self.as_str()
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::String(text) => number_of(text),
            other => other.as_f64().filter(|number| number.is_finite()),
        }
    }

    fn is_blank(&self) -> bool {
        match self {
            Self::Null => true,
            Self::String(text) => is_blank(text),
            Self::Array(array) => array.is_empty(),
            Self::Object(object) => object.is_empty(),
            _ => false,
        }
    }

    fn structure(&self) -> Json {
        match self {
            Self::String(text) => structure_of(text),
            other => other.clone(),
        }
    }
}

/// A number as text, the same before and after it was stored as JSON.
pub(super) fn word_of(number: f64) -> String {
    match number {
        // The stored JSON has no negative zero.
        _ if number.is_finite() => (number + 0.0).to_string(),
        _ if number.is_nan() => "NaN".to_owned(),
        _ if number > 0.0 => "Infinity".to_owned(),
        _ => "-Infinity".to_owned(),
    }
}

fn number_of(text: &str) -> Option<f64> {
    text.trim().trim_matches('"').parse().ok().filter(|number: &f64| number.is_finite())
}

/// The placeholder for a value that a client withholds. Logfire withholds every attribute whose key contains `session`.
const PLACEHOLDERS: [&str; 4] = ["[Scrubbed due to ", "[redacted]", "[REDACTED]", "[Filtered]"];

/// Whether a text is empty, also one that a client encoded as JSON.
fn is_blank(text: &str) -> bool {
    match text.as_bytes().first() {
        None => true,
        Some(b'"') => text == "\"\"",
        Some(b'[') => PLACEHOLDERS.iter().any(|placeholder| text.starts_with(placeholder)),
        Some(_) => false,
    }
}

/// A text without the quotes of JSON. MLflow encodes every attribute as JSON.
pub(super) fn unquoted(text: &str) -> Cow<'_, str> {
    if !text.starts_with('"') {
        return Cow::Borrowed(text);
    }
    serde_json::from_str(text.trim()).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The object, list or quoted text that a text holds, or the text itself. An object or list may be JSON, JSON inside a JSON
/// string, or printed by Python.
pub(super) fn structure_of(text: &str) -> Json {
    let trimmed = text.trim();
    let found = match trimmed.as_bytes().first() {
        Some(b'{' | b'[') => object_or_list(trimmed),
        Some(b'"') => serde_json::from_str::<String>(trimmed)
            .ok()
            .map(|inner| object_or_list(inner.trim()).unwrap_or(Json::String(inner))),
        _ => None,
    };
    found.unwrap_or_else(|| Json::String(text.to_owned()))
}

fn object_or_list(text: &str) -> Option<Json> {
    if !matches!(text.as_bytes().first(), Some(b'{' | b'[')) {
        return None;
    }
    serde_json::from_str(text).ok().or_else(|| python::read(text))
}

fn json_of(value: &AnyValue, depth: usize) -> Json {
    if depth > MAX_DEPTH {
        return Json::Null;
    }
    match &value.value {
        None | Some(Any::StringValueStrindex(_)) => Json::Null,
        Some(Any::StringValue(text)) => Json::String(text.clone()),
        Some(Any::BoolValue(flag)) => Json::Bool(*flag),
        Some(Any::IntValue(number)) => Json::from(*number),
        Some(Any::DoubleValue(number)) => match serde_json::Number::from_f64(*number) {
            Some(number) => Json::Number(number),
            None => Json::String(word_of(*number)),
        },
        Some(Any::BytesValue(bytes)) => Json::String(BASE64.encode(bytes)),
        Some(Any::ArrayValue(array)) => {
            Json::Array(array.values.iter().map(|value| json_of(value, depth + 1)).collect())
        }
        Some(Any::KvlistValue(list)) => {
            let members = list.values.iter().map(|pair| {
                let value = pair.value.as_ref().map_or(Json::Null, |value| json_of(value, depth + 1));
                (pair.key.clone(), value)
            });
            Json::Object(members.collect())
        }
    }
}
