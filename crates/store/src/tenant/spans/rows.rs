//! The rows of `spans` and `traces` that an apply transaction writes.

use std::borrow::Cow;

use agentlens_domain::chain::{RowFields, Seal};
use agentlens_domain::spans::Arrival;

use super::project::{ChangedSpan, TraceState};
use crate::tenant::OrgContext;

/// The numbers by which a span is looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanNumbers {
    /// Of its trace.
    pub(crate) trace: i64,
    /// Of the session in which it is shown.
    pub(crate) session: i64,
}

/// The other columns by which a span is looked up.
pub(crate) struct SpanColumns<'s> {
    pub(crate) span_id: &'s str,
    pub(crate) parent_span_id: Option<&'s str>,
    /// The parent that it names, unless it is shown below that one.
    pub(crate) named_parent_span_id: Option<String>,
    pub(crate) session_id: &'s str,
    pub(crate) is_root: bool,
    pub(crate) is_part: bool,
    pub(crate) start_us: i64,
    pub(crate) response_id: Option<String>,
    pub(crate) expire_day: i32,
}

impl<'s> SpanColumns<'s> {
    pub(crate) fn of(changed: &'s ChangedSpan<'_>, context: &OrgContext) -> Self {
        let (span, shown) = (&changed.span, &changed.span.shown);
        let facts: Cow<'_, Arrival> = span.facts();
        Self {
            span_id: span.arrivals().first().map_or("", |first| first.arrival.span_id.as_str()),
            parent_span_id: shown.parent_span_id.as_deref(),
            named_parent_span_id: facts
                .parent_span_id
                .clone()
                .filter(|id| shown.parent_span_id.as_ref() != Some(id)),
            session_id: &shown.counted.session_id,
            is_root: shown.parent_span_id.is_none() && shown.part_of.is_none(),
            is_part: shown.part_of.is_some(),
            start_us: facts.start_us,
            response_id: facts.response_id.clone(),
            expire_day: context.expire_day(facts.end_us),
        }
    }

    /// The seal of the row; `state` is the column's bytes.
    pub(crate) fn seal(&self, numbers: &SpanNumbers, state: &[u8], context: &OrgContext) -> Seal {
        let sealed = SealedSpan {
            trace_number: numbers.trace,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            session_number: numbers.session,
            session_id: self.session_id,
            start_us: self.start_us,
            state,
        };
        sealed.seal(context)
    }
}

/// What the seal of a span covers.
pub(crate) struct SealedSpan<'s> {
    pub(crate) trace_number: i64,
    pub(crate) span_id: &'s str,
    pub(crate) parent_span_id: Option<&'s str>,
    pub(crate) session_number: i64,
    pub(crate) session_id: &'s str,
    pub(crate) start_us: i64,
    pub(crate) state: &'s [u8],
}

impl SealedSpan<'_> {
    pub(crate) fn seal(&self, context: &OrgContext) -> Seal {
        let fields = RowFields::of("span")
            .text(context.org.as_str())
            .number(self.trace_number)
            .text(self.span_id)
            .optional(self.parent_span_id.map(str::as_bytes))
            .number(self.session_number)
            .text(self.session_id)
            .number(self.start_us)
            .bytes(self.state);
        context.seals.seal_row(&fields)
    }
}

/// What the seal of a trace covers.
pub(crate) struct SealedTrace<'s> {
    pub(crate) workspace_id: &'s str,
    pub(crate) trace_id: &'s str,
    pub(crate) number: i64,
    pub(crate) session_number: i64,
    pub(crate) session_id: &'s str,
    pub(crate) state: &'s [u8],
}

impl SealedTrace<'_> {
    pub(crate) fn seal(&self, context: &OrgContext) -> Seal {
        let fields = RowFields::of("trace")
            .text(context.org.as_str())
            .text(self.workspace_id)
            .text(self.trace_id)
            .number(self.number)
            .number(self.session_number)
            .text(self.session_id)
            .bytes(self.state);
        context.seals.seal_row(&fields)
    }
}

/// One row of `traces`.
pub(crate) struct TraceRow<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) trace_id: &'a str,
    pub(crate) number: i64,
    /// The number of the session in which it is shown.
    pub(crate) session_number: i64,
    pub(crate) state: TraceState,
    /// That of its session: a trace outlives its events.
    pub(crate) expire_day: i32,
}

impl TraceRow<'_> {
    /// The seal of the row; `state` is the column's bytes.
    pub(crate) fn seal(&self, state: &[u8], context: &OrgContext) -> Seal {
        let sealed = SealedTrace {
            workspace_id: self.workspace_id,
            trace_id: self.trace_id,
            number: self.number,
            session_number: self.session_number,
            session_id: &self.state.shown.session_id,
            state,
        };
        sealed.seal(context)
    }

    /// The column `chains`.
    pub(crate) fn chains(&self) -> Option<String> {
        let chains = Some(&self.state.chains).filter(|chains| !chains.is_empty());
        chains.and_then(|chains| serde_json::to_string(chains).ok())
    }
}
