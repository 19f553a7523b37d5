//! The steps of a session without spans: calls joined with their answers, below the steps whose spans they name as parents.

use rustc_hash::FxHashMap;

use agentlens_store::StoredEvent;

use crate::tree::Node;

/// Levels of one answer. Readers of JSON give up at a depth (serde_json at 128, of which a level takes two), and writing
/// a tree takes stack.
pub const MAX_LEVELS: usize = 50;

/// A step while the tree is built.
struct Step {
    node: Node,
    span: Option<String>,
    parent_span: Option<String>,
}

/// The tree of events that are not spans.
pub(crate) fn tree_of(events: &[StoredEvent]) -> Vec<Node> {
    tree(steps(events))
}

/// Pairs calls with their answers; everything else is a step of its own.
fn steps(events: &[StoredEvent]) -> Vec<Step> {
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
        steps.push(step_of(event));
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

fn step_of(event: &StoredEvent) -> Step {
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
        span: span("spanId"),
        parent_span: span("parentSpanId"),
        node: Node {
            id: event.id.clone(),
            name: name.to_owned(),
            event_type: event.event_type.clone(),
            severity: event.severity.clone(),
            timestamp: event.timestamp.clone(),
            start_us: event.ts_us,
            duration_us: event.duration_us,
            cost_nanos: event.cost_nanos.unwrap_or(0),
            subtree_cost_nanos: 0,
            has_error: is_error(event),
            event_ids: vec![event.id.clone()],
            span: None,
            next_children: None,
            children: Vec::new(),
        },
    }
}

fn join_answer(step: &mut Step, event: &StoredEvent) {
    let node = &mut step.node;
    node.cost_nanos += event.cost_nanos.unwrap_or(0);
    node.duration_us = event.duration_us.or(node.duration_us);
    if is_error(event) {
        node.has_error = true;
        node.severity.clone_from(&event.severity);
    }
    node.event_ids.push(event.id.clone());
}

/// Hangs steps below the steps of their parent spans. A parent that is unknown, later or its own child makes a root; what
/// lies deeper than an answer may be is shown on its last level.
fn tree(steps: Vec<Step>) -> Vec<Node> {
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
    let mut done: Vec<Option<Node>> = steps.into_iter().map(|step| Some(step.node)).collect();
    for index in order.into_iter().rev() {
        let below: Vec<Node> = children[index].iter().filter_map(|child| done[*child].take()).collect();
        if let Some(node) = done[index].as_mut() {
            node.subtree_cost_nanos =
                node.cost_nanos + below.iter().map(|child| child.subtree_cost_nanos).sum::<i64>();
            node.has_error |= below.iter().any(|child| child.has_error);
            node.children = below;
        }
    }
    let roots = (0..done.len()).filter(|index| parents[*index].is_none()).collect::<Vec<_>>();
    roots.into_iter().filter_map(|root| done[root].take()).collect()
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
        // The parent has its place already, and never below the last level.
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
