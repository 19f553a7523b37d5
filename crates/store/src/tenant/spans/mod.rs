//! Spans and traces: a projection of what arrived of them, written only by applying batches.

mod project;
mod read;
mod rows;

pub(crate) use project::{
    ChangedSpan, ChangedTrace, Place as SpanPlace, Projecting, Projection, Staying, StoredTrace, TraceState,
    decode, encode,
};
pub use read::{SpanRow, Spans, span_address};
pub(crate) use rows::{SealedSpan, SealedTrace, SpanColumns, SpanNumbers, TraceRow};
