//! The tree of a session's spans, a page at a time: roots and, while there is room, what lies under them.

use rustc_hash::FxHashMap;

use agentlens_domain::cost::nanos_to_usd;
use agentlens_domain::page::Cursor;
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{SpanRow, StoreError, Workspace};

use super::trace::{MAX_LEVELS, Subtree, TraceNode};
use crate::api::ms;
use crate::spans::{Parts, SpanView, event_ids, kind};

/// What of the tree is asked for.
pub(super) struct TreeQuery<'a> {
    pub(super) session_id: &'a str,
    /// The span whose children are asked for; the roots otherwise.
    pub(super) parent: Option<(String, String)>,
    pub(super) after: Option<Cursor>,
    pub(super) limit: u32,
}

/// One page.
pub(super) struct TreePage {
    pub(super) nodes: Vec<TraceNode>,
    pub(super) next: Option<Cursor>,
}

/// Nodes of the first level, and below them level by level as many as the limits leave room for.
pub(super) async fn span_tree(workspace: &Workspace, query: &TreeQuery<'_>) -> Result<TreePage, StoreError> {
    let after = query.after.as_ref().map(|cursor| (cursor.value, cursor.id.as_str()));
    let mut top = match &query.parent {
        None => workspace.spans().roots(query.session_id, after, query.limit + 1).await?,
        Some(parent) => {
            let parents = std::slice::from_ref(parent);
            workspace.spans().children(parents, after, query.limit + 1).await?
        }
    };
    let has_more = top.len() > query.limit as usize;
    top.truncate(query.limit as usize);
    let next = top.last().filter(|_| has_more).map(place_of);

    let mut levels: Vec<Vec<SpanRow>> = vec![top];
    let mut room = query.limit - u32::try_from(levels[0].len()).unwrap_or(query.limit);
    while room > 0
        && levels.len() < MAX_LEVELS
        && let Some(level) = levels.last()
    {
        let parents: Vec<(String, String)> = level
            .iter()
            .filter(|row| row.span.shown.children > 0)
            .map(|row| (row.trace_id.clone(), row.span_id.clone()))
            .collect();
        if parents.is_empty() {
            break;
        }
        let children = workspace.spans().children(&parents, None, room).await?;
        room -= u32::try_from(children.len()).unwrap_or(room);
        levels.push(children);
    }
    let parts = Parts::read(workspace, levels.iter().flatten()).await?;
    Ok(TreePage { nodes: assemble(levels, &parts), next })
}

/// Hangs each level under the one above, the deepest first.
fn assemble(levels: Vec<Vec<SpanRow>>, parts: &Parts) -> Vec<TraceNode> {
    let mut below: FxHashMap<(String, String), Vec<TraceNode>> = FxHashMap::default();
    let mut nodes = Vec::new();
    for (depth, level) in levels.into_iter().enumerate().rev() {
        let mut above: FxHashMap<(String, String), Vec<TraceNode>> = FxHashMap::default();
        for row in level {
            let children = below.remove(&(row.trace_id.clone(), row.span_id.clone())).unwrap_or_default();
            let parent = row.span.shown.parent_span_id.clone().map(|parent| (row.trace_id.clone(), parent));
            let node = node_of(&row, parts, children);
            match parent.filter(|_| depth > 0) {
                Some(parent) => above.entry(parent).or_default().push(node),
                None => nodes.push(node),
            }
        }
        below = above;
    }
    nodes
}

fn node_of(row: &SpanRow, parts: &Parts, children: Vec<TraceNode>) -> TraceNode {
    let (facts, shown) = (row.span.facts(), &row.span.shown);
    let kind = kind(&row.span);
    let own_name = match kind {
        agentlens_domain::spans::SpanKind::Tool => facts.tool_name.as_deref(),
        _ => None,
    };
    let event_type = if facts.is_error { kind.event_type_of_failure() } else { kind.event_type() };
    let child_count = shown.children;
    let is_complete = i64::try_from(children.len()).unwrap_or(i64::MAX) >= child_count;
    let more = children.last().filter(|_| !is_complete).and_then(|last| last.place.clone());
    TraceNode {
        id: row.span.first_event_id().to_owned(),
        name: own_name.or(facts.span_name.as_deref()).unwrap_or(kind.as_str()).to_owned(),
        event_type: event_type.as_str().to_owned(),
        severity: if facts.is_error { "error" } else { "info" }.to_owned(),
        timestamp: format_rfc3339(facts.start_us),
        duration_ms: Some(ms(facts.end_us.saturating_sub(facts.start_us))),
        cost_usd: nanos_to_usd(shown.own.cost_nanos),
        subtree_cost_usd: nanos_to_usd(shown.subtree.cost_nanos),
        has_error: facts.is_error || shown.subtree.errors > 0,
        event_ids: event_ids(&row.span),
        subtree: Some(Subtree {
            spans: shown.subtree.spans,
            errors: shown.subtree.errors,
            input_tokens: shown.subtree.input_tokens,
            output_tokens: shown.subtree.output_tokens,
        }),
        span: Some(SpanView::of(row, parts)),
        child_count: Some(child_count),
        children_cursor: more.map(|cursor| cursor.encode()),
        place: Some(place_of(row)),
        children,
    }
}

fn place_of(row: &SpanRow) -> Cursor {
    Cursor { value: row.start_us, id: row.span_id.clone() }
}
