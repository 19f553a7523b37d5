//! Objects and lists that may turn out to be something else.
//!
//! A [`Container`] says what to do with each kind of JSON value that may stand in a place, so there is no value
//! that ends in serde's "invalid type" and with it the whole request.

use std::borrow::Cow;
use std::marker::PhantomData;

use agentlens_domain::ledger::Reason;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::members::{Member, Members};
use crate::wire::WireError;
use crate::wire::batch::Notes;

/// A place for an object or a list, and what becomes of anything else that stands there.
pub(super) trait Container<'de>: Sized {
    type Value;

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error>;
    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error>;
    /// A string, or the text of a number, `true` or `false`.
    fn scalar<E: Error>(self, text: &str) -> Result<Self::Value, E>;
    fn null<E: Error>(self) -> Result<Self::Value, E>;
}

/// Reads a [`Container`].
pub(super) struct Tolerant<C>(pub(super) C);

impl<'de, C: Container<'de>> DeserializeSeed<'de> for Tolerant<C> {
    type Value = C::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, C: Container<'de>> Visitor<'de> for Tolerant<C> {
    type Value = C::Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<C::Value, A::Error> {
        self.0.object(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<C::Value, A::Error> {
        self.0.list(list)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<C::Value, E> {
        self.0.scalar(text)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<C::Value, E> {
        self.0.scalar(if value { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<C::Value, E> {
        self.0.scalar(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<C::Value, E> {
        self.0.scalar(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<C::Value, E> {
        self.0.scalar(&value.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<C::Value, E> {
        self.0.null()
    }
}

/// A message: an object whose members it reads itself. Anything else is left out.
pub(super) struct OfMessage<'n, M> {
    notes: &'n mut Notes,
    misfit: Misfit,
    message: PhantomData<M>,
}

/// What it costs when a place holds something of the wrong type.
#[derive(Clone, Copy)]
pub(super) enum Misfit {
    /// A detail of an item.
    Detail,
    /// An item, or a part that may have held items; the name is that of an item.
    Items(&'static str),
}

impl Misfit {
    fn note<E: Error>(self, notes: &mut Notes, expected: &str) -> Result<(), E> {
        match self {
            Self::Detail => notes.repaired += 1,
            Self::Items(noun) => {
                let message = format!("Where {noun}s were expected, a value is no JSON {expected}.");
                notes.broken(Reason::InvalidField, message).map_err(|error| stopped(notes, error))?;
            }
        }
        Ok(())
    }
}

impl<'n, M> OfMessage<'n, M> {
    pub(super) fn new(notes: &'n mut Notes, misfit: Misfit) -> Self {
        Self { notes, misfit, message: PhantomData }
    }

    fn misfit<T, E: Error>(self) -> Result<Option<T>, E> {
        self.misfit.note(self.notes, "object").map(|()| None)
    }
}

impl<'de, M: Members> Container<'de> for OfMessage<'_, M> {
    type Value = Option<M>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Option<M>, A::Error> {
        let mut message = M::default();
        while let Some(Name(name)) = object.next_key()? {
            message.member(&name, Member::new(&mut object, self.notes))?;
        }
        Ok(Some(message))
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<M>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.misfit()
    }

    fn scalar<E: Error>(self, _text: &str) -> Result<Option<M>, E> {
        self.misfit()
    }

    fn null<E: Error>(self) -> Result<Option<M>, E> {
        Ok(None)
    }
}

/// A list of messages. Anything else is no list at all, and elements that are no objects are left out.
pub(super) struct OfList<'n, M> {
    notes: &'n mut Notes,
    elements: Elements,
    message: PhantomData<M>,
}

/// What the elements of a list are.
#[derive(Clone, Copy)]
pub(super) enum Elements {
    /// Details of an item.
    Details,
    /// Resources or scopes, which hold items of this name.
    Carriers(&'static str),
    /// Items of this name.
    Items(&'static str),
}

impl Elements {
    fn misfit(self) -> Misfit {
        match self {
            Self::Details => Misfit::Detail,
            Self::Carriers(noun) | Self::Items(noun) => Misfit::Items(noun),
        }
    }

    /// Counts one of those of which a request may only carry so many.
    fn count(self, notes: &mut Notes) -> Result<(), WireError> {
        match self {
            Self::Details => notes.add_details(1),
            Self::Carriers(_) => notes.next_carrier().map(drop),
            Self::Items(_) => notes.next_item().map(drop),
        }
    }
}

impl<'n, M> OfList<'n, M> {
    pub(super) fn new(notes: &'n mut Notes, elements: Elements) -> Self {
        Self { notes, elements, message: PhantomData }
    }

    fn misfit<T, E: Error>(self) -> Result<Option<T>, E> {
        self.elements.misfit().note(self.notes, "array").map(|()| None)
    }
}

impl<'de, M: Members> Container<'de> for OfList<'_, M> {
    type Value = Option<Vec<M>>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Option<Vec<M>>, A::Error> {
        while object.next_entry::<IgnoredName, IgnoredAny>()?.is_some() {}
        self.misfit()
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Vec<M>>, A::Error> {
        let mut messages = Vec::new();
        loop {
            let seed = Tolerant(OfMessage::new(self.notes, self.elements.misfit()));
            let Some(message) = list.next_element_seed(seed)? else { return Ok(Some(messages)) };
            self.elements.count(self.notes).map_err(|error| stopped(self.notes, error))?;
            messages.extend(message);
        }
    }

    fn scalar<E: Error>(self, _text: &str) -> Result<Option<Vec<M>>, E> {
        self.misfit()
    }

    fn null<E: Error>(self) -> Result<Option<Vec<M>>, E> {
        Ok(None)
    }
}

/// Ends reading with an error of our own, which serde's errors cannot carry.
pub(super) fn stopped<E: Error>(notes: &mut Notes, error: WireError) -> E {
    notes.stop = Some(error);
    E::custom("reading was ended")
}

/// The name of a member, as bytes: a name may hold half a surrogate pair, which no string can.
pub(super) struct Name<'de>(pub(super) Cow<'de, [u8]>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(NameVisitor)
    }
}

/// The name of a member that nobody asks for.
type IgnoredName<'de> = Name<'de>;

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_vec())))
    }
}

/// The JSON text of what is left of a list.
pub(super) fn text_of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<String, A::Error> {
    let mut text = String::from("[");
    while let Some(element) = list.next_element::<&'de RawValue>()? {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(element.get());
    }
    text.push(']');
    Ok(text)
}
