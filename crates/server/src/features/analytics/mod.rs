//! Analytics: figures over time, by agent, model, tool and user. Everything is read from rollups.

mod costs;
mod overview;
mod range;
mod tables;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(overview::get_analytics))
        .routes(routes!(overview::get_llm_analytics))
        .routes(routes!(costs::get_costs))
        .routes(routes!(tables::get_agents))
        .routes(routes!(tables::get_tools))
        .routes(routes!(tables::get_users))
}
