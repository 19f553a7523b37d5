//! Spans on PostgreSQL: loading what a group changes, writing it, each over arrays.

use std::sync::LazyLock;

use deadpool_postgres::Transaction;
use rustc_hash::FxHashMap;
use tokio_postgres::Row;

use agentlens_domain::apply::{OrgContext, Plan};
use agentlens_domain::batches::Group;
use agentlens_domain::environments::Environments;
use agentlens_domain::spans::{
    MAX_SAME_ANSWER, Needs, Projection, RemainingTraces, SpanChange, SpanProjector, StoredSpan, StoredTrace,
    decode_state,
};

use super::insert::insert;
use crate::error::StoreError;
use crate::statement::NamedRow;
use crate::tenant::{
    SPAN_STATE, SealedRow, SpanSeal, SpansTable, TRACE_STATE, TraceSeal, TracesTable, is_authentic_span,
    is_authentic_trace, span_rows, trace_rows,
};

/// Joins the arrivals of a group with the stored spans.
pub(super) async fn project_spans<'a>(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    group: &Group<'a>,
    environments: &'a Environments<'a>,
) -> Result<Projection<'a>, StoreError> {
    let mut projection = Projection::of(group);
    for mut projector in SpanProjector::of(group, environments) {
        loop {
            let needs = projector.needs(group, &context.prices, &mut projection);
            if needs.is_empty() {
                break;
            }
            load(transaction, context, &mut projector, needs).await?;
        }
        projector.finish(&mut projection);
    }
    Ok(projection)
}

/// The statements that load stored spans: by their ids, and by the parents under which they are shown or that they name. Each key is
/// looked up by itself: joined to the table as a whole, many of them would make the planner read all of it.
static SPANS_BY_ID: LazyLock<String> = LazyLock::new(|| select_spans("span_id", "limit 1"));
static SPANS_BELOW: LazyLock<String> = LazyLock::new(|| {
    let (shown, named) =
        (select_spans("parent_span_id", "offset 0"), select_spans("named_parent_span_id", "offset 0"));
    format!("{shown} union all {named}")
});
static SPANS_OF_TRACES: LazyLock<String> = LazyLock::new(|| {
    format!("select {} from spans where org_id = $1 and trace_number = any($2)", SpanSeal::COLUMNS)
});

fn select_spans(column: &str, limit: &str) -> String {
    format!(
        "select s.* from unnest($2::bigint[], $3::text[]) as k (trace_number, id)
         cross join lateral (select {} from spans s
           where s.org_id = $1 and s.trace_number = k.trace_number and s.{column} = k.id {limit}) s",
        SpanSeal::COLUMNS
    )
}

async fn load(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    projector: &mut SpanProjector<'_>,
    needs: Needs,
) -> Result<(), StoreError> {
    let (org, workspace) = (context.org.as_str(), projector.workspace_id());
    let mut traces = load_traces(transaction, context, workspace, &needs.traces).await?;
    for trace_id in &needs.traces {
        projector.take_trace(trace_id, traces.remove(trace_id));
    }
    projector.take_spans(load_spans(transaction, context, &SPANS_BY_ID, needs.spans).await?);
    projector.take_spans(load_spans(transaction, context, &SPANS_BELOW, needs.children).await?);
    if !needs.wholes.is_empty() {
        let statement = transaction.prepare_cached(&SPANS_OF_TRACES).await?;
        let rows = transaction.query(&statement, &[&org, &needs.wholes]).await?;
        projector.take_spans(stored_spans(&rows, context)?);
    }
    if !needs.answers.is_empty() {
        let mut spans = spans_with(transaction, org, workspace, &needs.answers).await?;
        for answer in &needs.answers {
            projector.take_answer(answer, spans.remove(answer).unwrap_or_default());
        }
    }
    Ok(())
}

async fn load_traces(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    workspace: &str,
    traces: &[String],
) -> Result<FxHashMap<String, StoredTrace>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select {} from traces where org_id = $1 and workspace_id = $2 and trace_id = any($3)",
            TraceSeal::COLUMNS
        )
    });
    let mut stored: FxHashMap<String, StoredTrace> = FxHashMap::default();
    if traces.is_empty() {
        return Ok(stored);
    }
    let statement = transaction.prepare_cached(&SQL).await?;
    for row in &transaction.query(&statement, &[&context.org.as_str(), &workspace, &traces]).await? {
        let state = decode_state(row.bytes(TRACE_STATE))?;
        let is_authentic = is_authentic_trace(row, context);
        stored.insert(row.try_get(2)?, StoredTrace { number: row.try_get(0)?, state, is_authentic });
    }
    Ok(stored)
}

/// Spans by number of trace and by a span id.
async fn load_spans(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    sql: &str,
    ids: Vec<(i64, String)>,
) -> Result<Vec<StoredSpan>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (numbers, span_ids): (Vec<i64>, Vec<String>) = ids.into_iter().unzip();
    let statement = transaction.prepare_cached(sql).await?;
    let rows = transaction.query(&statement, &[&context.org.as_str(), &numbers, &span_ids]).await?;
    stored_spans(&rows, context)
}

fn stored_spans(rows: &[Row], context: &OrgContext) -> Result<Vec<StoredSpan>, StoreError> {
    let stored = |row: &Row| {
        let span = decode_state(row.bytes(SPAN_STATE))?;
        Ok(StoredSpan { trace_number: row.try_get(2)?, span, is_authentic: is_authentic_span(row, context) })
    };
    rows.iter().map(stored).collect()
}

impl SealedRow for Row {
    fn text(&self, index: usize) -> Option<&str> {
        self.try_get(index).unwrap_or_default()
    }

    fn number(&self, index: usize) -> i64 {
        self.try_get(index).or_else(|_| self.try_get(index).map(i32::into)).unwrap_or_default()
    }

    fn is_set(&self, index: usize) -> bool {
        self.try_get(index).unwrap_or_default()
    }

    fn bytes(&self, index: usize) -> &[u8] {
        self.try_get(index).unwrap_or_default()
    }
}

async fn spans_with(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    responses: &[String],
) -> Result<FxHashMap<String, Vec<(String, String)>>, StoreError> {
    let sql = "select k.response_id, s.trace_id, s.span_id from unnest($3::text[]) as k (response_id)
         cross join lateral (select trace_id, span_id from spans s
           where s.org_id = $1 and s.workspace_id = $2 and s.response_id = k.response_id limit $4) s";
    let statement = transaction.prepare_cached(sql).await?;
    let limit = MAX_SAME_ANSWER as i64 + 1;
    let mut spans: FxHashMap<String, Vec<(String, String)>> = FxHashMap::default();
    for row in transaction.query(&statement, &[&org, &workspace, &responses, &limit]).await? {
        spans.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, row.try_get(2)?));
    }
    Ok(spans)
}

/// Reads the other traces of sessions that traces leave or reopen.
pub(super) async fn load_remaining<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    projection: &'a Projection<'a>,
) -> Result<RemainingTraces<'a>, StoreError> {
    let sql = "select trace_id, state from traces where org_id = $1 and session_number =
           (select number from sessions where org_id = $1 and workspace_id = $2 and session_id = $3)
         order by number desc limit $4";
    let mut remaining = RemainingTraces::default();
    for session in projection.sessions_to_read() {
        let statement = transaction.prepare_cached(sql).await?;
        let mut stored = Vec::new();
        for row in
            transaction.query(&statement, &[&org, &session.key.0, &session.key.1, &session.limit]).await?
        {
            stored.push((row.try_get(0)?, decode_state(row.try_get(1)?)?));
        }
        projection.take_traces(&mut remaining, session, stored);
    }
    Ok(remaining)
}

/// Writes the spans and traces that changed.
pub(super) async fn upsert_spans(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    spans: &[SpanChange<'_>],
    plan: &Plan<'_>,
) -> Result<(), StoreError> {
    if plan.traces.is_empty() {
        return Ok(());
    }
    let org = context.org.as_str();
    insert(transaction, org, SpansTable, &span_rows(spans, plan, context)?).await?;
    insert(transaction, org, TracesTable, &trace_rows(plan, context)?).await?;
    Ok(())
}
