//! The projection of spans inside an apply transaction: arrivals join the spans that are stored, what they change is
//! resolved, and that is handed to the plan. Pure; the engines load and write.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use agentlens_domain::batches::Batch;
use agentlens_domain::cost::PriceTable;
use agentlens_domain::environments::OTHER;
use agentlens_domain::spans::{Kept, Needs, Region, Shown, Span, SpanPlace, StoredArrival, TraceShown};

use crate::error::StoreError;
use crate::tenant::SessionKey;
use crate::tenant::environments::Environments;

/// The version of the stored state of spans and traces.
const STATE_VERSION: u8 = 2;

/// What is stored of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TraceState {
    pub(crate) shown: TraceShown,
    /// The other sessions in whose chains events of it lie.
    pub(crate) chains: Vec<String>,
    /// What adding spans to it must know.
    pub(crate) kept: Kept,
}

/// A trace as it is stored: its number in the org, by which its spans are found, and its state.
pub(crate) struct StoredTrace {
    pub(crate) number: i64,
    pub(crate) state: TraceState,
}

/// A trace keeps this many chains; what would make more has changed its mind that often.
const MAX_CHAINS: usize = 32;

/// Whether a session whose latest trace goes on has ended after all is asked of this many of its traces, the latest.
const MAX_TRACES_ASKED_FOR_AN_END: i64 = 1_000;

/// What the traces of a session say to which nothing came, where it can't be added to what the session says.
#[derive(Default)]
pub(crate) struct Staying<'a> {
    /// Of sessions that other traces leave.
    pub(crate) left: FxHashMap<SessionKey<'a>, Vec<TraceShown>>,
    /// Of sessions in which a trace that had ended goes on.
    pub(crate) reopened: FxHashMap<SessionKey<'a>, Vec<TraceShown>>,
}

impl TraceState {
    /// The state of a trace that is shown as `shown` from now on.
    pub(crate) fn following(before: Option<&Self>, shown: &TraceShown, kept: &Kept) -> Self {
        let mut chains = before.map_or_else(Vec::new, |before| before.chains.clone());
        if let Some(before) = before
            && !chains.contains(&before.shown.session_id)
        {
            chains.push(before.shown.session_id.clone());
        }
        chains.retain(|session_id| *session_id != shown.session_id);
        chains.truncate(MAX_CHAINS);
        Self { shown: shown.clone(), chains, kept: kept.clone() }
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

/// A trace that changed, or of which a span did.
pub(crate) struct ChangedTrace<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) trace_id: String,
    pub(crate) shown: TraceShown,
    pub(crate) kept: Kept,
    /// Other sessions that spans of it name; who asks for one of them is led to the one in which the trace is shown.
    pub(crate) also_named: BTreeSet<String>,
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
            let also = changed.also_named.iter().map(String::as_str);
            let ids = before.into_iter().chain([changed.shown.session_id.as_str()]).chain(also);
            ids.map(|id| (changed.workspace_id, id))
        });
        spans.chain(traces)
    }

    /// The sessions of which more traces must be asked than those that changed, each with how many of them.
    pub(crate) fn asked_sessions(&'a self) -> FxHashMap<SessionKey<'a>, i64> {
        let mut asked: FxHashMap<SessionKey<'a>, i64> = FxHashMap::default();
        for changed in &self.traces {
            let Some(before) = changed.before.as_ref().map(|before| &before.state.shown) else { continue };
            let key = (changed.workspace_id, before.session_id.as_str());
            if before.session_id != changed.shown.session_id {
                asked.insert(key, i64::MAX);
            } else if before.ended_us.is_some() && changed.shown.ended_us.is_none() {
                asked.entry(key).or_insert(MAX_TRACES_ASKED_FOR_AN_END);
            }
        }
        asked
    }

    /// Takes the stored traces of one of [`Self::asked_sessions`].
    pub(crate) fn answer(
        &self,
        staying: &mut Staying<'a>,
        (key, limit): (SessionKey<'a>, i64),
        stored: Vec<(String, TraceState)>,
    ) {
        let traces = self.staying(key.0, stored);
        let of = if limit == i64::MAX { &mut staying.left } else { &mut staying.reopened };
        of.insert(key, traces);
    }

    /// Of the stored traces of a session those that nothing came for, the earliest first; the others are in [`Self::traces`].
    fn staying(&self, workspace_id: &str, stored: Vec<(String, TraceState)>) -> Vec<TraceShown> {
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

/// The projection of one workspace while it is being loaded.
pub(crate) struct Projecting<'a> {
    workspace_id: &'a str,
    environments: &'a Environments<'a>,
    region: Region,
    /// The chains of the stored traces.
    states: FxHashMap<String, TraceState>,
    /// What arrived that is new: (batch, event) and its span.
    arrived: Vec<((usize, usize), SpanPlace)>,
    is_joined: bool,
}

impl<'a> Projecting<'a> {
    /// One for each workspace to which the fresh batches bring spans, in the order of their ids.
    pub(crate) fn of(batches: &'a [Batch], fresh: &[bool], environments: &'a Environments<'a>) -> Vec<Self> {
        let mut all: FxHashMap<&str, Self> = FxHashMap::default();
        for (_, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
            for arrival in batch.events.iter().filter_map(|event| event.span.as_deref()) {
                let workspace_id = batch.workspace_id.as_str();
                let projecting = all.entry(workspace_id).or_insert_with(|| Self {
                    workspace_id,
                    environments,
                    region: Region::default(),
                    states: FxHashMap::default(),
                    arrived: Vec::new(),
                    is_joined: false,
                });
                projecting.region.announce(arrival);
            }
        }
        let mut all: Vec<Self> = all.into_values().collect();
        all.sort_unstable_by_key(|projecting| projecting.workspace_id);
        all
    }

    pub(crate) fn workspace_id(&self) -> &'a str {
        self.workspace_id
    }

    /// What must be loaded next; nothing once all is resolved.
    pub(crate) fn needs(
        &mut self,
        batches: &'a [Batch],
        fresh: &[bool],
        prices: &PriceTable,
        projection: &mut Projection<'a>,
    ) -> Needs {
        if !self.is_joined {
            let needs = self.region.needs_to_join();
            if !needs.is_empty() {
                return needs;
            }
            self.join(batches, fresh, projection);
            self.is_joined = true;
        }
        self.region.needs(prices)
    }

    /// Takes a trace that was asked for, if it is stored.
    pub(crate) fn take_trace(&mut self, trace_id: &str, stored: Option<StoredTrace>) {
        let loaded = stored.map(|stored| {
            let (shown, kept) = (stored.state.shown.clone(), stored.state.kept.clone());
            self.states.insert(trace_id.to_owned(), stored.state);
            (stored.number, shown, kept)
        });
        self.region.take_trace(trace_id.to_owned(), loaded);
    }

    /// Takes spans that were asked for, with the numbers of their traces.
    pub(crate) fn take_spans(&mut self, spans: Vec<(i64, Span)>) {
        self.region.take_spans(spans);
    }

    /// Takes trace and span ids of the stored spans that name an answer.
    pub(crate) fn take_answer(&mut self, response_id: &str, spans: Vec<(String, String)>) {
        self.region.take_answer(response_id, spans);
    }

    fn join(&mut self, batches: &'a [Batch], fresh: &[bool], projection: &mut Projection<'a>) {
        for (batch_index, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
            if batch.workspace_id.as_str() != self.workspace_id {
                continue;
            }
            for (event_index, event) in batch.events.iter().enumerate() {
                let Some(arrival) = event.span.as_deref() else { continue };
                let mut arrival = arrival.clone();
                if self.environments.is_beyond(batch, event) {
                    arrival.environment = Some(OTHER.to_owned());
                }
                let environment = self.environments.of_key(batch).to_owned();
                let stored = StoredArrival { event_id: event.id.clone(), environment, arrival };
                match self.region.join(stored) {
                    Some(place) => self.arrived.push(((batch_index, event_index), place)),
                    None => {
                        projection.places.insert((batch_index, event_index), Place::Duplicate);
                    }
                }
            }
        }
    }

    /// Hands over what changes.
    pub(crate) fn finish(mut self, projection: &mut Projection<'a>) {
        let changes = self.region.into_changes();
        let first = projection.spans.len();
        for (event, place) in self.arrived {
            let span = first + changes.arrived.get(&place).copied().unwrap_or_default();
            projection.places.insert(event, Place::New { span });
        }
        for changed in changes.spans {
            projection.spans.push(ChangedSpan {
                workspace_id: self.workspace_id,
                trace_id: changes.traces[changed.trace].trace_id.clone(),
                span: changed.span,
                before: changed.before,
            });
        }
        for changed in changes.traces {
            let state = self.states.remove(&changed.trace_id);
            projection.traces.push(ChangedTrace {
                workspace_id: self.workspace_id,
                before: changed.number.zip(state).map(|(number, state)| StoredTrace { number, state }),
                trace_id: changed.trace_id,
                shown: changed.shown,
                kept: changed.kept,
                also_named: changed.also_named,
            });
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
