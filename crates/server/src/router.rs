//! All routes, and the layers of every request: an id, one log line, security headers, a handler of panics.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use agentlens_domain::ids::ulid_at;

use crate::error::{ApiError, REQUEST, RequestLog};
use crate::event_schema;
use crate::features;
use crate::features::docs::Documents;
use crate::listen::{Service, Timeouts, serve};
use crate::permissions;
use crate::query::{KnownParameters, check_names};
use crate::rates::Left;
use crate::refusals;
use crate::state::AppState;

/// The most bytes of a value chosen by a client, such as the method, in a log line.
const MAX_LOGGED_BYTES: usize = 16;

#[derive(OpenApi)]
#[openapi(
    info(title = "AgentLens", description = "See what AI agents do, what they cost and where they fail. Send the API key as `Authorization: Bearer KEY`.", license(name = "MIT")),
    security(("api_key" = [])),
    modifiers(&ApiKeyScheme)
)]
struct Document;

struct ApiKeyScheme;

impl utoipa::Modify for ApiKeyScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("api_key", scheme);
    }
}

fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(features::ingest::routes())
        .merge(features::otlp::routes())
        .merge(features::events::routes())
        .merge(features::sessions::routes())
        .merge(features::agents::routes())
        .merge(features::analytics::routes())
        .merge(features::stats::routes())
        .merge(features::stream::routes())
        .merge(features::audit::routes())
        .merge(features::audit_log::routes())
        .merge(features::health::routes())
        .merge(features::sign_in::routes())
        .merge(features::account::routes())
        .merge(features::org::routes())
        .merge(features::keys::routes())
        .merge(features::prices::routes())
        .merge(features::dead_letters::routes())
        .merge(features::deletions::routes())
}

fn described(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    permissions::describe(&mut document);
    event_schema::describe(&mut document);
    refusals::describe(&mut document);
    document
}

/// The OpenAPI document, as it is served and committed.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described(documented().into_openapi())
}

/// Serves requests until `closing`, then finishes running ones. Supports HTTP/1.1 and HTTP/2 (prior knowledge).
pub async fn serve_api(listener: TcpListener, state: AppState, closing: CancellationToken) {
    let shares = Arc::clone(&state.shares);
    let service = Service {
        timeouts: Timeouts::default(),
        reading: Some(Arc::clone(&state.reading)),
        proxies: Arc::clone(&state.proxies),
        router: router(state),
    };
    serve(listener, service, &shares.connections, closing).await;
}

/// Like [`serve_api`], but serves only probes and metrics, for nodes without an API.
pub async fn serve_probes(listener: TcpListener, state: AppState, closing: CancellationToken) {
    let shares = Arc::clone(&state.shares);
    let probes = Router::new().merge(features::health::probes()).route("/metrics", get(metrics));
    let service = Service {
        timeouts: Timeouts::default(),
        reading: None,
        proxies: Arc::clone(&state.proxies),
        router: finish(probes, KnownParameters::default(), state),
    };
    serve(listener, service, &shares.connections, closing).await;
}

/// The whole application.
fn router(state: AppState) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document = described(document);
    let routes = routes
        .merge(features::health::probes())
        .merge(features::unbuilt::routes())
        .merge(features::docs::routes(Documents::of(&document)))
        .merge(features::pages::routes(&state.people.settings))
        .route("/metrics", get(metrics));
    finish(routes, KnownParameters::of(&document), state)
}

/// Adds the layers of every request.
fn finish(routes: Router<AppState>, known: KnownParameters, state: AppState) -> Router {
    routes
        .fallback_service(other_routes(&state))
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn_with_state(known, check_names))
        .layer(middleware::from_fn(refuse_unreadable_address))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::internal().into_response()
        }))
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .with_state(state)
}

/// Handles requests that no route matches.
fn other_routes(state: &AppState) -> Router {
    features::agents::routes_by_whole_path()
        .fallback(|| async { ApiError::not_found("Route") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(state.clone())
}

/// Refuses addresses with a NUL, because PostgreSQL accepts none in a text, and addresses that are not UTF-8, because the router
/// answers them with its own error text or replaces bytes silently.
async fn refuse_unreadable_address(request: Request, next: Next) -> Response {
    let address = request.uri().path_and_query().map_or("", |address| address.as_str());
    // Few addresses contain an escape, so most need no check.
    if address.contains('%') {
        let fault = if address.contains("%00") {
            Some("The address must not hold a NUL character")
        } else if percent_decode_str(address).decode_utf8().is_err() {
            Some("The address must be UTF-8")
        } else {
            None
        };
        if let Some(fault) = fault {
            return ApiError::bad_request("invalid_address", fault).into_response();
        }
    }
    next.run(request).await
}

async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics.render(state.gateway.queue().status());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response()
}

/// Assigns the request id, counts the request, and writes its log line.
async fn observe(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = ulid_at(state.now_us());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let log = Arc::new(RequestLog { id, ..RequestLog::default() });
    let mut response = REQUEST.scope(Arc::clone(&log), next.run(request)).await;
    let status = response.status().as_u16();
    let seconds = started.elapsed().as_secs_f64();
    state.metrics.count_request(&method, &route, status, seconds);
    if let Ok(value) = HeaderValue::from_str(&log.id) {
        response.headers_mut().insert("x-request-id", value);
    }
    add_security_headers(&mut response);
    if let Some(left) = log.rate.get() {
        add_rate_headers(&mut response, left);
    }
    let (org, key) =
        log.caller.get().map_or((None, None), |(org, key)| (Some(org.as_str()), Some(key.as_str())));
    tracing::info!(
        request.id = log.id,
        method = cut(method.as_str()),
        route,
        status,
        duration_ms = (seconds * 1e6).round() / 1e3,
        org.id = org,
        key.id = key,
        "request"
    );
    response
}

/// The start of a value chosen by a client, for the log.
fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_LOGGED_BYTES)]
}

/// What is left of the key's own rate.
fn add_rate_headers(response: &mut Response, left: &Left) {
    let headers = [
        ("x-ratelimit-limit", left.limit),
        ("x-ratelimit-remaining", left.remaining),
        ("x-ratelimit-reset", left.reset_s),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}

fn add_security_headers(response: &mut Response) {
    const HEADERS: [(&str, &str); 6] = [
        ("x-api-version", "v1"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
}
