//! Reading events: lists with filters, full-text search, single events.

use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::events::{EventType, Severity};
use agentlens_domain::limits::{MAX_COUNTED_ROWS, MAX_SEARCH_BYTES};
use agentlens_domain::page::Cursor;
use agentlens_store::{EventFilter, Order, SearchPage, StoreError, Workspace};
use agentlens_views::{Reading, current_events};

use crate::api::{self, EventView, event_views, size_of};
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params, Times};
use crate::state::AppState;

/// Pages that are read on from one without anything to show.
const MAX_EMPTY_PAGES: usize = 20;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_events)).routes(routes!(get_event))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct EventsQuery {
    /// Only events of this session.
    session_id: Option<String>,
    /// Only events of this agent.
    agent_id: Option<String>,
    /// Only these event types, separated by commas.
    event_type: Option<String>,
    /// Only these severities, separated by commas.
    severity: Option<String>,
    /// Only events of this environment.
    environment: Option<String>,
    /// Only events of this end user (`metadata.userId`).
    user_id: Option<String>,
    /// Only events of this model. `unknown` selects calls without a known model.
    model: Option<String>,
    /// Only events of this tool, step or custom type.
    name: Option<String>,
    /// The start of the range, inclusive. A date alone means its midnight.
    from: Option<String>,
    /// The end of the range, inclusive. A date alone includes the whole day.
    to: Option<String>,
    /// The length of the range before `to` (before now if `to` is absent), instead of `from`: `1h`, `3h`, `6h`, `12h`, `24h`, `3d`,
    /// `7d`, `30d` or `90d`.
    range: Option<String>,
    /// The IANA name of the time zone for dates; defaults to UTC.
    time_zone: Option<String>,
    /// Text that the payload must contain exactly, except for case.
    search: Option<String>,
    /// The order: `desc` (newest first, the default) or `asc`.
    order: Option<String>,
    /// Rows per page: 50 by default, at most 1000.
    limit: Option<String>,
    /// Rows to skip; prefer `cursor`.
    offset: Option<String>,
    /// The `nextCursor` of the previous page.
    cursor: Option<String>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventsPage {
    /// The events.
    events: Vec<EventView>,
    /// The number of matching events on all pages. Exact up to 10,000. Each arrival of a span counts, although all
    /// of them are shown as one event.
    total: i64,
    /// Whether `total` is exact. If not, at least `total` events match: there are more than 10,000, or counting them all would
    /// exceed the read limit of one request.
    total_is_exact: bool,
    /// The page size: the requested number of rows, at most 1,000.
    limit: u32,
    /// Whether there are further pages. A page of large events ends early, at 8 MiB.
    has_more: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Whether the search stopped at the read limit of one request; continue with `nextCursor`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

impl EventsQuery {
    fn times(&self) -> Times<'_> {
        Times {
            from: self.from.as_ref(),
            to: self.to.as_ref(),
            range: self.range.as_ref(),
            time_zone: self.time_zone.as_ref(),
        }
    }

    fn filter(&self, now_us: i64) -> Result<EventFilter, ApiError> {
        let types: Vec<&str> = EventType::EVERY.iter().map(|event_type| event_type.as_str()).collect();
        let event_types = query::words("eventType", self.event_type.as_ref(), &types)?;
        let grades: Vec<&str> = Severity::EVERY.iter().map(|severity| severity.as_str()).collect();
        let severities = query::words("severity", self.severity.as_ref(), &grades)?;
        let window = self.times().read(now_us)?;
        let order = query::choice(
            "order",
            self.order.as_ref(),
            &[("desc", Order::Descending), ("asc", Order::Ascending)],
        )?;
        Ok(EventFilter {
            environment: query::text(self.environment.as_ref()),
            session_id: query::text(self.session_id.as_ref()),
            moved_chains: Vec::new(),
            agent_id: query::text(self.agent_id.as_ref()),
            user_id: query::text(self.user_id.as_ref()),
            model: query::text(self.model.as_ref()),
            name: query::text(self.name.as_ref()),
            event_types,
            severities,
            from_us: window.from_us,
            to_us: window.to_us,
            order: order.unwrap_or_default(),
        })
    }
}

/// List events by time, with filters and full-text search.
#[utoipa::path(get, path = "/api/events", tag = "events", params(EventsQuery),
    responses((status = 200, description = "A page of events", body = EventsPage)))]
async fn list_events(
    scope: Scope<EventsRead>,
    client: Client,
    Params(params): Params<EventsQuery>,
) -> Result<Response, ApiError> {
    let mut filter = params.filter(scope.now_us())?;
    if let Some(session_id) = &filter.session_id {
        filter.moved_chains = scope.workspace.sessions().chains_moved_to(session_id).await?;
    }
    let (limit, offset) = (query::limit(params.limit.as_ref())?, query::offset(params.offset.as_ref())?);
    let cursor = query::cursor(params.cursor.as_ref())?;
    let needle = query::text(params.search.as_ref());
    if needle.as_ref().is_some_and(|needle| needle.len() > MAX_SEARCH_BYTES) {
        return Err(ApiError::invalid_parameter(
            "search",
            format!("must be at most {MAX_SEARCH_BYTES} bytes long"),
        ));
    }
    let is_chosen = needle.is_some() || filter.chooses_by_content();
    let session = filter.session_id.clone();
    let reading = Reading { session: session.as_deref(), is_chosen };
    let mut page =
        read_page(&scope.workspace, &filter, needle.as_deref(), cursor.as_ref(), (offset, limit)).await?;
    let mut events = current_events(&scope.workspace, page.events, reading).await?;
    // Later arrivals of spans are shown with the first one, so a page may turn out empty. Clients stop reading at an empty page.
    for _ in 0..MAX_EMPTY_PAGES {
        let Some(next) = page.next.as_ref().filter(|_| events.is_empty() && !page.is_partial) else { break };
        let (total, total_is_exact) = (page.total, page.total_is_exact);
        let after = read_page(&scope.workspace, &filter, needle.as_deref(), Some(next), (0, limit)).await?;
        page = SearchPage { total, total_is_exact, ..after };
        events = current_events(&scope.workspace, std::mem::take(&mut page.events), reading).await?;
    }
    let events = event_views(events, scope.workspace.org_id(), client);
    let size_bytes = size_of(&events);
    let page = EventsPage {
        total: page.total,
        total_is_exact: page.total_is_exact,
        limit,
        has_more: page.next.is_some(),
        next_cursor: page.next.map(|cursor| cursor.encode()),
        is_partial: page.is_partial,
        events,
    };
    api::json(page, size_bytes).await
}

/// Reads a page of events. Filters without an index of the database are served by the search index.
async fn read_page(
    workspace: &Workspace,
    filter: &EventFilter,
    needle: Option<&str>,
    cursor: Option<&Cursor>,
    (offset, limit): (u32, u32),
) -> Result<SearchPage, StoreError> {
    if needle.is_some() || filter.needs_search() {
        return workspace.events().search(filter, needle, cursor, offset, limit).await;
    }
    let (page, counted) = tokio::try_join!(
        workspace.events().list(filter, cursor, offset, limit),
        workspace.events().count(filter, MAX_COUNTED_ROWS + 1)
    )?;
    Ok(SearchPage {
        events: page.events,
        next: page.next,
        is_partial: false,
        total: counted.min(MAX_COUNTED_ROWS),
        total_is_exact: counted <= MAX_COUNTED_ROWS,
    })
}

/// Get one event.
#[utoipa::path(get, path = "/api/events/{id}", tag = "events", params(("id" = String, Path, description = "The event's id")),
    responses((status = 200, description = "The event", body = EventView), (status = 404, description = "Not found", body = ErrorBody)))]
async fn get_event(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<EventView>, ApiError> {
    let event = scope.workspace.events().find(&id).await?.ok_or_else(|| ApiError::not_found("Event"))?;
    let raw = event.clone();
    let current = current_events(&scope.workspace, vec![event], Reading::default()).await?;
    let org = scope.workspace.org_id();
    // An event that is a later arrival of a span is shown as it arrived.
    let view = event_views(current, org, client).pop();
    Ok(Json(view.unwrap_or_else(|| EventView::of(raw, org.as_str(), client))))
}
