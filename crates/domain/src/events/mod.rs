//! Events: their types, how one is read from what a client sent, and the facts that are read out of it.
//!
//! An event is immutable. What the client sent is kept and hashed as it is; the typed [`Facts`] beside it are
//! only what could be read, and never a reason to refuse what published clients really send.

mod accept;
mod columns;
mod facts;
mod payloads;
mod reference;
mod results;

pub use accept::{AcceptContext, Idempotency, Refusal, accept, is_spelled_alike};
pub(crate) use columns::{hash_of, preview, usage_parts};
pub use facts::{Facts, SessionFact, facts_of};
pub use reference::{FieldReference, FieldShape, TypeReference, reference};
pub use results::is_failed_tool_result;

use serde::{Deserialize, Serialize};

use crate::spans::Arrival;

/// What an event is filed under when nothing names an agent.
pub const UNKNOWN_AGENT: &str = "unknown";

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the protocol.
            pub const EVERY: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Reads a name; `None` if there is no such value.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

text_enum! {
    /// Event types. Clients may send the first 21; the server writes the others.
    EventType {
        /// A session begins.
        SessionStarted = "session_started",
        /// A session ends.
        SessionEnded = "session_ended",
        /// A tool is called.
        ToolCall = "tool_call",
        /// A tool answered.
        ToolResponse = "tool_response",
        /// A tool failed.
        ToolError = "tool_error",
        /// Someone is asked to approve.
        ApprovalRequested = "approval_requested",
        /// Approved.
        ApprovalGranted = "approval_granted",
        /// Denied.
        ApprovalDenied = "approval_denied",
        /// Nobody answered in time.
        ApprovalExpired = "approval_expired",
        /// A form was submitted.
        FormSubmitted = "form_submitted",
        /// A form was completed.
        FormCompleted = "form_completed",
        /// A form expired.
        FormExpired = "form_expired",
        /// A cost was stated.
        CostTracked = "cost_tracked",
        /// A model is called.
        LlmCall = "llm_call",
        /// A model answered.
        LlmResponse = "llm_response",
        /// An alert fired.
        AlertTriggered = "alert_triggered",
        /// An alert is over.
        AlertResolved = "alert_resolved",
        /// Documents were retrieved.
        Retrieval = "retrieval",
        /// Texts were embedded.
        Embedding = "embedding",
        /// A step of a chain.
        ChainStep = "chain_step",
        /// Anything else, with its own `type`.
        Custom = "custom",
        /// Server only: an error.
        Error = "error",
        /// Server only: an evaluation's result.
        EvalResult = "eval_result",
        /// Server only: a person's score.
        HumanScore = "human_score",
        /// Server only: feedback.
        Feedback = "feedback",
        /// Server only: a skill was activated.
        SkillActivated = "skill_activated",
    }
}

text_enum! {
    /// How grave an event is.
    Severity {
        /// For those who debug.
        Debug = "debug",
        /// The default.
        Info = "info",
        /// Something is odd.
        Warn = "warn",
        /// Something failed.
        Error = "error",
        /// Something failed badly.
        Critical = "critical",
    }
}

impl EventType {
    /// Whether only the server may write this type.
    pub fn is_server_only(self) -> bool {
        matches!(
            self,
            Self::Error | Self::EvalResult | Self::HumanScore | Self::Feedback | Self::SkillActivated
        )
    }
}

/// An event that was accepted and has not been given its place in a chain yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// The client's id, or a ULID of ours.
    pub id: String,
    /// Set when the id came from the client: what a repeat is compared with (see [`accept()`]).
    pub content_digest: Option<[u8; 16]>,
    /// The run or conversation.
    pub session_id: String,
    /// The agent observed.
    pub agent_id: String,
    /// Its type.
    pub event_type: EventType,
    /// Its severity.
    pub severity: Severity,
    /// The timestamp as sent, or the server's when none was sent; the hash covers this text.
    pub timestamp: String,
    /// The instant that `timestamp` denotes, in microseconds UTC; everything is ordered by it.
    pub ts_us: i64,
    /// The payload: canonical JSON, with number literals as sent where a double can't hold them.
    pub payload: String,
    /// The metadata, in the same form.
    pub metadata: String,
    /// Whether payload or metadata hold a number literal that a double can't; then the text is not yet what is hashed.
    pub holds_wide_numbers: bool,
    /// The environment that the client names; absent where that of the key holds.
    pub environment: Option<String>,
    /// What was read out of payload and metadata.
    pub facts: Facts,
    /// Set when the event is what arrived of an OpenTelemetry span.
    pub span: Option<Box<Arrival>>,
}

impl NewEvent {
    /// Whether sessions and rollups count this event as an error.
    pub fn is_error(&self) -> bool {
        matches!(self.severity, Severity::Error | Severity::Critical)
            || self.event_type == EventType::ToolError
    }
}
