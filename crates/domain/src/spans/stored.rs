//! The stored form of spans and traces.

use serde::{Deserialize, Serialize};

use super::{Kept, Span, TraceShown};

/// The version of the stored state of spans and traces. States of other versions are unreadable.
const STATE_VERSION: u8 = 3;

/// The number of former sessions that a trace remembers. Later ones are dropped.
const MAX_CHAINS: usize = 32;

/// The stored state of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceState {
    /// Its shown values.
    pub shown: TraceShown,
    /// The other sessions whose chains hold events of it.
    pub chains: Vec<String>,
    /// The summary of its spans.
    pub kept: Kept,
}

/// A stored trace.
#[derive(Debug)]
pub struct StoredTrace {
    /// Its number in the org. Its spans are looked up by it.
    pub number: i64,
    /// Its state.
    pub state: TraceState,
    /// Whether its seal matched when it was loaded. A row that someone changed by hand is never sealed again.
    pub is_authentic: bool,
}

/// A stored span.
#[derive(Debug)]
pub struct StoredSpan {
    /// The number of its trace.
    pub trace_number: i64,
    /// The span.
    pub span: Span,
    /// Whether its seal matched when it was loaded; see [`StoredTrace::is_authentic`].
    pub is_authentic: bool,
}

/// The state of a span or trace can't be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state of a span or trace is unreadable")]
pub struct StateError;

impl TraceState {
    /// The state of a trace after a change. If the trace moved to another session, the former one is added to its chains.
    pub(crate) fn after(before: Option<&Self>, shown: &TraceShown, kept: &Kept) -> Self {
        let mut chains = before.map_or_else(Vec::new, |before| before.chains.clone());
        if let Some(before) = before
            && !chains.contains(&before.shown.session_id)
        {
            chains.push(before.shown.session_id.clone());
        }
        chains.retain(|session_id| *session_id != shown.session_id);
        chains.truncate(MAX_CHAINS);
        Self { shown: shown.clone(), chains, kept: kept.clone() }
    }
}

/// The bytes of the state of a span or trace.
pub fn encode_state<T: Serialize>(state: &T) -> Result<Vec<u8>, StateError> {
    postcard::to_extend(state, vec![STATE_VERSION]).map_err(|_| StateError)
}

/// Reads [`encode_state`]'s bytes.
pub fn decode_state<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, StateError> {
    let state = bytes.split_first().filter(|(version, _)| **version == STATE_VERSION);
    state.and_then(|(_, state)| postcard::from_bytes(state).ok()).ok_or(StateError)
}
