//! Spans and traces: a projection of what arrived of them, written only by applying batches.

mod project;
mod rows;

pub(crate) use project::{
    ChangedSpan, ChangedTrace, Loaded, Opened, Place as SpanPlace, Projection, Touched, TraceState, decode, encode,
    project, touched,
};
pub(crate) use rows::{SpanColumns, TraceRow};
