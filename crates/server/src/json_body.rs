//! Small JSON bodies of everything that isn't events: one object whose fields are all known.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::error::ApiError;
use crate::state::AppState;

/// Bytes of such a body.
const MAX_BYTES: usize = 64 * 1024;
/// How long it may take. What the sender may do was decided before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that was read as `T`. A form of another site can't send this content type.
pub(crate) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            return Err(ApiError::unsupported_media_type("Content-Type must be application/json"));
        }
        let body = timeout(PATIENCE, to_bytes(request.into_body(), MAX_BYTES)).await.map_err(|_| {
            ApiError::request_timeout(format!(
                "The request body took longer than {} seconds",
                PATIENCE.as_secs()
            ))
        })?;
        let body = body.map_err(|_| {
            ApiError::too_large(format!("The request body is larger than {MAX_BYTES} bytes, or broke off"))
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            ApiError::bad_request("invalid_body", format!("The body can't be read: {error}"))
        })
    }
}
