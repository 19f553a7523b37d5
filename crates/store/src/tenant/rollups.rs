//! What changes of the rollups. The changes of a transaction are written as one row, and merged into the cells together with
//! those of others: a cell that every group of events touches is rewritten once for many of them. Whoever reads cells adds the
//! changes that wait (see [`super::analytics`]).

use agentlens_domain::rollups::{CellKey, Measures, Rollup};

use crate::error::StoreError;

/// How many transactions' changes wait at most; the next one merges them all.
pub(crate) const MAX_WAITING_CHANGES: i64 = 16;

/// The version of the stored changes.
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
