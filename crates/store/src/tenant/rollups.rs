//! What changes of the rollups. The changes of a transaction are written as one row, and merged into the cells together with
//! those of others: a cell that every group of events touches is rewritten once for many of them. Whoever reads cells adds the
//! changes that wait (see [`super::analytics`]).

use agentlens_domain::latency::Latency;
use agentlens_domain::rollups::{CellKey, Measures, Rollup};

use crate::error::StoreError;

/// How many transactions' changes wait at most; the next one merges them all.
pub(crate) const MAX_WAITING_CHANGES: i64 = 16;

/// The version of the stored changes. They are the fields of [`CellKey`] and [`Measures`] in their order: whoever changes those
/// takes another version, and reads this one too.
const CHANGES_VERSION: u8 = 1;

/// A cell, or what changes of it.
pub(crate) type Cell<'a> = (CellKey<'a>, Measures);

/// The bytes of one transaction's changes.
pub(crate) fn encode_changes(changes: &[Cell<'_>]) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(changes, vec![CHANGES_VERSION])
        .map_err(|_| StoreError::Corrupt("changes of rollups can't be written".to_owned()))
}

/// Reads [`encode_changes`]'s bytes.
pub(crate) fn decode_changes(bytes: &[u8]) -> Result<Vec<Cell<'_>>, StoreError> {
    let changes = bytes.split_first().filter(|(version, _)| **version == CHANGES_VERSION);
    changes
        .and_then(|(_, changes)| postcard::from_bytes(changes).ok())
        .ok_or_else(|| StoreError::Corrupt("changes of rollups can't be read".to_owned()))
}

/// The cells of hours and days that all these changes come to, in the order of writing.
pub(crate) fn merged<'a>(
    waiting: &'a [Vec<u8>],
    changes: &'a [Cell<'a>],
) -> Result<Vec<Cell<'a>>, StoreError> {
    let mut rollup = Rollup::default();
    for bytes in waiting {
        for (key, measures) in decode_changes(bytes)? {
            rollup.add_change(key, &measures);
        }
    }
    for (key, measures) in changes {
        rollup.add_change(*key, measures);
    }
    Ok(rollup.into_sorted())
}

/// The bytes of a stored sketch after a change: what comes, and what goes. A damaged sketch stays as it is: readers report it, and
/// the statistics of one cell don't stop the ingest of an org.
pub(crate) fn merged_latency(stored: &[u8], (added, removed): (&Latency, &Latency)) -> Vec<u8> {
    let Some(mut latency) = Latency::decode(stored) else {
        tracing::error!("the latency sketch of a rollup cell can't be read; it is left as it is");
        return stored.to_vec();
    };
    latency.merge(added);
    latency.subtract(removed);
    latency.encode()
}

#[cfg(test)]
mod tests {
    use agentlens_domain::rollups::{Dimension, Tier};
    use agentlens_domain::usage::Usage;

    use super::*;

    fn changes() -> Vec<Cell<'static>> {
        let key = CellKey {
            tier: Tier::Hour,
            dimension: Dimension::Model,
            bucket_us: 3_600_000_000,
            name: "m",
            agent_id: "a",
            provider: "p",
            environment: "e",
            workspace_id: "w",
        };
        let mut measures = Measures {
            event_count: 1,
            error_count: 2,
            session_count: -3,
            llm_call_count: 4,
            tool_call_count: 5,
            tool_error_count: 6,
            usage: Usage {
                input: 7,
                output: 8,
                cache_read: 9,
                cache_write_5m: 10,
                cache_write_1h: 11,
                reasoning: 12,
                audio_input: 13,
                audio_output: 14,
            },
            cost_nanos: 15,
            unknown_cost_count: 16,
            ..Measures::default()
        };
        measures.latency.add(17);
        measures.removed_latency.add(18);
        vec![(key, measures)]
    }

    #[test]
    fn stored_changes_stay_readable() {
        #[rustfmt::skip]
        const STORED: [u8; 45] = [
            1, 1, 0, 2, 128, 144, 157, 233, 26, 1, b'm', 1, b'a', 1, b'p', 1, b'e', 1, b'w', 2, 4, 5, 8, 10, 12, 14, 16, 18, 20, 22,
            24, 26, 28, 30, 32, 4, 1, 17, 17, 1, 4, 1, 18, 18, 1,
        ];
        let bytes = encode_changes(&changes()).unwrap();
        assert_eq!(bytes, STORED);
        assert_eq!(decode_changes(&STORED).unwrap(), changes());
    }

    #[test]
    fn a_damaged_sketch_is_not_taken_for_an_empty_one() {
        let mut one = Latency::default();
        one.add(17);
        let none = Latency::default();
        assert_eq!(merged_latency(&none.encode(), (&one, &none)), one.encode());
        for damaged in [&b"\x01\xff"[..], b"", b"\x09"] {
            assert_eq!(merged_latency(damaged, (&one, &none)), damaged);
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        let bytes = encode_changes(&changes()).unwrap();
        let mut other = bytes.clone();
        other[0] += 1;
        for wrong in [&[][..], &bytes[..bytes.len() - 1], &other] {
            assert!(decode_changes(wrong).is_err());
        }
    }
}
