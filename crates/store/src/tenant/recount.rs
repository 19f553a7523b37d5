//! Counting a session again: from its events, and from what is stored of its spans, whose rows are sealed.

use agentlens_domain::events::{EventType, Severity};
use agentlens_domain::spans::{ARRIVAL_ID_PREFIX, Contribution, Span, decode_state};

use super::events::StoredEvent;
use super::sealed_rows::{SpanSeal, TraceSeal};
use super::{Chains, SessionRow};
use crate::args;
use crate::error::StoreError;
use crate::statement::NamedRow;

/// Spans that are read at a time.
const CHUNK_SPANS: u32 = 500;

/// What a session counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    own_events: i64,
    events: i64,
    tool_calls: i64,
    errors: i64,
    llm_calls: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost_nanos: i64,
}

impl Sums {
    /// What the row of a session says.
    fn of(session: &SessionRow) -> Self {
        Self {
            own_events: session.own_events,
            events: session.event_count,
            tool_calls: session.tool_call_count,
            errors: session.error_count,
            llm_calls: session.llm_call_count,
            input_tokens: session.input_tokens,
            output_tokens: session.output_tokens,
            cost_nanos: session.cost_nanos,
        }
    }

    /// Counts an event. One that is an arrival of a span is counted with its span.
    pub(super) fn add(&mut self, event: &StoredEvent) {
        if event.id.starts_with(ARRIVAL_ID_PREFIX) {
            return;
        }
        let event_type = EventType::parse(&event.event_type);
        let is_severe =
            matches!(Severity::parse(&event.severity), Some(Severity::Error | Severity::Critical));
        self.own_events += 1;
        self.events += 1;
        self.tool_calls += i64::from(event_type == Some(EventType::ToolCall));
        self.errors += i64::from(is_severe || event_type == Some(EventType::ToolError));
        if event_type == Some(EventType::LlmResponse) {
            self.llm_calls += 1;
            self.input_tokens = self.input_tokens.saturating_add(event.input_tokens.unwrap_or(0));
            self.output_tokens = self.output_tokens.saturating_add(event.output_tokens.unwrap_or(0));
        }
        self.cost_nanos = self.cost_nanos.saturating_add(event.cost_nanos.unwrap_or(0));
    }

    fn add_span(&mut self, span: &Contribution) {
        self.events += span.events;
        self.tool_calls += span.tool_calls;
        self.errors += span.errors;
        self.llm_calls += span.llm_calls;
        self.input_tokens = self.input_tokens.saturating_add(span.usage.input);
        self.output_tokens = self.output_tokens.saturating_add(span.usage.output);
        self.cost_nanos = self.cost_nanos.saturating_add(span.cost_nanos);
    }

    /// The first sum of a session's row that differs from this count; where events were removed, the first that is smaller.
    fn difference(&self, session: &SessionRow, is_whole: bool) -> Option<String> {
        let row = Self::of(session);
        let sums = [
            ("own_events", row.own_events, self.own_events),
            ("event_count", row.events, self.events),
            ("tool_call_count", row.tool_calls, self.tool_calls),
            ("error_count", row.errors, self.errors),
            ("llm_call_count", row.llm_calls, self.llm_calls),
            ("input_tokens", row.input_tokens, self.input_tokens),
            ("output_tokens", row.output_tokens, self.output_tokens),
            ("cost_nanos", row.cost_nanos, self.cost_nanos),
        ];
        let is_wrong = |stored, counted| if is_whole { stored != counted } else { stored < counted };
        let wrong = sums.into_iter().find(|(_, stored, counted)| is_wrong(*stored, *counted));
        wrong.map(|(name, stored, counted)| {
            let at_least = if is_whole { "" } else { "at least " };
            format!("Session says {name} {stored} but its events say {at_least}{counted}")
        })
    }
}

impl Chains<'_> {
    /// What is wrong with what is shown of a session: spans and traces that were changed by hand, or sums that differ from a
    /// recount. `own` counts the events of the session, `is_whole` says that none was removed. `None` also if the session changes
    /// while it is counted.
    pub(super) async fn recount(
        self,
        session: &SessionRow,
        own: Sums,
        is_whole: bool,
    ) -> Result<Option<String>, StoreError> {
        let mut sums = own;
        let fault = self.add_spans(session, &mut sums).await?;
        let Some(fault) = fault.or_else(|| sums.difference(session, is_whole)) else { return Ok(None) };
        // Whatever changes a span of a session changes the session's row in the same transaction.
        let now = self.0.sessions().find(&session.session_id).await?;
        Ok((now.as_ref() == Some(session)).then_some(fault))
    }

    async fn add_spans(self, session: &SessionRow, sums: &mut Sums) -> Result<Option<String>, StoreError> {
        let context = self.0.context();
        let sql = format!(
            "select {} from traces
             where org_id = $1 and workspace_id || '' = $2 and session_number = $3 and number > $4 order by number limit $5",
            TraceSeal::COLUMNS
        );
        let mut after_trace = 0;
        loop {
            let traces: Vec<TraceSeal> =
                self.0.fetch(sql.as_str(), args![session.number, after_trace, CHUNK_SPANS]).await?;
            if let Some(trace) = traces.iter().find(|trace| !trace.is_authentic(&context)) {
                return Ok(Some(format!("Trace {} was changed: its seal does not match", trace.trace_id)));
            }
            for trace in &traces {
                if let Some(fault) = self.add_spans_of_trace(trace.number, session, sums).await? {
                    return Ok(Some(fault));
                }
            }
            match traces.last() {
                Some(last) if traces.len() == CHUNK_SPANS as usize => after_trace = last.number,
                _ => return Ok(None),
            }
        }
    }

    async fn add_spans_of_trace(
        self,
        trace_number: i64,
        session: &SessionRow,
        sums: &mut Sums,
    ) -> Result<Option<String>, StoreError> {
        let context = self.0.context();
        let sql = format!(
            "select {} from spans
             where org_id = $1 and workspace_id || '' = $2 and trace_number = $3 and span_id > $4 order by span_id limit $5",
            SpanSeal::COLUMNS
        );
        let mut after_span = String::new();
        loop {
            let spans: Vec<SpanSeal> =
                self.0.fetch(sql.as_str(), args![trace_number, after_span.as_str(), CHUNK_SPANS]).await?;
            for row in &spans {
                if !row.is_authentic(&context) {
                    return Ok(Some(format!("Span {} was changed: its seal does not match", row.span_id)));
                }
                let span: Span = decode_state(&row.state)?;
                if span.shown.counted.session_id == session.session_id {
                    sums.add_span(&span.shown.counted);
                }
            }
            match spans.last() {
                Some(last) if spans.len() == CHUNK_SPANS as usize => after_span.clone_from(&last.span_id),
                _ => return Ok(None),
            }
        }
    }
}
