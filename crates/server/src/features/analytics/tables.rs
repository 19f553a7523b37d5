//! Tables: figures by agent, tool or user, largest first, in pages, with the sum of all rows that are not on the page.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::latency::Latency;
use agentlens_domain::limits::{DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS};
use agentlens_domain::page::Cursor;
use agentlens_domain::rollups::{Dimension, Measures};
use agentlens_store::{Figures, TableKey, TableOrder, TablePage, TablePlace, Workspace};

use super::range::{AgentQuery, Covered, Range, RangeQuery};
use crate::api::{mean_ms, quantile_ms, ratio};
use crate::auth::{EventsRead, Scope};
use crate::error::ApiError;
use crate::query::{self, Params};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TableQuery {
    /// Rows per page: 100 by default, at most 1000. `others` holds the sum of all other rows.
    pub(super) limit: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// The sum of the rows that are not on this page. Together with the rows of the page it gives the total.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Others {
    /// The number of these rows.
    row_count: i64,
    event_count: i64,
    error_count: i64,
    session_count: i64,
    llm_call_count: i64,
    tool_call_count: i64,
    total_cost_usd: f64,
    total_input_tokens: i64,
    total_output_tokens: i64,
    /// Answers whose cost is unknown, because their price or the number of their tokens is unknown. They are not in the cost.
    unknown_cost_count: i64,
}

impl Others {
    /// The sum of the other rows; `None` if the page has all of them.
    pub(super) fn of(page: &TablePage) -> Option<Self> {
        let row_count = page.row_count - i64::try_from(page.rows.len()).unwrap_or(i64::MAX);
        let mut shown = Measures::default();
        for (_, measures) in &page.rows {
            shown.merge(measures);
        }
        let total = &page.total;
        let input = total.usage.input - shown.usage.input;
        (row_count > 0).then(|| Self {
            row_count,
            event_count: total.event_count - shown.event_count,
            error_count: total.error_count - shown.error_count,
            session_count: total.session_count - shown.session_count,
            llm_call_count: total.llm_call_count - shown.llm_call_count,
            tool_call_count: total.tool_call_count - shown.tool_call_count,
            total_cost_usd: nanos_to_usd(total.cost_nanos.saturating_sub(shown.cost_nanos)),
            total_input_tokens: input,
            total_output_tokens: total.usage.output - shown.usage.output,
            unknown_cost_count: total.unknown_cost_count - shown.unknown_cost_count,
        })
    }
}

impl TableQuery {
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        query::limit_of(self.limit.as_ref(), DEFAULT_TABLE_ROWS, MAX_PAGE_ROWS)
    }

    fn after(&self) -> Result<Option<TablePlace>, ApiError> {
        let Some(cursor) = query::cursor(self.cursor.as_ref())? else { return Ok(None) };
        let parts =
            cursor.id.split_once(':').and_then(|(low, key)| Some((low.parse().ok()?, key.to_owned())));
        let (low, key) = parts.ok_or_else(|| {
            ApiError::invalid_parameter("cursor", "must be a `nextCursor` of an earlier answer")
        })?;
        Ok(Some(TablePlace { high: cursor.value, low, key }))
    }
}

fn cursor_of(place: &TablePlace) -> String {
    Cursor { value: place.high, id: format!("{}:{}", place.low, place.key) }.encode()
}

/// A page of a table, with the latencies of its rows if they have any.
pub(super) struct Table {
    pub(super) page: TablePage,
    pub(super) latencies: std::collections::BTreeMap<String, Measures>,
}

impl Table {
    pub(super) async fn read(
        workspace: &Workspace,
        figures: &Figures,
        (key, order): (TableKey, TableOrder),
        after: Option<&TablePlace>,
        limit: u32,
    ) -> Result<Self, ApiError> {
        let page = workspace.analytics().table(figures, key, order, after, limit).await?;
        let keys: Vec<String> = page.rows.iter().map(|(key, _)| key.clone()).collect();
        let latencies = if keys.is_empty() {
            std::collections::BTreeMap::new()
        } else {
            workspace.analytics().sums(figures, Some((key, keys)), move |cell| key.of(cell)).await?
        };
        Ok(Self { page, latencies })
    }

    pub(super) fn latency(&self, key: &str) -> Latency {
        self.latencies.get(key).map(|measures| measures.latency.clone()).unwrap_or_default()
    }
}

/// A page of a table.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PageView {
    /// The number of rows on all pages.
    total: i64,
    /// The page size: the requested number of rows, at most 1,000.
    limit: u32,
    /// Whether there are further pages.
    has_more: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The sum of all rows that are not on this page; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    others: Option<Others>,
    /// The range that the figures cover, if it differs from the requested range.
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_range: Option<Covered>,
}

impl PageView {
    fn of(page: &TablePage, limit: u32, covered_range: Option<Covered>) -> Self {
        Self {
            total: page.row_count,
            limit,
            has_more: page.next.is_some(),
            next_cursor: page.next.as_ref().map(cursor_of),
            others: Others::of(page),
            covered_range,
        }
    }
}

/// Agents, busiest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentTable {
    /// The agents, busiest first.
    agents: Vec<AgentFigures>,
    #[serde(flatten)]
    page: PageView,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AgentFigures {
    agent_id: String,
    event_count: i64,
    session_count: i64,
    error_count: i64,
    /// Errors per event, from 0 to 1.
    error_rate: f64,
    llm_call_count: i64,
    tool_call_count: i64,
    total_cost_usd: f64,
    total_input_tokens: i64,
    total_output_tokens: i64,
    avg_latency_ms: f64,
    p95_latency_ms: f64,
}

async fn read(
    scope: &Scope<EventsRead>,
    range: &Range,
    dimension: Dimension,
    by: (TableKey, TableOrder),
    params: &TableQuery,
) -> Result<(Table, PageView), ApiError> {
    let (limit, after) = (params.limit()?, params.after()?);
    let (figures, covered) = range.whole(&scope.workspace, dimension).await?;
    let table = Table::read(&scope.workspace, &figures, by, after.as_ref(), limit).await?;
    let view = PageView::of(&table.page, limit, covered);
    Ok((table, view))
}

/// Get figures by agent.
#[utoipa::path(get, path = "/api/analytics/agents", tag = "analytics", params(RangeQuery, AgentQuery, TableQuery),
    responses((status = 200, description = "A page of agents with their figures", body = AgentTable)))]
pub(super) async fn get_agents(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(agent): Params<AgentQuery>,
    Params(table): Params<TableQuery>,
) -> Result<Json<AgentTable>, ApiError> {
    let range = params.read(scope.now_us())?.of_agent(&agent);
    let by = (TableKey::Agent, TableOrder::Events);
    let (table, page) = read(&scope, &range, Dimension::Agent, by, &table).await?;
    let rows = table.page.rows.iter();
    let agents = rows
        .map(|(agent_id, sum)| AgentFigures {
            agent_id: agent_id.clone(),
            event_count: sum.event_count,
            session_count: sum.session_count,
            error_count: sum.error_count,
            error_rate: ratio(sum.error_count, sum.event_count),
            llm_call_count: sum.llm_call_count,
            tool_call_count: sum.tool_call_count,
            total_cost_usd: nanos_to_usd(sum.cost_nanos),
            total_input_tokens: sum.usage.input,
            total_output_tokens: sum.usage.output,
            avg_latency_ms: mean_ms(&table.latency(agent_id)),
            p95_latency_ms: quantile_ms(&table.latency(agent_id), 0.95),
        })
        .collect();
    Ok(Json(AgentTable { agents, page }))
}

/// Tools, busiest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolTable {
    /// The tools, busiest first.
    tools: Vec<ToolFigures>,
    #[serde(flatten)]
    page: PageView,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ToolFigures {
    tool_name: String,
    /// The number of calls.
    call_count: i64,
    /// The number of failed calls.
    error_count: i64,
    /// Failures per call, from 0 to 1.
    error_rate: f64,
    avg_duration_ms: f64,
    p95_duration_ms: f64,
}

/// Get figures by tool.
#[utoipa::path(get, path = "/api/analytics/tools", tag = "analytics", params(RangeQuery, AgentQuery, TableQuery),
    responses((status = 200, description = "A page of tools with their figures", body = ToolTable)))]
pub(super) async fn get_tools(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(agent): Params<AgentQuery>,
    Params(table): Params<TableQuery>,
) -> Result<Json<ToolTable>, ApiError> {
    let range = params.read(scope.now_us())?.of_agent(&agent);
    let by = (TableKey::Name, TableOrder::ToolCalls);
    let (table, page) = read(&scope, &range, Dimension::Tool, by, &table).await?;
    let rows = table.page.rows.iter();
    let tools = rows
        .map(|(tool_name, sum)| ToolFigures {
            tool_name: tool_name.clone(),
            call_count: sum.tool_call_count,
            error_count: sum.tool_error_count,
            error_rate: ratio(sum.tool_error_count, sum.tool_call_count),
            avg_duration_ms: mean_ms(&table.latency(tool_name)),
            p95_duration_ms: quantile_ms(&table.latency(tool_name), 0.95),
        })
        .collect();
    Ok(Json(ToolTable { tools, page }))
}

/// End users, most expensive first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserTable {
    /// The users, most expensive first.
    users: Vec<UserFigures>,
    #[serde(flatten)]
    page: PageView,
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

/// Get figures by end user.
#[utoipa::path(get, path = "/api/analytics/users", tag = "analytics", params(RangeQuery, TableQuery),
    responses((status = 200, description = "A page of end users with their figures", body = UserTable)))]
pub(super) async fn get_users(
    scope: Scope<EventsRead>,
    Params(params): Params<RangeQuery>,
    Params(table): Params<TableQuery>,
) -> Result<Json<UserTable>, ApiError> {
    let range = params.read(scope.now_us())?;
    let (limit, after) = (table.limit()?, table.after()?);
    let (figures, covered) = range.whole(&scope.workspace, Dimension::User).await?;
    let by = (TableKey::Name, TableOrder::Cost);
    // Users have no latencies.
    let table = scope.workspace.analytics().table(&figures, by.0, by.1, after.as_ref(), limit).await?;
    let page = PageView::of(&table, limit, covered);
    let users = table
        .rows
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
    Ok(Json(UserTable { users, page }))
}
