//! Reading events: lists with filters, full-text search, single events.

use axum::Json;
use axum::extract::Path;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::events::{EventType, Severity};
use agentlens_domain::limits::{MAX_COUNTED_ROWS, MAX_SEARCH_BYTES};
use agentlens_store::{EventFilter, Order};

use crate::api::EventView;
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};
use crate::spans::{Reading, current_events};
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_events)).routes(routes!(get_event))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct EventsQuery {
    /// Events of one session.
    session_id: Option<String>,
    /// Events of one agent.
    agent_id: Option<String>,
    /// Event types, separated by commas.
    event_type: Option<String>,
    /// Severities, separated by commas.
    severity: Option<String>,
    /// production, staging or development.
    environment: Option<String>,
    /// Events of one end user (`metadata.userId`).
    user_id: Option<String>,
    /// Events of one model.
    model: Option<String>,
    /// Events of one tool, step or custom type.
    name: Option<String>,
    /// The earliest instant, inclusive.
    from: Option<String>,
    /// The latest instant, inclusive.
    to: Option<String>,
    /// An exact part of the payload's text; upper and lower case are the same.
    search: Option<String>,
    /// `desc` (newest first, the default) or `asc`.
    order: Option<String>,
    /// Rows of the page: 50, at most 1000.
    limit: Option<String>,
    /// Rows to skip; prefer `cursor`.
    offset: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventsPage {
    /// The events.
    events: Vec<EventView>,
    /// How many there are, counted up to 10,000 (`totalIsExact` says whether that was reached). Searches and filters by content count what they
    /// have seen.
    total: i64,
    /// Whether `total` is exact.
    total_is_exact: bool,
    /// Whether there are more.
    has_more: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The search read as much as one request may; go on from `nextCursor`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

impl EventsQuery {
    fn filter(&self, workspace: &str) -> Result<EventFilter, ApiError> {
        let event_types = query::list(self.event_type.as_ref());
        if let Some(unknown) = event_types.iter().find(|name| EventType::parse(name).is_none()) {
            return Err(ApiError::invalid_parameter(
                "eventType",
                format!("`{unknown}` is not an event type"),
            ));
        }
        let severities = query::list(self.severity.as_ref());
        if let Some(unknown) = severities.iter().find(|name| Severity::parse(name).is_none()) {
            return Err(ApiError::invalid_parameter("severity", format!("`{unknown}` is not a severity")));
        }
        let order = query::choice(
            "order",
            self.order.as_ref(),
            &[("desc", Order::Descending), ("asc", Order::Ascending)],
        )?;
        Ok(EventFilter {
            workspace: workspace.to_owned(),
            environment: query::text(self.environment.as_ref()),
            session_id: query::text(self.session_id.as_ref()),
            moved_chains: Vec::new(),
            agent_id: query::text(self.agent_id.as_ref()),
            user_id: query::text(self.user_id.as_ref()),
            model: query::text(self.model.as_ref()),
            name: query::text(self.name.as_ref()),
            event_types,
            severities,
            from_us: query::instant("from", self.from.as_ref())?,
            to_us: query::instant("to", self.to.as_ref())?,
            order: order.unwrap_or_default(),
        })
    }
}

/// List events by time, with filters and full-text search.
#[utoipa::path(get, path = "/api/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = EventsPage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn list_events(
    scope: Scope<EventsRead>,
    client: Client,
    Params(params): Params<EventsQuery>,
) -> Result<Json<EventsPage>, ApiError> {
    let mut filter = params.filter(scope.workspace())?;
    if let Some(session_id) = &filter.session_id {
        filter.moved_chains = scope.tenant.chains_moved_to(scope.workspace(), session_id).await?;
    }
    let (limit, offset) = (query::limit(params.limit.as_ref())?, query::offset(params.offset.as_ref())?);
    let cursor = query::cursor(params.cursor.as_ref())?;
    let needle = query::text(params.search.as_ref());
    if needle.as_ref().is_some_and(|needle| needle.len() > MAX_SEARCH_BYTES) {
        return Err(ApiError::invalid_parameter(
            "search",
            format!("is longer than {MAX_SEARCH_BYTES} bytes"),
        ));
    }
    let is_chosen = needle.is_some() || filter.chooses_by_content();
    let session = filter.session_id.clone();
    let reading = Reading { session: session.as_deref(), is_chosen };
    // What no index of the database serves is found block by block, and counted as far as it was seen.
    if needle.is_some() || filter.needs_search() {
        let page =
            scope.tenant.scan_events(&filter, needle.as_deref(), cursor.as_ref(), offset, limit).await?;
        let seen = i64::from(offset)
            + i64::try_from(page.events.len()).unwrap_or(0)
            + i64::from(page.next.is_some());
        // An offset beyond the end has seen nothing to count.
        let is_beyond = offset > 0 && page.events.is_empty();
        return Ok(Json(EventsPage {
            total: seen,
            total_is_exact: page.next.is_none() && cursor.is_none() && !is_beyond,
            has_more: page.next.is_some(),
            next_cursor: page.next.map(|cursor| cursor.encode()),
            is_partial: page.is_partial,
            events: current_events(&scope.tenant, scope.workspace(), page.events, (client, reading)).await?,
        }));
    }
    let (page, total) = tokio::try_join!(
        scope.tenant.list_events(&filter, cursor.as_ref(), offset, limit),
        scope.tenant.count_events(&filter, MAX_COUNTED_ROWS)
    )?;
    Ok(Json(EventsPage {
        total,
        total_is_exact: total < MAX_COUNTED_ROWS,
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|cursor| cursor.encode()),
        is_partial: false,
        events: current_events(&scope.tenant, scope.workspace(), page.events, (client, reading)).await?,
    }))
}

/// Get one event.
#[utoipa::path(get, path = "/api/events/{id}", tag = "events", params(("id" = String, Path, description = "The event's id")),
    responses((status = 200, body = EventView), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn get_event(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<EventView>, ApiError> {
    let event =
        scope.tenant.find_event(scope.workspace(), &id).await?.ok_or_else(|| ApiError::not_found("Event"))?;
    let raw = event.clone();
    let current = current_events(&scope.tenant, scope.workspace(), vec![event], (client, Reading::default()))
        .await?
        .pop();
    // A later arrival of a span is shown as it arrived.
    Ok(Json(current.unwrap_or_else(|| EventView::of(raw, scope.tenant.org().as_str(), client))))
}
