//! A session while a group is planned: its state, and where its beginning was and is counted.

use agentlens_domain::chain::{NO_SEAL, Seal};
use agentlens_domain::events::NewEvent;
use agentlens_domain::sessions::SessionState;
use agentlens_domain::spans::TraceShown;

use super::plan::NumberedSession;

/// A session that the group touches.
pub(super) struct Session<'a> {
    pub(super) number: i64,
    pub(super) state: SessionState,
    /// The environment and the agent of `state`, as they outlive it.
    pub(super) environment: &'a str,
    pub(super) agent_id: &'a str,
    /// Where its beginning was counted before the group; absent if it was not.
    pub(super) stood: Option<Beginning<'a>>,
    pub(super) last_seal: Seal,
    pub(super) expire_day: i32,
}

/// Where the beginning of a session is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning<'a> {
    pub(super) environment: &'a str,
    pub(super) agent_id: &'a str,
    pub(super) start_us: i64,
}

impl<'a> Session<'a> {
    pub(super) fn of(stored: &'a NumberedSession) -> Self {
        let NumberedSession { number, state, last_seal, expire_day } = stored;
        let (environment, agent_id) = (state.environment.as_str(), state.agent_id.as_str());
        let start_us = state.started_us;
        let stood = state.is_counted().then_some(Beginning { environment, agent_id, start_us });
        let (number, last_seal, expire_day) = (*number, *last_seal, *expire_day);
        let state = state.clone();
        let mut session = Self { number, state, environment, agent_id, stood, last_seal, expire_day };
        session.forget_what_left();
        session
    }

    pub(super) fn opening(number: i64, event: &'a NewEvent, environment: &'a str) -> Self {
        let state = SessionState::opening(event, environment);
        let agent_id = event.agent_id.as_str();
        Self { number, state, environment, agent_id, stood: None, last_seal: NO_SEAL, expire_day: 0 }
    }

    /// One that is begun by spans alone.
    pub(super) fn of_spans(number: i64, at_us: i64) -> Self {
        let state = SessionState::of_spans(at_us);
        Self { number, state, environment: "", agent_id: "", stood: None, last_seal: NO_SEAL, expire_day: 0 }
    }

    /// What is left after all its spans moved away is a chain; what comes to it later begins it anew.
    pub(super) fn forget_what_left(&mut self) {
        if !self.state.is_counted() {
            self.state.begin_anew();
        }
    }

    /// After some traces moved to another session, recomputes agent, user and times from the traces that remain. Sessions that
    /// also have native events are left alone: those events are not in memory and cannot be replayed.
    pub(super) fn tell_anew(&mut self, staying: &'a [TraceShown]) {
        if !self.state.is_counted() || self.state.own_events > 0 {
            return;
        }
        self.state.begin_anew();
        for shown in staying {
            self.state.add_trace(shown);
            self.follow(&shown.environment, &shown.agent_id);
        }
    }

    /// Takes over the texts of the state from something that may have changed it.
    pub(super) fn follow(&mut self, environment: &'a str, agent_id: &'a str) {
        if self.state.environment == environment {
            self.environment = environment;
        }
        if self.state.agent_id == agent_id {
            self.agent_id = agent_id;
        }
    }

    pub(super) fn stands(&self) -> Option<Beginning<'a>> {
        let (environment, agent_id, start_us) = (self.environment, self.agent_id, self.state.started_us);
        self.state.is_counted().then_some(Beginning { environment, agent_id, start_us })
    }
}
