//! The row of an org: its counters, sealed.

use agentlens_domain::apply::{OrgContext, OrgState};

use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::transaction::Tx;

row_type! {
    /// `org_state` as it is stored.
    pub(crate) struct OrgStateRow {
        pub last_position: i64,
        pub indexed_position: i64,
        pub last_session: i64,
        pub last_trace: i64,
        pub waiting_changes: i64,
        pub session_count: i64,
        pub removed_session_count: i64,
        pub expired_us: i64,
        pub cells_from_us: i64,
        pub shortest_retention_days: i32,
        pub audit_seq: i64,
        pub seal: Vec<u8>,
    }
}

/// Reads the row of an org for a change; the row stays locked until the transaction ends. SQLite leaves `for update` out.
pub(crate) const LOCK_STATE: &str =
    "select last_position, indexed_position, last_session, last_trace, waiting_changes, session_count,
       removed_session_count, expired_us, cells_from_us, shortest_retention_days, audit_seq, seal
     from org_state where org_id = $1 for update";

/// Makes the row of a new org; `$2` is the seal of [`OrgState::default`]. It is made with the org, so that a row that is missing
/// later was deleted by hand.
pub(crate) const INSERT_STATE: &str = "insert into org_state (org_id, last_position, indexed_position, last_session, last_trace, waiting_changes, session_count,
       seal) values ($1, 0, 0, 0, 0, 0, 0, $2) on conflict do nothing";

impl OrgStateRow {
    /// The row is not there.
    pub(crate) fn missing() -> StoreError {
        StoreError::Corrupt("the row of the org is missing; restore it from a backup".to_owned())
    }

    /// The counters, and whether their seal matches.
    pub(crate) fn checked(self, context: &OrgContext) -> OrgState {
        let mut state = OrgState {
            last_position: self.last_position,
            indexed_position: self.indexed_position,
            last_session: self.last_session,
            last_trace: self.last_trace,
            waiting_changes: self.waiting_changes,
            session_count: self.session_count,
            removed_session_count: self.removed_session_count,
            expired_us: self.expired_us,
            cells_from_us: self.cells_from_us,
            shortest_retention_days: self.shortest_retention_days,
            audit_seq: self.audit_seq,
            is_authentic: true,
        };
        state.is_authentic = state.seal(&context.org, &context.seals).as_slice() == self.seal;
        state
    }
}

/// Locks the org, as applying batches does: its counters are sealed.
pub(crate) async fn lock_state(tx: &Tx<'_>, context: &OrgContext) -> Result<OrgState, StoreError> {
    let row: Option<OrgStateRow> = tx.find(LOCK_STATE, args![]).await?;
    Ok(row.ok_or_else(OrgStateRow::missing)?.checked(context))
}

/// Writes the counters that ingest does not move, and seals the row.
pub(crate) async fn put_state(tx: &Tx<'_>, context: &OrgContext, state: OrgState) -> Result<(), StoreError> {
    let sql = "update org_state set session_count = $2, removed_session_count = $3, expired_us = $4, cells_from_us = $5, audit_seq = $6,
           seal = $7
         where org_id = $1";
    let OrgState { session_count, removed_session_count, expired_us, cells_from_us, audit_seq, .. } = state;
    let args = args![
        session_count,
        removed_session_count,
        expired_us,
        cells_from_us,
        audit_seq,
        state.seal(&context.org, &context.seals)
    ];
    tx.execute(sql, args).await?;
    Ok(())
}
