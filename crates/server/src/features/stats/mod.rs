//! Totals of a workspace, and today beside yesterday.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::rollups::{Dimension, Measures, Tier};
use agentlens_domain::time::{DAY_US, day_start, format_rfc3339};
use agentlens_store::CellQuery;

use crate::api::ratio;
use crate::auth::{EventsRead, Scope};
use crate::error::ApiError;
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_stats)).routes(routes!(get_overview))
}

/// Totals of a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total_events: i64,
    total_sessions: i64,
    total_agents: i64,
    /// The instant of the earliest event.
    oldest_event: Option<String>,
    /// The instant of the latest event.
    newest_event: Option<String>,
    /// Bytes of the payloads that came in on the days that the org keeps; what the database adds to them is not counted.
    storage_size_bytes: i64,
}

/// Totals of the workspace.
#[utoipa::path(get, path = "/api/stats", tag = "stats", responses((status = 200, body = Stats)))]
async fn get_stats(scope: Scope<EventsRead>) -> Result<Json<Stats>, ApiError> {
    let (days, stats, total_agents, (oldest, newest)) = tokio::try_join!(
        days(&scope, i64::MIN / 2, i64::MAX / 2),
        async { Ok(scope.workspace.analytics().stats().await?) },
        async { Ok(scope.workspace.agents().count().await?) },
        async { Ok(scope.workspace.agents().event_bounds().await?) }
    )?;
    Ok(Json(Stats {
        total_events: days.event_count,
        total_sessions: stats.session_count,
        total_agents,
        oldest_event: oldest.map(format_rfc3339),
        newest_event: newest.map(format_rfc3339),
        storage_size_bytes: stats.storage_bytes,
    }))
}

/// Today (UTC) and yesterday.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Overview {
    events_today_count: i64,
    events_yesterday_count: i64,
    errors_today_count: i64,
    errors_yesterday_count: i64,
    sessions_today_count: i64,
    sessions_yesterday_count: i64,
    total_agents: i64,
    /// Errors per event, today.
    error_rate: f64,
}

/// Compare today with yesterday.
#[utoipa::path(get, path = "/api/stats/overview", tag = "stats", responses((status = 200, body = Overview)))]
async fn get_overview(scope: Scope<EventsRead>) -> Result<Json<Overview>, ApiError> {
    let today_us = day_start(scope.now_us());
    let (today, yesterday, total_agents) = tokio::try_join!(
        days(&scope, today_us, today_us + DAY_US),
        days(&scope, today_us - DAY_US, today_us),
        async { Ok(scope.workspace.agents().count().await?) }
    )?;
    Ok(Json(Overview {
        events_today_count: today.event_count,
        events_yesterday_count: yesterday.event_count,
        errors_today_count: today.error_count,
        errors_yesterday_count: yesterday.error_count,
        sessions_today_count: today.session_count,
        sessions_yesterday_count: yesterday.session_count,
        total_agents,
        error_rate: ratio(today.error_count, today.event_count),
    }))
}

async fn days(scope: &Scope<EventsRead>, from_us: i64, to_us: i64) -> Result<Measures, ApiError> {
    let query = CellQuery {
        tier: Tier::Day,
        dimension: Dimension::Total,
        environment: None,
        agent_id: None,
        provider: None,
        name: None,
        from_us,
        to_us,
    };
    let mut total = Measures::default();
    for cell in scope.workspace.analytics().cells(&query).await? {
        total.merge(&cell.measures);
    }
    Ok(total)
}
