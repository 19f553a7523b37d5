//! The trace tree of a session: calls with their answers below the session, children by span where events name spans.

use axum::Json;
use axum::extract::Path;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::{MAX_TIMELINE_EVENTS, MAX_VERIFIED_EVENTS};
use agentlens_domain::page::Cursor;
use agentlens_domain::spans::ARRIVAL_ID_PREFIX;
use agentlens_store::{SessionRow, StoredEvent, Workspace};

use super::find;
use super::span_tree::{TreePage, TreeQuery, span_tree};
use super::timeline::{chain_holds, chained_events, events};
use crate::api::ms;
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params};
use crate::spans::SpanView;

/// Nodes of one answer, unless the request says otherwise, and at most.
const DEFAULT_NODES: u32 = 200;
const MAX_NODES: u32 = 1_000;
/// Levels of one answer. Readers of JSON give up at a depth (serde_json at 128, of which a level takes two), and writing
/// a tree takes stack.
pub(super) const MAX_LEVELS: usize = 50;

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
    /// Nodes that this answer could hold: what was asked for, at most 1,000.
    limit: u32,
    /// Whether the session has more events than the tree shows.
    is_truncated: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One step: an event, or a call together with its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceNode {
    /// The id of the event that opens the step.
    pub(super) id: String,
    /// Tool, model, step or type.
    pub(super) name: String,
    /// The type of the opening event.
    pub(super) event_type: String,
    /// The severity of the gravest event of the step.
    pub(super) severity: String,
    /// When it began, as sent.
    pub(super) timestamp: String,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<f64>,
    /// Its own cost in dollars.
    pub(super) cost_usd: f64,
    /// The cost of the step and everything below it, in dollars.
    pub(super) subtree_cost_usd: f64,
    /// Whether it or something below it failed.
    pub(super) has_error: bool,
    /// The ids of the events of the step.
    pub(super) event_ids: Vec<String>,
    /// The span, where the step is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) span: Option<SpanView>,
    /// The sums of the step and everything below it, where it is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subtree: Option<Subtree>,
    /// Steps directly below it, loaded or not, where it is a span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) child_count: Option<i64>,
    /// Where its further children begin, if some are loaded and not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) children_cursor: Option<String>,
    /// Its place among its siblings.
    #[serde(skip)]
    pub(super) place: Option<Cursor>,
    /// What happened below it.
    #[schema(no_recursion)]
    pub(super) children: Vec<TraceNode>,
}

/// The sums of a span and everything below it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subtree {
    /// Spans.
    pub(super) spans: i64,
    /// Failed ones.
    pub(super) errors: i64,
    /// Input tokens.
    pub(super) input_tokens: i64,
    /// Output tokens.
    pub(super) output_tokens: i64,
}

/// A step while the tree is built.
struct Step {
    node: TraceNode,
    cost_nanos: i64,
    span: Option<String>,
    parent_span: Option<String>,
}

/// Get a session as a tree of steps, a page at a time.
#[utoipa::path(get, path = "/api/sessions/{id}/trace", tag = "sessions", params(("id" = String, Path, description = "The session's id"), TraceQuery),
    responses((status = 200, body = Trace), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(super) async fn get_trace(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
    Params(params): Params<TraceQuery>,
) -> Result<Json<Trace>, ApiError> {
    let session = find(&scope, &id).await?;
    let query = TreeQuery {
        session_id: &session.session_id,
        parent: query::text(params.parent.as_ref()).map(|text| parent(&text)).transpose()?,
        after: query::cursor(params.cursor.as_ref())?,
        limit: query::limit_of(params.limit.as_ref(), DEFAULT_NODES, MAX_NODES)?,
    };
    let page = span_tree(&scope.workspace, &query).await?;
    let chain_valid =
        if chained_events(&scope.workspace, &session, MAX_VERIFIED_EVENTS).await? <= MAX_VERIFIED_EVENTS {
            Some(chain_holds(&scope.workspace, &session).await?)
        } else {
            None
        };
    if !page.nodes.is_empty() || query.parent.is_some() || has_spans_before(&scope.workspace, &query).await? {
        let (steps, are_cut) = match query.parent {
            None if session.own_events > 0 => own_steps(&scope.workspace, &session, client).await?,
            _ => (Vec::new(), false),
        };
        let page = mixed(page, steps, &query);
        let next_cursor = page.next.map(|cursor| cursor.encode());
        let is_truncated = are_cut || next_cursor.is_some();
        let limit = query.limit;
        return Ok(Json(Trace {
            tree: page.nodes,
            chain_valid,
            chained: true,
            limit,
            is_truncated,
            next_cursor,
        }));
    }
    let after = query.after.as_ref().map_or(0, |cursor| cursor.value);
    let most = if params.limit.is_some() { MAX_NODES } else { MAX_TIMELINE_EVENTS };
    let limit = query::limit_of(params.limit.as_ref(), most, most)?;
    let (events, has_more) = events(&scope.workspace, &session, after, limit).await?;
    let next = events.last().filter(|_| has_more);
    let next_cursor = next.map(|last| Cursor { value: last.seq, id: last.id.clone() }.encode());
    Ok(Json(Trace {
        tree: tree(steps(&events, client)),
        chain_valid,
        chained: true,
        limit,
        is_truncated: next_cursor.is_some(),
        next_cursor,
    }))
}

/// Whether the page goes on behind the last of a session's spans.
async fn has_spans_before(workspace: &Workspace, query: &TreeQuery<'_>) -> Result<bool, ApiError> {
    Ok(query.after.is_some() && !workspace.spans().roots(query.session_id, None, 1).await?.is_empty())
}

/// The steps of a session that are no spans, of its first 10,000 events, and whether it has more events.
async fn own_steps(
    workspace: &Workspace,
    session: &SessionRow,
    client: Client,
) -> Result<(Vec<TraceNode>, bool), ApiError> {
    let (mut own, are_cut) = events(workspace, session, 0, MAX_TIMELINE_EVENTS).await?;
    own.retain(|event| !event.id.starts_with(ARRIVAL_ID_PREFIX));
    Ok((tree(steps(&own, client)), are_cut))
}

/// Inserts events that are not spans between the roots of a page, by time. Events of one instant stay together and precede
/// spans, so that the next page can begin at any root.
fn mixed(page: TreePage, steps: Vec<TraceNode>, query: &TreeQuery<'_>) -> TreePage {
    let instant = |node: &TraceNode| node.place.as_ref().map_or(0, |place| place.value);
    let is_of_page = |step: &TraceNode| {
        query.after.as_ref().is_none_or(|after| after.value < instant(step))
            && page.next.as_ref().is_none_or(|next| instant(step) <= next.value)
    };
    let mut nodes = page.nodes;
    nodes.extend(steps.into_iter().filter(is_of_page));
    nodes.sort_by_key(|node| (instant(node), node.span.is_some()));
    let mut taken = 0;
    let end = (1..nodes.len()).find(|end| {
        taken += size(&nodes[end - 1]);
        let (before, behind) = (&nodes[end - 1], &nodes[*end]);
        let is_one_instant = behind.span.is_none() && instant(before) == instant(behind);
        taken + size(behind) > query.limit as usize && !is_one_instant
    });
    let Some(end) = end else { return TreePage { nodes, next: page.next } };
    nodes.truncate(end);
    let next = nodes.last().and_then(|last| last.place.clone());
    TreePage { nodes, next }
}

fn size(node: &TraceNode) -> usize {
    1 + node.children.iter().map(size).sum::<usize>()
}

fn parent(text: &str) -> Result<(String, String), ApiError> {
    text.split_once(':').map(|(trace, span)| (trace.to_owned(), span.to_owned())).ok_or_else(|| {
        ApiError::invalid_parameter("parent", "must be a trace id and a span id with a colon between")
    })
}

/// Pairs calls with their answers; everything else is a step of its own.
fn steps(events: &[StoredEvent], client: Client) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open: FxHashMap<(&'static str, &str), usize> = FxHashMap::default();
    for event in events {
        let call = event.call_id.as_deref();
        let answers = answered_kind(&event.event_type).zip(call).and_then(|key| open.remove(&key));
        if let Some(index) = answers {
            join_answer(&mut steps[index], event);
            continue;
        }
        if let Some(key) = opening_kind(&event.event_type).zip(call) {
            open.insert(key, steps.len());
        }
        steps.push(step_of(event, client));
    }
    steps
}

fn opening_kind(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "tool_call" => "tool",
        "llm_call" => "llm",
        "approval_requested" => "approval",
        "form_submitted" => "form",
        _ => return None,
    })
}

fn answered_kind(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "tool_response" | "tool_error" => "tool",
        "llm_response" => "llm",
        "approval_granted" | "approval_denied" | "approval_expired" => "approval",
        "form_completed" | "form_expired" => "form",
        _ => return None,
    })
}

fn is_error(event: &StoredEvent) -> bool {
    matches!(event.severity.as_str(), "error" | "critical") || event.event_type == "tool_error"
}

fn step_of(event: &StoredEvent, client: Client) -> Step {
    let name = event.name.as_deref().or(event.model.as_deref()).unwrap_or(&event.event_type);
    let metadata: serde_json::Value = serde_json::from_str(&event.metadata).unwrap_or_default();
    let span = |key: &str| {
        metadata
            .get(key)
            .and_then(serde_json::Value::as_str)
            .filter(|span| !span.is_empty())
            .map(str::to_owned)
    };
    Step {
        cost_nanos: event.cost_nanos.unwrap_or(0),
        span: span("spanId"),
        parent_span: span("parentSpanId"),
        node: TraceNode {
            id: event.id.clone(),
            name: name.to_owned(),
            event_type: client.event_type(&event.event_type).to_owned(),
            severity: event.severity.clone(),
            timestamp: event.timestamp.clone(),
            duration_ms: event.duration_us.map(ms),
            cost_usd: 0.0,
            subtree_cost_usd: 0.0,
            has_error: is_error(event),
            event_ids: vec![event.id.clone()],
            span: None,
            subtree: None,
            child_count: None,
            children_cursor: None,
            place: Some(Cursor { value: event.ts_us, id: String::new() }),
            children: Vec::new(),
        },
    }
}

fn join_answer(step: &mut Step, event: &StoredEvent) {
    step.cost_nanos += event.cost_nanos.unwrap_or(0);
    let node = &mut step.node;
    node.duration_ms = event.duration_us.map(ms).or(node.duration_ms);
    if is_error(event) {
        node.has_error = true;
        node.severity.clone_from(&event.severity);
    }
    node.event_ids.push(event.id.clone());
}

/// Hangs steps below the steps of their parent spans. A parent that is unknown, later or its own child makes a root; what
/// lies deeper than an answer may be is shown on its last level.
fn tree(steps: Vec<Step>) -> Vec<TraceNode> {
    let spans: FxHashMap<String, usize> = steps
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(index, step)| Some((step.span.clone()?, index)))
        .collect();
    let parents: Vec<Option<usize>> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            step.parent_span
                .as_ref()
                .and_then(|span| spans.get(span).copied())
                .filter(|parent| *parent != index)
        })
        .collect();
    let parents = without_circles(parents);
    let order = parents_first(&parents);
    let parents = with_bounded_depth(&order, parents);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (index, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            children[*parent].push(index);
        }
    }
    // Deepest first, so that each step finds its children done, without recursion.
    let mut done: Vec<Option<(TraceNode, i64)>> =
        steps.into_iter().map(|step| Some((step.node, step.cost_nanos))).collect();
    for index in order.into_iter().rev() {
        let below: Vec<(TraceNode, i64)> =
            children[index].iter().filter_map(|child| done[*child].take()).collect();
        if let Some((node, cost)) = done[index].as_mut() {
            node.cost_usd = nanos_to_usd(*cost);
            *cost += below.iter().map(|(_, cost)| cost).sum::<i64>();
            node.subtree_cost_usd = nanos_to_usd(*cost);
            node.has_error |= below.iter().any(|(child, _)| child.has_error);
            node.children = below.into_iter().map(|(child, _)| child).collect();
        }
    }
    let roots = (0..done.len()).filter(|index| parents[*index].is_none()).collect::<Vec<_>>();
    roots.into_iter().filter_map(|root| done[root].take().map(|(node, _)| node)).collect()
}

fn parents_first(parents: &[Option<usize>]) -> Vec<usize> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    let mut order = Vec::with_capacity(parents.len());
    for (index, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(index),
            None => order.push(index),
        }
    }
    let mut at = 0;
    while at < order.len() {
        order.extend_from_slice(&children[order[at]]);
        at += 1;
    }
    order
}

fn with_bounded_depth(order: &[usize], mut parents: Vec<Option<usize>>) -> Vec<Option<usize>> {
    let mut levels = vec![1_usize; parents.len()];
    for index in order.iter().copied() {
        let Some(parent) = parents[index] else { continue };
        // The parent's own place is settled, and never on a level beyond the last.
        let above = if levels[parent] < MAX_LEVELS { Some(parent) } else { parents[parent] };
        parents[index] = above;
        levels[index] = above.map_or(1, |above| levels[above] + 1);
    }
    parents
}

/// Takes the parent away from every step that is its own ancestor. Each step is visited twice at most, however long the chains
/// of parents are.
fn without_circles(mut parents: Vec<Option<usize>>) -> Vec<Option<usize>> {
    const NEW: usize = usize::MAX;
    // The walk on which a step was first met.
    let mut walks = vec![NEW; parents.len()];
    let mut in_circle = vec![false; parents.len()];
    for start in 0..parents.len() {
        let mut at = Some(start);
        while let Some(index) = at
            && walks[index] == NEW
        {
            walks[index] = start;
            at = parents[index];
        }
        // A step that this same walk met before closes a circle.
        let Some(first) = at.filter(|index| walks[*index] == start) else { continue };
        let mut at = first;
        while !in_circle[at] {
            in_circle[at] = true;
            at = parents[at].unwrap_or(first);
        }
    }
    for (parent, is_in_circle) in parents.iter_mut().zip(in_circle) {
        parent.take_if(|_| is_in_circle);
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::without_circles;

    #[test]
    fn circles_are_opened_and_what_hangs_on_them_stays() {
        // 0 and 1 in a ring, 2 below it, 3 below 2; 4 a root, 5 below it.
        let parents = vec![Some(1), Some(0), Some(1), Some(2), None, Some(4)];
        assert_eq!(without_circles(parents), [None, None, Some(1), Some(2), None, Some(4)]);
    }

    #[test]
    fn long_chains_and_rings_take_linear_time() {
        // A step for each parent of each step would be 4 * 10^10 steps.
        let length = 200_000;
        let mut ring: Vec<Option<usize>> = (0..length).map(|index| Some((index + 1) % length)).collect();
        assert!(without_circles(ring.clone()).iter().all(Option::is_none));
        ring[0] = None;
        assert_eq!(without_circles(ring.clone()), ring);
    }
}
