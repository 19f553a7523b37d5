//! The write path: gateway (limits, validation, ids) -> queue -> apply.
//!
//! The queue is chosen at start. With the in-process queue, a request is answered after the group commit. With Redis, it is
//! answered once the batch is in the stream, and workers apply it later. In both cases delivery is at least once and applying is
//! idempotent, so the effect is exactly once.

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
