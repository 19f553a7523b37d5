//! JSON text as a tree of values.
//!
//! `serde_json::Value` takes twice as long, because it builds a hash map for each object. Most objects in a span have one or two
//! members.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

#[derive(Debug, Default)]
pub(in crate::wire) enum Json<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Members<'a>),
    /// An item of a request, or a `doubleValue`.
    Unread(&'a RawValue),
}

pub(in crate::wire) type Members<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// The members whose value isn't `null`.
pub(super) fn present<'a>(members: Members<'a>) -> impl Iterator<Item = (Cow<'a, str>, Json<'a>)> {
    members.into_iter().filter(|(_, json)| !matches!(json, Json::Null))
}

/// Why a text can't be read.
pub(super) enum Unreadable {
    TooManyValues,
    Invalid { what: String, line: usize, column: usize },
}

/// Reads a text and passes it to `convert`. The number of values is limited, because each takes up to sixty bytes. The elements of
/// lists at a given depth stay unread.
pub(super) fn read_tree<T>(
    text: &str,
    max_values: usize,
    levels_above_unread: Option<usize>,
    convert: impl FnOnce(Json<'_>) -> T,
) -> Result<T, Unreadable> {
    let unreadable = match read_once(text, max_values, levels_above_unread) {
        Ok(tree) => return Ok(convert(tree)),
        Err(unreadable) => unreadable,
    };
    let Some(text) = without_lone_surrogates(text) else { return Err(unreadable) };
    read_once(&text, max_values, levels_above_unread).map(convert)
}

fn read_once(
    text: &str,
    max_values: usize,
    levels_above_unread: Option<usize>,
) -> Result<Json<'_>, Unreadable> {
    let mut room = max_values;
    let mut json = serde_json::Deserializer::from_str(text);
    let node = Node { room: &mut room, levels_above_unread, is_unread: false };
    let tree = node.deserialize(&mut json).and_then(|tree| json.end().map(|()| tree));
    tree.map_err(|error| if room == 0 { Unreadable::TooManyValues } else { invalid(&error) })
}

fn invalid(error: &serde_json::Error) -> Unreadable {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what).to_owned();
    Unreadable::Invalid { what, line: error.line(), column: error.column() }
}

/// The text with U+FFFD for each escaped half of a surrogate pair; `None` if it has none. JavaScript clients send such halves
/// if they cut a text in the middle of an emoji.
fn without_lone_surrogates(text: &str) -> Option<String> {
    let code_unit = |at: usize| u16::from_str_radix(text.get(at..at + 6)?.strip_prefix("\\u")?, 16).ok();
    let (mut readable, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(offset) = text.get(at..)?.find('\\') {
        at += offset;
        at += match (code_unit(at), code_unit(at + 6)) {
            (None, _) => 2,
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                readable.push_str(&text[copied..at]);
                readable.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            _ => 6,
        };
    }
    readable.push_str(&text[copied..]);
    (copied > 0).then_some(readable)
}

/// Reads one value and the values inside it.
struct Node<'r> {
    /// How many more values there may be.
    room: &'r mut usize,
    /// `None` if all lists are read.
    levels_above_unread: Option<usize>,
    is_unread: bool,
}

impl Node<'_> {
    fn inside(&mut self) -> Node<'_> {
        let levels = self.levels_above_unread.and_then(|levels| levels.checked_sub(1));
        Node { room: self.room, levels_above_unread: levels, is_unread: false }
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Json<'de>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Json<'de>, D::Error> {
        if *self.room == 0 {
            return Err(D::Error::custom("too many values"));
        }
        *self.room -= 1;
        if self.is_unread {
            let unread = Option::<&RawValue>::deserialize(json)?;
            return Ok(unread.map_or(Json::Null, Json::Unread));
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Json<'de>, A::Error> {
        let is_unread = self.levels_above_unread == Some(0);
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(Node { is_unread, ..self.inside() })? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Json<'de>, A::Error> {
        // Most objects are attributes, with a key and a value.
        let mut members = Vec::with_capacity(2);
        while let Some(Name(name)) = object.next_key()? {
            // The doubles that serde_json reads may be wrong in the last digit.
            let is_unread = matches!(&*name, "doubleValue" | "double_value");
            members.push((name, object.next_value_seed(Node { is_unread, ..self.inside() })?));
        }
        Ok(Json::Object(members))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(elements) => serializer.collect_seq(elements),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(name, json)| (name, json))),
            Self::Unread(raw) => raw.serialize(serializer),
        }
    }
}
