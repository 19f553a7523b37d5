//! Spans on SQLite: loading what a group touches, writing what changed.

use rusqlite::{OptionalExtension, Transaction, params};
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::Batch;
use agentlens_domain::spans::MAX_SAME_ANSWER;

use crate::error::StoreError;
use crate::tenant::TenantContext;
use crate::tenant::spans::{
    ChangedSpan, Loaded, Projection, SpanColumns, Staying, Touched, TraceRow, decode, encode, project,
    touched,
};

/// Joins the spans of the fresh batches with what is stored.
pub(super) fn project_spans<'a>(
    transaction: &Transaction<'_>,
    context: &TenantContext,
    batches: &'a [Batch],
    fresh: &[bool],
) -> Result<Projection<'a>, StoreError> {
    let mut loaded: FxHashMap<&str, Loaded> = FxHashMap::default();
    for (workspace, touched) in touched(batches, fresh) {
        loaded.insert(workspace, load(transaction, context.org.as_str(), workspace, &touched)?);
    }
    if loaded.is_empty() {
        return Ok(Projection::default());
    }
    Ok(project(batches, fresh, loaded, &context.prices))
}

/// Every trace that is touched, and every trace that has an answer in common with one of them.
fn load(
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
        for trace in traces.drain(..) {
            if !loaded.traces.contains_key(&trace) {
                load_trace(transaction, org, workspace, &trace, &mut loaded)?;
                responses.extend(loaded.response_ids(&trace));
            }
        }
        for response in responses.drain(..) {
            if !seen.contains(&response) {
                let with = traces_with(transaction, org, workspace, &response)?;
                traces.extend(loaded.follow(&response, with));
                seen.insert(response);
            }
        }
    }
    Ok(loaded)
}

fn load_trace(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    trace: &str,
    loaded: &mut Loaded,
) -> Result<(), StoreError> {
    let state: Option<Vec<u8>> = transaction
        .prepare_cached("select state from traces where org_id = ?1 and workspace_id = ?2 and trace_id = ?3")?
        .query_row(params![org, workspace, trace], |row| row.get(0))
        .optional()?;
    let Some(state) = state else {
        loaded.insert(trace, Vec::new(), None);
        return Ok(());
    };
    let mut statement = transaction.prepare_cached(
        "select state from spans where org_id = ?1 and workspace_id = ?2 and trace_id = ?3",
    )?;
    let mut rows = statement.query(params![org, workspace, trace])?;
    let mut spans = Vec::new();
    while let Some(row) = rows.next()? {
        spans.push(decode(row.get_ref(0)?.as_blob().unwrap_or_default())?);
    }
    loaded.insert(trace, spans, Some(decode(&state)?));
    Ok(())
}

fn traces_with(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    response: &str,
) -> Result<Vec<String>, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select trace_id from spans where org_id = ?1 and workspace_id = ?2 and response_id = ?3 limit ?4",
    )?;
    let traces =
        statement.query_map(params![org, workspace, response, MAX_SAME_ANSWER + 1], |row| row.get(0))?;
    Ok(traces.collect::<Result<Vec<String>, _>>()?)
}

/// What the traces say that stay in the sessions which others leave.
pub(super) fn load_staying<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    projection: &'a Projection<'a>,
) -> Result<Staying<'a>, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select trace_id, state from traces where org_id = ?1 and workspace_id = ?2 and session_id = ?3",
    )?;
    let mut staying = Staying::default();
    for (workspace, session_id) in projection.left_sessions() {
        let mut rows = statement.query(params![org, workspace, session_id])?;
        let mut stored = Vec::new();
        while let Some(row) = rows.next()? {
            stored.push((row.get(0)?, decode(row.get_ref(1)?.as_blob().unwrap_or_default())?));
        }
        staying.insert((workspace, session_id), projection.staying(workspace, stored));
    }
    Ok(staying)
}

/// Writes the spans and traces that changed.
pub(super) fn upsert_spans(
    transaction: &Transaction<'_>,
    context: &TenantContext,
    spans: &[ChangedSpan<'_>],
    traces: &[TraceRow<'_>],
) -> Result<(), StoreError> {
    let org = context.org.as_str();
    let mut statement = transaction.prepare_cached(
        "insert into spans (org_id, workspace_id, trace_id, span_id, parent_span_id, session_id, is_root, is_part, start_us,
           response_id, expire_day, state)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         on conflict (org_id, workspace_id, trace_id, span_id) do update set parent_span_id = excluded.parent_span_id,
           session_id = excluded.session_id, is_root = excluded.is_root, is_part = excluded.is_part,
           start_us = excluded.start_us, response_id = excluded.response_id, expire_day = excluded.expire_day,
           state = excluded.state",
    )?;
    for changed in spans {
        let columns = SpanColumns::of(changed, context);
        statement.execute(params![
            org,
            changed.workspace_id,
            changed.trace_id,
            columns.span_id,
            columns.parent_span_id,
            columns.session_id,
            columns.is_root,
            columns.is_part,
            columns.start_us,
            columns.response_id,
            columns.expire_day,
            encode(&changed.span)?,
        ])?;
    }
    let mut statement = transaction.prepare_cached(
        "insert into traces (org_id, workspace_id, trace_id, session_id, chains, expire_day, state) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         on conflict (org_id, workspace_id, trace_id) do update set session_id = excluded.session_id, chains = excluded.chains,
           expire_day = excluded.expire_day, state = excluded.state",
    )?;
    for trace in traces {
        let state = encode(&trace.state)?;
        statement.execute(params![
            org,
            trace.workspace_id,
            trace.trace_id,
            trace.state.shown.session_id,
            trace.chains(),
            context.expire_day(trace.state.shown.end_us),
            state,
        ])?;
    }
    Ok(())
}
