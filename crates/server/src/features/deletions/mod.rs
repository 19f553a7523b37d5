//! Receipts of deleted orgs, and the public keys that check their signatures. Anyone may read them: they hold nothing personal.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::signing::{PublicJwk, digest};
use agentlens_domain::time::format_rfc3339;
use agentlens_store::DeletionRow;

use crate::error::{ApiError, ErrorBody};
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_keys)).routes(routes!(get_deletion))
}

/// Public keys, as RFC 7517 writes them.
#[derive(Debug, Serialize, ToSchema)]
struct Keys {
    /// Keys of Ed25519; the newest first.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<PublicJwk>,
}

/// Get the public keys by which this server signs, those of the past too.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "server", security(()), responses((status = 200, body = Keys)))]
async fn get_keys(State(state): State<AppState>) -> Result<Response, ApiError> {
    let keys = state.store.control().public_keys().await?;
    let keys = Keys { keys: keys.iter().map(|key| PublicJwk::of(key)).collect() };
    Ok(([(header::CACHE_CONTROL, "public, max-age=300")], Json(keys)).into_response())
}

/// The deletion of an org.
#[derive(Debug, Serialize, ToSchema)]
struct Deletion {
    /// The id of the receipt.
    receipt_id: String,
    /// `pending` as long as it can be undone, then `purging`, then `deleted`; or `undone`.
    state: &'static str,
    /// When an owner asked for it.
    requested_at: String,
    /// Until when it can be undone.
    undo_until: String,
    /// The receipt: the SHA-256 of `agentlens org ` and the org's id, how much was deleted where, and when.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Value>,
    /// The SHA-256 of the receipt's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// The text and its signature in the compact form of RFC 7515, by a key of `/.well-known/jwks.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    jws: Option<String>,
}

impl Deletion {
    fn of(row: DeletionRow, now_us: i64) -> Self {
        let state = match &row {
            DeletionRow { undone_us: Some(_), .. } => "undone",
            DeletionRow { purged_us: Some(_), .. } => "deleted",
            DeletionRow { purging_us: Some(_), .. } => "purging",
            DeletionRow { undo_until_us, .. } if *undo_until_us <= now_us => "purging",
            _ => "pending",
        };
        Self {
            state,
            receipt_id: row.receipt_id,
            requested_at: format_rfc3339(row.requested_us),
            undo_until: format_rfc3339(row.undo_until_us),
            sha256: row.receipt.as_deref().map(digest),
            receipt: row.receipt.and_then(|receipt| serde_json::from_str(&receipt).ok()),
            jws: row.jws,
        }
    }
}

/// Get the deletion of an org by the id of its receipt.
#[utoipa::path(get, path = "/v1/deletions/{id}", tag = "server", security(()), params(("id" = String, Path, description = "The id of the receipt")),
    responses((status = 200, body = Deletion), (status = 404, body = ErrorBody)))]
async fn get_deletion(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Deletion>, ApiError> {
    let row = state.store.control().find_deletion(&id).await?;
    let row = row.ok_or_else(|| ApiError::not_found("Deletion"))?;
    Ok(Json(Deletion::of(row, state.now_us())))
}
