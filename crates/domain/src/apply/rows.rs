//! The rows that applying batches writes.

use std::borrow::Cow;

use super::OrgContext;
use crate::batches::Batch;
use crate::chain::{NO_SEAL, Seal, SealedColumns, SealedSpan, SealedTrace};
use crate::cost::Cost;
use crate::events::NewEvent;
use crate::spans::{Arrival, SpanChange, TraceState};

/// A row of `events`.
#[derive(Debug)]
pub struct EventRow<'a> {
    /// Its position in the org.
    pub position: i64,
    /// The batch that brought it.
    pub batch: &'a Batch,
    /// The environment.
    pub environment: &'a str,
    /// The event.
    pub event: &'a NewEvent,
    /// The session of its chain. An arrival lies in the chain of the session in which its span is shown at that time.
    pub session_id: &'a str,
    /// The number of that session.
    pub session_number: i64,
    /// The agent. An arrival has the agent of its span at that time.
    pub agent_id: &'a str,
    /// Its place in the chain; the first event has 1.
    pub seq: i64,
    /// The hash of the event before it.
    pub prev_hash: Option<[u8; 32]>,
    /// Its hash.
    pub hash: [u8; 32],
    /// Its seal.
    pub seal: Seal,
    /// The day on which it may be deleted.
    pub expire_day: i32,
    /// What it cost.
    pub cost: Option<Cost>,
    /// The parts of its usage that have no column, as JSON.
    pub usage_parts: Option<String>,
    /// The start of its payload, if that is long.
    pub preview: Option<&'a str>,
}

impl EventRow<'_> {
    /// The columns that its seal covers.
    pub(crate) fn sealed(&self) -> SealedColumns<'_> {
        let (event, facts, cost) = (self.event, &self.event.facts, self.cost.as_ref());
        SealedColumns {
            position: self.position,
            seq: self.seq,
            ts_us: event.ts_us,
            received_us: self.batch.received_us,
            expire_day: self.expire_day,
            duration_us: facts.duration_us,
            input_tokens: facts.usage.map(|usage| usage.input),
            output_tokens: facts.usage.map(|usage| usage.output),
            cost_nanos: cost.map(|cost| cost.nanos),
            reported_cost_nanos: cost.and_then(|cost| cost.reported_nanos),
            computed_cost_nanos: cost.and_then(|cost| cost.computed_nanos),
            encoding: i32::from(event.holds_wide_numbers),
            workspace_id: self.batch.workspace_id.as_str(),
            environment: self.environment,
            name: facts.name.as_deref(),
            provider: facts.provider.as_deref(),
            model: facts.model.as_deref(),
            call_id: facts.call_id.as_deref(),
            user_id: facts.user_id.as_deref(),
            usage_parts: self.usage_parts.as_deref(),
            cost_source: cost.map(|cost| cost.source.as_str()),
            preview: self.preview,
            wide: event.holds_wide_numbers.then_some((event.payload.as_str(), event.metadata.as_str())),
        }
    }
}

/// What is added to an agent's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDelta<'a> {
    /// Its display name, if one came.
    pub name: Option<&'a str>,
    /// The earliest instant at which the group saw it.
    pub first_seen_us: i64,
    /// The latest instant.
    pub last_seen_us: i64,
    /// Sessions that begin with it.
    pub session_count: i64,
    /// Events.
    pub event_count: i64,
    /// Errors.
    pub error_count: i64,
    /// Cost in nano-dollars.
    pub cost_nanos: i64,
}

impl AgentDelta<'_> {
    pub(super) fn seen_at(seen_us: i64) -> Self {
        Self {
            name: None,
            first_seen_us: seen_us,
            last_seen_us: seen_us,
            session_count: 0,
            event_count: 0,
            error_count: 0,
            cost_nanos: 0,
        }
    }
}

/// (key, outcome) and a count of events.
pub type LedgerDelta<'a> = ((&'a str, &'static str), i64);

/// (workspace, day of arrival) and its (events, payload bytes).
pub type UsageDelta<'a> = ((&'a str, i32), (i64, i64));

/// (workspace, event id) and the day on which the event expires. An id must outlive its event.
pub type LateKey<'a> = ((&'a str, &'a str), i32);

/// The numbers by which a span is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanNumbers {
    /// Of its trace.
    pub trace: i64,
    /// Of the session in which it is shown.
    pub session: i64,
}

/// The other columns by which a span is looked up.
#[derive(Debug)]
pub struct SpanColumns<'s> {
    /// The workspace.
    pub workspace_id: &'s str,
    /// The trace.
    pub trace_id: &'s str,
    /// Its id.
    pub span_id: &'s str,
    /// The span under which it is shown.
    pub parent_span_id: Option<&'s str>,
    /// The parent that it names, if it is not shown under that one.
    pub named_parent_span_id: Option<String>,
    /// The session in which it is shown.
    pub session_id: &'s str,
    /// Whether it is a root of that session.
    pub is_root: bool,
    /// Whether it is shown as part of another span.
    pub is_part: bool,
    /// Its start, microseconds UTC.
    pub start_us: i64,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
    /// The day on which it may be deleted.
    pub expire_day: i32,
    /// Whether its row was as it was written; see [`crate::spans::StoredTrace::is_authentic`].
    pub is_authentic: bool,
}

impl<'s> SpanColumns<'s> {
    /// The columns of a changed span.
    pub fn of(changed: &'s SpanChange<'_>, context: &OrgContext) -> Self {
        let (span, shown) = (&changed.span, &changed.span.shown);
        let facts: Cow<'_, Arrival> = span.facts();
        let named_parent = facts.parent_span_id.clone();
        Self {
            workspace_id: changed.workspace_id,
            trace_id: &changed.trace_id,
            span_id: span.arrivals().first().map_or("", |first| first.arrival.span_id.as_str()),
            parent_span_id: shown.parent_span_id.as_deref(),
            named_parent_span_id: named_parent.filter(|id| shown.parent_span_id.as_ref() != Some(id)),
            session_id: &shown.counted.session_id,
            is_root: shown.parent_span_id.is_none() && shown.part_of.is_none(),
            is_part: shown.part_of.is_some(),
            start_us: facts.start_us,
            response_id: facts.response_id.clone(),
            expire_day: context.expire_day(facts.end_us),
            is_authentic: changed.is_authentic,
        }
    }

    /// The seal of the row; `state` is the column's bytes. None if the row was changed by hand before.
    pub fn seal(&self, numbers: &SpanNumbers, state: &[u8], context: &OrgContext) -> Seal {
        if !self.is_authentic {
            return NO_SEAL;
        }
        let sealed = SealedSpan {
            workspace_id: self.workspace_id,
            trace_id: self.trace_id,
            trace_number: numbers.trace,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            named_parent_span_id: self.named_parent_span_id.as_deref(),
            is_root: self.is_root,
            is_part: self.is_part,
            response_id: self.response_id.as_deref(),
            session_number: numbers.session,
            session_id: self.session_id,
            start_us: self.start_us,
            expire_day: self.expire_day,
            state,
        };
        sealed.seal(&context.org, &context.seals)
    }
}

/// A row of `traces`.
#[derive(Debug)]
pub struct TraceRow<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The trace.
    pub trace_id: &'a str,
    /// Its number in the org.
    pub number: i64,
    /// The number of the session in which it is shown.
    pub session_number: i64,
    /// Its state.
    pub state: TraceState,
    /// The day on which it may be deleted, not before that of its session.
    pub expire_day: i32,
    /// Whether its row was as it was written; see [`crate::spans::StoredTrace::is_authentic`].
    pub is_authentic: bool,
}

impl TraceRow<'_> {
    /// The seal of the row; `state` is the column's bytes. None if the row was changed by hand before.
    pub fn seal(&self, state: &[u8], context: &OrgContext) -> Seal {
        if !self.is_authentic {
            return NO_SEAL;
        }
        let chains = self.chains();
        let sealed = SealedTrace {
            workspace_id: self.workspace_id,
            trace_id: self.trace_id,
            number: self.number,
            session_number: self.session_number,
            session_id: &self.state.shown.session_id,
            chains: chains.as_deref(),
            expire_day: self.expire_day,
            state,
        };
        sealed.seal(&context.org, &context.seals)
    }

    /// The column `chains`: a JSON list of session ids, absent if empty.
    pub fn chains(&self) -> Option<String> {
        let chains = Some(&self.state.chains).filter(|chains| !chains.is_empty());
        chains.and_then(|chains| serde_json::to_string(chains).ok())
    }
}
