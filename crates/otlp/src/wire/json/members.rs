//! Members of messages: one rule for each type of field that OTLP has.

use agentlens_domain::ledger::Reason;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::containers::{Container, Elements, Misfit, OfList, OfMessage, Tolerant, stopped};
use super::leaf::Leaf;
use super::values::{OfAttributes, OfValue};
use crate::wire::batch::Notes;

/// A message that takes its members one by one.
pub(in crate::wire) trait Members: Default {
    /// Takes the member of this name, or passes over it.
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error>;
}

/// The value of a member that has not been read yet. Each method reads it into a field, where `null` changes
/// nothing.
pub(in crate::wire) struct Member<'m, A> {
    object: &'m mut A,
    notes: &'m mut Notes,
}

impl<'m, 'de, A: MapAccess<'de>> Member<'m, A> {
    pub(super) fn new(object: &'m mut A, notes: &'m mut Notes) -> Self {
        Self { object, notes }
    }

    pub(super) fn skip(self) -> Result<(), A::Error> {
        self.object.next_value::<IgnoredAny>().map(drop)
    }

    /// Tells that a member with items is not read at all.
    pub(super) fn refuse(self, message: String) -> Result<(), A::Error> {
        self.notes.broken(Reason::InvalidField, message).map_err(|error| stopped(self.notes, error))?;
        self.skip()
    }

    /// The text of the value, as it was sent.
    pub(super) fn raw(&mut self) -> Result<&'de str, A::Error> {
        self.object.next_value::<&'de RawValue>().map(RawValue::get)
    }

    pub(super) fn leaf(&mut self) -> Result<Option<Leaf<'de>>, A::Error> {
        self.raw().map(Leaf::of)
    }

    /// Counts that the value is not kept as it was sent.
    pub(super) fn repaired(&mut self) {
        self.notes.repaired += 1;
    }

    /// A string; anything else is kept as its text.
    pub(super) fn text(mut self, into: &mut String) -> Result<(), A::Error> {
        let Some(leaf) = self.leaf()? else { return Ok(()) };
        *into = match leaf.string() {
            Some(text) => text.into_owned(),
            None => {
                self.notes.repaired += 1;
                leaf.text()
            }
        };
        Ok(())
    }

    /// Any other scalar: what is not readable leaves the field empty.
    fn set<T: Default>(
        mut self,
        into: &mut T,
        read: impl FnOnce(Leaf<'de>) -> Option<T>,
    ) -> Result<(), A::Error> {
        let Some(leaf) = self.leaf()? else { return Ok(()) };
        *into = read(leaf).unwrap_or_else(|| {
            self.notes.repaired += 1;
            T::default()
        });
        Ok(())
    }

    /// A trace or span id, which is `length` bytes long when it is right.
    pub(super) fn id(self, into: &mut Vec<u8>, length: usize) -> Result<(), A::Error> {
        self.set(into, |leaf| leaf.id(length))
    }

    pub(super) fn integer<N: TryFrom<i128> + Default>(self, into: &mut N) -> Result<(), A::Error> {
        self.set(into, Leaf::integer)
    }

    /// An enum by its number, known or not, or by its name.
    pub(super) fn enumeration(
        self,
        into: &mut i32,
        by_name: impl FnOnce(&str) -> Option<i32>,
    ) -> Result<(), A::Error> {
        self.set(into, |leaf| leaf.integer().or_else(|| by_name(&leaf.string()?)))
    }

    pub(super) fn message<M: Members>(self, into: &mut Option<M>) -> Result<(), A::Error> {
        let seed = Tolerant(OfMessage::new(self.notes, Misfit::Detail));
        replace(into, self.object.next_value_seed(seed)?)
    }

    pub(super) fn list<M: Members>(self, into: &mut Vec<M>, elements: Elements) -> Result<(), A::Error> {
        let seed = Tolerant(OfList::new(self.notes, elements));
        if let Some(messages) = self.object.next_value_seed(seed)? {
            *into = messages;
        }
        Ok(())
    }

    pub(super) fn details<M: Members>(self, into: &mut Vec<M>) -> Result<(), A::Error> {
        self.list(into, Elements::Details)
    }

    pub(super) fn attributes(self, into: &mut Vec<KeyValue>) -> Result<(), A::Error> {
        let seed = Tolerant(OfAttributes::new(self.notes));
        if let Some(attributes) = self.object.next_value_seed(seed)? {
            *into = attributes;
        }
        Ok(())
    }

    pub(super) fn value(self, into: &mut Option<AnyValue>) -> Result<(), A::Error> {
        let seed = Tolerant(OfValue::new(self.notes));
        replace(into, self.object.next_value_seed(seed)?)
    }

    /// Reads a value into what `container` makes of it.
    pub(super) fn container<C: Container<'de>>(
        self,
        container: impl FnOnce(&'m mut Notes) -> C,
    ) -> Result<C::Value, A::Error> {
        self.object.next_value_seed(Tolerant(container(self.notes)))
    }
}

fn replace<T, E>(into: &mut Option<T>, value: Option<T>) -> Result<(), E> {
    if value.is_some() {
        *into = value;
    }
    Ok(())
}
