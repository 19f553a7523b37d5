//! Sessions: lists, single ones, their timeline and their trace tree.

mod span_tree;
mod trace;

use axum::Json;
use axum::extract::Path;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::{MAX_ANSWER_BYTES, MAX_COUNTED_ROWS, MAX_TIMELINE_EVENTS};
use agentlens_domain::sessions::SessionStatus;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{SessionFilter, SessionRow, StoredEvent, Tenant};

use crate::api::{EventView, READ_TIMEOUT};
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};
use crate::spans::{Reading, current_events};
use crate::state::AppState;

/// How often a session's spans may have moved on.
const MAX_MOVES: usize = 8;
/// Events that are read at a time.
const CHUNK_EVENTS: u32 = 500;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(get_session))
        .routes(routes!(get_timeline))
        .routes(routes!(trace::get_trace))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct SessionsQuery {
    /// Sessions of one agent.
    agent_id: Option<String>,
    /// Any of active, idle, completed, error, separated by commas.
    status: Option<String>,
    /// Any of these tags, separated by commas.
    tags: Option<String>,
    /// production, staging or development.
    environment: Option<String>,
    /// Sessions of one end user.
    user_id: Option<String>,
    /// The earliest start, inclusive.
    from: Option<String>,
    /// The latest start, inclusive.
    to: Option<String>,
    /// `desc` (newest first, the default) or `asc`.
    order: Option<String>,
    /// Rows of the page: 50, at most 1000.
    limit: Option<String>,
    /// Rows to skip; prefer `cursor`.
    offset: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// `true` answers `{count}` only.
    count_only: Option<String>,
}

/// A page of sessions; or `{count}` where only that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum SessionsAnswer {
    /// The page.
    Page(SessionsPage),
    /// The number alone.
    Count {
        /// How many sessions match.
        count: i64,
    },
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionsPage {
    /// The sessions, newest first.
    sessions: Vec<SessionView>,
    /// How many there are, counted up to 10,000.
    total: i64,
    /// Whether `total` is exact.
    total_is_exact: bool,
    /// Whether there are more.
    has_more: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    id: String,
    /// Its agent.
    agent_id: String,
    /// The agent's name as the session states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<String>,
    /// Its earliest event.
    started_at: String,
    /// Its latest `session_ended`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Its latest event.
    last_event_at: String,
    /// active, idle, completed or error.
    status: &'static str,
    /// Events.
    event_count: i64,
    /// Tool calls.
    tool_call_count: i64,
    /// Errors.
    error_count: i64,
    /// Cost in dollars.
    total_cost_usd: f64,
    /// Model answers.
    llm_call_count: i64,
    /// Input tokens, cached ones included.
    total_input_tokens: i64,
    /// Output tokens, reasoning included.
    total_output_tokens: i64,
    /// Tags.
    #[schema(value_type = Vec<String>)]
    tags: Box<RawValue>,
    /// Its end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// The environment of its first event.
    environment: String,
    /// The org.
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
    fn filter(&self, workspace: &str, now_us: i64) -> Result<SessionFilter, ApiError> {
        let mut statuses = Vec::new();
        for name in query::list(self.status.as_ref()) {
            let status = SessionStatus::parse(&name).ok_or_else(|| {
                ApiError::invalid_parameter("status", "must be of active, idle, completed, error")
            })?;
            statuses.push(status);
        }
        let ascending =
            query::choice("order", self.order.as_ref(), &[("desc", false), ("asc", true)])?.unwrap_or(false);
        Ok(SessionFilter {
            workspace: workspace.to_owned(),
            environment: query::text(self.environment.as_ref()),
            agent_id: query::text(self.agent_id.as_ref()),
            user_id: query::text(self.user_id.as_ref()),
            statuses,
            tags: query::list(self.tags.as_ref()),
            from_us: query::instant("from", self.from.as_ref())?,
            to_us: query::instant("to", self.to.as_ref())?,
            ascending,
            now_us,
        })
    }
}

/// List sessions by their start.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", params(SessionsQuery),
    responses((status = 200, body = SessionsAnswer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn list_sessions(
    scope: Scope<EventsRead>,
    client: Client,
    Params(params): Params<SessionsQuery>,
) -> Result<Json<SessionsAnswer>, ApiError> {
    let filter = params.filter(scope.workspace(), scope.now_us())?;
    if params.count_only.as_deref() == Some("true") {
        let count = scope.tenant.count_sessions(&filter, i64::MAX).await?;
        return Ok(Json(SessionsAnswer::Count { count }));
    }
    let (limit, offset) = (query::limit(params.limit.as_ref())?, query::offset(params.offset.as_ref())?);
    let cursor = query::cursor(params.cursor.as_ref())?;
    let (page, total) = tokio::try_join!(
        scope.tenant.list_sessions(&filter, cursor.as_ref(), offset, limit),
        scope.tenant.count_sessions(&filter, MAX_COUNTED_ROWS)
    )?;
    let org = scope.tenant.org().as_str();
    Ok(Json(SessionsAnswer::Page(SessionsPage {
        total,
        total_is_exact: total < MAX_COUNTED_ROWS,
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
    responses((status = 200, body = SessionView), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_session(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    let row = find(&scope, &id).await?;
    Ok(Json(SessionView::of(row, scope.tenant.org().as_str(), client, scope.now_us())))
}

/// The session; the one that its spans moved to where nothing is left of it but a chain.
async fn find(scope: &Scope<EventsRead>, id: &str) -> Result<SessionRow, ApiError> {
    let mut id = id.to_owned();
    for _ in 0..MAX_MOVES {
        let session = scope.tenant.find_session(scope.workspace(), &id).await?;
        let session = session.ok_or_else(|| ApiError::not_found("Session"))?;
        match session.moved_to.clone().filter(|_| session.event_count == 0) {
            Some(moved_to) => id = moved_to,
            None => return Ok(session),
        }
    }
    Err(ApiError::not_found("Session"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TimelineQuery {
    /// Events of the page: 10,000 at most, which is also the default.
    limit: Option<String>,
    /// The sequence number after which to go on (`nextSeq` of the page before).
    after: Option<String>,
    /// `current` (the default): spans as they are now, each once. `chain`: every event of this one chain as it was stored and
    /// hashed, for someone who verifies it himself.
    view: Option<String>,
}

/// A session's events in the order of its chain.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Timeline {
    /// The events.
    events: Vec<EventView>,
    /// Whether the chain of the whole session holds, recomputed from the stored bytes.
    chain_valid: bool,
    /// Always true: every session is chained.
    chained: bool,
    /// Whether there are more.
    has_more: bool,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_seq: Option<i64>,
    /// Chains of spans that named this session only later: each is the timeline of this id with `view=chain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved_chains: Vec<String>,
}

/// Get a session's events in the order of its chain, and whether the chain holds.
#[utoipa::path(get, path = "/api/sessions/{id}/timeline", tag = "sessions", params(("id" = String, Path, description = "The session's id"), TimelineQuery),
    responses((status = 200, body = Timeline), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_timeline(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
    Params(params): Params<TimelineQuery>,
) -> Result<Json<Timeline>, ApiError> {
    let as_chained =
        query::choice("view", params.view.as_ref(), &[("current", false), ("chain", true)])?.unwrap_or(false);
    let limit = match query::text(params.limit.as_ref()) {
        None => MAX_TIMELINE_EVENTS,
        Some(text) => match text.parse::<u32>() {
            Ok(rows) if rows >= 1 => rows.min(MAX_TIMELINE_EVENTS),
            _ => {
                return Err(ApiError::invalid_parameter(
                    "limit",
                    format!("must be a whole number from 1 to {MAX_TIMELINE_EVENTS}"),
                ));
            }
        },
    };
    let after = match query::text(params.after.as_ref()) {
        None => 0,
        Some(text) => text
            .parse::<i64>()
            .map_err(|_| ApiError::invalid_parameter("after", "must be a sequence number"))?,
    };
    if as_chained {
        return chain(&scope, client, &id, after, limit).await.map(Json);
    }
    let session = find(&scope, &id).await?;
    let ((events, next_seq), chain_valid) = tokio::try_join!(
        timeline(&scope.tenant, &session, after, limit),
        chain_holds(&scope.tenant, &session)
    )?;
    let reading = Reading { session: Some(&session.session_id), is_chosen: false };
    Ok(Json(Timeline {
        events: current_events(&scope.tenant, scope.workspace(), events, (client, reading)).await?,
        chain_valid,
        chained: true,
        has_more: next_seq.is_some(),
        next_seq,
        moved_chains: scope.tenant.chains_moved_to(scope.workspace(), &session.session_id).await?,
    }))
}

/// The events of one chain as they were stored, wherever their spans are shown now.
async fn chain(
    scope: &Scope<EventsRead>,
    client: Client,
    id: &str,
    after: i64,
    limit: u32,
) -> Result<Timeline, ApiError> {
    let session = scope.tenant.find_session(scope.workspace(), id).await?;
    let session = session.ok_or_else(|| ApiError::not_found("Session"))?;
    let mut page = Page { events: Vec::new(), bytes: 0, limit };
    let last = page.read(&scope.tenant, &session, after.max(0)).await?;
    let next_seq = (last < session.last_seq).then_some(last);
    let verified = tokio::time::timeout(READ_TIMEOUT, scope.tenant.verify_session(&session)).await;
    let verified =
        verified.map_err(|_| ApiError::timed_out("verifying the session's chain took too long"))??;
    let org = scope.tenant.org().as_str();
    Ok(Timeline {
        events: page.events.into_iter().map(|event| EventView::of(event, org, client)).collect(),
        chain_valid: verified.broken.is_none(),
        chained: true,
        has_more: next_seq.is_some(),
        next_seq,
        moved_chains: Vec::new(),
    })
}

/// A page of a session's timeline and where the next begins. Spans that named the session only later have their place in
/// chains of their own, which come first; their events are counted below zero, down from it.
async fn timeline(
    tenant: &Tenant,
    session: &SessionRow,
    after: i64,
    limit: u32,
) -> Result<(Vec<StoredEvent>, Option<i64>), ApiError> {
    let mut page = Page { events: Vec::new(), bytes: 0, limit };
    if after <= 0 {
        let mut passed = 0;
        for id in tenant.chains_moved_to(&session.workspace_id, &session.session_id).await? {
            let Some(chain) = tenant.find_session(&session.workspace_id, &id).await? else { continue };
            let from = after.saturating_neg().saturating_sub(passed).max(0);
            if from < chain.last_seq {
                let last = page.read(tenant, &chain, from).await?;
                if page.is_full() {
                    return Ok((page.events, Some(-passed - last)));
                }
            }
            passed += chain.last_seq;
        }
    }
    let last = page.read(tenant, session, after.max(0)).await?;
    let has_more = page.is_full() && last < session.last_seq;
    Ok((page.events, has_more.then_some(last)))
}

/// A session's own events after `after`, at most `limit` of them, and fewer where their payloads fill an answer.
async fn events(
    tenant: &Tenant,
    session: &SessionRow,
    after: i64,
    limit: u32,
) -> Result<Vec<StoredEvent>, ApiError> {
    let mut page = Page { events: Vec::new(), bytes: 0, limit };
    page.read(tenant, session, after).await?;
    Ok(page.events)
}

/// Events of one answer while they are read.
struct Page {
    events: Vec<StoredEvent>,
    /// Of their payloads.
    bytes: usize,
    limit: u32,
}

impl Page {
    fn room(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.events.len()).unwrap_or(u32::MAX))
    }

    fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes >= MAX_ANSWER_BYTES
    }

    /// Takes what there is room for of a chain after `after`; the place of the last.
    async fn read(&mut self, tenant: &Tenant, chain: &SessionRow, after: i64) -> Result<i64, ApiError> {
        let mut last = after;
        while !self.is_full() {
            let chunk = self.room().min(CHUNK_EVENTS);
            let rows = tenant.events_of_session(chain, last, chunk).await?;
            let is_last = rows.len() < chunk as usize;
            last = rows.last().map_or(last, |row| row.seq);
            self.bytes += rows.iter().map(|row| row.payload.len() + row.metadata.len()).sum::<usize>();
            self.events.extend(rows);
            if is_last {
                break;
            }
        }
        Ok(last)
    }
}

/// How many events lie in the chains of the session, its own and others; of more than `enough`, some number beyond it.
async fn chained_events(tenant: &Tenant, session: &SessionRow, enough: i64) -> Result<i64, ApiError> {
    let mut chained = session.last_seq;
    for chain in tenant.chains_moved_to(&session.workspace_id, &session.session_id).await? {
        if chained > enough {
            break;
        }
        let moved = tenant.find_session(&session.workspace_id, &chain).await?;
        chained += moved.map_or(0, |moved| moved.last_seq);
    }
    Ok(chained)
}

async fn chain_holds(tenant: &Tenant, session: &SessionRow) -> Result<bool, ApiError> {
    let verified = tokio::time::timeout(READ_TIMEOUT, verify(tenant, session)).await;
    verified.map_err(|_| ApiError::timed_out("verifying the session's chain took too long"))?
}

async fn verify(tenant: &Tenant, session: &SessionRow) -> Result<bool, ApiError> {
    for chain in tenant.chains_moved_to(&session.workspace_id, &session.session_id).await? {
        let Some(moved) = tenant.find_session(&session.workspace_id, &chain).await? else { continue };
        if tenant.verify_session(&moved).await?.broken.is_some() {
            return Ok(false);
        }
    }
    Ok(tenant.verify_session(session).await?.broken.is_none())
}
