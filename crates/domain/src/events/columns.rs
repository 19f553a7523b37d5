//! Columns of an event's row that are computed from the event alone.

use std::borrow::Cow;

use super::NewEvent;
use crate::chain::{self, Hash, Record};
use crate::usage::Usage;
use crate::{json, limits};

/// Payloads above this many bytes get a stored preview.
const STORED_PREVIEW_FROM_BYTES: usize = 1024;

/// The published hash of an event in the chain of a session.
pub(crate) fn hash_of(
    event: &NewEvent,
    (session_id, agent_id): (&str, &str),
    prev_hash: Option<[u8; 32]>,
) -> [u8; 32] {
    let prev_hash = prev_hash.map(Hash::from);
    let record = Record {
        id: &event.id,
        timestamp: &event.timestamp,
        session_id,
        agent_id,
        event_type: event.event_type.as_str(),
        severity: event.severity.as_str(),
        payload: &hashed_text(&event.payload, event.holds_wide_numbers),
        metadata: &hashed_text(&event.metadata, event.holds_wide_numbers),
        prev_hash: prev_hash.as_ref(),
    };
    *chain::hash(&record).as_bytes()
}

/// The text that is hashed: the stored one, unless that keeps number literals which JavaScript would print otherwise.
fn hashed_text<'a>(stored: &'a str, holds_wide_numbers: bool) -> Cow<'a, str> {
    if !holds_wide_numbers {
        return Cow::Borrowed(stored);
    }
    json::canonicalize(stored).map_or(Cow::Borrowed(stored), |canonical| Cow::Owned(canonical.text))
}

/// Lists show the start of a payload. Short payloads are their own preview; only for long ones it is stored, so that
/// a list need not read them.
pub(crate) fn preview(payload: &str) -> Option<&str> {
    if payload.len() <= STORED_PREVIEW_FROM_BYTES {
        return None;
    }
    let end = payload.char_indices().nth(limits::PREVIEW_CHARS).map_or(payload.len(), |(at, _)| at);
    payload.get(..end)
}

/// The parts of a usage that have no column of their own, as JSON; absent when all are zero.
pub(crate) fn usage_parts(usage: &Usage) -> Option<String> {
    let parts = [
        ("cache_read", usage.cache_read),
        ("cache_write_5m", usage.cache_write_5m),
        ("cache_write_1h", usage.cache_write_1h),
        ("reasoning", usage.reasoning),
        ("audio_input", usage.audio_input),
        ("audio_output", usage.audio_output),
    ];
    let texts: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("\"{name}\":{count}"))
        .collect();
    (!texts.is_empty()).then(|| format!("{{{}}}", texts.join(",")))
}
