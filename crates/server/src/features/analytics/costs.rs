//! Costs: by agent, model, session and tool, and over time.

use std::collections::BTreeMap;

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::rollups::Dimension;
use agentlens_store::CellRow;

use super::range::{Range, RangeQuery, bucket_text, sum, sum_by};
use crate::auth::{EventsRead, Scope};
use crate::error::{ApiError, ErrorBody};
use crate::query::Params;

/// Sessions that are listed, the dearest first.
const TOP_SESSIONS: u32 = 100;

/// Where the money went.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Costs {
    /// By agent, the dearest first.
    by_agent: Vec<AgentCost>,
    /// By model, the dearest first.
    by_model: Vec<ModelCost>,
    /// The 100 dearest sessions that began in the range.
    by_session: Vec<SessionCost>,
    /// By tool: calls, which cost nothing themselves.
    by_tool: Vec<ToolCost>,
    /// By bucket, oldest first.
    over_time: Vec<BucketCost>,
    /// Over the whole range.
    totals: TotalCost,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AgentCost {
    agent_id: String,
    total_cost_usd: f64,
    event_count: i64,
    session_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModelCost {
    provider: String,
    model: String,
    total_cost_usd: f64,
    call_count: i64,
    input_tokens: i64,
    output_tokens: i64,
    unknown_cost_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionCost {
    session_id: String,
    agent_id: String,
    total_cost_usd: f64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ToolCost {
    tool_name: String,
    call_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BucketCost {
    bucket: String,
    total_cost_usd: f64,
    event_count: i64,
    /// Dollars by agent.
    by_agent: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TotalCost {
    total_cost_usd: f64,
    event_count: i64,
    unknown_cost_count: i64,
}

/// Costs by agent, model, session and tool, and over time.
#[utoipa::path(get, path = "/api/analytics/costs", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = Costs), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_costs(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<Costs>, ApiError> {
    let range = params.read(scope.now_us())?;
    let workspace = scope.workspace();
    let (agents, models, tools, sessions) = tokio::try_join!(
        range.cells(&scope.tenant, workspace, Dimension::Agent),
        range.cells(&scope.tenant, workspace, Dimension::Model),
        range.cells(&scope.tenant, workspace, Dimension::Tool),
        async {
            Ok(scope
                .tenant
                .dearest_sessions(
                    workspace,
                    range.agent_id.as_deref(),
                    range.from_us,
                    range.to_us,
                    TOP_SESSIONS,
                )
                .await?)
        }
    )?;
    let total = sum(&agents);
    Ok(Json(Costs {
        by_agent: by_agent(&agents),
        by_model: by_model(&models),
        by_session: sessions
            .into_iter()
            .map(|row| SessionCost {
                session_id: row.session_id,
                agent_id: row.agent_id,
                total_cost_usd: nanos_to_usd(row.cost_nanos),
            })
            .collect(),
        by_tool: by_tool(&tools),
        over_time: over_time(&range, &agents),
        totals: TotalCost {
            total_cost_usd: nanos_to_usd(total.cost_nanos),
            event_count: total.event_count,
            unknown_cost_count: total.unknown_cost_count,
        },
    }))
}

fn by_agent(cells: &[CellRow]) -> Vec<AgentCost> {
    let sums = sum_by(cells, |cell| cell.agent_id.clone()).into_iter();
    let mut agents: Vec<AgentCost> = sums
        .map(|(agent_id, sum)| AgentCost {
            agent_id,
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            event_count: sum.event_count,
            session_count: sum.session_count,
        })
        .collect();
    agents.sort_by(|a, b| b.total_cost_usd.total_cmp(&a.total_cost_usd));
    agents
}

fn by_model(cells: &[CellRow]) -> Vec<ModelCost> {
    let sums = sum_by(cells, |cell| (cell.provider.clone(), cell.name.clone())).into_iter();
    let mut models: Vec<ModelCost> = sums
        .map(|((provider, model), sum)| ModelCost {
            provider,
            model,
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            call_count: sum.llm_call_count,
            input_tokens: sum.usage.input,
            output_tokens: sum.usage.output,
            unknown_cost_count: sum.unknown_cost_count,
        })
        .collect();
    models.sort_by(|a, b| b.total_cost_usd.total_cmp(&a.total_cost_usd));
    models
}

fn by_tool(cells: &[CellRow]) -> Vec<ToolCost> {
    let sums = sum_by(cells, |cell| cell.name.clone()).into_iter();
    let mut tools: Vec<ToolCost> =
        sums.map(|(tool_name, sum)| ToolCost { tool_name, call_count: sum.tool_call_count }).collect();
    tools.sort_by_key(|tool| std::cmp::Reverse(tool.call_count));
    tools
}

fn over_time(range: &Range, agents: &[CellRow]) -> Vec<BucketCost> {
    let mut buckets: BTreeMap<i64, BucketCost> = BTreeMap::new();
    for cell in agents {
        let at = range.bucket(cell.bucket_us);
        let bucket = buckets.entry(at).or_insert_with(|| BucketCost {
            bucket: bucket_text(at),
            total_cost_usd: 0.0,
            event_count: 0,
            by_agent: BTreeMap::new(),
        });
        let cost_usd = nanos_to_usd(cell.measures.cost_nanos);
        bucket.total_cost_usd += cost_usd;
        bucket.event_count += cell.measures.event_count;
        *bucket.by_agent.entry(cell.agent_id.clone()).or_default() += cost_usd;
    }
    buckets.into_values().collect()
}
