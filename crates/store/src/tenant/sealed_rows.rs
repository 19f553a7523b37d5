//! Rows of spans and traces with their seals. They are shown instead of the events that they came from, so their seals are checked
//! where they are verified, and wherever one is loaded to be written again.

use agentlens_domain::apply::OrgContext;
use agentlens_domain::chain::{SealedSpan, SealedTrace};

use crate::row_type;

row_type! {
    /// A row of `traces`.
    pub(crate) struct TraceSeal {
        pub number: i64,
        pub workspace_id: String,
        pub trace_id: String,
        pub session_id: String,
        pub session_number: i64,
        pub chains: Option<String>,
        pub expire_day: i32,
        pub state: Vec<u8>,
        pub seal: Vec<u8>,
    }
}

row_type! {
    /// A row of `spans`.
    pub(crate) struct SpanSeal {
        pub workspace_id: String,
        pub trace_id: String,
        pub trace_number: i64,
        pub span_id: String,
        pub parent_span_id: Option<String>,
        pub named_parent_span_id: Option<String>,
        pub is_root: bool,
        pub is_part: bool,
        pub response_id: Option<String>,
        pub session_id: String,
        pub session_number: i64,
        pub start_us: i64,
        pub expire_day: i32,
        pub state: Vec<u8>,
        pub seal: Vec<u8>,
    }
}

impl TraceSeal {
    pub(crate) fn is_authentic(&self, context: &OrgContext) -> bool {
        let sealed = SealedTrace {
            workspace_id: &self.workspace_id,
            trace_id: &self.trace_id,
            number: self.number,
            session_number: self.session_number,
            session_id: &self.session_id,
            chains: self.chains.as_deref(),
            expire_day: self.expire_day,
            state: &self.state,
        };
        sealed.seal(&context.org, &context.seals).as_slice() == self.seal
    }
}

impl SpanSeal {
    pub(crate) fn is_authentic(&self, context: &OrgContext) -> bool {
        let sealed = SealedSpan {
            workspace_id: &self.workspace_id,
            trace_id: &self.trace_id,
            trace_number: self.trace_number,
            span_id: &self.span_id,
            parent_span_id: self.parent_span_id.as_deref(),
            named_parent_span_id: self.named_parent_span_id.as_deref(),
            is_root: self.is_root,
            is_part: self.is_part,
            response_id: self.response_id.as_deref(),
            session_number: self.session_number,
            session_id: &self.session_id,
            start_us: self.start_us,
            expire_day: self.expire_day,
            state: &self.state,
        };
        sealed.seal(&context.org, &context.seals).as_slice() == self.seal
    }
}

/// Columns of a row as an engine hands them over, by their places. A column that holds something else than it should is read as if
/// it were empty: then the seal does not match.
pub(crate) trait SealedRow {
    fn text(&self, index: usize) -> Option<&str>;
    fn number(&self, index: usize) -> i64;
    fn is_set(&self, index: usize) -> bool;
    fn bytes(&self, index: usize) -> &[u8];
}

/// Where [`SpanSeal`] and [`TraceSeal`] have their states.
pub(crate) const SPAN_STATE: usize = 13;
pub(crate) const TRACE_STATE: usize = 7;

/// Whether a row with the columns of [`SpanSeal`] is as it was written.
pub(crate) fn is_authentic_span(row: &impl SealedRow, context: &OrgContext) -> bool {
    let text = |index| row.text(index).unwrap_or_default();
    let sealed = SealedSpan {
        workspace_id: text(0),
        trace_id: text(1),
        trace_number: row.number(2),
        span_id: text(3),
        parent_span_id: row.text(4),
        named_parent_span_id: row.text(5),
        is_root: row.is_set(6),
        is_part: row.is_set(7),
        response_id: row.text(8),
        session_id: text(9),
        session_number: row.number(10),
        start_us: row.number(11),
        expire_day: i32::try_from(row.number(12)).unwrap_or_default(),
        state: row.bytes(SPAN_STATE),
    };
    sealed.seal(&context.org, &context.seals).as_slice() == row.bytes(SPAN_STATE + 1)
}

/// Whether a row with the columns of [`TraceSeal`] is as it was written.
pub(crate) fn is_authentic_trace(row: &impl SealedRow, context: &OrgContext) -> bool {
    let text = |index| row.text(index).unwrap_or_default();
    let sealed = SealedTrace {
        number: row.number(0),
        workspace_id: text(1),
        trace_id: text(2),
        session_id: text(3),
        session_number: row.number(4),
        chains: row.text(5),
        expire_day: i32::try_from(row.number(6)).unwrap_or_default(),
        state: row.bytes(TRACE_STATE),
    };
    sealed.seal(&context.org, &context.seals).as_slice() == row.bytes(TRACE_STATE + 1)
}
