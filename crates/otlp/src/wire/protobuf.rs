//! Requests in protobuf.
//!
//! prost fails a whole message if one string is not UTF-8. So it only decodes single items, and the messages around them are read
//! here. A damaged resource loses only its damaged part.

use std::borrow::Cow;

use agentlens_domain::ledger::Reason;
use opentelemetry_proto::tonic::common::v1::{EntityRef, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field};

use super::WireError;
use super::batch::{Item, MAX_CARRIER_BYTES, MAX_ITEM_BYTES, Notes, UnderResource, UnderScope, details_of};
use super::density::{Shape, details_in};

/// Reads the body of a request; an empty one is an empty request.
pub(super) fn read<I: Item>(body: &[u8]) -> Result<(Vec<UnderResource<I>>, Notes), WireError> {
    let (mut resources, mut notes) = (Vec::new(), Notes::default());
    let mut rest = body;
    while let Some((_, bytes)) = next_field(&mut rest, RESOURCES)? {
        notes.next_carrier()?;
        let mut resource = UnderResource::default();
        let end = read_resource::<I>(bytes, &mut resource, &mut notes);
        survive(end, "resource", I::NOUN, &mut notes)?;
        resources.push(resource);
    }
    match notes.stop.take() {
        // Damaged bytes that contain no item are not a request at all.
        Some(error) if !notes.has_items() => Err(error),
        _ => Ok((resources, notes)),
    }
}

/// Notes that a part ended early. Reading continues after it, because its length is known.
fn survive(end: Result<(), WireError>, part: &str, noun: &str, notes: &mut Notes) -> Result<(), WireError> {
    let Err(error @ WireError::Protobuf { .. }) = end else { return end };
    notes.broken(Reason::InvalidField, format!("The {noun}s of a {part} cannot be read on: {error}"))?;
    notes.stop.get_or_insert(error);
    Ok(())
}

// Field numbers, the same in all three signals.
const RESOURCES: u32 = 1;
const RESOURCE_OR_SCOPE: u32 = 1;
const CONTENTS: u32 = 2;
const SCHEMA_URL: u32 = 3;

/// Reads the scopes of a resource, up to the first invalid byte.
fn read_resource<I: Item>(
    mut rest: &[u8],
    into: &mut UnderResource<I>,
    notes: &mut Notes,
) -> Result<(), WireError> {
    let mut resource = None;
    let end = loop {
        match next_field(&mut rest, SCHEMA_URL) {
            Ok(Some((RESOURCE_OR_SCOPE, bytes))) => append("resource", &mut resource, bytes)?,
            Ok(Some((CONTENTS, bytes))) => {
                notes.next_carrier()?;
                let mut scope = UnderScope::default();
                let end = read_scope(bytes, &mut scope, notes);
                survive(end, "scope", I::NOUN, notes)?;
                into.scopes.push(scope);
            }
            Ok(Some((_, bytes))) => into.schema_url = text(bytes, notes),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Some(bytes) = resource {
        notes.check_details(details_in(Shape::Resource, &bytes))?;
        let resource =
            Resource::decode(&*bytes).unwrap_or_else(|_| LooseResource::of(&bytes).readable(notes));
        notes.add_details(details_of(&resource.attributes) + entity_details(&resource.entity_refs))?;
        into.resource = Some(resource);
    }
    end
}

/// Reads the items of a scope, up to the first invalid byte.
fn read_scope<I: Item>(
    mut rest: &[u8],
    into: &mut UnderScope<I>,
    notes: &mut Notes,
) -> Result<(), WireError> {
    let mut scope = None;
    let end = loop {
        match next_field(&mut rest, SCHEMA_URL) {
            Ok(Some((RESOURCE_OR_SCOPE, bytes))) => append("scope", &mut scope, bytes)?,
            Ok(Some((CONTENTS, bytes))) => {
                let number = notes.next_item()?;
                if bytes.len() > MAX_ITEM_BYTES {
                    let length = bytes.len();
                    let message = format!(
                        "The {} number {number} has {length} bytes; the limit is {MAX_ITEM_BYTES}.",
                        I::NOUN
                    );
                    notes.broken(Reason::TooLarge, message)?;
                    continue;
                }
                notes.check_details(details_in(I::SHAPE, bytes))?;
                match I::decode(bytes) {
                    Ok(item) => {
                        notes.add_details(item.details())?;
                        into.items.push(item);
                    }
                    Err(error) => notes.broken(Reason::InvalidField, refusal::<I>(number, bytes, &error))?,
                }
            }
            Ok(Some((_, bytes))) => into.schema_url = text(bytes, notes),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Some(bytes) = scope {
        notes.check_details(details_in(Shape::Scope, &bytes))?;
        let scope =
            InstrumentationScope::decode(&*bytes).unwrap_or_else(|_| LooseScope::of(&bytes).readable(notes));
        notes.add_details(details_of(&scope.attributes))?;
        into.scope = Some(scope);
    }
    end
}

fn entity_details(entities: &[EntityRef]) -> usize {
    entities.iter().map(|entity| 1 + entity.id_keys.len() + entity.description_keys.len()).sum()
}

/// The next field with a number up to `last`; higher ones are skipped. All of these fields are strings or messages.
fn next_field<'a>(rest: &mut &'a [u8], last: u32) -> Result<Option<(u32, &'a [u8])>, WireError> {
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(rest).map_err(malformed)?;
        if tag > last {
            skip_field(wire_type, tag, rest, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        check_wire_type(WireType::LengthDelimited, wire_type).map_err(malformed)?;
        let length = decode_varint(rest).map_err(malformed)?;
        let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let Some((bytes, after)) = split else {
            let what = format!("field {tag} announces {length} bytes where only {} are left", rest.len());
            return Err(WireError::Protobuf { what });
        };
        *rest = after;
        return Ok(Some((tag, bytes)));
    }
    Ok(None)
}

/// Joins the parts of a message, because protobuf merges them. A decoded message may take thirty times the memory, so its bytes
/// have their own limit.
fn append<'a>(
    part: &'static str,
    parts: &mut Option<Cow<'a, [u8]>>,
    bytes: &'a [u8],
) -> Result<(), WireError> {
    let length = parts.as_ref().map_or(0, |parts| parts.len()) + bytes.len();
    if length > MAX_CARRIER_BYTES {
        return Err(WireError::TooLong { part, limit: MAX_CARRIER_BYTES });
    }
    match parts {
        None => *parts = Some(Cow::Borrowed(bytes)),
        Some(parts) => parts.to_mut().extend_from_slice(bytes),
    }
    Ok(())
}

fn text(bytes: &[u8], notes: &mut Notes) -> String {
    let text = String::from_utf8_lossy(bytes);
    notes.repaired += u64::from(matches!(text, Cow::Owned(_)));
    text.into_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value.")]
fn malformed(error: prost::DecodeError) -> WireError {
    WireError::Protobuf { what: described(&error) }
}

fn described(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text).to_owned()
}

/// Why an item is refused. This also detects logs sent to the path for traces, because the resources of both signals have the same
/// field numbers.
fn refusal<I: Item>(number: usize, bytes: &[u8], error: &prost::DecodeError) -> String {
    let is_log = I::NOUN == "span" && LogRecord::decode(bytes).is_ok();
    let hint = if is_log { " It looks like a log record; these belong to /v1/logs." } else { "" };
    format!("The {} number {number} cannot be decoded: {}.{hint}", I::NOUN, described(error))
}

/// A resource with undecodable parts, whose attributes are decoded one by one.
#[derive(Clone, PartialEq, Message)]
struct LooseResource {
    #[prost(bytes = "vec", repeated, tag = "1")]
    attributes: Vec<Vec<u8>>,
    #[prost(uint32, tag = "2")]
    dropped_attributes_count: u32,
}

impl LooseResource {
    fn of(bytes: &[u8]) -> Self {
        Self::decode(bytes).unwrap_or_default()
    }

    fn readable(&self, notes: &mut Notes) -> Resource {
        notes.repaired += 1;
        Resource {
            attributes: readable(&self.attributes),
            dropped_attributes_count: self.dropped_attributes_count,
            entity_refs: Vec::new(),
        }
    }
}

/// A scope with undecodable parts, whose attributes are decoded one by one.
#[derive(Clone, PartialEq, Message)]
struct LooseScope {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    version: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    attributes: Vec<Vec<u8>>,
    #[prost(uint32, tag = "4")]
    dropped_attributes_count: u32,
}

impl LooseScope {
    fn of(bytes: &[u8]) -> Self {
        Self::decode(bytes).unwrap_or_default()
    }

    fn readable(&self, notes: &mut Notes) -> InstrumentationScope {
        notes.repaired += 1;
        InstrumentationScope {
            name: String::from_utf8_lossy(&self.name).into_owned(),
            version: String::from_utf8_lossy(&self.version).into_owned(),
            attributes: readable(&self.attributes),
            dropped_attributes_count: self.dropped_attributes_count,
        }
    }
}

fn readable(attributes: &[Vec<u8>]) -> Vec<KeyValue> {
    attributes.iter().filter_map(|bytes| KeyValue::decode(&**bytes).ok()).collect()
}
