//! Figures over time: everything, and model calls.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::rollups::{Dimension, Measures};

use super::range::{RangeQuery, bucket_text, sum, sum_by};
use crate::api::{mean_ms, quantile_ms, ratio};
use crate::auth::{EventsRead, Scope};
use crate::error::{ApiError, ErrorBody};
use crate::query::Params;

/// Figures over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Analytics {
    /// By bucket, oldest first; buckets without events are left out.
    buckets: Vec<Bucket>,
    /// Over the whole range.
    totals: Figures,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    /// The start of the bucket.
    timestamp: String,
    /// Its figures.
    #[serde(flatten)]
    figures: Figures,
}

/// Figures of some events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// Events.
    event_count: i64,
    /// Tool calls.
    tool_call_count: i64,
    /// Model answers.
    llm_call_count: i64,
    /// Errors.
    error_count: i64,
    /// Sessions that began.
    unique_sessions: i64,
    /// Mean duration of model and tool answers, in milliseconds.
    avg_latency_ms: f64,
    /// Median of the same.
    p50_latency_ms: f64,
    /// 95th percentile of the same (within 1.1 %).
    p95_latency_ms: f64,
    /// Cost in dollars.
    total_cost_usd: f64,
    /// Answers with tokens whose cost is unknown; they are not in the cost.
    unknown_cost_count: i64,
    /// Input tokens.
    total_input_tokens: i64,
    /// Output tokens.
    total_output_tokens: i64,
}

impl Figures {
    fn of(measures: &Measures) -> Self {
        Self {
            event_count: measures.event_count,
            tool_call_count: measures.tool_call_count,
            llm_call_count: measures.llm_call_count,
            error_count: measures.error_count,
            unique_sessions: measures.session_count,
            avg_latency_ms: mean_ms(&measures.latency),
            p50_latency_ms: quantile_ms(&measures.latency, 0.5),
            p95_latency_ms: quantile_ms(&measures.latency, 0.95),
            total_cost_usd: nanos_to_usd(measures.cost_nanos),
            unknown_cost_count: measures.unknown_cost_count,
            total_input_tokens: measures.usage.input,
            total_output_tokens: measures.usage.output,
        }
    }
}

/// Figures over time.
#[utoipa::path(get, path = "/api/analytics", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = Analytics), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_analytics(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<Analytics>, ApiError> {
    let range = params.read(scope.now_us())?;
    let dimension = if range.agent_id.is_some() { Dimension::Agent } else { Dimension::Total };
    let cells = range.cells(&scope.tenant, scope.workspace(), dimension).await?;
    let buckets = range.by_bucket(&cells);
    let buckets = buckets
        .iter()
        .map(|(at, measures)| Bucket { timestamp: bucket_text(*at), figures: Figures::of(measures) })
        .collect();
    Ok(Json(Analytics { buckets, totals: Figures::of(&sum(&cells)) }))
}

/// Model calls: totals, by model, over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LlmAnalytics {
    /// Over the whole range.
    summary: LlmSummary,
    /// By provider and model, the dearest first.
    by_model: Vec<ModelFigures>,
    /// By bucket, oldest first.
    by_time: Vec<TimeFigures>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LlmSummary {
    /// Model answers.
    total_calls: i64,
    /// Cost in dollars.
    total_cost_usd: f64,
    /// Input tokens, cached ones included.
    total_input_tokens: i64,
    /// Output tokens, reasoning included.
    total_output_tokens: i64,
    /// Of the input, read from a cache.
    total_cache_read_tokens: i64,
    /// Of the input, written to a cache.
    total_cache_write_tokens: i64,
    /// Of the output, reasoning.
    total_reasoning_tokens: i64,
    /// Mean latency in milliseconds.
    avg_latency_ms: f64,
    /// 95th percentile of the latency (within 1.1 %).
    p95_latency_ms: f64,
    /// Cost of a call in dollars.
    avg_cost_per_call: f64,
    /// Answers with tokens whose cost is unknown; they are not in the cost.
    unknown_cost_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModelFigures {
    /// The provider; empty when no event names one.
    provider: String,
    /// The model.
    model: String,
    #[serde(flatten)]
    figures: CallFigures,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TimeFigures {
    /// The start of the bucket.
    bucket: String,
    #[serde(flatten)]
    figures: CallFigures,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CallFigures {
    /// Model answers.
    calls: i64,
    /// Cost in dollars.
    cost_usd: f64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
    /// Mean latency in milliseconds.
    avg_latency_ms: f64,
    /// 95th percentile of the latency (within 1.1 %).
    p95_latency_ms: f64,
}

impl CallFigures {
    fn of(measures: &Measures) -> Self {
        Self {
            calls: measures.llm_call_count,
            cost_usd: nanos_to_usd(measures.cost_nanos),
            input_tokens: measures.usage.input,
            output_tokens: measures.usage.output,
            avg_latency_ms: mean_ms(&measures.latency),
            p95_latency_ms: quantile_ms(&measures.latency, 0.95),
        }
    }
}

/// Model calls: totals, by model, over time.
#[utoipa::path(get, path = "/api/analytics/llm", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = LlmAnalytics), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_llm_analytics(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<LlmAnalytics>, ApiError> {
    let range = params.read(scope.now_us())?;
    let cells = range.cells(&scope.tenant, scope.workspace(), Dimension::Model).await?;
    let total = sum(&cells);
    let mut by_model: Vec<ModelFigures> = sum_by(&cells, |cell| (cell.provider.clone(), cell.name.clone()))
        .into_iter()
        .map(|((provider, model), measures)| ModelFigures {
            provider,
            model,
            figures: CallFigures::of(&measures),
        })
        .collect();
    by_model.sort_by(|a, b| {
        b.figures.cost_usd.total_cmp(&a.figures.cost_usd).then(b.figures.calls.cmp(&a.figures.calls))
    });
    let by_time = range.by_bucket(&cells);
    Ok(Json(LlmAnalytics {
        summary: LlmSummary {
            total_calls: total.llm_call_count,
            total_cost_usd: nanos_to_usd(total.cost_nanos),
            total_input_tokens: total.usage.input,
            total_output_tokens: total.usage.output,
            total_cache_read_tokens: total.usage.cache_read,
            total_cache_write_tokens: total.usage.cache_write_5m + total.usage.cache_write_1h,
            total_reasoning_tokens: total.usage.reasoning,
            avg_latency_ms: mean_ms(&total.latency),
            p95_latency_ms: quantile_ms(&total.latency, 0.95),
            avg_cost_per_call: ratio(total.cost_nanos, total.llm_call_count) / 1e9,
            unknown_cost_count: total.unknown_cost_count,
        },
        by_model,
        by_time: by_time
            .iter()
            .map(|(at, measures)| TimeFigures {
                bucket: bucket_text(*at),
                figures: CallFigures::of(measures),
            })
            .collect(),
    }))
}
