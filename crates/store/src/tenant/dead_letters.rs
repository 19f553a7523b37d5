//! Batches that could not be applied, kept whole until someone replays or drops them.

use serde_json::json;

use agentlens_domain::ids::BatchId;
use agentlens_domain::permissions::Caller;

use super::{LedgerRow, Org};
use crate::error::StoreError;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A batch that could not be applied.
    pub struct DeadLetter {
        /// The batch.
        pub batch_id: String,
        /// The key that sent it.
        pub key_id: String,
        /// When it was given up, microseconds UTC.
        pub failed_us: i64,
        /// Why.
        pub reason: String,
        /// How many events it holds.
        pub event_count: i64,
    }
}

/// The dead letters of an org.
#[derive(Clone, Copy)]
pub struct DeadLetters<'o>(&'o Org);

impl Org {
    /// Its dead letters.
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters(self)
    }
}

impl DeadLetters<'_> {
    /// Keeps a batch as it was in the queue.
    pub async fn insert(self, letter: &DeadLetter, message: &[u8]) -> Result<(), StoreError> {
        let sql = "insert into dead_letters (org_id, batch_id, key_id, failed_us, reason, event_count, message)
             values ($1, $2, $3, $4, $5, $6, $7) on conflict (org_id, batch_id) do update set reason = excluded.reason, failed_us = excluded.failed_us";
        let args = args![
            &letter.batch_id,
            &letter.key_id,
            letter.failed_us,
            &letter.reason,
            letter.event_count,
            message
        ];
        self.0.execute_all(vec![(sql.to_owned(), args)]).await.map(|_| ())
    }

    /// The oldest letters first.
    pub async fn list(self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.0.fetch(
            "select batch_id, key_id, failed_us, reason, event_count from dead_letters where org_id = $1 order by failed_us, batch_id limit $2",
            args![limit],
        )
        .await
    }

    /// How many events of each key lie in them, as rows of the ledger.
    pub async fn event_counts(self) -> Result<Vec<LedgerRow>, StoreError> {
        self.0.fetch(
            "select key_id, 'dead_letter', cast(sum(event_count) as bigint) from dead_letters where org_id = $1 group by key_id order by key_id",
            args![],
        )
        .await
    }

    /// A letter's message, for replaying it.
    pub async fn message(self, batch: &BatchId) -> Result<Vec<u8>, StoreError> {
        let rows: Vec<crate::statement::Row> = self
            .0
            .fetch(
                "select message from dead_letters where org_id = $1 and batch_id = $2",
                args![batch.as_str()],
            )
            .await?;
        rows.first().ok_or(StoreError::NotFound)?.get(0)
    }

    /// Removes a letter, after it was replayed or because it is not wanted. `act` says which.
    pub async fn delete(self, caller: &Caller, act: &'static str, batch: &BatchId) -> Result<(), StoreError> {
        let batch = batch.to_string();
        self.0
            .write(caller, act, move |tx| {
                Box::pin(async move {
                    let find = "select event_count from dead_letters where org_id = $1 and batch_id = $2";
                    let events: i64 = tx.find(find, args![&batch]).await?.ok_or(StoreError::NotFound)?;
                    tx.execute("delete from dead_letters where org_id = $1 and batch_id = $2", args![&batch])
                        .await?;
                    Ok(Record::of(batch).before(json!({ "events": events })).returning(()))
                })
            })
            .await
    }
}
