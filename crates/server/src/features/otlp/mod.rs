//! Receiving OpenTelemetry: spans, log records and metrics, over HTTP in protobuf and JSON and over gRPC, on one listener.
//!
//! Both protocols call [`export::export`]. A refusal is an [`ApiError`](crate::error::ApiError) until it becomes a
//! `google.rpc.Status` in the encoding of the request. Clients are told to retry only if a retry can succeed.

mod export;
mod grpc;
mod http;
mod requests;

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    http::routes().merge(grpc::routes()).merge(requests::routes())
}
