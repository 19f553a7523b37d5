//! Revoking a key that someone found. Whoever holds a key may do that; nobody else learns anything from it.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::{KeyId, OrgId};
use agentlens_domain::keys::ApiKey;
use agentlens_domain::permissions::{Actor, Caller, Origin};
use agentlens_mail::{Message, Name};
use agentlens_store::{NewMail, StoreError};

use crate::auth::Stranger;
use crate::error::ApiError;
use crate::json_body::JsonBody;
use crate::people::steps::mail_to;
use crate::state::AppState;

/// Owners who are mailed.
const MAX_MAILS: usize = 50;

/// The route.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(revoke_leaked_key))
}

/// A key that someone found.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LeakedKey {
    /// The whole key.
    api_key: String,
}

/// Revoke an API key that you found in a place where it should not be. Its org's owners are told by mail. The answer is the same
/// whether there is such a key or not.
#[utoipa::path(post, path = "/v1/keys/revoke-leaked", tag = "keys", request_body = LeakedKey, security(()),
    responses((status = 202, description = "If there was such a key, it is revoked"), (status = 429, description = "Too many requests from this network", body = crate::error::ErrorBody)))]
async fn revoke_leaked_key(
    State(state): State<AppState>,
    stranger: Stranger,
    JsonBody(sent): JsonBody<LeakedKey>,
) -> Result<StatusCode, ApiError> {
    if let Some(key) = ApiKey::parse(sent.api_key.trim()) {
        revoke(&state, &key, stranger.origin).await?;
    }
    Ok(StatusCode::ACCEPTED)
}

async fn revoke(state: &AppState, key: &ApiKey, origin: Origin) -> Result<(), ApiError> {
    let control = state.store.control();
    let digest = state.keys.secret().digest(key.reveal());
    let Some(row) = control.find_key_by_digest(&digest).await?.filter(|row| row.revoked_us.is_none()) else {
        return Ok(());
    };
    let (Ok(org), Ok(key_id)) = (OrgId::parse(&row.org_id), KeyId::parse(&row.key_id)) else {
        return Err(ApiError::internal());
    };
    let org_name = control.find_org(&org).await?.map(|org| org.name).unwrap_or_default();
    let message = Message::KeyRevokedAsLeaked {
        org: Name::new(&org_name),
        key_name: Name::new(&row.name),
        key_prefix: Name::new(&row.shown_prefix),
        at_us: state.now_us(),
    };
    let addresses = control.owner_addresses(&org).await?;
    let mails: Vec<NewMail> =
        addresses.iter().take(MAX_MAILS).map(|address| mail_to(address, &message)).collect();
    // Whoever reports a key holds it, and is not known otherwise.
    let actor = Actor::Key { key_id: key_id.clone(), scopes: Vec::new() };
    let caller = Caller { org, workspace: None, actor, origin };
    match control.revoke_leaked_key(&caller, &key_id, mails).await {
        // Somebody else was faster, and a revoked key may do nothing.
        Ok(()) | Err(StoreError::NotFound | StoreError::NotAllowed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
