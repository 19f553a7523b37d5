//! Tables: one row for each agent, tool or user.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::rollups::Dimension;

use super::range::{RangeQuery, sum_by};
use crate::api::{mean_ms, quantile_ms, ratio};
use crate::auth::{EventsRead, Scope};
use crate::error::{ApiError, ErrorBody};
use crate::query::Params;

/// One row for each agent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentTable {
    /// The agents, the busiest first.
    agents: Vec<AgentFigures>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AgentFigures {
    agent_id: String,
    event_count: i64,
    session_count: i64,
    error_count: i64,
    /// Errors per event.
    error_rate: f64,
    llm_call_count: i64,
    tool_call_count: i64,
    total_cost_usd: f64,
    total_input_tokens: i64,
    total_output_tokens: i64,
    avg_latency_ms: f64,
    p95_latency_ms: f64,
}

/// Figures by agent.
#[utoipa::path(get, path = "/api/analytics/agents", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = AgentTable), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_agents(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<AgentTable>, ApiError> {
    let range = params.read(scope.now_us())?;
    let cells = range.cells(&scope.tenant, scope.workspace(), Dimension::Agent).await?;
    let mut agents: Vec<AgentFigures> = sum_by(&cells, |cell| cell.agent_id.clone())
        .into_iter()
        .map(|(agent_id, sum)| AgentFigures {
            agent_id,
            event_count: sum.event_count,
            session_count: sum.session_count,
            error_count: sum.error_count,
            error_rate: ratio(sum.error_count, sum.event_count),
            llm_call_count: sum.llm_call_count,
            tool_call_count: sum.tool_call_count,
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            total_input_tokens: sum.usage.input,
            total_output_tokens: sum.usage.output,
            avg_latency_ms: mean_ms(&sum.latency),
            p95_latency_ms: quantile_ms(&sum.latency, 0.95),
        })
        .collect();
    agents.sort_by_key(|agent| std::cmp::Reverse(agent.event_count));
    Ok(Json(AgentTable { agents }))
}

/// One row for each tool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolTable {
    /// The tools, the busiest first.
    tools: Vec<ToolFigures>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ToolFigures {
    tool_name: String,
    /// Calls.
    call_count: i64,
    /// Failed calls.
    error_count: i64,
    /// Failures per call.
    error_rate: f64,
    avg_duration_ms: f64,
    p95_duration_ms: f64,
}

/// Figures by tool.
#[utoipa::path(get, path = "/api/analytics/tools", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = ToolTable), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_tools(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<ToolTable>, ApiError> {
    let range = params.read(scope.now_us())?;
    let cells = range.cells(&scope.tenant, scope.workspace(), Dimension::Tool).await?;
    let mut tools: Vec<ToolFigures> = sum_by(&cells, |cell| cell.name.clone())
        .into_iter()
        .map(|(tool_name, sum)| ToolFigures {
            tool_name,
            call_count: sum.tool_call_count,
            error_count: sum.tool_error_count,
            error_rate: ratio(sum.tool_error_count, sum.tool_call_count),
            avg_duration_ms: mean_ms(&sum.latency),
            p95_duration_ms: quantile_ms(&sum.latency, 0.95),
        })
        .collect();
    tools.sort_by_key(|tool| std::cmp::Reverse(tool.call_count));
    Ok(Json(ToolTable { tools }))
}

/// One row for each end user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserTable {
    /// The users, the dearest first.
    users: Vec<UserFigures>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UserFigures {
    user_id: String,
    event_count: i64,
    error_count: i64,
    llm_call_count: i64,
    total_cost_usd: f64,
    total_input_tokens: i64,
    total_output_tokens: i64,
}

/// Figures by end user.
#[utoipa::path(get, path = "/api/analytics/users", tag = "analytics", params(RangeQuery),
    responses((status = 200, body = UserTable), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(super) async fn get_users(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
) -> Result<Json<UserTable>, ApiError> {
    let range = params.read(scope.now_us())?;
    let cells = range.cells(&scope.tenant, scope.workspace(), Dimension::User).await?;
    let mut users: Vec<UserFigures> = sum_by(&cells, |cell| cell.name.clone())
        .into_iter()
        .map(|(user_id, sum)| UserFigures {
            user_id,
            event_count: sum.event_count,
            error_count: sum.error_count,
            llm_call_count: sum.llm_call_count,
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            total_input_tokens: sum.usage.input,
            total_output_tokens: sum.usage.output,
        })
        .collect();
    users.sort_by(|a, b| b.total_cost_usd.total_cmp(&a.total_cost_usd));
    Ok(Json(UserTable { users }))
}
