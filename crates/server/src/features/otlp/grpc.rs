//! OTLP over gRPC, on the same listener as HTTP. There are three calls with one message each way, so the protocol is
//! implemented here instead of by a separate server.
//!
//! A response is always HTTP 200. The result of the call is in the trailers, or in the headers if there is no message.

use std::future::ready;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64_NOPAD;
use http_body_util::{BodyExt, Full};
use prost::Message;
use utoipa_axum::router::OpenApiRouter;

use agentlens_otlp::wire::{Encoding, Signal, encode_success};

use super::export::{Export, export};
use super::http::{code_of, user_agent};
use crate::auth::{EventsWrite, Scope};
use crate::body::{self, Room};
use crate::error::ApiError;
use crate::state::AppState;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The supported message encodings.
const ENCODINGS: [&str; 3] = ["identity", "gzip", "zstd"];
/// The bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// The most bytes of an error message, because clients limit the size of all headers.
const MAX_MESSAGE_BYTES: usize = 1024;

// gRPC codes without a corresponding HTTP status here.
const OK: i32 = 0;
const UNIMPLEMENTED: i32 = 12;
const UNAVAILABLE: i32 = 14;
const INVALID_ARGUMENT: i32 = 3;

/// The three calls. They are not in the OpenAPI document.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    let service = |signal: Signal| {
        post(move |State(state): State<AppState>, request: Request| async move {
            answer(signal, &state, request).await
        })
    };
    OpenApiRouter::new()
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", service(Signal::Traces))
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", service(Signal::Logs))
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", service(Signal::Metrics))
}

/// Why a call failed.
struct Fault {
    code: i32,
    message: String,
    /// When to retry; `None` if a retry does not help.
    retry_after_s: Option<u32>,
}

impl Fault {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        // OTLP expects `unavailable` with a delay if the queue is full.
        let code = match error.status() {
            StatusCode::TOO_MANY_REQUESTS => UNAVAILABLE,
            status => code_of(status),
        };
        Self { code, message: error.text(), retry_after_s: error.retry_after_s() }
    }
}

async fn answer(signal: Signal, state: &AppState, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if !is_grpc(&parts.headers) {
        return ApiError::unsupported_media_type("Content-Type must be application/grpc").into_response();
    }
    match call(signal, state, &mut parts, body).await {
        Ok(message) => reply(&message),
        Err(fault) => refusal(&fault),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/grpc") || essence.eq_ignore_ascii_case("application/grpc+proto")
}

async fn call(signal: Signal, state: &AppState, parts: &mut Parts, body: Body) -> Result<Vec<u8>, Fault> {
    let scope = Scope::<EventsWrite>::from_request_parts(parts, state).await?;
    let room = Room::empty(&state.shares.bodies, scope.org_id())?;
    let (body, _room) = read(&parts.headers, body, room).await?;
    let user_agent = user_agent(&parts.headers);
    let encoding = Encoding::Protobuf;
    let partial = export(state, &scope, Export { signal, encoding, body, user_agent }).await?;
    Ok(encode_success(signal, encoding, partial))
}

/// The message of a call, decompressed.
async fn read(headers: &HeaderMap, body: Body, mut room: Room) -> Result<(Bytes, Room), Fault> {
    let encoding = headers.get(GRPC_ENCODING).map(|value| value.to_str().unwrap_or("?").to_owned());
    let named = encoding.as_deref().unwrap_or("identity");
    if !ENCODINGS.iter().any(|known| named.eq_ignore_ascii_case(known)) {
        return Err(Fault::new(
            UNIMPLEMENTED,
            format!("grpc-encoding must be one of {}", ENCODINGS.join(", ")),
        ));
    }
    let (is_compressed, message) = unframed(&body::collect(None, body, &mut room).await?)?;
    if !is_compressed {
        return Ok((message, room));
    }
    if named.eq_ignore_ascii_case("identity") {
        return Err(Fault::new(
            INVALID_ARGUMENT,
            "the message says that it is compressed and grpc-encoding does not",
        ));
    }
    Ok(body::plain(message, encoding, room).await?)
}

/// The message after its prefix, and whether it is compressed.
fn unframed(body: &Bytes) -> Result<(bool, Bytes), Fault> {
    let broken = |message: String| Fault::new(INVALID_ARGUMENT, message);
    let Some(&[flag, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Err(broken(format!("the body has {} bytes and no message in them", body.len())));
    };
    let (announced, there) = (u32::from_be_bytes([a, b, c, d]), body.len() - PREFIX_BYTES);
    if usize::try_from(announced).ok() != Some(there) {
        return Err(broken(format!("the message announces {announced} bytes and {there} follow")));
    }
    match flag {
        0 | 1 => Ok((flag == 1, body.slice(PREFIX_BYTES..))),
        _ => Err(broken(format!("the message has the unknown flag {flag}"))),
    }
}

/// The response of a call that succeeded: one message and the trailers.
fn reply(message: &[u8]) -> Response {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(OK));
    let body = Full::new(frame.freeze()).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    add_headers(response.headers_mut());
    response
}

/// The response of a call that failed: only headers.
fn refusal(fault: &Fault) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    add_headers(headers);
    headers.insert(GRPC_STATUS, HeaderValue::from(fault.code));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&fault.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Some(details) = fault.retry_after_s.and_then(|seconds| details(fault, seconds)) {
        headers.insert(GRPC_STATUS_DETAILS, details);
    }
    response
}

fn add_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
}

/// Encodes a text for a gRPC header.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)].bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

fn details(fault: &Fault, seconds: u32) -> Option<HeaderValue> {
    let retry = RetryInfo { retry_delay: Some(Delay { seconds: i64::from(seconds) }) };
    let detail =
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: retry.encode_to_vec() };
    let status = Status { code: fault.code, message: fault.message.clone(), details: vec![detail] };
    HeaderValue::from_str(&BASE64_NOPAD.encode(&status.encode_to_vec())).ok()
}

#[cfg(test)]
mod tests {
    use agentlens_ingest::QueueError;

    use super::*;

    #[test]
    fn only_a_refusal_that_passes_carries_when_to_retry() {
        let full = refusal(&ApiError::from(QueueError::Full { retry_after_s: 7 }).into());
        assert_eq!(full.headers()[GRPC_STATUS], "14");
        let bytes = BASE64_NOPAD.decode(full.headers()[GRPC_STATUS_DETAILS].as_bytes()).unwrap();
        let status = Status::decode(&*bytes).unwrap();
        let retry = RetryInfo::decode(&*status.details[0].value).unwrap();
        assert_eq!((status.code, retry.retry_delay.unwrap().seconds), (14, 7));
        for error in [ApiError::too_large("x"), ApiError::internal(), ApiError::forbidden("x")] {
            assert!(!refusal(&error.into()).headers().contains_key(GRPC_STATUS_DETAILS));
        }
    }

    #[test]
    fn messages_are_header_values() {
        assert_eq!(percent_encoded("a b: 100%\né"), "a b: 100%25%0A%C3%A9");
    }
}
