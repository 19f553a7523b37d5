//! The ingest ledger: what became of every event that a key sent.

use super::Org;
use crate::error::StoreError;
use crate::{args, row_type};

row_type! {
    /// One count of one key.
    pub struct LedgerRow {
        /// The key.
        pub key_id: String,
        /// `received`, `stored` or a reason of refusal.
        pub outcome: String,
        /// How many events.
        pub event_count: i64,
    }
}

/// The ledger of an org.
#[derive(Clone, Copy)]
pub struct Ledger<'o>(&'o Org);

impl Org {
    /// Its ledger.
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger(self)
    }
}

impl Ledger<'_> {
    /// All counts, by key.
    pub async fn counts(self) -> Result<Vec<LedgerRow>, StoreError> {
        self.0.fetch("select key_id, outcome, event_count from ingest_ledger where org_id = $1 order by key_id, outcome", args![]).await
    }
}
