//! The objects and lists around the items of a request.

use std::borrow::Cow;

use agentlens_domain::ledger::Reason;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::messages::{FromJson, camel_case, message, text};
use super::tree::{Json, Members, Unreadable, present, read_tree};
use crate::wire::WireError;
use crate::wire::batch::{Item, MAX_DETAILS, Metric, Notes, UnderResource, UnderScope, details_of};

/// The number of objects and lists around a list of items: the request, its resources, a resource, its scopes and a scope.
const LEVELS_ABOVE_ITEMS: usize = 5;

/// Reads the body of a request; an empty object is an empty request.
pub(in crate::wire) fn read<I: Item + FromJson>(
    body: &[u8],
) -> Result<(Vec<UnderResource<I>>, Notes), WireError> {
    let mut notes = Notes::default();
    // The lossy conversion takes several times as long, and valid UTF-8 doesn't need it.
    let body = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            notes.repaired = body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count() as u64;
            String::from_utf8_lossy(body)
        }
    };
    let body = body.strip_prefix('\u{feff}').unwrap_or(&body);
    let resources = read_tree(body, MAX_DETAILS, Some(LEVELS_ABOVE_ITEMS), |json| match json {
        Json::Object(members) => request(members, &mut notes),
        _ => Err(WireError::Json { what: "the request is not an object".to_owned(), line: 1, column: 1 }),
    });
    match resources {
        Ok(resources) => Ok((resources?, notes)),
        Err(Unreadable::TooManyValues) => Err(WireError::TooManyDetails { limit: MAX_DETAILS }),
        Err(Unreadable::Invalid { what, line, column }) => Err(WireError::Json { what, line, column }),
    }
}

fn request<I: Item + FromJson>(
    members: Members<'_>,
    notes: &mut Notes,
) -> Result<Vec<UnderResource<I>>, WireError> {
    let mut resources = Vec::new();
    for (name, json) in present(members) {
        let name = camel_case(&name);
        if name == I::RESOURCES {
            for json in elements::<I>(json, notes)? {
                resources.push(resource(json, notes)?);
            }
        } else if let Some((list, path)) = misplaced(&name) {
            let message = format!("The list {list} belongs to {path}; here nothing of it is read.");
            notes.broken(Reason::InvalidField, message)?;
        }
    }
    Ok(resources)
}

/// The name of another signal's list, and the path that accepts it. Without this check its items would be lost silently.
fn misplaced(name: &str) -> Option<(&'static str, &'static str)> {
    let signals = [
        (Span::RESOURCES, "/v1/traces"),
        (LogRecord::RESOURCES, "/v1/logs"),
        (Metric::RESOURCES, "/v1/metrics"),
    ];
    signals.into_iter().find(|(list, _)| *list == name)
}

fn resource<I: Item + FromJson>(json: Json<'_>, notes: &mut Notes) -> Result<UnderResource<I>, WireError> {
    notes.next_carrier()?;
    let mut under = UnderResource::default();
    for (name, json) in present(members::<I>(json, notes)?) {
        match &*camel_case(&name) {
            "resource" => {
                under.resource = message(json, &mut notes.repaired);
                notes.add_details(under.resource.as_ref().map_or(0, |of| details_of(&of.attributes)))?;
            }
            "schemaUrl" => under.schema_url = text(json, &mut notes.repaired),
            name if name == I::SCOPES => {
                for json in elements::<I>(json, notes)? {
                    under.scopes.push(scope(json, notes)?);
                }
            }
            _ => {}
        }
    }
    Ok(under)
}

fn scope<I: Item + FromJson>(json: Json<'_>, notes: &mut Notes) -> Result<UnderScope<I>, WireError> {
    notes.next_carrier()?;
    let mut under = UnderScope::default();
    for (name, json) in present(members::<I>(json, notes)?) {
        match &*camel_case(&name) {
            "scope" => {
                under.scope = message(json, &mut notes.repaired);
                notes.add_details(under.scope.as_ref().map_or(0, |of| details_of(&of.attributes)))?;
            }
            "schemaUrl" => under.schema_url = text(json, &mut notes.repaired),
            name if name == I::ITEMS => {
                for json in elements::<I>(json, notes)? {
                    under.items.extend(item(&json, notes)?);
                }
            }
            _ => {}
        }
    }
    Ok(under)
}

/// Reads one item; `None` if it is refused.
fn item<I: Item + FromJson>(json: &Json<'_>, notes: &mut Notes) -> Result<Option<I>, WireError> {
    let number = notes.next_item()?;
    let item = match json {
        Json::Unread(text) => I::from_text(text.get(), &mut notes.repaired),
        _ => return Ok(None),
    };
    match item {
        Ok(item) => {
            notes.add_details(item.details())?;
            Ok(Some(item))
        }
        Err((reason, what)) => {
            notes.broken(reason, format!("The {} number {number} {what}.", I::NOUN))?;
            Ok(None)
        }
    }
}

/// The members of a resource or a scope. Anything but an object is refused, because it may contain items.
fn members<'a, I: Item>(json: Json<'a>, notes: &mut Notes) -> Result<Members<'a>, WireError> {
    if let Json::Object(members) = json {
        return Ok(members);
    }
    refuse::<I>("object", notes).map(|()| Vec::new())
}

fn elements<'a, I: Item>(json: Json<'a>, notes: &mut Notes) -> Result<Vec<Json<'a>>, WireError> {
    if let Json::List(mut elements) = json {
        elements.retain(|element| !matches!(element, Json::Null));
        return Ok(elements);
    }
    refuse::<I>("array", notes).map(|()| Vec::new())
}

fn refuse<I: Item>(expected: &str, notes: &mut Notes) -> Result<(), WireError> {
    let message = format!("Where {}s were expected, a value is not a JSON {expected}.", I::NOUN);
    notes.broken(Reason::InvalidField, message)
}
