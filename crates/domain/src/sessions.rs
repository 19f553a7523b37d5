//! Sessions as they are materialised: a fold over the events of one session.
//!
//! Counts, sums, instants and the status come out the same for every order of arrival. The chain (`last_seq`,
//! `last_hash`) *is* the order of arrival, and where the choice is between events (the agent of events of one instant,
//! the end user, the environment) the first to arrive decides. So a session equals a recount of its events in order.

use serde::{Deserialize, Serialize};

use crate::events::{EventType, NewEvent, SessionFact};
use crate::limits;
use crate::spans::{Contribution, Sign, TraceShown};
use crate::time::HOUR_US;

/// A session inside its org: workspace and session id.
pub type SessionKey<'a> = (&'a str, &'a str);

/// A session's stored state. Instants are microseconds UTC, money nano-dollars.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The agent of the earliest event.
    pub agent_id: String,
    /// The agent's name, from the latest `session_started`.
    pub agent_name: Option<String>,
    /// The end user, from the first event to arrive that names one.
    pub user_id: Option<String>,
    /// The environment of the first event that arrived.
    pub environment: String,
    /// Tags of the latest `session_started`.
    pub tags: Vec<String>,
    /// The earliest event's instant.
    pub started_us: i64,
    /// The latest event's instant.
    pub last_event_us: i64,
    /// The latest `session_started`.
    pub opened_us: Option<i64>,
    /// The latest `session_ended`.
    pub ended_us: Option<i64>,
    /// Whether that end was an error.
    pub ended_in_error: bool,
    /// All events.
    pub event_count: i64,
    /// Those that are no arrivals of spans.
    pub own_events: i64,
    /// `tool_call` events.
    pub tool_call_count: i64,
    /// Events of severity error or critical, and tool errors.
    pub error_count: i64,
    /// `llm_response` events.
    pub llm_call_count: i64,
    /// Input tokens of `llm_response` events, cache reads and writes included.
    pub input_tokens: i64,
    /// Output tokens of `llm_response` events, reasoning included.
    pub output_tokens: i64,
    /// Cost of `llm_response` and `cost_tracked` events.
    pub cost_nanos: i64,
    /// The sequence number of the last event; the first has 1.
    pub last_seq: i64,
    /// The hash of the last event.
    pub last_hash: [u8; 32],
    /// The session in which its spans are shown now, if a later arrival named another one for them. What is left here is
    /// the chain.
    pub moved_to: Option<String>,
}

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// Events are coming.
    Active,
    /// No end, and no event for [`limits::SESSION_IDLE_MINUTES`].
    Idle,
    /// It ended.
    Completed,
    /// It ended in an error.
    Error,
}

impl SessionStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Completed => "completed",
            Self::Error => "error",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "active" => Self::Active,
            "idle" => Self::Idle,
            "completed" => Self::Completed,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

/// The instant before which an open session's last event makes it idle.
pub fn idle_before(now_us: i64) -> i64 {
    now_us - limits::SESSION_IDLE_MINUTES * HOUR_US / 60
}

impl SessionState {
    /// A session that is about to get its first event.
    pub fn opening(event: &NewEvent, environment: &str) -> Self {
        Self {
            agent_id: event.agent_id.clone(),
            environment: environment.to_owned(),
            started_us: event.ts_us,
            last_event_us: event.ts_us,
            ..Self::default()
        }
    }

    /// A session whose spans have their arrivals in the chains of others; its traces say the rest.
    pub fn of_spans(at_us: i64) -> Self {
        Self { started_us: i64::MAX, last_event_us: at_us, ..Self::default() }
    }

    /// Counts one event that was given its place in the chain; `cost_nanos` is the figure that counts.
    pub fn add(&mut self, event: &NewEvent, environment: &str, cost_nanos: i64, hash: [u8; 32]) {
        if !self.is_counted() {
            environment.clone_into(&mut self.environment);
        }
        if event.ts_us < self.started_us || self.agent_id.is_empty() {
            self.agent_id.clone_from(&event.agent_id);
        }
        if self.user_id.is_none() {
            self.user_id.clone_from(&event.facts.user_id);
        }
        self.started_us = self.started_us.min(event.ts_us);
        self.last_event_us = self.last_event_us.max(event.ts_us);
        match &event.facts.session {
            Some(SessionFact::Started { agent_name, tags, .. })
                if self.opened_us.is_none_or(|at| at <= event.ts_us) =>
            {
                self.opened_us = Some(event.ts_us);
                self.agent_name.clone_from(agent_name);
                self.tags.clone_from(tags);
            }
            Some(SessionFact::Ended { is_error }) if self.ended_us.is_none_or(|at| at <= event.ts_us) => {
                self.ended_us = Some(event.ts_us);
                self.ended_in_error = *is_error;
            }
            _ => {}
        }
        self.own_events += 1;
        self.event_count += 1;
        self.tool_call_count += i64::from(event.event_type == EventType::ToolCall);
        self.error_count += i64::from(event.is_error());
        if event.event_type == EventType::LlmResponse {
            self.llm_call_count += 1;
            let usage = event.facts.usage.unwrap_or_default();
            self.input_tokens = self.input_tokens.saturating_add(usage.input);
            self.output_tokens = self.output_tokens.saturating_add(usage.output);
        }
        self.cost_nanos = self.cost_nanos.saturating_add(cost_nanos);
        self.chain(hash);
    }

    /// Gives the next place in the chain to an event.
    pub fn chain(&mut self, hash: [u8; 32]) {
        self.last_seq += 1;
        self.last_hash = hash;
    }

    /// Counts what a span contributes, or takes it away again.
    pub fn add_span(&mut self, span: &Contribution, sign: Sign) {
        self.event_count += sign.of(span.events);
        self.tool_call_count += sign.of(span.tool_calls);
        self.error_count += sign.of(span.errors);
        self.llm_call_count += sign.of(span.llm_calls);
        self.input_tokens = self.input_tokens.saturating_add(sign.of(span.usage.input));
        self.output_tokens = self.output_tokens.saturating_add(sign.of(span.usage.output));
        self.cost_nanos = self.cost_nanos.saturating_add(sign.of(span.cost_nanos));
    }

    /// Adds what one trace of the session states about the session as a whole. The session begins with its earliest trace. It
    /// counts as ended when its latest trace has a finished root span. The traces' last timestamps are compared, which never
    /// move backwards, so the result does not depend on arrival order.
    pub fn add_trace(&mut self, trace: &TraceShown) {
        if trace.start_us <= self.started_us || self.agent_id.is_empty() {
            let kept_name = self.agent_name.take().filter(|_| self.agent_id == trace.agent_id);
            self.agent_name = trace.agent_name.clone().or(kept_name);
            self.agent_id.clone_from(&trace.agent_id);
            self.environment.clone_from(&trace.environment);
        }
        if self.user_id.is_none() {
            self.user_id.clone_from(&trace.user_id);
        }
        self.started_us = self.started_us.min(trace.start_us);
        self.last_event_us = self.last_event_us.max(trace.end_us);
        self.opened_us = self.opened_us.max(Some(trace.end_us));
        self.add_end(trace);
    }

    /// Takes an end back that a trace no longer has; of the other traces, those that have ended say whether there is
    /// one. What an event of its own said stays.
    pub fn reopen(&mut self, others: &[TraceShown]) {
        if self.own_events > 0 {
            return;
        }
        (self.ended_us, self.ended_in_error) = (None, false);
        others.iter().for_each(|trace| self.add_end(trace));
    }

    fn add_end(&mut self, trace: &TraceShown) {
        if trace.ended_us.is_some() && self.ended_us.is_none_or(|known| known <= trace.end_us) {
            self.ended_us = Some(trace.end_us);
            self.ended_in_error = trace.ended_in_error;
        }
    }

    /// Forgets what its spans told of it, of which some moved to another session; those that are left tell it again. The
    /// sums stay, the chain, and the instant of its last event, by which it expires.
    pub fn begin_anew(&mut self) {
        *self = Self {
            agent_id: String::new(),
            agent_name: None,
            user_id: None,
            environment: String::new(),
            tags: Vec::new(),
            started_us: i64::MAX,
            opened_us: None,
            ended_us: None,
            ended_in_error: false,
            moved_to: self.moved_to.take(),
            ..*self
        };
    }

    /// The state to store. A session in which nothing is counted begins with its last event; one in which something is counted
    /// leads to no other.
    pub fn settled(mut self) -> Self {
        self.started_us = self.started_us.min(self.last_event_us);
        if self.is_counted() {
            self.moved_to = None;
        }
        self
    }

    /// Whether anything is counted in it; what is left of a session whose spans moved away has nothing.
    pub fn is_counted(&self) -> bool {
        self.event_count > 0
    }

    /// The status that does not depend on the clock: active, completed or error. A start after the end re-opens.
    pub fn stored_status(&self) -> SessionStatus {
        match (self.opened_us, self.ended_us) {
            (_, None) => SessionStatus::Active,
            (Some(opened), Some(ended)) if opened > ended => SessionStatus::Active,
            _ if self.ended_in_error => SessionStatus::Error,
            _ => SessionStatus::Completed,
        }
    }
}
