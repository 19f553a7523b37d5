//! The timeline of a session: the events of its chains in their order, a page at a time.

use agentlens_domain::limits::MAX_ANSWER_BYTES;
use agentlens_store::{SessionRow, StoreError, StoredEvent, Workspace};

/// Events that are read at a time.
const CHUNK_EVENTS: u32 = 500;

/// A page of a timeline.
#[derive(Debug)]
pub struct TimelinePage {
    /// The events as they were stored.
    pub events: Vec<StoredEvent>,
    /// The parts of chains that they are.
    pub parts: Vec<Part>,
    /// Where the next page begins.
    pub next_seq: Option<i64>,
}

/// A page of a session's timeline and where the next begins. Spans that named the session only later have their place in
/// chains of their own, which come first; their events are counted below zero, down from it.
pub async fn timeline(
    workspace: &Workspace,
    session: &SessionRow,
    after: i64,
    limit: u32,
) -> Result<TimelinePage, StoreError> {
    let mut page = Page::new(limit);
    if after <= 0 {
        let mut passed = 0;
        for id in workspace.sessions().chains_moved_to(&session.session_id).await? {
            let Some(chain) = workspace.sessions().find(&id).await? else { continue };
            let from = after.saturating_neg().saturating_sub(passed).max(0);
            if from < chain.last_seq {
                let last = page.read(workspace, &chain, from).await?;
                if page.is_full() {
                    return Ok(page.ending_at(Some(-passed - last)));
                }
            }
            passed += chain.last_seq;
        }
    }
    let last = page.read(workspace, session, after.max(0)).await?;
    let has_more = page.is_full() && last < session.last_seq;
    Ok(page.ending_at(has_more.then_some(last)))
}

/// The events of one chain after `after`: at most `limit`, and fewer where they fill an answer.
pub async fn chain_events(
    workspace: &Workspace,
    chain: &SessionRow,
    after: i64,
    limit: u32,
) -> Result<TimelinePage, StoreError> {
    let mut page = Page::new(limit);
    let last = page.read(workspace, chain, after).await?;
    let has_more = page.is_full() && last < chain.last_seq;
    Ok(page.ending_at(has_more.then_some(last)))
}

/// Consecutive events of one chain: those behind `after`, up to `last`.
#[derive(Debug)]
pub struct Part {
    /// The chain.
    pub chain: SessionRow,
    /// The place of the event before the first.
    pub after: i64,
    /// The place of the last.
    pub last: i64,
}

/// Events of one answer while they are read.
struct Page {
    events: Vec<StoredEvent>,
    /// The chains that they are of.
    parts: Vec<Part>,
    /// Bytes of their payloads and metadata.
    bytes: usize,
    limit: u32,
    /// Whether the next event would not fit.
    is_full: bool,
}

impl Page {
    fn ending_at(self, next_seq: Option<i64>) -> TimelinePage {
        TimelinePage { events: self.events, parts: self.parts, next_seq }
    }

    fn new(limit: u32) -> Self {
        Self { events: Vec::new(), parts: Vec::new(), bytes: 0, limit, is_full: false }
    }

    fn room(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.events.len()).unwrap_or(u32::MAX))
    }

    fn is_full(&self) -> bool {
        self.is_full || self.room() == 0
    }

    /// Takes what there is room for of a chain after `after`; returns the place of the last event taken.
    async fn read(
        &mut self,
        workspace: &Workspace,
        chain: &SessionRow,
        after: i64,
    ) -> Result<i64, StoreError> {
        let mut last = after;
        while !self.is_full() {
            let (chunk, bytes_left) =
                (self.room().min(CHUNK_EVENTS), MAX_ANSWER_BYTES.saturating_sub(self.bytes));
            let (rows, has_more) =
                workspace.events().of_session_within(chain, last, chunk, bytes_left).await?;
            let taken: usize = rows.iter().map(|row| row.payload.len() + row.metadata.len()).sum();
            self.bytes += taken;
            last = rows.last().map_or(last, |row| row.seq);
            self.is_full = has_more && rows.len() < chunk as usize || self.bytes >= MAX_ANSWER_BYTES;
            self.events.extend(rows);
            if !has_more {
                break;
            }
        }
        if last > after {
            self.parts.push(Part { chain: chain.clone(), after, last });
        }
        Ok(last)
    }
}
