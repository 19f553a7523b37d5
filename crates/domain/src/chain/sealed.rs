//! What seals cover: the columns of an event that its hash leaves out, and the rows that no hash covers.
//!
//! Without a seal, what the server derives from an event (instants, names, tokens, cost) could be changed unnoticed. So could its day
//! of expiry, and retention would delete it with a record that is right.

use super::{RowFields, Seal, SealKey};
use crate::ids::OrgId;

/// A row of `spans`.
#[derive(Debug)]
pub struct SealedSpan<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The trace.
    pub trace_id: &'a str,
    /// The number of its trace.
    pub trace_number: i64,
    /// Its id.
    pub span_id: &'a str,
    /// The span under which it is shown.
    pub parent_span_id: Option<&'a str>,
    /// The parent that it names, if it is not shown under that one.
    pub named_parent_span_id: Option<&'a str>,
    /// Whether it is a root of its session.
    pub is_root: bool,
    /// Whether it is shown as part of another span.
    pub is_part: bool,
    /// The provider's id of the answer.
    pub response_id: Option<&'a str>,
    /// The number of the session in which it is shown.
    pub session_number: i64,
    /// That session.
    pub session_id: &'a str,
    /// Its start, microseconds UTC.
    pub start_us: i64,
    /// The day on which it may be deleted.
    pub expire_day: i32,
    /// The bytes of its state.
    pub state: &'a [u8],
}

impl SealedSpan<'_> {
    /// The seal of the row.
    pub fn seal(&self, org: &OrgId, key: &SealKey) -> Seal {
        let fields = RowFields::of("span")
            .text(org.as_str())
            .text(self.workspace_id)
            .text(self.trace_id)
            .number(self.trace_number)
            .text(self.span_id)
            .optional(self.parent_span_id.map(str::as_bytes))
            .optional(self.named_parent_span_id.map(str::as_bytes))
            .number(i64::from(self.is_root))
            .number(i64::from(self.is_part))
            .optional(self.response_id.map(str::as_bytes))
            .number(self.session_number)
            .text(self.session_id)
            .number(self.start_us)
            .number(i64::from(self.expire_day))
            .bytes(self.state);
        key.seal_row(&fields)
    }
}

/// A row of `traces`.
#[derive(Debug)]
pub struct SealedTrace<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The trace.
    pub trace_id: &'a str,
    /// Its number in the org.
    pub number: i64,
    /// The number of the session in which it is shown.
    pub session_number: i64,
    /// That session.
    pub session_id: &'a str,
    /// The column `chains`.
    pub chains: Option<&'a str>,
    /// The day on which it may be deleted.
    pub expire_day: i32,
    /// The bytes of its state.
    pub state: &'a [u8],
}

impl SealedTrace<'_> {
    /// The seal of the row.
    pub fn seal(&self, org: &OrgId, key: &SealKey) -> Seal {
        let fields = RowFields::of("trace")
            .text(org.as_str())
            .text(self.workspace_id)
            .text(self.trace_id)
            .number(self.number)
            .number(self.session_number)
            .text(self.session_id)
            .optional(self.chains.map(str::as_bytes))
            .number(i64::from(self.expire_day))
            .bytes(self.state);
        key.seal_row(&fields)
    }
}

/// The columns of an event that its hash leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedColumns<'a> {
    /// The position in the org.
    pub position: i64,
    /// The sequence number in the session.
    pub seq: i64,
    /// The instant of the event, microseconds UTC.
    pub ts_us: i64,
    /// When it was accepted, microseconds UTC.
    pub received_us: i64,
    /// The day on which it may be deleted.
    pub expire_day: i32,
    /// How long it took, microseconds.
    pub duration_us: Option<i64>,
    /// Input tokens.
    pub input_tokens: Option<i64>,
    /// Output tokens.
    pub output_tokens: Option<i64>,
    /// The cost that counts, in nano-dollars.
    pub cost_nanos: Option<i64>,
    /// The cost that the client reported, in nano-dollars.
    pub reported_cost_nanos: Option<i64>,
    /// The cost that we computed, in nano-dollars.
    pub computed_cost_nanos: Option<i64>,
    /// How the texts are stored.
    pub encoding: i32,
    /// The workspace.
    pub workspace_id: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The tool or step.
    pub name: Option<&'a str>,
    /// The model's provider.
    pub provider: Option<&'a str>,
    /// The model.
    pub model: Option<&'a str>,
    /// The id of the call.
    pub call_id: Option<&'a str>,
    /// The end user.
    pub user_id: Option<&'a str>,
    /// The parts of the usage that have no column.
    pub usage_parts: Option<&'a str>,
    /// Where the cost comes from.
    pub cost_source: Option<&'a str>,
    /// The start of a long payload.
    pub preview: Option<&'a str>,
    /// Payload and metadata, where they hold number literals that the hash covers in another form.
    pub wide: Option<(&'a str, &'a str)>,
}

impl SealedColumns<'_> {
    /// An unambiguous sequence of bytes: every part with its length, absent parts marked.
    pub fn bytes(&self) -> Vec<u8> {
        let numbers = [
            Some(self.position),
            Some(self.seq),
            Some(self.ts_us),
            Some(self.received_us),
            Some(i64::from(self.expire_day)),
            self.duration_us,
            self.input_tokens,
            self.output_tokens,
            self.cost_nanos,
            self.reported_cost_nanos,
            self.computed_cost_nanos,
            Some(i64::from(self.encoding)),
        ];
        let texts = [
            Some(self.workspace_id),
            Some(self.environment),
            self.name,
            self.provider,
            self.model,
            self.call_id,
            self.user_id,
            self.usage_parts,
            self.cost_source,
            self.preview,
        ];
        let mut bytes = Vec::with_capacity(256);
        for number in numbers {
            bytes.push(u8::from(number.is_some()));
            bytes.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
        }
        let wide = self.wide.map(|(payload, metadata)| [Some(payload), Some(metadata)]);
        for text in texts.iter().chain(wide.iter().flatten()) {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.unwrap_or("").as_bytes());
        }
        bytes
    }
}
