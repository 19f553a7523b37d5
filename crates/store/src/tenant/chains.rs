//! Verifies what is stored: every hash recomputed from the stored bytes, every link, every seal, the heads of sessions, and the
//! counters of the org.

use agentlens_domain::apply::{OrgContext, OrgState};
use agentlens_domain::chain::{self, Hash, Link, NO_SEAL, Record, Seal, Verifier};
use agentlens_domain::ids::WorkspaceId;
use agentlens_domain::json;

use super::events::{Events, StoredEvent};
use super::recount::Sums;
use super::removals::{Removal, RemovalReason};
use super::{Org, OrgStateRow, SessionRow, Workspace};
use crate::args;
use crate::error::StoreError;
use crate::statement::{Builder, FromRow, NamedRow, Row};

/// Events that are read at a time, and bytes of them.
const CHUNK_EVENTS: u32 = 200;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Sessions that are listed at a time.
const CHUNK_SESSIONS: u32 = 500;
/// Sessions that are missing although they have events: so many of them are named.
const MAX_ORPHANS_REPORTED: usize = 20;
/// Numbers of sessions in which events without a session are looked for at a time.
const SESSIONS_AT_A_TIME: i64 = 1_000;

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
    /// What explains faults: that events of the org were deleted without a record of its own.
    pub notes: Vec<String>,
}

/// How often a session is verified again because retention, or an event that came in, changed it meanwhile.
const MAX_TRIES: usize = 3;

/// The chains of a workspace.
#[derive(Clone, Copy)]
pub struct Chains<'w>(pub(super) &'w Workspace);

impl Workspace {
    /// Its chains.
    pub fn chains(&self) -> Chains<'_> {
        Chains(self)
    }
}

impl Chains<'_> {
    /// Verifies one session from its stored bytes: every hash, link and seal, the head, and that events are missing only where
    /// a record says that they were removed.
    pub async fn verify_session(self, session: &SessionRow) -> Result<SessionChain, StoreError> {
        let mut chain = self.verify_session_once(session).await?;
        for _ in 1..MAX_TRIES {
            if chain.broken.is_none() {
                break;
            }
            match self.0.sessions().find(&session.session_id).await? {
                Some(now) if now.number == session.number => chain = self.verify_session_once(&now).await?,
                // Retention deleted it meanwhile: verification of the org finds out if someone else did.
                _ => break,
            }
        }
        Ok(chain)
    }

    async fn verify_session_named(self, session_id: &str) -> Result<Option<SessionChain>, StoreError> {
        match self.0.sessions().find(session_id).await? {
            Some(session) => self.verify_session(&session).await.map(Some),
            None => Ok(None),
        }
    }

    async fn verify_session_once(self, session: &SessionRow) -> Result<SessionChain, StoreError> {
        let removals = self.0.removals().of_session(session.number).await?;
        let context = self.0.context();
        let mut walk = Walk::new(&session.session_id, &context, &removals, self.0.may_linger());
        if !walk.check_head(session) {
            return Ok(walk.finish());
        }
        let (mut read_to, mut own) = (0, Sums::default());
        loop {
            let (events, has_more) =
                self.0.events().of_session_within(session, read_to, CHUNK_EVENTS, CHUNK_BYTES).await?;
            for event in &events {
                read_to = event.seq;
                if !walk.add(event) {
                    return Ok(walk.finish());
                }
                if event.seq <= session.last_seq {
                    own.add(event);
                }
            }
            if !has_more {
                break;
            }
        }
        walk.check_end(session);
        // Sums keep what was removed, so those of a session that is not whole can only be too small.
        if walk.broken.is_none()
            && let Some(fault) = self.recount(session, own, removals.is_empty()).await?
        {
            walk.fail("", fault);
        }
        if walk.broken.is_none() && read_to > session.last_seq {
            // What was appended while this ran is in the session now; what is still beyond its end was put there by hand.
            let now = self.0.sessions().find(&session.session_id).await?;
            if now.is_none_or(|now| now.last_seq < read_to) {
                walk.fail("", format!("Session ends at event {} but {read_to} are stored", session.last_seq));
            }
        }
        Ok(walk.finish())
    }

    /// Verifies the events of a session after `after_seq` up to `last_seq`, taking the event in front of them as it is stored.
    pub async fn verify_part(
        self,
        session: &SessionRow,
        after_seq: i64,
        last_seq: i64,
    ) -> Result<SessionChain, StoreError> {
        let removals = self.0.removals().of_session(session.number).await?;
        let context = self.0.context();
        let mut walk = Walk::new(&session.session_id, &context, &removals, self.0.may_linger());
        if !walk.check_head(session) {
            return Ok(walk.finish());
        }
        let mut read_to = (after_seq - 1).max(0);
        while read_to < last_seq {
            let chunk = u32::try_from(last_seq - read_to).unwrap_or(u32::MAX).min(CHUNK_EVENTS);
            let (events, _) = self.0.events().of_session_within(session, read_to, chunk, CHUNK_BYTES).await?;
            let Some(last) = events.last() else { break };
            read_to = last.seq;
            for event in events.iter().take_while(|event| event.seq <= last_seq) {
                if event.seq == after_seq {
                    walk.start_after(event);
                } else if !walk.add(event) {
                    return Ok(walk.finish());
                }
            }
        }
        Ok(walk.finish())
    }

    /// Verifies all sessions that have an event in the range, or all when there is none.
    pub async fn verify_all(self, range: Option<(i64, i64)>) -> Result<ChainReport, StoreError> {
        let mut report = ChainReport::default();
        self.verify_all_into(&mut report, range).await?;
        Ok(report)
    }

    async fn verify_all_into(
        self,
        report: &mut ChainReport,
        range: Option<(i64, i64)>,
    ) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let ids = self.0.sessions().ids(range, &after, CHUNK_SESSIONS).await?;
            for session_id in &ids {
                let chain = match self.verify_session_named(session_id).await {
                    Ok(Some(chain)) => chain,
                    Ok(None) => continue,
                    // What can't be read must not hide what is wrong with the others.
                    Err(StoreError::Corrupt(what)) => SessionChain::unreadable(session_id, &what),
                    Err(error) => return Err(error),
                };
                report.sessions_verified += 1;
                report.total_events += chain.event_count;
                report.first_hash = report.first_hash.or(chain.first_hash);
                report.last_hash = chain.last_hash.or(report.last_hash);
                report.broken.extend(chain.broken);
            }
            match ids.last() {
                Some(last) if ids.len() == CHUNK_SESSIONS as usize => after.clone_from(last),
                _ => return Ok(()),
            }
        }
    }
}

/// The chains of all workspaces of an org.
#[derive(Clone, Copy)]
pub struct OrgChains<'o>(pub(super) &'o Org);

impl Org {
    /// The chains of all of its workspaces.
    pub fn chains(&self) -> OrgChains<'_> {
        OrgChains(self)
    }
}

impl OrgChains<'_> {
    /// Verifies all sessions of all workspaces, and the org's own counters: that no session is missing and no event is without
    /// one.
    pub async fn verify_all(self) -> Result<ChainReport, StoreError> {
        let notes = self.0.control.unrecorded_losses(self.0.id()).await?;
        let mut report = ChainReport { broken: self.verify_state().await?, notes, ..ChainReport::default() };
        let mut last: Option<String> = None;
        while let Some(id) = self.next_workspace(last.as_deref()).await? {
            match WorkspaceId::parse(&id) {
                Ok(workspace) => {
                    self.0.workspace(&workspace).chains().verify_all_into(&mut report, None).await?;
                }
                // Nothing is ever stored under such an id.
                Err(_) => report
                    .broken
                    .push(BrokenChain::of_org(format!("Sessions were moved to a workspace `{id}`"))),
            }
            last = Some(id);
        }
        Ok(report)
    }

    /// The first workspace that has sessions, or the one after `last`. It may be the empty text, if someone changed it by hand.
    async fn next_workspace(self, last: Option<&str>) -> Result<Option<String>, StoreError> {
        let mut statement = Builder::of_org("select workspace_id from sessions where org_id = $1");
        statement.with_some(" and workspace_id > $", last).text(" order by workspace_id limit 1");
        let (sql, args) = statement.finish();
        self.0.find(sql, args).await
    }

    /// What is wrong with the org's counters.
    async fn verify_state(self) -> Result<Vec<BrokenChain>, StoreError> {
        // One statement, so that all of it is of one moment.
        let sql = format!("select {}, {COUNTS} from org_state where org_id = $1", OrgStateRow::COLUMNS);
        let mut faults = Vec::new();
        match self.0.find::<Row>(sql, args![]).await? {
            None => faults.push("The row of the org is missing".to_owned()),
            Some(row) => {
                let state = OrgStateRow::from_row(&row)?.checked(&self.0.context());
                faults.extend(Counts::read(&row)?.faults(&state));
            }
        }
        faults.extend(self.verify_removals().await?);
        faults.extend(self.orphans().await?);
        Ok(faults.into_iter().map(BrokenChain::of_org).collect())
    }

    /// Events that have no session, a range of sessions at a time.
    async fn orphans(self) -> Result<Vec<String>, StoreError> {
        let sql = "select distinct session_number from events
             where org_id = $1 and session_number >= $2 and session_number <= $3 and session_number not in
               (select number from sessions where org_id = $1 and number >= $2 and number <= $3)";
        let next = "select session_number from events where org_id = $1 and session_number >= $2 order by session_number limit 1";
        let (mut orphans, mut from): (Vec<i64>, i64) = (Vec::new(), i64::MIN);
        while let Some(first) = self.0.find::<i64>(next, args![from]).await? {
            let last = first.saturating_add(SESSIONS_AT_A_TIME - 1);
            orphans.extend(self.0.fetch::<i64>(sql, args![first, last]).await?);
            if orphans.len() >= MAX_ORPHANS_REPORTED || last == i64::MAX {
                break;
            }
            from = last + 1;
        }
        orphans.truncate(MAX_ORPHANS_REPORTED);
        Ok(orphans
            .iter()
            .map(|number| format!("Events of session number {number} have no session"))
            .collect())
    }

    /// Records of removals that are not as they were written.
    async fn verify_removals(self) -> Result<Vec<String>, StoreError> {
        let (context, mut faults, mut after) = (self.0.context(), Vec::new(), String::new());
        loop {
            let removals = self.0.removals().list(&after, CHUNK_SESSIONS).await?;
            let changed = removals.iter().filter(|removal| !removal.is_authentic(&context));
            faults.extend(changed.map(|removal| {
                format!(
                    "Record {} of removed events was changed: its seal does not match",
                    removal.removal_id
                )
            }));
            match removals.last() {
                Some(last) if removals.len() == CHUNK_SESSIONS as usize => after.clone_from(&last.removal_id),
                _ => return Ok(faults),
            }
        }
    }
}

impl Events<'_> {
    /// A session's events in the order of its chain, after `after_seq`.
    pub async fn of_session(
        self,
        session: &SessionRow,
        after_seq: i64,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        // The number finds them; the names, which no index shall serve here, see to it that they are the session's.
        let sql = format!(
            "select {} from events where org_id = $1 and workspace_id || '' = $2 and session_number = $3 and seq > $4
               and session_id || '' = $5 order by seq limit $6",
            StoredEvent::COLUMNS
        );
        self.0.fetch(sql, args![session.number, after_seq, session.session_id.as_str(), limit]).await
    }
}

/// What the counters of an org should be.
struct Counts {
    sessions: i64,
    highest_session: i64,
    highest_position: i64,
    session_removals: i64,
    stored_in_ledger: i64,
    counted_in_usage: i64,
}

/// The columns of [`Counts`]; they follow those of [`OrgStateRow`].
const COUNTS: &str = "(select count(*) from sessions where org_id = $1),
       (select coalesce(max(number), 0) from sessions where org_id = $1),
       (select coalesce(max(position), 0) from events where org_id = $1),
       (select count(*) from removals where org_id = $1 and what = 'session'),
       (select cast(coalesce(sum(event_count), 0) as bigint) from ingest_ledger where org_id = $1 and outcome = 'stored'),
       (select cast(coalesce(sum(event_count), 0) as bigint) from usage_days where org_id = $1)";

impl Counts {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let first = OrgStateRow::COLUMNS.split(',').count();
        Ok(Self {
            sessions: row.get(first)?,
            highest_session: row.get(first + 1)?,
            highest_position: row.get(first + 2)?,
            session_removals: row.get(first + 3)?,
            stored_in_ledger: row.get(first + 4)?,
            counted_in_usage: row.get(first + 5)?,
        })
    }

    fn faults(&self, state: &OrgState) -> Vec<String> {
        let mut faults = Vec::new();
        if !state.is_authentic {
            faults.push("The counters of the org were changed: their seal does not match".to_owned());
        }
        let (stored, counted) = (self.sessions, state.session_count);
        if stored != counted {
            faults.push(format!("The org has {stored} sessions but {counted} were counted"));
        }
        let (records, counted) = (self.session_removals, state.removed_session_count);
        if records != counted {
            faults.push(format!(
                "The org has {records} records of deleted sessions but {counted} were counted"
            ));
        }
        let sums = [("ledger", self.stored_in_ledger), ("usage of all days", self.counted_in_usage)];
        for (table, sum) in sums.into_iter().filter(|(_, sum)| *sum != state.last_position) {
            let stored = state.last_position;
            faults.push(format!("The {table} says that {sum} events were stored, but {stored} were"));
        }
        if self.highest_session > state.last_session || self.highest_position > state.last_position {
            faults.push("The counters of the org are behind its sessions or events".to_owned());
        }
        faults
    }
}

impl SessionChain {
    fn unreadable(session_id: &str, what: &str) -> Self {
        let broken = BrokenChain {
            session_id: session_id.to_owned(),
            failed_at_index: 0,
            failed_event_id: String::new(),
            reason: format!("Session can't be read: {what}"),
        };
        Self { event_count: 0, first_hash: None, last_hash: None, broken: Some(broken) }
    }
}

impl BrokenChain {
    fn of_org(reason: String) -> Self {
        Self { session_id: String::new(), failed_at_index: 0, failed_event_id: String::new(), reason }
    }
}

/// A walk along one session.
struct Walk<'a> {
    session_id: &'a str,
    context: &'a OrgContext,
    /// What was removed on purpose, by the first event.
    removals: &'a [Removal],
    /// Whether events that retention recorded as removed may still be there: on PostgreSQL they go with their partition.
    may_linger: bool,
    verifier: Verifier,
    /// Follows events that linger.
    lingering: Option<Verifier>,
    event_count: i64,
    first_hash: Option<[u8; 32]>,
    last_hash: Option<[u8; 32]>,
    broken: Option<BrokenChain>,
}

impl<'a> Walk<'a> {
    fn new(session_id: &'a str, context: &'a OrgContext, removals: &'a [Removal], may_linger: bool) -> Self {
        Self {
            session_id,
            context,
            removals,
            may_linger,
            verifier: Verifier::new(),
            lingering: None,
            event_count: 0,
            first_hash: None,
            last_hash: None,
            broken: None,
        }
    }

    /// Returns whether the head of the chain and the records of removals are as they were written.
    fn check_head(&mut self, session: &SessionRow) -> bool {
        let number = session.number;
        let authentic =
            |removal: &Removal| removal.session_number == number && removal.is_authentic(self.context);
        if !self.removals.iter().all(authentic) {
            self.fail("", "A record of removed events was changed: its seal does not match".to_owned());
        } else if !session.clone().checked(self.context).is_ok_and(|stored| stored.is_authentic) {
            self.fail("", "The row of the session was changed: its seal does not match".to_owned());
        }
        self.broken.is_none()
    }

    /// Starts behind an event, which is taken as it is stored.
    fn start_after(&mut self, event: &StoredEvent) {
        if let Ok(seal) = Seal::try_from(event.seal.as_slice()) {
            self.verifier = Verifier::starting_after(event.seq, Hash::from(event.hash), seal);
        }
    }

    /// Goes past what was removed on purpose. Events in that range may still be there; they are no longer proved.
    fn skip_removed(&mut self) {
        let next =
            |seq: i64| move |removal: &&Removal| removal.first_seq <= seq + 1 && removal.last_seq > seq;
        while let Some(removal) = self.removals.iter().find(next(self.verifier.seq())) {
            let hash = Hash::from(removal.last_hash);
            self.verifier = Verifier::starting_after(removal.last_seq, hash, removal.last_seal);
        }
    }

    /// Returns whether the chain holds so far.
    fn add(&mut self, event: &StoredEvent) -> bool {
        self.skip_removed();
        let covers = |removal: &&Removal| (removal.first_seq..=removal.last_seq).contains(&event.seq);
        if event.seq <= self.verifier.seq()
            && let Some(removal) = self.removals.iter().find(covers)
        {
            return self.add_lingering(event, removal);
        }
        self.event_count += 1;
        let (link, covered) = (link_of(event), event.sealed().bytes());
        if let Err(fault) = self.verifier.push(&link, &self.context.seals, &event.seal, &covered) {
            self.fail(&event.id, fault.to_string());
            return false;
        }
        if let Some(fault) = derived_fault(event) {
            self.fail(&event.id, format!("Event {} {fault} (seq {})", event.seq - 1, event.seq));
            return false;
        }
        self.first_hash = self.first_hash.or(Some(event.hash));
        self.last_hash = Some(event.hash);
        true
    }

    /// Checks an event in a range that was removed. Those that linger still follow each other, up to the end of the range.
    fn add_lingering(&mut self, event: &StoredEvent, removal: &Removal) -> bool {
        let (link, covered) = (link_of(event), event.sealed().bytes());
        let may_linger = self.may_linger && removal.why == RemovalReason::Retention.as_str();
        // What a later order removed from the same range leaves a gap, behind which the rest is followed anew.
        if self.lingering.as_ref().is_some_and(|verifier| verifier.seq() + 1 != event.seq) {
            self.lingering = None;
        }
        let follows = match &mut self.lingering {
            Some(verifier) => verifier
                .push(&link, &self.context.seals, &event.seal, &covered)
                .map_err(|fault| fault.to_string()),
            None if link.hash != link.recomputed => Err(format!("Event {} hash mismatch", event.seq - 1)),
            None => Ok(()),
        };
        let is_last = event.seq == removal.last_seq;
        let is_other =
            is_last && (event.hash, event.seal.as_slice()) != (removal.last_hash, &removal.last_seal[..]);
        let fault = match follows {
            _ if !may_linger || is_other => {
                Err(format!("Event {} was removed, but is stored", event.seq - 1))
            }
            follows => follows,
        };
        if let Err(fault) = fault {
            self.fail(&event.id, format!("{fault} (seq {})", event.seq));
            return false;
        }
        if self.lingering.is_none() {
            let seal = Seal::try_from(event.seal.as_slice()).unwrap_or(NO_SEAL);
            self.lingering = Some(Verifier::starting_after(event.seq, link.hash, seal));
        }
        true
    }

    /// Checks that the chain goes to the session's end. What was appended while this ran is newer than `session`; what is
    /// missing is older.
    fn check_end(&mut self, session: &SessionRow) {
        self.skip_removed();
        let (seq, hash) = self.verifier.head().map_or((0, None), |(seq, hash)| (seq, Some(hash)));
        let is_at_end = seq == session.last_seq;
        if seq < session.last_seq || (is_at_end && seq > 0 && hash != Some(Hash::from(session.last_hash))) {
            self.fail("", format!("Session ends at event {seq} but {} were stored", session.last_seq));
        } else if is_at_end && seq > 0 && self.verifier.seal().as_slice() != session.last_seal {
            self.fail("", "Session ends with another seal than its last event has".to_owned());
        }
    }

    fn fail(&mut self, event_id: &str, reason: String) {
        let failed_at_index = if event_id.is_empty() { self.verifier.seq() } else { self.event_count - 1 };
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

fn link_of(event: &StoredEvent) -> Link {
    Link {
        seq: event.seq,
        prev_hash: event.prev_hash.map(Hash::from),
        hash: Hash::from(event.hash),
        recomputed: recompute(event),
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
