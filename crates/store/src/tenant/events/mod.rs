//! Events as they are stored, and the lists, searches and timelines that read them.

mod list;
mod places;
mod search;
mod segments;

pub use list::{EventFilter, EventPage, Order};
pub use places::{StreamPlace, StreamPlaces};
pub use search::SearchPage;
pub use segments::Segments;
pub(crate) use segments::places_of_segment;

use agentlens_domain::events::NewEvent;

use crate::error::StoreError;
use crate::statement::{FromRow, Row};
use crate::tenant::Workspace;

/// Every column of `events`, in the order of [`StoredEvent`].
pub(crate) const COLUMNS: &str = "position, id, workspace_id, environment, session_id, seq, agent_id, event_type, severity, timestamp, ts_us, \
     received_us, name, provider, model, call_id, user_id, duration_us, input_tokens, output_tokens, usage_parts, cost_nanos, \
     cost_source, reported_cost_nanos, computed_cost_nanos, prev_hash, hash, seal, preview, metadata, encoding, payload";

/// The events of a workspace.
#[derive(Clone, Copy)]
pub struct Events<'w>(pub(super) &'w Workspace);

impl Workspace {
    /// Its events.
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }
}

/// One stored event. Instants are microseconds UTC, durations microseconds, money nano-dollars.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the columns are documented in the migration and in docs/storage.md")]
pub struct StoredEvent {
    pub position: i64,
    pub id: String,
    pub workspace_id: String,
    pub environment: String,
    pub session_id: String,
    pub seq: i64,
    pub agent_id: String,
    pub event_type: String,
    pub severity: String,
    pub timestamp: String,
    pub ts_us: i64,
    pub received_us: i64,
    pub name: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub call_id: Option<String>,
    pub user_id: Option<String>,
    pub duration_us: Option<i64>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub usage_parts: Option<String>,
    pub cost_nanos: Option<i64>,
    pub cost_source: Option<String>,
    pub reported_cost_nanos: Option<i64>,
    pub computed_cost_nanos: Option<i64>,
    pub prev_hash: Option<[u8; 32]>,
    pub hash: [u8; 32],
    pub seal: Vec<u8>,
    pub preview: Option<String>,
    pub metadata: String,
    pub encoding: i32,
    pub payload: String,
}

impl StoredEvent {
    /// The payload is the canonical text that is hashed.
    pub const ENCODING_PLAIN: i32 = 0;
    /// The payload keeps number literals that a double can't hold; the hash is over their JavaScript form.
    pub const ENCODING_WIDE: i32 = 1;

    pub(crate) fn encoding_of(event: &NewEvent) -> i32 {
        if event.holds_wide_numbers { Self::ENCODING_WIDE } else { Self::ENCODING_PLAIN }
    }
}

impl FromRow for StoredEvent {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let payload = String::from_utf8(row.get(31)?)
            .map_err(|_| StoreError::Corrupt("a payload is not UTF-8".to_owned()))?;
        Ok(Self {
            position: row.get(0)?,
            id: row.get(1)?,
            workspace_id: row.get(2)?,
            environment: row.get(3)?,
            session_id: row.get(4)?,
            seq: row.get(5)?,
            agent_id: row.get(6)?,
            event_type: row.get(7)?,
            severity: row.get(8)?,
            timestamp: row.get(9)?,
            ts_us: row.get(10)?,
            received_us: row.get(11)?,
            name: row.get(12)?,
            provider: row.get(13)?,
            model: row.get(14)?,
            call_id: row.get(15)?,
            user_id: row.get(16)?,
            duration_us: row.get(17)?,
            input_tokens: row.get(18)?,
            output_tokens: row.get(19)?,
            usage_parts: row.get(20)?,
            cost_nanos: row.get(21)?,
            cost_source: row.get(22)?,
            reported_cost_nanos: row.get(23)?,
            computed_cost_nanos: row.get(24)?,
            prev_hash: row.get(25)?,
            hash: row.get(26)?,
            seal: row.get(27)?,
            preview: row.get(28)?,
            metadata: row.get(29)?,
            encoding: row.get(30)?,
            payload,
        })
    }
}
