//! Builds the current view of stored data: events with the current state of their spans, timelines, trees.
//!
//! Whoever shows, exports or judges events reads them here, over HTTP or not. Nothing is written, and nothing is known of how
//! an answer looks.

mod events;
mod spans;
mod steps;
mod timeline;
mod tree;

pub use events::{CurrentEvent, Reading, current_events};
pub use spans::{CurrentSpan, SpanCost, with_parts};
pub use steps::MAX_LEVELS;
pub use timeline::{Part, TimelinePage, chain_events, timeline};
pub use tree::{Node, TreePage, TreeQuery, session_tree};
