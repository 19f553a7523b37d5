//! Costs: by agent, model, session and tool, and over time.

use std::collections::BTreeMap;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::{DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS};
use agentlens_domain::rollups::{Dimension, Measures};
use agentlens_store::{SessionRow, TableKey, TableOrder, TablePage, provider_and_model};

use super::range::{AgentQuery, BucketQuery, Buckets, Covered, RangeQuery, sum};
use super::tables::Others;
use crate::auth::{EventsRead, Scope};
use crate::error::ApiError;
use crate::query::{self, Params};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CostsQuery {
    /// Rows per table: 100 by default, at most 1000. The sums of all other rows are in `otherAgents`, `otherModels`
    /// and `otherTools`.
    limit: Option<String>,
}

/// The number of sessions that are listed.
const TOP_SESSIONS: u32 = 100;

/// Costs by agent, model, session and tool, and over time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Costs {
    /// By agent, most expensive first.
    by_agent: Vec<AgentCost>,
    /// All agents that are not in `byAgent`; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_agents: Option<Others>,
    /// By model, most expensive first.
    by_model: Vec<ModelCost>,
    /// All models that are not in `byModel`; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_models: Option<Others>,
    /// The 100 most expensive sessions that started in the range.
    by_session: Vec<SessionCost>,
    /// Calls by tool. Tool calls have no cost of their own.
    by_tool: Vec<ToolCost>,
    /// All tools that are not in `byTool`; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_tools: Option<Others>,
    /// Costs of each bucket, oldest first.
    over_time: Vec<BucketCost>,
    /// Totals of the whole range.
    totals: TotalCost,
    /// The maximum number of rows per table.
    limit: u32,
    /// The range that the figures cover, if it differs from the requested range.
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_range: Option<Covered>,
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
    /// Cost in dollars for each agent of `byAgent`.
    by_agent: BTreeMap<String, f64>,
    /// Cost of all other agents, in dollars.
    other_agents_usd: f64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TotalCost {
    total_cost_usd: f64,
    event_count: i64,
    unknown_cost_count: i64,
}

/// Get costs by agent, model, session and tool, and over time.
#[utoipa::path(get, path = "/api/analytics/costs", tag = "analytics", params(RangeQuery, BucketQuery, AgentQuery, CostsQuery),
    responses((status = 200, description = "Costs of the range", body = Costs)))]
pub(super) async fn get_costs(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(buckets): Params<BucketQuery>,
    Params(agent): Params<AgentQuery>,
    Params(costs): Params<CostsQuery>,
) -> Result<Json<Costs>, ApiError> {
    let range = params.read(scope.now_us())?.by(&buckets)?.of_agent(&agent);
    let limit = query::limit_of(costs.limit.as_ref(), DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS)?;
    let workspace = &scope.workspace;
    let ((agents, covered), (models, _), (tools, _)) = tokio::try_join!(
        range.series(workspace, Dimension::Agent),
        range.whole(workspace, Dimension::Model),
        range.whole(workspace, Dimension::Tool)
    )?;
    let (by_agent, by_model, by_tool, sessions) = tokio::try_join!(
        workspace.analytics().table(&agents, TableKey::Agent, TableOrder::Cost, None, limit),
        workspace.analytics().table(&models, TableKey::Model, TableOrder::Cost, None, limit),
        workspace.analytics().table(&tools, TableKey::Name, TableOrder::ToolCalls, None, limit),
        workspace.sessions().costliest(
            (range.environment.as_deref(), range.agent_id.as_deref()),
            (range.from_us, range.end_us - 1),
            TOP_SESSIONS,
        )
    )?;
    let shown: Vec<String> = by_agent.rows.iter().map(|(agent_id, _)| agent_id.clone()).collect();
    let (of_bucket, of_agent) = (range.buckets.clone(), range.buckets.clone());
    let (all, shown) = tokio::try_join!(
        workspace.analytics().sums(&agents, None, move |cell| of_bucket.start(cell.bucket_us)),
        workspace.analytics().sums(&agents, Some((TableKey::Agent, shown)), move |cell| {
            (of_agent.start(cell.bucket_us), cell.agent_id.clone())
        })
    )?;
    let total = sum(&all);
    Ok(Json(Costs {
        other_agents: Others::of(&by_agent),
        by_agent: agent_costs(by_agent),
        other_models: Others::of(&by_model),
        by_model: model_costs(by_model),
        by_session: sessions.into_iter().map(SessionCost::of).collect(),
        other_tools: Others::of(&by_tool),
        by_tool: tool_costs(by_tool),
        over_time: over_time(&range.buckets, all, shown),
        totals: TotalCost {
            total_cost_usd: nanos_to_usd(total.cost_nanos),
            event_count: total.event_count,
            unknown_cost_count: total.unknown_cost_count,
        },
        limit,
        covered_range: covered,
    }))
}

impl SessionCost {
    fn of(row: SessionRow) -> Self {
        Self {
            session_id: row.session_id,
            agent_id: row.agent_id,
            total_cost_usd: nanos_to_usd(row.cost_nanos),
        }
    }
}

fn agent_costs(page: TablePage) -> Vec<AgentCost> {
    let rows = page.rows.into_iter();
    rows.map(|(agent_id, sum)| AgentCost {
        agent_id,
        total_cost_usd: nanos_to_usd(sum.cost_nanos),
        event_count: sum.event_count,
        session_count: sum.session_count,
    })
    .collect()
}

fn model_costs(page: TablePage) -> Vec<ModelCost> {
    let rows = page.rows.into_iter();
    rows.map(|(key, sum)| {
        let (provider, model) = provider_and_model(&key);
        ModelCost {
            provider: provider.to_owned(),
            model: model.to_owned(),
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            call_count: sum.llm_call_count,
            input_tokens: sum.usage.input,
            output_tokens: sum.usage.output,
            unknown_cost_count: sum.unknown_cost_count,
        }
    })
    .collect()
}

fn tool_costs(page: TablePage) -> Vec<ToolCost> {
    let rows = page.rows.into_iter();
    rows.map(|(tool_name, sum)| ToolCost { tool_name, call_count: sum.tool_call_count }).collect()
}

/// The costs of each bucket: in total, and for each agent that has a row of its own.
fn over_time(
    buckets: &Buckets,
    all: BTreeMap<i64, Measures>,
    shown: BTreeMap<(i64, String), Measures>,
) -> Vec<BucketCost> {
    let mut others: BTreeMap<i64, i64> = all.iter().map(|(at, sum)| (*at, sum.cost_nanos)).collect();
    let mut by_agent: BTreeMap<i64, BTreeMap<String, f64>> = BTreeMap::new();
    for ((at, agent_id), sum) in shown {
        by_agent.entry(at).or_default().insert(agent_id, nanos_to_usd(sum.cost_nanos));
        let others = others.entry(at).or_default();
        *others = others.saturating_sub(sum.cost_nanos);
    }
    all.into_iter()
        .map(|(at, sum)| BucketCost {
            bucket: buckets.text(at),
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            event_count: sum.event_count,
            by_agent: by_agent.remove(&at).unwrap_or_default(),
            other_agents_usd: nanos_to_usd(others.get(&at).copied().unwrap_or(0).max(0)),
        })
        .collect()
}
