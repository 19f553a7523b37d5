//! The tree of a session, a page at a time: roots and, while there is room, what lies below them.

use rustc_hash::FxHashMap;

use agentlens_domain::limits::MAX_TIMELINE_EVENTS;
use agentlens_domain::page::Cursor;
use agentlens_domain::spans::{ARRIVAL_ID_PREFIX, SpanKind};
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{SessionRow, SpanRow, StoreError, Workspace};

use crate::spans::{Address, CurrentSpan, address_of, with_parts};
use crate::steps::{MAX_LEVELS, tree_of};
use crate::timeline::chain_events;

/// What of the tree is asked for.
#[derive(Debug)]
pub struct TreeQuery {
    /// The span whose children are asked for, as trace and span; the roots otherwise.
    pub parent: Option<(String, String)>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Nodes at most.
    pub limit: u32,
    /// Events at most where the session has no spans.
    pub event_limit: u32,
}

/// One page of a tree.
#[derive(Debug)]
pub struct TreePage {
    /// The roots, or the children that were asked for, each with what is loaded below it.
    pub nodes: Vec<Node>,
    /// How many nodes or events the page could hold.
    pub limit: u32,
    /// Whether the session has more than the page shows.
    pub is_truncated: bool,
    /// Where the next page begins.
    pub next: Option<Cursor>,
}

/// One step: an event, a call joined with its answer, or a span.
#[derive(Debug)]
pub struct Node {
    /// The id of the event that opens the step.
    pub id: String,
    /// Tool, model, step or type.
    pub name: String,
    /// The type of the opening event.
    pub event_type: String,
    /// The severity of the gravest event of the step.
    pub severity: String,
    /// When it began, as sent.
    pub timestamp: String,
    /// The same in microseconds UTC: what siblings are ordered by.
    pub start_us: i64,
    /// How long it took.
    pub duration_us: Option<i64>,
    /// What it cost, in nano-dollars.
    pub cost_nanos: i64,
    /// What it and everything below it cost, loaded or not.
    pub subtree_cost_nanos: i64,
    /// Whether it or something below it failed.
    pub has_error: bool,
    /// The ids of its events.
    pub event_ids: Vec<String>,
    /// The span, where it is one.
    pub span: Option<CurrentSpan>,
    /// Where its further children begin, if some are loaded and not all.
    pub next_children: Option<Cursor>,
    /// What happened below it, as far as it is loaded.
    pub children: Vec<Node>,
}

impl Node {
    /// Its place among its siblings.
    fn place(&self) -> Cursor {
        self.span
            .as_ref()
            .map_or_else(|| Cursor { value: self.start_us, id: String::new() }, |span| place_of(&span.row))
    }
}

/// A page of a session's tree. In a session with spans, events that are not spans appear as roots among theirs.
pub async fn session_tree(
    workspace: &Workspace,
    session: &SessionRow,
    query: &TreeQuery,
) -> Result<TreePage, StoreError> {
    let id = session.session_id.as_str();
    let spans = span_tree(workspace, id, query).await?;
    let has_spans = !spans.0.is_empty()
        || query.parent.is_some()
        || query.after.is_some() && !workspace.spans().roots(id, None, 1).await?.is_empty();
    if !has_spans {
        return event_tree(workspace, session, query).await;
    }
    let (steps, are_cut) = match query.parent {
        None if session.own_events > 0 => own_steps(workspace, session).await?,
        _ => (Vec::new(), false),
    };
    let (nodes, next) = mixed(spans, steps, query);
    Ok(TreePage { nodes, limit: query.limit, is_truncated: are_cut || next.is_some(), next })
}

/// A page of a session without spans.
async fn event_tree(
    workspace: &Workspace,
    session: &SessionRow,
    query: &TreeQuery,
) -> Result<TreePage, StoreError> {
    let after = query.after.as_ref().map_or(0, |cursor| cursor.value);
    let page = chain_events(workspace, session, after, query.event_limit).await?;
    let last = page.events.last().filter(|_| page.next_seq.is_some());
    let next = last.map(|last| Cursor { value: last.seq, id: last.id.clone() });
    let nodes = tree_of(&page.events);
    Ok(TreePage { nodes, limit: query.event_limit, is_truncated: next.is_some(), next })
}

/// The steps of a session that are no spans, of its first 10,000 events, and whether it has more events.
async fn own_steps(workspace: &Workspace, session: &SessionRow) -> Result<(Vec<Node>, bool), StoreError> {
    let mut page = chain_events(workspace, session, 0, MAX_TIMELINE_EVENTS).await?;
    page.events.retain(|event| !event.id.starts_with(ARRIVAL_ID_PREFIX));
    Ok((tree_of(&page.events), page.next_seq.is_some()))
}

/// Inserts events that are not spans between the roots of a page, by time. Events of one instant stay together and precede
/// spans, so that the next page can begin at any root.
fn mixed(
    (mut nodes, next): (Vec<Node>, Option<Cursor>),
    steps: Vec<Node>,
    query: &TreeQuery,
) -> (Vec<Node>, Option<Cursor>) {
    let is_of_page = |step: &Node| {
        query.after.as_ref().is_none_or(|after| after.value < step.start_us)
            && next.as_ref().is_none_or(|next| step.start_us <= next.value)
    };
    nodes.extend(steps.into_iter().filter(is_of_page));
    nodes.sort_by_key(|node| (node.start_us, node.span.is_some()));
    let mut taken = 0;
    let end = (1..nodes.len()).find(|end| {
        taken += size(&nodes[end - 1]);
        let (before, behind) = (&nodes[end - 1], &nodes[*end]);
        let is_one_instant = behind.span.is_none() && before.start_us == behind.start_us;
        taken + size(behind) > query.limit as usize && !is_one_instant
    });
    let Some(end) = end else { return (nodes, next) };
    nodes.truncate(end);
    let next = nodes.last().map(Node::place);
    (nodes, next)
}

fn size(node: &Node) -> usize {
    1 + node.children.iter().map(size).sum::<usize>()
}

/// Nodes of the first level, and below them level by level as many as the limits leave room for.
async fn span_tree(
    workspace: &Workspace,
    session_id: &str,
    query: &TreeQuery,
) -> Result<(Vec<Node>, Option<Cursor>), StoreError> {
    let after = query.after.as_ref().map(|cursor| (cursor.value, cursor.id.as_str()));
    let mut top = match &query.parent {
        None => workspace.spans().roots(session_id, after, query.limit + 1).await?,
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
    let depths: Vec<usize> = levels.iter().map(Vec::len).collect();
    let mut spans = with_parts(workspace, levels.into_iter().flatten().collect()).await?.into_iter();
    let levels = depths.into_iter().map(|count| spans.by_ref().take(count).collect()).collect();
    Ok((assemble(levels), next))
}

/// Hangs each level under the one above, the deepest first.
fn assemble(levels: Vec<Vec<CurrentSpan>>) -> Vec<Node> {
    let mut below: FxHashMap<Address, Vec<Node>> = FxHashMap::default();
    let mut nodes = Vec::new();
    for (depth, level) in levels.into_iter().enumerate().rev() {
        let mut above: FxHashMap<Address, Vec<Node>> = FxHashMap::default();
        for span in level {
            let (trace, shown) = (&span.row.trace_id, &span.row.span.shown);
            let parent = shown.parent_span_id.clone().map(|parent| (trace.clone(), parent));
            let children = below.remove(&address_of(&span.row)).unwrap_or_default();
            let node = node_of(span, children);
            match parent.filter(|_| depth > 0) {
                Some(parent) => above.entry(parent).or_default().push(node),
                None => nodes.push(node),
            }
        }
        below = above;
    }
    nodes
}

fn node_of(span: CurrentSpan, children: Vec<Node>) -> Node {
    let (facts, shown, kind) = (span.row.span.facts(), &span.row.span.shown, span.kind());
    let own_name = if kind == SpanKind::Tool { facts.tool_name.as_deref() } else { None };
    let event_type = if facts.is_error { kind.event_type_of_failure() } else { kind.event_type() };
    let is_complete = i64::try_from(children.len()).unwrap_or(i64::MAX) >= shown.children;
    Node {
        id: span.row.span.first_event_id().to_owned(),
        name: own_name.or(facts.span_name.as_deref()).unwrap_or(kind.as_str()).to_owned(),
        event_type: event_type.as_str().to_owned(),
        severity: if facts.is_error { "error" } else { "info" }.to_owned(),
        timestamp: format_rfc3339(facts.start_us),
        start_us: span.row.start_us,
        duration_us: Some(facts.end_us.saturating_sub(facts.start_us)),
        cost_nanos: shown.own.cost_nanos,
        subtree_cost_nanos: shown.subtree.cost_nanos,
        has_error: facts.is_error || shown.subtree.errors > 0,
        event_ids: span.event_ids(),
        next_children: children.last().filter(|_| !is_complete).map(Node::place),
        span: Some(span),
        children,
    }
}

fn place_of(row: &SpanRow) -> Cursor {
    Cursor { value: row.start_us, id: row.span_id.clone() }
}
