//! Figures over time: everything, and model calls.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::latency::Latency;
use agentlens_domain::limits::{DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS};
use agentlens_domain::rollups::{Dimension, Measures};
use agentlens_store::{TableKey, TableOrder, provider_and_model};

use super::range::{AgentQuery, BucketQuery, Covered, RangeQuery, sum};
use super::tables::{Others, Table};
use crate::api::{mean_ms, quantile_ms, ratio};
use crate::auth::{EventsRead, Scope};
use crate::error::ApiError;
use crate::query::{self, Params};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ModelQuery {
    /// Only calls of this model. `unknown` selects calls without a known model.
    model: Option<String>,
    /// Only calls of this provider.
    provider: Option<String>,
    /// Rows of `byModel`: 100 by default, at most 1000. `otherModels` holds the sum of all other rows.
    limit: Option<String>,
}

/// Figures over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Analytics {
    /// Figures of each bucket, oldest first. Buckets without events are omitted.
    buckets: Vec<Bucket>,
    /// Totals of the whole range.
    totals: Figures,
    /// The range that the figures cover, if it differs from the requested range.
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_range: Option<Covered>,
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

/// Figures of a set of events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// The number of events.
    event_count: i64,
    /// The number of tool calls.
    tool_call_count: i64,
    /// The number of model answers.
    llm_call_count: i64,
    /// The number of errors.
    error_count: i64,
    /// The number of sessions that started.
    unique_sessions: i64,
    /// Mean duration of model and tool answers, in milliseconds.
    avg_latency_ms: f64,
    /// Median duration of model and tool answers, in milliseconds.
    p50_latency_ms: f64,
    /// 95th percentile of the duration of model and tool answers, in milliseconds (within 1.1 %).
    p95_latency_ms: f64,
    /// Cost in dollars.
    total_cost_usd: f64,
    /// Answers whose cost is unknown, because their price or the number of their tokens is unknown. They are not in the cost.
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

/// Get figures over time.
#[utoipa::path(get, path = "/api/analytics", tag = "analytics", params(RangeQuery, BucketQuery, AgentQuery),
    responses((status = 200, description = "Figures of the range", body = Analytics)))]
pub(super) async fn get_analytics(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(buckets): Params<BucketQuery>,
    Params(agent): Params<AgentQuery>,
) -> Result<Json<Analytics>, ApiError> {
    let range = params.read(scope.now_us())?.by(&buckets)?.of_agent(&agent);
    let dimension = if range.agent_id.is_some() { Dimension::Agent } else { Dimension::Total };
    let (figures, covered) = range.series(&scope.workspace, dimension).await?;
    let of_cell = range.buckets.clone();
    let sums =
        scope.workspace.analytics().sums(&figures, None, move |cell| of_cell.start(cell.bucket_us)).await?;
    let buckets = sums
        .iter()
        .map(|(at, measures)| Bucket { timestamp: range.buckets.text(*at), figures: Figures::of(measures) })
        .collect();
    Ok(Json(Analytics { buckets, totals: Figures::of(&sum(&sums)), covered_range: covered }))
}

/// Model calls: totals, by model, over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LlmAnalytics {
    /// Totals of the whole range.
    summary: LlmSummary,
    /// Figures by provider and model, most expensive first. Calls without a known model are one row, `unknown`.
    by_model: Vec<ModelFigures>,
    /// All models that are not in `byModel`; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_models: Option<Others>,
    /// Figures of each bucket, oldest first.
    by_time: Vec<TimeFigures>,
    /// The maximum number of rows in `byModel`.
    limit: u32,
    /// The range that the figures cover, if it differs from the requested range.
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_range: Option<Covered>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LlmSummary {
    /// The number of model answers.
    total_calls: i64,
    /// Cost in dollars.
    total_cost_usd: f64,
    /// Input tokens, cached ones included.
    total_input_tokens: i64,
    /// Output tokens, reasoning included.
    total_output_tokens: i64,
    /// Input tokens read from a cache.
    total_cache_read_tokens: i64,
    /// Input tokens written to a cache.
    total_cache_write_tokens: i64,
    /// Output tokens used for reasoning.
    total_reasoning_tokens: i64,
    /// Mean latency in milliseconds.
    avg_latency_ms: f64,
    /// 95th percentile of the latency in milliseconds (within 1.1 %).
    p95_latency_ms: f64,
    /// The number of errors of model calls.
    error_count: i64,
    /// Errors per answer.
    error_rate: f64,
    /// Mean cost of an answer in dollars, without embedding models.
    avg_cost_per_call: f64,
    /// Answers whose cost is unknown, because their price or the number of their tokens is unknown. They are not in the cost.
    unknown_cost_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModelFigures {
    /// The provider; empty if no event names one.
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
    /// The number of model answers.
    calls: i64,
    /// The number of errors.
    error_count: i64,
    /// Errors per answer.
    error_rate: f64,
    /// Cost in dollars.
    cost_usd: f64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
    /// Mean latency in milliseconds.
    avg_latency_ms: f64,
    /// 95th percentile of the latency in milliseconds (within 1.1 %).
    p95_latency_ms: f64,
}

impl CallFigures {
    fn of(measures: &Measures, latency: &Latency) -> Self {
        Self {
            calls: measures.llm_call_count,
            error_count: measures.error_count,
            error_rate: ratio(measures.error_count, measures.llm_call_count),
            cost_usd: nanos_to_usd(measures.cost_nanos),
            input_tokens: measures.usage.input,
            output_tokens: measures.usage.output,
            avg_latency_ms: mean_ms(latency),
            p95_latency_ms: quantile_ms(latency, 0.95),
        }
    }
}

/// Get figures of model calls: totals, by model, and over time.
#[utoipa::path(get, path = "/api/analytics/llm", tag = "analytics", params(RangeQuery, BucketQuery, AgentQuery, ModelQuery),
    responses((status = 200, description = "Figures of the model calls in the range", body = LlmAnalytics)))]
pub(super) async fn get_llm_analytics(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(buckets): Params<BucketQuery>,
    Params(agent): Params<AgentQuery>,
    Params(model): Params<ModelQuery>,
) -> Result<Json<LlmAnalytics>, ApiError> {
    let mut range = params.read(scope.now_us())?.by(&buckets)?.of_agent(&agent);
    range.model = query::text(model.model.as_ref());
    range.provider = query::text(model.provider.as_ref());
    let limit = query::limit_of(model.limit.as_ref(), DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS)?;
    let (figures, covered) = range.series(&scope.workspace, Dimension::Model).await?;
    let of_cell = range.buckets.clone();
    let (by_time, table) = tokio::try_join!(
        async {
            Ok(scope
                .workspace
                .analytics()
                .sums(&figures, None, move |cell| of_cell.start(cell.bucket_us))
                .await?)
        },
        Table::read(&scope.workspace, &figures, (TableKey::Model, TableOrder::Cost), None, limit)
    )?;
    let by_model = table.page.rows.iter().map(|(key, measures)| {
        let (provider, model) = provider_and_model(key);
        ModelFigures {
            provider: provider.to_owned(),
            model: model.to_owned(),
            figures: CallFigures::of(measures, &table.latency(key)),
        }
    });
    Ok(Json(LlmAnalytics {
        summary: LlmSummary::of(&sum(&by_time), table.page.cost_of_calls_nanos),
        by_model: by_model.collect(),
        other_models: Others::of(&table.page),
        by_time: by_time
            .iter()
            .map(|(at, measures)| TimeFigures {
                bucket: range.buckets.text(*at),
                figures: CallFigures::of(measures, &measures.latency),
            })
            .collect(),
        limit,
        covered_range: covered,
    }))
}

impl LlmSummary {
    fn of(total: &Measures, cost_of_calls_nanos: i64) -> Self {
        Self {
            total_calls: total.llm_call_count,
            total_cost_usd: nanos_to_usd(total.cost_nanos),
            total_input_tokens: total.usage.input,
            total_output_tokens: total.usage.output,
            total_cache_read_tokens: total.usage.cache_read,
            total_cache_write_tokens: total.usage.cache_write_5m + total.usage.cache_write_1h,
            total_reasoning_tokens: total.usage.reasoning,
            avg_latency_ms: mean_ms(&total.latency),
            p95_latency_ms: quantile_ms(&total.latency, 0.95),
            error_count: total.error_count,
            error_rate: ratio(total.error_count, total.llm_call_count),
            avg_cost_per_call: ratio(cost_of_calls_nanos, total.llm_call_count) / 1e9,
            unknown_cost_count: total.unknown_cost_count,
        }
    }
}
