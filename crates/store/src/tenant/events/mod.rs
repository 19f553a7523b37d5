//! Events as they are stored, and the lists, searches and timelines that read them.

mod list;
mod places;
mod search;
mod segment_check;
mod segments;

pub use list::{EventFilter, EventPage, Order};
pub use places::{StreamPlace, StreamPlaces};
pub use search::SearchPage;
pub use segments::Segments;
pub(crate) use segments::places_of_segment;

use agentlens_domain::events::NewEvent;

use crate::row_type;
use crate::tenant::Workspace;

/// The events of a workspace.
#[derive(Clone, Copy)]
pub struct Events<'w>(pub(super) &'w Workspace);

impl Workspace {
    /// Its events.
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }
}

row_type! {
    /// One stored event. Instants are microseconds UTC, durations microseconds, money nano-dollars.
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
        pub expire_day: i32,
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
