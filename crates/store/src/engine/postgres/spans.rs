//! Spans on PostgreSQL: loading what a group touches, writing what changed, each over arrays.

use deadpool_postgres::Transaction;
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::Batch;
use agentlens_domain::spans::{MAX_SAME_ANSWER, Span};

use super::apply::Insert;
use crate::error::StoreError;
use crate::tenant::spans::{
    ChangedSpan, Loaded, Projection, SpanColumns, Staying, StoredTrace, Touched, decode, encode, project,
    touched,
};
use crate::tenant::{Plan, TenantContext};

/// Joins the spans of the fresh batches with what is stored.
pub(super) async fn project_spans<'a>(
    transaction: &Transaction<'_>,
    context: &TenantContext,
    batches: &'a [Batch],
    fresh: &[bool],
) -> Result<Projection<'a>, StoreError> {
    let mut loaded: FxHashMap<&str, Loaded> = FxHashMap::default();
    for (workspace, touched) in touched(batches, fresh) {
        loaded.insert(workspace, load(transaction, context.org.as_str(), workspace, &touched).await?);
    }
    if loaded.is_empty() {
        return Ok(Projection::default());
    }
    Ok(project(batches, fresh, loaded, &context.prices))
}

/// Every trace that is touched, and every trace that has an answer in common with one of them.
async fn load(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    touched: &Touched<'_>,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    let mut traces: Vec<String> = touched.trace_ids.iter().map(|id| (*id).to_owned()).collect();
    let mut responses: Vec<String> = touched.response_ids.iter().map(|id| (*id).to_owned()).collect();
    let mut seen: FxHashSet<String> = FxHashSet::default();
    while !traces.is_empty() || !responses.is_empty() {
        traces.sort_unstable();
        traces.dedup();
        traces.retain(|trace| !loaded.traces.contains_key(trace));
        load_traces(transaction, (org, workspace), &traces, &mut loaded).await?;
        for trace in traces.drain(..) {
            responses.extend(loaded.response_ids(&trace));
        }
        responses.retain(|response| seen.insert(response.clone()));
        if !responses.is_empty() {
            for (response, with) in traces_with(transaction, org, workspace, &responses).await? {
                traces.extend(loaded.follow(&response, with));
            }
            responses.clear();
        }
    }
    Ok(loaded)
}

async fn load_traces(
    transaction: &Transaction<'_>,
    (org, workspace): (&str, &str),
    traces: &[String],
    loaded: &mut Loaded,
) -> Result<(), StoreError> {
    if traces.is_empty() {
        return Ok(());
    }
    let sql = "select trace_id, number, state from traces where org_id = $1 and workspace_id = $2 and trace_id = any($3)";
    let statement = transaction.prepare_cached(sql).await?;
    let mut stored: FxHashMap<String, StoredTrace> = FxHashMap::default();
    for row in transaction.query(&statement, &[&org, &workspace, &traces]).await? {
        let trace = StoredTrace { number: row.try_get(1)?, state: decode(row.try_get(2)?)? };
        stored.insert(row.try_get(0)?, trace);
    }
    let mut spans: FxHashMap<i64, Vec<Span>> = FxHashMap::default();
    if !stored.is_empty() {
        let known: Vec<i64> = stored.values().map(|trace| trace.number).collect();
        let sql = "select trace_number, state from spans where org_id = $1 and trace_number = any($2)";
        let statement = transaction.prepare_cached(sql).await?;
        for row in transaction.query(&statement, &[&org, &known]).await? {
            spans.entry(row.try_get(0)?).or_default().push(decode(row.try_get(1)?)?);
        }
    }
    for trace in traces {
        let stored = stored.remove(trace);
        let spans = stored.as_ref().and_then(|stored| spans.remove(&stored.number));
        loaded.insert(trace, spans.unwrap_or_default(), stored);
    }
    Ok(())
}

async fn traces_with(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    responses: &[String],
) -> Result<FxHashMap<String, Vec<String>>, StoreError> {
    let sql = "select k.response_id, s.trace_id from unnest($3::text[]) as k (response_id)
         cross join lateral (select trace_id from spans s
           where s.org_id = $1 and s.workspace_id = $2 and s.response_id = k.response_id limit $4) s";
    let statement = transaction.prepare_cached(sql).await?;
    let limit = MAX_SAME_ANSWER as i64 + 1;
    let mut traces: FxHashMap<String, Vec<String>> = FxHashMap::default();
    for row in transaction.query(&statement, &[&org, &workspace, &responses, &limit]).await? {
        traces.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    Ok(traces)
}

/// What the traces say that stay in the sessions which others leave.
pub(super) async fn load_staying<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    projection: &'a Projection<'a>,
) -> Result<Staying<'a>, StoreError> {
    let sql = "select trace_id, state from traces where org_id = $1 and session_number =
           (select number from sessions where org_id = $1 and workspace_id = $2 and session_id = $3)";
    let mut staying = Staying::default();
    for (workspace, session_id) in projection.left_sessions() {
        let statement = transaction.prepare_cached(sql).await?;
        let mut stored = Vec::new();
        for row in transaction.query(&statement, &[&org, &workspace, &session_id]).await? {
            stored.push((row.try_get(0)?, decode(row.try_get(1)?)?));
        }
        staying.insert((workspace, session_id), projection.staying(workspace, stored));
    }
    Ok(staying)
}

/// Writes the spans and traces that changed.
pub(super) async fn upsert_spans(
    transaction: &Transaction<'_>,
    context: &TenantContext,
    spans: &[ChangedSpan<'_>],
    plan: &Plan<'_>,
) -> Result<(), StoreError> {
    if plan.traces.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(spans.len());
    for (changed, numbers) in spans.iter().zip(&plan.span_numbers) {
        rows.push((changed, SpanColumns::of(changed, context), encode(&changed.span)?, numbers));
    }
    let org = context.org.as_str();
    Insert::into("spans")
        .column("workspace_id", "text", &rows, |row| row.0.workspace_id)
        .column("trace_id", "text", &rows, |row| row.0.trace_id.as_str())
        .column("span_id", "text", &rows, |row| row.1.span_id)
        .column("parent_span_id", "text", &rows, |row| row.1.parent_span_id)
        .column("session_id", "text", &rows, |row| row.1.session_id)
        .column("is_root", "boolean", &rows, |row| row.1.is_root)
        .column("is_part", "boolean", &rows, |row| row.1.is_part)
        .column("start_us", "bigint", &rows, |row| row.1.start_us)
        .column("response_id", "text", &rows, |row| row.1.response_id.as_deref())
        .column("expire_day", "integer", &rows, |row| row.1.expire_day)
        .column("state", "bytea", &rows, |row| row.2.as_slice())
        .column("trace_number", "bigint", &rows, |row| row.3.trace)
        .column("session_number", "bigint", &rows, |row| row.3.session)
        .run(
            transaction,
            org,
            "(org_id, trace_number, span_id) do update set parent_span_id = excluded.parent_span_id,
               session_id = excluded.session_id, is_root = excluded.is_root, is_part = excluded.is_part,
               start_us = excluded.start_us, response_id = excluded.response_id, expire_day = excluded.expire_day,
               state = excluded.state, session_number = excluded.session_number",
        )
        .await?;
    let mut rows = Vec::with_capacity(plan.traces.len());
    for trace in &plan.traces {
        rows.push((trace, encode(&trace.state)?));
    }
    Insert::into("traces")
        .column("workspace_id", "text", &rows, |row| row.0.workspace_id)
        .column("trace_id", "text", &rows, |row| row.0.trace_id)
        .column("session_id", "text", &rows, |row| row.0.state.shown.session_id.as_str())
        .column("chains", "text", &rows, |row| row.0.chains())
        .column("expire_day", "integer", &rows, |row| context.expire_day(row.0.state.shown.end_us))
        .column("state", "bytea", &rows, |row| row.1.as_slice())
        .column("number", "bigint", &rows, |row| row.0.number)
        .column("session_number", "bigint", &rows, |row| row.0.session_number)
        .run(
            transaction,
            org,
            "(org_id, workspace_id, trace_id) do update set session_id = excluded.session_id, chains = excluded.chains,
               expire_day = excluded.expire_day, state = excluded.state, session_number = excluded.session_number",
        )
        .await?;
    Ok(())
}
