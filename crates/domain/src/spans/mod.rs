//! Spans: what OpenTelemetry clients send, in one model whatever dialect they speak.
//!
//! Each thing that arrives (a span, or a log record that speaks of one) is an [`Arrival`]: it becomes an event, is
//! chained and never changes. A span as it is shown and counted is a projection of all its arrivals, whatever their
//! order; see [`resolve`] for which spans own the tokens of a trace.

mod calls;
mod contribution;
mod counting;
mod forest;
mod links;
mod region;
mod span;
mod structure;

pub use calls::MAX_SAME_ANSWER;
pub use contribution::{Contribution, Sign};
pub use forest::{Forest, Own, Shown, Subtree, Trace, TraceShown, resolve};
pub use links::{Kept, Links, MAX_WIDE_CHANGES, WIDE_CHANGE_SPANS};
pub use region::{
    ChangedSpan, ChangedTrace, Changes, MAX_CALL_SPANS, MAX_FOLLOWED_TRACES, MAX_HOPS, MAX_LEVELS, Needs,
    Region, SpanPlace,
};
pub use span::{MAX_ARRIVALS, MAX_VERSIONS, Span, StoredArrival};

use serde::{Deserialize, Serialize};

use crate::cost::ServiceTier;
use crate::events::EventType;
use crate::usage::Usage;

/// Ids of events that are arrivals of spans begin with this; no client may choose such an id.
pub const ARRIVAL_ID_PREFIX: &str = "otel_";

/// Ids of events that came as log records without a span begin with this; no client may choose such an id.
pub const LOG_RECORD_ID_PREFIX: &str = "otellog_";

/// What a span is about.
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
    /// Texts embedded.
    Embedding,
    /// Documents ranked anew.
    Rerank,
    /// One call of a tool.
    Tool,
    /// Documents retrieved.
    Retriever,
    /// An agent's memory read or written.
    Memory,
    /// A guardrail's verdict.
    Guardrail,
    /// An evaluation.
    Evaluator,
    /// A prompt rendered.
    Prompt,
    /// A step of a chain that is none of the above.
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

    /// The type of the event that such a span is when it went well.
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

    /// The type of the event that such a span is when it failed.
    pub fn event_type_of_failure(self) -> EventType {
        if self == Self::Tool { EventType::ToolError } else { self.event_type() }
    }

    /// Whether a span of this kind calls a model and so owns the tokens it names; what other kinds name is a sum over
    /// those below them.
    pub fn calls_a_model(self) -> bool {
        matches!(self, Self::Llm | Self::Embedding | Self::Rerank)
    }
}

/// A session that a span names, and how much that name is worth.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionClaim {
    /// The worth of the key that the name was read from: 0 is best.
    pub rank: u8,
    /// The session's id.
    pub id: String,
}

/// What brought an arrival.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalSource {
    /// A log record that speaks of a span.
    #[default]
    Log,
    /// The span itself.
    Span,
}

/// The typed facts of one arrival. Absent means that the client did not say, or said something unreadable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// The trace, 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// The span, 16 lower-case hexadecimal digits.
    pub span_id: String,
    /// The span above it.
    pub parent_span_id: Option<String>,
    /// Span or log record.
    pub source: ArrivalSource,
    /// What tells this arrival from another of the same span: the start of the SHA-256 over its payload.
    pub digest: [u8; 8],
    /// The span's name as sent.
    pub span_name: Option<String>,
    /// What it is about; absent where only a log record speaks.
    pub kind: Option<SpanKind>,
    /// When it began, microseconds UTC.
    pub start_us: i64,
    /// When it ended, microseconds UTC; the start where no end was sent.
    pub end_us: i64,
    /// The session that it names.
    pub session: Option<SessionClaim>,
    /// The agent that it names.
    pub agent_id: Option<String>,
    /// The agent's name for people.
    pub agent_name: Option<String>,
    /// The agent where nothing in the trace names one: the workflow's name, else the service's.
    pub service: Option<String>,
    /// The end user.
    pub user_id: Option<String>,
    /// The environment that the client names.
    pub environment: Option<String>,
    /// The model's provider, in its canonical name.
    pub provider: Option<String>,
    /// The model that answered, else the one asked for.
    pub model: Option<String>,
    /// The provider's id of the answer.
    pub response_id: Option<String>,
    /// Tokens, inclusive.
    pub usage: Option<Usage>,
    /// The cost that the client states, in nano-dollars.
    pub reported_cost_nanos: Option<i64>,
    /// Whether the client answered from a cache of its own, so that nobody billed anything.
    pub is_cache_hit: bool,
    /// The service tier that the call was answered at, else the one asked for.
    pub service_tier: Option<ServiceTier>,
    /// The tool, for tools.
    pub tool_name: Option<String>,
    /// The tool call's id.
    pub call_id: Option<String>,
    /// From the start to the first token, microseconds.
    pub first_token_us: Option<i64>,
    /// Whether it failed.
    pub is_error: bool,
}

#[cfg(test)]
mod tests;
