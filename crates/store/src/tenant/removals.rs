//! Records of what was removed from chains on purpose. Verification accepts a gap only if a record covers it.
//!
//! A record is sealed under the server's secret. Within its range, from `first_seq` to `last_seq`, events may be missing or still
//! be there: on PostgreSQL they go with their partition, some time after the record is written.

use std::sync::Arc;

use data_encoding::HEXLOWER;

use agentlens_domain::apply::OrgContext;
use agentlens_domain::chain::{NO_SEAL, RowFields, Seal};
use agentlens_domain::ids::ulid_at;

use super::org_state::lock_state;
use super::retention::forget_sessions;
use super::{Events, Org, SessionRow, Sessions, Workspace};
use crate::args;
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{NamedRow, Row};
use crate::transaction::{Tx, WorkspaceTx};

/// Why events were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// They were older than the org keeps events.
    Retention,
    /// Someone deleted the session.
    Deletion,
    /// A person asked for their data to be erased.
    Erasure,
}

impl RemovalReason {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Deletion => "deletion",
            Self::Erasure => "erasure",
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
        /// What was removed: `events`, or the whole `session`.
        pub what: String,
        /// Why: see [`RemovalReason`].
        pub why: String,
        /// By whom: a person, a key, or a service such as `retention`.
        pub removed_by: String,
        /// When.
        pub removed_us: i64,
        /// How many events.
        pub event_count: i64,
        /// The instant before which none of them lies; absent for retention.
        pub first_us: Option<i64>,
        /// The instant after which none of them lies; absent for retention.
        pub last_us: Option<i64>,
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

/// The last event of a range that is about to be removed.
pub(crate) struct LastRemoved {
    pub(crate) seq: i64,
    pub(crate) hash: [u8; 32],
    pub(crate) seal: Seal,
}

impl Removal {
    /// Whether the record is as it was written.
    pub(crate) fn is_authentic(&self, context: &OrgContext) -> bool {
        self.seal == self.compute_seal(context)
    }

    fn compute_seal(&self, context: &OrgContext) -> Seal {
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
            .number(self.first_us.unwrap_or(i64::MIN))
            .number(self.last_us.unwrap_or(i64::MIN))
            .number(self.first_seq)
            .number(self.last_seq)
            .optional(self.hash_before.as_ref().map(<[u8; 32]>::as_slice))
            .bytes(&self.last_hash)
            .bytes(&self.last_seal);
        context.seals.seal_row(&fields)
    }

    /// The record of events at the beginning of a session's chain that expire, up to the last of them. It takes the place of the one
    /// that is known.
    pub(super) fn by_retention(
        known: Option<String>,
        (workspace_id, session_id, session_number): (&str, &str, i64),
        last: &LastRemoved,
        now_us: i64,
    ) -> Self {
        Self {
            removal_id: known.unwrap_or_else(|| ulid_at(now_us)),
            workspace_id: workspace_id.to_owned(),
            session_id: session_id.to_owned(),
            session_number,
            what: "events".to_owned(),
            why: RemovalReason::Retention.as_str().to_owned(),
            removed_by: "retention".to_owned(),
            removed_us: now_us,
            event_count: last.seq,
            first_us: None,
            last_us: None,
            first_seq: 1,
            last_seq: last.seq,
            hash_before: None,
            last_hash: last.hash,
            last_seal: last.seal,
            seal: NO_SEAL,
        }
    }

    /// Writes the record, sealed, over one with the same id.
    async fn put(mut self, tx: &Tx<'_>, context: &OrgContext) -> Result<(), StoreError> {
        self.seal = self.compute_seal(context);
        let sql = "insert into removals (org_id, removal_id, workspace_id, session_id, session_number, what, why, removed_by, removed_us,
               event_count, first_us, last_us, first_seq, last_seq, hash_before, last_hash, last_seal, seal)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
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
            self.first_us,
            self.last_us,
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

/// Writes records of [`Removal::by_retention`], sealed, in one statement (PostgreSQL only).
pub(super) async fn put_all(
    tx: &Tx<'_>,
    context: &OrgContext,
    records: Vec<Removal>,
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let texts = |text: fn(&Removal) -> &str| -> Vec<String> {
        records.iter().map(|record| text(record).to_owned()).collect()
    };
    let numbers = |number: fn(&Removal) -> i64| -> Vec<i64> { records.iter().map(number).collect() };
    let bytes = |bytes: &dyn Fn(&Removal) -> Vec<u8>| -> Vec<String> {
        records.iter().map(|record| HEXLOWER.encode(&bytes(record))).collect()
    };
    let sql = "insert into removals (org_id, removal_id, workspace_id, session_id, session_number, what, why, removed_by, removed_us,
           event_count, first_seq, last_seq, last_hash, last_seal, seal)
         select $1, k.removal_id, k.workspace_id, k.session_id, k.session_number, 'events', 'retention', 'retention', $6, k.last_seq, 1,
           k.last_seq, decode(k.last_hash, 'hex'), decode(k.last_seal, 'hex'), decode(k.seal, 'hex')
         from unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $7::bigint[], $8::text[], $9::text[], $10::text[])
           as k (removal_id, workspace_id, session_id, session_number, last_seq, last_hash, last_seal, seal)
         on conflict (org_id, removal_id) do update set removed_us = excluded.removed_us, event_count = excluded.event_count,
           last_seq = excluded.last_seq, last_hash = excluded.last_hash, last_seal = excluded.last_seal, seal = excluded.seal";
    let args = args![
        texts(|record| &record.removal_id),
        texts(|record| &record.workspace_id),
        texts(|record| &record.session_id),
        numbers(|record| record.session_number),
        records.first().map_or(0, |record| record.removed_us),
        numbers(|record| record.last_seq),
        bytes(&|record| record.last_hash.to_vec()),
        bytes(&|record| record.last_seal.to_vec()),
        bytes(&|record| record.compute_seal(context).to_vec()),
    ];
    tx.execute(sql, args).await?;
    Ok(())
}

/// Records that retention removes the beginning of a session's chain, up to an event. A session has one such record, which grows.
pub(crate) async fn record_expired(
    tx: &Tx<'_>,
    context: &OrgContext,
    (workspace_id, session_id, session_number): (&str, &str, i64),
    last: &LastRemoved,
    now_us: i64,
) -> Result<(), StoreError> {
    let why = RemovalReason::Retention.as_str();
    let sql = format!(
        "select {} from removals where org_id = $1 and session_number = $2 and why = $3 and first_seq = 1",
        Removal::COLUMNS
    );
    let known: Option<Removal> = tx.find(sql, args![session_number, why]).await?;
    if known.as_ref().is_some_and(|known| known.last_seq >= last.seq) {
        return Ok(());
    }
    let known = known.map(|known| known.removal_id);
    let session = (workspace_id, session_id, session_number);
    Removal::by_retention(known, session, last, now_us).put(tx, context).await
}

row_type! {
    /// An event that is about to be removed.
    struct Removed {
        pub position: i64,
        pub workspace_id: String,
        pub id: String,
        pub session_id: String,
        pub session_number: i64,
        pub seq: i64,
        pub ts_us: i64,
        pub prev_hash: Option<[u8; 32]>,
        pub hash: [u8; 32],
        pub seal: [u8; 17],
    }
}

/// Positions that one transaction of an erasure looks through.
const POSITIONS_AT_A_TIME: i64 = 5_000;
/// Events of a session that one transaction deletes.
const EVENTS_AT_A_TIME: i64 = 1_000;

/// By whom and why events are removed, and when.
#[derive(Debug, Clone)]
pub struct RemovalOrder {
    /// Why.
    pub why: RemovalReason,
    /// By whom: a person, a key or a service.
    pub removed_by: String,
    /// When.
    pub now_us: i64,
}

/// Removes events, with a record for each run of neighbours in a chain. They must be sorted by session and sequence number.
async fn remove(
    tx: &WorkspaceTx<'_, '_>,
    context: &OrgContext,
    order: &RemovalOrder,
    events: &[Removed],
) -> Result<u64, StoreError> {
    let is_next = |left: &Removed, right: &Removed| {
        left.session_number == right.session_number && left.seq + 1 == right.seq
    };
    let mut deleted = 0;
    for run in events.chunk_by(is_next) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let record = Removal {
            removal_id: ulid_at(order.now_us),
            workspace_id: first.workspace_id.clone(),
            session_id: first.session_id.clone(),
            session_number: first.session_number,
            what: "events".to_owned(),
            why: order.why.as_str().to_owned(),
            removed_by: order.removed_by.clone(),
            removed_us: order.now_us,
            event_count: last.seq - first.seq + 1,
            first_us: run.iter().map(|event| event.ts_us).min(),
            last_us: run.iter().map(|event| event.ts_us).max(),
            first_seq: first.seq,
            last_seq: last.seq,
            hash_before: first.prev_hash,
            last_hash: last.hash,
            last_seal: last.seal,
            seal: NO_SEAL,
        };
        record.put(tx.shared, context).await?;
    }
    for event in events {
        let sql = "delete from events where org_id = $1 and workspace_id || '' = $2 and position = $3";
        deleted += tx.execute(sql, args![event.position]).await?;
        let sql = "delete from event_keys where org_id = $1 and workspace_id = $2 and id = $3";
        tx.execute(sql, args![event.id.as_str()]).await?;
    }
    Ok(deleted)
}

async fn remove_of_user(
    tx: &WorkspaceTx<'_, '_>,
    context: Arc<OrgContext>,
    order: RemovalOrder,
    user_id: String,
    after_position: i64,
) -> Result<(u64, bool), StoreError> {
    // Retention must not remove beside it what both would record.
    lock_state(tx.shared, &context).await?;
    let last = after_position.saturating_add(POSITIONS_AT_A_TIME);
    let sql = format!(
        "select {} from events where org_id = $1 and workspace_id || '' = $2 and position > $3 and position <= $4
           and user_id = $5 order by session_number, seq",
            Removed::COLUMNS
    );
    let events: Vec<Removed> = tx.fetch(sql, args![after_position, last, user_id]).await?;
    let deleted = remove(tx, &context, &order, &events).await?;
    let sql = "select last_position from org_state where org_id = $1";
    let end: i64 = tx.shared.find(sql, args![]).await?.unwrap_or_default();
    Ok((deleted, last >= end))
}

/// Deletes a handful of a session's events, and after the last of them the session itself.
async fn remove_from_session(
    tx: &WorkspaceTx<'_, '_>,
    context: Arc<OrgContext>,
    order: RemovalOrder,
    session: SessionRow,
) -> Result<(u64, bool), StoreError> {
    let state = lock_state(tx.shared, &context).await?;
    let sql = format!(
        "select {} from events where org_id = $1 and workspace_id || '' = $2 and session_number = $3 order by seq limit $4",
        Removed::COLUMNS
    );
    let events: Vec<Removed> = tx.fetch(sql, args![session.number, EVENTS_AT_A_TIME]).await?;
    let deleted = remove(tx, &context, &order, &events).await?;
    if i64::try_from(events.len()).unwrap_or(i64::MAX) == EVENTS_AT_A_TIME {
        return Ok((deleted, false));
    }
    // Its row is read once more: events may have come in since the first handful went.
    let sql = "select last_seq, last_hash, last_seal, started_us, last_event_us from sessions
         where org_id = $1 and workspace_id = $2 and session_id = $3 and number = $4";
    let key = args![session.session_id.as_str(), session.number];
    let Some(head) = tx.find::<ChainHead>(sql, key.clone()).await? else {
        return Ok((deleted, true));
    };
    // One record of the whole session takes the place of those of its parts, which nothing needs any more but for the instants
    // between which they lie.
    let sql = "select min(first_us), max(last_us) from removals where org_id = $1 and workspace_id = $2 and session_number = $3";
    let parts: Option<Row> = tx.find(sql, args![session.number]).await?;
    let (first_us, last_us): (Option<i64>, Option<i64>) =
        parts.map_or(Ok((None, None)), |row| Ok::<_, StoreError>((row.get(0)?, row.get(1)?)))?;
    let sql = "delete from removals where org_id = $1 and workspace_id = $2 and session_number = $3";
    tx.execute(sql, args![session.number]).await?;
    let record = Removal {
        removal_id: ulid_at(order.now_us),
        workspace_id: session.workspace_id,
        session_id: session.session_id,
        session_number: session.number,
        what: "session".to_owned(),
        why: order.why.as_str().to_owned(),
        removed_by: order.removed_by,
        removed_us: order.now_us,
        event_count: head.last_seq,
        first_us: first_us.into_iter().chain([head.started_us]).min(),
        last_us: last_us.max(Some(head.last_event_us)),
        first_seq: 1,
        last_seq: head.last_seq,
        hash_before: None,
        last_hash: head.last_hash,
        last_seal: head.last_seal,
        seal: NO_SEAL,
    };
    record.put(tx.shared, &context).await?;
    let sql =
        "delete from sessions where org_id = $1 and workspace_id = $2 and session_id = $3 and number = $4";
    let gone = tx.execute(sql, key).await?;
    let gone = i64::try_from(gone).unwrap_or(0);
    forget_sessions(tx.shared, &context, state, gone, gone).await?;
    Ok((deleted, true))
}

row_type! {
    struct ChainHead {
        pub last_seq: i64,
        pub last_hash: [u8; 32],
        pub last_seal: [u8; 17],
        pub started_us: i64,
        pub last_event_us: i64,
    }
}

impl Sessions<'_> {
    /// Deletes a session and its events, and leaves a record. Sums that counted them (agents, rollups) keep them, as they keep what
    /// retention removes. Returns how many events went.
    pub async fn remove(self, session: &SessionRow, order: &RemovalOrder) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let (context, order, session) = (self.0.context(), order.clone(), session.clone());
            let (rows, is_last) =
                self.0.transact(move |tx| Box::pin(remove_from_session(tx, context, order, session))).await?;
            deleted += rows;
            if is_last {
                return Ok(deleted);
            }
        }
    }
}

impl Events<'_> {
    /// Deletes the events of one end user, and leaves records of the gaps in the chains. Sums keep what they counted, and so do
    /// spans that were made of such events. Returns how many events went.
    pub async fn remove_of_user(self, user_id: &str, order: &RemovalOrder) -> Result<u64, StoreError> {
        let (mut deleted, mut after) = (0, 0);
        loop {
            let (context, order, user_id) = (self.0.context(), order.clone(), user_id.to_owned());
            let (rows, is_last) = self
                .0
                .transact(move |tx| Box::pin(remove_of_user(tx, context, order, user_id, after)))
                .await?;
            deleted += rows;
            after += POSITIONS_AT_A_TIME;
            if is_last {
                return Ok(deleted);
            }
        }
    }
}

/// The records of removals of a workspace.
#[derive(Clone, Copy)]
pub struct Removals<'w>(&'w Workspace);

impl Workspace {
    /// Its records of removals.
    pub fn removals(&self) -> Removals<'_> {
        Removals(self)
    }
}

impl Removals<'_> {
    /// What was removed from a session's chain, by the first event.
    pub async fn of_session(self, session_number: i64) -> Result<Vec<Removal>, StoreError> {
        let sql = format!(
            "select {} from removals where org_id = $1 and workspace_id = $2 and session_number = $3 order by first_seq",
            Removal::COLUMNS
        );
        self.0.fetch(sql, args![session_number]).await
    }
}

/// The records of removals of all workspaces of an org.
#[derive(Clone, Copy)]
pub struct OrgRemovals<'o>(&'o Org);

impl Org {
    /// The records of removals of all of its workspaces.
    pub fn removals(&self) -> OrgRemovals<'_> {
        OrgRemovals(self)
    }
}

impl OrgRemovals<'_> {
    /// All records, in the order of their ids, after one of them.
    pub async fn list(self, after: &str, limit: u32) -> Result<Vec<Removal>, StoreError> {
        let sql = format!(
            "select {} from removals where org_id = $1 and removal_id > $2 order by removal_id limit $3",
            Removal::COLUMNS
        );
        self.0.fetch(sql, args![after, limit]).await
    }
}
