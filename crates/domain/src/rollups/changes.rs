//! The changes of rollups that one transaction makes, as they wait to be merged into the cells.
//!
//! The changes of a transaction are written as one row, and merged into the cells together with those of others: a cell that
//! every group of events touches is rewritten once for many of them. Whoever reads cells adds the changes that wait.

use super::{CellKey, Measures, Rollup};

/// How many transactions' changes wait at most. The next transaction merges them all.
pub const MAX_WAITING_CHANGES: i64 = 16;

/// The version of the stored changes. They are the fields of [`CellKey`] and [`Measures`] in their order: whoever changes those
/// raises the version, and keeps reading this one.
const CHANGES_VERSION: u8 = 1;

/// A cell, or what changes of it.
pub type Cell<'a> = (CellKey<'a>, Measures);

/// Stored changes can't be read, or changes can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes of rollups are unreadable")]
pub struct ChangesError;

/// The bytes of one transaction's changes.
pub fn encode_changes(changes: &[Cell<'_>]) -> Result<Vec<u8>, ChangesError> {
    postcard::to_extend(changes, vec![CHANGES_VERSION]).map_err(|_| ChangesError)
}

/// Reads [`encode_changes`]'s bytes.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<Cell<'_>>, ChangesError> {
    let changes = bytes.split_first().filter(|(version, _)| **version == CHANGES_VERSION);
    changes.and_then(|(_, changes)| postcard::from_bytes(changes).ok()).ok_or(ChangesError)
}

/// The sums of waiting and new changes, as cells of hours and days in the order of writing.
pub fn merged<'a>(waiting: &'a [Vec<u8>], changes: &'a [Cell<'a>]) -> Result<Vec<Cell<'a>>, ChangesError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollups::{Dimension, Tier};
    use crate::usage::Usage;

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
    fn what_is_no_change_is_refused() {
        let bytes = encode_changes(&changes()).unwrap();
        let mut other = bytes.clone();
        other[0] += 1;
        for wrong in [&[][..], &bytes[..bytes.len() - 1], &other] {
            assert!(decode_changes(wrong).is_err());
        }
    }
}
