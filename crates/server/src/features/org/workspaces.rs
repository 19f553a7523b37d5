//! Workspaces and the names of environments.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::entitlements::CountLimit;
use agentlens_domain::environments;
use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::people::names::NameOf;
use agentlens_domain::time::format_rfc3339;

use super::{Named, read_name};
use crate::auth::{OrgRead, OrgScope, WorkspacesManage};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::state::AppState;

/// Environments that every org has.
const GIVEN: [&str; 3] = ["production", "staging", "development"];

/// The routes of workspaces.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_workspaces, create_workspace))
        .routes(routes!(update_workspace))
        .routes(routes!(list_environments, create_environment))
        .routes(routes!(remove_environment))
}

/// The workspaces of an org.
#[derive(Debug, Serialize, ToSchema)]
struct Workspaces {
    /// The oldest first, archived ones too.
    workspaces: Vec<WorkspaceView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct WorkspaceView {
    /// Its id, for the header `AgentLens-Workspace`.
    workspace_id: String,
    /// Its name.
    name: String,
    /// When it was made.
    created_at: String,
    /// When it was archived.
    archived_at: Option<String>,
}

/// List the workspaces of the org.
#[utoipa::path(get, path = "/v1/workspaces", tag = "orgs", responses((status = 200, body = Workspaces)))]
async fn list_workspaces(
    State(state): State<AppState>,
    scope: OrgScope<OrgRead>,
) -> Result<Json<Workspaces>, ApiError> {
    let rows = state.store.control().list_workspaces(scope.org_id()).await?;
    let workspaces = rows.into_iter().map(|row| WorkspaceView {
        workspace_id: row.workspace_id,
        name: row.name,
        created_at: format_rfc3339(row.created_us),
        archived_at: row.archived_us.map(format_rfc3339),
    });
    Ok(Json(Workspaces { workspaces: workspaces.collect() }))
}

/// A workspace to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    /// Its name.
    name: String,
    /// Its id: 1 to 64 of a-z, A-Z, 0-9, `_` and `-`. Made of the name unless given.
    workspace_id: Option<String>,
}

/// A workspace that was made.
#[derive(Debug, Serialize, ToSchema)]
struct MadeWorkspace {
    /// Its id.
    workspace_id: String,
}

/// Make a workspace.
#[utoipa::path(post, path = "/v1/workspaces", tag = "orgs", request_body = NewWorkspace,
    responses((status = 201, body = MadeWorkspace), (status = 409, description = "There is one with this id", body = ErrorBody)))]
async fn create_workspace(
    State(state): State<AppState>,
    scope: OrgScope<WorkspacesManage>,
    JsonBody(sent): JsonBody<NewWorkspace>,
) -> Result<(StatusCode, Json<MadeWorkspace>), ApiError> {
    let name = read_name(NameOf::Workspace, &sent.name)?;
    let id = sent.workspace_id.or_else(|| {
        agentlens_domain::people::names::Name::parse(NameOf::Workspace, &name)
            .ok()
            .and_then(|name| name.slug())
    });
    let id = id.ok_or_else(|| {
        ApiError::invalid_field("workspace_id", "is needed: the name has no letter that an id can have")
    })?;
    let workspace = WorkspaceId::parse(&id)
        .map_err(|error| ApiError::invalid_field("workspace_id", error.to_string()))?;
    let limit = state.entitlements.limit(CountLimit::Workspaces);
    state.store.control().create_workspace(&scope.caller, &workspace, &name, limit).await?;
    Ok((StatusCode::CREATED, Json(MadeWorkspace { workspace_id: workspace.to_string() })))
}

/// What changes of a workspace.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateWorkspace {
    /// Another name.
    name: Option<String>,
    /// Whether it is archived: its keys are refused, and nobody can open it.
    is_archived: Option<bool>,
}

/// Rename a workspace, archive it, or take it back.
#[utoipa::path(patch, path = "/v1/workspaces/{id}", tag = "orgs", params(("id" = String, Path, description = "The workspace's id")), request_body = UpdateWorkspace,
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn update_workspace(
    State(state): State<AppState>,
    scope: OrgScope<WorkspacesManage>,
    Path(id): Path<String>,
    JsonBody(sent): JsonBody<UpdateWorkspace>,
) -> Result<StatusCode, ApiError> {
    let control = state.store.control();
    let workspace = WorkspaceId::parse(&id).map_err(|_| ApiError::not_found("Workspace"))?;
    if let Some(name) = sent.name {
        let name = read_name(NameOf::Workspace, &name)?;
        control.rename_workspace(&scope.caller, &workspace, &name).await?;
    }
    if let Some(is_archived) = sent.is_archived {
        if is_archived && workspace == WorkspaceId::default_workspace() {
            return Err(ApiError::invalid_field("is_archived", "the workspace `default` always exists"));
        }
        let limit = state.entitlements.limit(CountLimit::Workspaces);
        control.archive_workspace(&scope.caller, &workspace, is_archived, limit).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Names of environments.
#[derive(Debug, Serialize, ToSchema)]
struct Environments {
    /// Those that every org has, then the org's own.
    environments: Vec<String>,
}

/// List the names of environments.
#[utoipa::path(get, path = "/v1/environments", tag = "orgs", responses((status = 200, body = Environments)))]
async fn list_environments(
    State(state): State<AppState>,
    scope: OrgScope<OrgRead>,
) -> Result<Json<Environments>, ApiError> {
    let own = state.store.control().list_environments(scope.org_id()).await?;
    let environments = GIVEN.into_iter().map(str::to_owned).chain(own).collect();
    Ok(Json(Environments { environments }))
}

/// Add the name of an environment.
#[utoipa::path(post, path = "/v1/environments", tag = "orgs", request_body = Named,
    responses((status = 201), (status = 409, description = "It is there already", body = ErrorBody)))]
async fn create_environment(
    State(state): State<AppState>,
    scope: OrgScope<WorkspacesManage>,
    JsonBody(sent): JsonBody<Named>,
) -> Result<StatusCode, ApiError> {
    let name = environments::parse(&sent.name)
        .map_err(|error| ApiError::invalid_field("name", error.to_string()))?
        .ok_or_else(|| ApiError::invalid_field("name", "must not be empty"))?;
    if GIVEN.contains(&name) {
        return Err(ApiError::conflict("exists", "this environment exists already"));
    }
    state.store.control().create_environment(&scope.caller, name).await?;
    Ok(StatusCode::CREATED)
}

/// Take the name of an environment off the list. Its events and keys stay as they are.
#[utoipa::path(delete, path = "/v1/environments/{name}", tag = "orgs", params(("name" = String, Path, description = "The name")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_environment(
    State(state): State<AppState>,
    scope: OrgScope<WorkspacesManage>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.control().remove_environment(&scope.caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
