//! The trace tree of a session: calls with their answers, nested by span if events name spans.

use axum::Json;
use axum::extract::Path;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::{MAX_TIMELINE_EVENTS, MAX_VERIFIED_EVENTS};
use agentlens_views::{Node, TreeQuery, session_tree};

use super::find;
use super::timeline::{chain_holds, chained_events};
use crate::api::ms;
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};
use crate::spans::SpanView;

/// The default and the maximum number of nodes in a response.
const DEFAULT_NODES: u32 = 200;
const MAX_NODES: u32 = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TraceQuery {
    /// Nodes per page: 200 by default, at most 1000. Without this parameter, a session without spans returns up to 10,000 events.
    limit: Option<String>,
    /// The `nextCursor` of the previous page, or the `childrenCursor` of a node together with `parent`.
    cursor: Option<String>,
    /// Return the children of this span, given as `traceId:spanId`. Without it, the roots are returned.
    parent: Option<String>,
}

/// A page of the tree of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    /// The roots by time, or the requested children. Events that are not spans appear as additional roots. Each node includes
    /// as many descendants as fit in the response; use `childrenCursor` for the rest, and `childCount` for how many there are.
    tree: Vec<TraceNode>,
    /// Whether all chains of the session are intact. Null if they have more than 2,000 events; use `/api/audit/verify` for those.
    chain_valid: Option<bool>,
    /// Always true: every session is chained.
    chained: bool,
    /// The page size: the requested number of nodes, at most 1,000.
    limit: u32,
    /// Whether the session has more events than the tree shows.
    is_truncated: bool,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One step: an event, or a call together with its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceNode {
    /// The id of the event that opens the step.
    id: String,
    /// The name of the tool, model or step, otherwise the event type.
    name: String,
    /// The type of the opening event.
    event_type: String,
    /// The highest severity among the events of the step.
    severity: String,
    /// When it started, as sent.
    timestamp: String,
    /// Its duration in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    /// Its own cost in dollars.
    cost_usd: f64,
    /// The cost of the step and everything below it, in dollars.
    subtree_cost_usd: f64,
    /// Whether the step or one below it failed.
    has_error: bool,
    /// The ids of the events of the step.
    event_ids: Vec<String>,
    /// The span, if the step is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<SpanView>,
    /// The sums of the step and everything below it, if it is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<Subtree>,
    /// The number of steps directly below it, in this response or not; only for spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_count: Option<i64>,
    /// The cursor of its remaining children, if the response has only some of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    children_cursor: Option<String>,
    /// The steps below it.
    #[schema(no_recursion)]
    children: Vec<TraceNode>,
}

/// The sums of a span and everything below it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subtree {
    /// The number of spans.
    spans: i64,
    /// The number of failed spans.
    errors: i64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
}

/// Get a session as a tree of steps, in pages.
#[utoipa::path(get, path = "/api/sessions/{id}/trace", tag = "sessions", params(("id" = String, Path, description = "The session's id"), TraceQuery),
    responses((status = 200, description = "A page of the tree", body = Trace), (status = 404, description = "Not found", body = ErrorBody)))]
pub(super) async fn get_trace(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
    Params(params): Params<TraceQuery>,
) -> Result<Json<Trace>, ApiError> {
    let session = find(&scope, &id).await?;
    let most_events = if params.limit.is_some() { MAX_NODES } else { MAX_TIMELINE_EVENTS };
    let query = TreeQuery {
        parent: query::text(params.parent.as_ref()).map(|text| parent(&text)).transpose()?,
        after: query::cursor(params.cursor.as_ref())?,
        limit: query::limit_of(params.limit.as_ref(), DEFAULT_NODES, MAX_NODES)?,
        event_limit: query::limit_of(params.limit.as_ref(), most_events, most_events)?,
    };
    let page = session_tree(&scope.workspace, &session, &query).await?;
    let chain_valid =
        if chained_events(&scope.workspace, &session, MAX_VERIFIED_EVENTS).await? <= MAX_VERIFIED_EVENTS {
            Some(chain_holds(&scope.workspace, &session).await?)
        } else {
            None
        };
    Ok(Json(Trace {
        tree: page.nodes.into_iter().map(|node| TraceNode::of(node, client)).collect(),
        chain_valid,
        chained: true,
        limit: page.limit,
        is_truncated: page.is_truncated,
        next_cursor: page.next.map(|cursor| cursor.encode()),
    }))
}

impl TraceNode {
    /// A node and those below it, down to [`MAX_LEVELS`](agentlens_views::MAX_LEVELS) levels.
    fn of(node: Node, client: Client) -> Self {
        let shown = node.span.as_ref().map(|span| &span.row.span.shown);
        Self {
            subtree: shown.map(|shown| Subtree {
                spans: shown.subtree.spans,
                errors: shown.subtree.errors,
                input_tokens: shown.subtree.input_tokens,
                output_tokens: shown.subtree.output_tokens,
            }),
            child_count: shown.map(|shown| shown.children),
            event_type: match node.span {
                Some(_) => node.event_type,
                None => client.event_type(&node.event_type).to_owned(),
            },
            span: node.span.as_ref().map(SpanView::of),
            children_cursor: node.next_children.map(|cursor| cursor.encode()),
            children: node.children.into_iter().map(|child| Self::of(child, client)).collect(),
            id: node.id,
            name: node.name,
            severity: node.severity,
            timestamp: node.timestamp,
            duration_ms: node.duration_us.map(ms),
            cost_usd: nanos_to_usd(node.cost_nanos),
            subtree_cost_usd: nanos_to_usd(node.subtree_cost_nanos),
            has_error: node.has_error,
            event_ids: node.event_ids,
        }
    }
}

fn parent(text: &str) -> Result<(String, String), ApiError> {
    text.split_once(':').map(|(trace, span)| (trace.to_owned(), span.to_owned())).ok_or_else(|| {
        ApiError::invalid_parameter("parent", "must be a trace id and a span id with a colon between")
    })
}
