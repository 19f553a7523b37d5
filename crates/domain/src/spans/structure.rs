//! The structure of a forest: parents, spans that describe the same call, and the facts of each trace as a whole.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::Figures;
use super::forest::{Forest, Shown, Trace, places};
use super::links::{First, Follow, Hidden, Links};
use super::{Arrival, SpanKind};
use crate::events::UNKNOWN_AGENT;

/// One loaded span.
pub(super) struct Node<'a> {
    pub(super) trace: usize,
    /// Its place among the spans of its trace.
    pub(super) place: usize,
    /// Its links when it was last resolved; absent for a new span.
    pub(super) links: Option<&'a Links>,
    /// Its shown values when it was last resolved.
    pub(super) before: &'a Shown,
    /// The contribution of its descendants that are not loaded.
    pub(super) hidden: Hidden,
    pub(super) facts: Cow<'a, Arrival>,
    pub(super) environment: &'a str,
    pub(super) arrivals: i64,
    pub(super) kind: SpanKind,
    pub(super) parent: Option<usize>,
    /// Whether its parent is not loaded, because it is too many levels up.
    pub(super) is_cut_off: bool,
    /// The model call that contains its children.
    pub(super) call: Option<usize>,
    /// Whether it is a call with spans inside it that are not loaded, because there are too many. Their last result is kept.
    pub(super) is_overfull: bool,
    /// The model call that contains this one, if both describe one call.
    pub(super) wrapper: Option<usize>,
    /// Whether a call inside it is counted instead of it.
    pub(super) yields: bool,
    /// Whether its wrapper is counted instead of it.
    pub(super) is_absorbed: bool,
    /// The number of its descendants that own or report figures.
    pub(super) owners_below: i64,
    /// Whether it is inside a call that owns the figures it reports.
    pub(super) is_inside_owner: bool,
    /// A cost that other spans report for the call that is counted here.
    pub(super) lent_cost_nanos: Option<i64>,
    /// Whether something that is shown as part of it failed.
    pub(super) has_failed_part: bool,
    /// The earliest and the latest instant in any of its arrivals. Further arrivals can only widen this range.
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    /// The span that represents its answer; possibly itself.
    pub(super) anchor: usize,
    /// The span with the figures of its answer.
    pub(super) figures: usize,
    /// The span as part of which it is shown.
    pub(super) part_of: Option<usize>,
    /// The span under which it is shown.
    pub(super) shown_parent: Option<usize>,
    pub(super) agent_id: String,
    /// Whether it or one of its ancestors names its agent.
    pub(super) agent_is_named: bool,
}

impl Node<'_> {
    /// How much usage it reports.
    pub(super) fn figures_named(&self) -> Figures {
        if self.facts.usage.is_some_and(|usage| !usage.is_zero()) {
            Figures::Tokens
        } else if self.facts.reported_cost_nanos.is_some_and(|nanos| nanos > 0) {
            Figures::Cost
        } else {
            Figures::Nothing
        }
    }

    /// Whether it reports tokens or a cost.
    pub(super) fn names_figures(&self) -> bool {
        self.figures_named() > Figures::Nothing
    }

    /// Whether it is a model call that is not replaced by a wrapper or by a call inside it.
    pub(super) fn is_call(&self) -> bool {
        self.kind.calls_a_model() && !self.yields && !self.is_absorbed
    }

    /// Whether it reports a sum over spans that never arrived or that report no usage.
    pub(super) fn owns_its_sum(&self) -> bool {
        !self.kind.calls_a_model() && self.owners_below == 0 && !self.is_inside_owner && self.names_figures()
    }

    /// The node to whose sums this one is added.
    pub(super) fn sums_into(&self) -> Option<usize> {
        self.part_of.or(self.shown_parent)
    }
}

pub(super) struct Structure<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// See [`Forest::common_answers`].
    pub(super) common_answers: &'a FxHashSet<String>,
    pub(super) traces: &'a [Trace],
    pub(super) trace_ids: Vec<&'a str>,
    pub(super) trace_places: FxHashMap<&'a str, usize>,
    /// The nodes by trace and span id.
    pub(super) places: FxHashMap<(usize, &'a str), usize>,
    /// The nodes of each trace.
    pub(super) members: Vec<Vec<usize>>,
    /// Traces whose outcome depends on spans that are not loaded.
    pub(super) incomplete: Vec<bool>,
    /// Parents before their children.
    pub(super) order: Vec<usize>,
    /// The number of calls directly inside each wrapper that are counted on their own.
    pub(super) inner_counts: Vec<usize>,
    /// The session that each trace names by itself.
    pub(super) claims: Vec<Option<First<String>>>,
    /// The first agent that each trace names.
    pub(super) first_agents: Vec<Option<First<String>>>,
    /// The trace whose calls a trace duplicates.
    pub(super) follows: Vec<Option<Follow>>,
}

impl<'a> Structure<'a> {
    pub(super) fn of(forest: &'a Forest) -> Self {
        let traces = forest.traces.as_slice();
        let nodes = nodes(traces);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); traces.len()];
        for (index, node) in nodes.iter().enumerate() {
            members[node.trace].push(index);
        }
        let ids = traces.iter().map(|trace| trace.trace_id.as_str());
        let mut structure = Self {
            common_answers: &forest.common_answers,
            nodes,
            traces,
            trace_ids: ids.clone().collect(),
            trace_places: ids.enumerate().map(|(at, id)| (id, at)).collect(),
            places: places(traces),
            members,
            incomplete: vec![false; traces.len()],
            order: Vec::new(),
            inner_counts: Vec::new(),
            claims: vec![None; traces.len()],
            first_agents: vec![None; traces.len()],
            follows: vec![None; traces.len()],
        };
        structure.find_hidden();
        structure.link_parents();
        structure.find_claims();
        structure.find_wrappers();
        structure.find_replaced_wrappers();
        structure.find_absorbed_calls();
        structure.join_same_answers();
        structure.join_library_calls();
        structure.keep_follows();
        structure.find_counted_sums();
        structure.place();
        structure.find_first_agents();
        structure.name_agents();
        structure
    }

    /// Trace and span id of a node.
    pub(super) fn address(&self, index: usize) -> (String, String) {
        let node = &self.nodes[index];
        (self.trace_ids[node.trace].to_owned(), node.facts.span_id.clone())
    }

    fn link_parents(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let id = node.facts.parent_span_id.as_deref();
            let parent = id.and_then(|id| self.places.get(&(node.trace, id)).copied());
            let cut_off = &self.traces[node.trace].cut_off;
            let is_cut_off = parent.is_none() && id.is_some() && cut_off.contains(&node.facts.span_id);
            self.nodes[index].is_cut_off = is_cut_off;
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

    /// Breaks cycles of parents: the earliest span of a cycle becomes a root.
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
            // Either the walk from `start` reached `at` twice, which is a cycle, or `at` is the end of the walk.
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

    /// Decides where each span is shown. A span that is shown as part of another has no children, and every other span is shown
    /// below one of its ancestors, so sums can't form a cycle.
    fn place(&mut self) {
        let depths = Depths::of(&self.nodes, &self.order);
        // In this order wrappers come before the calls inside them.
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

    /// The agent of a span is the one that it names, otherwise that of its nearest ancestor that names one, otherwise the first one
    /// in its trace, otherwise its service.
    fn name_agents(&mut self) {
        for index in self.order.clone() {
            let node = &self.nodes[index];
            let above = node.parent.map(|parent| &self.nodes[parent]).filter(|above| above.agent_is_named);
            let own = node.facts.agent_id.as_deref();
            let inherited = above.map(|above| above.agent_id.as_str());
            let is_inherited = |links: &&Links| node.is_cut_off && links.agent_is_named;
            let far_above = node.links.filter(is_inherited).map(|_| node.before.counted.agent_id.as_str());
            let named = own.or(inherited).or(far_above);
            let of_trace = self.first_agents[node.trace].as_ref().map(|first| first.value.as_str());
            let agent_id = named.or(of_trace).or(node.facts.service.as_deref()).unwrap_or(UNKNOWN_AGENT);
            let (agent_id, agent_is_named) = (agent_id.to_owned(), named.is_some());
            let node = &mut self.nodes[index];
            (node.agent_id, node.agent_is_named) = (agent_id, agent_is_named);
        }
    }

    /// For each trace, the trace that decides its session: itself if it names a session, otherwise the trace whose calls it
    /// duplicates. In a cycle of duplicates the smallest trace id decides.
    pub(super) fn leaders(&self) -> Vec<usize> {
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
                match self.followed(at).and_then(|follow| self.trace_places.get(follow.trace_id.as_str())) {
                    Some(next) => at = *next,
                    None => break at,
                }
            };
            path.into_iter().for_each(|trace| leaders[trace] = Some(leader));
        }
        leaders.into_iter().enumerate().map(|(at, leader)| leader.unwrap_or(at)).collect()
    }

    /// The trace whose session this one shares; only if this one names no session.
    pub(super) fn followed(&self, trace: usize) -> Option<&Follow> {
        self.follows[trace].as_ref().filter(|_| self.claims[trace].is_none())
    }

    /// The session of a trace that [`Self::leaders`] chose. If the trace that it duplicates is not loaded, the
    /// session stays as it was.
    pub(super) fn session(&self, trace: usize) -> &str {
        let stored = &self.traces[trace];
        let is_loaded = |follow: &&Follow| self.trace_places.contains_key(follow.trace_id.as_str());
        match (&self.claims[trace], self.followed(trace)) {
            (Some(claim), _) => &claim.value,
            (None, Some(follow)) if !is_loaded(&follow) && stored.is_partial => &stored.shown.session_id,
            _ => self.trace_ids[trace],
        }
    }
}

/// The position of each span in a depth-first walk, and the size of its subtree. They answer "is A above B" without a walk.
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
    pub(super) fn lend_cost(&mut self, cost_nanos: i64) {
        self.lent_cost_nanos = Some(self.lent_cost_nanos.unwrap_or(0).saturating_add(cost_nanos));
    }
}

fn nodes(traces: &[Trace]) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for (trace, spans) in traces.iter().enumerate().map(|(at, trace)| (at, &trace.spans)) {
        for (place, span) in spans.iter().enumerate() {
            let facts = span.facts();
            let arrivals = span.arrivals().iter().map(|stored| &stored.arrival);
            nodes.push(Node {
                trace,
                place,
                links: span.links.as_ref(),
                before: &span.shown,
                hidden: Hidden::default(),
                environment: span.environment(),
                arrivals: span.event_count(),
                kind: facts.kind.unwrap_or(SpanKind::Other),
                facts,
                parent: None,
                is_cut_off: false,
                call: None,
                is_overfull: false,
                wrapper: None,
                yields: false,
                is_absorbed: false,
                owners_below: 0,
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
                agent_is_named: false,
            });
        }
    }
    nodes
}
