//! The last requests of OpenTelemetry clients. They show clients whose requests are accepted but whose attributes nothing reads.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::page::Cursor;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{IngestRequestRow, MAX_REQUESTS_PER_KEY};

use crate::auth::{EventsRead, Scope};
use crate::error::ApiError;
use crate::ingest_requests::Report;
use crate::query::{self, Params};
use crate::state::AppState;

/// Unmapped attributes are summed over this many of the newest requests.
const MAX_SUMMED_REQUESTS: usize = 2_000;
/// The most attributes of one client library in a response.
const MAX_SUMMED_KEYS: usize = 1_000;
/// The name of a client library that does not send its name.
const UNNAMED: &str = "unknown";

/// The routes that read these requests.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_requests)).routes(routes!(list_unmapped))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RequestsQuery {
    /// Rows per page, at most 1000.
    limit: Option<String>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
    /// Only requests of this API key.
    key_id: Option<String>,
}

/// A page of requests, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct IngestRequests {
    requests: Vec<IngestRequestView>,
    has_more: bool,
    /// The cursor of the next page; absent on the last one.
    next_cursor: Option<String>,
}

/// One request of an OpenTelemetry client.
#[derive(Debug, Serialize, ToSchema)]
struct IngestRequestView {
    /// Its id in the server's log, which is also in the `X-Request-Id` header of its response.
    request_id: String,
    /// The key that sent it.
    key_id: String,
    /// When it was received.
    received_at: String,
    /// `traces`, `logs` or `metrics`.
    signal: String,
    user_agent: Option<String>,
    /// The client libraries that sent it.
    clients: Vec<ClientView>,
    /// The number of accepted spans, log records or metrics.
    accepted: i64,
    /// The number of refused ones.
    refused: i64,
    /// The first reasons for refusals. If the whole request was refused, its reason.
    reasons: Vec<String>,
    /// Whether the whole request was refused. Then the number of its items is unknown.
    failed: bool,
    /// The number of attributes and fields that were kept in another form than sent.
    repaired: u64,
    /// For each client library, the attributes that no rule reads, and how often each was received. They are stored
    /// with the span. Numbers between dots are shown as `*`: `llm.messages.0.name` is counted as
    /// `llm.messages.*.name`.
    unmapped: BTreeMap<String, BTreeMap<String, u64>>,
}

/// A client library in one request.
#[derive(Debug, Serialize, ToSchema)]
struct ClientView {
    name: String,
    version: String,
    /// The number of spans or log records from it.
    items: u32,
}

/// List the last requests of OpenTelemetry clients.
///
/// For each key, one request per second is kept at most, plus those with a refusal or a new attribute. Only the newest 200 requests
/// of a key are kept.
#[utoipa::path(get, path = "/v1/ingest/requests", tag = "ingest", params(RequestsQuery),
    responses((status = 200, description = "A page of requests", body = IngestRequests)))]
async fn list_requests(
    scope: Scope<EventsRead>,
    Params(params): Params<RequestsQuery>,
) -> Result<Json<IngestRequests>, ApiError> {
    let limit = query::limit(params.limit.as_ref())?;
    let cursor = query::cursor(params.cursor.as_ref())?;
    let key_id = query::text(params.key_id.as_ref());
    if key_id.as_ref().is_some_and(|key_id| key_id.contains('\0')) {
        return Err(ApiError::invalid_parameter("key_id", "must not hold a NUL character"));
    }
    let mut rows =
        scope.workspace.ingest_requests().list(key_id.as_deref(), cursor.as_ref(), limit + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows
        .last()
        .filter(|_| has_more)
        .map(|last| Cursor { value: last.received_us, id: last.request_id.clone() }.encode());
    let requests = rows.into_iter().map(IngestRequestView::of).collect();
    Ok(Json(IngestRequests { requests, has_more, next_cursor }))
}

impl IngestRequestView {
    fn of(row: IngestRequestRow) -> Self {
        let report = report_of(&row);
        let mut unmapped: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let mut clients = Vec::with_capacity(report.clients.len());
        for client in report.clients {
            let name = shown(client.name);
            if !client.unmapped.is_empty() {
                let sums = unmapped.entry(name.clone()).or_default();
                for (key, count) in client.unmapped {
                    *sums.entry(key).or_default() += u64::from(count);
                }
            }
            clients.push(ClientView { name, version: client.version, items: client.items });
        }
        Self {
            request_id: row.request_id,
            key_id: row.key_id,
            received_at: format_rfc3339(row.received_us),
            signal: row.signal,
            user_agent: row.user_agent,
            clients,
            accepted: row.item_count - row.refused_count,
            refused: row.refused_count,
            reasons: report.reasons,
            failed: report.failed,
            repaired: report.repaired,
            unmapped,
        }
    }
}

/// A row that this version of the program can't read is shown as empty, so that it does not break the page.
fn report_of(row: &IngestRequestRow) -> Report {
    serde_json::from_str(&row.report).unwrap_or_default()
}

fn shown(name: String) -> String {
    if name.is_empty() { UNNAMED.to_owned() } else { name }
}

/// Attributes that no rule reads.
#[derive(Debug, Serialize, ToSchema)]
struct Unmapped {
    /// The number of kept requests that were read.
    requests: usize,
    /// Attributes of each client library.
    clients: Vec<UnmappedClient>,
}

/// Attributes of one client library that no rule reads.
#[derive(Debug, Default, Serialize, ToSchema)]
struct UnmappedClient {
    name: String,
    versions: BTreeSet<String>,
    /// The number of its spans and log records in these requests.
    items: u64,
    /// How often each attribute was received. Numbers between dots are shown as `*`.
    unmapped: BTreeMap<String, u64>,
}

/// List attributes that no rule reads, by client library, summed over the kept requests.
#[utoipa::path(get, path = "/v1/ingest/unmapped", tag = "ingest",
    responses((status = 200, description = "Attributes by client library", body = Unmapped)))]
async fn list_unmapped(scope: Scope<EventsRead>) -> Result<Json<Unmapped>, ApiError> {
    let mut clients: BTreeMap<String, UnmappedClient> = BTreeMap::new();
    let (mut requests, mut before) = (0, None);
    while requests < MAX_SUMMED_REQUESTS {
        let rows =
            scope.workspace.ingest_requests().list(None, before.as_ref(), MAX_REQUESTS_PER_KEY).await?;
        requests += rows.len();
        for row in &rows {
            add(&mut clients, report_of(row));
        }
        let Some(last) = rows.last().filter(|_| rows.len() == MAX_REQUESTS_PER_KEY as usize) else { break };
        before = Some(Cursor { value: last.received_us, id: last.request_id.clone() });
    }
    let clients = clients.into_iter().map(|(name, client)| UnmappedClient { name, ..client }).collect();
    Ok(Json(Unmapped { requests, clients }))
}

fn add(clients: &mut BTreeMap<String, UnmappedClient>, report: Report) {
    for client in report.clients {
        let sum = clients.entry(shown(client.name)).or_default();
        sum.items += u64::from(client.items);
        if !client.version.is_empty() {
            sum.versions.insert(client.version);
        }
        for (key, count) in client.unmapped {
            if sum.unmapped.len() < MAX_SUMMED_KEYS || sum.unmapped.contains_key(&key) {
                *sum.unmapped.entry(key).or_default() += u64::from(count);
            }
        }
    }
}
