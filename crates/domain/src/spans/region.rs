//! The part of a workspace's spans that an arrival can change.
//!
//! A [`Region`] grows until it holds every span whose outcome an arrival may change:
//! - the ancestors of a span that arrived, because their sums change;
//! - the whole model call that contains it, because its spans decide together which of them owns the tokens;
//! - spans that name the same answer, with their calls and ancestors;
//! - the children of a span that gives them another agent or another call, or that arrived after them;
//! - the siblings of a call, if a provider's own library made some of them: two may describe the same call;
//! - a whole trace, only if its session, its user or its fallback agent changes, or if the first span that named one no longer
//!   does.
//!
//! It does no I/O. The caller loads what it [`Region::needs`] until it needs nothing more.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::MAX_SAME_ANSWER;
use super::forest::{Forest, Resolved, Shown, Trace, TraceShown};
use super::library_calls::MAX_SIBLINGS;
use super::links::{Gathered, Inside, Kept, Links, WIDE_CHANGE_SPANS};
use super::structure::{Node, Structure};
use super::{Arrival, Span, StoredArrival, StoredSpan};
use crate::cost::PriceTable;

/// Levels above an arriving span whose sums are updated. Sums further up are not.
pub const MAX_LEVELS: u32 = 1_000;

/// Steps from answer to answer: calls that duplicate calls that duplicate calls.
pub const MAX_HOPS: u8 = 16;

/// Spans inside one model call that are loaded. In a larger call only the arriving spans are resolved.
pub const MAX_CALL_SPANS: i64 = 4_096;

/// Spans of all calls together that are loaded, and as many more for each arriving span.
const CALL_SPANS_PER_ARRIVAL: i64 = 64;

/// Traces that are searched for a cycle of traces that duplicate each other.
pub const MAX_FOLLOWED_TRACES: usize = 64;

/// The data that a region needs from the store. Numbers are those of stored traces.
#[derive(Debug, Default)]
pub struct Needs {
    /// Traces by id, without their spans; each is answered by [`Region::take_trace`].
    pub traces: Vec<String>,
    /// Spans by trace and id.
    pub spans: Vec<(i64, String)>,
    /// All spans that are shown below one of these, or that name it as their parent.
    pub children: Vec<(i64, String)>,
    /// Traces of which all spans are needed.
    pub wholes: Vec<i64>,
    /// Answers. The spans that name an answer are passed to [`Region::take_answer`], up to one more than
    /// [`MAX_SAME_ANSWER`] of them.
    pub answers: Vec<String>,
}

impl Needs {
    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
            && self.spans.is_empty()
            && self.children.is_empty()
            && self.wholes.is_empty()
            && self.answers.is_empty()
    }
}

/// A span to write.
#[derive(Debug)]
pub struct ChangedSpan {
    /// Its trace, as an index of the changed traces.
    pub trace: usize,
    /// The current span.
    pub span: Span,
    /// Its previous shown and counted values; absent for a new span.
    pub before: Option<Shown>,
    /// Whether its row was as it was written; true for a new span.
    pub is_authentic: bool,
}

/// A trace to write.
#[derive(Debug)]
pub struct ChangedTrace {
    /// Its id.
    pub trace_id: String,
    /// Its number; absent for a new one.
    pub number: Option<i64>,
    /// Its shown values.
    pub shown: TraceShown,
    /// The stored summary of its spans.
    pub kept: Kept,
    /// Its previous shown values.
    pub before: Option<TraceShown>,
    /// Sessions that its arriving spans name although the trace is shown in another one.
    pub also_named: BTreeSet<String>,
}

/// The changes of a region.
#[derive(Debug, Default)]
pub struct Changes {
    /// Every trace that changes or that has a span that changes.
    pub traces: Vec<ChangedTrace>,
    /// The spans.
    pub spans: Vec<ChangedSpan>,
    /// The index in `spans` of each span that has an arrival, by its place in the region.
    pub arrived: FxHashMap<SpanPlace, usize>,
}

/// The place of a span in a region: the index of its trace, and its index in that trace.
pub type SpanPlace = (usize, usize);

/// The distance of a span from an arrival: the number of steps from answer to answer, then the number of levels up the tree.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    hops: u8,
    levels: u32,
}

#[derive(Debug, Default)]
struct LoadedTrace {
    number: Option<i64>,
    before: Option<(TraceShown, Kept)>,
    hops: u8,
    spans: Vec<LoadedSpan>,
    places: FxHashMap<String, usize>,
    asked: FxHashMap<String, Reach>,
}

#[derive(Debug, Default)]
struct LoadedSpan {
    reach: Reach,
    is_touched: bool,
    /// Whether its children were requested.
    is_expanded: bool,
    /// The answer that it named previously.
    response_id: Option<String>,
    /// Whether the stored row was changed by hand.
    was_altered: bool,
}

/// The part of a workspace's spans that arrivals can change. See the module.
#[derive(Debug, Default)]
pub struct Region {
    forest: Forest,
    loaded: Vec<LoadedTrace>,
    trace_places: FxHashMap<String, usize>,
    numbers: FxHashMap<i64, usize>,
    /// Spans that still have to be examined.
    queue: Vec<SpanPlace>,
    asked_traces: FxHashMap<String, u8>,
    asked_answers: FxHashMap<String, u8>,
    /// Spans to request as soon as their traces are known.
    waiting: Vec<(String, String, Reach)>,
    needs: Needs,
    touched_spans: usize,
    call_spans: i64,
    followed_traces: usize,
    before: Option<Vec<(Shown, Option<Links>)>>,
}

/// The data that the structure of a region still needs.
#[derive(Default)]
struct Lacks {
    children: Vec<(SpanPlace, i64)>,
    wholes: Vec<usize>,
    traces: Vec<String>,
}

impl Region {
    /// Requests the trace and the span of an arrival, before the arrival is added.
    pub fn announce(&mut self, arrival: &Arrival) {
        self.ask_span(&arrival.trace_id, &arrival.span_id, Reach::default());
    }

    /// The data to load before the arrivals are added.
    pub fn needs_to_join(&mut self) -> Needs {
        self.ask_waiting();
        std::mem::take(&mut self.needs)
    }

    /// Adds an arrival and returns the place of its span; `None` if the same arrival came before.
    pub fn join(&mut self, stored: StoredArrival) -> Option<SpanPlace> {
        let trace = *self.trace_places.get(&stored.arrival.trace_id)?;
        let known = self.loaded[trace].places.get(&stored.arrival.span_id).copied();
        let spans = &mut self.forest.traces[trace].spans;
        let place = match known {
            Some(place) if spans[place].has(&stored.arrival) => return None,
            Some(place) => {
                spans[place].add(stored);
                place
            }
            None => self.insert(trace, Span::of(stored), Reach::default()),
        };
        let loaded = &mut self.loaded[trace].spans[place];
        self.touched_spans += usize::from(!loaded.is_touched);
        loaded.is_touched = true;
        Some((trace, place))
    }

    /// The data to load before the region is resolved; empty when it is.
    pub fn needs(&mut self, prices: &PriceTable) -> Needs {
        loop {
            while let Some(place) = self.queue.pop() {
                self.examine(place);
            }
            self.ask_waiting();
            if !self.needs.is_empty() || self.before.is_some() {
                return std::mem::take(&mut self.needs);
            }
            self.resolve_or_request(prices);
        }
    }

    /// Adds a requested trace with its number; `None` if it is not stored.
    pub fn take_trace(&mut self, trace_id: String, stored: Option<(i64, TraceShown, Kept)>) {
        if self.trace_places.contains_key(&trace_id) {
            return;
        }
        let at = self.forest.traces.len();
        let hops = self.asked_traces.get(&trace_id).copied().unwrap_or_default();
        self.trace_places.insert(trace_id.clone(), at);
        let mut trace = Trace { trace_id, ..Trace::default() };
        let mut loaded = LoadedTrace { hops, ..LoadedTrace::default() };
        if let Some((number, shown, kept)) = stored {
            self.numbers.insert(number, at);
            (loaded.number, loaded.before) = (Some(number), Some((shown.clone(), kept.clone())));
            (trace.shown, trace.kept, trace.is_partial) = (shown, kept, true);
        }
        self.forest.traces.push(trace);
        self.loaded.push(loaded);
    }

    /// Adds requested spans with the numbers of their traces.
    pub fn take_spans(&mut self, spans: impl IntoIterator<Item = StoredSpan>) {
        for StoredSpan { trace_number, span, is_authentic } in spans {
            let Some(trace) = self.numbers.get(&trace_number).copied() else { continue };
            let Some(span_id) = span.id() else { continue };
            let loaded = &self.loaded[trace];
            if loaded.places.contains_key(span_id) {
                continue;
            }
            let reach = loaded.asked.get(span_id).copied().or_else(|| {
                let parent = loaded.places.get(span.links.as_ref()?.parent.as_ref()?)?;
                Some(Reach { levels: 0, ..loaded.spans[*parent].reach })
            });
            let reach = reach.unwrap_or(Reach { hops: loaded.hops, levels: 0 });
            let response_id = span.facts().response_id.clone();
            let place = self.insert(trace, span, reach);
            let loaded = &mut self.loaded[trace].spans[place];
            (loaded.response_id, loaded.was_altered) = (response_id, !is_authentic);
        }
    }

    /// Adds trace and span ids of the stored spans that name an answer.
    pub fn take_answer(&mut self, response_id: &str, spans: Vec<(String, String)>) {
        if spans.len() > MAX_SAME_ANSWER {
            self.forest.common_answers.insert(response_id.to_owned());
            return;
        }
        let hops = self.asked_answers.get(response_id).copied().unwrap_or_default().saturating_add(1);
        for (trace_id, span_id) in spans {
            self.ask_span(&trace_id, &span_id, Reach { hops, levels: 0 });
        }
    }

    /// The changes, when nothing more is needed.
    pub fn into_changes(self) -> Changes {
        let mut changes = Changes::default();
        let mut before = self.before.unwrap_or_default().into_iter();
        for (at, (mut trace, loaded)) in self.forest.traces.into_iter().zip(self.loaded).enumerate() {
            let (first, mut reloaded) = (changes.spans.len(), 0);
            let mut also_named = BTreeSet::new();
            for (place, (span, info)) in trace.spans.into_iter().zip(&loaded.spans).enumerate() {
                let (shown, links) = before.next().unwrap_or_default();
                reloaded += i64::from(links.is_some() && !info.is_touched);
                if info.is_touched {
                    let claim =
                        span.facts().session.clone().filter(|claim| claim.id != trace.shown.session_id);
                    also_named.extend(claim.map(|claim| claim.id));
                    changes.arrived.insert((at, place), changes.spans.len());
                } else if shown == span.shown && links == span.links {
                    continue;
                }
                let before = links.is_some().then_some(shown);
                let (trace, is_authentic) = (changes.traces.len(), !info.was_altered);
                changes.spans.push(ChangedSpan { trace, span, before, is_authentic });
            }
            if reloaded > WIDE_CHANGE_SPANS {
                trace.kept.count_wide_change();
            }
            let is_same = loaded.before.as_ref().is_some_and(|(shown, kept)| {
                (shown, kept) == (&trace.shown, &trace.kept) && changes.spans.len() == first
            });
            if is_same || loaded.spans.is_empty() && loaded.before.is_none() {
                continue;
            }
            changes.traces.push(ChangedTrace {
                trace_id: trace.trace_id,
                number: loaded.number,
                shown: trace.shown,
                kept: trace.kept,
                before: loaded.before.map(|(shown, _)| shown),
                also_named,
            });
        }
        changes
    }

    fn insert(&mut self, trace: usize, span: Span, reach: Reach) -> usize {
        let spans = &mut self.forest.traces[trace].spans;
        let place = spans.len();
        let loaded = &mut self.loaded[trace];
        loaded.places.insert(span.id().unwrap_or_default().to_owned(), place);
        loaded.spans.push(LoadedSpan { reach, ..LoadedSpan::default() });
        spans.push(span);
        self.queue.push((trace, place));
        place
    }

    fn ask_span(&mut self, trace_id: &str, span_id: &str, reach: Reach) {
        match self.trace_places.get(trace_id) {
            Some(trace) => self.ask_span_of(*trace, span_id, reach),
            None => {
                self.ask_trace(trace_id, reach.hops);
                self.waiting.push((trace_id.to_owned(), span_id.to_owned(), reach));
            }
        }
    }

    fn ask_trace(&mut self, trace_id: &str, hops: u8) {
        if !self.asked_traces.contains_key(trace_id) {
            self.asked_traces.insert(trace_id.to_owned(), hops);
            self.needs.traces.push(trace_id.to_owned());
        }
    }

    fn ask_span_of(&mut self, trace: usize, span_id: &str, reach: Reach) {
        let loaded = &mut self.loaded[trace];
        // All spans of a trace that is new, or was requested as a whole, are known.
        let Some(number) = loaded.number.filter(|_| self.forest.traces[trace].is_partial) else { return };
        if !loaded.places.contains_key(span_id) && !loaded.asked.contains_key(span_id) {
            self.needs.spans.push((number, span_id.to_owned()));
            loaded.asked.insert(span_id.to_owned(), reach);
        }
    }

    fn ask_waiting(&mut self) {
        for (trace_id, span_id, reach) in std::mem::take(&mut self.waiting) {
            match self.trace_places.get(&trace_id) {
                Some(trace) => self.ask_span_of(*trace, &span_id, reach),
                None => self.waiting.push((trace_id, span_id, reach)),
            }
        }
    }

    /// Requests the spans that a span may change: its ancestors, and those that name the same answer.
    fn examine(&mut self, (trace, place): SpanPlace) {
        let span = &self.forest.traces[trace].spans[place];
        let facts = span.facts();
        if self.loaded[trace].number.is_none() {
            // Its trace is not stored yet.
            let answer = facts.response_id.clone();
            return answer.into_iter().for_each(|answer| self.ask_answer(answer, 0));
        }
        let loaded = &self.loaded[trace].spans[place];
        let reach = loaded.reach;
        let linked = span.links.as_ref().and_then(|links| links.parent.clone());
        let named = facts.parent_span_id.clone();
        let answers = [facts.response_id.clone(), loaded.response_id.clone()];
        let most_parts = usize::try_from(MAX_CALL_SPANS).unwrap_or(usize::MAX);
        let parts = span.shown.part_of.iter().chain(&span.shown.parts).take(most_parts);
        let parts: Vec<(String, String)> = parts.cloned().collect();
        let is_far = reach.levels >= MAX_LEVELS;
        if is_far && linked.is_some() && linked == named && self.forest.traces[trace].is_partial {
            let span_id = facts.span_id.clone();
            self.forest.traces[trace].cut_off.insert(span_id);
        }
        for above in [named, linked].into_iter().flatten().filter(|_| !is_far) {
            self.ask_span_of(trace, &above, Reach { levels: reach.levels + 1, ..reach });
        }
        if reach.hops >= MAX_HOPS {
            return;
        }
        let next = Reach { hops: reach.hops + 1, levels: 0 };
        for (trace_id, span_id) in parts {
            self.ask_span(&trace_id, &span_id, next);
        }
        answers.into_iter().flatten().for_each(|answer| self.ask_answer(answer, reach.hops));
    }

    fn ask_answer(&mut self, answer: String, hops: u8) {
        if !self.asked_answers.contains_key(&answer) {
            self.asked_answers.insert(answer.clone(), hops);
            self.needs.answers.push(answer);
        }
    }

    /// Resolves the region, or requests the missing data.
    fn resolve_or_request(&mut self, prices: &PriceTable) {
        for (trace, loaded) in self.forest.traces.iter_mut().zip(&self.loaded) {
            let stored = trace.spans.iter().filter(|span| span.links.is_some()).count();
            // Nothing needs to be derived for a trace that is loaded as a whole.
            trace.is_partial &= !trace.kept.is_of(stored) || loaded.spans.is_empty();
        }
        let mut structure = Structure::of(&self.forest);
        let gathered = structure.gather();
        let lacks = self.lacks(&structure, &gathered);
        if lacks.is_none() {
            let resolved = Resolved::of(&structure, gathered, prices);
            self.before = Some(resolved.write(&mut self.forest));
        }
        self.ask(lacks.unwrap_or_default());
    }

    fn ask(&mut self, lacks: Lacks) {
        for ((trace, place), call_spans) in lacks.children {
            self.loaded[trace].spans[place].is_expanded = true;
            self.call_spans += call_spans;
            let Some(number) = self.loaded[trace].number else { continue };
            let span_id = self.forest.traces[trace].spans[place].id().unwrap_or_default().to_owned();
            self.needs.children.push((number, span_id));
        }
        for trace in lacks.wholes {
            self.forest.traces[trace].is_partial = false;
            self.needs.wholes.extend(self.loaded[trace].number);
        }
        for trace_id in lacks.traces {
            self.followed_traces += 1;
            self.ask_trace(&trace_id, MAX_HOPS);
        }
    }

    fn lacks(&self, structure: &Structure<'_>, gathered: &[Gathered]) -> Option<Lacks> {
        let mut lacks = Lacks::default();
        let arrivals = i64::try_from(self.touched_spans).unwrap_or(i64::MAX);
        let mut call_spans = arrivals.saturating_mul(CALL_SPANS_PER_ARRIVAL).saturating_add(MAX_CALL_SPANS);
        call_spans -= self.call_spans;
        let siblings_decide = structure.parents_of_library_calls();
        for (index, node) in structure.nodes.iter().enumerate() {
            let trace = &self.forest.traces[node.trace];
            if !trace.is_partial || self.loaded[node.trace].spans[node.place].is_expanded {
                continue;
            }
            let place = (node.trace, node.place);
            match node.links {
                None if trace.kept.orphans > 0 => lacks.children.push((place, 0)),
                Some(links) if node.hidden.children > 0 => {
                    if !trace.is_frozen() && passes_on_another(structure, index, links) {
                        lacks.children.push((place, 0));
                    } else if node.call.is_some() && node.hidden.children <= call_spans.min(MAX_CALL_SPANS) {
                        call_spans -= node.hidden.children;
                        lacks.children.push((place, node.hidden.children));
                    } else if siblings_decide.contains(&index) && node.hidden.children <= MAX_SIBLINGS {
                        lacks.children.push((place, 0));
                    }
                }
                _ => {}
            }
        }
        for (trace, gathered) in gathered.iter().enumerate() {
            if self.changes_as_a_whole(structure, trace, gathered) {
                lacks.wholes.push(trace);
            }
            lacks.traces.extend(self.next_followed(structure, trace));
        }
        let is_complete = lacks.children.is_empty() && lacks.wholes.is_empty() && lacks.traces.is_empty();
        (!is_complete).then_some(lacks)
    }

    /// Whether spans of a trace that are not loaded change too, because the trace does.
    fn changes_as_a_whole(&self, structure: &Structure<'_>, at: usize, gathered: &Gathered) -> bool {
        let trace = &self.forest.traces[at];
        let (shown, kept) = (&gathered.shown, &gathered.kept);
        let agent = |kept: &Kept| kept.agent.as_ref().map(|first| first.value.clone());
        trace.is_partial
            && !trace.is_frozen()
            && (gathered.is_incomplete
                || shown.session_id != trace.shown.session_id
                || shown.user_id != trace.shown.user_id
                || kept.claim.is_some() != trace.kept.claim.is_some()
                || (agent(kept) != agent(&trace.kept) && structure.hidden_unnamed(at) > 0))
    }

    /// The next trace to load if a stored trace now duplicates another one than before: traces that duplicate each other may form
    /// a cycle, which decides their session.
    fn next_followed(&self, structure: &Structure<'_>, at: usize) -> Option<String> {
        let (_, before) = self.loaded[at].before.as_ref()?;
        let followed = structure.followed(at)?;
        let known = before.follow.as_ref().map(|follow| &follow.trace_id);
        if before.claim.is_none() && known == Some(&followed.trace_id) {
            return None;
        }
        let (mut next, mut seen) = (followed, FxHashSet::default());
        while let Some(place) = self.trace_places.get(&next.trace_id) {
            if !seen.insert(*place) {
                return None;
            }
            next = structure.followed(*place)?;
        }
        (self.followed_traces < MAX_FOLLOWED_TRACES).then(|| next.trace_id.clone())
    }
}

/// Whether a span gives its children another agent or another call than before.
fn passes_on_another(structure: &Structure<'_>, index: usize, links: &Links) -> bool {
    let node: &Node<'_> = &structure.nodes[index];
    let agent = node.agent_is_named.then_some(node.agent_id.as_str());
    let agent_before = links.agent_is_named.then_some(node.before.counted.agent_id.as_str());
    let is_same_call = match (&links.inside, node.call) {
        (Inside::Nothing, None) => true,
        (Inside::Itself, Some(call)) => call == index,
        (Inside::Call(id), Some(call)) => call != index && *id == structure.nodes[call].facts.span_id,
        _ => false,
    };
    agent != agent_before || !is_same_call
}
