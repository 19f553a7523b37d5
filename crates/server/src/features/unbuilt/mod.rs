//! Calls of published clients whose feature is not built yet: 501, naming the feature. The table shrinks as we build.

use axum::Router;
use axum::routing::any;

use crate::error::ApiError;
use crate::state::AppState;

/// (feature, path). A path with `{*rest}` also covers what lies below it.
const UNBUILT: &[(&str, &str)] = &[
    ("recall", "/api/recall"),
    ("lessons", "/api/lessons"),
    ("lessons", "/api/lessons/{*rest}"),
    ("reflect", "/api/reflect"),
    ("context", "/api/context"),
    ("health", "/api/agents/{id}/health"),
    ("health", "/api/health/overview"),
    ("health", "/api/health/history"),
    ("optimize", "/api/optimize/{*rest}"),
    ("guardrails", "/api/guardrails"),
    ("guardrails", "/api/guardrails/{*rest}"),
    ("replay", "/api/sessions/{id}/replay"),
    ("benchmarks", "/api/benchmarks"),
    ("benchmarks", "/api/benchmarks/{*rest}"),
    ("alerts", "/api/alerts/{*rest}"),
    ("cost-budgets", "/api/cost-budgets"),
    ("cost-budgets", "/api/cost-budgets/{*rest}"),
    ("prompts", "/api/prompts"),
    ("prompts", "/api/prompts/{*rest}"),
    ("discovery", "/api/discovery"),
    ("discovery", "/api/discovery/{*rest}"),
    ("delegation", "/api/delegations"),
    ("trust", "/api/agents/{id}/trust"),
];

/// The routes of what is not built.
pub fn routes() -> Router<AppState> {
    UNBUILT.iter().fold(Router::new(), |router, (feature, path)| {
        router.route(path, any(move || async move { ApiError::not_built(feature) }))
    })
}
