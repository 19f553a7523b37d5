//! Spans on PostgreSQL: loading what a group changes, writing it, each over arrays.

use deadpool_postgres::Transaction;
use rustc_hash::FxHashMap;

use agentlens_domain::apply::{OrgContext, Plan};
use agentlens_domain::batches::Group;
use agentlens_domain::environments::Environments;
use agentlens_domain::spans::{
    MAX_SAME_ANSWER, Needs, Projection, RemainingTraces, Span, SpanChange, SpanProjector, StoredTrace,
    decode_state,
};

use super::insert::insert;
use crate::error::StoreError;
use crate::tenant::{SpansTable, TracesTable, span_rows, trace_rows};

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
            load(transaction, context.org.as_str(), &mut projector, needs).await?;
        }
        projector.finish(&mut projection);
    }
    Ok(projection)
}

async fn load(
    transaction: &Transaction<'_>,
    org: &str,
    projector: &mut SpanProjector<'_>,
    needs: Needs,
) -> Result<(), StoreError> {
    let workspace = projector.workspace_id();
    let mut traces = load_traces(transaction, (org, workspace), &needs.traces).await?;
    for trace_id in &needs.traces {
        projector.take_trace(trace_id, traces.remove(trace_id));
    }
    // Each key is looked up by itself: joined to the table as a whole, many of them would make the planner read all of it.
    let sql =
        "select s.trace_number, s.state from unnest($2::bigint[], $3::text[]) as k (trace_number, span_id)
         cross join lateral (select trace_number, state from spans s
           where s.org_id = $1 and s.trace_number = k.trace_number and s.span_id = k.span_id limit 1) s";
    projector.take_spans(load_spans(transaction, org, sql, needs.spans).await?);
    let sql = "select s.trace_number, s.state from unnest($2::bigint[], $3::text[]) as k (trace_number, span_id)
         cross join lateral (select trace_number, state from spans s
           where s.org_id = $1 and s.trace_number = k.trace_number and s.parent_span_id = k.span_id offset 0) s
         union all
         select s.trace_number, s.state from unnest($2::bigint[], $3::text[]) as k (trace_number, span_id)
         cross join lateral (select trace_number, state from spans s
           where s.org_id = $1 and s.trace_number = k.trace_number and s.named_parent_span_id = k.span_id offset 0) s";
    projector.take_spans(load_spans(transaction, org, sql, needs.children).await?);
    if !needs.wholes.is_empty() {
        let sql = "select trace_number, state from spans where org_id = $1 and trace_number = any($2)";
        let statement = transaction.prepare_cached(sql).await?;
        let mut spans = Vec::new();
        for row in transaction.query(&statement, &[&org, &needs.wholes]).await? {
            spans.push((row.try_get(0)?, decode_state(row.try_get(1)?)?));
        }
        projector.take_spans(spans);
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
    (org, workspace): (&str, &str),
    traces: &[String],
) -> Result<FxHashMap<String, StoredTrace>, StoreError> {
    let mut stored: FxHashMap<String, StoredTrace> = FxHashMap::default();
    if traces.is_empty() {
        return Ok(stored);
    }
    let sql = "select trace_id, number, state from traces where org_id = $1 and workspace_id = $2 and trace_id = any($3)";
    let statement = transaction.prepare_cached(sql).await?;
    for row in transaction.query(&statement, &[&org, &workspace, &traces]).await? {
        let trace = StoredTrace { number: row.try_get(1)?, state: decode_state(row.try_get(2)?)? };
        stored.insert(row.try_get(0)?, trace);
    }
    Ok(stored)
}

/// Spans by number of trace and by span id.
async fn load_spans(
    transaction: &Transaction<'_>,
    org: &str,
    sql: &str,
    ids: Vec<(i64, String)>,
) -> Result<Vec<(i64, Span)>, StoreError> {
    let mut spans = Vec::new();
    if ids.is_empty() {
        return Ok(spans);
    }
    let (numbers, span_ids): (Vec<i64>, Vec<String>) = ids.into_iter().unzip();
    let statement = transaction.prepare_cached(sql).await?;
    for row in transaction.query(&statement, &[&org, &numbers, &span_ids]).await? {
        spans.push((row.try_get(0)?, decode_state(row.try_get(1)?)?));
    }
    Ok(spans)
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
