//! Spans of OpenTelemetry clients, in one model for all dialects.
//!
//! Each received span, and each log record that belongs to a span, is an [`Arrival`]. It becomes an event, is chained and never
//! changes. The span that is shown and counted is computed from all its arrivals; their order does not matter. Example: a client
//! exports a span at its start and again at its end. These are two arrivals and two events, but one span.
//!
//! [`resolve`] decides which spans own the tokens of a trace.

mod calls;
mod contribution;
mod counting;
mod forest;
mod library_calls;
mod links;
mod projection;
mod region;
mod span;
mod stored;
mod structure;

pub use calls::MAX_SAME_ANSWER;
pub use contribution::{Contribution, Sign};
pub use forest::{Forest, Own, Shown, Subtree, Trace, TraceShown, resolve};
pub use links::{Kept, Links, MAX_WIDE_CHANGES, WIDE_CHANGE_SPANS};
pub use projection::{
    Arrived, Projection, RemainingTraces, SessionToRead, SpanChange, SpanProjector, TraceChange,
};
pub use region::{
    ChangedSpan, ChangedTrace, Changes, MAX_CALL_SPANS, MAX_FOLLOWED_TRACES, MAX_HOPS, MAX_LEVELS, Needs,
    Region, SpanPlace,
};
pub use span::{MAX_ARRIVALS, MAX_VERSIONS, Span, StoredArrival};
pub use stored::{StateError, StoredSpan, StoredTrace, TraceState, decode_state, encode_state};

use serde::{Deserialize, Serialize};

use crate::cost::ServiceTier;
use crate::events::EventType;
use crate::usage::Usage;

/// Prefix of the ids of events that are arrivals of spans. Clients can't choose such an id.
pub const ARRIVAL_ID_PREFIX: &str = "otel_";

/// Prefix of the ids of events that are log records without a span. Clients can't choose such an id.
pub const LOG_RECORD_ID_PREFIX: &str = "otellog_";

/// The kind of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// An agent's run.
    Agent,
    /// A workflow.
    Workflow,
    /// A step or turn of an agent.
    Step,
    /// One call of a model.
    Llm,
    /// Embedding of texts.
    Embedding,
    /// Reranking of documents.
    Rerank,
    /// One call of a tool.
    Tool,
    /// Retrieval of documents.
    Retriever,
    /// A read or write of an agent's memory.
    Memory,
    /// A guardrail's verdict.
    Guardrail,
    /// An evaluation.
    Evaluator,
    /// Rendering of a prompt.
    Prompt,
    /// Another step of a chain.
    Chain,
    /// A request over HTTP.
    Http,
    /// Anything else.
    Other,
}

impl SpanKind {
    /// Every kind.
    pub const EVERY: [Self; 15] = [
        Self::Agent,
        Self::Workflow,
        Self::Step,
        Self::Llm,
        Self::Embedding,
        Self::Rerank,
        Self::Tool,
        Self::Retriever,
        Self::Memory,
        Self::Guardrail,
        Self::Evaluator,
        Self::Prompt,
        Self::Chain,
        Self::Http,
        Self::Other,
    ];

    /// The name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workflow => "workflow",
            Self::Step => "step",
            Self::Llm => "llm",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
            Self::Tool => "tool",
            Self::Retriever => "retriever",
            Self::Memory => "memory",
            Self::Guardrail => "guardrail",
            Self::Evaluator => "evaluator",
            Self::Prompt => "prompt",
            Self::Chain => "chain",
            Self::Http => "http",
            Self::Other => "other",
        }
    }

    /// The event type of a successful span of this kind.
    pub fn event_type(self) -> EventType {
        match self {
            Self::Llm => EventType::LlmResponse,
            Self::Embedding => EventType::Embedding,
            Self::Tool => EventType::ToolCall,
            Self::Retriever => EventType::Retrieval,
            Self::Evaluator => EventType::EvalResult,
            Self::Agent | Self::Workflow | Self::Step | Self::Chain => EventType::ChainStep,
            Self::Rerank | Self::Memory | Self::Guardrail | Self::Prompt | Self::Http | Self::Other => {
                EventType::Custom
            }
        }
    }

    /// The event type of a failed span of this kind.
    pub fn event_type_of_failure(self) -> EventType {
        if self == Self::Tool { EventType::ToolError } else { self.event_type() }
    }

    /// Whether a span of this kind calls a model and so owns the tokens it reports. The tokens of other kinds are sums over
    /// their descendants.
    pub fn calls_a_model(self) -> bool {
        matches!(self, Self::Llm | Self::Embedding | Self::Rerank)
    }
}

/// A session that a span names, and the rank of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionClaim {
    /// The rank of the key that holds the name; 0 is best.
    pub rank: u8,
    /// The session's id.
    pub id: String,
}

/// The source of an arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalSource {
    /// A log record that belongs to a span.
    #[default]
    Log,
    /// The span itself.
    Span,
}

/// The typed facts of one arrival. A fact is absent if the client did not send it or sent something unreadable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// The trace, 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// The span, 16 lower-case hexadecimal digits.
    pub span_id: String,
    /// The parent span.
    pub parent_span_id: Option<String>,
    /// Span or log record.
    pub source: ArrivalSource,
    /// Distinguishes the arrivals of one span: the start of the SHA-256 of the payload.
    pub digest: [u8; 8],
    /// The span's name as sent.
    pub span_name: Option<String>,
    /// The kind; absent for most log records.
    pub kind: Option<SpanKind>,
    /// The start, microseconds UTC.
    pub start_us: i64,
    /// The end, microseconds UTC; the start if no end was sent.
    pub end_us: i64,
    /// The session that it names.
    pub session: Option<SessionClaim>,
    /// The agent that it names.
    pub agent_id: Option<String>,
    /// The agent's display name.
    pub agent_name: Option<String>,
    /// The agent if nothing in the trace names one: the workflow's name, otherwise the service's.
    pub service: Option<String>,
    /// The end user.
    pub user_id: Option<String>,
    /// The environment that the client names.
    pub environment: Option<String>,
    /// The model's provider, in its canonical name.
    pub provider: Option<String>,
    /// The model that answered, otherwise the requested one.
    pub model: Option<String>,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
    /// Tokens, inclusive.
    pub usage: Option<Usage>,
    /// The cost that the client sent, in nano-dollars.
    pub reported_cost_nanos: Option<i64>,
    /// Whether the answer came from the client's own cache, so that nothing was billed.
    pub is_cache_hit: bool,
    /// The service tier of the answer, otherwise the requested one.
    pub service_tier: Option<ServiceTier>,
    /// The tool, for tools.
    pub tool_name: Option<String>,
    /// The tool call's id.
    pub call_id: Option<String>,
    /// The time from the start to the first token, microseconds.
    pub first_token_us: Option<i64>,
    /// Whether it failed.
    pub is_error: bool,
    /// Whether the model provider's own library made the span. An instrumentation of that library may have made another one of
    /// the same call.
    pub is_of_library: bool,
}

#[cfg(test)]
pub(crate) mod tests;
