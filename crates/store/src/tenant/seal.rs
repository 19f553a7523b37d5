//! What an event's seal covers: the stored columns that its hash does not.
//!
//! The published hash covers ten fields of an event. What the server read out of them and added (instants, names,
//! tokens, cost) would otherwise be changeable without a trace. `expire_day` is left out: a change of plan may move it.

use super::apply::EventRow;
use super::events::StoredEvent;

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
                Some(&row.batch.environment),
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
