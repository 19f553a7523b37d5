//! The structure of a forest: parents, which spans speak of the same call, and what a trace as a whole is.

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use super::calls::Figures;
use super::forest::{Forest, Trace, TraceShown, places};
use super::{Arrival, SpanKind};
use crate::events::UNKNOWN_AGENT;

/// One span among the others.
pub(super) struct Node<'a> {
    pub(super) trace: usize,
    pub(super) facts: Cow<'a, Arrival>,
    pub(super) environment: &'a str,
    pub(super) arrivals: i64,
    pub(super) kind: SpanKind,
    pub(super) parent: Option<usize>,
    /// The call of a model inside which this one lies, if both speak of one call.
    pub(super) wrapper: Option<usize>,
    /// Whether something it wraps stands for it.
    pub(super) yields: bool,
    /// Whether what wraps it stands for it.
    pub(super) is_absorbed: bool,
    /// Whether something below it owns tokens.
    pub(super) has_owner_below: bool,
    /// Whether it lies inside a call that owns what it names.
    pub(super) is_inside_owner: bool,
    /// A cost that other spans state of the call for which this one stands.
    pub(super) lent_cost_nanos: Option<i64>,
    /// Whether something that is shown as part of it failed.
    pub(super) has_failed_part: bool,
    /// The earliest instant that anything of it names, and the latest; they only ever move apart.
    first_us: i64,
    last_us: i64,
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
    /// How much it says of what it used.
    pub(super) fn figures_named(&self) -> Figures {
        if self.facts.usage.is_some_and(|usage| !usage.is_zero()) {
            Figures::Tokens
        } else if self.facts.reported_cost_nanos.is_some_and(|nanos| nanos > 0) {
            Figures::Cost
        } else {
            Figures::Nothing
        }
    }

    /// Whether it names tokens or a cost.
    pub(super) fn names_figures(&self) -> bool {
        self.figures_named() > Figures::Nothing
    }

    /// Whether it is a call of a model that no other span stands for by its place in the tree.
    pub(super) fn is_call(&self) -> bool {
        self.kind.calls_a_model() && !self.yields && !self.is_absorbed
    }

    /// Whether it names a sum over spans that never arrived or don't say what they used.
    pub(super) fn owns_its_sum(&self) -> bool {
        !self.kind.calls_a_model() && !self.has_owner_below && !self.is_inside_owner && self.names_figures()
    }

    /// The node whose sums take this one's.
    pub(super) fn sums_into(&self) -> Option<usize> {
        self.part_of.or(self.shown_parent)
    }
}

pub(super) struct Structure<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// See [`Forest::common_answers`].
    pub(super) common_answers: &'a FxHashSet<String>,
    pub(super) trace_ids: Vec<&'a str>,
    /// Parents before their children.
    pub(super) order: Vec<usize>,
    /// How many calls each wrapper wraps.
    pub(super) inner_counts: Vec<usize>,
    /// The session that each trace names by itself, and its place in `nodes`.
    pub(super) claims: Vec<Option<usize>>,
    /// The trace whose calls a trace repeats.
    pub(super) follows: Vec<Option<usize>>,
}

impl<'a> Structure<'a> {
    pub(super) fn of(forest: &'a Forest) -> Self {
        let traces = forest.traces.as_slice();
        let mut structure = Self {
            common_answers: &forest.common_answers,
            nodes: nodes(traces),
            trace_ids: traces.iter().map(|trace| trace.trace_id.as_str()).collect(),
            order: Vec::new(),
            inner_counts: Vec::new(),
            claims: vec![None; traces.len()],
            follows: vec![None; traces.len()],
        };
        structure.link_parents(traces);
        structure.find_claims();
        structure.find_wrappers();
        structure.settle_yields();
        structure.settle_absorption();
        structure.join_same_answers();
        structure.settle_sums();
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

    pub(super) fn age(&self, index: usize) -> (i64, &str, &str) {
        let node = &self.nodes[index];
        (node.facts.start_us, self.trace_ids[node.trace], &node.facts.span_id)
    }

    /// Where each span is shown. What is shown as part of another span has nothing below it, and every other span is shown
    /// below one that lies above it in its trace, so that the sums can't go round in a ring.
    fn place(&mut self) {
        let depths = Depths::of(&self.nodes, &self.order);
        // Wrappers come before what they wrap in the order.
        let mut outermost: Vec<usize> = (0..self.nodes.len()).collect();
        for index in self.order.iter().copied() {
            if let Some(wrapper) = self.sole_wrapper(index) {
                outermost[index] = outermost[wrapper];
            }
        }
        for index in 0..self.nodes.len() {
            let whole = outermost[index];
            let anchor = self.nodes[whole].anchor;
            let is_twin = anchor != whole && !depths.is_above(whole, anchor);
            let target = if is_twin { outermost[anchor] } else { whole };
            if target != index {
                self.nodes[index].part_of = Some(target);
                self.nodes[target].has_failed_part |= self.nodes[index].facts.is_error;
            }
        }
        for index in self.order.iter().copied() {
            let Some(parent) = self.nodes[index].parent else { continue };
            let above = &self.nodes[parent];
            self.nodes[index].shown_parent = match above.part_of {
                None => Some(parent),
                Some(target) if depths.is_above(target, parent) => Some(target),
                Some(_) => above.shown_parent,
            };
        }
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
        let leaders = self.leaders();
        (0..traces.len()).map(|at| self.trace(&members[at], leaders[at])).collect()
    }

    /// The best name of a session in each trace: the worthiest, then the earliest.
    fn find_claims(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(claim) = &node.facts.session else { continue };
            let known = self.claims[node.trace];
            let is_better = known.is_none_or(|known| {
                let rank = self.nodes[known].facts.session.as_ref().map(|claim| claim.rank);
                (Some(claim.rank), self.age(index)) < (rank, self.age(known))
            });
            if is_better {
                self.claims[node.trace] = Some(index);
            }
        }
    }

    /// The trace whose session each trace shares: itself if it names one, else that of the trace which its calls repeat.
    /// Traces that repeat each other in a ring share that of the first of them by id.
    fn leaders(&self) -> Vec<usize> {
        let mut leaders: Vec<Option<usize>> = vec![None; self.trace_ids.len()];
        let mut steps: Vec<Option<usize>> = vec![None; self.trace_ids.len()];
        for start in 0..self.trace_ids.len() {
            let (mut path, mut at) = (Vec::new(), start);
            let leader = loop {
                if let Some(leader) = leaders[at] {
                    break leader;
                }
                if let Some(step) = steps[at] {
                    let ring = path[step..].iter().copied();
                    break ring.min_by_key(|trace| self.trace_ids[*trace]).unwrap_or(at);
                }
                steps[at] = Some(path.len());
                path.push(at);
                match self.follows[at].filter(|_| self.claims[at].is_none()) {
                    Some(next) => at = next,
                    None => break at,
                }
            };
            path.into_iter().for_each(|trace| leaders[trace] = Some(leader));
        }
        leaders.into_iter().enumerate().map(|(at, leader)| leader.unwrap_or(at)).collect()
    }

    fn trace(&self, members: &[usize], leader: usize) -> TraceShown {
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
            session_id: self.session(leader).to_owned(),
            agent_id: agent_id.to_owned(),
            agent_name: named
                .min_by_key(by_age)
                .and_then(|index| self.nodes[*index].facts.agent_name.clone()),
            user_id: user.and_then(|index| self.nodes[*index].facts.user_id.clone()),
            environment: root.map_or("", |node| node.environment).to_owned(),
            start_us: members.iter().map(|index| self.nodes[*index].first_us).min().unwrap_or(0),
            end_us: members.iter().map(|index| self.nodes[*index].last_us).max().unwrap_or(0),
            ended_us: top.map(|node| node.facts.end_us),
            ended_in_error: top.is_some_and(|node| node.facts.is_error),
        }
    }

    /// The session of a trace that follows no other.
    fn session(&self, trace: usize) -> &str {
        let claim = self.claims[trace].and_then(|index| self.nodes[index].facts.session.as_ref());
        claim.map_or(self.trace_ids[trace], |claim| claim.id.as_str())
    }
}

/// Where each span lies in a walk that goes down before it goes on, and how many spans the walk finds below it.
struct Depths {
    places: Vec<usize>,
    sizes: Vec<usize>,
}

impl Depths {
    fn of(nodes: &[Node<'_>], order: &[usize]) -> Self {
        let mut sizes = vec![1; nodes.len()];
        for index in order.iter().rev().copied() {
            if let Some(parent) = nodes[index].parent {
                sizes[parent] += sizes[index];
            }
        }
        let (mut places, mut next_below, mut next) = (vec![0; nodes.len()], vec![0; nodes.len()], 0);
        for index in order.iter().copied() {
            let free = nodes[index].parent.map_or(&mut next, |parent| &mut next_below[parent]);
            places[index] = *free;
            *free += sizes[index];
            next_below[index] = places[index] + 1;
        }
        Self { places, sizes }
    }

    fn is_above(&self, above: usize, below: usize) -> bool {
        let first = self.places[above];
        (first + 1..first + self.sizes[above]).contains(&self.places[below])
    }
}

impl Node<'_> {
    /// Whether the span itself has arrived, not only a log record of it.
    fn kind_is_known(&self) -> bool {
        self.facts.source == super::ArrivalSource::Span
    }

    pub(super) fn lend_cost(&mut self, cost_nanos: i64) {
        self.lent_cost_nanos = Some(self.lent_cost_nanos.unwrap_or(0).saturating_add(cost_nanos));
    }
}

fn nodes(traces: &[Trace]) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for (trace, spans) in traces.iter().enumerate().map(|(at, trace)| (at, &trace.spans)) {
        for span in spans {
            let facts = span.facts();
            let arrivals = span.arrivals().iter().map(|stored| &stored.arrival);
            nodes.push(Node {
                trace,
                environment: span.environment(),
                arrivals: span.event_count(),
                kind: facts.kind.unwrap_or(SpanKind::Other),
                facts,
                parent: None,
                wrapper: None,
                yields: false,
                is_absorbed: false,
                has_owner_below: false,
                is_inside_owner: false,
                lent_cost_nanos: None,
                has_failed_part: false,
                first_us: arrivals.clone().map(|arrival| arrival.start_us).min().unwrap_or(0),
                last_us: arrivals.map(|arrival| arrival.end_us).max().unwrap_or(0),
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
