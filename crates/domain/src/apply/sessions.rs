//! The sessions that a group touches, and where their beginnings are counted.

use super::{EventRow, OrgContext, Planner, next_number};
use crate::chain::{NO_SEAL, RowFields, Seal};
use crate::events::NewEvent;
use crate::sessions::{SessionKey, SessionState};
use crate::spans::{Sign, TraceShown};

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedSession {
    /// Its number in the org, by which its events are found.
    pub number: i64,
    /// Its state.
    pub state: SessionState,
    /// The seal of its last event.
    pub last_seal: Seal,
    /// The latest day of expiry of its events. It never falls, so events expire in the order of the chain.
    pub expire_day: i32,
    /// Whether its seal matched when it was loaded; see [`super::OrgState::is_authentic`].
    pub is_authentic: bool,
}

impl NumberedSession {
    /// The seal of its row, which covers every column. It reveals a chain whose end was cut off, a session that was swapped for
    /// another, and sums, names, instants or a status that were changed.
    pub fn seal(&self, context: &OrgContext, (workspace_id, session_id): SessionKey<'_>) -> Seal {
        let Self { number, state, last_seal, expire_day, is_authentic } = self;
        if !is_authentic {
            return NO_SEAL;
        }
        let mut fields = RowFields::of("session")
            .text(context.org.as_str())
            .text(workspace_id)
            .text(session_id)
            .number(*number)
            .number(state.last_seq)
            .bytes(&state.last_hash)
            .bytes(last_seal)
            .number(i64::from(*expire_day))
            .text(&state.agent_id)
            .optional(state.agent_name.as_deref().map(str::as_bytes))
            .optional(state.user_id.as_deref().map(str::as_bytes))
            .text(&state.environment)
            .optional(state.moved_to.as_deref().map(str::as_bytes));
        let sums = [
            state.event_count,
            state.own_events,
            state.tool_call_count,
            state.error_count,
            state.llm_call_count,
            state.input_tokens,
            state.output_tokens,
            state.cost_nanos,
        ];
        let instants = [
            state.started_us,
            state.last_event_us,
            state.opened_us.unwrap_or(i64::MIN),
            state.ended_us.unwrap_or(i64::MIN),
            i64::from(state.ended_in_error),
        ];
        for number in sums.into_iter().chain(instants) {
            fields = fields.number(number);
        }
        for tag in &state.tags {
            fields = fields.text(tag);
        }
        context.seals.seal_row(&fields)
    }
}

/// A touched session while its group is planned.
pub(super) struct Session<'a> {
    pub(super) number: i64,
    pub(super) state: SessionState,
    /// The environment and agent of `state`, borrowed from the input so that rollups can keep them.
    environment: &'a str,
    agent_id: &'a str,
    /// Where its beginning was counted before the group.
    counted_before: Option<Beginning<'a>>,
    pub(super) last_seal: Seal,
    pub(super) expire_day: i32,
    is_authentic: bool,
}

/// The cell in which the beginning of a session is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beginning<'a> {
    environment: &'a str,
    agent_id: &'a str,
    start_us: i64,
}

impl<'a> Session<'a> {
    fn stored(stored: &'a NumberedSession) -> Self {
        let NumberedSession { number, state, last_seal, expire_day, is_authentic } = stored;
        let mut session = Self {
            number: *number,
            state: state.clone(),
            environment: &state.environment,
            agent_id: &state.agent_id,
            counted_before: None,
            last_seal: *last_seal,
            expire_day: *expire_day,
            is_authentic: *is_authentic,
        };
        session.counted_before = session.beginning();
        session.restart_if_empty();
        session
    }

    /// A session that an event begins.
    fn begun_by_event(number: i64, event: &'a NewEvent, environment: &'a str) -> Self {
        let state = SessionState::opening(event, environment);
        Self { environment, agent_id: &event.agent_id, ..Self::new(number, state) }
    }

    /// A session in which spans are shown while their arrivals lie in the chains of other sessions.
    fn begun_by_spans(number: i64, at_us: i64) -> Self {
        Self::new(number, SessionState::of_spans(at_us))
    }

    fn new(number: i64, state: SessionState) -> Self {
        Self {
            number,
            state,
            environment: "",
            agent_id: "",
            counted_before: None,
            last_seal: NO_SEAL,
            expire_day: 0,
            is_authentic: true,
        }
    }

    /// Forgets the facts of a session whose spans all moved away: only its chain is left, and the next event or span begins it anew.
    pub(super) fn restart_if_empty(&mut self) {
        if !self.state.is_counted() {
            self.state.begin_anew();
        }
    }

    /// After some traces moved to another session, recomputes agent, user and times from the traces that remain. Sessions that
    /// also have native events are left alone: those events are not in memory and cannot be replayed.
    pub(super) fn rebuild_from(&mut self, remaining: &'a [TraceShown]) {
        if !self.state.is_counted() || self.state.own_events > 0 {
            return;
        }
        self.state.begin_anew();
        for shown in remaining {
            self.add_trace(shown);
        }
    }

    /// Adds what a trace says about the session as a whole.
    pub(super) fn add_trace(&mut self, shown: &'a TraceShown) {
        self.state.add_trace(shown);
        self.borrow_names(&shown.environment, &shown.agent_id);
    }

    /// Borrows environment and agent from what was just added, if the state took them over.
    pub(super) fn borrow_names(&mut self, environment: &'a str, agent_id: &'a str) {
        if self.state.environment == environment {
            self.environment = environment;
        }
        if self.state.agent_id == agent_id {
            self.agent_id = agent_id;
        }
    }

    /// Where its beginning must be counted.
    fn beginning(&self) -> Option<Beginning<'a>> {
        let (environment, agent_id, start_us) = (self.environment, self.agent_id, self.state.started_us);
        self.state.is_counted().then_some(Beginning { environment, agent_id, start_us })
    }

    /// The session to store.
    pub(super) fn finish(self, context: &OrgContext) -> NumberedSession {
        let Self { number, last_seal, expire_day, is_authentic, .. } = self;
        let state = self.state.settled();
        // A session without events of its own, whose spans lie in the chains of others, expires by its last event's time.
        let expire_day = expire_day.max(context.expire_day(state.last_event_us));
        NumberedSession { number, state, last_seal, expire_day, is_authentic }
    }
}

impl<'a, E: FnMut(EventRow<'a>)> Planner<'a, '_, E> {
    /// The session that an event is about to join. It is created if there is none.
    pub(super) fn open_session(
        &mut self,
        key: SessionKey<'a>,
        event: &'a NewEvent,
        environment: &'a str,
    ) -> &mut Session<'a> {
        let (stored, last) = (self.input.sessions, &mut self.last_session);
        self.sessions.entry(key).or_insert_with(|| match stored.get(&key) {
            Some(stored) => Session::stored(stored),
            None => Session::begun_by_event(next_number(last), event, environment),
        })
    }

    /// The session in which spans are shown. It is created if there is none.
    pub(super) fn open_session_of_spans(&mut self, key: SessionKey<'a>, at_us: i64) -> &mut Session<'a> {
        let (stored, last) = (self.input.sessions, &mut self.last_session);
        self.sessions.entry(key).or_insert_with(|| match stored.get(&key) {
            Some(stored) => Session::stored(stored),
            None => Session::begun_by_spans(next_number(last), at_us),
        })
    }

    /// The session, if there is one.
    pub(super) fn find_session(&mut self, key: SessionKey<'a>) -> Option<&mut Session<'a>> {
        if let Some(stored) = self.input.sessions.get(&key) {
            return Some(self.sessions.entry(key).or_insert_with(|| Session::stored(stored)));
        }
        self.sessions.get_mut(&key)
    }

    /// The number of a session in which something is shown. There always is one.
    pub(super) fn session_number(&self, key: SessionKey<'a>) -> i64 {
        let touched = self.sessions.get(&key).map(|session| session.number);
        touched.or_else(|| self.input.sessions.get(&key).map(|session| session.number)).unwrap_or_default()
    }

    /// Moves the count of each session whose beginning changed to the cell in which it begins now.
    pub(super) fn count_beginnings(&mut self) {
        let beginnings =
            self.sessions.iter().map(|(key, session)| (key.0, session.counted_before, session.beginning()));
        let moved: Vec<_> = beginnings.filter(|(_, before, after)| before != after).collect();
        for (workspace_id, before, after) in moved {
            for (beginning, sign) in [(before, Sign::Minus), (after, Sign::Plus)] {
                let Some(Beginning { environment, agent_id, start_us }) = beginning else { continue };
                self.rollup.add_beginning((workspace_id, environment, agent_id), start_us, sign);
                self.agent(workspace_id, agent_id, start_us).session_count += sign.of(1);
            }
        }
    }
}
