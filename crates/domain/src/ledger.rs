//! The ingest ledger: what became of every event that a key sent.
//!
//! For each key, always: `received = stored + refused (summed over reasons) + waiting`.

use serde::{Deserialize, Serialize};

/// Why an event was not stored. The name is stable: it is on the wire, in the database and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A required field is absent or empty.
    MissingField,
    /// A field has the wrong type or a value outside its range.
    InvalidField,
    /// The event type is not one of the protocol's.
    UnknownEventType,
    /// The event type may only be written by the server.
    ServerOnlyEventType,
    /// The timestamp is no RFC 3339 instant, or lies outside the accepted range.
    InvalidTimestamp,
    /// A payload, metadata or id is larger than its limit.
    TooLarge,
    /// JSON that can't be kept exactly: a key twice, nesting beyond the limit, a number beyond a double.
    UnstorableJson,
    /// The id was used before for another content.
    IdConflict,
    /// The same event with the same content came before; it is stored once.
    Duplicate,
    /// A neighbour was refused and the request asked for all or nothing.
    StrictBatch,
    /// The store refused the event by itself; its neighbours are stored.
    StoreRefused,
    /// The key is bound to its environment, and the event names another.
    EnvironmentMismatch,
}

/// The outcome under which all events of a key are counted.
pub const RECEIVED: &str = "received";

/// The outcome of events that are stored.
pub const STORED: &str = "stored";

/// The outcome of events that are stored under the environment `other`, since their own has no room in the workspace. They are
/// also counted as stored.
pub const ENVIRONMENT_LIMIT: &str = "environment_limit";

impl Reason {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::UnknownEventType => "unknown_event_type",
            Self::ServerOnlyEventType => "server_only_event_type",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TooLarge => "too_large",
            Self::UnstorableJson => "unstorable_json",
            Self::IdConflict => "id_conflict",
            Self::Duplicate => "duplicate",
            Self::StrictBatch => "strict_batch",
            Self::StoreRefused => "store_refused",
            Self::EnvironmentMismatch => "environment_mismatch",
        }
    }
}

/// Counts by reason, in the order of first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals(Vec<(Reason, u32)>);

impl Refusals {
    /// Counts one more.
    pub fn add(&mut self, reason: Reason) {
        self.add_many(reason, 1);
    }

    /// Counts `count` more.
    pub fn add_many(&mut self, reason: Reason, count: u32) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, total)) => *total += count,
            None => self.0.push((reason, count)),
        }
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The sum over all reasons.
    pub fn total(&self) -> u32 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}
