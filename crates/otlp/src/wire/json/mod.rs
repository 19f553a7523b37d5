//! Requests in OTLP's JSON, one pass with serde_json and no tree in between.
//!
//! Every member is taken as its text and read by a rule for its field, so a value of an unexpected type is a case
//! like any other and never an error of the parser. Names are accepted in lowerCamelCase and as the schema has
//! them, `null` means absent, unknown members are passed over, and of members given twice the last one stands.

mod containers;
mod leaf;
mod logs;
mod members;
mod mend;
mod requests;
mod traces;
mod values;

use std::borrow::Cow;

use serde::de::DeserializeSeed;

pub(super) use members::Members;
#[cfg(test)]
pub(super) use values::MAX_VALUE_NESTING;

use super::WireError;
use super::batch::{Item, Notes, UnderResource};
use containers::Tolerant;
use requests::OfRequest;

/// Reads the body of a request; an empty object is an empty request.
pub(super) fn read<I: Item>(body: &[u8]) -> Result<(Vec<UnderResource<I>>, Notes), WireError> {
    // The lossy reading is for the rare case only: it is several times as slow on text that is right.
    let (text, damaged) = match std::str::from_utf8(body) {
        Ok(text) => (Cow::Borrowed(text), 0),
        Err(_) => {
            let invalid = body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
            (String::from_utf8_lossy(body), invalid)
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let read = read_text(text).or_else(|error| match (&error, mend::mended(text)) {
        (WireError::Json { .. }, Some(mended)) => read_text(&mended),
        _ => Err(error),
    });
    let (resources, mut notes) = read?;
    notes.repaired += damaged as u64;
    Ok((resources, notes))
}

fn read_text<I: Item>(text: &str) -> Result<(Vec<UnderResource<I>>, Notes), WireError> {
    let mut notes = Notes::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let request = Tolerant(OfRequest::new(&mut notes));
    match request.deserialize(&mut json).and_then(|resources| json.end().map(|()| resources)) {
        Ok(resources) => Ok((resources, notes)),
        Err(error) => Err(notes.stop.take().unwrap_or_else(|| refusal(&error))),
    }
}

fn refusal(error: &serde_json::Error) -> WireError {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what).to_owned();
    WireError::Json { what, line: error.line(), column: error.column() }
}
