//! Sending events, and the ledger of what became of them.

use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ledger::{self, ENVIRONMENT_LIMIT, Reason};
use agentlens_ingest::{EventResult, IngestError, IngestReport, IngestRequest};

use crate::api::hex;
use crate::auth::{EventsWrite, LedgerRead, Scope};
use crate::body;
use crate::error::{ApiError, ErrorBody, ErrorDetail, request_id};
use crate::query::Params;
use crate::state::AppState;

/// The outcome of events whose batch could not be applied.
const DEAD_LETTER: &str = "dead_letter";

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(send_events))
        .routes(routes!(get_ledger))
        .route("/v1/events", axum::routing::post(send_events))
        .route("/api/obs/ingest/events", axum::routing::post(send_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IngestQuery {
    /// `true`: all or nothing. One refused event refuses the whole batch, and nothing is stored.
    strict: Option<String>,
}

/// The result of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct IngestAnswer {
    /// Events that are durable.
    accepted: usize,
    /// The same number, under the name that published clients read.
    ingested: usize,
    /// Events that were refused.
    rejected: usize,
    /// The id of this request in the server's log.
    request_id: String,
    /// The accepted events in the order of the request.
    events: Vec<AcceptedEvent>,
    /// The refused ones.
    errors: Vec<RefusedEvent>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AcceptedEvent {
    /// The event's id: the client's, or the server's.
    id: String,
    /// Its hash in the chain, if it is already stored (embedded store).
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// The same event was received before; it is stored once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct RefusedEvent {
    /// Its index in the request, from 0.
    index: usize,
    /// The field, as a path from the event.
    field: String,
    /// Why, for a person.
    error: String,
    /// Why, for a program.
    reason: &'static str,
}

/// Send events: one, an array, or `{"events": [...]}`.
///
/// Each event is accepted or refused on its own. The response is sent once all accepted events are durable. The body may be
/// compressed with gzip, zstd or deflate. A repeat with the same event ids, or with the same `Idempotency-Key` for events without
/// ids, is stored once.
#[utoipa::path(
    post,
    path = "/api/events",
    tag = "events",
    params(IngestQuery, ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to retry this request")),
    responses(
        (status = 202, description = "Durable", body = IngestAnswer),
        (status = 400, description = "Every event was refused, or the body is not JSON", body = ErrorBody),
    )
)]
async fn send_events(
    scope: Scope<EventsWrite>,
    State(state): State<AppState>,
    Params(query): Params<IngestQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let strict = crate::query::choice(
        "strict",
        query.strict.as_ref(),
        &[("true", true), ("1", true), ("false", false), ("0", false)],
    )?
    .unwrap_or(false);
    let (parts, body) = request.into_parts();
    let (body, mut room) = body::read(&state.shares.bodies, scope.org_id(), &parts.headers, body).await?;
    // The events that are made of it are about as large.
    room.grow_to(2 * body.len())?;
    let idempotency_key = match parts.headers.get("idempotency-key") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| {
                    ApiError::bad_request(
                        "invalid_idempotency_key",
                        "Idempotency-Key must be printable ASCII",
                    )
                })?
                .to_owned(),
        ),
    };
    let request = IngestRequest {
        sender: scope.key()?.sender(),
        body,
        idempotency_key,
        strict,
        now_us: state.now_us(),
    };
    let (report, is_strict_refusal) = match state.gateway.ingest(scope.org(), request).await {
        Ok(report) => (report, false),
        Err(IngestError::Strict(report)) => (report, true),
        Err(error) => return Err(error.into()),
    };
    let answer = answer(report);
    state.metrics.count_ingest(scope.org_id().as_str(), answer.accepted, answer.rejected);
    if answer.accepted == 0 || is_strict_refusal {
        return Err(validation_failed(answer));
    }
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Nothing was stored: the published 400, with every fault. The first one is in the sentence too, since published clients
/// show nothing else.
fn validation_failed(answer: IngestAnswer) -> ApiError {
    let sentence = match answer.errors.iter().find(|refused| refused.reason != Reason::StrictBatch.as_str()) {
        None => "Validation failed".to_owned(),
        Some(first) => {
            let others = match answer.rejected {
                0 | 1 => String::new(),
                count => format!(" (the first of {count} faults)"),
            };
            format!("Validation failed: event {}: {}{others}", first.index, first.error)
        }
    };
    let path = |index: usize, field: &str| {
        // The event as a whole has no path of its own below its place.
        if field == "event" { format!("events.{index}") } else { format!("events.{index}.{field}") }
    };
    let details = answer
        .errors
        .into_iter()
        .map(|refused| ErrorDetail { path: path(refused.index, &refused.field), message: refused.error })
        .collect();
    ApiError::bad_request("validation_failed", sentence).with_details(details)
}

fn answer(report: IngestReport) -> IngestAnswer {
    let mut events = Vec::with_capacity(report.results.len());
    let mut errors = Vec::new();
    for (index, result) in report.results.into_iter().enumerate() {
        match result {
            EventResult::Accepted { id, hash, is_duplicate } => {
                events.push(AcceptedEvent { id, hash: hash.map(|hash| hex(&hash)), duplicate: is_duplicate })
            }
            EventResult::Refused(refusal) => {
                errors.push(RefusedEvent {
                    index,
                    field: refusal.field,
                    error: refusal.message,
                    reason: refusal.reason.as_str(),
                });
            }
        }
    }
    IngestAnswer {
        accepted: events.len(),
        ingested: events.len(),
        rejected: errors.len(),
        request_id: request_id(),
        events,
        errors,
    }
}

/// The ledger of a workspace: for each of its keys `received = stored + refused (summed) + waiting`.
#[derive(Debug, Serialize, ToSchema)]
struct Ledger {
    /// By key.
    keys: Vec<KeyLedger>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct KeyLedger {
    /// The key's id.
    key_id: String,
    /// Events in accepted requests.
    received: i64,
    /// Events that are stored.
    stored: i64,
    /// Events that are not, by reason. `duplicate` are repeats of stored ones, `dead_letter` could not be applied and
    /// are kept until they are replayed.
    refused: BTreeMap<String, i64>,
    /// Stored events in the environment `other`, because the workspace had no room for the one they name.
    environment_limit: i64,
    /// Events that are durable in the queue but not applied yet.
    waiting: i64,
}

/// Count what happened to every event sent with the workspace's keys.
#[utoipa::path(get, path = "/v1/ingest/ledger", tag = "ingest", responses((status = 200, body = Ledger)))]
async fn get_ledger(
    scope: Scope<LedgerRead>,
    State(state): State<AppState>,
) -> Result<Json<Ledger>, ApiError> {
    // A batch that is applied in between, or is not taken off the queue yet, may for a moment be counted as waiting and
    // as stored; that is better than in neither.
    let waiting = state.gateway.queue().waiting(scope.org()).await?;
    let mut rows = scope.org().ledger().counts().await?;
    rows.extend(scope.org().dead_letters().event_counts().await?);
    let keys_of_org = state.store.control().list_keys(scope.org().id()).await?;
    let own: HashSet<&str> = keys_of_org
        .iter()
        .filter(|key| key.workspace_id == scope.workspace.id().as_str())
        .map(|key| key.key_id.as_str())
        .collect();
    rows.retain(|row| own.contains(row.key_id.as_str()));
    let mut keys: BTreeMap<String, KeyLedger> = BTreeMap::new();
    for row in rows {
        let key = keys.entry(row.key_id).or_default();
        match row.outcome.as_str() {
            ledger::RECEIVED => key.received += row.event_count,
            ledger::STORED => key.stored = row.event_count,
            ENVIRONMENT_LIMIT => key.environment_limit = row.event_count,
            outcome => {
                // Dead letters were received and never applied, so the store has not counted them yet.
                key.received += if outcome == DEAD_LETTER { row.event_count } else { 0 };
                key.refused.insert(row.outcome, row.event_count);
            }
        }
    }
    for (key_id, count) in
        waiting.into_iter().filter(|(key_id, count)| *count > 0 && own.contains(key_id.as_str()))
    {
        let key = keys.entry(key_id).or_default();
        key.waiting = count;
        key.received += count;
    }
    let keys = keys.into_iter().map(|(key_id, key)| KeyLedger { key_id, ..key }).collect();
    Ok(Json(Ledger { keys }))
}
