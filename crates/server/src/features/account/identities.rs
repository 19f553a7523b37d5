//! Ways to sign in beside the password.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::proved;
use crate::auth::{Account, Form, ProvedAccount};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::providers::{Begin, SendBrowser, Way, begin};
use crate::state::AppState;
use agentlens_domain::time::format_rfc3339;

/// The routes of ways to sign in.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_identities)).routes(routes!(link_identity, unlink_identity))
}

/// A person's ways to sign in beside the password.
#[derive(Debug, Serialize, ToSchema)]
struct Identities {
    /// One for each provider at most.
    identities: Vec<LinkedIdentity>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LinkedIdentity {
    /// `google`, `github`, or `oidc:` and the id of an org's connection.
    provider: String,
    /// The address that the provider knew when the way was added.
    email: Option<String>,
    /// When that was.
    created_at: String,
}

/// List the providers that you can sign in through.
#[utoipa::path(get, path = "/v1/me/identities", tag = "people", responses((status = 200, body = Identities)))]
async fn list_identities(
    State(state): State<AppState>,
    account: Account,
) -> Result<Json<Identities>, ApiError> {
    let rows = state.store.control().identities_of(account.user_id()).await?;
    let identities = rows.into_iter().map(|row| LinkedIdentity {
        provider: row.provider,
        email: row.email,
        created_at: format_rfc3339(row.created_us),
    });
    Ok(Json(Identities { identities: identities.collect() }))
}

/// Begin to add a provider to the ways to sign in. The answer says where to send the browser, which must still be signed in when it comes
/// back. If that fails, the reason stands behind `#` in the address of the page.
#[utoipa::path(post, path = "/v1/me/identities/{provider}", tag = "people", request_body = Begin,
    params(("provider" = String, Path, description = "`google` or `github`")),
    responses((status = 200, body = SendBrowser), (status = 404, description = "This server is not registered with the provider", body = ErrorBody)))]
async fn link_identity(
    State(state): State<AppState>,
    account: ProvedAccount,
    _form: Form,
    Path(provider): Path<String>,
    JsonBody(sent): JsonBody<Begin>,
) -> Result<Response, ApiError> {
    let account = proved(account);
    let way = Way::named(&state.people, &provider)?;
    begin(&state, &way, sent, Some((account.user_id(), &account.session.session_id))).await
}

/// Remove a provider from the ways to sign in. All other sessions end. The last way can't be removed.
#[utoipa::path(delete, path = "/v1/me/identities/{provider}", tag = "people",
    params(("provider" = String, Path, description = "As the list says it")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, description = "It is the last way to sign in", body = ErrorBody)))]
async fn unlink_identity(
    State(state): State<AppState>,
    account: ProvedAccount,
    Path(provider): Path<String>,
) -> Result<StatusCode, ApiError> {
    let account = proved(account);
    let kept = account.session.session_id.to_string();
    state.store.control().unlink_identity(&account.caller, &provider, Some(kept)).await?;
    Ok(StatusCode::NO_CONTENT)
}
