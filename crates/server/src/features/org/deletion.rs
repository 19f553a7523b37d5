//! Deleting the org, and undoing it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::{OrgId, ulid_at};
use agentlens_domain::permissions::{Caller, Role};
use agentlens_domain::time::{HOUR_US, format_rfc3339};
use agentlens_mail::{Message, Name};
use agentlens_store::{NewDeletion, NewMail, StoreError};

use crate::auth::{Credential, DeletedOrg, OrgDelete, OrgScope, PROOF_US};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::mail_to;
use crate::state::AppState;

/// How long a deletion can be undone.
const UNDO_US: i64 = 12 * HOUR_US;
/// How long after the request everything is deleted, at the latest.
const DELETED_BY_US: i64 = 24 * HOUR_US;
/// Members that are read at a time.
const PAGE: u32 = 1_000;

/// The routes of deletions.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(delete_org)).routes(routes!(undelete_org))
}

/// Which org to delete.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeleteOrg {
    /// The org's name, as it is.
    name: String,
}

/// A deletion that has begun.
#[derive(Debug, Serialize, ToSchema)]
struct DeletionBegun {
    /// The id of the receipt, for `GET /v1/deletions/{id}`. Keep it: afterwards nothing else names the org.
    receipt_id: String,
    /// Until when the deletion can be undone.
    undo_until: String,
    /// By when everything is deleted.
    deleted_by: String,
}

/// Delete the org with all its data. Its keys, sessions and jobs stop at once; for 12 hours an owner can undo it. Only for people who proved
/// who they are within the last ten minutes.
#[utoipa::path(delete, path = "/v1/org", tag = "orgs", request_body = DeleteOrg,
    responses((status = 202, body = DeletionBegun), (status = 400, description = "That is not the org's name", body = ErrorBody), (status = 403, description = "You are no owner, or have not proved lately that it is you", body = ErrorBody)))]
async fn delete_org(
    State(state): State<AppState>,
    scope: OrgScope<OrgDelete>,
    JsonBody(sent): JsonBody<DeleteOrg>,
) -> Result<(StatusCode, Json<DeletionBegun>), ApiError> {
    let now_us = state.now_us();
    let is_proved =
        matches!(&scope.credential, Credential::Session(session) if now_us - session.proved_us <= PROOF_US);
    if !is_proved {
        return Err(ApiError::forbidden_because("proof_required", "Prove first that it is you")
            .with_hint("send your password or a code to POST /v1/me/prove; that holds for ten minutes"));
    }
    let control = state.store.control();
    let org = control.find_org(scope.org_id()).await?.ok_or_else(|| ApiError::not_found("Org"))?;
    if org.name != sent.name {
        return Err(ApiError::invalid_field("name", "is not the name of this org"));
    }
    let (undo_until_us, deleted_by_us) = (now_us + UNDO_US, now_us + DELETED_BY_US);
    let requester = name_of(&state, &scope.caller).await?;
    let message = Message::OrgDeletionRequested {
        org: Name::new(&org.name),
        requester,
        at_us: now_us,
        undo_until_us,
        deleted_by_us,
    };
    let mails = mails_to_owners(&state, scope.org_id(), &message).await?;
    let receipt_id = format!("del_{}", ulid_at(now_us));
    let deletion = NewDeletion { receipt_id: receipt_id.clone(), undo_until_us, mails };
    control.delete_org(&scope.caller, &org.name, deletion).await?;
    let (undo_until, deleted_by) = (format_rfc3339(undo_until_us), format_rfc3339(deleted_by_us));
    Ok((StatusCode::ACCEPTED, Json(DeletionBegun { receipt_id, undo_until, deleted_by })))
}

/// Undo the deletion of the org. Everything is as it was.
#[utoipa::path(post, path = "/v1/org/undelete", tag = "orgs",
    responses((status = 204), (status = 409, description = "The org is not being deleted, or it is too late", body = ErrorBody)))]
async fn undelete_org(
    State(state): State<AppState>,
    DeletedOrg { caller, name }: DeletedOrg,
) -> Result<StatusCode, ApiError> {
    let undone_by = name_of(&state, &caller).await?;
    let message = Message::OrgDeletionUndone { org: Name::new(&name), undone_by, at_us: state.now_us() };
    let mails = mails_to_owners(&state, &caller.org, &message).await?;
    match state.store.control().undelete_org(&caller, mails).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(StoreError::NotFound) => Err(ApiError::conflict(
            "not_being_deleted",
            "The org is not being deleted, or it is too late to undo it",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The name of who acts, or the address.
async fn name_of(state: &AppState, caller: &Caller) -> Result<Name, ApiError> {
    let user = caller.person().ok_or_else(ApiError::internal)?;
    let person = state.store.control().find_person(user).await?.ok_or_else(ApiError::internal)?;
    Ok(Name::new(if person.name.is_empty() { &person.email } else { &person.name }))
}

async fn mails_to_owners(state: &AppState, org: &OrgId, message: &Message) -> Result<Vec<NewMail>, ApiError> {
    let (mut mails, mut after) = (Vec::new(), String::new());
    loop {
        let page = state.store.control().list_members(org, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(mails) };
        let email = agentlens_domain::people::email::EmailAddress::parse(&last.email);
        after = email.map(|email| email.key().to_owned()).unwrap_or_else(|_| last.email.clone());
        let owners = page.iter().filter(|row| row.role == Role::Owner.as_str() && row.disabled_us.is_none());
        mails.extend(owners.map(|owner| mail_to(&owner.email, message)));
    }
}
