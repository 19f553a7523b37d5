//! The stored summary of a resolved trace, so that spans can be added to it without loading most of it.
//!
//! [`Links`] is the connection of one span to its trace; [`Kept`] summarises all spans of a trace. Both are stored with the
//! outcome. Subtracting the old contribution of the loaded spans from them gives the contribution of all others. Example: a trace
//! has 900 orphans, and two of its three loaded spans were orphans. So 898 of the spans that are not loaded are orphans.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::structure::{Node, Structure};
use super::{ArrivalSource, Subtree, TraceShown};
use crate::events::UNKNOWN_AGENT;

/// A change is wide if more stored spans of one trace than this must be resolved again.
pub const WIDE_CHANGE_SPANS: i64 = 4_096;

/// After this many wide changes a trace keeps its session, its user and its fallback agent, whatever arrives for it.
pub const MAX_WIDE_CHANGES: u32 = 32;

/// Agents whose display names are kept for a trace. A trace with more agents is loaded as a whole when its agent changes.
const MAX_AGENT_NAMES: usize = if cfg!(test) { 2 } else { 16 };

/// The model call that contains a span.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Inside {
    /// The span is not inside a call.
    #[default]
    Nothing,
    /// The span is a call itself.
    Itself,
    /// The span is inside the call with this span id.
    Call(String),
}

/// How a span was connected to its trace when it was last resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Its parent; absent for roots and while the parent has not arrived.
    pub(super) parent: Option<String>,
    /// Whether it names a parent but has none in the tree.
    pub(super) is_orphan: bool,
    /// The number of its children.
    pub(super) children: i64,
    /// Whether it owns or reports figures.
    pub(super) is_owner: bool,
    /// The number of its descendants that own or report figures.
    pub(super) owners_below: i64,
    /// Whether it or one of its ancestors names its agent.
    pub(super) agent_is_named: bool,
    /// The call that contains its children.
    pub(super) inside: Inside,
    /// Whether it is a call whose figures are owned by a call inside it.
    pub(super) yields: bool,
    /// Whether it is a call's span of the provider's own library.
    pub(super) is_library_call: bool,
    /// The number of its children that are.
    pub(super) library_calls: i64,
}

/// A value that several spans may have, and the span that it is taken from: the first by rank, then by start and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct First<V> {
    pub(super) rank: u8,
    pub(super) start_us: i64,
    pub(super) span_id: String,
    pub(super) value: V,
}

impl<V> First<V> {
    fn key(&self) -> (u8, i64, &str) {
        (self.rank, self.start_us, &self.span_id)
    }
}

/// The facts that a trace takes from its earliest root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    agent_id: String,
    environment: String,
    /// Its end and whether it failed; absent while only a log record of it has arrived.
    end: Option<End>,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    end_us: i64,
    is_error: bool,
}

/// A link from a trace to another trace whose calls it duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Follow {
    /// Whether the other trace names no session.
    pub(super) is_claimless: bool,
    pub(super) trace_id: String,
    /// The span of this trace that duplicates a call of the other.
    pub(super) span_id: String,
}

impl Follow {
    pub(super) fn key(&self) -> (bool, &str) {
        (self.is_claimless, &self.trace_id)
    }
}

/// The stored summary of a trace's spans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    spans: i64,
    /// The number of spans that name a parent but have none in the tree.
    pub(super) orphans: i64,
    /// The number of spans whose agent is named neither by them nor by an ancestor.
    pub(super) unnamed: i64,
    /// The best name of a session.
    pub(super) claim: Option<First<String>>,
    /// The earliest span that names an agent.
    pub(super) agent: Option<First<String>>,
    user: Option<First<String>>,
    root: Option<First<Root>>,
    /// The earliest span that names no parent.
    top: Option<First<End>>,
    /// The span that started last.
    latest: Option<First<()>>,
    /// For each agent the earliest span with a display name for it, for up to [`MAX_AGENT_NAMES`] agents.
    pub(super) agent_names: BTreeMap<String, First<String>>,
    /// Whether there are more agents with names.
    pub(super) lacks_agent_names: bool,
    pub(super) follow: Option<Follow>,
    wide_changes: u32,
}

impl Kept {
    /// Whether it had so many wide changes that its session, user and fallback agent no longer change.
    pub(super) fn is_frozen(&self) -> bool {
        self.wide_changes >= MAX_WIDE_CHANGES
    }

    /// Whether this many spans are all of the trace.
    pub(super) fn is_of(&self, spans: usize) -> bool {
        self.spans <= i64::try_from(spans).unwrap_or(i64::MAX)
    }

    pub(super) fn count_wide_change(&mut self) {
        self.wide_changes = self.wide_changes.saturating_add(1);
    }
}

/// The outcome for a trace.
pub(super) struct Gathered {
    pub(super) shown: TraceShown,
    pub(super) kept: Kept,
    /// Whether the outcome depends on spans that are not loaded.
    pub(super) is_incomplete: bool,
}

/// The contribution of spans that are not loaded to a loaded one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hidden {
    pub(super) children: i64,
    pub(super) library_calls: i64,
    pub(super) owners_below: i64,
    pub(super) shown_children: i64,
    pub(super) subtree: Subtree,
}

impl<'a> Structure<'a> {
    /// Computes what descendants that are not loaded contribute to each loaded span.
    pub(super) fn find_hidden(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(links) = node.links.filter(|_| self.traces[node.trace].is_partial) else { continue };
            let mut subtree = node.before.subtree;
            subtree.subtract(Subtree::of(&node.before.counted, node.before.part_of.is_some()));
            self.nodes[index].hidden = Hidden {
                children: links.children,
                library_calls: links.library_calls,
                owners_below: links.owners_below,
                shown_children: node.before.children,
                subtree,
            };
        }
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (Some(links), before) = (node.links, node.before) else { continue };
            let place = |trace: usize, id: &'a str| self.places.get(&(trace, id)).copied();
            let parent = links.parent.as_deref().and_then(|id| place(node.trace, id));
            let sums_into = match &before.part_of {
                Some((trace, id)) => {
                    self.trace_places.get(trace.as_str()).and_then(|trace| place(*trace, id))
                }
                None => before.parent_span_id.as_deref().and_then(|id| place(node.trace, id)),
            };
            if let Some(parent) = parent.filter(|parent| self.is_partial(*parent)) {
                let hidden = &mut self.nodes[parent].hidden;
                hidden.children -= 1;
                hidden.library_calls -= i64::from(links.is_library_call);
                hidden.owners_below -= links.owners_below + i64::from(links.is_owner);
            }
            if let Some(above) = sums_into.filter(|above| self.is_partial(*above)) {
                let hidden = &mut self.nodes[above].hidden;
                hidden.subtree.subtract(before.subtree);
                hidden.shown_children -= i64::from(before.part_of.is_none());
            }
        }
    }

    fn is_partial(&self, index: usize) -> bool {
        self.traces[self.nodes[index].trace].is_partial
    }

    /// The current links of each span.
    pub(super) fn links(&self) -> Vec<Links> {
        let mut below: Vec<(i64, i64)> =
            self.nodes.iter().map(|node| (node.hidden.children, node.hidden.library_calls)).collect();
        for node in &self.nodes {
            let Some(parent) = node.parent else { continue };
            let (children, library_calls) = &mut below[parent];
            *children += 1;
            *library_calls += i64::from(node.is_library_call());
        }
        let below = self.nodes.iter().zip(below).enumerate();
        let links = below.map(|(index, (node, (children, library_calls)))| Links {
            parent: if node.has_parent() { node.facts.parent_span_id.clone() } else { None },
            is_orphan: node.is_orphan(),
            children,
            is_owner: self.is_owner(node),
            owners_below: node.owners_below,
            agent_is_named: node.agent_is_named,
            yields: node.yields,
            is_library_call: node.is_library_call(),
            library_calls,
            inside: match node.call {
                None => Inside::Nothing,
                Some(call) if call == index => Inside::Itself,
                Some(call) => Inside::Call(self.nodes[call].facts.span_id.clone()),
            },
        });
        links.collect()
    }

    /// The first value of a trace, including spans that are not loaded. `loaded` is the first one among loaded spans,
    /// `kept` selects the stored one.
    fn first<V: Clone + 'a>(
        &mut self,
        trace: usize,
        loaded: Option<First<V>>,
        kept: impl FnOnce(&'a Kept) -> &'a Option<First<V>>,
    ) -> Option<First<V>> {
        let stored = &self.traces[trace];
        let known = kept(&stored.kept).as_ref().filter(|_| stored.is_partial);
        let Some(known) = known else { return loaded };
        let is_loaded = self.places.contains_key(&(trace, known.span_id.as_str()));
        let first = loaded.filter(|loaded| loaded.key() <= known.key());
        match first {
            None if is_loaded => {
                // It lost the value or moved to a later time, so the first span may now be one that is not loaded.
                self.incomplete[trace] = true;
                Some(known.clone())
            }
            None => Some(known.clone()),
            first => first,
        }
    }

    fn earliest<V>(
        &self,
        members: impl Iterator<Item = usize>,
        value: impl FnOnce(&Node<'a>) -> V,
    ) -> Option<First<V>> {
        let index = members.min_by_key(|index| self.age(*index))?;
        Some(self.first_is(index, 0, value(&self.nodes[index])))
    }

    fn first_is<V>(&self, index: usize, rank: u8, value: V) -> First<V> {
        let facts = &self.nodes[index].facts;
        First { rank, start_us: facts.start_us, span_id: facts.span_id.clone(), value }
    }

    /// The best name of a session in each trace, by rank, then by time.
    pub(super) fn find_claims(&mut self) {
        for trace in 0..self.traces.len() {
            if self.traces[trace].is_frozen() {
                self.claims[trace].clone_from(&self.traces[trace].kept.claim);
                continue;
            }
            let rank = |index: &usize| self.nodes[*index].facts.session.as_ref().map(|claim| claim.rank);
            let named = self.members[trace].iter().copied().filter(|index| rank(index).is_some());
            let best = named.min_by_key(|index| (rank(index), self.age(*index)));
            let best = best.and_then(|index| {
                let claim = self.nodes[index].facts.session.as_ref()?;
                Some(self.first_is(index, claim.rank, claim.id.clone()))
            });
            self.claims[trace] = self.first(trace, best, |kept| &kept.claim);
        }
    }

    /// The earliest span in each trace that names an agent.
    pub(super) fn find_first_agents(&mut self) {
        for trace in 0..self.traces.len() {
            if self.traces[trace].is_frozen() {
                self.first_agents[trace].clone_from(&self.traces[trace].kept.agent);
                continue;
            }
            let named = self.members[trace].iter().copied();
            let named = named.filter(|index| self.nodes[*index].facts.agent_id.is_some());
            let first = self.earliest(named, |node| node.facts.agent_id.clone().unwrap_or_default());
            self.first_agents[trace] = self.first(trace, first, |kept| &kept.agent);
        }
    }

    /// Chooses between the trace that loaded spans duplicate and the stored one.
    pub(super) fn keep_follows(&mut self) {
        for trace in 0..self.traces.len() {
            let stored = &self.traces[trace];
            let Some(known) = stored.kept.follow.as_ref().filter(|_| stored.is_partial) else { continue };
            if stored.is_frozen() {
                self.follows[trace] = Some(known.clone());
                continue;
            }
            if self.places.contains_key(&(trace, known.span_id.as_str())) {
                let is_as_good = |follow: &Follow| follow.key() <= known.key();
                self.incomplete[trace] |= !self.follows[trace].as_ref().is_some_and(is_as_good);
                continue;
            }
            let mut known = known.clone();
            if let Some(other) = self.trace_places.get(known.trace_id.as_str()) {
                known.is_claimless = self.claims[*other].is_none();
            }
            let is_better = |follow: &Follow| follow.key() < known.key();
            if !self.follows[trace].as_ref().is_some_and(is_better) {
                self.follows[trace] = Some(known);
            }
        }
    }

    /// The shown and kept values of each trace as a whole.
    pub(super) fn gather(&mut self) -> Vec<Gathered> {
        let leaders = self.leaders();
        (0..self.traces.len()).map(|trace| self.gather_trace(trace, leaders[trace])).collect()
    }

    fn gather_trace(&mut self, trace: usize, leader: usize) -> Gathered {
        let (root, top, latest) = (self.root(trace), self.top(trace), self.latest(trace));
        let user = self.user(trace);
        let agent_id = root.as_ref().map_or(UNKNOWN_AGENT, |root| root.value.agent_id.as_str()).to_owned();
        let (agent_names, lacks_agent_names) = self.agent_names(trace, &agent_id);
        let stored = &self.traces[trace];
        let known = Some(&stored.shown).filter(|_| stored.is_partial);
        let members = self.members[trace].iter().map(|index| &self.nodes[*index]);
        let start_us = members.clone().map(|node| node.first_us).chain(known.map(|shown| shown.start_us));
        let end_us = members.map(|node| node.last_us).chain(known.map(|shown| shown.end_us));
        let (start_us, end_us) = (start_us.min().unwrap_or(0), end_us.max().unwrap_or(0));
        // The parent of a root may never be exported. Such a root ends the trace unless a span starts after it.
        let last_start_us = latest.as_ref().map_or(i64::MIN, |latest| latest.start_us.saturating_neg());
        let orphan = root.as_ref().and_then(|root| root.value.end).filter(|end| last_start_us <= end.end_us);
        let end = top.as_ref().map(|top| top.value).or(orphan);
        let session_id = match known.filter(|_| stored.is_frozen()) {
            Some(known) => known.session_id.clone(),
            None => self.session(leader).to_owned(),
        };
        let agent_name = agent_names.get(&agent_id).map(|name| name.value.clone());
        let shown = TraceShown {
            session_id,
            agent_id,
            agent_name,
            user_id: user.as_ref().map(|user| user.value.clone()),
            environment: root.as_ref().map_or_else(String::new, |root| root.value.environment.clone()),
            start_us,
            end_us,
            ended_us: end.map(|end| end.end_us),
            ended_in_error: end.is_some_and(|end| end.is_error),
        };
        let (claim, agent) = (self.claims[trace].clone(), self.first_agents[trace].clone());
        let kept = Kept {
            claim,
            agent,
            user,
            root,
            top,
            latest,
            agent_names,
            lacks_agent_names,
            follow: self.follows[trace].clone(),
            wide_changes: stored.kept.wide_changes,
            ..self.counts(trace)
        };
        Gathered { shown, kept, is_incomplete: self.incomplete[trace] && !stored.is_frozen() }
    }

    fn counts(&self, trace: usize) -> Kept {
        let stored = &self.traces[trace];
        let mut counts = if stored.is_partial {
            Kept {
                spans: stored.kept.spans,
                orphans: stored.kept.orphans,
                unnamed: stored.kept.unnamed,
                ..Kept::default()
            }
        } else {
            Kept::default()
        };
        for node in self.members[trace].iter().map(|index| &self.nodes[*index]) {
            counts.spans += 1;
            counts.orphans += i64::from(node.is_orphan());
            counts.unnamed += i64::from(!node.agent_is_named);
            if let Some(links) = node.links.filter(|_| stored.is_partial) {
                counts.spans -= 1;
                counts.orphans -= i64::from(links.is_orphan);
                counts.unnamed -= i64::from(!links.agent_is_named);
            }
        }
        counts
    }

    /// The number of spans of a trace that are not loaded and whose agent is named neither by them nor by an ancestor.
    pub(super) fn hidden_unnamed(&self, trace: usize) -> i64 {
        let links = self.members[trace].iter().filter_map(|index| self.nodes[*index].links);
        let loaded = links.filter(|links| !links.agent_is_named).count();
        self.traces[trace].kept.unnamed - i64::try_from(loaded).unwrap_or(i64::MAX)
    }

    fn root(&mut self, trace: usize) -> Option<First<Root>> {
        let roots = self.members[trace].iter().copied().filter(|index| !self.nodes[*index].has_parent());
        let root = self.earliest(roots, |node| Root {
            agent_id: node.agent_id.clone(),
            environment: node.environment.to_owned(),
            end: node.end(),
        });
        self.first(trace, root, |kept| &kept.root)
    }

    fn top(&mut self, trace: usize) -> Option<First<End>> {
        let tops = self.members[trace].iter().copied().filter(|index| {
            let node = &self.nodes[*index];
            node.facts.parent_span_id.is_none() && node.end().is_some()
        });
        let end = |node: &Node<'_>| node.end().unwrap_or(End { end_us: 0, is_error: false });
        let top = self.earliest(tops, end);
        self.first(trace, top, |kept| &kept.top)
    }

    /// The span that started last. Its start is negated, so that it is the first one by [`First::key`].
    fn latest(&mut self, trace: usize) -> Option<First<()>> {
        let spans = self.members[trace].iter().map(|index| &self.nodes[*index]);
        let spans = spans.filter(|node| node.end().is_some());
        let by_age = |left: &&Node<'a>, right: &&Node<'a>| {
            let key = |node: &Node<'a>| Reverse(node.facts.start_us);
            (key(left), &left.facts.span_id).cmp(&(key(right), &right.facts.span_id))
        };
        let latest = spans.min_by(by_age).map(|node| First {
            rank: 0,
            start_us: node.facts.start_us.saturating_neg(),
            span_id: node.facts.span_id.clone(),
            value: (),
        });
        self.first(trace, latest, |kept| &kept.latest)
    }

    fn user(&mut self, trace: usize) -> Option<First<String>> {
        if self.traces[trace].is_frozen() {
            return self.traces[trace].kept.user.clone();
        }
        let users = self.members[trace].iter().copied();
        let users = users.filter(|index| self.nodes[*index].facts.user_id.is_some());
        let user = self.earliest(users, |node| node.facts.user_id.clone().unwrap_or_default());
        self.first(trace, user, |kept| &kept.user)
    }

    /// The earliest name of each agent, and whether there are more agents. The agent of the trace is always included.
    fn agent_names(&mut self, trace: usize, agent_id: &str) -> (BTreeMap<String, First<String>>, bool) {
        let mut loaded: BTreeMap<&str, usize> = BTreeMap::new();
        for index in self.members[trace].iter().copied() {
            let node = &self.nodes[index];
            if node.facts.agent_name.is_some() {
                let first = loaded.entry(&node.agent_id).or_insert(index);
                if self.age(index) < self.age(*first) {
                    *first = index;
                }
            }
        }
        let name = |index: usize| {
            let name = self.nodes[index].facts.agent_name.clone().unwrap_or_default();
            (self.nodes[index].agent_id.clone(), self.first_is(index, 0, name))
        };
        let mut names: BTreeMap<String, First<String>> = loaded.into_values().map(name).collect();
        let (stored, mut lacks_some) = (&self.traces[trace], false);
        if stored.is_partial {
            lacks_some = stored.kept.lacks_agent_names;
            if lacks_some {
                // An agent that is not kept may have an earlier name in a span that is not loaded.
                names.retain(|agent, _| stored.kept.agent_names.contains_key(agent));
            }
            for (agent, known) in &stored.kept.agent_names {
                let is_loaded = self.places.contains_key(&(trace, known.span_id.as_str()));
                if names.get(agent).is_some_and(|name| name.key() <= known.key()) {
                    continue;
                }
                if is_loaded {
                    names.remove(agent);
                    lacks_some = true;
                } else {
                    names.insert(agent.clone(), known.clone());
                }
            }
            self.incomplete[trace] |= lacks_some && !names.contains_key(agent_id);
        }
        while names.len() > MAX_AGENT_NAMES {
            let last = names.keys().rev().find(|agent| *agent != agent_id).cloned();
            names.remove(&last.unwrap_or_default());
            lacks_some = true;
        }
        (names, lacks_some)
    }
}

impl Node<'_> {
    /// Whether it has a parent in the tree.
    pub(super) fn has_parent(&self) -> bool {
        self.parent.is_some() || self.is_cut_off
    }

    fn is_orphan(&self) -> bool {
        self.facts.parent_span_id.is_some() && !self.has_parent()
    }

    /// The outcome of the span itself; absent while only log records of it have arrived.
    fn end(&self) -> Option<End> {
        let end = End { end_us: self.facts.end_us, is_error: self.facts.is_error };
        (self.facts.source == ArrivalSource::Span).then_some(end)
    }
}

/// Spans whose parent is stored but not loaded, because it is too many levels up.
pub(super) type CutOff = FxHashSet<String>;
