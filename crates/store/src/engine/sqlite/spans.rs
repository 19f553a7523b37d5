//! Spans on SQLite: loading what a group changes, writing it.

use std::sync::LazyLock;

use rusqlite::{OptionalExtension, Params, Transaction, params};

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
pub(super) fn project_spans<'a>(
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
            load(transaction, context.org.as_str(), &mut projector, needs)?;
        }
        projector.finish(&mut projection);
    }
    Ok(projection)
}

fn load(
    transaction: &Transaction<'_>,
    org: &str,
    projector: &mut SpanProjector<'_>,
    needs: Needs,
) -> Result<(), StoreError> {
    let workspace = projector.workspace_id();
    for trace_id in needs.traces {
        let stored: Option<(i64, Vec<u8>)> = transaction
            .prepare_cached(
                "select number, state from traces where org_id = ?1 and workspace_id = ?2 and trace_id = ?3",
            )?
            .query_row(params![org, workspace, trace_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let stored = match stored {
            Some((number, state)) => Some(StoredTrace { number, state: decode_state(&state)? }),
            None => None,
        };
        projector.take_trace(&trace_id, stored);
    }
    let mut spans = Vec::new();
    for (number, span_id) in needs.spans {
        let sql = "select state from spans where trace_number = ?1 and span_id = ?2";
        read_spans(transaction, sql, number, params![number, span_id], &mut spans)?;
    }
    for (number, span_id) in needs.children {
        let sql = "select state from spans where trace_number = ?1 and parent_span_id = ?2";
        read_spans(transaction, sql, number, params![number, span_id], &mut spans)?;
        let sql = "select state from spans where trace_number = ?1 and named_parent_span_id = ?2";
        read_spans(transaction, sql, number, params![number, span_id], &mut spans)?;
    }
    for number in needs.wholes {
        let sql = "select state from spans where trace_number = ?1";
        read_spans(transaction, sql, number, params![number], &mut spans)?;
    }
    projector.take_spans(spans);
    for answer in needs.answers {
        let spans = spans_with(transaction, org, workspace, &answer)?;
        projector.take_answer(&answer, spans);
    }
    Ok(())
}

fn read_spans(
    transaction: &Transaction<'_>,
    sql: &str,
    number: i64,
    params: impl Params,
    spans: &mut Vec<(i64, Span)>,
) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        spans.push((number, decode_state(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?));
    }
    Ok(())
}

fn spans_with(
    transaction: &Transaction<'_>,
    org: &str,
    workspace: &str,
    response: &str,
) -> Result<Vec<(String, String)>, StoreError> {
    // With the limit as an argument it would be compiled anew for each answer.
    static SPANS_WITH: LazyLock<String> = LazyLock::new(|| {
        let limit = MAX_SAME_ANSWER + 1;
        format!(
            "select trace_id, span_id from spans where org_id = ?1 and workspace_id = ?2 and response_id = ?3 limit {limit}"
        )
    });
    let mut statement = transaction.prepare_cached(&SPANS_WITH)?;
    let spans =
        statement.query_map(params![org, workspace, response], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(spans.collect::<Result<Vec<(String, String)>, _>>()?)
}

/// Reads the other traces of sessions that traces leave or reopen.
pub(super) fn load_remaining<'a>(
    transaction: &Transaction<'_>,
    org: &str,
    projection: &'a Projection<'a>,
) -> Result<RemainingTraces<'a>, StoreError> {
    let mut statement = transaction.prepare_cached(
        "select trace_id, state from traces where org_id = ?1 and session_number =
           (select number from sessions where org_id = ?1 and workspace_id = ?2 and session_id = ?3)
         order by number desc limit ?4",
    )?;
    let mut remaining = RemainingTraces::default();
    for session in projection.sessions_to_read() {
        let mut rows = statement.query(params![org, session.key.0, session.key.1, session.limit])?;
        let mut stored = Vec::new();
        while let Some(row) = rows.next()? {
            stored.push((
                row.get(0)?,
                decode_state(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?,
            ));
        }
        projection.take_traces(&mut remaining, session, stored);
    }
    Ok(remaining)
}

/// Writes the spans and traces that changed.
pub(super) fn upsert_spans(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    spans: &[SpanChange<'_>],
    plan: &Plan<'_>,
) -> Result<(), StoreError> {
    let org = context.org.as_str();
    insert(transaction, org, SpansTable, span_rows(spans, plan, context)?)?;
    insert(transaction, org, TracesTable, trace_rows(plan, context)?)
}
