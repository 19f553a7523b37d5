//! The plan of one apply transaction, computed from batches and the loaded state. Pure.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use agentlens_domain::batches::{Batch, Outcome};
use agentlens_domain::chain::{self, Hash, Record};
use agentlens_domain::cost::{self, Cost, CostSource};
use agentlens_domain::events::{EventType, NewEvent, SessionFact};
use agentlens_domain::json;
use agentlens_domain::ledger::Reason;
use agentlens_domain::limits;
use agentlens_domain::rollups::{CellKey, Counted, Measures, Rollup};
use agentlens_domain::sessions::SessionState;
use agentlens_domain::time::day_of;
use agentlens_domain::usage::Usage;

use super::Applied;
use crate::tenant::TenantContext;
use crate::tenant::seal::Sealed;

/// Payloads above this many bytes get a stored preview.
const STORED_PREVIEW_FROM_BYTES: usize = 1024;

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
    pub(crate) sessions: FxHashMap<SessionKey<'a>, SessionState>,
    pub(crate) last_position: i64,
}

/// One row of `events`.
pub(crate) struct EventRow<'a> {
    pub(crate) position: i64,
    pub(crate) batch: &'a Batch,
    pub(crate) event: &'a NewEvent,
    pub(crate) seq: i64,
    pub(crate) prev_hash: Option<[u8; 32]>,
    pub(crate) hash: [u8; 32],
    pub(crate) seal: [u8; 16],
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
    pub(crate) sessions: Vec<(SessionKey<'a>, SessionState)>,
    pub(crate) agents: Vec<(SessionKey<'a>, AgentDelta<'a>)>,
    pub(crate) cells: Vec<(CellKey<'a>, Measures)>,
    /// (key, outcome) to a count.
    pub(crate) ledger: Vec<((&'a str, &'static str), i64)>,
    pub(crate) usage: Vec<UsageDelta<'a>>,
    pub(crate) last_position: i64,
}

struct Planner<'a, 'c, E> {
    context: &'c TenantContext,
    emit: E,
    sessions: FxHashMap<SessionKey<'a>, SessionState>,
    agents: FxHashMap<SessionKey<'a>, AgentDelta<'a>>,
    rollup: Rollup<'a>,
    ledger: FxHashMap<(&'a str, &'static str), i64>,
    usage: FxHashMap<(&'a str, i32), (i64, i64)>,
    position: i64,
}

/// Computes the plan. Each event's row is handed to `emit` as soon as it is known, so that it can be written meanwhile.
pub(crate) fn plan<'a>(
    context: &TenantContext,
    input: PlanInput<'a>,
    emit: impl FnMut(EventRow<'a>),
) -> Plan<'a> {
    let mut planner = Planner {
        context,
        emit,
        sessions: input.sessions,
        agents: FxHashMap::default(),
        rollup: Rollup::default(),
        ledger: FxHashMap::default(),
        usage: FxHashMap::default(),
        position: input.last_position,
    };
    let mut applied = Vec::with_capacity(input.batches.len());
    for (index, batch) in input.batches.iter().enumerate() {
        applied.push(if input.fresh[index] {
            Applied::Now(planner.add_batch(index, batch, &input.verdicts))
        } else {
            Applied::Before
        });
    }
    planner.finish(applied)
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
            let verdict = verdicts.get(&(batch_index, index)).copied().unwrap_or(Verdict::New);
            let (outcome, ledger_outcome) = match verdict {
                Verdict::New => (Outcome::Stored { hash: self.add_event(batch, event) }, "stored"),
                Verdict::Duplicate => (Outcome::Duplicate, Reason::Duplicate.as_str()),
                Verdict::Conflict => (Outcome::Conflict, Reason::IdConflict.as_str()),
            };
            outcomes[index] = outcome;
            *self.ledger.entry((batch.key_id.as_str(), ledger_outcome)).or_default() += 1;
        }
        outcomes
    }

    fn add_event(&mut self, batch: &'a Batch, event: &'a NewEvent) -> [u8; 32] {
        let workspace = batch.workspace_id.as_str();
        let cost = self.cost_of(event);
        let cost_nanos = cost.as_ref().map_or(0, |cost| cost.nanos);
        let session = self
            .sessions
            .entry((workspace, &event.session_id))
            .or_insert_with(|| SessionState::opening(event, &batch.environment));
        let opens_session = session.last_seq == 0;
        let prev_hash = (!opens_session).then_some(session.last_hash);
        let hash = hash_of(event, prev_hash);
        session.add(event, cost_nanos, hash);
        let seq = session.last_seq;
        // A late event expires with those before it in the chain, so that retention only ever cuts off a chain's beginning.
        let last_event_us = session.last_event_us;
        self.position += 1;

        let mut row = EventRow {
            position: self.position,
            batch,
            event,
            seq,
            prev_hash,
            hash,
            seal: [0; 16],
            expire_day: self.context.expire_day(last_event_us),
            cost,
            usage_parts: event.facts.usage.as_ref().and_then(usage_parts),
            preview: preview(&event.payload),
        };
        row.seal = chain::seal(&Hash::from(hash), &Sealed::of_row(&row).bytes());
        (self.emit)(row);
        self.count(
            batch,
            event,
            opens_session,
            cost_nanos,
            cost.is_some_and(|cost| cost.source == CostSource::Unknown),
        );
        hash
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
        let computed = price.zip(facts.usage.as_ref()).map(|(price, usage)| cost::compute(price, usage));
        Some(cost::resolve(facts.reported_cost_nanos, computed))
    }

    fn count(
        &mut self,
        batch: &'a Batch,
        event: &'a NewEvent,
        opens_session: bool,
        cost_nanos: i64,
        cost_is_unknown: bool,
    ) {
        let workspace_id = batch.workspace_id.as_str();
        let counted = Counted {
            workspace_id,
            environment: &batch.environment,
            opens_session,
            cost_nanos,
            cost_is_unknown,
        };
        self.rollup.add(event, counted);
        let agent = self.agents.entry((workspace_id, &event.agent_id)).or_insert(AgentDelta {
            name: None,
            first_seen_us: event.ts_us,
            last_seen_us: event.ts_us,
            session_count: 0,
            event_count: 0,
            error_count: 0,
            cost_nanos: 0,
        });
        if let Some(SessionFact::Started { agent_name: Some(name), .. }) = &event.facts.session {
            agent.name = Some(name);
        }
        agent.first_seen_us = agent.first_seen_us.min(event.ts_us);
        agent.last_seen_us = agent.last_seen_us.max(event.ts_us);
        agent.session_count += i64::from(opens_session);
        agent.event_count += 1;
        agent.error_count += i64::from(event.is_error());
        agent.cost_nanos = agent.cost_nanos.saturating_add(cost_nanos);
        let usage = self.usage.entry((workspace_id, day_of(batch.received_us))).or_default();
        usage.0 += 1;
        usage.1 += i64::try_from(event.payload.len()).unwrap_or(0);
    }

    fn finish(self, applied: Vec<Applied>) -> Plan<'a> {
        Plan {
            applied,
            sessions: sorted(self.sessions),
            agents: sorted(self.agents),
            cells: self.rollup.into_sorted(),
            ledger: sorted(self.ledger),
            usage: sorted(self.usage),
            last_position: self.position,
        }
    }
}

/// Rows are written in the order of their keys on every node, so that no two writers can deadlock.
fn sorted<K: Ord + Copy, V>(map: FxHashMap<K, V>) -> Vec<(K, V)> {
    let mut all: Vec<(K, V)> = map.into_iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}

fn hash_of(event: &NewEvent, prev_hash: Option<[u8; 32]>) -> [u8; 32] {
    let prev_hash = prev_hash.map(Hash::from);
    let record = Record {
        id: &event.id,
        timestamp: &event.timestamp,
        session_id: &event.session_id,
        agent_id: &event.agent_id,
        event_type: event.event_type.as_str(),
        severity: event.severity.as_str(),
        payload: &hashed_text(&event.payload, event.holds_wide_numbers),
        metadata: &hashed_text(&event.metadata, event.holds_wide_numbers),
        prev_hash: prev_hash.as_ref(),
    };
    *chain::hash(&record).as_bytes()
}

/// The text that is hashed: the stored one, unless that keeps number literals which JavaScript would print otherwise.
pub(crate) fn hashed_text<'a>(stored: &'a str, holds_wide_numbers: bool) -> Cow<'a, str> {
    if !holds_wide_numbers {
        return Cow::Borrowed(stored);
    }
    json::canonicalize(stored).map_or(Cow::Borrowed(stored), |canonical| Cow::Owned(canonical.text))
}

/// Lists show the start of a payload. Short payloads are their own preview; only for long ones it is stored, so that
/// a list need not read them.
fn preview(payload: &str) -> Option<&str> {
    if payload.len() <= STORED_PREVIEW_FROM_BYTES {
        return None;
    }
    let end = payload.char_indices().nth(limits::PREVIEW_CHARS).map_or(payload.len(), |(at, _)| at);
    payload.get(..end)
}

/// The parts of a usage that have no column of their own, as JSON; absent when all are zero.
fn usage_parts(usage: &Usage) -> Option<String> {
    let parts = [
        ("cache_read", usage.cache_read),
        ("cache_write_5m", usage.cache_write_5m),
        ("cache_write_1h", usage.cache_write_1h),
        ("reasoning", usage.reasoning),
        ("audio_input", usage.audio_input),
        ("audio_output", usage.audio_output),
    ];
    let texts: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("\"{name}\":{count}"))
        .collect();
    (!texts.is_empty()).then(|| format!("{{{}}}", texts.join(",")))
}
