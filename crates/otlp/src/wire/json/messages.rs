//! Reads the messages of OTLP from JSON.
//!
//! A field of the wrong type stays empty and is counted in `repaired`. The value of an attribute is never lost: if
//! its type is wrong, its JSON is kept as a string. Example: `{"intValue": true}` becomes the string `true`.

use std::borrow::Cow;

use agentlens_domain::ledger::Reason;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::tree::{Json, Members, Unreadable, present, read_tree};
use crate::wire::batch::Metric;

/// The most JSON values in one item.
pub(in crate::wire) const MAX_ITEM_VALUES: usize = 250_000;
const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

/// A message that can be read from a JSON object.
pub(in crate::wire) trait FromJson: Default {
    /// Sets the field of this name, in lowerCamelCase, to a value that is not `null`.
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64);

    /// Reads an item from its text. The text of a refusal completes a sentence about the item.
    fn from_text(text: &str, repaired: &mut u64) -> Result<Self, (Reason, String)> {
        let item = read_tree(text, MAX_ITEM_VALUES, None, |json| match json {
            Json::Object(members) => Ok(from_members(members, repaired)),
            _ => Err(not_an_object()),
        });
        item.unwrap_or_else(|unreadable| Err(refusal(unreadable)))
    }
}

fn refusal(unreadable: Unreadable) -> (Reason, String) {
    match unreadable {
        Unreadable::TooManyValues => {
            (Reason::TooLarge, format!("holds more than {MAX_ITEM_VALUES} JSON values"))
        }
        Unreadable::Invalid { what, line, column } => {
            let message = format!("cannot be read: {what} at line {line}, column {column} of its JSON");
            (Reason::InvalidField, message)
        }
    }
}

fn not_an_object() -> (Reason, String) {
    (Reason::InvalidField, "is not a JSON object".to_owned())
}

fn from_members<M: FromJson>(members: Members<'_>, repaired: &mut u64) -> M {
    let mut message = M::default();
    for (name, json) in present(members) {
        message.set(&camel_case(&name), json, repaired);
    }
    message
}

/// `trace_id` as `traceId`.
pub(super) fn camel_case(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    Cow::Owned(camel)
}

impl FromJson for Resource {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            _ => {}
        }
    }
}

impl FromJson for InstrumentationScope {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "name" => self.name = text(json, repaired),
            "version" => self.version = text(json, repaired),
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            _ => {}
        }
    }
}

impl FromJson for Span {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "traceId" => self.trace_id = field(id(&json, TRACE_ID_BYTES), repaired),
            "spanId" => self.span_id = field(id(&json, SPAN_ID_BYTES), repaired),
            "parentSpanId" => self.parent_span_id = field(id(&json, SPAN_ID_BYTES), repaired),
            "traceState" => self.trace_state = text(json, repaired),
            "flags" => self.flags = field(integer(&json), repaired),
            "name" => self.name = text(json, repaired),
            "kind" => self.kind = enumeration(&json, SpanKind::from_str_name, repaired),
            "startTimeUnixNano" => self.start_time_unix_nano = field(integer(&json), repaired),
            "endTimeUnixNano" => self.end_time_unix_nano = field(integer(&json), repaired),
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            "events" => self.events = list(json, repaired),
            "droppedEventsCount" => self.dropped_events_count = field(integer(&json), repaired),
            "links" => self.links = list(json, repaired),
            "droppedLinksCount" => self.dropped_links_count = field(integer(&json), repaired),
            "status" => self.status = message(json, repaired),
            _ => {}
        }
    }
}

impl FromJson for Event {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "timeUnixNano" => self.time_unix_nano = field(integer(&json), repaired),
            "name" => self.name = text(json, repaired),
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            _ => {}
        }
    }
}

impl FromJson for Link {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "traceId" => self.trace_id = field(id(&json, TRACE_ID_BYTES), repaired),
            "spanId" => self.span_id = field(id(&json, SPAN_ID_BYTES), repaired),
            "traceState" => self.trace_state = text(json, repaired),
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            "flags" => self.flags = field(integer(&json), repaired),
            _ => {}
        }
    }
}

impl FromJson for Status {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "message" => self.message = text(json, repaired),
            "code" => self.code = enumeration(&json, StatusCode::from_str_name, repaired),
            _ => {}
        }
    }
}

impl FromJson for LogRecord {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "timeUnixNano" => self.time_unix_nano = field(integer(&json), repaired),
            "observedTimeUnixNano" => self.observed_time_unix_nano = field(integer(&json), repaired),
            "severityNumber" => {
                self.severity_number = enumeration(&json, SeverityNumber::from_str_name, repaired)
            }
            "severityText" => self.severity_text = text(json, repaired),
            "body" => self.body = value(json, repaired),
            "attributes" => self.attributes = attributes(json, repaired),
            "droppedAttributesCount" => self.dropped_attributes_count = field(integer(&json), repaired),
            "flags" => self.flags = field(integer(&json), repaired),
            "traceId" => self.trace_id = field(id(&json, TRACE_ID_BYTES), repaired),
            "spanId" => self.span_id = field(id(&json, SPAN_ID_BYTES), repaired),
            "eventName" => self.event_name = text(json, repaired),
            _ => {}
        }
    }
}

impl FromJson for KeyValue {
    fn set(&mut self, name: &str, json: Json<'_>, repaired: &mut u64) {
        match name {
            "key" => self.key = text(json, repaired),
            "value" => self.value = value(json, repaired),
            "keyStrindex" => self.key_strindex = field(integer(&json), repaired),
            _ => {}
        }
    }
}

/// Metrics are counted and not stored, so their contents are not read.
impl FromJson for Metric {
    fn set(&mut self, _name: &str, _json: Json<'_>, _repaired: &mut u64) {}

    fn from_text(text: &str, _repaired: &mut u64) -> Result<Self, (Reason, String)> {
        if text.starts_with('{') { Ok(Self::default()) } else { Err(not_an_object()) }
    }
}

fn field<T: Default>(value: Option<T>, repaired: &mut u64) -> T {
    value.unwrap_or_else(|| {
        *repaired += 1;
        T::default()
    })
}

/// A string; anything else is kept as its JSON.
pub(super) fn text(json: Json<'_>, repaired: &mut u64) -> String {
    match json {
        Json::Text(text) => text.into_owned(),
        other => {
            *repaired += 1;
            let json = serde_json::to_string(&other).unwrap_or_default();
            if json.starts_with('"') { serde_json::from_str(&json).unwrap_or_default() } else { json }
        }
    }
}

/// An integer; also accepted as a string, as `12.0` or as `12e3`.
fn integer<N: TryFrom<i128>>(json: &Json<'_>) -> Option<N> {
    let integer = match json {
        Json::Number(number) => number.as_i128().or_else(|| whole(number.as_f64()?)),
        Json::Text(text) => text.parse().ok().or_else(|| whole(text.parse().ok()?)),
        _ => None,
    };
    N::try_from(integer?).ok()
}

fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e38).then_some(number as i128)
}

/// A double; also accepted as a string, including `"NaN"`, `"Infinity"` and `"-Infinity"`. `None` for `1e400`.
fn double(json: &Json<'_>) -> Option<f64> {
    let Json::Unread(raw) = json else { return None };
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_word = text.ends_with(char::is_alphabetic);
    text.parse().ok().filter(|number: &f64| number.is_finite() || is_word)
}

/// Bytes in base64 with either alphabet, padded or not.
fn bytes(json: &Json<'_>) -> Option<Vec<u8>> {
    let Json::Text(text) = json else { return None };
    let digits = text.trim_end_matches('=').as_bytes();
    let is_url_safe = digits.iter().any(|digit| matches!(digit, b'-' | b'_'));
    let alphabet = if is_url_safe { BASE64URL_NOPAD } else { BASE64_NOPAD };
    alphabet.decode(digits).ok()
}

/// An id that should have `length` bytes. It is read as base64 if the text has the length of that, otherwise as hexadecimal. A
/// hexadecimal id of another length is read too, so that the refusal can name its length.
fn id(json: &Json<'_>, length: usize) -> Option<Vec<u8>> {
    let Json::Text(text) = json else { return None };
    let is_base64 = text.trim_end_matches('=').len() == (length * 4).div_ceil(3);
    let id = if is_base64 { bytes(json) } else { None };
    id.or_else(|| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok())
}

/// An enum by its number, known or not, or by its name.
fn enumeration<E: Into<i32>>(json: &Json<'_>, by_name: fn(&str) -> Option<E>, repaired: &mut u64) -> i32 {
    let number = integer(json).or_else(|| match json {
        Json::Text(name) => by_name(name).map(Into::into),
        _ => None,
    });
    field(number, repaired)
}

pub(super) fn message<M: FromJson>(json: Json<'_>, repaired: &mut u64) -> Option<M> {
    let Json::Object(members) = json else {
        *repaired += 1;
        return None;
    };
    Some(from_members(members, repaired))
}

fn list<M: FromJson>(json: Json<'_>, repaired: &mut u64) -> Vec<M> {
    let Json::List(elements) = json else {
        *repaired += 1;
        return Vec::new();
    };
    let elements = elements.into_iter().filter(|element| !matches!(element, Json::Null));
    elements.filter_map(|element| message(element, repaired)).collect()
}

/// A list of attributes. An object is accepted too: each member is an attribute.
fn attributes(json: Json<'_>, repaired: &mut u64) -> Vec<KeyValue> {
    if let Json::List(elements) = json {
        let elements = elements.into_iter().filter(|element| !matches!(element, Json::Null));
        return elements.map(|element| attribute(element, repaired)).collect();
    }
    *repaired += 1;
    let Json::Object(members) = json else { return Vec::new() };
    let attribute = |(key, json): (Cow<'_, str>, Json<'_>)| KeyValue {
        key: key.into_owned(),
        value: value(json, repaired),
        key_strindex: 0,
    };
    members.into_iter().map(attribute).collect()
}

/// One attribute. Anything but an object becomes the value of an attribute without a key.
fn attribute(json: Json<'_>, repaired: &mut u64) -> KeyValue {
    match json {
        Json::Object(members) => from_members(members, repaired),
        other => KeyValue { value: value(other, repaired), ..KeyValue::default() },
    }
}

/// The value of an attribute, or the body of a log record.
fn value(json: Json<'_>, repaired: &mut u64) -> Option<AnyValue> {
    let mut members = match json {
        Json::Null => return None,
        Json::Object(members) => members,
        other => return Some(AnyValue { value: Some(as_text(other, repaired)) }),
    };
    let (mut value, mut has_unknown) = (None, false);
    for (name, json) in &mut members {
        if matches!(json, Json::Null) {
            continue;
        }
        match take_value(&camel_case(name), json, repaired) {
            Some(typed) => value = Some(typed),
            None => has_unknown = true,
        }
    }
    // An object without a member of an OTLP value is data of the client.
    if value.is_none() && has_unknown {
        value = Some(as_text(Json::Object(members), repaired));
    }
    Some(AnyValue { value })
}

/// Reads the value of a member like `"intValue": "5"`; `None` if the name is unknown, and then the value is not consumed.
fn take_value(name: &str, json: &mut Json<'_>, repaired: &mut u64) -> Option<Value> {
    let value = match name {
        "stringValue" => match std::mem::take(json) {
            Json::Text(text) => return Some(Value::StringValue(text.into_owned())),
            other => return Some(as_text(other, repaired)),
        },
        "intValue" => integer(json).map(Value::IntValue),
        "boolValue" => match json {
            Json::Bool(value) => Some(Value::BoolValue(*value)),
            _ => None,
        },
        "doubleValue" => double(json).map(Value::DoubleValue),
        "bytesValue" => bytes(json).map(Value::BytesValue),
        "stringValueStrindex" => integer(json).map(Value::StringValueStrindex),
        "arrayValue" => {
            take_values(json).map(|values| Value::ArrayValue(ArrayValue { values: array(values, repaired) }))
        }
        "kvlistValue" => take_values(json)
            .map(|values| Value::KvlistValue(KeyValueList { values: attributes(values, repaired) })),
        _ => return None,
    };
    Some(value.unwrap_or_else(|| as_text(std::mem::take(json), repaired)))
}

/// Reads the list in `{"values": [..]}`, which is empty if absent; `None` if `json` is not an object.
fn take_values<'a>(json: &mut Json<'a>) -> Option<Json<'a>> {
    let Json::Object(members) = json else { return None };
    let values = present(std::mem::take(members)).filter(|(name, _)| name == "values").last();
    Some(values.map_or_else(|| Json::List(Vec::new()), |(_, values)| values))
}

/// The elements of an array. `null` keeps its place, and anything but a list becomes the only element.
fn array(json: Json<'_>, repaired: &mut u64) -> Vec<AnyValue> {
    let elements = if let Json::List(elements) = json { elements } else { vec![json] };
    elements.into_iter().map(|element| value(element, repaired).unwrap_or_default()).collect()
}

fn as_text(json: Json<'_>, repaired: &mut u64) -> Value {
    if let Json::Text(_) = json {
        *repaired += 1;
    }
    Value::StringValue(text(json, repaired))
}
