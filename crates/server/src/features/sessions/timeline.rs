//! The timeline of a session: its events in the order of its chain, in pages, and whether the chain is intact.

use axum::extract::Path;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::limits::{MAX_TIMELINE_EVENTS, MAX_VERIFIED_EVENTS};
use agentlens_store::{SessionRow, Workspace};
use agentlens_views::{Part, Reading, chain_events, current_events, timeline};

use super::find;
use crate::api::{self, EventView, READ_TIMEOUT, event_views, size_of};
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TimelineQuery {
    /// Rows per page: 10,000 by default and at most.
    limit: Option<String>,
    /// Continue after this sequence number: the `nextSeq` of the previous page.
    after: Option<String>,
    /// `current` (the default) shows each span once, as it is now. `chain` shows every event of this chain as it was
    /// stored and hashed, so that you can verify it yourself.
    view: Option<String>,
}

/// A session's events in the order of its chain.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timeline {
    /// The events.
    events: Vec<EventView>,
    /// Whether the chain is intact, recomputed from the stored bytes. `verified` says which part of it was checked.
    chain_valid: bool,
    /// The part of the chain that `chainValid` covers.
    verified: Verified,
    /// Always true: every session is chained.
    chained: bool,
    /// The page size: the requested number of events, at most 10,000.
    limit: u32,
    /// Whether there are further pages. A page of large events ends early, at 8 MiB.
    has_more: bool,
    /// The value of `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_seq: Option<i64>,
    /// Other sessions whose chains contain events of this one, because their spans named this session only later. Get each of them
    /// with its id and `view=chain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved_chains: Vec<String>,
}

/// The part of a session that was verified.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Verified {
    /// `session`: all events of the session's chains. `page`: only the events of this page and their links to the previous events.
    /// Sessions with more than 2,000 events are verified by page; `/api/audit/verify` verifies all of them.
    scope: VerifiedScope,
    /// The number of verified events.
    event_count: i64,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum VerifiedScope {
    Session,
    Page,
}

/// Get a session's events in the order of its chain, and whether the chain is intact.
#[utoipa::path(get, path = "/api/sessions/{id}/timeline", tag = "sessions", params(("id" = String, Path, description = "The session's id"), TimelineQuery),
    responses((status = 200, description = "A page of the timeline", body = Timeline), (status = 404, description = "Not found", body = ErrorBody)))]
pub(super) async fn get_timeline(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
    Params(params): Params<TimelineQuery>,
) -> Result<Response, ApiError> {
    let as_chained =
        query::choice("view", params.view.as_ref(), &[("current", false), ("chain", true)])?.unwrap_or(false);
    let limit = query::limit_of(params.limit.as_ref(), MAX_TIMELINE_EVENTS, MAX_TIMELINE_EVENTS)?;
    // Events of spans from the chains of other sessions have negative places.
    let after = query::number("after", params.after.as_ref(), (i64::MIN, i64::MAX))?.unwrap_or(0);
    let timeline = if as_chained {
        chain(&scope, client, &id, after, limit).await?
    } else {
        current(&scope, client, &id, after, limit).await?
    };
    let size_bytes = size_of(&timeline.events);
    api::json(timeline, size_bytes).await
}

/// The events of a session, with spans as they are now.
async fn current(
    scope: &Scope<EventsRead>,
    client: Client,
    id: &str,
    after: i64,
    limit: u32,
) -> Result<Timeline, ApiError> {
    let session = find(scope, id).await?;
    let page = timeline(&scope.workspace, &session, after, limit).await?;
    let (chain_valid, verified) = verified(&scope.workspace, &session, &page.parts).await?;
    let reading = Reading { session: Some(&session.session_id), is_chosen: false };
    let events = current_events(&scope.workspace, page.events, reading).await?;
    Ok(Timeline {
        events: event_views(events, scope.workspace.org_id(), client),
        chain_valid,
        verified,
        chained: true,
        limit,
        has_more: page.next_seq.is_some(),
        next_seq: page.next_seq,
        moved_chains: scope.workspace.sessions().chains_moved_to(&session.session_id).await?,
    })
}

/// The events of one chain as they were stored, no matter where their spans are shown now.
async fn chain(
    scope: &Scope<EventsRead>,
    client: Client,
    id: &str,
    after: i64,
    limit: u32,
) -> Result<Timeline, ApiError> {
    let session = scope.workspace.sessions().find(id).await?;
    let session = session.ok_or_else(|| ApiError::not_found("Session"))?;
    let page = chain_events(&scope.workspace, &session, after.max(0), limit).await?;
    let (chain_valid, verified) = if session.last_seq <= MAX_VERIFIED_EVENTS {
        in_time(async {
            let report = scope.workspace.chains().verify_session(&session).await?;
            Ok((
                report.broken.is_none(),
                Verified { scope: VerifiedScope::Session, event_count: report.event_count },
            ))
        })
        .await?
    } else {
        in_time(verify_parts(&scope.workspace, &page.parts)).await?
    };
    let org = scope.workspace.org_id().as_str();
    Ok(Timeline {
        events: page.events.into_iter().map(|event| EventView::of(event, org, client)).collect(),
        chain_valid,
        verified,
        chained: true,
        limit,
        has_more: page.next_seq.is_some(),
        next_seq: page.next_seq,
        moved_chains: Vec::new(),
    })
}

/// The number of events in the session's own and other chains. Counting stops above `enough`.
pub(super) async fn chained_events(
    workspace: &Workspace,
    session: &SessionRow,
    enough: i64,
) -> Result<i64, ApiError> {
    let mut chained = session.last_seq;
    for chain in workspace.sessions().chains_moved_to(&session.session_id).await? {
        if chained > enough {
            break;
        }
        let moved = workspace.sessions().find(&chain).await?;
        chained += moved.map_or(0, |moved| moved.last_seq);
    }
    Ok(chained)
}

/// Verifies all of a session with up to 2,000 events, and only the page of a longer one.
async fn verified(
    workspace: &Workspace,
    session: &SessionRow,
    parts: &[Part],
) -> Result<(bool, Verified), ApiError> {
    let event_count = chained_events(workspace, session, MAX_VERIFIED_EVENTS).await?;
    if event_count > MAX_VERIFIED_EVENTS {
        return in_time(verify_parts(workspace, parts)).await;
    }
    let holds = chain_holds(workspace, session).await?;
    Ok((holds, Verified { scope: VerifiedScope::Session, event_count }))
}

async fn verify_parts(workspace: &Workspace, parts: &[Part]) -> Result<(bool, Verified), ApiError> {
    let (mut holds, mut event_count) = (true, 0);
    for part in parts {
        let report = workspace.chains().verify_part(&part.chain, part.after, part.last).await?;
        holds &= report.broken.is_none();
        event_count += report.event_count;
    }
    Ok((holds, Verified { scope: VerifiedScope::Page, event_count }))
}

/// Whether all chains of a session are intact.
pub(super) async fn chain_holds(workspace: &Workspace, session: &SessionRow) -> Result<bool, ApiError> {
    in_time(verify(workspace, session)).await
}

async fn in_time<T>(verifying: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let verified = tokio::time::timeout(READ_TIMEOUT, verifying).await;
    verified.map_err(|_| ApiError::timed_out("verifying the session's chain took too long"))?
}

async fn verify(workspace: &Workspace, session: &SessionRow) -> Result<bool, ApiError> {
    for chain in workspace.sessions().chains_moved_to(&session.session_id).await? {
        let Some(moved) = workspace.sessions().find(&chain).await? else { continue };
        if workspace.chains().verify_session(&moved).await?.broken.is_some() {
            return Ok(false);
        }
    }
    Ok(workspace.chains().verify_session(session).await?.broken.is_none())
}
