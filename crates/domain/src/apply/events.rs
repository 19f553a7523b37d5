//! Chaining, sealing and counting the events of a group.

use super::{EventRow, Planner, Verdict};
use crate::batches::{Batch, Outcome};
use crate::chain::{Hash, NO_SEAL};
use crate::cost::{self, Cost, CostSource};
use crate::events::{NewEvent, SessionFact, hash_of, preview, usage_parts};
use crate::ledger::{ENVIRONMENT_LIMIT, RECEIVED, Reason, STORED};
use crate::rollups::Counted;
use crate::sessions::SessionKey;
use crate::spans::Arrived;

impl<'a, E: FnMut(EventRow<'a>)> Planner<'a, '_, E> {
    /// Adds the events of a batch. Returns what became of each.
    pub(super) fn add_batch(&mut self, batch_index: usize, batch: &'a Batch) -> Vec<Outcome> {
        let key = batch.key_id.as_str();
        self.add_to_ledger(key, RECEIVED, i64::from(batch.received_count));
        for (reason, count) in batch.refused.iter() {
            self.add_to_ledger(key, reason.as_str(), i64::from(count));
        }
        let mut outcomes = vec![Outcome::Duplicate; batch.events.len()];
        // Like the published server, chains the events of a request in the order of their time. Most requests are in order.
        let mut order: Vec<usize> = (0..batch.events.len()).collect();
        order.sort_by_key(|index| batch.events[*index].ts_us);
        for index in order {
            let (event, place) = (&batch.events[index], (batch_index, index));
            let outcome = match (self.input.verdicts[place], self.input.projection.arrived[place]) {
                (Verdict::Conflict, _) => Outcome::Conflict,
                (Verdict::Duplicate, _) | (_, Some(Arrived::Duplicate)) => Outcome::Duplicate,
                (Verdict::New, Some(Arrived::New { span })) => {
                    Outcome::Stored { hash: self.add_arrival(batch, event, span) }
                }
                (Verdict::New, None) => Outcome::Stored { hash: self.add_event(batch, event) },
            };
            let is_stored = matches!(outcome, Outcome::Stored { .. });
            if is_stored && self.input.environments.is_beyond(batch, event) {
                self.add_to_ledger(key, ENVIRONMENT_LIMIT, 1);
            }
            self.add_to_ledger(key, ledger_name(&outcome), 1);
            outcomes[index] = outcome;
        }
        outcomes
    }

    fn add_to_ledger(&mut self, key: &'a str, outcome: &'static str, count: i64) {
        *self.ledger.entry((key, outcome)).or_default() += count;
    }

    /// Chains and counts a native event. Returns its hash.
    fn add_event(&mut self, batch: &'a Batch, event: &'a NewEvent) -> [u8; 32] {
        let cost = cost::of_event(event, &self.context.prices);
        let cost_nanos = cost.as_ref().map_or(0, |cost| cost.nanos);
        let key = (batch.workspace_id.as_str(), event.session_id.as_str());
        let environment = self.input.environments.of(batch, event);
        let session = self.open_session(key, event, environment);
        let state = &mut session.state;
        let prev_hash = (state.last_seq > 0).then_some(state.last_hash);
        let hash = hash_of(event, (&event.session_id, &event.agent_id), prev_hash);
        state.add(event, environment, cost_nanos, hash);
        session.borrow_names(environment, &event.agent_id);
        let row = self.row(key, batch, event, (prev_hash, hash));
        self.emit_sealed(key, EventRow { cost, ..row });
        self.count_event(batch, event, cost.as_ref());
        hash
    }

    /// Chains an arrival of a span. What the span counts for is added once for all its arrivals, later. Returns its hash.
    fn add_arrival(&mut self, batch: &'a Batch, event: &'a NewEvent, span: usize) -> [u8; 32] {
        let workspace = batch.workspace_id.as_str();
        let counted = &self.input.projection.spans[span].span.shown.counted;
        let (session_id, agent_id) = (counted.session_id.as_str(), counted.agent_id.as_str());
        let key = (workspace, session_id);
        let state = &mut self.open_session(key, event, &counted.environment).state;
        if state.last_seq == 0 {
            // The agent of a new session comes from its traces.
            state.agent_id.clear();
        }
        let prev_hash = (state.last_seq > 0).then_some(state.last_hash);
        let hash = hash_of(event, (session_id, agent_id), prev_hash);
        state.chain(hash);
        state.last_event_us = state.last_event_us.max(event.ts_us);
        let row = self.row(key, batch, event, (prev_hash, hash));
        self.emit_sealed(key, EventRow { session_id, agent_id, ..row });
        self.add_usage(workspace, batch.received_us, &event.payload);
        hash
    }

    /// The row of an event that was just chained in a session, without its seal.
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
            // Days never fall along a chain, so retention only ever removes its beginning. The day after today is the earliest,
            // so no event is stored among those that are being removed.
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
            environment: self.input.environments.of(batch, event),
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

    /// Seals a row and hands it over.
    fn emit_sealed(&mut self, key: SessionKey<'a>, mut row: EventRow<'a>) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let (hash, covered) = (Hash::from(row.hash), row.sealed().bytes());
            session.last_seal = self.context.seals.seal_event(&session.last_seal, &hash, &covered);
            row.seal = session.last_seal;
        }
        (self.emit)(row);
    }

    /// Counts a native event in rollups, agents and usage.
    fn count_event(&mut self, batch: &'a Batch, event: &'a NewEvent, cost: Option<&Cost>) {
        let workspace_id = batch.workspace_id.as_str();
        let environment = self.input.environments.of(batch, event);
        let cost_nanos = cost.map_or(0, |cost| cost.nanos);
        let cost_is_unknown = cost.is_some_and(|cost| cost.source == CostSource::Unknown);
        self.rollup.add(event, Counted { workspace_id, environment, cost_nanos, cost_is_unknown });
        if let Some(SessionFact::Started { agent_name, .. }) = &event.facts.session {
            self.name_agent((workspace_id, &event.agent_id), agent_name.as_deref(), event.ts_us);
        }
        let agent = self.agent(workspace_id, &event.agent_id, event.ts_us);
        agent.event_count += 1;
        agent.error_count += i64::from(event.is_error());
        agent.cost_nanos = agent.cost_nanos.saturating_add(cost_nanos);
        self.add_usage(workspace_id, batch.received_us, &event.payload);
    }
}

/// Under which name the ledger counts an outcome.
fn ledger_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Stored { .. } => STORED,
        Outcome::Duplicate => Reason::Duplicate.as_str(),
        Outcome::Conflict => Reason::IdConflict.as_str(),
        Outcome::Refused => Reason::StoreRefused.as_str(),
    }
}
