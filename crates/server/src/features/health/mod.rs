//! Whether the server runs, its version, and its features. No key is needed.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::state::AppState;

/// The features that published clients may use; the list grows with the product.
const FEATURES: [&str; 8] = ["sessions", "agents", "analytics", "stats", "events", "stream", "audit", "otlp"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(get_server_info))
        .routes(routes!(get_version))
}

/// The probes for orchestrators, on every node.
pub fn probes() -> Router<AppState> {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready))
}

/// The server is running.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Check that the server is running.
#[utoipa::path(get, path = "/api/health", tag = "server", responses((status = 200, description = "The server is running", body = Health)), security(()))]
async fn get_health() -> Json<Health> {
    Json(Health { status: "ok", version: VERSION })
}

/// The server's features.
#[derive(Debug, Serialize, ToSchema)]
struct ServerInfo {
    version: &'static str,
    /// The features that are available. The MCP server offers the tools of these features.
    features: [&'static str; 8],
    /// The providers that people can sign in through: `POST /v1/sign-in/{provider}`.
    sign_in_providers: Vec<&'static str>,
}

/// Get the server's features.
#[utoipa::path(get, path = "/api/server-info", tag = "server", responses((status = 200, description = "The available features", body = ServerInfo)), security(()))]
async fn get_server_info(State(state): State<AppState>) -> Json<ServerInfo> {
    let settings = &state.people.settings;
    let providers = [("google", &settings.google), ("github", &settings.github)];
    let sign_in_providers =
        providers.into_iter().filter(|(_, provider)| provider.is_some()).map(|(name, _)| name).collect();
    Json(ServerInfo { version: VERSION, features: FEATURES, sign_in_providers })
}

/// The version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    /// The version of this API.
    api_version: &'static str,
}

/// Get the version of the API.
#[utoipa::path(get, path = "/api/version", tag = "server", responses((status = 200, description = "The version", body = Version)), security(()))]
async fn get_version() -> Json<Version> {
    Json(Version { version: VERSION, api_version: "v1" })
}

/// Ready means that the store and the queue answer and the server is not stopping. If the store is unavailable, a gateway with a
/// durable queue is still ready for events.
async fn ready(State(state): State<AppState>) -> Result<(StatusCode, &'static str), ApiError> {
    if state.shutdown.is_cancelled() {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    state.gateway.queue().ping().await?;
    match state.store.control().ping().await {
        Ok(()) => Ok((StatusCode::OK, "ready")),
        Err(error) if error.is_away() && state.keys.goes_on_without_store() => {
            Ok((StatusCode::OK, "ready for events; the store is away and reads are refused"))
        }
        Err(error) => Err(error.into()),
    }
}
