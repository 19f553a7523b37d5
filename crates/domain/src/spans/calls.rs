//! Which spans of a forest describe the same model call, and which of them owns its tokens and cost.

use rustc_hash::FxHashMap;

use super::links::Follow;
use super::structure::{Node, Structure};
use super::{Arrival, SpanKind};

/// Two spans that name the same answer describe one call only if they are at most this far apart.
const SAME_ANSWER_US: i64 = 10 * 60 * 1_000_000;
/// Shorter ids (such as `chatcmpl-417` from a local model's server) are reused, so they identify an answer only if the spans
/// overlap in time.
const UNIQUE_ID_BYTES: usize = 16;
/// An id that more spans name than this is a constant and does not identify an answer.
pub const MAX_SAME_ANSWER: usize = 16;

/// How much usage a span reports. If two spans describe one call, the one that reports more owns the usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figures {
    Nothing,
    /// A cost without tokens.
    Cost,
    Tokens,
}

impl<'a> Structure<'a> {
    pub(super) fn find_wrappers(&mut self) {
        for index in self.order.clone() {
            let around = self.nodes[index].parent.and_then(|parent| self.nodes[parent].call);
            let node = &self.nodes[index];
            let wrapper = around.filter(|wrapper| is_one_call(&self.nodes[*wrapper], node));
            let call = match node.kind {
                kind if kind.calls_a_model() => Some(index),
                SpanKind::Tool | SpanKind::Agent => None,
                _ => around,
            };
            (self.nodes[index].wrapper, self.nodes[index].call) = (wrapper, call);
            if let Some(call) = call.filter(|_| self.nodes[index].hidden.children > 0) {
                self.nodes[call].is_overfull = true;
            }
        }
    }

    /// Finds the wrappers that are replaced by the call inside them, leaves first.
    pub(super) fn find_replaced_wrappers(&mut self) {
        let reported = self.reported_figures();
        let mut inner: Vec<Option<Figures>> = vec![None; self.nodes.len()];
        for index in self.order.iter().rev().copied() {
            let node = &self.nodes[index];
            let yielded = node.is_overfull && node.links.is_some_and(|links| links.yields);
            self.nodes[index].yields = yielded || inner[index].is_some_and(|inner| inner >= reported[index]);
            if let Some(wrapper) = self.nodes[index].wrapper {
                inner[wrapper] = inner[wrapper].max(Some(reported[index])).max(inner[index]);
            }
        }
    }

    /// The usage that each span reports, or that is reported by a duplicate that is not above or below it.
    fn reported_figures(&self) -> Vec<Figures> {
        let mut outermost: Vec<usize> = (0..self.nodes.len()).collect();
        for index in self.order.iter().copied() {
            if let Some(wrapper) = self.nodes[index].wrapper {
                outermost[index] = outermost[wrapper];
            }
        }
        let mut reported: Vec<Figures> = self.nodes.iter().map(Node::figures_named).collect();
        for together in self.same_answers(|index| self.nodes[index].facts.response_id.as_deref()) {
            let mut by_place: FxHashMap<usize, Figures> = FxHashMap::default();
            for index in &together {
                let most = by_place.entry(outermost[*index]).or_insert(Figures::Nothing);
                *most = reported[*index].max(*most);
            }
            let mut most: Vec<(Figures, usize)> =
                by_place.into_iter().map(|(place, most)| (most, place)).collect();
            most.sort_unstable_by(|left, right| right.cmp(left));
            for index in together {
                let elsewhere = most.iter().find(|(_, place)| *place != outermost[index]);
                reported[index] = elsewhere.map_or(reported[index], |(most, _)| reported[index].max(*most));
            }
        }
        reported
    }

    /// Marks the spans inside a call that reports more than all of them, from the top down.
    pub(super) fn find_absorbed_calls(&mut self) {
        // A call that is only partly loaded may contain further calls, so none of them is the only one.
        self.inner_counts = self.nodes.iter().map(|node| if node.is_overfull { 2 } else { 0 }).collect();
        let mut outermost: Vec<usize> = (0..self.nodes.len()).collect();
        for index in self.order.clone() {
            let node = &self.nodes[index];
            if let Some(wrapper) = node.wrapper {
                let above = &self.nodes[wrapper];
                if !above.yields || above.is_absorbed {
                    let (owner, cost) = (outermost[wrapper], node.facts.reported_cost_nanos);
                    let is_leaf = !node.yields;
                    outermost[index] = owner;
                    self.nodes[index].is_absorbed = true;
                    if let Some(cost) = cost.filter(|cost| is_leaf && *cost > 0) {
                        self.nodes[owner].lend_cost(cost);
                    }
                } else {
                    self.inner_counts[wrapper] += 1;
                }
            }
        }
    }

    /// Finds the spans with an owner of tokens below or around them: the sums that they report don't count.
    pub(super) fn find_counted_sums(&mut self) {
        let owns: Vec<bool> = self.nodes.iter().map(|node| self.is_counted_call(node)).collect();
        for index in self.order.iter().rev().copied() {
            let is_owner = self.is_owner(&self.nodes[index]);
            let node = &mut self.nodes[index];
            node.owners_below += node.hidden.owners_below;
            let (parent, owners) = (node.parent, node.owners_below + i64::from(is_owner));
            if let Some(parent) = parent {
                self.nodes[parent].owners_below += owners;
            }
        }
        for index in self.order.iter().copied() {
            let Some(parent) = self.nodes[index].parent else { continue };
            let above = &self.nodes[parent];
            self.nodes[index].is_inside_owner = match above.kind {
                SpanKind::Tool | SpanKind::Agent => false,
                _ => owns[parent] || above.is_inside_owner,
            };
        }
    }

    /// Whether it owns or reports figures, so that a sum above it does not count.
    pub(super) fn is_owner(&self, node: &Node<'_>) -> bool {
        self.is_counted_call(node) || node.names_figures()
    }

    /// Whether it is a call whose figures are counted, on this span or on the one that owns its answer.
    fn is_counted_call(&self, node: &Node<'_>) -> bool {
        node.is_call() && self.nodes[node.figures].names_figures()
    }

    /// The wrapper of a span, if the span is the only call inside it.
    pub(super) fn sole_wrapper(&self, index: usize) -> Option<usize> {
        let node = &self.nodes[index];
        node.wrapper.filter(|wrapper| node.is_absorbed || self.inner_counts[*wrapper] == 1)
    }

    /// The span and the wrappers that contain only this call, from the inside out.
    pub(super) fn with_wrappers(&self, index: usize) -> impl Iterator<Item = &Node<'a>> {
        std::iter::successors(Some(index), |at| self.sole_wrapper(*at)).map(|at| &self.nodes[at])
    }

    /// Merges calls that name the same answer.
    pub(super) fn join_same_answers(&mut self) {
        let mut joins: Vec<(usize, usize, usize)> = Vec::new();
        let answer = |index: usize| {
            let known = self.nodes[index].is_call().then(|| self.with_wrappers(index));
            known.into_iter().flatten().find_map(|node| node.facts.response_id.as_deref())
        };
        for together in self.same_answers(answer) {
            let anchor = together.iter().copied().min_by_key(|index| {
                let (facts, claim) = (&self.nodes[*index].facts, &self.claims[self.nodes[*index].trace]);
                let knows_no_parent = facts.parent_span_id.is_none();
                (claim.is_none(), facts.session.is_none(), knows_no_parent, self.age(*index))
            });
            // Calls are sorted by start. Of those that report equally much, `max_by_key` returns the last.
            let figures = together.iter().copied().max_by_key(|index| self.nodes[*index].figures_named());
            let (Some(anchor), Some(figures)) = (anchor, figures) else { continue };
            joins.extend(together.iter().map(|index| (*index, anchor, figures)));
        }
        for (index, anchor, figures) in joins {
            (self.nodes[index].anchor, self.nodes[index].figures) = (anchor, figures);
            let cost = self.nodes[index].facts.reported_cost_nanos.filter(|cost| *cost > 0);
            if let Some(cost) = cost.filter(|_| index != anchor && index != figures) {
                self.nodes[anchor].lent_cost_nanos.get_or_insert(cost);
            }
            let (own, other) = (self.nodes[index].trace, self.nodes[anchor].trace);
            if own != other {
                self.follow(own, other, index);
            }
        }
    }

    /// Sets the trace whose calls this trace duplicates, if it is better than the current one.
    fn follow(&mut self, own: usize, other: usize, index: usize) {
        let (is_claimless, trace_id) = (self.claims[other].is_none(), self.trace_ids[other]);
        let is_as_good = |known: &Follow| known.key() <= (is_claimless, trace_id);
        if !self.follows[own].as_ref().is_some_and(is_as_good) {
            let span_id = self.nodes[index].facts.span_id.clone();
            self.follows[own] = Some(Follow { is_claimless, trace_id: trace_id.to_owned(), span_id });
        }
    }

    /// Groups of calls that name the same answer of the same provider within a short time, oldest first. If every span that
    /// names a provider names the same one, spans without a provider are assumed to belong to it. Ids that many spans name are
    /// skipped.
    fn same_answers<'s>(&'s self, answer: impl Fn(usize) -> Option<&'s str>) -> Vec<Vec<usize>> {
        let mut answers: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
        for (index, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.kind.calls_a_model()) {
            if let Some(answer) = answer(index) {
                answers.entry(answer).or_default().push(index);
            }
        }
        let named = self.named_answers();
        answers.retain(|answer, _| named.get(answer).is_none_or(|count| *count <= MAX_SAME_ANSWER));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (answer, calls) in answers.into_iter().filter(|(_, calls)| calls.len() > 1) {
            let reach_us = |first: &Arrival| match answer.len() {
                ..UNIQUE_ID_BYTES => first.end_us,
                _ => first.start_us.saturating_add(SAME_ANSWER_US),
            };
            let mut providers: FxHashMap<Option<&str>, Vec<usize>> = FxHashMap::default();
            for index in &calls {
                providers.entry(self.nodes[*index].facts.provider.as_deref()).or_default().push(*index);
            }
            let is_one = providers.keys().flatten().count() <= 1;
            let apart = if is_one { vec![calls] } else { providers.into_values().collect() };
            groups.extend(apart.into_iter().flat_map(|calls| self.within_reach(calls, reach_us)));
        }
        groups
    }

    /// How many spans name each answer.
    fn named_answers(&self) -> FxHashMap<&str, usize> {
        let mut named: FxHashMap<&str, usize> = FxHashMap::default();
        for answer in self.nodes.iter().filter_map(|node| node.facts.response_id.as_deref()) {
            *named.entry(answer).or_default() += 1;
        }
        for answer in self.common_answers {
            named.insert(answer, usize::MAX);
        }
        named
    }

    /// Splits calls into groups by time: each group starts with a call and holds those within reach of it. Groups of one are
    /// dropped.
    fn within_reach(&self, mut calls: Vec<usize>, reach_us: impl Fn(&Arrival) -> i64) -> Vec<Vec<usize>> {
        calls.sort_by_key(|index| self.age(*index));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for index in calls {
            let start_us = self.nodes[index].facts.start_us;
            let is_near = |group: &&mut Vec<usize>| {
                group.first().is_some_and(|first| start_us <= reach_us(&self.nodes[*first].facts))
            };
            match groups.last_mut().filter(is_near) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups.retain(|group| group.len() > 1);
        groups
    }
}

/// Whether nested spans describe one call: they have the same kind, overlap in time, and don't name different providers.
fn is_one_call(outer: &Node<'_>, inner: &Node<'_>) -> bool {
    let same_provider = match (&outer.facts.provider, &inner.facts.provider) {
        (Some(outer), Some(inner)) => outer == inner,
        _ => true,
    };
    inner.kind == outer.kind
        && same_provider
        && inner.facts.start_us <= outer.facts.end_us
        && outer.facts.start_us <= inner.facts.end_us
}
