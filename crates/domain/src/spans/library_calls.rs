//! Calls that have two spans with the same parent: one that the model provider's own library made, and one that an
//! instrumentation made around it. If both name the same answer, they are merged by its id ([`super::calls`]). Here are the others:
//! calls that failed, and libraries that name no answer.
//!
//! Two true calls side by side are never merged: one of the two spans must be of a library and the other not, and each span is
//! merged with one other at most.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use super::ArrivalSource;
use super::structure::{Node, Structure};

/// The children of one span that are loaded to compare them. A span with more keeps the result of those that are not loaded.
pub(super) const MAX_SIBLINGS: i64 = 256;

/// Calls that run at the same time below one span and are compared.
const MAX_CONCURRENT: usize = 128;

/// The calls below one span that may be merged, oldest first.
#[derive(Default)]
struct Siblings {
    of_library: Vec<usize>,
    around: Vec<usize>,
}

impl Node<'_> {
    /// Whether it is a call's span of the provider's own library.
    pub(super) fn is_library_call(&self) -> bool {
        self.facts.is_of_library && self.kind.calls_a_model()
    }
}

impl Structure<'_> {
    /// Merges the spans of libraries with those of the same calls around them.
    pub(super) fn join_library_calls(&mut self) {
        let mut below: FxHashMap<usize, Siblings> = FxHashMap::default();
        for node in self.nodes.iter().filter(|node| node.is_library_call()) {
            if let Some(parent) = node.parent {
                below.entry(parent).or_default();
            }
        }
        if below.is_empty() {
            return;
        }
        let merged = self.merged();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(siblings) = node.parent.and_then(|parent| below.get_mut(&parent)) else { continue };
            if node.is_call() && node.wrapper.is_none() && !merged.contains(&index) {
                let list =
                    if node.is_library_call() { &mut siblings.of_library } else { &mut siblings.around };
                list.push(index);
            }
        }
        let mut joins: Vec<(usize, usize)> = Vec::new();
        for (parent, mut siblings) in below {
            siblings.of_library.sort_by_key(|index| self.age(*index));
            siblings.around.sort_by_key(|index| self.age(*index));
            self.match_siblings(parent, &siblings, &mut joins);
        }
        for (inner, outer) in joins {
            (self.nodes[inner].anchor, self.nodes[inner].figures) = (outer, outer);
        }
    }

    /// Matches each library's span with the one that ends first of those that contain it, so that most spans find another.
    fn match_siblings(&self, parent: usize, siblings: &Siblings, joins: &mut Vec<(usize, usize)>) {
        let knows_all = self.nodes[parent].hidden.children <= 0;
        let mut taken: FxHashSet<usize> = FxHashSet::default();
        for inner in siblings.of_library.iter().copied() {
            let start_us = self.nodes[inner].facts.start_us;
            let started =
                siblings.around.partition_point(|outer| self.nodes[*outer].facts.start_us <= start_us);
            let near = siblings.around[..started].iter().rev().take(MAX_CONCURRENT).copied();
            let same = near.filter(|outer| {
                !taken.contains(outer)
                    && is_same_call(&self.nodes[*outer], &self.nodes[inner])
                    && (knows_all || self.was_part_of(inner, *outer))
            });
            let tightest =
                same.min_by_key(|outer| (self.nodes[*outer].facts.end_us, Reverse(self.age(*outer))));
            if let Some(outer) = tightest {
                taken.insert(outer);
                joins.push((inner, outer));
            }
        }
    }

    fn was_part_of(&self, inner: usize, outer: usize) -> bool {
        self.nodes[inner].before.part_of.as_ref().is_some_and(|whole| *whole == self.address(outer))
    }

    /// Spans that are merged with another one because they name the same answer.
    fn merged(&self) -> FxHashSet<usize> {
        let is_merged = |(index, node): &(usize, &Node<'_>)| node.anchor != *index || node.figures != *index;
        let merged = self.nodes.iter().enumerate().filter(is_merged);
        merged.flat_map(|(index, node)| [index, node.anchor, node.figures]).collect()
    }

    /// Spans of which a child is a call that is loaded, and a child, loaded or not, is a library's call. How these are merged depends
    /// on all of their children.
    pub(super) fn parents_of_library_calls(&self) -> FxHashSet<usize> {
        let calls = self.nodes.iter().filter(|node| node.kind.calls_a_model());
        let of = |node: &Node<'_>| {
            let parent = node.parent?;
            (node.is_library_call() || self.nodes[parent].hidden.library_calls > 0).then_some(parent)
        };
        calls.filter_map(of).collect()
    }
}

/// Whether a library's span is the same call as a sibling: same kind, provider and model, inside its time, and both failed or both
/// have the same tokens.
fn is_same_call(outer: &Node<'_>, inner: &Node<'_>) -> bool {
    let (around, within) = (&outer.facts, &inner.facts);
    let are_spans = around.source == ArrivalSource::Span && within.source == ArrivalSource::Span;
    let is_same = |left: &Option<String>, right: &Option<String>| left.is_some() && left == right;
    let tokens = |node: &Node<'_>| {
        let usage = node.facts.usage.filter(|usage| !usage.is_zero());
        usage.map(|usage| (usage.input, usage.output))
    };
    let has_same_end = match (tokens(outer), tokens(inner)) {
        (Some(outer), Some(inner)) => outer == inner && !around.is_error && !within.is_error,
        (None, None) => around.is_error && within.is_error,
        _ => false,
    };
    are_spans
        && outer.kind == inner.kind
        && is_same(&around.provider, &within.provider)
        && is_same(&around.model, &within.model)
        && within.response_id.is_none()
        && within.reported_cost_nanos.is_none()
        && around.start_us <= within.start_us
        && within.end_us <= around.end_us
        && has_same_end
}
