//! The live stream: server-sent events of everything that is stored, with filters, from any point on.
//!
//! Each message's id is the event's position, so a client that comes back with `Last-Event-ID` misses nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::limits::MAX_STREAM_SUBSCRIBERS;
use agentlens_store::{StoredEvent, Tenant};

use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::keys::{KeyCache, Principal};
use crate::query::{self, Params};
use crate::spans::{Reading, current_events};
use crate::state::AppState;

/// Without events, something is sent this often, so that proxies keep the connection.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often the key is looked at again: a revoked one ends its streams too.
const CHECK_KEY: Duration = Duration::from_millis(500);
/// Events that are read at a time.
const CHUNK_EVENTS: u32 = 200;

static SUBSCRIBERS: AtomicUsize = AtomicUsize::new(0);

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stream_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct StreamQuery {
    /// Events of one session.
    session_id: Option<String>,
    /// Events of one agent.
    agent_id: Option<String>,
    /// Event types, separated by commas.
    event_type: Option<String>,
    /// Where to go on, for clients that can't send `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// Follow the org's events as they are stored (server-sent events named `event`, and `heartbeat`).
#[utoipa::path(get, path = "/api/stream", tag = "stream", params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this message")),
    responses((status = 200, description = "text/event-stream", content_type = "text/event-stream", body = String), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn stream_events(
    scope: Scope<EventsRead>,
    client: Client,
    State(state): State<AppState>,
    Params(params): Params<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let place = Place::take().ok_or_else(|| {
        ApiError::unavailable(format!(
            "the server has {MAX_STREAM_SUBSCRIBERS} live streams, which is the limit"
        ))
    })?;
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
        .or(params.last_event_id.clone());
    let current = scope.tenant.last_position().await?;
    let position = match query::text(resumed.as_ref()) {
        None => current,
        Some(text) => text.parse::<i64>().map_err(|_| {
            ApiError::invalid_parameter("Last-Event-ID", "must be the id of a message of this stream")
        })?,
    };
    let follower = Follower {
        news: state.live.subscribe(scope.tenant.org(), current),
        filter: Filter {
            workspace: scope.workspace().to_owned(),
            session_id: query::text(params.session_id.as_ref()),
            agent_id: query::text(params.agent_id.as_ref()),
            event_types: query::list(params.event_type.as_ref()),
        },
        tenant: scope.tenant,
        principal: scope.principal,
        keys: state.keys.clone(),
        checked: Instant::now(),
        client,
        position,
        waiting: VecDeque::new(),
        shutdown: state.shutdown.clone(),
        _place: place,
    };
    Ok(Sse::new(follower.into_stream()).into_response())
}

/// One of the limited places for streams.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = SUBSCRIBERS.fetch_add(1, Ordering::Relaxed);
        // Dropping gives the place back either way.
        let place = Self;
        (taken < MAX_STREAM_SUBSCRIBERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        SUBSCRIBERS.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Filter {
    workspace: String,
    session_id: Option<String>,
    agent_id: Option<String>,
    event_types: Vec<String>,
}

impl Filter {
    fn admits(&self, event: &StoredEvent) -> bool {
        event.workspace_id == self.workspace
            && self.session_id.as_ref().is_none_or(|id| *id == event.session_id)
            && self.agent_id.as_ref().is_none_or(|id| *id == event.agent_id)
            && (self.event_types.is_empty() || self.event_types.contains(&event.event_type))
    }
}

struct Follower {
    tenant: Tenant,
    principal: Principal,
    keys: Arc<KeyCache>,
    /// When the key was last found valid.
    checked: Instant,
    filter: Filter,
    client: Client,
    news: watch::Receiver<i64>,
    /// Everything up to here was sent or did not match.
    position: i64,
    waiting: VecDeque<Event>,
    shutdown: CancellationToken,
    _place: Place,
}

impl Follower {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            Some((Ok(event), follower))
        })
    }

    /// The next message; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        let (quiet_since, mut has_news) = (Instant::now(), true);
        loop {
            if self.shutdown.is_cancelled() || !self.may_go_on().await {
                return None;
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if has_news {
                self.news.mark_unchanged();
            }
            match if has_news { self.read().await } else { Ok(0) } {
                Ok(0) => has_news = false,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(error = %error, "a live stream ended because the store can't be read");
                    return None;
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                changed = self.news.changed() => {
                    changed.ok()?;
                    has_news = true;
                }
                () = tokio::time::sleep(CHECK_KEY) => {}
            }
            if quiet_since.elapsed() >= HEARTBEAT {
                return Some(Event::default().event("heartbeat").data("{}"));
            }
        }
    }

    async fn may_go_on(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_KEY {
            return true;
        }
        self.checked = Instant::now();
        self.keys.is_still_valid(&self.principal, self.tenant.clock().now_us()).await
    }

    /// Reads what is new; returns how many events that was, matching or not.
    async fn read(&mut self) -> Result<usize, agentlens_store::StoreError> {
        let events = self.tenant.events_after(self.position, CHUNK_EVENTS).await?;
        let count = events.len();
        let Some(last) = events.last().map(|event| event.position) else { return Ok(0) };
        let admitted: Vec<StoredEvent> =
            events.into_iter().filter(|event| self.filter.admits(event)).collect();
        let positions: FxHashMap<String, i64> =
            admitted.iter().map(|event| (event.id.clone(), event.position)).collect();
        let workspace = self.principal.workspace_id.as_str();
        let reading = (self.client, Reading::default());
        for view in current_events(&self.tenant, workspace, admitted, reading).await? {
            let position = positions.get(&view.id).copied().unwrap_or(last);
            let message = Event::default().event("event").id(position.to_string());
            if let Ok(message) = message.json_data(view) {
                self.waiting.push_back(message);
            }
        }
        self.position = last;
        Ok(count)
    }
}
