//! What holds for every group of batches: how they are grouped decides nothing, every chain verifies, every sum equals a recount.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rustc_hash::FxHashMap;

use super::*;
use crate::batches::{Batch, Outcome};
use crate::chain::{Hash, Link, NO_SEAL, Seal, Verifier};
use crate::environments::names_to_look_up;
use crate::events::{EventType, Facts, NewEvent, SessionFact, Severity};
use crate::ids::{BatchId, KeyId, WorkspaceId};
use crate::keys::ServerSecret;
use crate::ledger::{RECEIVED, Reason, Refusals, STORED};
use crate::rollups::{Measures, Rollup};
use crate::sessions::SessionState;
use crate::spans::tests::properties::{arrivals, random};
use crate::spans::{
    ARRIVAL_ID_PREFIX, Arrival, MAX_SAME_ANSWER, Needs, Span, SpanProjector, StoredSpan, StoredTrace,
    TraceState,
};
use crate::time::DAY_US;
use crate::usage::Usage;

/// Noon of a day in 2026.
const NOW_US: i64 = 20_500 * DAY_US + DAY_US / 2;
const RETENTION_DAYS: i32 = 7;

type Key = (String, String);

/// An event as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
struct StoredEvent {
    position: i64,
    session: Key,
    seq: i64,
    prev_hash: Option<[u8; 32]>,
    hash: [u8; 32],
    seal: Seal,
    covered: Vec<u8>,
    expire_day: i32,
}

/// The sums of an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct AgentSums {
    sessions: i64,
    events: i64,
    errors: i64,
    cost_nanos: i64,
}

/// A store in memory.
struct Store {
    context: OrgContext,
    org: OrgState,
    ids: BTreeMap<Key, [u8; 16]>,
    events: Vec<StoredEvent>,
    sessions: BTreeMap<Key, NumberedSession>,
    agents: BTreeMap<Key, AgentSums>,
    cells: BTreeMap<String, Measures>,
    ledger: BTreeMap<(String, &'static str), i64>,
    usage: BTreeMap<(String, i32), (i64, i64)>,
    traces: BTreeMap<Key, (i64, TraceState)>,
    spans: BTreeMap<(i64, String), (String, Span)>,
}

impl Store {
    fn new(secret: &ServerSecret) -> Self {
        let context = OrgContext {
            org: OrgId::parse("org_test").unwrap(),
            retention_days: Some(RETENTION_DAYS),
            prices: Arc::new(PriceTable::embedded().clone()),
            seals: SealKey::of(secret),
        };
        Self {
            context,
            org: OrgState::default(),
            ids: BTreeMap::new(),
            events: Vec::new(),
            sessions: BTreeMap::new(),
            agents: BTreeMap::new(),
            cells: BTreeMap::new(),
            ledger: BTreeMap::new(),
            usage: BTreeMap::new(),
            traces: BTreeMap::new(),
            spans: BTreeMap::new(),
        }
    }

    /// Applies one group.
    fn apply(&mut self, batches: &[Batch]) -> Vec<Applied> {
        let group = Group::new(batches, vec![true; batches.len()]);
        let mut environments = Environments::default();
        for (workspace, names) in names_to_look_up(&group) {
            environments.add_names(workspace, &names, &Default::default());
        }
        let verdicts = self.verdicts(&group);
        let projection = self.project(&group, &environments);
        let mut remaining = RemainingTraces::default();
        for session in projection.sessions_to_read() {
            let key = owned(session.key);
            let shown = self
                .traces
                .iter()
                .filter(|(id, (_, state))| id.0 == key.0 && state.shown.session_id == key.1);
            let stored = shown.map(|(id, (_, state))| (id.1.clone(), state.clone())).collect();
            projection.take_traces(&mut remaining, session, stored);
        }
        let keys = session_keys(&group, &projection);
        let stored = keys.into_iter().filter_map(|key| Some((key, self.sessions.get(&owned(key))?.clone())));
        let sessions: FxHashMap<SessionKey<'_>, NumberedSession> = stored.collect();
        let input = PlanInput {
            group: &group,
            verdicts,
            sessions: &sessions,
            environments: &environments,
            projection: &projection,
            remaining: &remaining,
            org: self.org,
            now_us: NOW_US,
        };
        let mut rows = Vec::new();
        let plan = plan(&self.context, &input, |row| {
            rows.push(StoredEvent {
                position: row.position,
                session: (row.batch.workspace_id.as_str().to_owned(), row.session_id.to_owned()),
                seq: row.seq,
                prev_hash: row.prev_hash,
                hash: row.hash,
                seal: row.seal,
                covered: row.sealed().bytes(),
                expire_day: row.expire_day,
            });
        });
        self.events.extend(rows);
        self.write(&projection, plan)
    }

    fn verdicts(&mut self, group: &Group<'_>) -> PerEvent<Verdict> {
        let mut verdicts = group.per_event(Verdict::New);
        for (place, batch, event) in group.new_events() {
            let Some(digest) = event.content_digest else { continue };
            let key = owned((batch.workspace_id.as_str(), &event.id));
            verdicts[place] = match self.ids.get(&key) {
                None => Verdict::New,
                Some(stored) if *stored == digest => Verdict::Duplicate,
                Some(_) => Verdict::Conflict,
            };
            self.ids.entry(key).or_insert(digest);
        }
        verdicts
    }

    fn project<'a>(&self, group: &Group<'a>, environments: &'a Environments<'a>) -> Projection<'a> {
        let mut projection = Projection::of(group);
        for mut projector in SpanProjector::of(group, environments) {
            loop {
                let needs = projector.needs(group, &self.context.prices, &mut projection);
                if needs.is_empty() {
                    break;
                }
                self.load(&mut projector, &needs);
            }
            projector.finish(&mut projection);
        }
        projection
    }

    fn load(&self, projector: &mut SpanProjector<'_>, needs: &Needs) {
        let workspace = projector.workspace_id();
        for trace_id in &needs.traces {
            let stored = self.traces.get(&owned((workspace, trace_id)));
            let stored = stored.map(|(number, state)| StoredTrace {
                number: *number,
                state: state.clone(),
                is_authentic: true,
            });
            projector.take_trace(trace_id, stored);
        }
        let is_needed = |(number, id): &(i64, String), span: &Span| {
            let shown = (*number, span.shown.parent_span_id.clone().unwrap_or_default());
            let named = (*number, span.facts().parent_span_id.clone().unwrap_or_default());
            needs.wholes.contains(number)
                || needs.spans.contains(&(*number, id.clone()))
                || needs.children.contains(&shown)
                || needs.children.contains(&named)
        };
        let needed = self.spans.iter().filter(|(key, (_, span))| is_needed(key, span));
        let stored = needed.map(|(key, (_, span))| StoredSpan {
            trace_number: key.0,
            span: span.clone(),
            is_authentic: true,
        });
        projector.take_spans(stored.collect());
        for answer in &needs.answers {
            let named = self.spans.values().filter(|(in_workspace, span)| {
                in_workspace == workspace && span.facts().response_id.as_ref() == Some(answer)
            });
            let ids = named.map(|(_, span)| (span.facts().trace_id.clone(), span.facts().span_id.clone()));
            projector.take_answer(answer, ids.take(MAX_SAME_ANSWER + 1).collect());
        }
    }

    fn write(&mut self, projection: &Projection<'_>, plan: Plan<'_>) -> Vec<Applied> {
        self.org = plan.org;
        for (span, numbers) in projection.spans.iter().zip(&plan.span_numbers) {
            let key = (numbers.trace, span.span.facts().span_id.clone());
            self.spans.insert(key, (span.workspace_id.to_owned(), span.span.clone()));
        }
        for trace in plan.traces {
            self.traces.insert(owned((trace.workspace_id, trace.trace_id)), (trace.number, trace.state));
        }
        for (key, session) in plan.sessions {
            self.sessions.insert(owned(key), session);
        }
        for (key, delta) in plan.agents {
            let agent = self.agents.entry(owned(key)).or_default();
            agent.sessions += delta.session_count;
            agent.events += delta.event_count;
            agent.errors += delta.error_count;
            agent.cost_nanos += delta.cost_nanos;
        }
        let mut rollup = Rollup::default();
        plan.changes.iter().for_each(|(key, measures)| rollup.add_change(*key, measures));
        for (key, mut measures) in rollup.into_sorted() {
            let cell = self.cells.entry(format!("{key:?}")).or_default();
            let removed = std::mem::take(&mut measures.removed_latency);
            cell.merge(&measures);
            cell.latency.subtract(&removed);
        }
        for ((key, outcome), count) in plan.ledger {
            *self.ledger.entry((key.to_owned(), outcome)).or_default() += count;
        }
        for ((workspace, day), (events, bytes)) in plan.usage {
            let usage = self.usage.entry((workspace.to_owned(), day)).or_default();
            *usage = (usage.0 + events, usage.1 + bytes);
        }
        plan.applied
    }

    /// Whether everything that is stored agrees with itself.
    fn check(&self) {
        for (place, event) in self.events.iter().enumerate() {
            assert_eq!(event.position, place as i64 + 1);
        }
        let mut chains: BTreeMap<&Key, (Verifier, i32)> = BTreeMap::new();
        for event in &self.events {
            let (verifier, last_day) = chains.entry(&event.session).or_default();
            let hash = Hash::from(event.hash);
            let prev_hash = event.prev_hash.map(Hash::from);
            let link = Link { seq: event.seq, prev_hash, hash, recomputed: hash };
            assert_eq!(verifier.push(&link, &self.context.seals, &event.seal, &event.covered), Ok(()));
            assert!(event.expire_day >= *last_day, "the days of expiry fall along a chain");
            *last_day = event.expire_day;
        }
        assert_eq!(self.org.session_count, self.sessions.len() as i64);
        for (key, session) in &self.sessions {
            let (seq, seal) = chains.get(key).map_or((0, NO_SEAL), |(chain, _)| (chain.seq(), chain.seal()));
            assert_eq!((session.state.last_seq, session.last_seal), (seq, seal));
        }
        self.check_ledger();
        self.check_sums();
    }

    /// `received = stored + refused`, and the usage counts what is stored.
    fn check_ledger(&self) {
        let sum = |wanted: &str| -> i64 {
            self.ledger.iter().filter(|((_, outcome), _)| *outcome == wanted).map(|(_, count)| count).sum()
        };
        let refused: i64 = [Reason::Duplicate, Reason::IdConflict, Reason::MissingField]
            .iter()
            .map(|reason| sum(reason.as_str()))
            .sum();
        assert_eq!(sum(RECEIVED), sum(STORED) + refused);
        assert_eq!(sum(STORED), self.events.len() as i64);
        assert_eq!(self.usage.values().map(|usage| usage.0).sum::<i64>(), self.events.len() as i64);
    }

    /// Sessions, agents and the totals of days have the same sums.
    fn check_sums(&self) {
        let total = |part: &str| {
            let cells = self.cells.iter().filter(|(key, _)| key.contains(part) && key.contains("tier: Day"));
            cells.fold(Measures::default(), |mut sum, (_, cell)| {
                sum.merge(cell);
                sum
            })
        };
        let (total, by_agent) = (total("dimension: Total"), total("dimension: Agent"));
        assert_eq!(total, by_agent);
        let states = || self.sessions.values().map(|session| &session.state);
        let counted = states().filter(|state| state.is_counted()).count() as i64;
        assert_eq!(total.session_count, counted);
        assert_eq!(total.event_count, self.events.len() as i64);
        assert_eq!(total.event_count, states().map(|state| state.event_count).sum::<i64>());
        assert_eq!(total.error_count, states().map(|state| state.error_count).sum::<i64>());
        assert_eq!(total.llm_call_count, states().map(|state| state.llm_call_count).sum::<i64>());
        assert_eq!(total.usage.input, states().map(|state| state.input_tokens).sum::<i64>());
        assert_eq!(total.cost_nanos, states().map(|state| state.cost_nanos).sum::<i64>());
        assert_eq!(counted, self.agents.values().map(|agent| agent.sessions).sum::<i64>());
        assert_eq!(total.event_count, self.agents.values().map(|agent| agent.events).sum::<i64>());
        assert_eq!(total.error_count, self.agents.values().map(|agent| agent.errors).sum::<i64>());
        assert_eq!(total.cost_nanos, self.agents.values().map(|agent| agent.cost_nanos).sum::<i64>());
    }

    /// Whether all sums are the same, where spans may move between sessions.
    fn has_sums_of(&self, other: &Self) {
        assert_same(&self.counted_sessions(), &other.counted_sessions());
        let agents = |store: &Self| {
            let counted = store.agents.iter().filter(|(_, sums)| **sums != AgentSums::default());
            counted.map(|(key, sums)| (key.clone(), *sums)).collect::<BTreeMap<_, _>>()
        };
        assert_same(&agents(self), &agents(other));
        let cells = |store: &Self| {
            let counted = store.cells.iter().filter(|(_, cell)| **cell != Measures::default());
            counted.map(|(key, cell)| (key.clone(), cell.clone())).collect::<BTreeMap<_, _>>()
        };
        assert_same(&cells(self), &cells(other));
        assert_same(&self.ledger, &other.ledger);
        assert_same(&self.usage, &other.usage);
    }

    /// The sessions that count something, without what the first arrival decides: whose chain an event joins, when that chain ends,
    /// and the end user.
    fn counted_sessions(&self) -> BTreeMap<Key, SessionState> {
        let counted = self.sessions.iter().filter(|(_, session)| session.state.is_counted());
        let states = counted.map(|(key, session)| {
            let (last_seq, last_hash, last_event_us, user_id) = (0, [0; 32], 0, None);
            let state = session.state.clone();
            (key.clone(), SessionState { last_seq, last_hash, last_event_us, user_id, ..state })
        });
        states.collect()
    }
}

/// Whether two maps are the same; names the first entry that differs.
fn assert_same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) {
    for (key, value) in one {
        assert_eq!(Some(value), other.get(key), "{key:?}");
    }
    assert_eq!(one.len(), other.len());
}

fn owned((first, second): (&str, &str)) -> Key {
    (first.to_owned(), second.to_owned())
}

/// A random native event: what it is about, and when.
#[derive(Debug, Clone)]
struct Native {
    session: u8,
    agent: u8,
    kind: usize,
    hours_ago: i64,
    /// Its id if the client chose one, and which of two contents it has.
    id: Option<(u8, bool)>,
    user: Option<u8>,
    tokens: i64,
    cost_nanos: Option<i64>,
    environment: Option<u8>,
}

fn native() -> impl Strategy<Value = Native> {
    let what = (0_u8..3, 0_u8..3, 0_usize..7, 0_i64..300);
    let id = prop::option::weighted(0.4, (0_u8..12, prop::bool::weighted(0.1)));
    let rest = (
        id,
        prop::option::of(0_u8..2),
        0_i64..100,
        prop::option::of(0_i64..1_000),
        prop::option::of(0_u8..3),
    );
    (what, rest).prop_map(|(what, rest)| Native {
        session: what.0,
        agent: what.1,
        kind: what.2,
        hours_ago: what.3,
        id: rest.0,
        user: rest.1,
        tokens: rest.2,
        cost_nanos: rest.3,
        environment: rest.4,
    })
}

impl Native {
    fn event(&self, place: usize) -> NewEvent {
        let kinds = [
            EventType::SessionStarted,
            EventType::SessionEnded,
            EventType::ToolCall,
            EventType::ToolError,
            EventType::LlmResponse,
            EventType::CostTracked,
            EventType::Custom,
        ];
        let event_type = kinds[self.kind];
        let session = match event_type {
            EventType::SessionStarted => Some(SessionFact::Started {
                agent_name: Some(format!("Agent {place}")),
                agent_version: None,
                tags: vec![format!("t{place}")],
            }),
            EventType::SessionEnded => Some(SessionFact::Ended { is_error: place.is_multiple_of(2) }),
            _ => None,
        };
        let is_call = event_type == EventType::LlmResponse;
        NewEvent {
            id: self.id.map_or_else(|| format!("ours-{place}"), |(id, _)| format!("client-{id}")),
            content_digest: self.id.map(|(id, is_other)| [id + u8::from(is_other) * 100; 16]),
            session_id: format!("s{}", self.session),
            agent_id: format!("a{}", self.agent),
            event_type,
            severity: Severity::Info,
            timestamp: format!("-{}h", self.hours_ago),
            ts_us: NOW_US - self.hours_ago * 3_600_000_000,
            payload: format!("{{\"n\":{place}}}"),
            metadata: "{}".to_owned(),
            holds_wide_numbers: false,
            environment: self.environment.map(|name| format!("e{name}")),
            facts: Facts {
                name: Some("tool".to_owned()),
                model: is_call.then(|| "gpt-4o".to_owned()),
                user_id: self.user.map(|user| format!("u{user}")),
                usage: is_call.then(|| Usage { input: self.tokens, output: 1, ..Usage::default() }),
                duration_us: Some(self.tokens),
                reported_cost_nanos: self.cost_nanos,
                session,
                ..Facts::default()
            },
            span: None,
        }
    }
}

fn arrival_event(arrival: Arrival, place: usize) -> NewEvent {
    NewEvent {
        id: format!("{ARRIVAL_ID_PREFIX}{place}"),
        content_digest: None,
        session_id: String::new(),
        agent_id: String::new(),
        event_type: EventType::Custom,
        severity: Severity::Info,
        timestamp: String::new(),
        ts_us: arrival.start_us,
        payload: format!("{{\"n\":{place}}}"),
        metadata: "{}".to_owned(),
        holds_wide_numbers: false,
        environment: None,
        facts: Facts::default(),
        span: Some(Box::new(arrival)),
    }
}

fn batch(number: usize, events: Vec<NewEvent>, refused_count: u32) -> Batch {
    let mut refused = Refusals::default();
    if refused_count > 0 {
        refused.add_many(Reason::MissingField, refused_count);
    }
    Batch {
        batch_id: BatchId::at(NOW_US),
        workspace_id: WorkspaceId::parse(&format!("ws_{}", number % 2)).unwrap(),
        environment: "production".to_owned(),
        key_id: KeyId::parse("key_test").unwrap(),
        received_us: NOW_US,
        received_count: events.len() as u32 + refused_count,
        refused,
        events,
    }
}

/// Cuts items into runs of the given sizes, which repeat.
fn cut<T>(mut items: Vec<T>, sizes: &[usize]) -> Vec<Vec<T>> {
    let mut runs = Vec::new();
    for size in sizes.iter().cycle() {
        if items.is_empty() {
            break;
        }
        let rest = items.split_off((*size).min(items.len()));
        runs.push(std::mem::replace(&mut items, rest));
    }
    runs
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..6, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_grouping_of_native_batches_decides_nothing(
        events in prop::collection::vec(native(), 1..40),
        batch_sizes in sizes(),
        group_sizes in sizes(),
        refused in 0_u32..3,
    ) {
        let events: Vec<NewEvent> = events.iter().enumerate().map(|(place, event)| event.event(place)).collect();
        let runs = cut(events, &batch_sizes).into_iter().enumerate();
        let batches: Vec<Batch> = runs.map(|(number, events)| batch(number, events, refused)).collect();
        let secret = ServerSecret::generate();
        let (mut one_by_one, mut grouped) = (Store::new(&secret), Store::new(&secret));
        let mut applied = Vec::new();
        for batch in &batches {
            applied.extend(one_by_one.apply(std::slice::from_ref(batch)));
            one_by_one.check();
        }
        let mut applied_in_groups = Vec::new();
        for group in cut(batches, &group_sizes) {
            applied_in_groups.extend(grouped.apply(&group));
            grouped.check();
        }
        prop_assert_eq!(applied, applied_in_groups);
        prop_assert_eq!(&one_by_one.events, &grouped.events);
        prop_assert_eq!(&one_by_one.sessions, &grouped.sessions);
        one_by_one.has_sums_of(&grouped);
    }

    #[test]
    fn the_grouping_of_spans_changes_no_sum(
        spans in prop::collection::vec(random(), 1..25),
        natives in prop::collection::vec(native(), 0..6),
        batch_sizes in sizes(),
        group_sizes in sizes(),
    ) {
        // Between traces that begin at the same instant the order of arrival decides, so none do.
        let apart = |mut arrival: Arrival| {
            let span = i64::from_str_radix(&arrival.span_id, 16).unwrap();
            (arrival.start_us, arrival.end_us) = (arrival.start_us * 100 + span, arrival.end_us * 100 + span);
            arrival
        };
        let mut events: Vec<NewEvent> = arrivals(&spans)
            .into_iter()
            .enumerate()
            .map(|(place, arrival)| arrival_event(apart(arrival), place))
            .collect();
        for (place, event) in natives.iter().enumerate() {
            let ours = Native { id: None, session: event.session + 10, ..event.clone() };
            events.insert((place * 3).min(events.len()), ours.event(place));
        }
        let runs = cut(events, &batch_sizes);
        // All of one workspace, so that their spans meet.
        let batches: Vec<Batch> = runs.into_iter().map(|events| batch(0, events, 0)).collect();
        let secret = ServerSecret::generate();
        let (mut one_by_one, mut grouped) = (Store::new(&secret), Store::new(&secret));
        for batch in &batches {
            one_by_one.apply(std::slice::from_ref(batch));
            one_by_one.check();
        }
        for group in cut(batches.clone(), &group_sizes) {
            grouped.apply(&group);
            grouped.check();
        }
        one_by_one.has_sums_of(&grouped);
        // Repeats are duplicates and change nothing.
        let before = grouped.sessions.clone();
        let natives_out = |batch: &Batch| {
            let spans = batch.events.iter().filter(|event| event.span.is_some()).cloned().collect();
            self::batch(0, spans, 0)
        };
        let again: Vec<Batch> = batches.iter().map(natives_out).collect();
        for applied in grouped.apply(&again) {
            let Applied::Now(outcomes) = applied else { panic!("the batches are new") };
            prop_assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Duplicate));
        }
        prop_assert_eq!(before, grouped.sessions);
    }
}

#[test]
fn a_batch_that_was_applied_before_changes_nothing() {
    let secret = ServerSecret::generate();
    let store = Store::new(&secret);
    let event = Native {
        session: 1,
        agent: 1,
        kind: 4,
        hours_ago: 1,
        id: None,
        user: None,
        tokens: 5,
        cost_nanos: None,
        environment: None,
    };
    let batches = [batch(0, vec![event.event(0)], 0)];
    let group = Group::new(&batches, vec![false]);
    let (environments, projection, remaining) =
        (Environments::default(), Projection::of(&group), RemainingTraces::default());
    let input = PlanInput {
        group: &group,
        verdicts: group.per_event(Verdict::New),
        sessions: &FxHashMap::default(),
        environments: &environments,
        projection: &projection,
        remaining: &remaining,
        org: OrgState { last_position: 7, session_count: 2, ..OrgState::default() },
        now_us: NOW_US,
    };
    let plan = plan(&store.context, &input, |_| panic!("nothing is written"));
    assert_eq!(plan.applied, [Applied::Before]);
    assert_eq!((plan.org.last_position, plan.org.session_count), (7, 2));
    assert!(plan.sessions.is_empty() && plan.ledger.is_empty() && plan.changes.is_empty());
    assert!(plan.agents.is_empty() && plan.usage.is_empty());
}

#[test]
fn an_event_expires_no_earlier_than_those_before_it_and_not_today() {
    let secret = ServerSecret::generate();
    let mut store = Store::new(&secret);
    let at = |place: usize, hours_ago: i64| {
        let native = Native {
            session: 1,
            agent: 1,
            kind: 6,
            hours_ago,
            id: Some((u8::try_from(place).unwrap(), false)),
            user: None,
            tokens: 0,
            cost_nanos: None,
            environment: None,
        };
        batch(0, vec![native.event(place)], 0)
    };
    let today = day_of(NOW_US);
    store.apply(&[at(0, 24 * 30)]);
    assert_eq!(store.events[0].expire_day, today + 1, "an event that came too late is kept until tomorrow");
    store.apply(&[at(1, 0)]);
    store.apply(&[at(2, 24 * 3)]);
    let days: Vec<i32> = store.events.iter().map(|event| event.expire_day).collect();
    assert_eq!(days[1..], [today + RETENTION_DAYS + 1; 2]);
}
