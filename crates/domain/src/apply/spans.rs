//! Counting spans, and updating the sessions in which their traces are shown.

use rustc_hash::FxHashMap;

use super::{EventRow, Planner, SpanNumbers, TraceRow, next_number};
use crate::spans::{Contribution, Sign, TraceChange, TraceState};

impl<'a, E: FnMut(EventRow<'a>)> Planner<'a, '_, E> {
    /// Moves all sums by what changed of the spans, and all sessions by what changed of their traces.
    pub(super) fn add_spans(&mut self) -> Vec<TraceRow<'a>> {
        let (projection, remaining) = (self.input.projection, self.input.remaining);
        let moved = || {
            projection.spans.iter().filter_map(|changed| {
                let after = &changed.span.shown.counted;
                let before = changed.before.as_ref().map(|shown| &shown.counted);
                (before != Some(after)).then_some((changed.workspace_id, before, after))
            })
        };
        for (workspace_id, before, _) in moved() {
            let Some(before) = before else { continue };
            self.count_span(workspace_id, before, Sign::Minus);
            if let Some(session) = self.sessions.get_mut(&(workspace_id, before.session_id.as_str())) {
                session.restart_if_empty();
            }
        }
        for (key, traces) in &remaining.left {
            if let Some(session) = self.find_session(*key) {
                session.rebuild_from(traces);
            }
        }
        for (key, traces) in &remaining.reopened {
            if let Some(session) = self.find_session(*key) {
                session.state.reopen(traces);
            }
        }
        for (workspace_id, _, after) in moved() {
            self.count_span(workspace_id, after, Sign::Plus);
        }
        projection.traces.iter().map(|trace| self.add_trace(trace)).collect()
    }

    /// Adds what a span contributes to rollups, session and agent, or subtracts it.
    fn count_span(&mut self, workspace_id: &'a str, span: &'a Contribution, sign: Sign) {
        self.rollup.add_span(workspace_id, span, sign);
        let key = (workspace_id, span.session_id.as_str());
        let session = match sign {
            Sign::Plus => Some(self.open_session_of_spans(key, span.start_us)),
            Sign::Minus => self.find_session(key),
        };
        if let Some(session) = session {
            session.state.add_span(span, sign);
        }
        let agent = self.agent(workspace_id, &span.agent_id, span.start_us);
        agent.event_count += sign.of(span.events);
        agent.error_count += sign.of(span.errors);
        agent.cost_nanos = agent.cost_nanos.saturating_add(sign.of(span.cost_nanos));
    }

    /// Updates the session in which a trace is shown, and leads from its former sessions to that one.
    fn add_trace(&mut self, trace: &'a TraceChange<'a>) -> TraceRow<'a> {
        let (workspace_id, shown) = (trace.workspace_id, &trace.shown);
        let session_id = shown.session_id.as_str();
        if let Some(session) = self.find_session((workspace_id, session_id)) {
            session.add_trace(shown);
        }
        self.name_agent((workspace_id, &shown.agent_id), shown.agent_name.as_deref(), shown.start_us);
        let before = trace.before.as_ref().map(|before| before.state.shown.session_id.as_str());
        if let Some(left) = before.filter(|left| *left != session_id)
            && let Some(session) = self.find_session((workspace_id, left))
            && !session.state.is_counted()
        {
            session.state.moved_to = Some(session_id.to_owned());
        }
        for named in &trace.also_named {
            let session = self.open_session_of_spans((workspace_id, named), shown.start_us);
            if !session.state.is_counted() {
                session.state.moved_to = Some(session_id.to_owned());
            }
        }
        let before = trace.before.as_ref();
        TraceRow {
            workspace_id,
            trace_id: &trace.trace_id,
            number: before.map_or_else(|| next_number(&mut self.last_trace), |before| before.number),
            session_number: self.session_number((workspace_id, session_id)),
            state: TraceState::after(before.map(|before| &before.state), shown, &trace.kept),
            expire_day: self.context.expire_day(shown.end_us),
            is_authentic: before.is_none_or(|before| before.is_authentic),
        }
    }

    /// The numbers of the changed spans, all of which belong to `traces`.
    pub(super) fn span_numbers(&self, traces: &[TraceRow<'a>]) -> Vec<SpanNumbers> {
        let numbers: FxHashMap<(&str, &str), i64> =
            traces.iter().map(|trace| ((trace.workspace_id, trace.trace_id), trace.number)).collect();
        let spans = self.input.projection.spans.iter().map(|changed| {
            let trace = numbers.get(&(changed.workspace_id, changed.trace_id.as_str()));
            let session_id = changed.span.shown.counted.session_id.as_str();
            SpanNumbers {
                trace: trace.copied().unwrap_or_default(),
                session: self.session_number((changed.workspace_id, session_id)),
            }
        });
        spans.collect()
    }
}
