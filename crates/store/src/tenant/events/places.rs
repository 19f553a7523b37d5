//! Places first, payloads after: a page knows the size of its rows before it reads anything large, and stops in time.

use rustc_hash::FxHashMap;

use agentlens_domain::page::Cursor;

use super::{Events, StoredEvent};
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{Builder, FromRow, NamedRow, Row};
use crate::tenant::SessionRow;

/// The columns of an [`EventPlace`]. Neither engine reads the payload to know its length.
pub(super) const PLACE_COLUMNS: &str =
    "position, expire_day, ts_us, id, octet_length(payload) + octet_length(metadata)";

row_type! {
    /// Where an event is, and how large it is.
    pub(crate) struct EventPlace {
        /// Its position.
        pub position: i64,
        /// The day on which it expires.
        pub expire_day: i32,
        /// Its instant.
        pub ts_us: i64,
        /// Its id.
        pub id: String,
        /// Bytes of its payload and metadata.
        pub size_bytes: i64,
    }
}

row_type! {
    /// A stored event without its content: what a live stream chooses by.
    pub struct StreamPlace {
        /// Its position.
        pub position: i64,
        /// Its session.
        pub session_id: String,
        /// Its agent.
        pub agent_id: String,
        /// Its type.
        pub event_type: String,
        /// Bytes of its payload and metadata.
        pub size_bytes: i64,
    }
}

/// Positions that one statement of a stream looks through: a workspace may have few of an org's events.
const POSITIONS_AT_A_TIME: i64 = 10_000;

/// Whether a row of [`Events::places_after`] is an event.
const IS_EVENT_COLUMN: usize = 5;

/// What a stream reads at a time.
#[derive(Debug)]
pub struct StreamPlaces {
    /// The workspace's events, in the order of storing.
    pub places: Vec<StreamPlace>,
    /// The position up to which these are all of them; the one that was asked for if nothing was stored behind it.
    pub read_to: i64,
}

impl EventPlace {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { value: self.ts_us, id: self.id.clone() }
    }
}

/// How many rows of these sizes fit into `max_bytes`: at least one, so that a page always gets on.
pub(super) fn fitting(sizes: impl Iterator<Item = i64>, max_bytes: usize) -> usize {
    let (mut count, mut taken) = (0, 0_usize);
    for size in sizes {
        taken = taken.saturating_add(usize::try_from(size).unwrap_or(0));
        if count > 0 && taken > max_bytes {
            break;
        }
        count += 1;
    }
    count
}

impl Events<'_> {
    /// The events at the given places, in the same order. Events that were deleted meanwhile are left out.
    pub(super) async fn events_at(self, places: &[EventPlace]) -> Result<Vec<StoredEvent>, StoreError> {
        let days = || places.iter().map(|place| place.expire_day);
        let (Some(first_day), Some(last_day)) = (days().min(), days().max()) else { return Ok(Vec::new()) };
        let positions: Vec<i64> = places.iter().map(|place| place.position).collect();
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(StoredEvent::COLUMNS)
            .text(" from events where org_id = $1 and workspace_id || '' = $2")
            .with(" and position = any($)", positions)
            .with(" and expire_day >= $", first_day)
            .with(" and expire_day <= $", last_day);
        let (sql, args) = statement.finish();
        let rows: Vec<StoredEvent> = self.0.fetch(sql, args).await?;
        let mut by_position: FxHashMap<i64, StoredEvent> =
            rows.into_iter().map(|event| (event.position, event)).collect();
        Ok(places.iter().filter_map(|place| by_position.remove(&place.position)).collect())
    }

    /// A session's events in the order of its chain after `after_seq`: at most `limit`, and as many as fit into `max_bytes`
    /// (but at least one). The second value says whether the chain has more.
    pub async fn of_session_within(
        self,
        session: &SessionRow,
        after_seq: i64,
        limit: u32,
        max_bytes: usize,
    ) -> Result<(Vec<StoredEvent>, bool), StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(PLACE_COLUMNS)
            // No index may serve the names, which only make sure that the rows are the session's.
            .text(" from events where org_id = $1 and workspace_id || '' = $2")
            .with(" and session_number = $", session.number)
            .with(" and seq > $", after_seq)
            .with(" and session_id || '' = $", session.session_id.as_str())
            .with(" order by seq limit $", i64::from(limit) + 1);
        let (sql, args) = statement.finish();
        let mut places: Vec<EventPlace> = self.0.fetch(sql, args).await?;
        let count = fitting(places.iter().map(|place| place.size_bytes), max_bytes).min(limit as usize);
        let has_more = count < places.len();
        places.truncate(count);
        Ok((self.events_at(&places).await?, has_more))
    }

    /// What was stored after a position, in the order of storing, without its content: at most `limit` events.
    pub async fn places_after(self, position: i64, limit: u32) -> Result<StreamPlaces, StoreError> {
        let last = position.saturating_add(POSITIONS_AT_A_TIME);
        // One statement, so that the last position of the org is that of the same moment; its row is no event.
        let mut statement = Builder::of_workspace(
            "select * from (select position, session_id, agent_id, event_type, octet_length(payload) + octet_length(metadata), 1
               from events where org_id = $1 and workspace_id || '' = $2",
        );
        statement
            .with(" and position > $", position)
            .with(" and position <= $", last)
            .with(" order by position limit $) as places", limit)
            .text(" union all select last_position, '', '', '', 0, 0 from org_state where org_id = $1");
        let (sql, args) = statement.finish();
        let rows: Vec<Row> = self.0.fetch(sql, args).await?;
        let (mut places, mut stored_to) = (Vec::with_capacity(rows.len()), position);
        for row in &rows {
            match row.get(IS_EVENT_COLUMN)? {
                true => places.push(StreamPlace::from_row(row)?),
                false => stored_to = stored_to.max(row.get(0)?),
            }
        }
        places.sort_unstable_by_key(|place| place.position);
        let read_to = match places.last() {
            Some(place) if places.len() >= limit as usize => place.position,
            _ => last.min(stored_to),
        };
        Ok(StreamPlaces { places, read_to })
    }

    /// The position of an event.
    pub async fn position_of(self, id: &str) -> Result<Option<i64>, StoreError> {
        let mut statement =
            Builder::of_workspace("select position from events where org_id = $1 and workspace_id = $2");
        statement.with(" and id = $", id);
        let (sql, args) = statement.finish();
        self.0.find(sql, args).await
    }

    /// The events at the given positions, in the order of storing.
    pub async fn at_positions(self, positions: Vec<i64>) -> Result<Vec<StoredEvent>, StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(StoredEvent::COLUMNS)
            .text(" from events where org_id = $1 and workspace_id || '' = $2")
            .with(" and position = any($)", positions)
            .text(" order by position");
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }

    /// Events by their ids, in no order, as many as fit into `max_bytes`; ids that are unknown are left out.
    pub async fn by_ids_within(
        self,
        ids: Vec<String>,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(PLACE_COLUMNS)
            .text(" from events where org_id = $1 and workspace_id = $2")
            .with(" and id = any($)", ids);
        let (sql, args) = statement.finish();
        let mut places: Vec<EventPlace> = self.0.fetch(sql, args).await?;
        // The first to arrive come first, whichever index found them.
        places.sort_unstable_by_key(|place| place.position);
        places.truncate(fitting(places.iter().map(|place| place.size_bytes), max_bytes));
        self.events_at(&places).await
    }
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn a_page_holds_what_fits_and_always_one_row() {
        assert_eq!(fitting([5, 5, 5].into_iter(), 10), 2);
        assert_eq!(fitting([50, 5].into_iter(), 10), 1);
        assert_eq!(fitting([0, 0, 10, 1].into_iter(), 10), 3);
        assert_eq!(fitting([].into_iter(), 10), 0);
    }
}
