//! Endpoints that published clients call and that are not built yet. They answer 501 with the name of the feature.

use axum::Router;
use axum::routing::{any, post};

use crate::error::ApiError;
use crate::state::AppState;

/// The feature of each path. A path with `{*rest}` includes all paths below it.
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
    ("optimize", "/api/agents/{id}/optimize"),
    ("guardrails", "/api/guardrails"),
    ("guardrails", "/api/guardrails/{*rest}"),
    ("guardrails", "/api/agents/{id}/unpause"),
    ("guardrails", "/api/mcp/{*rest}"),
    ("replay", "/api/sessions/{id}/replay"),
    ("replay", "/api/sessions/{id}/debug-replay"),
    ("diagnose", "/api/agents/{id}/diagnose"),
    ("diagnose", "/api/sessions/{id}/diagnose"),
    ("benchmarks", "/api/benchmarks"),
    ("benchmarks", "/api/benchmarks/{*rest}"),
    ("alerts", "/api/alerts/{*rest}"),
    ("notifications", "/api/notifications/{*rest}"),
    ("cost-budgets", "/api/cost-budgets"),
    ("cost-budgets", "/api/cost-budgets/{*rest}"),
    ("prompts", "/api/prompts"),
    ("prompts", "/api/prompts/{*rest}"),
    ("playground", "/api/playground/{*rest}"),
    ("discovery", "/api/discovery"),
    ("discovery", "/api/discovery/{*rest}"),
    ("discovery", "/api/agents/discover"),
    ("discovery", "/api/agents/{id}/capabilities"),
    ("discovery", "/api/agents/{id}/capabilities/{*rest}"),
    ("delegation", "/api/delegations"),
    ("delegation", "/api/delegations/{*rest}"),
    ("delegation", "/api/agents/delegate"),
    ("delegation", "/api/agents/{id}/delegations/{*rest}"),
    ("trust", "/api/agents/{id}/trust"),
    ("insights", "/api/agents/{id}/insights"),
    ("analytics/rollup", "/api/analytics/rollup"),
    ("analytics/costs/trends", "/api/analytics/costs/trends"),
    ("analytics/skills", "/api/analytics/skills"),
    ("eval", "/api/eval/{*rest}"),
    ("scores", "/api/scores"),
    ("scores", "/api/sessions/{id}/scores"),
    ("scores", "/api/sessions/{id}/human-score"),
    ("scores", "/api/sessions/{id}/feedback"),
    ("annotations", "/api/annotations/{*rest}"),
    ("export", "/api/export"),
    ("export", "/api/export/{*rest}"),
    ("export", "/api/exports/{*rest}"),
    ("import", "/api/import"),
    ("compliance", "/api/compliance/{*rest}"),
    ("keys", "/api/keys"),
    ("keys", "/api/keys/{*rest}"),
    ("service-tokens", "/api/service-tokens"),
    ("config", "/api/config"),
    ("config", "/api/config/{*rest}"),
    ("llm-connections", "/api/llm-connections"),
    ("llm-connections", "/api/llm-connections/{*rest}"),
    ("orgs", "/api/orgs"),
    ("orgs", "/api/orgs/{*rest}"),
    ("projects", "/api/projects"),
    ("projects", "/api/projects/{*rest}"),
    ("media", "/api/media"),
    ("media", "/api/media/{*rest}"),
    ("lore", "/api/lore/{*rest}"),
    ("mesh", "/api/mesh/{*rest}"),
    ("cloud", "/api/cloud/{*rest}"),
];

/// Single methods of paths whose other methods are built.
const UNBUILT_POSTS: &[(&str, &str)] = &[("webhooks", "/api/events/ingest")];

/// The routes of features that are not built.
pub fn routes() -> Router<AppState> {
    let routes = UNBUILT.iter().fold(Router::new(), |router, (feature, path)| {
        router.route(path, any(move || async move { ApiError::not_built(feature) }))
    });
    UNBUILT_POSTS.iter().fold(routes, |router, (feature, path)| {
        router.route(path, post(move || async move { ApiError::not_built(feature) }))
    })
}
