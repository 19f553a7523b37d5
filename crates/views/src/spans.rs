//! A span together with the spans that are shown as parts of it.

use rustc_hash::FxHashMap;

use agentlens_domain::cost::CostSource;
use agentlens_domain::spans::SpanKind;
use agentlens_domain::usage::Usage;
use agentlens_store::{SpanRow, StoreError, Workspace};

/// Trace and span.
pub(crate) type Address = (String, String);

/// A span as it is now.
#[derive(Debug, Clone)]
pub struct CurrentSpan {
    /// The span as it is stored.
    pub row: SpanRow,
    /// The spans that are shown as parts of it, because they describe the same call.
    pub parts: Vec<SpanRow>,
}

/// What a span cost, and where the figure comes from. Money is nano-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanCost {
    /// The figure that counts.
    pub nanos: i64,
    /// Where it comes from.
    pub source: CostSource,
    /// What the client stated.
    pub reported_nanos: Option<i64>,
    /// What tokens and price give.
    pub computed_nanos: Option<i64>,
}

impl CurrentSpan {
    /// What the span is about.
    pub fn kind(&self) -> SpanKind {
        self.row.span.facts().kind.unwrap_or(SpanKind::Other)
    }

    /// What it cost, where it owns something that costs.
    pub fn cost(&self) -> Option<SpanCost> {
        let own = &self.row.span.shown.own;
        Some(SpanCost {
            nanos: own.cost_nanos,
            source: own.cost_source?,
            reported_nanos: own.reported_cost_nanos,
            computed_nanos: own.computed_cost_nanos,
        })
    }

    /// Microseconds from the start to the first token, by the span or one of its parts.
    pub fn first_token_us(&self) -> Option<i64> {
        let of_parts = || self.parts.iter().find_map(|part| part.span.facts().first_token_us);
        self.row.span.facts().first_token_us.or_else(of_parts)
    }

    /// Tokens that the span reports but that are counted elsewhere.
    pub fn tokens_counted_elsewhere(&self) -> Option<Usage> {
        let is_counted_here = !self.row.span.shown.own.usage.is_zero();
        self.row.span.facts().usage.filter(|usage| !is_counted_here && !usage.is_zero())
    }

    /// The ids of the events that arrived of the span, the first to arrive first.
    pub fn event_ids(&self) -> Vec<String> {
        event_ids(&self.row)
    }

    /// The ids of the events that arrived of the span and of its parts: what its content is made of.
    pub(crate) fn content_ids(&self) -> Vec<String> {
        let mut ids = self.event_ids();
        ids.extend(self.parts.iter().flat_map(event_ids));
        ids
    }
}

fn event_ids(row: &SpanRow) -> Vec<String> {
    let first = row.span.first_event_id();
    let others = row.span.arrivals().iter().map(|stored| &stored.event_id).filter(|id| *id != first);
    std::iter::once(first.to_owned()).chain(others.cloned()).collect()
}

pub(crate) fn address_of(row: &SpanRow) -> Address {
    (row.trace_id.clone(), row.span_id.clone())
}

/// Reads the parts of spans, in one statement.
pub async fn with_parts(workspace: &Workspace, rows: Vec<SpanRow>) -> Result<Vec<CurrentSpan>, StoreError> {
    let ids: Vec<Address> = rows.iter().flat_map(|row| row.span.shown.parts.iter().cloned()).collect();
    let parts = workspace.spans().find(&ids).await?;
    // A span is part of one other at most.
    let mut parts: FxHashMap<Address, SpanRow> =
        parts.into_iter().map(|row| (address_of(&row), row)).collect();
    let join = |row: SpanRow| {
        let parts = row.span.shown.parts.iter().filter_map(|part| parts.remove(part)).collect();
        CurrentSpan { row, parts }
    };
    Ok(rows.into_iter().map(join).collect())
}
