//! Spans on SQLite: loading what a group touches, writing what changed.

use std::sync::LazyLock;

use rusqlite::{OptionalExtension, Transaction, params};
use rustc_hash::{FxHashMap, FxHashSet};

use agentlens_domain::batches::Batch;
use agentlens_domain::spans::MAX_SAME_ANSWER;

use crate::error::StoreError;
use crate::tenant::spans::{
    ChangedSpan, Loaded, Projection, SpanColumns, Staying, StoredTrace, Touched, decode, encode, project,
    touched,
};
use crate::tenant::{Plan, TenantContext};

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
    let stored: Option<(i64, Vec<u8>)> = transaction
        .prepare_cached(
            "select number, state from traces where org_id = ?1 and workspace_id = ?2 and trace_id = ?3",
        )?
        .query_row(params![org, workspace, trace], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, state)) = stored else {
        loaded.insert(trace, Vec::new(), None);
        return Ok(());
    };
    let mut statement = transaction.prepare_cached("select state from spans where trace_number = ?1")?;
    let mut rows = statement.query([number])?;
    let mut spans = Vec::new();
    while let Some(row) = rows.next()? {
        spans.push(decode(row.get_ref(0)?.as_blob().unwrap_or_default())?);
    }
    loaded.insert(trace, spans, Some(StoredTrace { number, state: decode(&state)? }));
    Ok(())
}

fn traces_with(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    response: &str,
) -> Result<Vec<String>, StoreError> {
    // With the limit as an argument it would be compiled anew for each answer.
    static TRACES_WITH: LazyLock<String> = LazyLock::new(|| {
        let limit = MAX_SAME_ANSWER + 1;
        format!(
            "select trace_id from spans where org_id = ?1 and workspace_id = ?2 and response_id = ?3 limit {limit}"
        )
    });
    let mut statement = transaction.prepare_cached(&TRACES_WITH)?;
    let traces = statement.query_map(params![org, workspace, response], |row| row.get(0))?;
    Ok(traces.collect::<Result<Vec<String>, _>>()?)
}

/// What the traces say that stay in the sessions which others leave.
pub(super) fn load_staying<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    projection: &'a Projection<'a>,
) -> Result<Staying<'a>, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select trace_id, state from traces where org_id = ?1 and session_number =
           (select number from sessions where org_id = ?1 and workspace_id = ?2 and session_id = ?3)",
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
    plan: &Plan<'_>,
) -> Result<(), StoreError> {
    let org = context.org.as_str();
    let mut statement = transaction.prepare_cached(
        "insert into spans (org_id, workspace_id, trace_id, span_id, parent_span_id, session_id, is_root, is_part, start_us,
           response_id, expire_day, state, trace_number, session_number)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         on conflict (trace_number, span_id) do update set parent_span_id = excluded.parent_span_id,
           session_id = excluded.session_id, is_root = excluded.is_root, is_part = excluded.is_part,
           start_us = excluded.start_us, response_id = excluded.response_id, expire_day = excluded.expire_day,
           state = excluded.state, session_number = excluded.session_number",
    )?;
    for (changed, numbers) in spans.iter().zip(&plan.span_numbers) {
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
            numbers.trace,
            numbers.session,
        ])?;
    }
    let mut statement = transaction.prepare_cached(
        "insert into traces (org_id, workspace_id, trace_id, session_id, chains, expire_day, state, number, session_number)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         on conflict (number) do update set session_id = excluded.session_id, chains = excluded.chains,
           expire_day = excluded.expire_day, state = excluded.state, session_number = excluded.session_number",
    )?;
    for trace in &plan.traces {
        let state = encode(&trace.state)?;
        statement.execute(params![
            org,
            trace.workspace_id,
            trace.trace_id,
            trace.state.shown.session_id,
            trace.chains(),
            context.expire_day(trace.state.shown.end_us),
            state,
            trace.number,
            trace.session_number,
        ])?;
    }
    Ok(())
}
