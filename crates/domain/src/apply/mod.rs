//! Applying batches: what one transaction changes, computed from the batches and the stored rows that they touch.
//!
//! The store loads those rows, calls [`plan`] and writes the result. Nothing here reads or writes, so both engines chain, price
//! and count alike.

mod events;
mod rows;
mod sessions;
mod spans;
#[cfg(test)]
mod tests;

pub use rows::{AgentDelta, EventRow, LateKey, LedgerDelta, SpanColumns, SpanNumbers, TraceRow, UsageDelta};
pub use sessions::NumberedSession;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::batches::{Applied, Group, PerEvent};
use crate::chain::{NO_SEAL, RowFields, Seal, SealKey};
use crate::cost::PriceTable;
use crate::environments::Environments;
use crate::ids::OrgId;
use crate::rollups::{Cell, MAX_WAITING_CHANGES, Rollup};
use crate::sessions::SessionKey;
use crate::spans::{Projection, RemainingTraces};
use crate::time::day_of;
use sessions::Session;

/// `expire_day` of events that are kept for ever: 9999-12-31.
pub const NEVER_EXPIRES_DAY: i32 = 2_932_896;

/// What must be known of an org to apply its batches and to check what is stored.
#[derive(Debug, Clone)]
pub struct OrgContext {
    /// The org.
    pub org: OrgId,
    /// How many days events are kept; for ever if absent.
    pub retention_days: Option<i32>,
    /// The prices of models.
    pub prices: Arc<PriceTable>,
    /// The key that seals are made with.
    pub seals: SealKey,
}

impl OrgContext {
    /// The day on which an event of the given instant may be deleted: its day, plus the retention, plus a day of grace.
    pub fn expire_day(&self, ts_us: i64) -> i32 {
        self.retention_days.map_or(NEVER_EXPIRES_DAY, |days| expire_day_after(ts_us, days))
    }
}

/// The day on which an event may be deleted under a retention of some days.
pub fn expire_day_after(ts_us: i64, retention_days: i32) -> i32 {
    day_of(ts_us).saturating_add(retention_days).saturating_add(1)
}

/// What the tables of ids say about an event that brought its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The id was free. It is taken now.
    New,
    /// The same event was stored before.
    Duplicate,
    /// The id was used before, for another content.
    Conflict,
}

/// The row of an org.
#[derive(Debug, Clone, Copy)]
pub struct OrgState {
    /// The position of the last event.
    pub last_position: i64,
    /// The position up to which the search index reaches.
    pub indexed_position: i64,
    /// The number of the newest session.
    pub last_session: i64,
    /// The number of the newest trace.
    pub last_trace: i64,
    /// How many transactions' changes of rollups wait to be merged.
    pub waiting_changes: i64,
    /// How many sessions there are.
    pub session_count: i64,
    /// How many sessions were deleted on purpose.
    pub removed_session_count: i64,
    /// The latest instant of what retention deleted.
    pub expired_us: i64,
    /// Retention deleted the daily cells of rollups before this instant.
    pub cells_from_us: i64,
    /// The shortest retention under which events were stored; `i32::MAX` if they were always kept for ever.
    pub shortest_retention_days: i32,
    /// How many entries the org's own audit log has.
    pub audit_seq: i64,
    /// Whether its seal matched when it was loaded. A row that someone changed by hand is never sealed again, so that the change stays
    /// visible.
    pub is_authentic: bool,
}

impl Default for OrgState {
    fn default() -> Self {
        Self {
            last_position: 0,
            indexed_position: 0,
            last_session: 0,
            last_trace: 0,
            waiting_changes: 0,
            session_count: 0,
            removed_session_count: 0,
            expired_us: 0,
            cells_from_us: 0,
            shortest_retention_days: i32::MAX,
            audit_seq: 0,
            is_authentic: true,
        }
    }
}

impl OrgState {
    /// The seal of the row; none if the row was changed by hand before. It reveals sessions that were deleted as a whole, and numbers
    /// that were lowered.
    pub fn seal(&self, org: &OrgId, key: &SealKey) -> Seal {
        if !self.is_authentic {
            return NO_SEAL;
        }
        let fields = RowFields::of("org")
            .text(org.as_str())
            .number(self.last_position)
            .number(self.last_session)
            .number(self.last_trace)
            .number(self.session_count)
            .number(self.removed_session_count)
            .number(self.expired_us)
            .number(self.cells_from_us)
            .number(i64::from(self.shortest_retention_days))
            .number(self.audit_seq);
        key.seal_row(&fields)
    }

    /// Whether this transaction merges the changes that wait.
    pub fn is_merging(&self) -> bool {
        self.waiting_changes >= MAX_WAITING_CHANGES
    }
}

/// What is loaded before a group can be planned.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// The batches.
    pub group: &'a Group<'a>,
    /// The verdict on each event. Events whose ids are ours are new.
    pub verdicts: PerEvent<Verdict>,
    /// The stored sessions of [`session_keys`].
    pub sessions: &'a FxHashMap<SessionKey<'a>, NumberedSession>,
    /// The environments of the events.
    pub environments: &'a Environments<'a>,
    /// What changes of spans and traces.
    pub projection: &'a Projection<'a>,
    /// The other traces of sessions that traces leave or reopen.
    pub remaining: &'a RemainingTraces<'a>,
    /// The row of the org.
    pub org: OrgState,
    /// Now, microseconds UTC.
    pub now_us: i64,
}

/// The sessions that a group touches: those of its events, and those in which its spans are shown, were shown, or which they
/// name.
pub fn session_keys<'a>(group: &Group<'a>, projection: &'a Projection<'a>) -> FxHashSet<SessionKey<'a>> {
    let native = group.new_events().filter(|(_, _, event)| event.span.is_none());
    let keys = native.map(|(_, batch, event)| (batch.workspace_id.as_str(), event.session_id.as_str()));
    keys.chain(projection.session_keys()).collect()
}

/// Everything that the transaction writes besides the events. Rows are in the order of their keys.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What became of each batch.
    pub applied: Vec<Applied>,
    /// The touched sessions after the transaction.
    pub sessions: Vec<(SessionKey<'a>, NumberedSession)>,
    /// What is added to the rows of agents, by workspace and agent.
    pub agents: Vec<((&'a str, &'a str), AgentDelta<'a>)>,
    /// What changes of the rollups.
    pub changes: Vec<Cell<'a>>,
    /// What is added to the ledger.
    pub ledger: Vec<LedgerDelta<'a>>,
    /// What is added to the usage.
    pub usage: Vec<UsageDelta<'a>>,
    /// The changed traces after the transaction.
    pub traces: Vec<TraceRow<'a>>,
    /// The numbers of the changed spans, parallel to [`Projection::spans`].
    pub span_numbers: Vec<SpanNumbers>,
    /// Ids of clients whose events expire later than the ids would.
    pub late_keys: Vec<LateKey<'a>>,
    /// The row of the org after the transaction, but for the number of waiting changes.
    pub org: OrgState,
}

/// Computes the plan. Each event's row is handed to `emit` as soon as it is known, so that it can be written meanwhile.
pub fn plan<'a>(context: &OrgContext, input: &PlanInput<'a>, emit: impl FnMut(EventRow<'a>)) -> Plan<'a> {
    let mut planner = Planner::new(context, input, emit);
    let applied = input.group.batches().enumerate().map(|(index, (batch, is_new))| match is_new {
        true => Applied::Now(planner.add_batch(index, batch)),
        false => Applied::Before,
    });
    let applied = applied.collect();
    let traces = planner.add_spans();
    planner.finish(applied, traces)
}

/// The plan while it is being computed.
struct Planner<'a, 'i, E> {
    context: &'i OrgContext,
    input: &'i PlanInput<'a>,
    emit: E,
    sessions: FxHashMap<SessionKey<'a>, Session<'a>>,
    agents: FxHashMap<(&'a str, &'a str), AgentDelta<'a>>,
    rollup: Rollup<'a>,
    ledger: FxHashMap<(&'a str, &'static str), i64>,
    usage: FxHashMap<(&'a str, i32), (i64, i64)>,
    late_keys: Vec<LateKey<'a>>,
    today: i32,
    last_position: i64,
    last_session: i64,
    last_trace: i64,
}

impl<'a, 'i, E: FnMut(EventRow<'a>)> Planner<'a, 'i, E> {
    fn new(context: &'i OrgContext, input: &'i PlanInput<'a>, emit: E) -> Self {
        Self {
            context,
            input,
            emit,
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
        }
    }

    /// What the group adds to an agent, which was seen at an instant.
    fn agent(&mut self, workspace_id: &'a str, agent_id: &'a str, seen_us: i64) -> &mut AgentDelta<'a> {
        let agent = self.agents.entry((workspace_id, agent_id)).or_insert(AgentDelta::seen_at(seen_us));
        agent.first_seen_us = agent.first_seen_us.min(seen_us);
        agent.last_seen_us = agent.last_seen_us.max(seen_us);
        agent
    }

    /// Sets an agent's display name. A name that repeats the agent's id is none.
    fn name_agent(
        &mut self,
        (workspace_id, agent_id): (&'a str, &'a str),
        name: Option<&'a str>,
        seen_us: i64,
    ) {
        if let Some(name) = name.filter(|name| *name != agent_id) {
            self.agent(workspace_id, agent_id, seen_us).name = Some(name);
        }
    }

    /// Adds an event's payload to the usage of the day on which it arrived.
    fn add_usage(&mut self, workspace_id: &'a str, received_us: i64, payload: &str) {
        let usage = self.usage.entry((workspace_id, day_of(received_us))).or_default();
        usage.0 += 1;
        usage.1 += i64::try_from(payload.len()).unwrap_or(0);
    }

    fn finish(mut self, applied: Vec<Applied>, mut traces: Vec<TraceRow<'a>>) -> Plan<'a> {
        let span_numbers = self.span_numbers(&traces);
        // A trace is kept as long as the events of the session in which it is shown.
        for trace in &mut traces {
            let session = self.sessions.get(&(trace.workspace_id, trace.state.shown.session_id.as_str()));
            trace.expire_day = trace.expire_day.max(session.map_or(0, |session| session.expire_day));
        }
        self.count_beginnings();
        let org = self.input.org;
        let sessions = self.sessions.into_iter().map(|(key, session)| (key, session.finish(self.context)));
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
            org: OrgState {
                last_position: self.last_position,
                last_session: self.last_session,
                last_trace: self.last_trace,
                session_count: org.session_count + (self.last_session - org.last_session),
                shortest_retention_days: self
                    .context
                    .retention_days
                    .map_or(org.shortest_retention_days, |days| days.min(org.shortest_retention_days)),
                ..org
            },
        }
    }
}

fn next_number(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

/// Every node writes rows in the order of their keys, so that no two writers can deadlock.
fn sorted<K: Ord + Copy, V>(map: impl IntoIterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut all: Vec<(K, V)> = map.into_iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}
