//! The structure of a forest: parents, which spans speak of the same call, and what a trace as a whole is.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::forest::{Trace, TraceShown, places};
use super::{Arrival, SpanKind};

/// How far apart in time two spans may name the same answer and speak of one call.
const SAME_ANSWER_US: i64 = 10 * 60 * 1_000_000;
/// The agent where neither the trace nor its service is named.
const UNKNOWN_AGENT: &str = "unknown";

/// One span among the others.
pub(super) struct Node<'a> {
    pub(super) trace: usize,
    pub(super) facts: Cow<'a, Arrival>,
    pub(super) environment: &'a str,
    pub(super) arrivals: i64,
    pub(super) kind: SpanKind,
    parent: Option<usize>,
    /// The call of a model inside which this one lies, if both speak of one call.
    wrapper: Option<usize>,
    /// Whether something it wraps stands for it.
    pub(super) yields: bool,
    /// Whether what wraps it stands for it.
    is_absorbed: bool,
    /// Whether something below it owns tokens.
    pub(super) has_owner_below: bool,
    /// The span that stands for its answer; itself if it does.
    pub(super) anchor: usize,
    /// Where the figures of its answer come from.
    pub(super) figures: usize,
    /// The span as part of which it is shown.
    pub(super) part_of: Option<usize>,
    pub(super) shown_parent: Option<usize>,
    pub(super) agent_id: String,
}

impl Node<'_> {
    /// Whether it names tokens or a cost.
    pub(super) fn names_figures(&self) -> bool {
        self.facts.usage.is_some_and(|usage| !usage.is_zero())
            || self.facts.reported_cost_nanos.is_some_and(|nanos| nanos > 0)
    }

    /// Whether it is a call of a model that no other span stands for by its place in the tree.
    pub(super) fn is_call(&self) -> bool {
        self.kind.calls_a_model() && !self.yields && !self.is_absorbed
    }

    /// The node whose sums take this one's.
    pub(super) fn sums_into(&self) -> Option<usize> {
        self.part_of.or(self.shown_parent)
    }
}

pub(super) struct Structure<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    trace_ids: Vec<&'a str>,
    /// Parents before their children.
    order: Vec<usize>,
    /// The trace whose calls a trace repeats.
    follows: Vec<Option<usize>>,
}

impl<'a> Structure<'a> {
    pub(super) fn of(traces: &'a [Trace]) -> Self {
        let mut structure = Self {
            nodes: nodes(traces),
            trace_ids: traces.iter().map(|trace| trace.trace_id.as_str()).collect(),
            order: Vec::new(),
            follows: vec![None; traces.len()],
        };
        structure.link_parents(traces);
        structure.find_wrappers();
        structure.settle_ownership();
        structure.join_same_answers();
        structure.place();
        structure.name_agents();
        structure
    }

    /// Trace and span id of a node.
    pub(super) fn address(&self, index: usize) -> (String, String) {
        let node = &self.nodes[index];
        (self.trace_ids[node.trace].to_owned(), node.facts.span_id.clone())
    }

    fn link_parents(&mut self, traces: &[Trace]) {
        let places = places(traces);
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let parent =
                node.facts.parent_span_id.as_deref().and_then(|id| places.get(&(node.trace, id)).copied());
            self.nodes[index].parent = parent.filter(|parent| *parent != index);
        }
        self.cut_cycles();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        let mut order: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            match node.parent {
                Some(parent) => children[parent].push(index),
                None => order.push(index),
            }
        }
        let mut next = 0;
        while let Some(index) = order.get(next).copied() {
            order.extend_from_slice(&children[index]);
            next += 1;
        }
        self.order = order;
    }

    /// Spans that name each other as parents in a ring: the earliest of them becomes a root.
    fn cut_cycles(&mut self) {
        let mut seen_in = vec![usize::MAX; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut at = start;
            while seen_in[at] == usize::MAX {
                seen_in[at] = start;
                let Some(parent) = self.nodes[at].parent else { break };
                at = parent;
            }
            if seen_in[at] != start || self.nodes[at].parent.is_none() {
                continue;
            }
            // Either `at` was reached twice from `start`, or it is `start`'s own end; only a ring comes back to itself.
            let (mut first, mut walk) = (at, self.nodes[at].parent);
            while let Some(next) = walk.filter(|next| *next != at) {
                if self.age(next) < self.age(first) {
                    first = next;
                }
                walk = self.nodes[next].parent;
            }
            if walk == Some(at) {
                self.nodes[first].parent = None;
            }
        }
    }

    fn age(&self, index: usize) -> (i64, &str, &str) {
        let node = &self.nodes[index];
        (node.facts.start_us, self.trace_ids[node.trace], &node.facts.span_id)
    }

    fn find_wrappers(&mut self) {
        let mut open: Vec<Option<usize>> = vec![None; self.nodes.len()];
        for index in self.order.clone() {
            let Some(parent) = self.nodes[index].parent else { continue };
            let above = &self.nodes[parent];
            open[index] = match above.kind {
                kind if kind.calls_a_model() => Some(parent),
                SpanKind::Tool | SpanKind::Agent => None,
                _ => open[parent],
            };
            let wrapper =
                open[index].filter(|wrapper| is_one_call(&self.nodes[*wrapper], &self.nodes[index]));
            self.nodes[index].wrapper = wrapper;
        }
    }

    /// Who owns what by the shape of the tree alone, leaves first.
    fn settle_ownership(&mut self) {
        let mut inner_names: Vec<bool> = vec![false; self.nodes.len()];
        let mut has_inner: Vec<bool> = vec![false; self.nodes.len()];
        for index in self.order.clone().into_iter().rev() {
            let node = &self.nodes[index];
            let names = node.names_figures();
            let owns_here = if node.kind.calls_a_model() {
                let yields = inner_names[index] || (!names && has_inner[index]);
                if let Some(wrapper) = node.wrapper {
                    has_inner[wrapper] = true;
                    inner_names[wrapper] |= names || inner_names[index];
                }
                self.nodes[index].yields = yields;
                names
            } else {
                names && !node.has_owner_below
            };
            let node = &self.nodes[index];
            let owns = owns_here || node.has_owner_below;
            if let Some(parent) = node.parent {
                self.nodes[parent].has_owner_below |= owns;
            }
        }
        for index in 0..self.nodes.len() {
            let Some(wrapper) = self.nodes[index].wrapper else { continue };
            let wraps_all = self.nodes[wrapper].names_figures() && !inner_names[wrapper];
            self.nodes[index].is_absorbed = wraps_all;
        }
    }

    /// Calls that name the same answer are one.
    fn join_same_answers(&mut self) {
        let mut groups: FxHashMap<(&str, &str), Vec<usize>> = FxHashMap::default();
        for (index, node) in self.nodes.iter().enumerate() {
            if let Some(response) = node.facts.response_id.as_deref().filter(|_| node.is_call()) {
                groups
                    .entry((node.facts.provider.as_deref().unwrap_or(""), response))
                    .or_default()
                    .push(index);
            }
        }
        let mut joins: Vec<(usize, usize, usize)> = Vec::new();
        for mut group in groups.into_values().filter(|group| group.len() > 1) {
            group.sort_by_key(|index| self.age(*index));
            while let Some(first) = group.first().copied() {
                let until = self.nodes[first].facts.start_us.saturating_add(SAME_ANSWER_US);
                let end = group.partition_point(|index| self.nodes[*index].facts.start_us <= until);
                let together: Vec<usize> = group.drain(..end).collect();
                let best = together.iter().copied().min_by_key(|index| {
                    let facts = &self.nodes[*index].facts;
                    (facts.session.is_none(), facts.parent_span_id.is_none(), self.age(*index))
                });
                let figures = together.iter().rev().copied().find(|index| self.nodes[*index].names_figures());
                let Some(anchor) = best else { continue };
                joins.extend(together.iter().map(|index| (*index, anchor, figures.unwrap_or(anchor))));
            }
        }
        for (index, anchor, figures) in joins {
            (self.nodes[index].anchor, self.nodes[index].figures) = (anchor, figures);
            let (own, other) = (self.nodes[index].trace, self.nodes[anchor].trace);
            if own != other {
                let known = self.follows[own].get_or_insert(other);
                *known = if self.trace_ids[other] < self.trace_ids[*known] { other } else { *known };
            }
        }
    }

    /// Where each span is shown.
    fn place(&mut self) {
        let mut inner_count = vec![0_usize; self.nodes.len()];
        for node in &self.nodes {
            if let Some(wrapper) = node.wrapper.filter(|_| !node.is_absorbed) {
                inner_count[wrapper] += 1;
            }
        }
        for index in self.order.clone() {
            let node = &self.nodes[index];
            let wrapper = node.wrapper.filter(|wrapper| node.is_absorbed || inner_count[*wrapper] == 1);
            let twin = Some(node.anchor).filter(|anchor| *anchor != index && !self.is_above(index, *anchor));
            // The wrapper comes before in the order, so its own place is known.
            let part_of = wrapper.or(twin).map(|target| self.nodes[target].part_of.unwrap_or(target));
            self.nodes[index].part_of = part_of.filter(|target| *target != index);
        }
        for index in self.order.clone() {
            let mut parent = self.nodes[index].parent;
            while let Some(above) = parent {
                let Some(target) = self.nodes[above].part_of else { break };
                let is_here = self.nodes[target].trace == self.nodes[index].trace;
                if is_here && target != index {
                    parent = Some(target);
                    break;
                }
                parent = self.nodes[above].parent;
            }
            self.nodes[index].shown_parent = parent;
        }
    }

    fn is_above(&self, above: usize, below: usize) -> bool {
        let mut at = self.nodes[below].parent;
        while let Some(index) = at {
            if index == above {
                return true;
            }
            at = self.nodes[index].parent;
        }
        false
    }

    /// A span's agent is its own, that of the nearest above it, the first of its trace, or its service.
    fn name_agents(&mut self) {
        let mut first: Vec<Option<usize>> = vec![None; self.trace_ids.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            if node.facts.agent_id.is_some()
                && first[node.trace].is_none_or(|known| self.age(index) < self.age(known))
            {
                first[node.trace] = Some(index);
            }
        }
        let mut named = vec![false; self.nodes.len()];
        for index in self.order.clone() {
            let node = &self.nodes[index];
            let above = node.parent.filter(|parent| named[*parent]);
            named[index] = node.facts.agent_id.is_some() || above.is_some();
            let own = node.facts.agent_id.as_deref();
            let inherited = above.map(|parent| self.nodes[parent].agent_id.as_str());
            let of_trace = first[node.trace].and_then(|index| self.nodes[index].facts.agent_id.as_deref());
            let agent =
                own.or(inherited).or(of_trace).or(node.facts.service.as_deref()).unwrap_or(UNKNOWN_AGENT);
            self.nodes[index].agent_id = agent.to_owned();
        }
    }

    /// What is shown of each trace as a whole.
    pub(super) fn traces(&self, traces: &[Trace]) -> Vec<TraceShown> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); traces.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            members[node.trace].push(index);
        }
        let claims: Vec<Option<&str>> = members.iter().map(|members| self.session_claim(members)).collect();
        (0..traces.len()).map(|at| self.trace(at, &members[at], &claims)).collect()
    }

    fn session_claim(&self, members: &[usize]) -> Option<&str> {
        let claimed = members.iter().filter(|index| self.nodes[**index].facts.session.is_some());
        let best = claimed.min_by_key(|index| {
            (self.nodes[**index].facts.session.as_ref().map(|claim| claim.rank), self.age(**index))
        })?;
        self.nodes[*best].facts.session.as_ref().map(|claim| claim.id.as_str())
    }

    fn trace(&self, at: usize, members: &[usize], claims: &[Option<&str>]) -> TraceShown {
        let by_age = |index: &&usize| self.age(**index);
        let is_root = |index: &&usize| self.nodes[**index].parent.is_none();
        let root = members.iter().filter(is_root).min_by_key(by_age).map(|index| &self.nodes[*index]);
        let top = members
            .iter()
            .filter(|index| {
                self.nodes[**index].facts.parent_span_id.is_none() && self.nodes[**index].kind_is_known()
            })
            .min_by_key(by_age)
            .map(|index| &self.nodes[*index]);
        let agent_id = root.map_or(UNKNOWN_AGENT, |node| node.agent_id.as_str());
        let named = members.iter().filter(|index| {
            let facts = &self.nodes[**index].facts;
            facts.agent_name.is_some() && self.nodes[**index].agent_id == agent_id
        });
        let user =
            members.iter().filter(|index| self.nodes[**index].facts.user_id.is_some()).min_by_key(by_age);
        TraceShown {
            session_id: self.session(at, claims).to_owned(),
            agent_id: agent_id.to_owned(),
            agent_name: named
                .min_by_key(by_age)
                .and_then(|index| self.nodes[*index].facts.agent_name.clone()),
            user_id: user.and_then(|index| self.nodes[*index].facts.user_id.clone()),
            environment: root.map_or("", |node| node.environment).to_owned(),
            start_us: members.iter().map(|index| self.nodes[*index].facts.start_us).min().unwrap_or(0),
            end_us: members.iter().map(|index| self.nodes[*index].facts.end_us).max().unwrap_or(0),
            ended_us: top.map(|node| node.facts.end_us),
            ended_in_error: top.is_some_and(|node| node.facts.is_error),
        }
    }

    fn session<'s>(&'s self, at: usize, claims: &[Option<&'s str>]) -> &'s str {
        let (mut trace, mut steps) = (at, 0);
        while claims[trace].is_none()
            && let Some(next) = self.follows[trace].filter(|_| steps < self.trace_ids.len())
        {
            (trace, steps) = (next, steps + 1);
        }
        claims[trace].unwrap_or(self.trace_ids[trace])
    }
}

impl Node<'_> {
    /// Whether the span itself has arrived, not only a log record of it.
    fn kind_is_known(&self) -> bool {
        self.facts.source == super::ArrivalSource::Span
    }
}

fn nodes(traces: &[Trace]) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for (trace, spans) in traces.iter().enumerate().map(|(at, trace)| (at, &trace.spans)) {
        for span in spans {
            let facts = span.facts();
            nodes.push(Node {
                trace,
                environment: span.environment(),
                arrivals: i64::try_from(span.arrivals().len()).unwrap_or(i64::MAX),
                kind: facts.kind.unwrap_or(SpanKind::Other),
                facts,
                parent: None,
                wrapper: None,
                yields: false,
                is_absorbed: false,
                has_owner_below: false,
                anchor: nodes.len(),
                figures: nodes.len(),
                part_of: None,
                shown_parent: None,
                agent_id: String::new(),
            });
        }
    }
    nodes
}

/// Whether a call inside another is the same call: same kind, no other provider, at the same time.
fn is_one_call(outer: &Node<'_>, inner: &Node<'_>) -> bool {
    let provider = |node: &Node<'_>| node.facts.provider.clone();
    let same_provider = match (provider(outer), provider(inner)) {
        (Some(outer), Some(inner)) => outer == inner,
        _ => true,
    };
    inner.kind == outer.kind
        && same_provider
        && inner.facts.start_us <= outer.facts.end_us
        && outer.facts.start_us <= inner.facts.end_us
}
