//! Attributes and the values they have. Nothing that a client put into an attribute gets lost: what does not fit
//! the type it is said to have is kept as a string of its JSON text, and counted.

use agentlens_domain::json::write_string;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use serde::de::{Error, MapAccess, SeqAccess};

use super::containers::{Container, Name, Tolerant, stopped, text_of_list};
use super::leaf::Leaf;
use super::members::{Member, Members};
use crate::wire::batch::Notes;

impl Members for KeyValue {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"key" => member.text(&mut self.key),
            b"value" => member.value(&mut self.value),
            b"keyStrindex" | b"key_strindex" => member.integer(&mut self.key_strindex),
            _ => member.skip(),
        }
    }
}

/// A list of attributes. An object is taken for one too: its members are the attributes.
pub(super) struct OfAttributes<'n> {
    notes: &'n mut Notes,
}

impl<'n> OfAttributes<'n> {
    pub(super) fn new(notes: &'n mut Notes) -> Self {
        Self { notes }
    }
}

impl<'de> Container<'de> for OfAttributes<'_> {
    type Value = Option<Vec<KeyValue>>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        self.notes.repaired += 1;
        let mut attributes = Vec::new();
        while let Some(Name(name)) = object.next_key()? {
            let value = object.next_value_seed(Tolerant(OfValue::new(self.notes)))?;
            self.notes.add_details(1).map_err(|error| stopped(self.notes, error))?;
            attributes.push(KeyValue {
                key: String::from_utf8_lossy(&name).into_owned(),
                value,
                key_strindex: 0,
            });
        }
        Ok(Some(attributes))
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut attributes = Vec::new();
        while let Some(attribute) = list.next_element_seed(Tolerant(OfAttribute { notes: self.notes }))? {
            self.notes.add_details(1).map_err(|error| stopped(self.notes, error))?;
            attributes.extend(attribute);
        }
        Ok(Some(attributes))
    }

    fn scalar<E: Error>(self, _text: &str) -> Result<Self::Value, E> {
        self.notes.repaired += 1;
        Ok(None)
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// One attribute; anything else than an object is kept as the value of an attribute without a key.
struct OfAttribute<'n> {
    notes: &'n mut Notes,
}

impl OfAttribute<'_> {
    fn keyless(self, text: String) -> KeyValue {
        self.notes.repaired += 1;
        KeyValue { value: Some(string(text)), ..KeyValue::default() }
    }
}

impl<'de> Container<'de> for OfAttribute<'_> {
    type Value = Option<KeyValue>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut attribute = KeyValue::default();
        while let Some(Name(name)) = object.next_key()? {
            attribute.member(&name, Member::new(&mut object, self.notes))?;
        }
        Ok(Some(attribute))
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let text = text_of_list(list)?;
        Ok(Some(self.keyless(text)))
    }

    fn scalar<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(self.keyless(text.to_owned())))
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Values inside values that are followed; what is deeper is kept as its JSON text. serde_json follows 127 levels of objects
/// and lists and then fails the whole request: 11 lead to the first value, and 4 from one value into the next.
pub(in crate::wire) const MAX_VALUE_NESTING: usize = 25;

/// The value of an attribute, or the body of a log record.
pub(super) struct OfValue<'n> {
    notes: &'n mut Notes,
}

impl<'n> OfValue<'n> {
    pub(super) fn new(notes: &'n mut Notes) -> Self {
        Self { notes }
    }

    fn text(self, text: String) -> Option<AnyValue> {
        self.notes.repaired += 1;
        Some(string(text))
    }
}

impl<'de> Container<'de> for OfValue<'_> {
    type Value = Option<AnyValue>;

    fn object<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        self.notes.value_nesting += 1;
        let value = OfValue::new(self.notes).members(object)?;
        self.notes.value_nesting -= 1;
        Ok(value)
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let text = text_of_list(list)?;
        Ok(self.text(text))
    }

    fn scalar<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.text(text.to_owned()))
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl OfValue<'_> {
    fn members<'de, A: MapAccess<'de>>(self, mut object: A) -> Result<Option<AnyValue>, A::Error> {
        let is_deepest = self.notes.value_nesting == MAX_VALUE_NESTING;
        let mut value = None;
        let mut strangers = String::new();
        while let Some(Name(name)) = object.next_key()? {
            let member = Member::new(&mut object, self.notes);
            match &*name {
                b"arrayValue" | b"array_value" | b"kvlistValue" | b"kvlist_value" if is_deepest => {
                    replace(&mut value, scalar(member, |_| None)?);
                }
                b"arrayValue" | b"array_value" => replace(&mut value, member.container(OfValues::array)?),
                b"kvlistValue" | b"kvlist_value" => replace(&mut value, member.container(OfValues::pairs)?),
                name => match KINDS.iter().find(|(names, _)| names.contains(&name)) {
                    Some((_, read)) => replace(&mut value, scalar(member, *read)?),
                    None => stranger(name, member, &mut strangers)?,
                },
            }
        }
        // An object with none of the members that a value has is one of the client's own making.
        if value.is_none() && !strangers.is_empty() {
            return Ok(self.text(format!("{{{strangers}}}")));
        }
        Ok(Some(AnyValue { value }))
    }
}

/// Reads a scalar as the type it is said to have.
type Read = fn(Leaf<'_>) -> Option<Value>;

/// The scalars that a value can be, by their names; the most frequent first.
const KINDS: [([&[u8]; 2], Read); 6] = [
    ([b"stringValue", b"string_value"], |leaf| Some(Value::StringValue(leaf.string()?.into_owned()))),
    ([b"intValue", b"int_value"], |leaf| leaf.integer().map(Value::IntValue)),
    ([b"boolValue", b"bool_value"], |leaf| leaf.boolean().map(Value::BoolValue)),
    ([b"doubleValue", b"double_value"], |leaf| leaf.double().map(Value::DoubleValue)),
    ([b"bytesValue", b"bytes_value"], |leaf| leaf.bytes().map(Value::BytesValue)),
    ([b"stringValueStrindex", b"string_value_strindex"], |leaf| {
        leaf.integer().map(Value::StringValueStrindex)
    }),
];

fn scalar<'de, A: MapAccess<'de>>(mut member: Member<'_, A>, read: Read) -> Result<Option<Value>, A::Error> {
    let Some(leaf) = member.leaf()? else { return Ok(None) };
    Ok(Some(read(leaf).unwrap_or_else(|| {
        member.repaired();
        Value::StringValue(leaf.text())
    })))
}

/// Keeps a member that values do not have, in case there is nothing else.
fn stranger<'de, A: MapAccess<'de>>(
    name: &[u8],
    mut member: Member<'_, A>,
    strangers: &mut String,
) -> Result<(), A::Error> {
    let raw = member.raw()?;
    if !strangers.is_empty() {
        strangers.push(',');
    }
    write_string(&String::from_utf8_lossy(name), strangers);
    strangers.push(':');
    strangers.push_str(raw);
    Ok(())
}

/// What stands at `arrayValue` or `kvlistValue`: an object with a list of `values`.
struct OfValues<'n, V> {
    notes: &'n mut Notes,
    wrap: fn(V) -> Value,
}

impl<'n> OfValues<'n, ArrayValue> {
    fn array(notes: &'n mut Notes) -> Self {
        Self { notes, wrap: Value::ArrayValue }
    }
}

impl<'n> OfValues<'n, KeyValueList> {
    fn pairs(notes: &'n mut Notes) -> Self {
        Self { notes, wrap: Value::KvlistValue }
    }
}

impl<V> OfValues<'_, V> {
    fn text(self, text: String) -> Option<Value> {
        self.notes.repaired += 1;
        Some(Value::StringValue(text))
    }
}

impl<'de, V: Members> Container<'de> for OfValues<'_, V> {
    type Value = Option<Value>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut values = V::default();
        while let Some(Name(name)) = object.next_key()? {
            values.member(&name, Member::new(&mut object, self.notes))?;
        }
        Ok(Some((self.wrap)(values)))
    }

    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let text = text_of_list(list)?;
        Ok(self.text(text))
    }

    fn scalar<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.text(text.to_owned()))
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl Members for ArrayValue {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"values" => {
                if let Some(values) = member.container(|notes| OfElements { notes })? {
                    self.values = values;
                }
                Ok(())
            }
            _ => member.skip(),
        }
    }
}

impl Members for KeyValueList {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"values" => member.attributes(&mut self.values),
            _ => member.skip(),
        }
    }
}

/// The elements of an array value; `null` keeps its place as a value that says nothing.
struct OfElements<'n> {
    notes: &'n mut Notes,
}

impl OfElements<'_> {
    /// What is no list is kept as the only element.
    fn only(self, text: String) -> Option<Vec<AnyValue>> {
        self.notes.repaired += 1;
        Some(vec![string(text)])
    }
}

impl<'de> Container<'de> for OfElements<'_> {
    type Value = Option<Vec<AnyValue>>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut text = String::new();
        while let Some(Name(name)) = object.next_key()? {
            stranger(&name, Member::new(&mut object, self.notes), &mut text)?;
        }
        Ok(self.only(format!("{{{text}}}")))
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Tolerant(OfValue::new(self.notes)))? {
            self.notes.add_details(1).map_err(|error| stopped(self.notes, error))?;
            values.push(value.unwrap_or_default());
        }
        Ok(Some(values))
    }

    fn scalar<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.only(text.to_owned()))
    }

    fn null<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

fn string(text: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text)) }
}

fn replace(into: &mut Option<Value>, value: Option<Value>) {
    if value.is_some() {
        *into = value;
    }
}
