//! Sessions: the list, a single session, its timeline and its trace tree.

mod timeline;
mod trace;

use axum::Json;
use axum::extract::Path;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::MAX_COUNTED_ROWS;
use agentlens_domain::sessions::SessionStatus;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{SessionFilter, SessionRow};

use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params, Times};
use crate::state::AppState;

/// How many moves of a session's spans are followed.
const MAX_MOVES: usize = 8;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(get_session))
        .routes(routes!(timeline::get_timeline))
        .routes(routes!(trace::get_trace))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct SessionsQuery {
    /// Only sessions of this agent.
    agent_id: Option<String>,
    /// Only sessions with these statuses: `active`, `idle`, `completed`, `error`, separated by commas.
    status: Option<String>,
    /// Only sessions with at least one of these tags, separated by commas.
    tags: Option<String>,
    /// Only sessions of this environment.
    environment: Option<String>,
    /// Only sessions of this end user.
    user_id: Option<String>,
    /// The earliest start of a session, inclusive. A date alone means its midnight.
    from: Option<String>,
    /// The latest start of a session, inclusive. A date alone includes the whole day.
    to: Option<String>,
    /// The length of the range before `to` (before now if `to` is absent), instead of `from`: `1h`, `3h`, `6h`, `12h`, `24h`, `3d`,
    /// `7d`, `30d` or `90d`.
    range: Option<String>,
    /// The IANA name of the time zone for dates; defaults to UTC.
    time_zone: Option<String>,
    /// The order: `desc` (newest first, the default) or `asc`.
    order: Option<String>,
    /// Rows per page: 50 by default, at most 1000.
    limit: Option<String>,
    /// Rows to skip; prefer `cursor`.
    offset: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
    /// `true`: return only the number of sessions, counted up to 10,000.
    count_only: Option<String>,
}

/// A page of sessions, or their number if only that was requested.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum SessionsAnswer {
    /// The page.
    Page(SessionsPage),
    /// Only the count.
    #[serde(rename_all = "camelCase")]
    Count {
        /// The number of matching sessions. Exact up to 10,000.
        count: i64,
        /// Whether `count` is exact; otherwise there are more.
        count_is_exact: bool,
    },
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionsPage {
    /// The sessions, newest first.
    sessions: Vec<SessionView>,
    /// The number of matching sessions on all pages. Exact up to 10,000.
    total: i64,
    /// Whether `total` is exact; otherwise there are more.
    total_is_exact: bool,
    /// The page size: the requested number of rows, at most 1,000.
    limit: u32,
    /// Whether there are further pages.
    has_more: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id, unique in the workspace.
    id: String,
    /// Its agent.
    agent_id: String,
    /// The agent's display name, if the session states one.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<String>,
    /// The time of its earliest event.
    started_at: String,
    /// When it ended: its latest `session_ended`, or the end of its latest trace. Absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// The time of its latest event.
    last_event_at: String,
    /// `active`, `idle` (no event for 30 minutes), `completed` or `error`.
    status: &'static str,
    /// The number of events.
    event_count: i64,
    /// The number of tool calls.
    tool_call_count: i64,
    /// The number of errors.
    error_count: i64,
    /// Total cost in dollars.
    total_cost_usd: f64,
    /// The number of model answers.
    llm_call_count: i64,
    /// Input tokens, cached ones included.
    total_input_tokens: i64,
    /// Output tokens, reasoning included.
    total_output_tokens: i64,
    /// The tags of its latest `session_started`.
    #[schema(value_type = Vec<String>)]
    tags: Box<RawValue>,
    /// Its end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// The environment of its first event.
    environment: String,
    /// The id of the org.
    tenant_id: String,
}

impl SessionView {
    fn of(row: SessionRow, org: &str, client: Client, now_us: i64) -> Self {
        let status = client.session_status(row.status_at(now_us).as_str());
        Self {
            id: row.session_id,
            agent_id: row.agent_id,
            agent_name: row.agent_name,
            started_at: format_rfc3339(row.started_us),
            ended_at: row.ended_us.filter(|_| row.status != "active").map(format_rfc3339),
            last_event_at: format_rfc3339(row.last_event_us),
            status,
            event_count: row.event_count,
            tool_call_count: row.tool_call_count,
            error_count: row.error_count,
            total_cost_usd: nanos_to_usd(row.cost_nanos),
            llm_call_count: row.llm_call_count,
            total_input_tokens: row.input_tokens,
            total_output_tokens: row.output_tokens,
            tags: RawValue::from_string(row.tags).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            user_id: row.user_id,
            environment: row.environment,
            tenant_id: org.to_owned(),
        }
    }
}

impl SessionsQuery {
    fn filter(&self, now_us: i64) -> Result<SessionFilter, ApiError> {
        let known = ["active", "idle", "completed", "error"];
        let statuses = query::words("status", self.status.as_ref(), &known)?;
        let statuses = statuses.iter().filter_map(|name| SessionStatus::parse(name)).collect();
        let ascending =
            query::choice("order", self.order.as_ref(), &[("desc", false), ("asc", true)])?.unwrap_or(false);
        let times = Times {
            from: self.from.as_ref(),
            to: self.to.as_ref(),
            range: self.range.as_ref(),
            time_zone: self.time_zone.as_ref(),
        };
        let window = times.read(now_us)?;
        Ok(SessionFilter {
            environment: query::text(self.environment.as_ref()),
            agent_id: query::text(self.agent_id.as_ref()),
            user_id: query::text(self.user_id.as_ref()),
            statuses,
            tags: query::list(self.tags.as_ref()),
            from_us: window.from_us,
            to_us: window.to_us,
            ascending,
            now_us,
        })
    }
}

/// List sessions by start time.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", params(SessionsQuery),
    responses((status = 200, description = "A page of sessions, or their number", body = SessionsAnswer)))]
async fn list_sessions(
    scope: Scope<EventsRead>,
    client: Client,
    Params(params): Params<SessionsQuery>,
) -> Result<Json<SessionsAnswer>, ApiError> {
    let filter = params.filter(scope.now_us())?;
    if query::flag("countOnly", params.count_only.as_ref())? {
        let counted = scope.workspace.sessions().count(&filter, MAX_COUNTED_ROWS + 1).await?;
        let (count, count_is_exact) = (counted.min(MAX_COUNTED_ROWS), counted <= MAX_COUNTED_ROWS);
        return Ok(Json(SessionsAnswer::Count { count, count_is_exact }));
    }
    let (limit, offset) = (query::limit(params.limit.as_ref())?, query::offset(params.offset.as_ref())?);
    let cursor = query::cursor(params.cursor.as_ref())?;
    let (page, counted) = tokio::try_join!(
        scope.workspace.sessions().list(&filter, cursor.as_ref(), offset, limit),
        scope.workspace.sessions().count(&filter, MAX_COUNTED_ROWS + 1)
    )?;
    let org = scope.workspace.org_id().as_str();
    Ok(Json(SessionsAnswer::Page(SessionsPage {
        total: counted.min(MAX_COUNTED_ROWS),
        total_is_exact: counted <= MAX_COUNTED_ROWS,
        limit,
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|cursor| cursor.encode()),
        sessions: page
            .sessions
            .into_iter()
            .map(|row| SessionView::of(row, org, client, filter.now_us))
            .collect(),
    })))
}

/// Get one session.
#[utoipa::path(get, path = "/api/sessions/{id}", tag = "sessions", params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The session", body = SessionView), (status = 404, description = "Not found", body = ErrorBody)))]
async fn get_session(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    let row = find(&scope, &id).await?;
    Ok(Json(SessionView::of(row, scope.workspace.org_id().as_str(), client, scope.now_us())))
}

/// The session. If only the chain is left of it, the session that its spans moved to.
async fn find(scope: &Scope<EventsRead>, id: &str) -> Result<SessionRow, ApiError> {
    let mut id = id.to_owned();
    for _ in 0..MAX_MOVES {
        let session = scope.workspace.sessions().find(&id).await?;
        let session = session.ok_or_else(|| ApiError::not_found("Session"))?;
        match session.moved_to.clone().filter(|_| session.event_count == 0) {
            Some(moved_to) => id = moved_to,
            None => return Ok(session),
        }
    }
    Err(ApiError::not_found("Session"))
}
