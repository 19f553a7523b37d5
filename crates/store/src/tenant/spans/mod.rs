//! Spans and traces: a projection of what arrived of them, written only by applying batches.

mod project;
mod read;
mod rows;

pub(crate) use project::{
    ChangedSpan, ChangedTrace, Loaded, Place as SpanPlace, Projection, Staying, StoredTrace, Touched,
    TraceState, decode, encode, project, touched,
};
pub use read::SpanRow;
pub(crate) use rows::{SpanColumns, SpanNumbers, TraceRow};
