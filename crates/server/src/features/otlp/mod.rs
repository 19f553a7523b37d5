//! Receiving OpenTelemetry: spans, log records and metrics, over HTTP in protobuf and JSON and over gRPC, on one listener.
//!
//! Both ways in end in [`export::export`]. A refusal is an [`ApiError`](crate::error::ApiError) up to the edge and becomes
//! a `google.rpc.Status` in the form of the request there. What may be sent again is said only where that can help.

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
