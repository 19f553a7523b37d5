//! The fields of the model that attributes are read into.

use serde::Deserialize;

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A fact that an attribute may hold, whatever its key. The table names the fields in snake case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum Field {
            $($(#[$doc])* $name,)+
        }

        impl Field {
            /// Every field, in the order of declaration.
            pub(super) const EVERY: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

fields! {
    /// The model's provider.
    Provider,
    /// The model that answered.
    ResponseModel,
    /// The model that answered if known, otherwise the requested one.
    AnyModel,
    /// The requested model.
    RequestModel,
    /// The provider's id of the answer.
    ResponseId,
    /// A text that may hold the provider's own answer.
    ResponseObject,
    /// All input tokens.
    InputTokens,
    /// All output tokens.
    OutputTokens,
    /// Input and output tokens.
    TotalTokens,
    /// Input tokens read from the provider's cache.
    CacheReadTokens,
    /// Input tokens written to the provider's cache.
    CacheWriteTokens,
    /// The part of the cache writes that is kept for an hour.
    CacheWriteLongTokens,
    /// Output tokens spent on reasoning.
    ReasoningTokens,
    /// Input tokens that were audio.
    AudioInputTokens,
    /// Output tokens that were audio.
    AudioOutputTokens,
    /// Parts of the input tokens in one object.
    InputTokenDetails,
    /// Parts of the output tokens in one object.
    OutputTokenDetails,
    /// All tokens in one object.
    UsageObject,
    /// Present if the input certainly includes cached tokens.
    InclusiveInput,
    /// Present if the counts use the provider's own convention.
    ProviderConvention,
    /// Further metadata from the provider, as the Vercel SDK passes it on.
    ProviderMetadata,
    /// The cost in dollars.
    Cost,
    /// The input's part of the cost.
    CostInput,
    /// The output's part of the cost.
    CostOutput,
    /// Costs in one object.
    CostObject,
    /// The end user.
    User,
    /// The agent's id.
    AgentId,
    /// The agent's name.
    AgentName,
    /// The name of the span's subject, such as its agent or tool.
    EntityName,
    /// The workflow's name.
    WorkflowName,
    /// The service's name.
    Service,
    /// The process of the service.
    ServiceInstance,
    /// The environment.
    Environment,
    /// The tool's name.
    ToolName,
    /// The tool's outcome in one word.
    ToolStatus,
    /// The tool call's id.
    CallId,
    /// Seconds to the first token.
    FirstTokenSeconds,
    /// Milliseconds to the first token.
    FirstTokenMillis,
    /// Microseconds to the first token.
    FirstTokenMicros,
    /// The time of the first token.
    FirstTokenInstant,
    /// The error's class.
    ErrorType,
    /// The error's text.
    ErrorMessage,
    /// The exception's class, on a log record.
    ExceptionType,
    /// Langfuse's level.
    Level,
    /// Whether the client answered from its own cache.
    CacheHit,
    /// An object that may hold whether the client answered from its own cache.
    CacheHitObject,
    /// Whether the call went through the batch API.
    Batch,
    /// The service tier of the call.
    ServiceTier,
    /// OpenTelemetry's name of the operation.
    Operation,
    /// Logfire's type of the span.
    SpanType,
    /// The system's instructions.
    System,
    /// The messages sent to the model.
    InputMessages,
    /// The messages that the model returned.
    OutputMessages,
    /// The whole conversation.
    AllMessages,
    /// The answer's text.
    ResponseText,
    /// The answer as an object.
    ResponseJson,
    /// The answer's reasoning.
    ResponseReasoning,
    /// The tool calls of the answer.
    ResponseToolCalls,
    /// The tools that the model may call.
    Tools,
    /// The request's settings in one object.
    Parameters,
    /// Why the answer ended.
    FinishReasons,
    /// A tool's arguments.
    Arguments,
    /// A tool's result.
    Result,
    /// The input of a span of another kind.
    Input,
    /// Its output.
    Output,
    /// The query of a retriever.
    Query,
    /// The documents that a retriever found.
    Documents,
    /// The vectors of an embedding.
    Vectors,
    /// The length of an embedding's vectors.
    EmbeddingDimension,
    /// The evaluation's name.
    EvaluationName,
    /// Its score.
    EvaluationScore,
    /// Its verdict in one word.
    EvaluationLabel,
    /// Its reasons.
    EvaluationExplanation,
}
