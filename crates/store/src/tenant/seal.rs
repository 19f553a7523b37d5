//! What seals cover: the columns of an event that its hash does not, the head of a session, the state of an org.
//!
//! The published hash covers ten fields of an event. Without a seal, what the server derived from them (instants, names,
//! tokens, cost) could be changed unnoticed. `expire_day` is left out: a change of plan may move it.

use agentlens_domain::chain::{RowFields, Seal};

use super::OrgContext;
use super::apply::EventRow;
use super::events::StoredEvent;

/// The head of a session's chain. Its seal shows that the end of the chain was cut off, or a session exchanged.
pub(crate) struct SealedHead<'a> {
    pub(crate) workspace_id: &'a str,
    pub(crate) session_id: &'a str,
    pub(crate) number: i64,
    pub(crate) last_seq: i64,
    pub(crate) last_hash: &'a [u8; 32],
    pub(crate) last_seal: &'a Seal,
}

impl SealedHead<'_> {
    pub(crate) fn seal(&self, context: &OrgContext) -> Seal {
        let fields = RowFields::of("session")
            .text(context.org.as_str())
            .text(self.workspace_id)
            .text(self.session_id)
            .number(self.number)
            .number(self.last_seq)
            .bytes(self.last_hash)
            .bytes(self.last_seal);
        context.seals.seal_row(&fields)
    }
}

/// The counters of an org. Their seal shows that whole sessions were deleted, or numbers taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedState {
    pub(crate) last_position: i64,
    pub(crate) last_session: i64,
    pub(crate) last_trace: i64,
    pub(crate) session_count: i64,
}

impl SealedState {
    pub(crate) fn seal(&self, context: &OrgContext) -> Seal {
        let fields = RowFields::of("org")
            .text(context.org.as_str())
            .number(self.last_position)
            .number(self.last_session)
            .number(self.last_trace)
            .number(self.session_count);
        context.seals.seal_row(&fields)
    }
}

/// The covered columns, borrowed from a row that is about to be written or was read.
pub(crate) struct Sealed<'a> {
    numbers: [Option<i64>; 11],
    texts: [Option<&'a str>; 10],
    /// Texts that keep number literals which the hash does not see as they are stored.
    wide: Option<(&'a str, &'a str)>,
}

impl<'a> Sealed<'a> {
    /// Of a row that is about to be written.
    pub(crate) fn of_row(row: &'a EventRow<'a>) -> Self {
        let (event, facts) = (row.event, &row.event.facts);
        let cost = row.cost.as_ref();
        Self {
            numbers: [
                Some(row.position),
                Some(row.seq),
                Some(event.ts_us),
                Some(row.batch.received_us),
                facts.duration_us,
                facts.usage.map(|usage| usage.input),
                facts.usage.map(|usage| usage.output),
                cost.map(|cost| cost.nanos),
                cost.and_then(|cost| cost.reported_nanos),
                cost.and_then(|cost| cost.computed_nanos),
                Some(i64::from(event.holds_wide_numbers)),
            ],
            texts: [
                Some(row.batch.workspace_id.as_str()),
                Some(row.environment),
                facts.name.as_deref(),
                facts.provider.as_deref(),
                facts.model.as_deref(),
                facts.call_id.as_deref(),
                facts.user_id.as_deref(),
                row.usage_parts.as_deref(),
                cost.map(|cost| cost.source.as_str()),
                row.preview,
            ],
            wide: event.holds_wide_numbers.then_some((event.payload.as_str(), event.metadata.as_str())),
        }
    }

    /// Of a row that was read.
    pub(crate) fn of_stored(row: &'a StoredEvent) -> Self {
        let is_wide = row.encoding == StoredEvent::ENCODING_WIDE;
        Self {
            numbers: [
                Some(row.position),
                Some(row.seq),
                Some(row.ts_us),
                Some(row.received_us),
                row.duration_us,
                row.input_tokens,
                row.output_tokens,
                row.cost_nanos,
                row.reported_cost_nanos,
                row.computed_cost_nanos,
                Some(i64::from(row.encoding)),
            ],
            texts: [
                Some(&row.workspace_id),
                Some(&row.environment),
                row.name.as_deref(),
                row.provider.as_deref(),
                row.model.as_deref(),
                row.call_id.as_deref(),
                row.user_id.as_deref(),
                row.usage_parts.as_deref(),
                row.cost_source.as_deref(),
                row.preview.as_deref(),
            ],
            wide: is_wide.then_some((row.payload.as_str(), row.metadata.as_str())),
        }
    }

    /// An unambiguous run of bytes: each part with its length, absent parts marked.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        for number in self.numbers {
            bytes.push(u8::from(number.is_some()));
            bytes.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
        }
        let wide = self.wide.map(|(payload, metadata)| [Some(payload), Some(metadata)]);
        for text in self.texts.iter().chain(wide.iter().flatten()) {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.unwrap_or("").as_bytes());
        }
        bytes
    }
}
