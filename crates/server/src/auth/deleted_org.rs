//! The one way to an org that is being deleted: an owner who undoes it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use agentlens_domain::ids::OrgId;
use agentlens_domain::permissions::{Actor, Caller, Permission, PermissionSet};

use super::account::session_of;
use super::{Authorized, credential, missing, named, origin};
use crate::error::{ApiError, note_caller};
use crate::state::AppState;

/// An owner, in an org that is being deleted or is not.
pub struct DeletedOrg {
    /// Who acts.
    pub caller: Caller,
    /// The name of the org.
    pub name: String,
}

impl FromRequestParts<AppState> for DeletedOrg {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        const PERMISSION: Permission = Permission::OrgDelete;
        if let Some(key) = credential(parts)? {
            Authorized::by_key(parts, state, &key).await?;
            return Err(ApiError::forbidden(PERMISSION.as_str()));
        }
        let session = session_of(parts, state, missing("sign in; no API key can do this")).await?;
        let user = &session.user_id;
        let org = match named(parts, "org", "agentlens-org")? {
            Some(text) => OrgId::parse(text).map_err(|_| ApiError::not_found("Org"))?,
            None => only_org(state, user).await?,
        };
        let found = state.store.control().role_in_any_org(&org, user).await?;
        let (name, role) = found.ok_or_else(|| ApiError::not_found("Org"))?;
        note_caller(&org, user.as_str());
        if !PermissionSet::of_role(role).contains(PERMISSION) {
            return Err(ApiError::forbidden_because(
                "insufficient_role",
                format!("Your role in this org does not include {}", PERMISSION.as_str()),
            ));
        }
        let actor = Actor::Person { user_id: user.clone(), role };
        let origin = origin::origin_of(parts, Some(&session.session_id));
        Ok(Self { caller: Caller { org, workspace: None, actor, origin }, name })
    }
}

/// The org of someone who names none.
async fn only_org(state: &AppState, user: &agentlens_domain::ids::UserId) -> Result<OrgId, ApiError> {
    let live = state.sessions.orgs_of(user).await?.into_iter().map(|row| row.org_id);
    let deleted = state.store.control().deleted_orgs_of(user).await?.into_iter().map(|row| row.org_id);
    let orgs: Vec<String> = live.chain(deleted).collect();
    match orgs.as_slice() {
        [one] => OrgId::parse(one).map_err(|_| ApiError::internal()),
        [] => Err(ApiError::forbidden_because("no_org", "You are not a member of any org")),
        _ => Err(ApiError::bad_request("org_required", "You are a member of several orgs: name one")
            .with_hint("send its id in the header AgentLens-Org")),
    }
}
