//! Where a person is signed in.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Account;
use crate::error::{ApiError, ErrorBody};
use crate::state::AppState;
use agentlens_domain::time::format_rfc3339;

/// The routes of sessions.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_sessions, end_sessions)).routes(routes!(end_session))
}

/// Where a person is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct BrowserSessions {
    /// The session used last comes first.
    sessions: Vec<BrowserSession>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BrowserSession {
    /// Its id.
    session_id: String,
    /// Whether it is that of this request.
    is_current: bool,
    /// When the person signed in.
    created_at: String,
    /// When it was used last, to the minute.
    last_seen_at: String,
    /// When it ends in any case.
    expires_at: String,
    /// How the person signed in, as words.
    methods: String,
    /// From which address.
    address: Option<String>,
    /// With which browser.
    user_agent: Option<String>,
}

/// List where you are signed in.
#[utoipa::path(get, path = "/v1/me/sessions", tag = "people", responses((status = 200, body = BrowserSessions)))]
async fn list_sessions(
    State(state): State<AppState>,
    account: Account,
) -> Result<Json<BrowserSessions>, ApiError> {
    let rows = state.store.control().list_sessions_of(account.user_id()).await?;
    let sessions = rows.into_iter().map(|row| BrowserSession {
        is_current: row.session_id == *account.session.session_id,
        created_at: format_rfc3339(row.created_us),
        last_seen_at: format_rfc3339(row.seen_us),
        expires_at: format_rfc3339(row.expires_us),
        session_id: row.session_id,
        methods: row.methods,
        address: row.address,
        user_agent: row.user_agent,
    });
    Ok(Json(BrowserSessions { sessions: sessions.collect() }))
}

/// Sign out everywhere else.
#[utoipa::path(delete, path = "/v1/me/sessions", tag = "people", responses((status = 204)))]
async fn end_sessions(State(state): State<AppState>, account: Account) -> Result<StatusCode, ApiError> {
    let kept = account.session.session_id.to_string();
    state.store.control().end_sessions(&account.caller, Some(kept)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign out one of the own browsers.
#[utoipa::path(delete, path = "/v1/me/sessions/{id}", tag = "people", params(("id" = String, Path, description = "The session's id")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn end_session(
    State(state): State<AppState>,
    account: Account,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.control().end_session(&account.caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
