//! Reading spans as they are shown: roots of a session, children of a span, one by its id.

use std::collections::BTreeSet;

use agentlens_domain::spans::{Span, decode_state};
use serde::Deserialize;

use crate::args;
use crate::error::StoreError;
use crate::statement::{Builder, FromRow, Row};
use crate::tenant::{Sessions, Workspace};

/// A span as it is stored.
#[derive(Debug, Clone)]
pub struct SpanRow {
    /// Its trace.
    pub trace_id: String,
    /// Its id.
    pub span_id: String,
    /// When it began, microseconds UTC: what siblings are ordered by.
    pub start_us: i64,
    /// The session in which it is shown.
    pub session_id: String,
    /// Its arrivals, and what is shown and counted of it.
    pub span: Span,
}

impl FromRow for SpanRow {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let state: Vec<u8> = row.get(4)?;
        Ok(Self {
            trace_id: row.get(0)?,
            span_id: row.get(1)?,
            start_us: row.get(2)?,
            session_id: row.get(3)?,
            span: decode_state(&state)?,
        })
    }
}

/// Trace and span of an event that is an arrival of one. The metadata names the span if the payload does not.
pub fn span_address(metadata: &str, payload: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Address {
        trace_id: Option<String>,
        span_id: Option<String>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        span: Address,
    }
    let named = match metadata {
        "{}" => None,
        _ => serde_json::from_str::<Metadata>(metadata).ok().map(|metadata| metadata.span),
    };
    let address = named.or_else(|| serde_json::from_slice(payload).ok())?;
    Some((address.trace_id?, address.span_id?))
}

/// A place among siblings: the start and the id of the span before.
type SpanPlace<'a> = (i64, &'a str);

// No index may serve the workspace: spans are found by numbers, which are unique in the org.
const COLUMNS_FROM: &str = "select trace_id, span_id, start_us, session_id, state from spans where org_id = $1 and workspace_id || '' = $2";

/// The spans of a workspace.
#[derive(Clone, Copy)]
pub struct Spans<'w>(&'w Workspace);

impl Workspace {
    /// Its spans.
    pub fn spans(&self) -> Spans<'_> {
        Spans(self)
    }
}

impl Spans<'_> {
    /// Roots of a session by their start, after a place.
    pub async fn roots(
        self,
        session_id: &str,
        after: Option<SpanPlace<'_>>,
        limit: u32,
    ) -> Result<Vec<SpanRow>, StoreError> {
        let numbers = self.0.session_numbers(vec![session_id.to_owned()]).await?;
        let Some(number) = numbers.first() else { return Ok(Vec::new()) };
        let mut statement = Builder::of_workspace(COLUMNS_FROM);
        statement.with(" and session_number = $", *number).text(" and is_root");
        if let Some((start_us, span_id)) = after {
            statement.with(" and (start_us, span_id) > ($", start_us).with(", $)", span_id);
        }
        statement.with(" order by start_us, span_id limit $", limit);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }

    /// Spans shown directly under any of `parents` (trace and span ids), earliest first, after a place.
    pub async fn children(
        self,
        parents: &[(String, String)],
        after: Option<SpanPlace<'_>>,
        limit: u32,
    ) -> Result<Vec<SpanRow>, StoreError> {
        let traces: Vec<String> = parents.iter().map(|parent| parent.0.clone()).collect();
        let spans: Vec<String> = parents.iter().map(|parent| parent.1.clone()).collect();
        // Which ones they are is found in the index alone; only those are read.
        let numbers = self.0.trace_numbers(traces).await?;
        let mut statement = Builder::of_workspace(COLUMNS_FROM);
        statement
            .text(" and (trace_number, span_id) in (select c.trace_number, c.span_id from spans c where c.org_id = $1")
            .with(" and c.trace_number = any($)", numbers)
            .with(" and c.parent_span_id = any($)", spans)
            .text(" and c.parent_span_id is not null and not c.is_part");
        if let Some((start_us, span_id)) = after {
            statement.with(" and (c.start_us, c.span_id) > ($", start_us).with(", $)", span_id);
        }
        statement.with(" order by c.start_us, c.span_id limit $", limit).text(") order by start_us, span_id");
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }

    /// Spans by trace and span id; those that are not there are left out.
    pub async fn find(self, ids: &[(String, String)]) -> Result<Vec<SpanRow>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let traces: Vec<String> = ids.iter().map(|id| id.0.clone()).collect();
        let spans: Vec<String> = ids.iter().map(|id| id.1.clone()).collect();
        let numbers = self.0.trace_numbers(traces).await?;
        let mut statement = Builder::of_workspace(COLUMNS_FROM);
        statement.with(" and trace_number = any($)", numbers).with(" and span_id = any($)", spans);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }
}

impl Sessions<'_> {
    /// The other sessions whose chains hold what is shown in this one now: events of traces that named it only later.
    pub async fn chains_moved_to(self, session_id: &str) -> Result<Vec<String>, StoreError> {
        let numbers = self.0.session_numbers(vec![session_id.to_owned()]).await?;
        let sql = "select chains from traces where org_id = $1 and workspace_id || '' = $2 and session_number = any($3) and chains is not null";
        let mut found: BTreeSet<String> = BTreeSet::new();
        for chains in self.0.fetch::<String>(sql, args![numbers]).await? {
            let chains: Vec<String> = serde_json::from_str(&chains)
                .map_err(|_| StoreError::Corrupt("the chains of a trace".to_owned()))?;
            found.extend(chains);
        }
        found.remove(session_id);
        Ok(found.into_iter().collect())
    }
}
