//! Counts the details in a protobuf message before it is decoded.
//!
//! An empty attribute has two bytes and takes up to a hundred once decoded. Two million of them, which compress to 3 KB, would take
//! 190 MiB before they could be counted. Counting the encoded bytes needs no memory.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Shorter messages are not counted: their length bounds the memory they take.
const SPARSE_BYTES: usize = 16 * 1024;
/// How deeply values may be nested; prost refuses deeper ones.
const MAX_DEPTH: usize = 100;

/// The messages that have repeated fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Span,
    LogRecord,
    Resource,
    Scope,
    /// An event or a link of a span, with attributes under the given number.
    Detail(u32),
    EntityRef,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
    /// Text, bytes, or a message without details.
    Text,
}

impl Shape {
    /// The message in a field, and whether each value of the field is a detail; `None` for fields without details.
    fn field(self, number: u32) -> Option<(Self, bool)> {
        match (self, number) {
            (Self::Span, 9) | (Self::LogRecord, 6) | (Self::Resource, 1) | (Self::Scope, 3) => {
                Some((Self::KeyValue, true))
            }
            (Self::Span, 11) => Some((Self::Detail(3), true)),
            (Self::Span, 13) => Some((Self::Detail(4), true)),
            (Self::Detail(attributes), number) if number == attributes => Some((Self::KeyValue, true)),
            (Self::LogRecord, 5) | (Self::KeyValue, 2) => Some((Self::AnyValue, false)),
            (Self::AnyValue, 5) => Some((Self::ArrayValue, false)),
            (Self::AnyValue, 6) => Some((Self::KeyValueList, false)),
            (Self::ArrayValue, 1) => Some((Self::AnyValue, true)),
            (Self::KeyValueList, 1) => Some((Self::KeyValue, true)),
            (Self::Resource, 3) => Some((Self::EntityRef, true)),
            (Self::EntityRef, 3 | 4) => Some((Self::Text, true)),
            _ => None,
        }
    }
}

/// The number of attributes, events, links and elements of values in the bytes; 0 for short ones. Counting stops at the
/// first invalid byte, as decoding will.
pub(super) fn details_in(shape: Shape, bytes: &[u8]) -> usize {
    if bytes.len() < SPARSE_BYTES { 0 } else { count(shape, bytes, 0) }
}

fn count(shape: Shape, mut rest: &[u8], depth: usize) -> usize {
    let mut details = 0;
    while !rest.is_empty() && depth < MAX_DEPTH {
        let Ok((number, wire_type)) = decode_key(&mut rest) else { break };
        let Some((inner, counts)) = shape.field(number).filter(|_| wire_type == WireType::LengthDelimited)
        else {
            if skip_field(wire_type, number, &mut rest, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        };
        let Some((bytes, after)) = decode_varint(&mut rest)
            .ok()
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| rest.split_at_checked(length))
        else {
            break;
        };
        rest = after;
        details += usize::from(counts) + count(inner, bytes, depth + 1);
    }
    details
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
    use prost::Message;

    use super::*;
    use crate::wire::batch::Item;

    fn value(value: Value) -> Option<AnyValue> {
        Some(AnyValue { value: Some(value) })
    }

    fn attributes() -> Vec<KeyValue> {
        let text = |text: &str| AnyValue { value: Some(Value::StringValue(text.to_owned())) };
        let list = Value::ArrayValue(ArrayValue { values: vec![text("a"), text("b"), AnyValue::default()] });
        let pair = KeyValue { key: "k".to_owned(), value: value(list.clone()), ..KeyValue::default() };
        let map = Value::KvlistValue(KeyValueList { values: vec![pair.clone(), pair] });
        [Value::StringValue("\x0a\x00".repeat(9)), list, map, Value::IntValue(5)]
            .into_iter()
            .map(|kind| KeyValue { key: "key".to_owned(), value: value(kind), ..KeyValue::default() })
            .collect()
    }

    #[test]
    fn what_is_counted_before_decoding_is_what_is_counted_after() {
        let event = Event { name: "e".to_owned(), attributes: attributes(), ..Event::default() };
        let link = Link { trace_id: vec![7; 16], attributes: attributes(), ..Link::default() };
        let span = Span {
            name: "\x4a\x00".repeat(50),
            start_time_unix_nano: 9,
            attributes: attributes(),
            events: vec![event.clone(), event],
            links: vec![link],
            ..Span::default()
        };
        assert!(span.details() > 40);
        assert_eq!(count(Shape::Span, &span.encode_to_vec(), 0), span.details());
        let record = LogRecord {
            body: attributes()[2].value.clone(),
            attributes: attributes(),
            ..LogRecord::default()
        };
        assert!(record.details() > 20);
        assert_eq!(count(Shape::LogRecord, &record.encode_to_vec(), 0), record.details());
    }

    #[test]
    fn counting_ends_where_bytes_make_no_sense() {
        assert_eq!(count(Shape::Span, b"\x4a\x00\x4a\x00\x4a\x09\x00", 0), 2);
        assert_eq!(count(Shape::Span, b"\x4a\x00\xff\xff", 0), 1);
        assert_eq!(details_in(Shape::Span, b"\x4a\x00"), 0);
        assert_eq!(details_in(Shape::Span, &b"\x4a\x00".repeat(SPARSE_BYTES)), SPARSE_BYTES);
        // A million nested values.
        let deep = b"\x2a\xff\xff\xff\x07\x0a\xff\xff\xff\x07".repeat(100_000);
        assert!(count(Shape::AnyValue, &deep, 0) <= MAX_DEPTH);
    }
}
