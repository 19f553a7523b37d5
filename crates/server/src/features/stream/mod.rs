//! The live stream: server-sent events for everything that is stored, with filters, from any position.
//!
//! The id of a message is that of its event, so a client that reconnects with `Last-Event-ID` misses nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::events::EventType;
use agentlens_domain::ids::OrgId;
use agentlens_domain::limits::{
    LARGE_ANSWER_BYTES, MAX_ORG_STREAM_SUBSCRIBERS, MAX_STREAM_AHEAD_BYTES, MAX_STREAM_SUBSCRIBERS,
};
use agentlens_fairness::{Share, Shortage};
use agentlens_store::{StoreError, StreamPlace, Workspace};
use agentlens_views::{Reading, current_events};

use crate::api::{EventView, event_views, size_of};
use crate::auth::{Credential, EventsRead, Scope};
use crate::client::Client;
use crate::error::ApiError;
use crate::query::{self, Params};
use crate::shares::Shares;
use crate::state::AppState;

/// Without events, a heartbeat is sent this often, so that proxies keep the connection open.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often the key is checked again, because revoking it must end its streams.
const CHECK_KEY: Duration = Duration::from_millis(500);
/// Events that are read at a time.
const CHUNK_EVENTS: u32 = 200;
/// When a stream that was refused may be tried again, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// The `Last-Event-ID` of a client that wants all stored events.
const FROM_THE_BEGINNING: &str = "0";

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stream_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct StreamQuery {
    /// Only events of this session.
    session_id: Option<String>,
    /// Only events of this agent.
    agent_id: Option<String>,
    /// Only these event types, separated by commas.
    event_type: Option<String>,
    /// The same as the header `Last-Event-ID`, for clients that can't send it.
    last_event_id: Option<String>,
    /// The org, for browsers with a session, which can't send headers here.
    #[expect(dead_code, reason = "the extractor reads it")]
    org: Option<String>,
    /// The workspace, for browsers with a session.
    #[expect(dead_code, reason = "the extractor reads it")]
    workspace: Option<String>,
    /// The API key, for clients that can't send headers here. Any other endpoint reads it from `Authorization` only.
    #[expect(dead_code, reason = "the extractor of the credential reads it")]
    token: Option<String>,
}

/// Follow the workspace's events as they are stored. The server-sent events are named `event` and `heartbeat`.
#[utoipa::path(get, path = "/api/stream", tag = "stream", params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "Continue after the event with this id; `0` starts at the oldest stored event")),
    responses((status = 200, description = "The stream of events", content_type = "text/event-stream", body = String)))]
async fn stream_events(
    scope: Scope<EventsRead>,
    client: Client,
    State(state): State<AppState>,
    Params(params): Params<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let types: Vec<&str> = EventType::EVERY.iter().map(|event_type| event_type.as_str()).collect();
    let event_types = query::words("eventType", params.event_type.as_ref(), &types)?;
    let place = place(&state.shares, scope.workspace.org_id())?;
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
        .or(params.last_event_id.clone());
    let current = scope.workspace.events().last_position().await?;
    let position = match query::text(resumed.as_ref()).as_deref() {
        None => current,
        Some(FROM_THE_BEGINNING) => 0,
        Some(id) => scope.workspace.events().position_of(id).await?.ok_or_else(|| {
            let message =
                "must be the id of an event of this stream that is still kept, or 0 for the beginning";
            ApiError::invalid_parameter("Last-Event-ID", message)
        })?,
    };
    let org = scope.org_id().clone();
    let follower = Follower {
        news: state.live.subscribe(scope.workspace.org_id(), current),
        filter: Filter {
            session_id: query::text(params.session_id.as_ref()),
            agent_id: query::text(params.agent_id.as_ref()),
            event_types,
        },
        workspace: scope.workspace,
        org,
        credential: scope.credential,
        state: state.clone(),
        checked: Instant::now(),
        client,
        position,
        places: VecDeque::new(),
        waiting: VecDeque::new(),
        shutdown: state.shutdown.clone(),
        _place: place,
    };
    // Sent at once, so that the client sees an open stream even if there are no events.
    let greeting = stream::iter([Ok(Event::default().comment("connected"))]);
    Ok(Sse::new(greeting.chain(follower.into_stream())).into_response())
}

/// One of the limited places for streams. Each org has a share, so that no org takes all of them.
fn place(shares: &Shares, org: &OrgId) -> Result<Share<OrgId>, ApiError> {
    let place = shares.streams.try_take(org, 1);
    if place.is_ok() && shares.streams.held_by(org) > MAX_ORG_STREAM_SUBSCRIBERS as u64 {
        return Err(too_many_streams(format!(
            "The org has {MAX_ORG_STREAM_SUBSCRIBERS} live streams on this server, which is the limit"
        )));
    }
    place.map_err(|shortage| match shortage {
        Shortage::OwnShare { .. } => {
            too_many_streams("The org has its share of the live streams that this server can hold".to_owned())
        }
        _ => ApiError::unavailable(format!(
            "the server has {MAX_STREAM_SUBSCRIBERS} live streams, which is the limit"
        )),
    })
}

fn too_many_streams(message: String) -> ApiError {
    ApiError::too_many_requests("too_many_streams", message, RETRY_AFTER_S).with_hint("close other streams")
}

struct Filter {
    session_id: Option<String>,
    agent_id: Option<String>,
    event_types: Vec<String>,
}

impl Filter {
    fn admits(&self, event: &StreamPlace) -> bool {
        self.session_id.as_ref().is_none_or(|id| *id == event.session_id)
            && self.agent_id.as_ref().is_none_or(|id| *id == event.agent_id)
            && (self.event_types.is_empty() || self.event_types.contains(&event.event_type))
    }
}

struct Follower {
    workspace: Workspace,
    org: OrgId,
    credential: Credential,
    state: AppState,
    /// When the credential was last found valid.
    checked: Instant,
    filter: Filter,
    client: Client,
    news: watch::Receiver<i64>,
    /// All events up to here were sent or did not match.
    position: i64,
    /// The places of events that must still be read.
    places: VecDeque<StreamPlace>,
    /// Events that were read and must be sent.
    waiting: VecDeque<EventView>,
    shutdown: CancellationToken,
    _place: Share<OrgId>,
}

impl Follower {
    /// The messages. They are made by a task of the runtime that this is called on, which is the one for reading, and not by the
    /// connection's: reading and writing JSON would hold up the threads that take events.
    fn into_stream(mut self) -> impl Stream<Item = Result<Event, Infallible>> {
        let (sender, receiver) = mpsc::channel(1);
        let following = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(event) = self.next().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        }));
        stream::unfold((receiver, following), |(mut receiver, following)| async move {
            let event = receiver.recv().await?;
            Some((Ok(event), (receiver, following)))
        })
    }

    /// The next message; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        let (quiet_since, mut has_news) = (Instant::now(), true);
        loop {
            if self.shutdown.is_cancelled() || !self.may_go_on().await {
                return None;
            }
            if let Some(view) = self.waiting.pop_front() {
                match message(view).await {
                    Some(message) => return Some(message),
                    None => continue,
                }
            }
            if quiet_since.elapsed() >= HEARTBEAT {
                return Some(Event::default().event("heartbeat").data("{}"));
            }
            if has_news {
                self.news.mark_unchanged();
            }
            match if has_news { self.read().await } else { Ok(false) } {
                Ok(false) => has_news = false,
                Ok(true) => continue,
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
        }
    }

    async fn may_go_on(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_KEY {
            return true;
        }
        self.checked = Instant::now();
        self.credential.is_still_valid(&self.state, &self.org, self.workspace.id()).await
    }

    /// Reads some of the new events; how many bytes are read in advance is limited. Returns whether there was any event, even one
    /// that does not match.
    async fn read(&mut self) -> Result<bool, StoreError> {
        if self.places.is_empty() {
            let read = self.workspace.events().places_after(self.position, CHUNK_EVENTS).await?;
            if read.read_to == self.position {
                return Ok(false);
            }
            self.position = read.read_to;
            self.places = read.places.into_iter().filter(|place| self.filter.admits(place)).collect();
        }
        let (mut positions, mut bytes) = (Vec::new(), 0);
        while let Some(place) = self.places.front() {
            bytes += usize::try_from(place.size_bytes).unwrap_or(0);
            if !positions.is_empty() && bytes > MAX_STREAM_AHEAD_BYTES {
                break;
            }
            positions.push(place.position);
            self.places.pop_front();
        }
        if positions.is_empty() {
            return Ok(true);
        }
        let events = self.workspace.events().at_positions(positions).await?;
        let events = current_events(&self.workspace, events, Reading::default()).await?;
        self.waiting = event_views(events, self.workspace.org_id(), self.client).into();
        Ok(true)
    }
}

/// The message of an event. Its id is that of the event, which identifies nothing outside the workspace.
async fn message(view: EventView) -> Option<Event> {
    let message = Event::default().event("event").id(view.id.clone());
    if size_of(std::slice::from_ref(&view)) <= LARGE_ANSWER_BYTES {
        return message.json_data(view).ok();
    }
    tokio::task::spawn_blocking(move || message.json_data(view).ok()).await.ok().flatten()
}
