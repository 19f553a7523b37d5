//! Totals of a workspace, and a comparison of today and yesterday.

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
    /// The number of events.
    total_events: i64,
    /// The number of sessions.
    total_sessions: i64,
    /// The number of agents.
    total_agents: i64,
    /// The time of the earliest event.
    oldest_event: Option<String>,
    /// The time of the latest event.
    newest_event: Option<String>,
    /// Bytes of the payloads received on the days that the org keeps, without the overhead of the database.
    storage_size_bytes: i64,
}

/// Get the totals of the workspace.
#[utoipa::path(get, path = "/api/stats", tag = "stats", responses((status = 200, description = "The totals", body = Stats)))]
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

/// Figures of today and yesterday (UTC).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Overview {
    /// The number of events today.
    events_today_count: i64,
    /// The number of events yesterday.
    events_yesterday_count: i64,
    /// The number of errors today.
    errors_today_count: i64,
    /// The number of errors yesterday.
    errors_yesterday_count: i64,
    /// The number of sessions that started today.
    sessions_today_count: i64,
    /// The number of sessions that started yesterday.
    sessions_yesterday_count: i64,
    /// The number of agents.
    total_agents: i64,
    /// Errors per event today, from 0 to 1.
    error_rate: f64,
}

/// Compare today with yesterday.
#[utoipa::path(get, path = "/api/stats/overview", tag = "stats", responses((status = 200, description = "Figures of today and yesterday", body = Overview)))]
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
