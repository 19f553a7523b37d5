//! Agents.

use axum::extract::Path;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::page::Cursor;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::AgentRow;

use crate::auth::{EventsRead, Scope};
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_agents)).routes(routes!(get_agent))
}

/// Agents whose id contains a slash (`crew/researcher`), which published clients don't encode. It is tried if no other route
/// matches, so that routes below an agent still work.
pub fn routes_by_whole_path() -> Router<AppState> {
    Router::new().route("/api/agents/{*id}", axum::routing::get(get_agent))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AgentsQuery {
    /// Rows per page: 50 by default, at most 1000.
    limit: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AgentsPage {
    /// The agents, most recently seen first.
    agents: Vec<AgentView>,
    /// The number of agents.
    total: i64,
    /// The page size: the requested number of rows, at most 1,000.
    limit: u32,
    /// Whether there are further pages.
    has_more: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AgentView {
    /// Its id, unique in the workspace.
    id: String,
    /// Its display name as its sessions state it, otherwise its id.
    name: String,
    /// A description written by people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// The time of its earliest event.
    first_seen_at: String,
    /// The time of its latest event.
    last_seen_at: String,
    /// The number of its sessions.
    session_count: i64,
    /// The number of its events.
    event_count: i64,
    /// The number of its errors.
    error_count: i64,
    /// Its total cost in dollars.
    total_cost_usd: f64,
    /// The id of the org.
    tenant_id: String,
    /// The model that it should use instead of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_override: Option<String>,
    /// When it was paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_at: Option<String>,
    /// Why it was paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_reason: Option<String>,
}

impl AgentView {
    fn of(row: AgentRow, org: &str) -> Self {
        Self {
            id: row.agent_id,
            name: row.name,
            description: row.description,
            first_seen_at: format_rfc3339(row.first_seen_us),
            last_seen_at: format_rfc3339(row.last_seen_us),
            session_count: row.session_count,
            event_count: row.event_count,
            error_count: row.error_count,
            total_cost_usd: nanos_to_usd(row.cost_nanos),
            tenant_id: org.to_owned(),
            model_override: row.model_override,
            paused_at: row.paused_us.map(format_rfc3339),
            pause_reason: row.pause_reason,
        }
    }
}

/// List agents, most recently seen first.
#[utoipa::path(get, path = "/api/agents", tag = "agents", params(AgentsQuery),
    responses((status = 200, description = "A page of agents", body = AgentsPage)))]
async fn list_agents(
    scope: Scope<EventsRead>,
    Params(params): Params<AgentsQuery>,
) -> Result<Json<AgentsPage>, ApiError> {
    let limit = query::limit(params.limit.as_ref())?;
    let cursor = query::cursor(params.cursor.as_ref())?;
    let after = cursor.as_ref().map(|cursor| (cursor.value, cursor.id.as_str()));
    let (mut rows, total) =
        tokio::try_join!(scope.workspace.agents().list(after, limit + 1), scope.workspace.agents().count())?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows
        .last()
        .filter(|_| has_more)
        .map(|last| Cursor { value: last.last_seen_us, id: last.agent_id.clone() }.encode());
    let org = scope.workspace.org_id().as_str();
    Ok(Json(AgentsPage {
        total,
        limit,
        has_more,
        next_cursor,
        agents: rows.into_iter().map(|row| AgentView::of(row, org)).collect(),
    }))
}

/// Get one agent.
#[utoipa::path(get, path = "/api/agents/{id}", tag = "agents", params(("id" = String, Path, description = "The agent's id")),
    responses((status = 200, description = "The agent", body = AgentView), (status = 404, description = "Not found", body = ErrorBody)))]
async fn get_agent(scope: Scope<EventsRead>, Path(id): Path<String>) -> Result<Json<AgentView>, ApiError> {
    let row = scope.workspace.agents().find(&id).await?.ok_or_else(|| ApiError::not_found("Agent"))?;
    Ok(Json(AgentView::of(row, scope.workspace.org_id().as_str())))
}
