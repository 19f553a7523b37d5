//! Records of what was removed from chains on purpose. Verification accepts a gap only if a record covers it.
//!
//! A record is sealed under the server's secret. Within its range, from `first_seq` to `last_seq`, events may be missing or still
//! be there: on PostgreSQL they go with their partition, some time after the record is written.

use agentlens_domain::chain::{NO_SEAL, RowFields, Seal};
use agentlens_domain::ids::ulid_at;

use super::{Tenant, TenantContext};
use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::transaction::Tx;

/// Why events were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// They were older than the org keeps events.
    Retention,
}

impl RemovalReason {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
        }
    }
}

row_type! {
    /// A range of one session's chain that was removed on purpose. Instants are microseconds UTC.
    pub struct Removal {
        /// Its id.
        pub removal_id: String,
        /// The session's workspace.
        pub workspace_id: String,
        /// The session.
        pub session_id: String,
        /// The session's number.
        pub session_number: i64,
        /// What was removed: `events`.
        pub what: String,
        /// Why: see [`RemovalReason`].
        pub why: String,
        /// By whom: a person, a key, or a service such as `retention`.
        pub removed_by: String,
        /// When.
        pub removed_us: i64,
        /// How many events.
        pub event_count: i64,
        /// The sequence number of the first of them.
        pub first_seq: i64,
        /// That of the last.
        pub last_seq: i64,
        /// The hash of the event before the first; absent if there is none.
        pub hash_before: Option<[u8; 32]>,
        /// The hash of the last.
        pub last_hash: [u8; 32],
        /// The seal of the last.
        pub last_seal: [u8; 17],
        /// The seal of this record.
        pub seal: [u8; 17],
    }
}

const COLUMNS: &str = "removal_id, workspace_id, session_id, session_number, what, why, removed_by, removed_us, event_count, first_seq, \
     last_seq, hash_before, last_hash, last_seal, seal";

/// The last event of a range that is about to be removed.
pub(crate) struct LastRemoved {
    pub(crate) seq: i64,
    pub(crate) hash: [u8; 32],
    pub(crate) seal: Seal,
}

impl Removal {
    /// Whether the record is as it was written.
    pub(crate) fn is_authentic(&self, context: &TenantContext) -> bool {
        self.seal == self.compute_seal(context)
    }

    fn compute_seal(&self, context: &TenantContext) -> Seal {
        let fields = RowFields::of("removal")
            .text(context.org.as_str())
            .text(&self.removal_id)
            .text(&self.workspace_id)
            .text(&self.session_id)
            .number(self.session_number)
            .text(&self.what)
            .text(&self.why)
            .text(&self.removed_by)
            .number(self.removed_us)
            .number(self.event_count)
            .number(self.first_seq)
            .number(self.last_seq)
            .optional(self.hash_before.as_ref().map(<[u8; 32]>::as_slice))
            .bytes(&self.last_hash)
            .bytes(&self.last_seal);
        context.seals.seal_row(&fields)
    }

    /// Writes the record, sealed, over one with the same id.
    async fn put(mut self, tx: &Tx<'_>, context: &TenantContext) -> Result<(), StoreError> {
        self.seal = self.compute_seal(context);
        let sql = "insert into removals (org_id, removal_id, workspace_id, session_id, session_number, what, why, removed_by, removed_us,
               event_count, first_seq, last_seq, hash_before, last_hash, last_seal, seal)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
             on conflict (org_id, removal_id) do update set removed_by = excluded.removed_by, removed_us = excluded.removed_us,
               event_count = excluded.event_count, last_seq = excluded.last_seq, last_hash = excluded.last_hash,
               last_seal = excluded.last_seal, seal = excluded.seal";
        let args = args![
            self.removal_id,
            self.workspace_id,
            self.session_id,
            self.session_number,
            self.what,
            self.why,
            self.removed_by,
            self.removed_us,
            self.event_count,
            self.first_seq,
            self.last_seq,
            self.hash_before,
            self.last_hash,
            self.last_seal,
            self.seal,
        ];
        tx.execute(sql, args).await?;
        Ok(())
    }
}

/// Records that retention removes the beginning of a session's chain, up to an event. A session has one such record, which grows.
pub(crate) async fn record_expired(
    tx: &Tx<'_>,
    context: &TenantContext,
    (workspace_id, session_id, session_number): (&str, &str, i64),
    last: &LastRemoved,
    now_us: i64,
) -> Result<(), StoreError> {
    let why = RemovalReason::Retention.as_str();
    let sql = format!(
        "select {COLUMNS} from removals where org_id = $1 and session_number = $2 and why = $3 and first_seq = 1"
    );
    let known: Option<Removal> = tx.find(sql, args![session_number, why]).await?;
    if known.as_ref().is_some_and(|known| known.last_seq >= last.seq) {
        return Ok(());
    }
    let record = Removal {
        removal_id: known.map_or_else(|| ulid_at(now_us), |known| known.removal_id),
        workspace_id: workspace_id.to_owned(),
        session_id: session_id.to_owned(),
        session_number,
        what: "events".to_owned(),
        why: why.to_owned(),
        removed_by: "retention".to_owned(),
        removed_us: now_us,
        event_count: last.seq,
        first_seq: 1,
        last_seq: last.seq,
        hash_before: None,
        last_hash: last.hash,
        last_seal: last.seal,
        seal: NO_SEAL,
    };
    record.put(tx, context).await
}

impl Tenant {
    /// What was removed from a session's chain, by the first event.
    pub async fn removals_of_session(&self, session_number: i64) -> Result<Vec<Removal>, StoreError> {
        let sql = format!(
            "select {COLUMNS} from removals where org_id = $1 and session_number = $2 order by first_seq"
        );
        self.fetch(sql, args![session_number]).await
    }
}
