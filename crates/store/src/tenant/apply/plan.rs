//! The plan of one apply transaction, computed from batches and the loaded state. Pure.

use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::chain::{Hash, NO_SEAL, Seal};
use agentlens_domain::cost::{self, Cost, CostSource};
use agentlens_domain::events::{EventType, NewEvent, SessionFact};
use agentlens_domain::ledger::{ENVIRONMENT_LIMIT, Reason};
use agentlens_domain::rollups::{Counted, Rollup};
use agentlens_domain::sessions::SessionState;
use agentlens_domain::spans::{Contribution, Sign};
use agentlens_domain::time::day_of;

use super::Applied;
use super::columns::{hash_of, preview, usage_parts};
use super::sessions::{Beginning, Session};
use crate::tenant::OrgContext;
use crate::tenant::environments::Environments;
use crate::tenant::rollups::{Cell, MAX_WAITING_CHANGES};
use crate::tenant::seal::{Sealed, SealedHead, SealedState};
use crate::tenant::spans::{ChangedTrace, Projection, SpanNumbers, SpanPlace, Staying, TraceRow, TraceState};

/// A session's key inside its org: workspace and session id.
pub(crate) type SessionKey<'a> = (&'a str, &'a str);

/// What the id tables say of an event that brought its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The id was free; it is taken now.
    New,
    /// The same event came before.
    Duplicate,
    /// The id was used for another content.
    Conflict,
}

/// What the engines load before the plan can be made.
pub(crate) struct PlanInput<'a> {
    /// All batches; `fresh[i]` says whether batch `i` has its effect still to come.
    pub(crate) batches: &'a [Batch],
    pub(crate) fresh: Vec<bool>,
    /// Verdicts for events with a client's id, by (batch, event).
    pub(crate) verdicts: FxHashMap<(usize, usize), Verdict>,
    /// How the touched sessions stand; absent for new ones.
    pub(crate) sessions: &'a FxHashMap<SessionKey<'a>, NumberedSession>,
    /// Which environments the events belong to.
    pub(crate) environments: &'a Environments<'a>,
    /// What becomes of the spans that arrive.
    pub(crate) projection: &'a Projection<'a>,
    /// What is left of the sessions that traces leave.
    pub(crate) staying: &'a Staying<'a>,
    pub(crate) org: OrgState,
    pub(crate) now_us: i64,
}

/// What the row of an org says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OrgState {
    /// The position of the event that was stored last.
    pub(crate) last_position: i64,
    /// How far the search index reaches.
    pub(crate) indexed_position: i64,
    /// The number that a session was given last.
    pub(crate) last_session: i64,
    /// The number that a trace was given last.
    pub(crate) last_trace: i64,
    /// How many transactions' changes of rollups wait to be merged.
    pub(crate) waiting_changes: i64,
    /// How many sessions there are.
    pub(crate) session_count: i64,
}

impl OrgState {
    /// Whether this transaction merges the changes that wait.
    pub(crate) fn is_merging(&self) -> bool {
        self.waiting_changes >= MAX_WAITING_CHANGES
    }
}

/// A session as it is stored.
pub(crate) struct NumberedSession {
    /// Its number in the org, by which its events are found.
    pub(crate) number: i64,
    pub(crate) state: SessionState,
    /// The seal of its last event.
    pub(crate) last_seal: Seal,
    /// The latest day of expiry of its events. It never falls, so that events expire in the order of the chain.
    pub(crate) expire_day: i32,
}

/// The sessions that a group touches: those of its events, and those in which its spans are or were shown.
pub(crate) fn session_keys<'a>(
    batches: &'a [Batch],
    fresh: &[bool],
    projection: &'a Projection<'a>,
) -> FxHashSet<SessionKey<'a>> {
    let mut keys: FxHashSet<SessionKey<'a>> = FxHashSet::default();
    for (_, batch) in batches.iter().enumerate().filter(|(index, _)| fresh[*index]) {
        let native = batch.events.iter().filter(|event| event.span.is_none());
        keys.extend(native.map(|event| (batch.workspace_id.as_str(), event.session_id.as_str())));
    }
    keys.extend(projection.session_keys());
    keys
}

/// One row of `events`.
pub(crate) struct EventRow<'a> {
    pub(crate) position: i64,
    pub(crate) batch: &'a Batch,
    pub(crate) environment: &'a str,
    pub(crate) event: &'a NewEvent,
    /// The session of its chain. For what arrives of a span, the one in which the span is shown then.
    pub(crate) session_id: &'a str,
    /// The number of that session.
    pub(crate) session_number: i64,
    /// Its agent; likewise.
    pub(crate) agent_id: &'a str,
    pub(crate) seq: i64,
    pub(crate) prev_hash: Option<[u8; 32]>,
    pub(crate) hash: [u8; 32],
    pub(crate) seal: Seal,
    pub(crate) expire_day: i32,
    pub(crate) cost: Option<Cost>,
    pub(crate) usage_parts: Option<String>,
    pub(crate) preview: Option<&'a str>,
}

/// What an agent's row gains.
pub(crate) struct AgentDelta<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) first_seen_us: i64,
    pub(crate) last_seen_us: i64,
    pub(crate) session_count: i64,
    pub(crate) event_count: i64,
    pub(crate) error_count: i64,
    pub(crate) cost_nanos: i64,
}

/// (workspace, day of arrival) and its (events, payload bytes).
pub(crate) type UsageDelta<'a> = ((&'a str, i32), (i64, i64));

/// Everything that the transaction writes besides the events.
pub(crate) struct Plan<'a> {
    pub(crate) applied: Vec<Applied>,
    pub(crate) sessions: Vec<(SessionKey<'a>, NumberedSession)>,
    pub(crate) agents: Vec<(SessionKey<'a>, AgentDelta<'a>)>,
    /// What changes of the rollups.
    pub(crate) changes: Vec<Cell<'a>>,
    /// (key, outcome) to a count.
    pub(crate) ledger: Vec<((&'a str, &'static str), i64)>,
    pub(crate) usage: Vec<UsageDelta<'a>>,
    pub(crate) traces: Vec<TraceRow<'a>>,
    /// Parallel to the spans of the projection.
    pub(crate) span_numbers: Vec<SpanNumbers>,
    /// Ids that clients chose, of events that expire later than their own time says: an id must outlive its event.
    pub(crate) late_keys: Vec<LateKey<'a>>,
    pub(crate) last_position: i64,
    pub(crate) last_session: i64,
    pub(crate) last_trace: i64,
    pub(crate) session_count: i64,
}

impl Plan<'_> {
    /// The counters of the org after the transaction.
    pub(crate) fn state(&self) -> SealedState {
        SealedState {
            last_position: self.last_position,
            last_session: self.last_session,
            last_trace: self.last_trace,
            session_count: self.session_count,
        }
    }
}

impl NumberedSession {
    /// The seal of the head of its chain.
    pub(crate) fn head_seal(&self, context: &OrgContext, (workspace_id, session_id): SessionKey<'_>) -> Seal {
        let (state, last_seal) = (&self.state, &self.last_seal);
        let (number, last_seq, last_hash) = (self.number, state.last_seq, &state.last_hash);
        SealedHead { workspace_id, session_id, number, last_seq, last_hash, last_seal }.seal(context)
    }
}

/// (workspace, event id) and the day on which the event expires.
pub(crate) type LateKey<'a> = ((&'a str, &'a str), i32);

struct Planner<'a, 'c, E> {
    context: &'c OrgContext,
    emit: E,
    environments: &'a Environments<'a>,
    projection: &'a Projection<'a>,
    staying: &'a Staying<'a>,
    loaded: &'a FxHashMap<SessionKey<'a>, NumberedSession>,
    sessions: FxHashMap<SessionKey<'a>, Session<'a>>,
    agents: FxHashMap<SessionKey<'a>, AgentDelta<'a>>,
    rollup: Rollup<'a>,
    ledger: FxHashMap<(&'a str, &'static str), i64>,
    usage: FxHashMap<(&'a str, i32), (i64, i64)>,
    late_keys: Vec<LateKey<'a>>,
    today: i32,
    last_position: i64,
    last_session: i64,
    last_trace: i64,
}

/// Computes the plan. Each event's row is handed to `emit` as soon as it is known, so that it can be written meanwhile.
pub(crate) fn plan<'a>(
    context: &OrgContext,
    input: &PlanInput<'a>,
    emit: impl FnMut(EventRow<'a>),
) -> Plan<'a> {
    let mut planner = Planner {
        context,
        emit,
        environments: input.environments,
        projection: input.projection,
        staying: input.staying,
        loaded: input.sessions,
        sessions: FxHashMap::default(),
        agents: FxHashMap::default(),
        rollup: Rollup::default(),
        ledger: FxHashMap::default(),
        usage: FxHashMap::default(),
        late_keys: Vec::new(),
        today: day_of(input.now_us),
        last_position: input.org.last_position,
        last_session: input.org.last_session,
        last_trace: input.org.last_trace,
    };
    let mut applied = Vec::with_capacity(input.batches.len());
    for (index, batch) in input.batches.iter().enumerate() {
        applied.push(if input.fresh[index] {
            Applied::Now(planner.add_batch(index, batch, &input.verdicts))
        } else {
            Applied::Before
        });
    }
    let traces = planner.add_spans();
    planner.finish(applied, traces, input.org)
}

impl<'a, E: FnMut(EventRow<'a>)> Planner<'a, '_, E> {
    fn add_batch(
        &mut self,
        batch_index: usize,
        batch: &'a Batch,
        verdicts: &FxHashMap<(usize, usize), Verdict>,
    ) -> Vec<Outcome> {
        *self.ledger.entry((batch.key_id.as_str(), "received")).or_default() +=
            i64::from(batch.received_count);
        for (reason, count) in batch.refused.iter() {
            *self.ledger.entry((batch.key_id.as_str(), reason.as_str())).or_default() += i64::from(count);
        }
        let mut outcomes = vec![Outcome::Duplicate; batch.events.len()];
        // Within a request events are chained in the order of their time, as the published server does; a request that
        // is in order, the usual case, is left as it is.
        let mut order: Vec<usize> = (0..batch.events.len()).collect();
        order.sort_by_key(|index| batch.events[*index].ts_us);
        for index in order {
            let event = &batch.events[index];
            let place = self.projection.places.get(&(batch_index, index)).copied();
            let verdict = verdicts.get(&(batch_index, index)).copied().unwrap_or(Verdict::New);
            let (outcome, ledger_outcome) = match (verdict, place) {
                (Verdict::Conflict, _) => (Outcome::Conflict, Reason::IdConflict.as_str()),
                (Verdict::Duplicate, _) | (_, Some(SpanPlace::Duplicate)) => {
                    (Outcome::Duplicate, Reason::Duplicate.as_str())
                }
                (Verdict::New, Some(SpanPlace::New { span })) => {
                    (Outcome::Stored { hash: self.add_arrival(batch, event, span) }, "stored")
                }
                (Verdict::New, None) => (Outcome::Stored { hash: self.add_event(batch, event) }, "stored"),
            };
            if ledger_outcome == "stored" && self.environments.is_beyond(batch, event) {
                *self.ledger.entry((batch.key_id.as_str(), ENVIRONMENT_LIMIT)).or_default() += 1;
            }
            outcomes[index] = outcome;
            *self.ledger.entry((batch.key_id.as_str(), ledger_outcome)).or_default() += 1;
        }
        outcomes
    }

    fn add_event(&mut self, batch: &'a Batch, event: &'a NewEvent) -> [u8; 32] {
        let workspace = batch.workspace_id.as_str();
        let cost = self.cost_of(event);
        let cost_nanos = cost.as_ref().map_or(0, |cost| cost.nanos);
        let key = (workspace, event.session_id.as_str());
        let environment = self.environments.of(batch, event);
        let session = self.open(key, event, environment);
        let state = &mut session.state;
        let prev_hash = (state.last_seq > 0).then_some(state.last_hash);
        let hash = hash_of(event, (&event.session_id, &event.agent_id), prev_hash);
        state.add(event, environment, cost_nanos, hash);
        session.follow(environment, &event.agent_id);
        let row = self.row(key, batch, event, (prev_hash, hash));
        self.emit_sealed(key, EventRow { cost, ..row });
        let is_unknown = cost.is_some_and(|cost| cost.source == CostSource::Unknown);
        self.count(batch, event, cost_nanos, is_unknown);
        hash
    }

    /// Chains what arrived of a span. What the span counts for comes later, once for all its arrivals.
    fn add_arrival(&mut self, batch: &'a Batch, event: &'a NewEvent, span: usize) -> [u8; 32] {
        let workspace = batch.workspace_id.as_str();
        let counted = &self.projection.spans[span].span.shown.counted;
        let (session_id, agent_id) = (counted.session_id.as_str(), counted.agent_id.as_str());
        let key = (workspace, session_id);
        let state = &mut self.open(key, event, &counted.environment).state;
        if state.last_seq == 0 {
            // Its traces say whose it is.
            state.agent_id.clear();
        }
        let prev_hash = (state.last_seq > 0).then_some(state.last_hash);
        let hash = hash_of(event, (session_id, agent_id), prev_hash);
        state.chain(hash);
        state.last_event_us = state.last_event_us.max(event.ts_us);
        let row = self.row(key, batch, event, (prev_hash, hash));
        self.emit_sealed(key, EventRow { session_id, agent_id, ..row });
        let usage = self.usage.entry((workspace, day_of(batch.received_us))).or_default();
        usage.0 += 1;
        usage.1 += i64::try_from(event.payload.len()).unwrap_or(0);
        hash
    }

    /// The row of the event that was just chained in a session.
    fn row(
        &mut self,
        key: SessionKey<'a>,
        batch: &'a Batch,
        event: &'a NewEvent,
        (prev_hash, hash): (Option<[u8; 32]>, [u8; 32]),
    ) -> EventRow<'a> {
        self.last_position += 1;
        let own_day = self.context.expire_day(event.ts_us);
        let (session_number, seq, expire_day) = match self.sessions.get_mut(&key) {
            // Days never fall along a chain, so that retention only ever removes its beginning; and no event is stored among
            // those that are removed right now.
            Some(session) => {
                session.expire_day = session.expire_day.max(own_day).max(self.today + 1);
                (session.number, session.state.last_seq, session.expire_day)
            }
            None => (0, 0, own_day),
        };
        if event.content_digest.is_some() && expire_day != own_day {
            self.late_keys.push(((batch.workspace_id.as_str(), event.id.as_str()), expire_day));
        }
        EventRow {
            position: self.last_position,
            batch,
            environment: self.environments.of(batch, event),
            event,
            session_id: &event.session_id,
            session_number,
            agent_id: &event.agent_id,
            seq,
            prev_hash,
            hash,
            seal: NO_SEAL,
            expire_day,
            cost: None,
            usage_parts: event.facts.usage.as_ref().and_then(usage_parts),
            preview: preview(&event.payload),
        }
    }

    fn emit_sealed(&mut self, key: SessionKey<'a>, mut row: EventRow<'a>) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let (hash, covered) = (Hash::from(row.hash), Sealed::of_row(&row).bytes());
            session.last_seal = self.context.seals.seal_event(&session.last_seal, &hash, &covered);
            row.seal = session.last_seal;
        }
        (self.emit)(row);
    }

    /// The session, which an event is about to join.
    fn open(&mut self, key: SessionKey<'a>, event: &'a NewEvent, environment: &'a str) -> &mut Session<'a> {
        let (loaded, last) = (self.loaded, &mut self.last_session);
        self.sessions.entry(key).or_insert_with(|| {
            loaded
                .get(&key)
                .map_or_else(|| Session::opening(next_number(last), event, environment), Session::of)
        })
    }

    /// The session, if there is one.
    fn find_session(&mut self, key: SessionKey<'a>) -> Option<&mut Session<'a>> {
        if let Some(stored) = self.loaded.get(&key) {
            return Some(self.sessions.entry(key).or_insert_with(|| Session::of(stored)));
        }
        self.sessions.get_mut(&key)
    }

    /// The session; begun where none is, since the arrivals of its spans may lie in the chains of others.
    fn session_of_spans(&mut self, key: SessionKey<'a>, at_us: i64) -> &mut Session<'a> {
        let (loaded, last) = (self.loaded, &mut self.last_session);
        self.sessions.entry(key).or_insert_with(|| {
            loaded.get(&key).map_or_else(|| Session::of_spans(next_number(last), at_us), Session::of)
        })
    }

    /// Moves every sum by what changed of the spans, and every session by what changed of its traces.
    fn add_spans(&mut self) -> Vec<TraceRow<'a>> {
        let projection = self.projection;
        let moved = || {
            projection.spans.iter().filter_map(|changed| {
                let after = &changed.span.shown.counted;
                let before = changed.before.as_ref().map(|shown| &shown.counted);
                (before != Some(after)).then_some((changed.workspace_id, before, after))
            })
        };
        for (workspace_id, before, _) in moved() {
            let Some(before) = before else { continue };
            self.count_span(workspace_id, before, Sign::Minus);
            if let Some(session) = self.sessions.get_mut(&(workspace_id, before.session_id.as_str())) {
                session.forget_what_left();
            }
        }
        for (key, staying) in &self.staying.left {
            if let Some(session) = self.find_session(*key) {
                session.tell_anew(staying);
            }
        }
        for (key, staying) in &self.staying.reopened {
            if let Some(session) = self.find_session(*key) {
                session.state.reopen(staying);
            }
        }
        for (workspace_id, _, after) in moved() {
            self.count_span(workspace_id, after, Sign::Plus);
        }
        projection.traces.iter().map(|trace| self.add_trace(trace)).collect()
    }

    fn count_span(&mut self, workspace_id: &'a str, span: &'a Contribution, sign: Sign) {
        self.rollup.add_span(workspace_id, span, sign);
        let key = (workspace_id, span.session_id.as_str());
        let session = match sign {
            Sign::Plus => Some(self.session_of_spans(key, span.start_us)),
            Sign::Minus => self.find_session(key),
        };
        if let Some(session) = session {
            session.state.add_span(span, sign);
        }
        let agent = self.agent(workspace_id, &span.agent_id, span.start_us);
        agent.event_count += sign.of(span.events);
        agent.error_count += sign.of(span.errors);
        agent.cost_nanos = agent.cost_nanos.saturating_add(sign.of(span.cost_nanos));
    }

    fn add_trace(&mut self, trace: &'a ChangedTrace<'a>) -> TraceRow<'a> {
        let (workspace_id, shown) = (trace.workspace_id, &trace.shown);
        let session_id = shown.session_id.as_str();
        if let Some(session) = self.find_session((workspace_id, session_id)) {
            session.state.add_trace(shown);
            session.follow(&shown.environment, &shown.agent_id);
        }
        self.name_agent((workspace_id, &shown.agent_id), shown.agent_name.as_deref(), shown.start_us);
        let before = trace.before.as_ref().map(|before| before.state.shown.session_id.as_str());
        if let Some(left) = before.filter(|left| *left != session_id)
            && let Some(session) = self.find_session((workspace_id, left))
            && !session.state.is_counted()
        {
            session.state.moved_to = Some(session_id.to_owned());
        }
        for named in &trace.also_named {
            let session = self.session_of_spans((workspace_id, named), shown.start_us);
            if !session.state.is_counted() {
                session.state.moved_to = Some(session_id.to_owned());
            }
        }
        TraceRow {
            workspace_id,
            trace_id: &trace.trace_id,
            number: trace
                .before
                .as_ref()
                .map_or_else(|| next_number(&mut self.last_trace), |before| before.number),
            session_number: self.session_number((workspace_id, session_id)),
            state: TraceState::following(
                trace.before.as_ref().map(|before| &before.state),
                shown,
                &trace.kept,
            ),
            expire_day: self.context.expire_day(shown.end_us),
        }
    }

    /// The number of a session in which something is shown; there always is one.
    fn session_number(&self, key: SessionKey<'a>) -> i64 {
        let touched = self.sessions.get(&key).map(|session| session.number);
        touched.or_else(|| self.loaded.get(&key).map(|session| session.number)).unwrap_or_default()
    }

    /// The numbers of the spans that changed, all of which are of `traces`.
    fn span_numbers(&self, traces: &[TraceRow<'a>]) -> Vec<SpanNumbers> {
        let numbers: FxHashMap<(&str, &str), i64> =
            traces.iter().map(|trace| ((trace.workspace_id, trace.trace_id), trace.number)).collect();
        let spans = self.projection.spans.iter().map(|changed| {
            let trace = numbers.get(&(changed.workspace_id, changed.trace_id.as_str()));
            let session_id = changed.span.shown.counted.session_id.as_str();
            SpanNumbers {
                trace: trace.copied().unwrap_or_default(),
                session: self.session_number((changed.workspace_id, session_id)),
            }
        });
        spans.collect()
    }

    /// Counts every session where it begins now, and no longer where it was taken to begin.
    fn count_beginnings(&mut self) {
        let changed = self.sessions.iter().map(|(key, session)| (key.0, session.stood, session.stands()));
        let changed: Vec<_> = changed.filter(|(_, stood, stands)| stood != stands).collect();
        for (workspace_id, stood, stands) in changed {
            for (beginning, sign) in [(stood, Sign::Minus), (stands, Sign::Plus)] {
                let Some(Beginning { environment, agent_id, start_us }) = beginning else { continue };
                self.rollup.add_beginning((workspace_id, environment, agent_id), start_us, sign);
                self.agent(workspace_id, agent_id, start_us).session_count += sign.of(1);
            }
        }
    }

    /// Takes a name for people; the id told as one says nothing.
    fn name_agent(&mut self, (workspace_id, agent_id): SessionKey<'a>, name: Option<&'a str>, seen_us: i64) {
        if let Some(name) = name.filter(|name| *name != agent_id) {
            self.agent(workspace_id, agent_id, seen_us).name = Some(name);
        }
    }

    fn agent(&mut self, workspace_id: &'a str, agent_id: &'a str, seen_us: i64) -> &mut AgentDelta<'a> {
        let agent = self.agents.entry((workspace_id, agent_id)).or_insert(AgentDelta {
            name: None,
            first_seen_us: seen_us,
            last_seen_us: seen_us,
            session_count: 0,
            event_count: 0,
            error_count: 0,
            cost_nanos: 0,
        });
        agent.first_seen_us = agent.first_seen_us.min(seen_us);
        agent.last_seen_us = agent.last_seen_us.max(seen_us);
        agent
    }

    fn cost_of(&self, event: &NewEvent) -> Option<Cost> {
        let counts = matches!(event.event_type, EventType::LlmResponse | EventType::CostTracked);
        let facts = &event.facts;
        if !counts || (facts.usage.is_none() && facts.reported_cost_nanos.is_none()) {
            return None;
        }
        let price = facts
            .model
            .as_deref()
            .and_then(|model| self.context.prices.find(facts.provider.as_deref(), model, event.ts_us));
        let tier = facts.service_tier.unwrap_or_default();
        let computed =
            price.zip(facts.usage.as_ref()).and_then(|(price, usage)| cost::compute_at(price, usage, tier));
        Some(cost::resolve(facts.reported_cost_nanos, computed))
    }

    fn count(&mut self, batch: &'a Batch, event: &'a NewEvent, cost_nanos: i64, cost_is_unknown: bool) {
        let workspace_id = batch.workspace_id.as_str();
        let environment = self.environments.of(batch, event);
        let counted = Counted { workspace_id, environment, cost_nanos, cost_is_unknown };
        self.rollup.add(event, counted);
        if let Some(SessionFact::Started { agent_name, .. }) = &event.facts.session {
            self.name_agent((workspace_id, &event.agent_id), agent_name.as_deref(), event.ts_us);
        }
        let agent = self.agent(workspace_id, &event.agent_id, event.ts_us);
        agent.event_count += 1;
        agent.error_count += i64::from(event.is_error());
        agent.cost_nanos = agent.cost_nanos.saturating_add(cost_nanos);
        let usage = self.usage.entry((workspace_id, day_of(batch.received_us))).or_default();
        usage.0 += 1;
        usage.1 += i64::try_from(event.payload.len()).unwrap_or(0);
    }

    fn finish(mut self, applied: Vec<Applied>, mut traces: Vec<TraceRow<'a>>, org: OrgState) -> Plan<'a> {
        let span_numbers = self.span_numbers(&traces);
        for trace in &mut traces {
            let session = self.sessions.get(&(trace.workspace_id, trace.state.shown.session_id.as_str()));
            trace.expire_day = trace.expire_day.max(session.map_or(0, |session| session.expire_day));
        }
        self.count_beginnings();
        let sessions = self.sessions.into_iter().map(|(key, session)| {
            let Session { number, last_seal, expire_day, .. } = session;
            let state = session.state.settled();
            // A session without events of its own, whose spans lie in the chains of others, expires by its time.
            let expire_day = expire_day.max(self.context.expire_day(state.last_event_us));
            (key, NumberedSession { number, state, last_seal, expire_day })
        });
        Plan {
            applied,
            sessions: sorted(sessions),
            agents: sorted(self.agents),
            changes: self.rollup.into_changes(),
            ledger: sorted(self.ledger),
            usage: sorted(self.usage),
            traces,
            span_numbers,
            late_keys: self.late_keys,
            session_count: org.session_count + (self.last_session - org.last_session),
            last_position: self.last_position,
            last_session: self.last_session,
            last_trace: self.last_trace,
        }
    }
}

fn next_number(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

/// Rows are written in the order of their keys on every node, so that no two writers can deadlock.
fn sorted<K: Ord + Copy, V>(map: impl IntoIterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut all: Vec<(K, V)> = map.into_iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}
