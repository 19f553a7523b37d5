//! The trace tree of a session: calls with their answers below the session, children by span where events name spans.

use axum::Json;
use axum::extract::Path;
use rustc_hash::FxHashMap;
use serde::Serialize;
use utoipa::ToSchema;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::limits::MAX_TIMELINE_EVENTS;
use agentlens_store::StoredEvent;

use super::{chain_holds, events, find};
use crate::api::ms;
use crate::auth::{EventsRead, Scope};
use crate::client::Client;
use crate::error::{ApiError, ErrorBody};

/// The tree of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    /// The roots.
    tree: Vec<TraceNode>,
    /// Whether the chain holds.
    chain_valid: bool,
    /// Always true.
    chained: bool,
    /// Whether the session has more events than the tree shows.
    is_truncated: bool,
}

/// One step: an event, or a call together with its answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TraceNode {
    /// The id of the event that opens the step.
    id: String,
    /// Tool, model, step or type.
    name: String,
    /// The type of the opening event.
    event_type: String,
    /// The severity of the gravest event of the step.
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
    /// What happened below it.
    #[schema(no_recursion)]
    children: Vec<TraceNode>,
}

/// A step while the tree is built.
struct Step {
    node: TraceNode,
    cost_nanos: i64,
    span: Option<String>,
    parent_span: Option<String>,
}

/// Get a session as a tree of steps.
#[utoipa::path(get, path = "/api/sessions/{id}/trace", tag = "sessions", params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, body = Trace), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get_trace(
    scope: Scope<EventsRead>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Trace>, ApiError> {
    let session = find(&scope, &id).await?;
    let (events, chain_valid) = tokio::try_join!(
        events(&scope.tenant, &session, 0, MAX_TIMELINE_EVENTS),
        chain_holds(&scope.tenant, &session)
    )?;
    let is_truncated = events.last().is_some_and(|last| last.seq < session.last_seq);
    Ok(Json(Trace { tree: tree(steps(&events, client)), chain_valid, chained: true, is_truncated }))
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

/// Hangs steps below the steps of their parent spans. A parent that is unknown, later or its own child makes a root.
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
    let parents: Vec<Option<usize>> =
        (0..steps.len()).map(|index| parents[index].filter(|_| !is_in_circle(index, &parents))).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let mut roots = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(index),
            None => roots.push(index),
        }
    }
    // Deepest first, so that each step finds its children done, without recursion.
    let mut order = roots.clone();
    let mut at = 0;
    while at < order.len() {
        order.extend_from_slice(&children[order[at]]);
        at += 1;
    }
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
    roots.into_iter().filter_map(|root| done[root].take().map(|(node, _)| node)).collect()
}

fn is_in_circle(start: usize, parents: &[Option<usize>]) -> bool {
    let mut at = parents[start];
    for _ in 0..parents.len() {
        match at {
            None => return false,
            Some(index) if index == start => return true,
            Some(index) => at = parents[index],
        }
    }
    true
}
