//! The changes that a group of batches makes to spans and traces.
//!
//! Arrivals are added to the stored spans, and every span that they can change is resolved again. [`SpanProjector`] requests the
//! stored rows and receives them; [`Projection`] is the result.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Kept, Needs, Region, Shown, Span, SpanPlace, StoredArrival, StoredSpan, StoredTrace, TraceShown,
    TraceState,
};
use crate::batches::{EventPlace, Group, PerEvent};
use crate::cost::PriceTable;
use crate::environments::{Environments, OTHER};
use crate::sessions::SessionKey;

/// When a trace continues after its end, this many of its session's latest traces are read to decide whether the session has
/// still ended.
const MAX_TRACES_READ_FOR_AN_END: i64 = 1_000;

/// When a trace leaves a session, the session's agent, user and times are computed again from its other traces. A session with
/// more traces than this keeps its values.
const MAX_TRACES_READ_FOR_A_MOVE: i64 = 2_000;

/// The outcome of one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// The same arrival was stored before.
    Duplicate,
    /// It is new.
    New {
        /// The index of its span in [`Projection::spans`].
        span: usize,
    },
}

/// A span that changed.
#[derive(Debug)]
pub struct SpanChange<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The trace.
    pub trace_id: String,
    /// The span after the change.
    pub span: Span,
    /// Its shown and counted values before the change; absent for a new span.
    pub before: Option<Shown>,
    /// Whether its row was as it was written; true for a new span.
    pub is_authentic: bool,
}

/// A trace that changed, or one of whose spans changed.
#[derive(Debug)]
pub struct TraceChange<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The trace.
    pub trace_id: String,
    /// Its shown values after the change.
    pub shown: TraceShown,
    /// The summary of its spans after the change.
    pub kept: Kept,
    /// Other sessions that its spans name. A request for one of them is answered with the session that shows the trace.
    pub also_named: BTreeSet<String>,
    /// The trace before the change; absent for a new one.
    pub before: Option<StoredTrace>,
}

/// The changes that a group of batches makes to spans and traces.
#[derive(Debug)]
pub struct Projection<'a> {
    /// The outcome of each arrival; `None` for events that are not arrivals.
    pub(crate) arrived: PerEvent<Option<Arrived>>,
    /// The spans that changed.
    pub spans: Vec<SpanChange<'a>>,
    /// The traces that changed, including the trace of every span that changed.
    pub traces: Vec<TraceChange<'a>>,
}

/// The unchanged traces of sessions whose values can't be computed from the changed traces alone.
#[derive(Debug, Default)]
pub struct RemainingTraces<'a> {
    /// Those of sessions that a trace left.
    pub(crate) left: FxHashMap<SessionKey<'a>, Vec<TraceShown>>,
    /// Those of sessions in which a trace continues after its end.
    pub(crate) reopened: FxHashMap<SessionKey<'a>, Vec<TraceShown>>,
}

/// A session whose traces must be read before a group can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionToRead<'a> {
    /// The session.
    pub key: SessionKey<'a>,
    /// How many of its traces to read, newest first.
    pub limit: i64,
    is_left: bool,
}

impl<'a> Projection<'a> {
    /// An empty projection of a group.
    pub fn of(group: &Group<'_>) -> Self {
        Self { arrived: group.per_event(None), spans: Vec::new(), traces: Vec::new() }
    }

    /// The sessions that show changed spans and traces, that showed them before, or that they name.
    pub(crate) fn session_keys(&'a self) -> impl Iterator<Item = SessionKey<'a>> {
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

    /// The sessions whose other traces must be read. The caller passes them to [`Self::take_traces`].
    pub fn sessions_to_read(&'a self) -> Vec<SessionToRead<'a>> {
        let mut all: FxHashMap<SessionKey<'a>, SessionToRead<'a>> = FxHashMap::default();
        for changed in &self.traces {
            let Some(before) = changed.before.as_ref().map(|before| &before.state.shown) else { continue };
            let key = (changed.workspace_id, before.session_id.as_str());
            if before.session_id != changed.shown.session_id {
                let limit = MAX_TRACES_READ_FOR_A_MOVE + 1;
                all.insert(key, SessionToRead { key, limit, is_left: true });
            } else if before.ended_us.is_some() && changed.shown.ended_us.is_none() {
                let limit = MAX_TRACES_READ_FOR_AN_END;
                all.entry(key).or_insert(SessionToRead { key, limit, is_left: false });
            }
        }
        all.into_values().collect()
    }

    /// Receives the stored traces of a session, with their ids.
    pub fn take_traces(
        &self,
        remaining: &mut RemainingTraces<'a>,
        session: SessionToRead<'a>,
        stored: Vec<(String, TraceState)>,
    ) {
        let is_cut = i64::try_from(stored.len()).unwrap_or(i64::MAX) > MAX_TRACES_READ_FOR_A_MOVE;
        if session.is_left && is_cut {
            return;
        }
        let traces = self.unchanged(session.key.0, stored);
        let of = if session.is_left { &mut remaining.left } else { &mut remaining.reopened };
        of.insert(session.key, traces);
    }

    /// The stored traces that did not change, earliest first.
    fn unchanged(&self, workspace_id: &str, stored: Vec<(String, TraceState)>) -> Vec<TraceShown> {
        let changed = self.traces.iter().filter(|changed| changed.workspace_id == workspace_id);
        let changed: FxHashSet<&str> = changed.map(|changed| changed.trace_id.as_str()).collect();
        let mut unchanged: Vec<(String, TraceShown)> = stored
            .into_iter()
            .filter(|(trace_id, _)| !changed.contains(trace_id.as_str()))
            .map(|(trace_id, state)| (trace_id, state.shown))
            .collect();
        unchanged
            .sort_unstable_by(|left, right| (left.1.start_us, &left.0).cmp(&(right.1.start_us, &right.0)));
        unchanged.into_iter().map(|(_, shown)| shown).collect()
    }
}

/// The projection of one workspace while stored spans are being loaded.
#[derive(Debug)]
pub struct SpanProjector<'a> {
    workspace_id: &'a str,
    environments: &'a Environments<'a>,
    region: Region,
    /// The states of the loaded traces, and whether their rows were as they were written.
    states: FxHashMap<String, (TraceState, bool)>,
    /// The new arrivals and their spans.
    arrived: Vec<(EventPlace, SpanPlace)>,
    is_joined: bool,
}

impl<'a> SpanProjector<'a> {
    /// One projector for each workspace that receives spans in this group, ordered by workspace id.
    pub fn of(group: &Group<'a>, environments: &'a Environments<'a>) -> Vec<Self> {
        let mut all: FxHashMap<&str, Self> = FxHashMap::default();
        for (_, batch, event) in group.new_events() {
            let Some(arrival) = event.span.as_deref() else { continue };
            let workspace_id = batch.workspace_id.as_str();
            let projector = all.entry(workspace_id).or_insert_with(|| Self {
                workspace_id,
                environments,
                region: Region::default(),
                states: FxHashMap::default(),
                arrived: Vec::new(),
                is_joined: false,
            });
            projector.region.announce(arrival);
        }
        let mut all: Vec<Self> = all.into_values().collect();
        all.sort_unstable_by_key(|projector| projector.workspace_id);
        all
    }

    /// The workspace.
    pub fn workspace_id(&self) -> &'a str {
        self.workspace_id
    }

    /// The rows to load next; empty once everything is resolved.
    pub fn needs(
        &mut self,
        group: &Group<'a>,
        prices: &PriceTable,
        projection: &mut Projection<'a>,
    ) -> Needs {
        if !self.is_joined {
            let needs = self.region.needs_to_join();
            if !needs.is_empty() {
                return needs;
            }
            self.join(group, projection);
            self.is_joined = true;
        }
        self.region.needs(prices)
    }

    /// Receives a trace that was requested; `None` if it is not stored.
    pub fn take_trace(&mut self, trace_id: &str, stored: Option<StoredTrace>) {
        let loaded = stored.map(|stored| {
            let (shown, kept) = (stored.state.shown.clone(), stored.state.kept.clone());
            self.states.insert(trace_id.to_owned(), (stored.state, stored.is_authentic));
            (stored.number, shown, kept)
        });
        self.region.take_trace(trace_id.to_owned(), loaded);
    }

    /// Receives spans that were requested.
    pub fn take_spans(&mut self, spans: Vec<StoredSpan>) {
        self.region.take_spans(spans);
    }

    /// Receives the trace and span ids of the stored spans that name a model's answer.
    pub fn take_answer(&mut self, response_id: &str, spans: Vec<(String, String)>) {
        self.region.take_answer(response_id, spans);
    }

    fn join(&mut self, group: &Group<'a>, projection: &mut Projection<'a>) {
        for (place, batch, event) in group.new_events() {
            let Some(arrival) = event.span.as_deref() else { continue };
            if batch.workspace_id.as_str() != self.workspace_id {
                continue;
            }
            let mut arrival = arrival.clone();
            if self.environments.is_beyond(batch, event) {
                arrival.environment = Some(OTHER.to_owned());
            }
            let environment = self.environments.of_key(batch).to_owned();
            match self.region.join(StoredArrival { event_id: event.id.clone(), environment, arrival }) {
                Some(span) => self.arrived.push((place, span)),
                None => projection.arrived[place] = Some(Arrived::Duplicate),
            }
        }
    }

    /// Adds the changes of this workspace to the projection.
    pub fn finish(mut self, projection: &mut Projection<'a>) {
        let changes = self.region.into_changes();
        let first = projection.spans.len();
        for (event, place) in self.arrived {
            let span = first + changes.arrived.get(&place).copied().unwrap_or_default();
            projection.arrived[event] = Some(Arrived::New { span });
        }
        for changed in changes.spans {
            projection.spans.push(SpanChange {
                workspace_id: self.workspace_id,
                trace_id: changes.traces[changed.trace].trace_id.clone(),
                span: changed.span,
                before: changed.before,
                is_authentic: changed.is_authentic,
            });
        }
        for changed in changes.traces {
            let before = changed.number.zip(self.states.remove(&changed.trace_id));
            projection.traces.push(TraceChange {
                workspace_id: self.workspace_id,
                before: before.map(|(number, (state, is_authentic))| StoredTrace {
                    number,
                    state,
                    is_authentic,
                }),
                trace_id: changed.trace_id,
                shown: changed.shown,
                kept: changed.kept,
                also_named: changed.also_named,
            });
        }
    }
}
