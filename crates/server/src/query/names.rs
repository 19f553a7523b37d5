//! Unknown names of parameters. Under `/v1` they are refused. Under `/api` the response header `AgentLens-Ignored`
//! lists them, because published clients send names of their own there.

use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rustc_hash::{FxHashMap, FxHashSet};
use utoipa::openapi::path::{Operation, ParameterIn};

use crate::error::ApiError;

const IGNORED: HeaderName = HeaderName::from_static("agentlens-ignored");
/// How many names the header lists, and how many characters of each.
const MAX_NAMES: usize = 20;
const MAX_NAME_CHARS: usize = 64;
/// Routes of OpenTelemetry clients. Data must not be refused because an exporter adds a parameter to its URL.
const EXPORTS: [&str; 3] = ["/v1/traces", "/v1/logs", "/v1/metrics"];

/// Further paths of documented operations.
const ALIASES: [(&str, &str); 2] = [("/v1/events", "/api/events"), ("/api/obs/ingest/events", "/api/events")];
/// Ids of agents may contain slashes. Their route is tried if no other matches.
const AGENTS: (&str, &str) = ("/api/agents/", "/api/agents/{id}");

/// What the paths end with to which providers send browsers back. Each adds parameters of its own, which clients must ignore (RFC 6749,
/// section 4.1.2).
const CALLBACK: &str = "/callback";

/// The documented path of a request's operation.
fn documented_path(request: &Request) -> Option<&str> {
    let Some(matched) = request.extensions().get::<MatchedPath>() else {
        return request.uri().path().starts_with(AGENTS.0).then_some(AGENTS.1);
    };
    let alias = ALIASES.into_iter().find(|(alias, _)| *alias == matched.as_str());
    Some(alias.map_or(matched.as_str(), |(_, path)| path))
}

/// The query parameters of every documented operation.
#[derive(Clone, Default)]
pub struct KnownParameters(Arc<FxHashMap<(String, Method), FxHashSet<String>>>);

impl KnownParameters {
    /// The parameters in the OpenAPI document.
    pub fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let mut known = FxHashMap::default();
        for (path, item) in &document.paths.paths {
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in operations {
                if let Some(operation) = operation {
                    known.insert((path.clone(), method), names_of(operation));
                }
            }
        }
        Self(Arc::new(known))
    }

    /// The parameters of a request that its route does not have; none if the route is not documented.
    fn unknown(&self, request: &Request) -> Vec<String> {
        let Some(path) = documented_path(request) else { return Vec::new() };
        if path.ends_with(CALLBACK) {
            return Vec::new();
        }
        let method = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let Some(known) = self.0.get(&(path.to_owned(), method)) else { return Vec::new() };
        let Ok(Query(sent)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else {
            return Vec::new();
        };
        let mut unknown: Vec<String> =
            sent.into_iter().map(|(name, _)| name).filter(|name| !known.contains(name)).collect();
        unknown.retain(|name| !name.is_empty());
        unknown.sort();
        unknown.dedup();
        unknown
    }
}

fn names_of(operation: &Operation) -> FxHashSet<String> {
    let parameters = operation.parameters.iter().flatten();
    let queries = parameters.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    queries.map(|parameter| parameter.name.clone()).collect()
}

/// Refuses or lists the parameters of a request that its route does not have.
pub async fn check_names(State(known): State<KnownParameters>, request: Request, next: Next) -> Response {
    let unknown = known.unknown(&request);
    if unknown.is_empty() {
        return next.run(request).await;
    }
    let names: Vec<String> = unknown.iter().take(MAX_NAMES).map(|name| printable(name)).collect();
    let path = request.uri().path();
    if path.starts_with("/v1/") && !EXPORTS.contains(&path) {
        let refusal = ApiError::invalid_parameter(&names[0], "is not a parameter of this endpoint");
        return refusal.with_hint("openapi.json lists the parameters of every endpoint").into_response();
    }
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(IGNORED, value);
    }
    response
}

/// A name in a form that is valid in a header.
fn printable(name: &str) -> String {
    let plain =
        |character: char| if character.is_ascii_graphic() && character != ',' { character } else { '?' };
    name.chars().take(MAX_NAME_CHARS).map(plain).collect()
}
