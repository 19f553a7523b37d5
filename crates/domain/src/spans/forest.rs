//! Resolves arrivals into the values that are shown and counted: the tree of a trace, the owners of its tokens, its session and
//! its agent.
//!
//! The outcome depends on the arrivals, not on their order. A forest need not hold all spans of its traces: the contribution of
//! the others is stored ([`super::links`]), and [`super::Region`] finds the spans that it must hold.
//!
//! Every token is counted once:
//! - A span that calls a model owns the tokens it reports. If such a span is inside another one of the same kind and provider,
//!   with no tool or agent between them, both describe one call. The inner span owns it, unless the outer one reports more.
//!   Example: the inner span has only a cost and the outer one has tokens. The only call inside a wrapper is shown as part of it.
//! - Spans in the workspace that name the same answer of the same provider within ten minutes describe one call. If the answer's
//!   id is short, which may be reused, they must overlap. An id that many spans name is a constant and is ignored.
//! - A span of the provider's own library and an instrumentation's span around it, both below the same span, describe one call if
//!   both failed or both report the same tokens.
//! - Of such duplicates, the span with the most context is shown: a session, a parent, the earliest start. The figures come from
//!   the span that reports most; of equal ones from the last to start, which is closest to the request itself.
//! - The tokens of any other span are a sum over its descendants. They count only if no descendant owns tokens and if the span is
//!   not inside a call that reports them itself.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::counting::count;
use super::links::{CutOff, Gathered, Kept, Links};
use super::structure::Structure;
use super::{Contribution, Span};
use crate::cost::{CostSource, PriceTable};
use crate::usage::Usage;

/// A trace: all its spans that are known, in any order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Its id.
    pub trace_id: String,
    /// Its spans.
    pub spans: Vec<Span>,
    /// Its shown values; the default until it is resolved.
    pub shown: TraceShown,
    /// The stored summary of its spans.
    pub kept: Kept,
    /// Whether some of its spans are not loaded. Until it is resolved, `shown` and `kept` then include them.
    pub(super) is_partial: bool,
    /// Spans whose parent has arrived but is not loaded.
    pub(super) cut_off: CutOff,
}

impl Trace {
    /// A trace without spans.
    pub fn of(trace_id: String) -> Self {
        Self { trace_id, ..Self::default() }
    }

    /// Whether it no longer changes as a whole and some of its spans are not loaded.
    pub(super) fn is_frozen(&self) -> bool {
        self.is_partial && self.kept.is_frozen()
    }
}

/// The shown values of a trace as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceShown {
    /// Its session: the best name among its spans, or that of the trace whose calls it duplicates, or its own id.
    pub session_id: String,
    /// The agent of its earliest root.
    pub agent_id: String,
    /// That agent's display name.
    pub agent_name: Option<String>,
    /// The end user of its earliest span that names one.
    pub user_id: Option<String>,
    /// The environment of its earliest root.
    pub environment: String,
    /// The earliest instant in any of its arrivals, microseconds UTC. It never moves forward.
    pub start_us: i64,
    /// The latest instant, which never moves back.
    pub end_us: i64,
    /// The end of its earliest root without a parent; absent until that root has arrived.
    pub ended_us: Option<i64>,
    /// Whether that root failed.
    pub ended_in_error: bool,
}

/// The shown and counted values of a span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// The span under which it is shown; absent for roots and if the parent has not arrived.
    pub parent_span_id: Option<String>,
    /// Trace and id of the span as part of which it is shown. Then it is not a node of the tree.
    pub part_of: Option<(String, String)>,
    /// Traces and spans that are shown as parts of it.
    pub parts: Vec<(String, String)>,
    /// Its contribution to the sums.
    pub counted: Contribution,
    /// The tokens and costs that it and its parts own.
    pub own: Own,
    /// Spans shown directly under it.
    pub children: i64,
    /// The sums of the span and everything shown under it.
    pub subtree: Subtree,
}

/// The tokens and costs that a span and its parts own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Tokens.
    pub usage: Usage,
    /// Cost in nano-dollars.
    pub cost_nanos: i64,
    /// The source of the cost; absent if nothing has a cost.
    pub cost_source: Option<CostSource>,
    /// The client's own figure of the cost, nano-dollars.
    pub reported_cost_nanos: Option<i64>,
    /// The cost of the tokens by the price table, nano-dollars.
    pub computed_cost_nanos: Option<i64>,
    /// The cost that the client's own cache saved, nano-dollars.
    pub saved_cost_nanos: i64,
}

impl Own {
    fn add(&mut self, other: Self) {
        let sum = |left: Option<i64>, right: Option<i64>| match (left, right) {
            (Some(left), Some(right)) => Some(left.saturating_add(right)),
            (left, right) => left.or(right),
        };
        self.usage = self.usage.saturating_add(other.usage);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        self.cost_source = self.cost_source.or(other.cost_source);
        self.reported_cost_nanos = sum(self.reported_cost_nanos, other.reported_cost_nanos);
        self.computed_cost_nanos = sum(self.computed_cost_nanos, other.computed_cost_nanos);
        self.saved_cost_nanos = self.saved_cost_nanos.saturating_add(other.saved_cost_nanos);
    }
}

/// Sums of a span and everything below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtree {
    /// Spans.
    pub spans: i64,
    /// Failed ones.
    pub errors: i64,
    /// Input tokens.
    pub input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// Cost in nano-dollars.
    pub cost_nanos: i64,
}

impl Subtree {
    /// The sums of one span alone.
    pub(super) fn of(counted: &Contribution, is_part: bool) -> Self {
        Self {
            spans: i64::from(!is_part),
            errors: counted.errors,
            input_tokens: counted.usage.input,
            output_tokens: counted.usage.output,
            cost_nanos: counted.cost_nanos,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.errors += other.errors;
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.spans -= other.spans;
        self.errors -= other.errors;
        self.input_tokens = self.input_tokens.saturating_sub(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_sub(other.output_tokens);
        self.cost_nanos = self.cost_nanos.saturating_sub(other.cost_nanos);
    }
}

/// Traces that are resolved together, because they may have calls in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forest {
    /// The traces, no id twice.
    pub traces: Vec<Trace>,
    /// Ids that more than [`super::MAX_SAME_ANSWER`] spans name, here and elsewhere. They don't identify answers.
    pub common_answers: FxHashSet<String>,
}

/// Resolves every trace of the forest. The forest must hold every trace that shares an answer with one of them; answers in
/// `common_answers` don't count.
pub fn resolve(forest: &mut Forest, prices: &PriceTable) {
    let mut structure = Structure::of(forest);
    let gathered = structure.gather();
    let resolved = Resolved::of(&structure, gathered, prices);
    resolved.write(forest);
}

/// The outcome for every trace and every span of a forest, in its order.
pub(super) struct Resolved {
    traces: Vec<Gathered>,
    spans: Vec<(Shown, Links)>,
}

impl Resolved {
    pub(super) fn of(structure: &Structure<'_>, traces: Vec<Gathered>, prices: &PriceTable) -> Self {
        let shown = shown(structure, &traces, prices);
        Self { traces, spans: shown.into_iter().zip(structure.links()).collect() }
    }

    /// Replaces the shown and kept values and returns the old ones of each span.
    pub(super) fn write(self, forest: &mut Forest) -> Vec<(Shown, Option<Links>)> {
        let mut before = Vec::with_capacity(self.spans.len());
        let spans = forest.traces.iter_mut().flat_map(|trace| trace.spans.iter_mut());
        for (span, (shown, links)) in spans.zip(self.spans) {
            let links = span.links.replace(links);
            before.push((std::mem::replace(&mut span.shown, shown), links));
        }
        for (trace, gathered) in forest.traces.iter_mut().zip(self.traces) {
            (trace.shown, trace.kept) = (gathered.shown, gathered.kept);
        }
        before
    }
}

fn shown(structure: &Structure<'_>, traces: &[Gathered], prices: &PriceTable) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::with_capacity(structure.nodes.len());
    for (index, node) in structure.nodes.iter().enumerate() {
        let trace = &traces[node.trace].shown;
        let costs = count(structure, index, prices);
        let own = Contribution {
            session_id: trace.session_id.clone(),
            user_id: node.facts.user_id.clone().or_else(|| trace.user_id.clone()),
            ..costs.contribution
        };
        let part_of = node.part_of.map(|target| structure.address(target));
        all.push(Shown {
            parent_span_id: match node.shown_parent {
                Some(parent) => Some(structure.nodes[parent].facts.span_id.clone()),
                None if node.is_cut_off => node.before.parent_span_id.clone(),
                None => None,
            },
            part_of,
            parts: Vec::new(),
            own: Own {
                usage: own.usage,
                cost_nanos: own.cost_nanos,
                cost_source: own.cost_source,
                reported_cost_nanos: costs.reported_cost_nanos,
                computed_cost_nanos: costs.computed_cost_nanos,
                saved_cost_nanos: costs.saved_cost_nanos,
            },
            counted: own,
            children: 0,
            subtree: Subtree::default(),
        });
    }
    gather_parts(structure, &mut all);
    add_up(structure, &mut all);
    all
}

fn gather_parts(structure: &Structure<'_>, all: &mut [Shown]) {
    for (index, node) in structure.nodes.iter().enumerate() {
        let Some(target) = node.part_of else { continue };
        let own = all[index].own;
        all[target].own.add(own);
        all[target].parts.push(structure.address(index));
    }
    for shown in all {
        shown.parts.sort_unstable();
    }
}

/// Adds every span to the sums of all spans above it, leaves first.
fn add_up(structure: &Structure<'_>, all: &mut [Shown]) {
    let mut waiting = vec![0_usize; all.len()];
    let above: Vec<Option<usize>> = structure.nodes.iter().map(|node| node.sums_into()).collect();
    for (index, node) in structure.nodes.iter().enumerate() {
        let mut subtree = Subtree::of(&all[index].counted, node.part_of.is_some());
        subtree.add(node.hidden.subtree);
        (all[index].subtree, all[index].children) =
            (subtree, all[index].children + node.hidden.shown_children);
        if let Some(above) = above[index] {
            waiting[above] += 1;
            all[above].children += i64::from(node.part_of.is_none());
        }
    }
    let mut ready: Vec<usize> = (0..all.len()).filter(|index| waiting[*index] == 0).collect();
    while let Some(index) = ready.pop() {
        let Some(above) = above[index] else { continue };
        let subtree = all[index].subtree;
        all[above].subtree.add(subtree);
        waiting[above] -= 1;
        if waiting[above] == 0 {
            ready.push(above);
        }
    }
}

/// The place of each span in the forest, by trace and span id.
pub(super) fn places(traces: &[Trace]) -> FxHashMap<(usize, &str), usize> {
    let mut places = FxHashMap::default();
    let mut index = 0;
    for (at, trace) in traces.iter().enumerate() {
        for span in &trace.spans {
            if let Some(first) = span.arrivals().first() {
                places.insert((at, first.arrival.span_id.as_str()), index);
            }
            index += 1;
        }
    }
    places
}
