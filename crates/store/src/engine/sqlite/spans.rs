//! Spans on SQLite: loading what a group changes, writing it.

use std::sync::LazyLock;

use rusqlite::{Params, Transaction, params};

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
            load(transaction, context, &mut projector, needs)?;
        }
        projector.finish(&mut projection);
    }
    Ok(projection)
}

/// The statements that load stored spans: by their ids, by the parents under which they are shown, by those that they name, and
/// all of a trace.
static SPAN_BY_ID: LazyLock<String> = LazyLock::new(|| select_spans(" and span_id = ?2"));
static SPANS_BELOW: LazyLock<String> = LazyLock::new(|| select_spans(" and parent_span_id = ?2"));
static SPANS_NAMING: LazyLock<String> = LazyLock::new(|| select_spans(" and named_parent_span_id = ?2"));
static SPANS_OF_TRACE: LazyLock<String> = LazyLock::new(|| select_spans(""));

fn select_spans(condition: &str) -> String {
    format!("select {} from spans where trace_number = ?1{condition}", SpanSeal::COLUMNS)
}

fn load(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    projector: &mut SpanProjector<'_>,
    needs: Needs,
) -> Result<(), StoreError> {
    let (org, workspace) = (context.org.as_str(), projector.workspace_id());
    for trace_id in needs.traces {
        let stored = read_trace(transaction, context, params![org, workspace, trace_id])?;
        projector.take_trace(&trace_id, stored);
    }
    let mut spans = Vec::new();
    for (number, span_id) in needs.spans {
        read_spans(transaction, &SPAN_BY_ID, context, params![number, span_id], &mut spans)?;
    }
    for (number, span_id) in needs.children {
        read_spans(transaction, &SPANS_BELOW, context, params![number, span_id], &mut spans)?;
        read_spans(transaction, &SPANS_NAMING, context, params![number, span_id], &mut spans)?;
    }
    for number in needs.wholes {
        read_spans(transaction, &SPANS_OF_TRACE, context, params![number], &mut spans)?;
    }
    projector.take_spans(spans);
    for answer in needs.answers {
        let spans = spans_with(transaction, org, workspace, &answer)?;
        projector.take_answer(&answer, spans);
    }
    Ok(())
}

fn read_trace(
    transaction: &Transaction<'_>,
    context: &OrgContext,
    params: impl Params,
) -> Result<Option<StoredTrace>, StoreError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select {} from traces where org_id = ?1 and workspace_id = ?2 and trace_id = ?3",
            TraceSeal::COLUMNS
        )
    });
    let mut statement = transaction.prepare_cached(&SQL)?;
    let mut rows = statement.query(params)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let state = decode_state(row.bytes(TRACE_STATE))?;
    Ok(Some(StoredTrace { number: row.get(0)?, state, is_authentic: is_authentic_trace(row, context) }))
}

fn read_spans(
    transaction: &Transaction<'_>,
    sql: &str,
    context: &OrgContext,
    params: impl Params,
    spans: &mut Vec<StoredSpan>,
) -> Result<(), StoreError> {
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let span = decode_state(row.bytes(SPAN_STATE))?;
        let is_authentic = is_authentic_span(row, context);
        spans.push(StoredSpan { trace_number: row.get(2)?, span, is_authentic });
    }
    Ok(())
}

impl SealedRow for rusqlite::Row<'_> {
    fn text(&self, index: usize) -> Option<&str> {
        self.get_ref(index).ok()?.as_str().ok()
    }

    fn number(&self, index: usize) -> i64 {
        self.get_ref(index).ok().and_then(|value| value.as_i64().ok()).unwrap_or_default()
    }

    fn is_set(&self, index: usize) -> bool {
        self.number(index) != 0
    }

    fn bytes(&self, index: usize) -> &[u8] {
        self.get_ref(index).ok().and_then(|value| value.as_blob().ok()).unwrap_or_default()
    }
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
