//! Shapes that several features answer with. Names are those of the published protocol (camelCase).

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

/// How long a page, a timeline or a report may be read for.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An event. `payload` and `metadata` are as they were sent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Its id.
    pub id: String,
    /// Its timestamp as it was sent.
    pub timestamp: String,
    /// Its session.
    pub session_id: String,
    /// Its agent.
    pub agent_id: String,
    /// Its type.
    pub event_type: String,
    /// Its severity.
    pub severity: String,
    /// The payload of its type.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// Anything else.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// The hash of the event before it in its session.
    pub prev_hash: Option<String>,
    /// Its hash.
    pub hash: String,
    /// The org.
    pub tenant_id: String,
    /// The environment of the key that sent it.
    pub environment: String,
    /// Its place in the chain of its session, from 1.
    pub seq: i64,
    /// When it was accepted.
    pub received_at: String,
    /// The cost that counts, in dollars, where the event has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostView>,
    /// The span, where the event arrived over OpenTelemetry. Payload and cost are then the span's as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<SpanView>,
}

/// A cost and where it comes from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CostView {
    /// The figure that counts, in dollars.
    pub usd: f64,
    /// `reported` by the client, `computed` from tokens and price, or `unknown`.
    pub source: String,
    /// The cost that the client reported, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_usd: Option<f64>,
    /// The cost computed from tokens and price, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub computed_usd: Option<f64>,
}

impl EventView {
    /// The event as `client` can read it.
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

/// Current events as `client` can read them.
pub fn event_views(events: Vec<CurrentEvent>, org: &OrgId, client: Client) -> Vec<EventView> {
    let view = |current: CurrentEvent| EventView {
        span: current.span.as_ref().map(SpanView::of),
        ..EventView::of(current.event, org.as_str(), client)
    };
    events.into_iter().map(view).collect()
}

/// An answer of about `size_bytes`. The JSON of a large one is written on a thread of its own, so that it holds up no other
/// request.
pub async fn json<T: Serialize + Send + 'static>(answer: T, size_bytes: usize) -> Result<Response, ApiError> {
    if size_bytes <= LARGE_ANSWER_BYTES {
        return Ok(Json(answer).into_response());
    }
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&answer)).await;
    let bytes = written.ok().and_then(Result::ok).ok_or_else(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response())
}

/// Bytes of the events' content, which is nearly all of an answer.
pub fn size_of(events: &[EventView]) -> usize {
    events.iter().map(|event| event.payload.get().len() + event.metadata.get().len()).sum()
}

/// Stored JSON as it is; what is not JSON any more (corruption) shows as null rather than breaking the page.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The mean of a sketch in milliseconds; 0 for none, as published clients expect.
pub fn mean_ms(latency: &Latency) -> f64 {
    latency.mean_us().map_or(0.0, ms)
}

/// A quantile of a sketch in milliseconds; 0 for none.
pub fn quantile_ms(latency: &Latency, q: f64) -> f64 {
    latency.quantile(q).map_or(0.0, ms)
}

/// Microseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 microseconds")]
pub fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

/// A part of a whole; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn ratio(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
