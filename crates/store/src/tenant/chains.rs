//! Verifying what is stored: every hash recomputed from the stored bytes, every link, every seal.

use agentlens_domain::chain::{self, Hash, Link, Record, Verifier};
use agentlens_domain::json;

use super::events::{COLUMNS, StoredEvent};
use super::seal::Sealed;
use super::{SessionRow, Tenant};
use crate::args;
use crate::error::StoreError;

/// Events that are read at a time, and bytes of them.
const CHUNK_EVENTS: u32 = 200;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Sessions that are listed at a time.
const CHUNK_SESSIONS: u32 = 500;

/// The first event that breaks a session's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenChain {
    /// The session.
    pub session_id: String,
    /// Where in the session, from 0.
    pub failed_at_index: i64,
    /// The event's id; empty when events are missing at the end.
    pub failed_event_id: String,
    /// What is wrong, in the published words.
    pub reason: String,
}

/// What verifying one session found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChain {
    /// Events that were checked.
    pub event_count: i64,
    /// The first hash.
    pub first_hash: Option<[u8; 32]>,
    /// The last hash.
    pub last_hash: Option<[u8; 32]>,
    /// The first break, if any.
    pub broken: Option<BrokenChain>,
}

/// What verifying many sessions found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainReport {
    /// Sessions that were checked.
    pub sessions_verified: i64,
    /// Events that were checked.
    pub total_events: i64,
    /// The first hash of the first session.
    pub first_hash: Option<[u8; 32]>,
    /// The last hash of the last session.
    pub last_hash: Option<[u8; 32]>,
    /// Sessions whose chain does not hold, each with its first broken event.
    pub broken: Vec<BrokenChain>,
}

impl Tenant {
    /// Verifies one session from its stored bytes.
    pub async fn verify_session(&self, session: &SessionRow) -> Result<SessionChain, StoreError> {
        let mut walk = Walk::new(&session.session_id, self.retention_days().is_some());
        loop {
            let (events, has_more) =
                self.events_of_session_within(session, walk.last_seq, CHUNK_EVENTS, CHUNK_BYTES).await?;
            for event in &events {
                if !walk.add(event) {
                    return Ok(walk.finish());
                }
            }
            if !has_more {
                break;
            }
        }
        // Whatever was appended while this ran is newer than `session`; what is missing is older.
        if walk.last_seq < session.last_seq
            || (session.last_seq > 0
                && walk.last_seq == session.last_seq
                && walk.last_hash != Some(session.last_hash))
        {
            walk.fail(
                "",
                format!("Session ends at event {} but {} were stored", walk.last_seq, session.last_seq),
            );
        }
        Ok(walk.finish())
    }

    /// Verifies the events of a session after `after_seq` up to `last_seq`, and their link to the event in front of them.
    pub async fn verify_part(
        &self,
        session: &SessionRow,
        after_seq: i64,
        last_seq: i64,
    ) -> Result<SessionChain, StoreError> {
        let mut walk = Walk::new(&session.session_id, true);
        let mut read_seq = (after_seq - 1).max(0);
        while read_seq < last_seq {
            let chunk = u32::try_from(last_seq - read_seq).unwrap_or(u32::MAX).min(CHUNK_EVENTS);
            let (events, _) = self.events_of_session_within(session, read_seq, chunk, CHUNK_BYTES).await?;
            let Some(last) = events.last() else { break };
            read_seq = last.seq;
            for event in events.iter().take_while(|event| event.seq <= last_seq) {
                if !walk.add(event) {
                    return Ok(walk.finish());
                }
            }
        }
        Ok(walk.finish())
    }

    /// Verifies all sessions of a workspace (of all when `None`) that have an event in the range (all when `None`).
    pub async fn verify_all(
        &self,
        workspace: Option<&str>,
        range: Option<(i64, i64)>,
    ) -> Result<ChainReport, StoreError> {
        let mut report = ChainReport::default();
        let mut after = (String::new(), String::new());
        loop {
            let ids = self.session_ids(workspace, range, (&after.0, &after.1), CHUNK_SESSIONS).await?;
            for (workspace_id, session_id) in &ids {
                let Some(session) = self.find_session(workspace_id, session_id).await? else { continue };
                let chain = self.verify_session(&session).await?;
                report.sessions_verified += 1;
                report.total_events += chain.event_count;
                report.first_hash = report.first_hash.or(chain.first_hash);
                report.last_hash = chain.last_hash.or(report.last_hash);
                report.broken.extend(chain.broken);
            }
            match ids.last() {
                Some(last) if ids.len() == CHUNK_SESSIONS as usize => after = last.clone(),
                _ => return Ok(report),
            }
        }
    }

    /// A session's events in the order of its chain, after `after_seq`.
    pub async fn events_of_session(
        &self,
        session: &SessionRow,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        // The number finds them; the names, which no index shall serve here, see to it that they are the session's.
        let sql = format!(
            "select {COLUMNS} from events where org_id = $1 and session_number = $2 and seq > $3
               and workspace_id || '' = $4 and session_id || '' = $5 order by seq limit $6"
        );
        let (workspace, session_id) = (session.workspace_id.as_str(), session.session_id.as_str());
        self.fetch(sql, args![session.number, after_seq, workspace, session_id, limit]).await
    }
}

/// A walk along one session.
struct Walk<'a> {
    session_id: &'a str,
    /// Whether retention may have removed the beginning.
    may_start_late: bool,
    verifier: Verifier,
    last_seq: i64,
    event_count: i64,
    first_hash: Option<[u8; 32]>,
    last_hash: Option<[u8; 32]>,
    broken: Option<BrokenChain>,
}

impl<'a> Walk<'a> {
    fn new(session_id: &'a str, may_start_late: bool) -> Self {
        Self {
            session_id,
            may_start_late,
            verifier: Verifier::new(),
            last_seq: 0,
            event_count: 0,
            first_hash: None,
            last_hash: None,
            broken: None,
        }
    }

    /// Returns whether the chain holds so far.
    fn add(&mut self, event: &StoredEvent) -> bool {
        self.event_count += 1;
        let link = Link {
            seq: event.seq,
            prev_hash: event.prev_hash.map(Hash::from),
            hash: Hash::from(event.hash),
            recomputed: recompute(event),
        };
        let covered = Sealed::of_stored(event).bytes();
        if self.may_start_late && self.last_seq == 0 && event.seq > 1 {
            // Retention removed the beginning: the chain is checked from the first event that is left.
            self.verifier = event
                .prev_hash
                .map_or_else(Verifier::new, |hash| Verifier::starting_after(event.seq - 1, Hash::from(hash)));
        }
        if let Err(fault) = self.verifier.push_sealed(&link, &event.seal, &covered) {
            self.fail(&event.id, fault.to_string());
            return false;
        }
        if let Some(fault) = derived_fault(event) {
            self.fail(&event.id, format!("Event {} {fault}", self.event_count - 1));
            return false;
        }
        self.first_hash = self.first_hash.or(Some(event.hash));
        self.last_hash = Some(event.hash);
        self.last_seq = event.seq;
        true
    }

    fn fail(&mut self, event_id: &str, reason: String) {
        let failed_at_index = if event_id.is_empty() { self.event_count } else { self.event_count - 1 };
        self.broken = Some(BrokenChain {
            session_id: self.session_id.to_owned(),
            failed_at_index,
            failed_event_id: event_id.to_owned(),
            reason,
        });
    }

    fn finish(self) -> SessionChain {
        SessionChain {
            event_count: self.event_count,
            first_hash: self.first_hash,
            last_hash: self.last_hash,
            broken: self.broken,
        }
    }
}

/// The hash of the stored bytes; of nothing if they are no longer JSON in the stored form.
fn recompute(event: &StoredEvent) -> Hash {
    let (Some(payload), Some(metadata)) = (hashed_form(&event.payload), hashed_form(&event.metadata)) else {
        return Hash::from([0; 32]);
    };
    let prev_hash = event.prev_hash.map(Hash::from);
    chain::hash(&Record {
        id: &event.id,
        timestamp: &event.timestamp,
        session_id: &event.session_id,
        agent_id: &event.agent_id,
        event_type: &event.event_type,
        severity: &event.severity,
        payload: &payload,
        metadata: &metadata,
        prev_hash: prev_hash.as_ref(),
    })
}

/// The hashed form of a stored text, if the stored text is exactly what would be stored for its value.
fn hashed_form(stored: &str) -> Option<String> {
    let canonical = json::canonicalize(stored).ok()?;
    let is_as_stored = canonical.lossless.as_deref().unwrap_or(&canonical.text) == stored;
    is_as_stored.then_some(canonical.text)
}

/// Columns that follow from others: the instant from its text.
fn derived_fault(event: &StoredEvent) -> Option<&'static str> {
    let instant = agentlens_domain::time::parse_rfc3339(&event.timestamp);
    (instant != Some(event.ts_us)).then_some("has an instant that differs from its timestamp")
}
