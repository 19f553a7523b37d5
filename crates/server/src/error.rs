//! The errors that clients see: one body everywhere, a stable code, and never internal text.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::ids::OrgId;
use agentlens_ingest::{IngestError, QueueError};
use agentlens_store::{StoreError, names_a_full_disk};

use crate::rates::Left;

/// A refusal of a request.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Vec<ErrorDetail>,
    hint: Option<&'static str>,
    retry_after_s: Option<u32>,
}

/// One of the faults of a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What is wrong: a path such as `events.0.payload.toolName`, or the name of a parameter.
    pub path: String,
    /// Why it is wrong.
    pub message: String,
}

/// The error body of every endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error in one sentence.
    pub error: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable code for programs.
    pub code: &'static str,
    /// The faults one by one, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<ErrorDetail>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
    /// The id of this request in the server's log, which is also in the `X-Request-Id` header.
    pub request_id: String,
}

/// The fields of a request's log line. They are collected while the request is handled.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    /// The id of the request.
    pub(crate) id: String,
    /// The org, and the id of the key or the person, once the credential is known.
    pub(crate) caller: std::sync::OnceLock<(OrgId, String)>,
    /// What is left of the key's own rate, if it has one.
    pub(crate) rate: std::sync::OnceLock<Left>,
}

tokio::task_local! {
    /// The request that is being answered.
    pub(crate) static REQUEST: std::sync::Arc<RequestLog>;
}

/// The id of the request that is being answered.
pub(crate) fn request_id() -> String {
    REQUEST.try_with(|request| request.id.clone()).unwrap_or_default()
}

/// Notes who asks, for the log line.
pub(crate) fn note_caller(org: &OrgId, who: &str) {
    let _ = REQUEST.try_with(|request| request.caller.set((org.clone(), who.to_owned())));
}

/// Notes what is left of the key's own rate, for the headers of the answer.
pub(crate) fn note_rate(left: Left) {
    let _ = REQUEST.try_with(|request| request.rate.set(left));
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), hint: None, retry_after_s: None }
    }

    /// 400: the request is invalid.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400: one parameter is wrong.
    pub fn invalid_parameter(name: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = ErrorDetail { path: name.to_owned(), message: message.clone() };
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", format!("{name}: {message}"))
            .with_details(vec![detail])
    }

    /// 400: one field of the body is wrong.
    pub fn invalid_field(name: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = ErrorDetail { path: name.to_owned(), message: message.clone() };
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", format!("{name}: {message}"))
            .with_details(vec![detail])
    }

    /// 401: no credential, or one that is not valid.
    pub fn unauthorized(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403: the credential does not allow it.
    pub fn forbidden(required: &'static str) -> Self {
        let detail =
            ErrorDetail { path: "scope".to_owned(), message: format!("this needs the scope {required}") };
        Self::new(StatusCode::FORBIDDEN, "insufficient_scope", "Insufficient permissions")
            .with_details(vec![detail])
    }

    /// 403: the caller may not do this.
    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_allowed", message)
    }

    /// 403 with a reason of its own.
    pub fn forbidden_because(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 409: what is there stands against it.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 404: not there, or another org's.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what} not found"))
    }

    /// 405: the route does not support this method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
    }

    /// 408: the request did not arrive in time.
    pub fn request_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// 413: the body exceeds a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415: the route does not support the content type.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// 429: a share is used up. The client should retry after a number of seconds.
    pub fn too_many_requests(code: &'static str, message: impl Into<String>, retry_after_s: u32) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, code, message);
        error.retry_after_s = Some(retry_after_s);
        error
    }

    /// 501: the feature is planned and not built.
    pub fn not_built(feature: &'static str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "not_implemented",
            format!("the feature `{feature}` is not built yet"),
        )
    }

    /// 503: a service behind the server is unavailable. The client should retry.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        error.retry_after_s = Some(2);
        error
    }

    /// 503 for an error of the store. Only a full disk is named, because a retry does not help then and the operator must act.
    fn away(reason: &str, message: &str) -> Self {
        if names_a_full_disk(reason) {
            return Self::unavailable("The server's disk is full; nothing was stored")
                .with_hint("free space on the server's disk; nothing that was acknowledged is lost");
        }
        Self::unavailable(message)
    }

    /// 504: it took too long.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", message)
    }

    /// 500: an internal error. Details are only logged.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal server error")
    }

    /// Adds the list of faults.
    pub fn with_details(mut self, details: Vec<ErrorDetail>) -> Self {
        self.details = details;
        self
    }

    /// Adds what to do about it.
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// When to retry, in seconds; `None` if a retry does not help.
    pub(crate) fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// Adds the headers of this error to a response with any body.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap) {
        add_headers(self.status, self.retry_after_s, headers);
    }

    /// The text of the body in one line, for protocols with their own error body.
    pub(crate) fn text(&self) -> String {
        let mut text = self.message.clone();
        for detail in &self.details {
            text.push_str(": ");
            text.push_str(&detail.message);
        }
        if let Some(hint) = self.hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        text
    }
}

fn add_headers(status: StatusCode, retry_after_s: Option<u32>, headers: &mut HeaderMap) {
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::REQUEST_TIMEOUT {
        // Closes the connection, because the rest of the body would be read as the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: self.message,
            status: self.status.as_u16(),
            code: self.code,
            details: self.details,
            hint: self.hint,
            request_id: request_id(),
        };
        let mut response = (self.status, Json(body)).into_response();
        add_headers(self.status, self.retry_after_s, response.headers_mut());
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::not_found("resource"),
            StoreError::Exists(what) => {
                Self::new(StatusCode::CONFLICT, "exists", format!("this {what} exists already"))
            }
            StoreError::NotAllowed => Self::not_allowed("This is beyond your own rights in the org"),
            StoreError::NoWorkspace(_) => Self::invalid_field("workspace_id", error.to_string()),
            StoreError::LastOwner => {
                Self::new(StatusCode::CONFLICT, "last_owner", "The org would have no owner left")
                    .with_hint("make another member an owner first")
            }
            StoreError::LastWayToSignIn => Self::new(
                StatusCode::CONFLICT,
                "last_way_to_sign_in",
                "There would be no way to sign in left",
            )
            .with_hint("set a password first: ask for a link at POST /v1/password/forgotten"),
            StoreError::LimitReached(message) => Self::new(StatusCode::FORBIDDEN, "limit_reached", message),
            StoreError::Replaced(_) => {
                tracing::error!(request.id = request_id(), error = %error, "the data directory is gone");
                Self::unavailable(
                    "The data directory was deleted or replaced while the server runs; \
                     its operator must restore it and restart the server",
                )
            }
            StoreError::Busy => {
                Self::too_many_requests("reads_full", "Too many reads of this org are under way", 2)
                    .with_hint("retry after the seconds in Retry-After, and send fewer reads at a time")
            }
            StoreError::TimedOut => Self::timed_out("The read took too long")
                .with_hint("ask for a shorter range, or name a session or an agent"),
            StoreError::Unavailable(ref reason) | StoreError::Stopped(ref reason) => {
                tracing::warn!(request.id = request_id(), error = %error, "the store is unavailable");
                Self::away(reason, "The store is unavailable, try again")
            }
            StoreError::Refused(_)
            | StoreError::Failed(_)
            | StoreError::Corrupt(_)
            | StoreError::Misconfigured(_) => {
                tracing::error!(request.id = request_id(), error = %error, "a request failed in the store");
                Self::internal()
            }
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Full { retry_after_s } => {
                let message = "Too many events of this org wait to be stored; nothing of this request was";
                Self::too_many_requests("queue_full", message, retry_after_s)
                    .with_hint("retry after the seconds in Retry-After, and send at a lower rate")
            }
            QueueError::Unavailable(ref reason) => {
                tracing::warn!(request.id = request_id(), error = %error, "the ingest queue is unavailable");
                Self::away(reason, "The ingest queue is unavailable, try again")
            }
            QueueError::Refused(_) => {
                tracing::error!(request.id = request_id(), error = %error, "a batch was refused");
                Self::internal()
            }
        }
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        use agentlens_domain::limits::{MAX_BATCH_EVENTS, MAX_IDEMPOTENCY_KEY_BYTES};
        match error {
            IngestError::InvalidBody(message) => {
                Self::bad_request("invalid_json", format!("Invalid JSON body: {message}"))
                    .with_hint("send {\"events\": [...]}, an array of events, or one event")
            }
            IngestError::NoEvents(message) => {
                Self::bad_request("validation_failed", format!("Validation failed: {message}"))
                    .with_hint("send {\"events\": [...]}, an array of events, or one event")
            }
            IngestError::EmptyBatch => {
                Self::bad_request("empty_batch", "The batch holds no event; it must hold 1 or more")
            }
            IngestError::TooManyEvents => Self::too_large(format!(
                "The batch holds more than {MAX_BATCH_EVENTS} events, the limit of a request"
            ))
            .with_hint("send several smaller batches"),
            IngestError::InvalidIdempotencyKey => Self::bad_request(
                "invalid_idempotency_key",
                format!("Idempotency-Key is longer than {MAX_IDEMPOTENCY_KEY_BYTES} bytes"),
            ),
            IngestError::Strict(_) => Self::bad_request("validation_failed", "Validation failed"),
            IngestError::Queue(error) => error.into(),
            IngestError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_of_a_full_disk_and_of_no_other_internal() {
        let full =
            ApiError::from(StoreError::Unavailable("the disk is full: database or disk is full".to_owned()));
        assert!(full.text().contains("The server's disk is full"), "{}", full.text());
        let log = ApiError::from(QueueError::Unavailable(
            "/data/x.db: No space left on device (os error 28)".to_owned(),
        ));
        assert!(log.text().contains("disk is full") && !log.text().contains("/data"), "{}", log.text());
        let away = ApiError::from(StoreError::Unavailable("connection to db.internal refused".to_owned()));
        assert!(!away.text().contains("db.internal") && !away.text().contains("disk"), "{}", away.text());
        assert_eq!((full.status().as_u16(), full.retry_after_s()), (503, Some(2)));
    }
}
