//! The write path: gateway (limits, validation, ids) -> queue -> apply.
//!
//! A queue is chosen once at start. In process, the answer waits for the group commit; on Redis, the answer waits for
//! the stream, and workers apply. Either way delivery is at least once and applying is idempotent, so the effect is
//! exactly once.

mod apply;
pub mod body;
pub mod gateway;
mod indexer;
pub mod lease;
pub mod live;
pub mod message;
pub mod queue;
pub mod worker;

pub use gateway::{EventResult, EventsRequest, Gateway, IngestError, IngestReport, IngestRequest, Sender};
pub use live::Live;
pub use queue::{Queue, QueueError, QueueStatus, Receipt};
