//! Splits a body into the texts of its events. Splitting stops at the maximum size of a batch: `[0,0,0,...]` of 64 MiB has 33
//! million elements, and remembering each would take half a gigabyte.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use agentlens_domain::events::is_spelled_alike;
use agentlens_domain::limits::MAX_BATCH_EVENTS;

use super::IngestError;

/// The three forms of a body: `{"events":[...]}`, a bare array, or one bare event.
pub(super) fn split(body: &[u8]) -> Result<Vec<&RawValue>, IngestError> {
    let is_over = Cell::new(false);
    let invalid = |error: serde_json::Error| {
        if is_over.get() { IngestError::TooManyEvents } else { IngestError::InvalidBody(error.to_string()) }
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        let events = Events { is_over: &is_over }.deserialize(&mut json).map_err(invalid)?;
        json.end().map_err(invalid)?;
        return Ok(events);
    }
    let envelope = Members { is_over: &is_over }.deserialize(&mut json).map_err(invalid)?;
    json.end().map_err(invalid)?;
    match envelope {
        Envelope { events: Some(events), .. } => Ok(events),
        Envelope { is_event: true, .. } => Ok(vec![serde_json::from_slice(body).map_err(invalid)?]),
        Envelope { .. } => Err(IngestError::NoEvents(describe_missing_events(body))),
    }
}

/// How many member names of an object without `events` are read to find out what it is.
const MAX_LOOKED_AT_NAMES: usize = 16;
/// How many of these names the error message repeats, and how many characters of each.
const MAX_SHOWN: (usize, usize) = (4, 40);

/// Guesses what the sender of an object without `events` and `eventType` meant, for the error message. Only such a body is read
/// twice.
fn describe_missing_events(body: &[u8]) -> String {
    let mut json = serde_json::Deserializer::from_slice(body);
    let names = json.deserialize_map(FirstNames).unwrap_or_default();
    let is_there = |name: &str| names.iter().find(|found| is_spelled_alike(found, name));
    let shown = |name: &String| format!("`{}`", name.chars().take(MAX_SHOWN.1).collect::<String>());
    match is_there("eventType") {
        Some(found) => {
            return format!(
                "this looks like one event, but `eventType` is missing (found {}; write `eventType`)",
                shown(found)
            );
        }
        None if ["sessionId", "agentId", "payload"].iter().any(|name| is_there(name).is_some()) => {
            return "this looks like one event, but `eventType` is missing".to_owned();
        }
        None => {}
    }
    match is_there("events") {
        Some(found) if found == "events" => "`events` must be an array of events".to_owned(),
        Some(found) => format!("there is no `events` in the body (found {}; write `events`)", shown(found)),
        None if names.is_empty() => "there is no `events` in the body".to_owned(),
        None => {
            let found: Vec<String> = names.iter().take(MAX_SHOWN.0).map(shown).collect();
            format!("there is no `events` in the body (found {})", found.join(", "))
        }
    }
}

/// Reads the names of an object's first members.
struct FirstNames;

impl<'de> Visitor<'de> for FirstNames {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = object.next_entry::<String, IgnoredAny>()? {
            if names.len() < MAX_LOOKED_AT_NAMES {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// An array of events; `is_over` is set if reading stops because there are too many.
struct Events<'c> {
    is_over: &'c Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = list.next_element()? {
            if events.len() == MAX_BATCH_EVENTS {
                self.is_over.set(true);
                return Err(A::Error::custom("too many events"));
            }
            events.push(event);
        }
        Ok(events)
    }
}

/// The members that distinguish a batch from a single event.
#[derive(Default)]
struct Envelope<'de> {
    events: Option<Vec<&'de RawValue>>,
    is_event: bool,
}

/// Reads the members of the outermost object.
struct Members<'c> {
    is_over: &'c Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Envelope<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with `events`, an array of events, or one event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(name) = object.next_key_seed(Name)? {
            match name {
                Member::Events if envelope.events.is_some() => {
                    return Err(A::Error::duplicate_field("events"));
                }
                Member::Events => {
                    envelope.events = object.next_value_seed(Nullable(Events { is_over: self.is_over }))?;
                }
                Member::EventType if envelope.is_event => {
                    return Err(A::Error::duplicate_field("eventType"));
                }
                Member::EventType => {
                    envelope.is_event = true;
                    object.next_value::<IgnoredAny>()?;
                }
                Member::Other => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(envelope)
    }
}

enum Member {
    Events,
    EventType,
    Other,
}

/// Reads and drops the name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Member;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(match name {
            "events" => Member::Events,
            "eventType" => Member::EventType,
            _ => Member::Other,
        })
    }
}

/// Reads an array of events; `null` counts as absent.
struct Nullable<S>(S);

impl<'de> DeserializeSeed<'de> for Nullable<Events<'_>> {
    type Value = Option<Vec<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Nullable<Events<'_>> {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<Vec<&str>, String> {
        match split(body.as_bytes()) {
            Ok(raws) => Ok(raws.into_iter().map(RawValue::get).collect()),
            Err(IngestError::InvalidBody(message)) => Err(message),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    #[test]
    fn the_three_forms_are_split() {
        assert_eq!(texts(" [1, {\"a\":[2]} ,null]\n").unwrap(), ["1", "{\"a\":[2]}", "null"]);
        assert_eq!(texts(r#"{"x":[1],"events":[{},2],"eventType":5}"#).unwrap(), ["{}", "2"]);
        let event = r#"{"eventType":"custom","events":null,"payload":{"events":[1]}}"#;
        assert_eq!(texts(event).unwrap(), [event]);
        assert_eq!(texts(r#"{"event\u0073":[7]}"#).unwrap(), ["7"]);
        for body in [
            "",
            "5",
            "null",
            "{}",
            "[1] x",
            "{\"events\":[1]",
            "{\"events\":{}}",
            "{\"events\":[],\"events\":[]}",
        ] {
            texts(body).unwrap_err();
        }
    }

    #[test]
    fn reading_ends_where_a_batch_is_full() {
        let most = vec!["0"; MAX_BATCH_EVENTS].join(",");
        assert_eq!(texts(&format!("[{most}]")).unwrap().len(), MAX_BATCH_EVENTS);
        // The rest of the body is not read.
        for body in [format!("[{most},0,0"), format!("{{\"events\":[{most},0")] {
            assert!(matches!(split(body.as_bytes()), Err(IngestError::TooManyEvents)));
        }
    }
}
