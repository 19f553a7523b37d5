//! Members and their roles.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::Role;
use agentlens_domain::time::format_rfc3339;

use crate::auth::{MembersManage, OrgRead, OrgScope, OwnersManage};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::query::{self, Params};
use crate::state::AppState;

/// The routes of members.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(set_role, remove_member))
        .routes(routes!(leave))
        .routes(routes!(transfer))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MembersQuery {
    /// Rows per page: 50 by default, at most 1000.
    limit: Option<String>,
    /// `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// A page of members.
#[derive(Debug, Serialize, ToSchema)]
struct MembersPage {
    /// By address.
    members: Vec<MemberView>,
    /// Cursor of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct MemberView {
    /// The person's id.
    user_id: String,
    /// The e-mail address.
    email: String,
    /// The name for people.
    name: String,
    /// The role.
    role: String,
    /// Since when.
    member_since: String,
    /// When the person was seen last, to the minute, by any session that there still is.
    last_seen_at: Option<String>,
    /// Whether a code is asked for at sign-in.
    has_second_factor: bool,
    /// Whether the account is disabled.
    is_disabled: bool,
}

/// List the members of the org.
#[utoipa::path(get, path = "/v1/members", tag = "orgs", params(MembersQuery), responses((status = 200, body = MembersPage)))]
async fn list_members(
    State(state): State<AppState>,
    scope: OrgScope<OrgRead>,
    Params(params): Params<MembersQuery>,
) -> Result<Json<MembersPage>, ApiError> {
    let limit = query::limit(params.limit.as_ref())?;
    let after = params.cursor.unwrap_or_default();
    let mut rows = state.store.control().list_members(scope.org_id(), &after, limit + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|row| row.email.to_lowercase());
    let members = rows.into_iter().map(|row| MemberView {
        user_id: row.user_id,
        email: row.email,
        name: row.name,
        role: row.role,
        member_since: format_rfc3339(row.created_us),
        last_seen_at: row.seen_us.map(format_rfc3339),
        has_second_factor: row.has_second_factor,
        is_disabled: row.disabled_us.is_some(),
    });
    Ok(Json(MembersPage { members: members.collect(), next_cursor }))
}

/// A role.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetRole {
    /// `owner`, `admin`, `auditor`, `member` or `viewer`.
    role: String,
}

/// Reads the field `role`.
pub(super) fn read_role(text: &str) -> Result<Role, ApiError> {
    Role::parse(text)
        .ok_or_else(|| ApiError::invalid_field("role", "must be owner, admin, auditor, member or viewer"))
}

/// The person of a path. What is no id is nobody's.
fn read_user(id: &str) -> Result<UserId, ApiError> {
    UserId::parse(id).map_err(|_| ApiError::not_found("Member"))
}

/// Give a member another role, which may not be beyond your own.
#[utoipa::path(patch, path = "/v1/members/{id}", tag = "orgs", params(("id" = String, Path, description = "The person's id")), request_body = SetRole,
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, description = "The org would have no owner left", body = ErrorBody)))]
async fn set_role(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
    Path(id): Path<String>,
    JsonBody(sent): JsonBody<SetRole>,
) -> Result<StatusCode, ApiError> {
    let role = read_role(&sent.role)?;
    state.store.control().set_role(&scope.caller, &read_user(&id)?, role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a member. The person's sessions lose this org within a second; keys that the person made are the org's and stay.
#[utoipa::path(delete, path = "/v1/members/{id}", tag = "orgs", params(("id" = String, Path, description = "The person's id")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, description = "The org would have no owner left", body = ErrorBody)))]
async fn remove_member(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.control().remove_member(&scope.caller, &read_user(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Leave the org. The last owner can't.
#[utoipa::path(post, path = "/v1/members/leave", tag = "orgs",
    responses((status = 204), (status = 409, description = "The org would have no owner left", body = ErrorBody)))]
async fn leave(State(state): State<AppState>, scope: OrgScope<OrgRead>) -> Result<StatusCode, ApiError> {
    let user = scope.caller.person().cloned();
    let user = user.ok_or_else(|| ApiError::not_allowed("Only a person can leave an org"))?;
    state.store.control().remove_member(&scope.caller, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// To whom an org goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Transfer {
    /// The id of a member.
    user_id: String,
}

/// Make another member the owner in your place; you become an admin.
#[utoipa::path(post, path = "/v1/org/transfer", tag = "orgs", request_body = Transfer, responses((status = 204), (status = 404, body = ErrorBody)))]
async fn transfer(
    State(state): State<AppState>,
    scope: OrgScope<OwnersManage>,
    JsonBody(sent): JsonBody<Transfer>,
) -> Result<StatusCode, ApiError> {
    state.store.control().transfer_org(&scope.caller, &read_user(&sent.user_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
