//! The projection of spans inside an apply transaction: arrivals join the spans that are stored, every trace concerned is
//! resolved anew, and what changed is handed to the plan. Pure; the engines load and write.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use agentlens_domain::batches::Batch;
use agentlens_domain::cost::PriceTable;
use agentlens_domain::spans::{
    Forest, MAX_SAME_ANSWER, Shown, Span, StoredArrival, Trace, TraceShown, resolve,
};

use crate::error::StoreError;
use crate::tenant::SessionKey;

/// The version of the stored state of spans and traces.
const STATE_VERSION: u8 = 1;

/// What is stored of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TraceState {
    pub(crate) shown: TraceShown,
    /// The other sessions in whose chains events of it lie.
    pub(crate) chains: Vec<String>,
}

/// A trace as it is stored: its number in the org, by which its spans are found, and its state.
pub(crate) struct StoredTrace {
    pub(crate) number: i64,
    pub(crate) state: TraceState,
}

/// A trace keeps this many chains; what would make more has changed its mind that often.
const MAX_CHAINS: usize = 32;

/// What the traces say that stay in a session which others leave.
pub(crate) type Staying<'a> = FxHashMap<SessionKey<'a>, Vec<TraceShown>>;

impl TraceState {
    /// The state of a trace that is shown as `shown` from now on.
    pub(crate) fn following(before: Option<&Self>, shown: &TraceShown) -> Self {
        let mut chains = before.map_or_else(Vec::new, |before| before.chains.clone());
        if let Some(before) = before
            && !chains.contains(&before.shown.session_id)
        {
            chains.push(before.shown.session_id.clone());
        }
        chains.retain(|session_id| *session_id != shown.session_id);
        chains.truncate(MAX_CHAINS);
        Self { shown: shown.clone(), chains }
    }
}

/// What became of one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The same came before.
    Duplicate,
    /// It is new, of the span at this index of [`Projection::spans`].
    New { span: usize },
}

/// A span that changed.
pub(crate) struct ChangedSpan<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) trace_id: String,
    pub(crate) span: Span,
    /// What was shown and counted of it before; absent for a new one.
    pub(crate) before: Option<Shown>,
}

/// A trace that something arrived for, or whose calls another one repeats.
pub(crate) struct ChangedTrace<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) trace_id: String,
    pub(crate) shown: TraceShown,
    pub(crate) before: Option<StoredTrace>,
}

/// What the transaction does to spans and traces.
#[derive(Default)]
pub(crate) struct Projection<'a> {
    /// By (batch, event).
    pub(crate) places: FxHashMap<(usize, usize), Place>,
    pub(crate) spans: Vec<ChangedSpan<'a>>,
    pub(crate) traces: Vec<ChangedTrace<'a>>,
}

/// The stored traces of one workspace that the group touches.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) traces: FxHashMap<String, (Trace, Option<StoredTrace>)>,
    /// Answers that too many stored spans name.
    common_answers: FxHashSet<String>,
}

impl<'a> Projection<'a> {
    /// The sessions in which the changed spans are shown, and were.
    pub(crate) fn session_keys(&'a self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let spans = self.spans.iter().flat_map(|changed| {
            let before = changed.before.as_ref().map(|shown| shown.counted.session_id.as_str());
            let after = changed.span.shown.counted.session_id.as_str();
            before.into_iter().chain([after]).map(|session| (changed.workspace_id, session))
        });
        let traces = self.traces.iter().flat_map(|changed| {
            let before = changed.before.as_ref().map(|before| before.state.shown.session_id.as_str());
            before.into_iter().chain([changed.shown.session_id.as_str()]).map(|id| (changed.workspace_id, id))
        });
        spans.chain(traces)
    }

    /// The sessions that traces leave.
    pub(crate) fn left_sessions(&'a self) -> FxHashSet<SessionKey<'a>> {
        let left = self.traces.iter().filter_map(|changed| {
            let before = changed.before.as_ref()?.state.shown.session_id.as_str();
            (before != changed.shown.session_id).then_some((changed.workspace_id, before))
        });
        left.collect()
    }

    /// Of the stored traces of a session those that nothing came for, the earliest first; the others are in [`Self::traces`].
    pub(crate) fn staying(&self, workspace_id: &str, stored: Vec<(String, TraceState)>) -> Vec<TraceShown> {
        let changed = self.traces.iter().filter(|changed| changed.workspace_id == workspace_id);
        let changed: FxHashSet<&str> = changed.map(|changed| changed.trace_id.as_str()).collect();
        let mut staying: Vec<(String, TraceShown)> = stored
            .into_iter()
            .filter(|(trace_id, _)| !changed.contains(trace_id.as_str()))
            .map(|(trace_id, state)| (trace_id, state.shown))
            .collect();
        staying.sort_unstable_by(|left, right| (left.1.start_us, &left.0).cmp(&(right.1.start_us, &right.0)));
        staying.into_iter().map(|(_, shown)| shown).collect()
    }
}

impl Loaded {
    /// Takes the stored spans of a trace; a trace without any is new.
    pub(crate) fn insert(&mut self, trace_id: &str, spans: Vec<Span>, stored: Option<StoredTrace>) {
        let trace = Trace { trace_id: trace_id.to_owned(), spans, shown: TraceShown::default() };
        self.traces.insert(trace_id.to_owned(), (trace, stored));
    }

    /// Takes the traces of the stored spans that name an answer, which are asked for up to one more than may be; returns
    /// those to load.
    pub(crate) fn follow(&mut self, response_id: &str, trace_ids: Vec<String>) -> Vec<String> {
        if trace_ids.len() > MAX_SAME_ANSWER {
            self.common_answers.insert(response_id.to_owned());
            return Vec::new();
        }
        trace_ids
    }

    /// The answers that its spans name.
    pub(crate) fn response_ids(&self, trace_id: &str) -> impl Iterator<Item = String> + '_ {
        let spans = self.traces.get(trace_id).map(|(trace, _)| trace.spans.as_slice()).unwrap_or_default();
        spans.iter().flat_map(Span::arrivals).filter_map(|stored| stored.arrival.response_id.clone())
    }
}

/// What a group brings for the traces of one workspace.
#[derive(Default)]
pub(crate) struct Touched<'a> {
    pub(crate) trace_ids: FxHashSet<&'a str>,
    pub(crate) response_ids: FxHashSet<&'a str>,
}

/// By workspace, what the fresh batches bring; empty if they bring no spans.
pub(crate) fn touched<'a>(batches: &'a [Batch], fresh: &[bool]) -> FxHashMap<&'a str, Touched<'a>> {
    let mut workspaces: FxHashMap<&str, Touched<'_>> = FxHashMap::default();
    for (_, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        for arrival in batch.events.iter().filter_map(|event| event.span.as_deref()) {
            let touched = workspaces.entry(batch.workspace_id.as_str()).or_default();
            touched.trace_ids.insert(&arrival.trace_id);
            touched.response_ids.extend(arrival.response_id.as_deref());
        }
    }
    workspaces
}

/// Joins the arrivals of the fresh batches with what is stored and resolves the outcome.
pub(crate) fn project<'a>(
    batches: &'a [Batch],
    fresh: &[bool],
    mut loaded: FxHashMap<&'a str, Loaded>,
    prices: &PriceTable,
) -> Projection<'a> {
    let mut projection = Projection::default();
    let mut workspaces: Vec<&str> = loaded.keys().copied().collect();
    workspaces.sort_unstable();
    for workspace_id in workspaces {
        if let Some(loaded) = loaded.remove(workspace_id) {
            Workspace::of(workspace_id, loaded).project(batches, fresh, prices, &mut projection);
        }
    }
    projection
}

struct Workspace<'a> {
    workspace_id: &'a str,
    forest: Forest,
    stored: Vec<Option<StoredTrace>>,
    /// What was stored of each span; spans beyond are new.
    before: Vec<Vec<Shown>>,
    /// The span's place in its trace.
    index: FxHashMap<(usize, String), usize>,
    trace_index: FxHashMap<String, usize>,
    /// Spans that got an arrival.
    touched: FxHashSet<(usize, usize)>,
}

impl<'a> Workspace<'a> {
    fn of(workspace_id: &'a str, loaded: Loaded) -> Self {
        let mut traces: Vec<(Trace, Option<StoredTrace>)> = loaded.traces.into_values().collect();
        traces.sort_unstable_by(|left, right| left.0.trace_id.cmp(&right.0.trace_id));
        let mut workspace = Self {
            workspace_id,
            forest: Forest { traces: Vec::new(), common_answers: loaded.common_answers },
            stored: Vec::new(),
            before: Vec::new(),
            index: FxHashMap::default(),
            trace_index: FxHashMap::default(),
            touched: FxHashSet::default(),
        };
        for (at, (trace, stored)) in traces.into_iter().enumerate() {
            for (place, span) in trace.spans.iter().enumerate() {
                if let Some(first) = span.arrivals().first() {
                    workspace.index.insert((at, first.arrival.span_id.clone()), place);
                }
            }
            workspace.before.push(trace.spans.iter().map(|span| span.shown.clone()).collect());
            workspace.trace_index.insert(trace.trace_id.clone(), at);
            workspace.stored.push(stored);
            workspace.forest.traces.push(trace);
        }
        workspace
    }

    fn project(
        mut self,
        batches: &'a [Batch],
        fresh: &[bool],
        prices: &PriceTable,
        projection: &mut Projection<'a>,
    ) {
        let mut arrived: Vec<((usize, usize), (usize, usize))> = Vec::new();
        for (batch_index, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
            if batch.workspace_id.as_str() != self.workspace_id {
                continue;
            }
            for (event_index, event) in batch.events.iter().enumerate() {
                let Some(arrival) = event.span.as_deref() else { continue };
                let stored = StoredArrival {
                    event_id: event.id.clone(),
                    environment: batch.environment.clone(),
                    arrival: arrival.clone(),
                };
                match self.join(stored) {
                    Some(place) => arrived.push(((batch_index, event_index), place)),
                    None => {
                        projection.places.insert((batch_index, event_index), Place::Duplicate);
                    }
                }
            }
        }
        resolve(&mut self.forest, prices);
        self.hand_over(arrived, projection);
    }

    /// Adds an arrival; its trace and span, or `None` if it came before.
    fn join(&mut self, stored: StoredArrival) -> Option<(usize, usize)> {
        let at = *self.trace_index.get(&stored.arrival.trace_id)?;
        let spans = &mut self.forest.traces[at].spans;
        let place = match self.index.get(&(at, stored.arrival.span_id.clone())).copied() {
            Some(place) if spans[place].has(&stored.arrival) => return None,
            Some(place) => {
                spans[place].add(stored);
                place
            }
            None => {
                self.index.insert((at, stored.arrival.span_id.clone()), spans.len());
                spans.push(Span::of(stored));
                spans.len() - 1
            }
        };
        self.touched.insert((at, place));
        Some((at, place))
    }

    fn hand_over(self, arrived: Vec<((usize, usize), (usize, usize))>, projection: &mut Projection<'a>) {
        let mut span_at: FxHashMap<(usize, usize), usize> = FxHashMap::default();
        let stored = self.stored.into_iter().zip(self.before);
        for (at, (trace, (stored, before))) in self.forest.traces.into_iter().zip(stored).enumerate() {
            let mut before = before.into_iter();
            for (place, span) in trace.spans.into_iter().enumerate() {
                let before = before.next();
                if before.as_ref() == Some(&span.shown) && !self.touched.contains(&(at, place)) {
                    continue;
                }
                span_at.insert((at, place), projection.spans.len());
                projection.spans.push(ChangedSpan {
                    workspace_id: self.workspace_id,
                    trace_id: trace.trace_id.clone(),
                    span,
                    before,
                });
            }
            projection.traces.push(ChangedTrace {
                workspace_id: self.workspace_id,
                trace_id: trace.trace_id,
                shown: trace.shown,
                before: stored,
            });
        }
        for (event, (at, place)) in arrived {
            let span = span_at.get(&(at, place)).copied().unwrap_or_default();
            projection.places.insert(event, Place::New { span });
        }
    }
}

/// The bytes of a state.
pub(crate) fn encode<T: Serialize>(state: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(state, vec![STATE_VERSION])
        .map_err(|_| StoreError::Corrupt("a span's state can't be written".to_owned()))
}

/// Reads [`encode`]'s bytes.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, StoreError> {
    let state = bytes.split_first().filter(|(version, _)| **version == STATE_VERSION);
    state
        .and_then(|(_, state)| postcard::from_bytes(state).ok())
        .ok_or_else(|| StoreError::Corrupt("a span's state can't be read".to_owned()))
}
