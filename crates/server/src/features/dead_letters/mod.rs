//! Batches that could not be applied: listed, and applied again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::BatchId;
use agentlens_domain::time::format_rfc3339;
use agentlens_ingest::message;

use crate::auth::{DeadLettersManage, OrgScope};
use crate::error::{ApiError, ErrorBody};
use crate::state::AppState;

/// Letters that are listed.
const MAX_LETTERS: u32 = 1_000;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_dead_letters)).routes(routes!(replay_dead_letter))
}

/// Batches that could not be applied.
#[derive(Debug, Serialize, ToSchema)]
struct DeadLetters {
    /// The 1,000 oldest, the oldest first.
    dead_letters: Vec<DeadLetterView>,
}

/// A batch that could not be applied.
#[derive(Debug, Serialize, ToSchema)]
struct DeadLetterView {
    /// The batch.
    batch_id: String,
    /// The key that sent it.
    key_id: String,
    /// When it was given up.
    failed_at: String,
    /// Why.
    reason: String,
    /// How many events it holds.
    events: i64,
}

/// List batches that could not be applied.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "ingest", responses((status = 200, body = DeadLetters)))]
async fn list_dead_letters(
    State(state): State<AppState>,
    scope: OrgScope<DeadLettersManage>,
) -> Result<Json<DeadLetters>, ApiError> {
    let rows = state.store.org(scope.org_id()).await?.dead_letters().list(MAX_LETTERS).await?;
    let dead_letters = rows.into_iter().map(|row| DeadLetterView {
        batch_id: row.batch_id,
        key_id: row.key_id,
        failed_at: format_rfc3339(row.failed_us),
        reason: row.reason,
        events: row.event_count,
    });
    Ok(Json(DeadLetters { dead_letters: dead_letters.collect() }))
}

/// Apply a batch again. If that succeeds, it is taken off the list.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/replay", tag = "ingest", params(("id" = String, Path, description = "The batch's id")),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 409, description = "It still can't be applied", body = ErrorBody)))]
async fn replay_dead_letter(
    State(state): State<AppState>,
    scope: OrgScope<DeadLettersManage>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let batch = BatchId::parse(&id).map_err(|_| ApiError::not_found("Dead letter"))?;
    let org = state.store.org(scope.org_id()).await?;
    let bytes = org.dead_letters().message(&batch).await?;
    let unreadable = |error: String| {
        tracing::warn!(org.id = %scope.org_id(), batch.id = %batch, error, "a dead letter can't be applied");
        ApiError::conflict("not_applicable", "The batch still can't be applied; the server's log says why")
    };
    let decoded = message::decode(&bytes).map_err(|error| unreadable(error.to_string()))?;
    // Applying is idempotent, so a failure between the two steps harms nothing.
    match org.apply(Arc::new(vec![decoded]), state.now_us()).await {
        Ok(_) => {}
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(error) => return Err(unreadable(error.to_string())),
    }
    org.dead_letters().delete(&scope.caller, "dead_letters.replay", &batch).await?;
    Ok(StatusCode::NO_CONTENT)
}
