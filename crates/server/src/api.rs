//! Response types that several features share. Field names are those of the published protocol (camelCase).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::ids::OrgId;
use agentlens_domain::latency::Latency;
use agentlens_domain::limits::LARGE_ANSWER_BYTES;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::StoredEvent;
use agentlens_views::CurrentEvent;

use crate::client::Client;
use crate::error::ApiError;
use crate::spans::SpanView;

/// How long reading a page, a timeline or a report may take.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An event. `payload` and `metadata` are as sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Its id, unique in the workspace.
    pub id: String,
    /// When it happened, as sent.
    pub timestamp: String,
    /// The id of its session.
    pub session_id: String,
    /// The id of its agent.
    pub agent_id: String,
    /// Its type.
    pub event_type: String,
    /// Its severity.
    pub severity: String,
    /// The payload. Its fields depend on the type.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// Additional data; `userId` is the end user.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// The hash of the previous event in its session; null for the first one.
    pub prev_hash: Option<String>,
    /// Its hash in the chain.
    pub hash: String,
    /// The id of the org.
    pub tenant_id: String,
    /// The environment that it names, otherwise that of the API key that sent it.
    pub environment: String,
    /// Its number in the chain of its session, starting with 1.
    pub seq: i64,
    /// When the server accepted it.
    pub received_at: String,
    /// Its cost; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostView>,
    /// The span, if the event arrived over OpenTelemetry. Then payload and cost are those of the span as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<SpanView>,
}

/// A cost and its source.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostView {
    /// The cost that counts, in dollars.
    pub usd: f64,
    /// `reported`: sent by the client. `computed`: from tokens and price. `unknown`: the price or the number of tokens is unknown.
    pub source: String,
    /// The cost that the client reported, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_usd: Option<f64>,
    /// The cost computed from tokens and price, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub computed_usd: Option<f64>,
}

impl EventView {
    /// The event in a form that `client` can decode.
    pub fn of(event: StoredEvent, org: &str, client: Client) -> Self {
        let cost = event.cost_source.map(|source| CostView {
            usd: nanos_to_usd(event.cost_nanos.unwrap_or(0)),
            source,
            reported_usd: event.reported_cost_nanos.map(nanos_to_usd),
            computed_usd: event.computed_cost_nanos.map(nanos_to_usd),
        });
        Self {
            id: event.id,
            timestamp: event.timestamp,
            session_id: event.session_id,
            agent_id: event.agent_id,
            event_type: client.event_type(&event.event_type).to_owned(),
            severity: event.severity,
            payload: raw(event.payload),
            metadata: raw(event.metadata),
            prev_hash: event.prev_hash.map(|hash| hex(&hash)),
            hash: hex(&event.hash),
            tenant_id: org.to_owned(),
            environment: event.environment,
            seq: event.seq,
            received_at: format_rfc3339(event.received_us),
            cost,
            span: None,
        }
    }
}

/// Current events in a form that `client` can decode.
pub fn event_views(events: Vec<CurrentEvent>, org: &OrgId, client: Client) -> Vec<EventView> {
    let view = |current: CurrentEvent| EventView {
        span: current.span.as_ref().map(SpanView::of),
        ..EventView::of(current.event, org.as_str(), client)
    };
    events.into_iter().map(view).collect()
}

/// A JSON response of about `size_bytes`. A large one is serialised on a separate thread, so that it does not delay other requests.
pub async fn json<T: Serialize + Send + 'static>(answer: T, size_bytes: usize) -> Result<Response, ApiError> {
    if size_bytes <= LARGE_ANSWER_BYTES {
        return Ok(Json(answer).into_response());
    }
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&answer)).await;
    let bytes = written.ok().and_then(Result::ok).ok_or_else(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// Bytes of the content of events, which are most of a response.
pub fn size_of(events: &[EventView]) -> usize {
    events.iter().map(|event| event.payload.get().len() + event.metadata.get().len()).sum()
}

/// Stored JSON as it is. Corrupted JSON is shown as null, so that it does not break the page.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The mean of a sketch in milliseconds; 0 if it is empty, as published clients expect.
pub fn mean_ms(latency: &Latency) -> f64 {
    latency.mean_us().map_or(0.0, ms)
}

/// A quantile of a sketch in milliseconds; 0 if it is empty.
pub fn quantile_ms(latency: &Latency, q: f64) -> f64 {
    latency.quantile(q).map_or(0.0, ms)
}

/// Microseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 microseconds")]
pub fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

/// A ratio; 0 if the whole is 0.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn ratio(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
