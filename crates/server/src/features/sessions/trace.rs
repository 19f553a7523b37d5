//! The trace tree of a session: calls with their answers below the session, children by span where events name spans.

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

/// Nodes of one answer, unless the request says otherwise, and at most.
const DEFAULT_NODES: u32 = 200;
const MAX_NODES: u32 = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TraceQuery {
    /// Nodes of the answer: 200, at most 1000. Sessions without spans answer up to 10,000 events unless this is given.
    limit: Option<String>,
    /// `nextCursor` of the answer before, or `childrenCursor` of a node together with `parent`.
    cursor: Option<String>,
    /// The span whose children are asked for, as `traceId:spanId`; the roots otherwise.
    parent: Option<String>,
}

/// The tree of a session, a page at a time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    /// The roots by time, or the requested children. Events that are not spans appear as additional roots. Each node includes
    /// as many descendants as fit in the response; use `childrenCursor` for the rest, and `childCount` for how many there are.
    tree: Vec<TraceNode>,
    /// Whether all chains of the session hold; null where they have more than 2,000 events, which `/api/audit/verify` verifies.
    chain_valid: Option<bool>,
    /// Always true.
    chained: bool,
    /// The page size: the requested number of nodes, at most 1,000.
    limit: u32,
    /// Whether the session has more events than the tree shows.
    is_truncated: bool,
    /// Cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One step: an event, or a call together with its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceNode {
    /// The id of the event that opens the step.
    id: String,
    /// Tool, model, step or type.
    name: String,
    /// The type of the opening event.
    event_type: String,
    /// The highest severity among the events of the step.
    severity: String,
    /// When it began, as sent.
    timestamp: String,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    /// Its own cost in dollars.
    cost_usd: f64,
    /// The cost of the step and everything below it, in dollars.
    subtree_cost_usd: f64,
    /// Whether it or something below it failed.
    has_error: bool,
    /// The ids of the events of the step.
    event_ids: Vec<String>,
    /// The span, where the step is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<SpanView>,
    /// The sums of the step and everything below it, where it is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<Subtree>,
    /// Steps directly below it, loaded or not, where it is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_count: Option<i64>,
    /// Cursor of its remaining children, if only some are loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    children_cursor: Option<String>,
    /// What happened below it.
    #[schema(no_recursion)]
    children: Vec<TraceNode>,
}

/// The sums of a span and everything below it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subtree {
    /// Spans.
    spans: i64,
    /// Failed ones.
    errors: i64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
}

/// Get a session as a tree of steps, a page at a time.
#[utoipa::path(get, path = "/api/sessions/{id}/trace", tag = "sessions", params(("id" = String, Path, description = "The session's id"), TraceQuery),
    responses((status = 200, body = Trace), (status = 404, body = ErrorBody)))]
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
    /// The node and, on at most [`MAX_LEVELS`](agentlens_views::MAX_LEVELS) levels, those below it.
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
