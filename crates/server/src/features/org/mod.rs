//! What an org is: its name, members, invitations, workspaces and environments.

mod deletion;
mod invitations;
mod members;
mod workspaces;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::entitlements::CountLimit;
use agentlens_domain::ids::OrgId;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::permissions::{Actor, Caller, Role};
use agentlens_domain::time::format_rfc3339;

use crate::auth::{Account, OrgManage, OrgRead, OrgScope};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::Deployment;
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_orgs, create_org))
        .routes(routes!(get_org, rename_org))
        .merge(deletion::routes())
        .merge(members::routes())
        .merge(invitations::routes())
        .merge(workspaces::routes())
}

/// The orgs of the person who is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct Orgs {
    /// By name; those that are being deleted come last.
    orgs: Vec<OwnOrg>,
}

#[derive(Debug, Serialize, ToSchema)]
struct OwnOrg {
    /// Its id.
    org_id: String,
    /// Its name.
    name: String,
    /// The person's role in it.
    role: String,
    /// When the person became a member.
    member_since: String,
    /// The org is being deleted; until then an owner can undo it. Until it is undone, nothing else can be done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    undo_until: Option<String>,
}

/// List the orgs that you are a member of.
#[utoipa::path(get, path = "/v1/orgs", tag = "orgs", responses((status = 200, body = Orgs)))]
async fn list_orgs(State(state): State<AppState>, account: Account) -> Result<Json<Orgs>, ApiError> {
    let rows = state.sessions.orgs_of(account.user_id()).await?;
    let orgs = rows.into_iter().map(|row| OwnOrg {
        org_id: row.org_id,
        name: row.name,
        role: row.role,
        member_since: format_rfc3339(row.created_us),
        undo_until: None,
    });
    let deleted = state.store.control().deleted_orgs_of(account.user_id()).await?;
    let deleted = deleted.into_iter().map(|row| OwnOrg {
        org_id: row.org_id,
        name: row.name,
        role: row.role,
        member_since: format_rfc3339(row.created_us),
        undo_until: Some(format_rfc3339(row.undo_until_us)),
    });
    Ok(Json(Orgs { orgs: orgs.chain(deleted).collect() }))
}

/// A name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// 1 to 100 characters on one line.
    pub(super) name: String,
}

/// An org that was made.
#[derive(Debug, Serialize, ToSchema)]
struct MadeOrg {
    /// Its id.
    org_id: String,
}

/// Make an org, of which you are the owner. On a self-hosted server its operator makes orgs.
#[utoipa::path(post, path = "/v1/orgs", tag = "orgs", request_body = Named,
    responses((status = 201, body = MadeOrg), (status = 403, description = "You own as many orgs as you may, or this server's operator makes orgs", body = ErrorBody)))]
async fn create_org(
    State(state): State<AppState>,
    account: Account,
    JsonBody(sent): JsonBody<Named>,
) -> Result<(StatusCode, Json<MadeOrg>), ApiError> {
    if state.people.settings.deployment == Deployment::SelfHosted {
        return Err(ApiError::forbidden_because("orgs_closed", "The operator of this server makes orgs")
            .with_hint("`agentlens org create` makes one"));
    }
    let name = read_name(NameOf::Org, &sent.name)?;
    let user = account.user_id();
    let org = OrgId::random();
    let actor = Actor::Person { user_id: user.clone(), role: Role::Owner };
    let caller = Caller { org: org.clone(), workspace: None, actor, origin: account.caller.origin.clone() };
    let limit = state.entitlements.limit(CountLimit::OwnedOrgs);
    state.store.control().create_org_of(&caller, &name, user, limit).await?;
    Ok((StatusCode::CREATED, Json(MadeOrg { org_id: org.to_string() })))
}

/// An org.
#[derive(Debug, Serialize, ToSchema)]
struct OrgView {
    /// Its id.
    org_id: String,
    /// Its name.
    name: String,
    /// When it was made.
    created_at: String,
    /// How many days events are kept; for ever if there is none.
    retention_days: Option<i32>,
}

/// Get the org.
#[utoipa::path(get, path = "/v1/org", tag = "orgs", responses((status = 200, body = OrgView)))]
async fn get_org(State(state): State<AppState>, scope: OrgScope<OrgRead>) -> Result<Json<OrgView>, ApiError> {
    let row = state.store.control().find_org(scope.org_id()).await?;
    let row = row.ok_or_else(|| ApiError::not_found("Org"))?;
    Ok(Json(OrgView {
        org_id: row.org_id,
        name: row.name,
        created_at: format_rfc3339(row.created_us),
        retention_days: row.retention_days,
    }))
}

/// Give the org another name.
#[utoipa::path(patch, path = "/v1/org", tag = "orgs", request_body = Named, responses((status = 204)))]
async fn rename_org(
    State(state): State<AppState>,
    scope: OrgScope<OrgManage>,
    JsonBody(sent): JsonBody<Named>,
) -> Result<StatusCode, ApiError> {
    let name = read_name(NameOf::Org, &sent.name)?;
    state.store.control().rename_org(&scope.caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the field `name`.
pub(super) fn read_name(of: NameOf, text: &str) -> Result<String, ApiError> {
    let name = Name::parse(of, text).map_err(|error| ApiError::invalid_field("name", error.to_string()))?;
    Ok(name.as_str().to_owned())
}
