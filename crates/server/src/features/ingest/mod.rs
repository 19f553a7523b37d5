//! Receiving events, and the ledger of their outcomes.

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
    /// `true`: if one event is refused, the whole batch is refused and nothing is stored.
    strict: Option<String>,
}

/// The result of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct IngestAnswer {
    /// The number of accepted events. They are durable.
    accepted: usize,
    /// The same as `accepted`, under the name that published clients read.
    ingested: usize,
    /// The number of refused events.
    rejected: usize,
    /// The id of this request in the server's log.
    request_id: String,
    /// The accepted events in the order of the request.
    events: Vec<AcceptedEvent>,
    /// The refused events.
    errors: Vec<RefusedEvent>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AcceptedEvent {
    /// The event's id: chosen by the client, otherwise by the server.
    id: String,
    /// Its hash in the chain; absent for a duplicate, and while the event is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Whether the same event was received before. It is stored once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct RefusedEvent {
    /// Its index in the request, from 0.
    index: usize,
    /// The field that is wrong, as a path in the event.
    field: String,
    /// The reason as a sentence.
    error: String,
    /// The reason as a stable code.
    reason: &'static str,
}

/// Send one event, an array of events, or `{"events": [...]}`.
///
/// Each event is accepted or refused on its own. The response is sent once all accepted events are durable. The body may be
/// compressed with gzip, zstd or deflate. If a request is sent again with the same event ids, or with the same `Idempotency-Key` if
/// events have no ids, its events are stored once.
#[utoipa::path(
    post,
    path = "/api/events",
    tag = "events",
    params(IngestQuery, ("Idempotency-Key" = Option<String>, Header, description = "A unique value for this request, which makes it safe to send the request again")),
    responses(
        (status = 202, description = "At least one event was accepted; accepted events are durable", body = IngestAnswer),
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

/// The 400 response if nothing was stored, with every fault. The sentence includes the first one, because published clients show
/// nothing else.
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
        // A fault of the event as a whole has only the event's path.
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

/// The ledger of a workspace. For each key, `received` equals `stored` plus all of `refused` plus `waiting`.
#[derive(Debug, Serialize, ToSchema)]
struct Ledger {
    /// The counts of each key.
    keys: Vec<KeyLedger>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct KeyLedger {
    /// The id of the key.
    key_id: String,
    /// The number of events in accepted requests.
    received: i64,
    /// The number of stored events.
    stored: i64,
    /// The number of events that are not stored, by reason. `duplicate`: the event was already stored. `dead_letter`:
    /// the event could not be applied and is kept until it is replayed.
    refused: BTreeMap<String, i64>,
    /// The number of events stored in the environment `other`, because the workspace has its maximum of environments.
    environment_limit: i64,
    /// The number of events in the queue. They are durable and not stored yet.
    waiting: i64,
}

/// Get the number of events of each key of the workspace, by outcome.
#[utoipa::path(get, path = "/v1/ingest/ledger", tag = "ingest", responses((status = 200, description = "The counts of each key", body = Ledger)))]
async fn get_ledger(
    scope: Scope<LedgerRead>,
    State(state): State<AppState>,
) -> Result<Json<Ledger>, ApiError> {
    // A batch that is applied meanwhile may be counted as waiting and as stored for a moment. That is better than in neither.
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
                // Dead letters were received and not applied, so the store has not counted them.
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
