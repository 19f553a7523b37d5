//! The rows of `spans` and `traces` that an apply transaction writes.

use std::borrow::Cow;

use agentlens_domain::spans::Arrival;

use super::project::{ChangedSpan, TraceState};
use crate::tenant::TenantContext;

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
    pub(crate) fn of(changed: &'s ChangedSpan<'_>, context: &TenantContext) -> Self {
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
}

/// One row of `traces`.
pub(crate) struct TraceRow<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) trace_id: &'a str,
    pub(crate) number: i64,
    /// The number of the session in which it is shown.
    pub(crate) session_number: i64,
    pub(crate) state: TraceState,
}

impl TraceRow<'_> {
    /// The column `chains`.
    pub(crate) fn chains(&self) -> Option<String> {
        let chains = Some(&self.state.chains).filter(|chains| !chains.is_empty());
        chains.and_then(|chains| serde_json::to_string(chains).ok())
    }
}
