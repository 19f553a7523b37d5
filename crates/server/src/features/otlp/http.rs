//! OTLP over HTTP: binary protobuf or JSON. A response has the encoding of its request.

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use agentlens_otlp::wire::{Encoding, Signal, encode_status, encode_success};

use super::export::{Export, export};
use crate::auth::{EventsWrite, Scope};
use crate::body;
use crate::error::ApiError;
use crate::state::AppState;

/// The routes of OTLP over HTTP, also under the path that Langfuse's clients use.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(with_status(routes!(export_traces)))
        .routes(with_status(routes!(export_logs)))
        .routes(with_status(routes!(export_metrics)))
        .route("/api/public/otel/v1/traces", post(export_traces).fallback(refuse_method))
        .route("/api/public/otel/v1/logs", post(export_logs).fallback(refuse_method))
        .route("/api/public/otel/v1/metrics", post(export_metrics).fallback(refuse_method))
}

/// The same routes. Other methods are refused with an error body of this protocol.
fn with_status((schemas, paths, methods): UtoipaMethodRouter<AppState>) -> UtoipaMethodRouter<AppState> {
    let methods: MethodRouter<AppState> = methods.fallback(refuse_method);
    (schemas, paths, methods)
}

/// Send spans: OTLP's `ExportTraceServiceRequest`.
///
/// Each span is accepted or refused on its own. `partialSuccess` says how many were refused and why; don't send those again. The
/// response is sent once all accepted spans are durable. A span that is sent twice is stored once. The body may be compressed with
/// gzip, zstd or deflate. The response has the encoding of the request.
///
/// The API key can also be the password of `Authorization: Basic`. The same endpoint exists at
/// `/api/public/otel/v1/traces`, and over gRPC on the same port.
#[utoipa::path(
    post,
    path = "/v1/traces",
    tag = "otlp",
    request_body(content((Vec<u8> = "application/x-protobuf"), (Object = "application/json")), description = "`ExportTraceServiceRequest`"),
    responses(
        (status = 200, description = "`ExportTraceServiceResponse`", content((Vec<u8> = "application/x-protobuf"), (Object = "application/json"))),
    )
)]
async fn export_traces(State(state): State<AppState>, request: Request) -> Response {
    answer(Signal::Traces, &state, request).await
}

/// Send log records: OTLP's `ExportLogsServiceRequest`.
///
/// A record of a GenAI client becomes part of the span that it names. Everything else is as for `/v1/traces`.
#[utoipa::path(
    post,
    path = "/v1/logs",
    tag = "otlp",
    request_body(content((Vec<u8> = "application/x-protobuf"), (Object = "application/json")), description = "`ExportLogsServiceRequest`"),
    responses(
        (status = 200, description = "`ExportLogsServiceResponse`", content((Vec<u8> = "application/x-protobuf"), (Object = "application/json"))),
    )
)]
async fn export_logs(State(state): State<AppState>, request: Request) -> Response {
    answer(Signal::Logs, &state, request).await
}

/// Send metrics: OTLP's `ExportMetricsServiceRequest`.
///
/// Metrics are counted but not stored, because tokens and durations are read from spans.
#[utoipa::path(
    post,
    path = "/v1/metrics",
    tag = "otlp",
    request_body(content((Vec<u8> = "application/x-protobuf"), (Object = "application/json")), description = "`ExportMetricsServiceRequest`"),
    responses(
        (status = 200, description = "`ExportMetricsServiceResponse`", content((Vec<u8> = "application/x-protobuf"), (Object = "application/json"))),
    )
)]
async fn export_metrics(State(state): State<AppState>, request: Request) -> Response {
    answer(Signal::Metrics, &state, request).await
}

async fn answer(signal: Signal, state: &AppState, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let encoding = encoding_of(&parts.headers);
    let answered = match admit(encoding, state, &mut parts).await {
        Ok((scope, encoding)) => take(signal, encoding, state, &scope, &parts.headers, body).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| status_response(encoding, &error))
}

/// What is known before the body is read.
async fn admit(
    encoding: Option<Encoding>,
    state: &AppState,
    parts: &mut Parts,
) -> Result<(Scope<EventsWrite>, Encoding), ApiError> {
    let scope = Scope::<EventsWrite>::from_request_parts(parts, state).await?;
    let encoding = encoding.ok_or_else(|| {
        ApiError::unsupported_media_type("Content-Type must be application/x-protobuf or application/json")
    })?;
    Ok((scope, encoding))
}

async fn take(
    signal: Signal,
    encoding: Encoding,
    state: &AppState,
    scope: &Scope<EventsWrite>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, _room) = body::read(&state.shares.bodies, scope.org_id(), headers, body).await?;
    let user_agent = user_agent(headers);
    let partial = export(state, scope, Export { signal, encoding, body, user_agent }).await?;
    let headers = [(header::CONTENT_TYPE, encoding.content_type())];
    Ok((headers, encode_success(signal, encoding, partial)).into_response())
}

/// The `User-Agent` of a request.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    Encoding::of_content_type(headers.get(header::CONTENT_TYPE)?.to_str().ok()?)
}

async fn refuse_method(headers: HeaderMap) -> Response {
    status_response(encoding_of(&headers), &ApiError::method_not_allowed())
}

/// A refusal as `google.rpc.Status`, in the encoding of the request; as JSON if that is not supported.
fn status_response(encoding: Option<Encoding>, error: &ApiError) -> Response {
    let encoding = encoding.unwrap_or(Encoding::Json);
    let body = encode_status(encoding, code_of(error.status()), &error.text());
    let headers = [(header::CONTENT_TYPE, encoding.content_type())];
    let mut response = (error.status(), headers, body).into_response();
    error.add_headers(response.headers_mut());
    if error.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The `google.rpc.Code` with the meaning of an HTTP status.
pub(super) fn code_of(status: StatusCode) -> i32 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 5,
        StatusCode::METHOD_NOT_ALLOWED => 12,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => 4,
        status if status.is_server_error() => 13,
        _ => 3,
    }
}
