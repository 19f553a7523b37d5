//! The outermost object of a request, and the resources and scopes in it.

use std::marker::PhantomData;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::de::{Error, MapAccess, SeqAccess};

use super::containers::{Container, Elements, Name};
use super::members::{Member, Members};
use crate::wire::batch::{Item, Metric, Notes, UnderResource, UnderScope};

/// The whole body. Nothing but an object will do.
pub(super) struct OfRequest<'n, I> {
    notes: &'n mut Notes,
    item: PhantomData<I>,
}

impl<'n, I> OfRequest<'n, I> {
    pub(super) fn new(notes: &'n mut Notes) -> Self {
        Self { notes, item: PhantomData }
    }
}

const NO_OBJECT: &str = "the outermost value must be an object";

impl<'de, I: Item> Container<'de> for OfRequest<'_, I> {
    type Value = Vec<UnderResource<I>>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut resources = Vec::new();
        while let Some(Name(name)) = object.next_key()? {
            let member = Member::new(&mut object, self.notes);
            if is(&name, I::RESOURCES) {
                member.list(&mut resources, Elements::Carriers(I::NOUN))?;
            } else if let Some((list, path)) = misplaced(&name) {
                member.refuse(format!("The list {list} belongs to {path}; here nothing of it is read."))?;
            } else {
                member.skip()?;
            }
        }
        Ok(resources)
    }

    fn list<A: SeqAccess<'de>>(self, _list: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom(NO_OBJECT))
    }

    fn scalar<E: Error>(self, _text: &str) -> Result<Self::Value, E> {
        Err(E::custom(NO_OBJECT))
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Err(E::custom(NO_OBJECT))
    }
}

/// The list of another signal and where it belongs, because otherwise it would be an unknown member and its items
/// would get lost without a word.
fn misplaced(name: &[u8]) -> Option<(&'static str, &'static str)> {
    let signals = [
        (Span::RESOURCES, "/v1/traces"),
        (LogRecord::RESOURCES, "/v1/logs"),
        (Metric::RESOURCES, "/v1/metrics"),
    ];
    signals.into_iter().find(|(names, _)| is(name, *names)).map(|(names, path)| (names[0], path))
}

fn is(name: &[u8], names: [&str; 2]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

impl<I: Item> Members for UnderResource<I> {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"resource" => member.message(&mut self.resource),
            b"schemaUrl" | b"schema_url" => member.text(&mut self.schema_url),
            name if is(name, I::SCOPES) => member.list(&mut self.scopes, Elements::Carriers(I::NOUN)),
            _ => member.skip(),
        }
    }
}

impl<I: Item> Members for UnderScope<I> {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"scope" => member.message(&mut self.scope),
            b"schemaUrl" | b"schema_url" => member.text(&mut self.schema_url),
            name if is(name, I::ITEMS) => member.list(&mut self.items, Elements::Items(I::NOUN)),
            _ => member.skip(),
        }
    }
}

/// Nothing reads references to entities, so they are passed over.
impl Members for Resource {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            _ => member.skip(),
        }
    }
}

impl Members for InstrumentationScope {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"name" => member.text(&mut self.name),
            b"version" => member.text(&mut self.version),
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            _ => member.skip(),
        }
    }
}

impl Members for Metric {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"name" => member.text(&mut self.name),
            _ => member.skip(),
        }
    }
}
