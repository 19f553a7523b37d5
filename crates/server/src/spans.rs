//! The JSON of a span, which several features share.

use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_views::{CurrentSpan, SpanCost};

use crate::api::{CostView, ms};

/// A span with its current values.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpanView {
    /// The id of its trace.
    trace_id: String,
    /// Its id.
    span_id: String,
    /// The id of the span under which it is shown; absent for roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    /// `agent`, `workflow`, `step`, `llm`, `embedding`, `rerank`, `tool`, `retriever`, `memory`, `guardrail`,
    /// `evaluator`, `prompt`, `chain`, `http` or `other`.
    kind: &'static str,
    /// The id of the session in which it is shown.
    session_id: String,
    /// The id of the agent that it is counted for.
    agent_id: String,
    /// The agent's display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<String>,
    /// The end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// The environment.
    environment: String,
    /// The model's provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
    /// The time from the start to the first token, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_ms: Option<f64>,
    /// Input tokens that it owns, cached ones included. 0 if its tokens are counted on other spans.
    input_tokens: i64,
    /// Output tokens that it owns, reasoning included.
    output_tokens: i64,
    /// Input tokens read from the provider's cache.
    cache_read_tokens: i64,
    /// Input tokens written to the provider's cache.
    cache_write_tokens: i64,
    /// Output tokens used for reasoning.
    reasoning_tokens: i64,
    /// The usage that it reports, if that is counted on other spans. Example: the sum that an agent reports for its model calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_rollup: Option<RollupView>,
    /// Its cost; absent if it owns none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostView>,
    /// The amount saved by an answer from the client's own cache, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_usd: Option<f64>,
    /// The span that it is shown as part of, because both describe the same call.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_of: Option<SpanAddress>,
    /// The spans that are shown as parts of it; its tokens and cost include theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<SpanAddress>,
    /// The ids of the events that it was built from.
    event_ids: Vec<String>,
}

/// Tokens that are counted on other spans.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RollupView {
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
}

/// The address of a span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SpanAddress {
    /// The id of the trace.
    trace_id: String,
    /// The id of the span.
    span_id: String,
}

impl SpanView {
    /// The view of a span together with its parts.
    pub fn of(current: &CurrentSpan) -> Self {
        let row = &current.row;
        let (facts, shown) = (row.span.facts(), &row.span.shown);
        let (counted, own) = (&shown.counted, &shown.own);
        Self {
            trace_id: row.trace_id.clone(),
            span_id: row.span_id.clone(),
            parent_span_id: shown.parent_span_id.clone(),
            kind: current.kind().as_str(),
            session_id: row.session_id.clone(),
            agent_id: counted.agent_id.clone(),
            agent_name: facts.agent_name.clone(),
            user_id: counted.user_id.clone(),
            environment: counted.environment.clone(),
            provider: facts.provider.clone(),
            model: facts.model.clone(),
            tool_name: facts.tool_name.clone(),
            time_to_first_token_ms: current.first_token_us().map(ms),
            input_tokens: own.usage.input,
            output_tokens: own.usage.output,
            cache_read_tokens: own.usage.cache_read,
            cache_write_tokens: own.usage.cache_write_5m + own.usage.cache_write_1h,
            reasoning_tokens: own.usage.reasoning,
            reported_rollup: current
                .tokens_counted_elsewhere()
                .map(|usage| RollupView { input_tokens: usage.input, output_tokens: usage.output }),
            cost: current.cost().map(CostView::of),
            saved_usd: (own.saved_cost_nanos > 0).then(|| nanos_to_usd(own.saved_cost_nanos)),
            part_of: shown.part_of.as_ref().map(SpanAddress::of),
            parts: shown.parts.iter().map(SpanAddress::of).collect(),
            event_ids: current.event_ids(),
        }
    }
}

impl SpanAddress {
    fn of((trace_id, span_id): &(String, String)) -> Self {
        Self { trace_id: trace_id.clone(), span_id: span_id.clone() }
    }
}

impl CostView {
    fn of(cost: SpanCost) -> Self {
        Self {
            usd: nanos_to_usd(cost.nanos),
            source: cost.source.as_str().to_owned(),
            reported_usd: cost.reported_nanos.map(nanos_to_usd),
            computed_usd: cost.computed_nanos.map(nanos_to_usd),
        }
    }
}
