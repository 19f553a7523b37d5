//! Lists of events by time. A list without conditions on content walks the time index; one of a session walks the
//! session; everything else asks the search index which blocks of events are worth reading.

use agentlens_domain::limits::MAX_ANSWER_BYTES;
use agentlens_domain::page::Cursor;
use agentlens_domain::rollups::UNKNOWN_MODEL;

use super::places::{EventPlace, PLACE_COLUMNS, fitting};
use super::{Events, StoredEvent};
use crate::error::StoreError;
use crate::statement::{Builder, NamedRow};

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// Oldest first.
    Ascending,
}

/// Which events to list. Empty lists and `None` are no condition; `from` and `to` are inclusive, microseconds UTC.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is the condition that its name says")]
pub struct EventFilter {
    pub environment: Option<String>,
    pub session_id: Option<String>,
    /// Further chains of that session.
    pub moved_chains: Vec<String>,
    pub agent_id: Option<String>,
    pub user_id: Option<String>,
    pub model: Option<String>,
    pub name: Option<String>,
    pub event_types: Vec<String>,
    pub severities: Vec<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    pub order: Order,
}

/// A page of events.
#[derive(Debug, Default)]
pub struct EventPage {
    /// The rows.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<Cursor>,
}

impl EventFilter {
    /// Whether no index of the database finds the events quickly, so that [`Events::search`] should.
    pub fn needs_search(&self) -> bool {
        self.session_id.is_none() && self.chooses_by_content()
    }

    /// Whether it chooses events by what they say, rather than by when and where they came.
    pub fn chooses_by_content(&self) -> bool {
        self.agent_id.is_some()
            || self.user_id.is_some()
            || self.model.is_some()
            || self.name.is_some()
            || !self.event_types.is_empty()
            || !self.severities.is_empty()
    }

    /// Whether calls of which no model is known are asked for, which analytics show under that name.
    pub(super) fn asks_for_unknown_models(&self) -> bool {
        self.model.as_deref() == Some(UNKNOWN_MODEL)
    }

    /// The chains that hold the events of the session.
    fn chains(&self) -> Option<Vec<String>> {
        let session = self.session_id.clone()?;
        Some(self.moved_chains.iter().cloned().chain([session]).collect())
    }

    /// Adds all conditions to a statement on `events`, for rows that are reached as `access` says.
    pub(super) fn add_to(&self, statement: &mut Builder, access: Access<'_>) {
        match access {
            Access::Time => statement.text(" and workspace_id = $2"),
            Access::Sessions(numbers) => statement
                .text(" and workspace_id || '' = $2")
                .with(" and session_number = any($)", numbers.to_vec()),
            Access::Position => statement
                .text(" and workspace_id || '' = $2")
                .with_some(" and session_id || '' = any($)", self.chains()),
        };
        statement
            .with_some(" and environment = $", self.environment.as_deref())
            .with_some(" and agent_id = $", self.agent_id.as_deref())
            .with_some(" and user_id = $", self.user_id.as_deref())
            .with_some(" and name = $", self.name.as_deref());
        if self.asks_for_unknown_models() {
            statement
                .with(" and (model = $", UNKNOWN_MODEL)
                .text(" or model is null and event_type in ('llm_call', 'llm_response', 'cost_tracked'))");
        } else {
            statement.with_some(" and model = $", self.model.as_deref());
        }
        match access {
            // True of every event; PostgreSQL's index asks for it.
            Access::Time => statement
                .text(" and ts_us > -9000000000000000000")
                .with_some(" and ts_us >= $", self.from_us)
                .with_some(" and ts_us <= $", self.to_us),
            Access::Sessions(_) | Access::Position => statement
                .with_some(" and ts_us + 0 >= $", self.from_us)
                .with_some(" and ts_us + 0 <= $", self.to_us),
        };
        if !self.event_types.is_empty() {
            statement.with(" and event_type = any($)", self.event_types.clone());
        }
        if !self.severities.is_empty() {
            statement.with(" and severity = any($)", self.severities.clone());
        }
    }
}

/// How a statement on `events` reaches its rows. A planner without statistics may take another index, for the sake of the
/// order or of an equality that all rows fulfil, and walk everybody's events. So what must not choose the index is written as an
/// expression that no index serves: `ts_us + 0`, `workspace_id || ''`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access<'a> {
    /// By the time index.
    Time,
    /// By the index of sessions with these numbers.
    Sessions(&'a [i64]),
    /// By positions.
    Position,
}

/// Adds the condition that a row comes after the cursor, and the order.
pub(super) fn add_keyset(statement: &mut Builder, access: Access<'_>, order: Order, after: Option<&Cursor>) {
    if let Some(cursor) = after {
        let condition = match (access, order) {
            (Access::Time, Order::Descending) => " and (ts_us, id) < ($",
            (Access::Time, Order::Ascending) => " and (ts_us, id) > ($",
            (_, Order::Descending) => " and (ts_us + 0, id) < ($",
            (_, Order::Ascending) => " and (ts_us + 0, id) > ($",
        };
        statement.with(condition, cursor.value).with(", $)", cursor.id.as_str());
    }
    statement.text(match (access, order) {
        (Access::Time, Order::Descending) => " order by ts_us desc, id desc",
        (Access::Time, Order::Ascending) => " order by ts_us, id",
        (_, Order::Descending) => " order by ts_us + 0 desc, id desc",
        (_, Order::Ascending) => " order by ts_us + 0, id",
    });
}

impl Events<'_> {
    /// One page of events by time: `limit` rows, or as many as fit into an answer.
    pub async fn list(
        self,
        filter: &EventFilter,
        after: Option<&Cursor>,
        offset: u32,
        limit: u32,
    ) -> Result<EventPage, StoreError> {
        if filter.needs_search() {
            let page = self.search(filter, None, after, offset, limit).await?;
            return Ok(EventPage { events: page.events, next: page.next });
        }
        let numbers = self.numbers_of(filter).await?;
        let access = numbers.as_deref().map_or(Access::Time, Access::Sessions);
        let mut statement = Builder::of_workspace("select ");
        statement.text(PLACE_COLUMNS).text(" from events where org_id = $1");
        filter.add_to(&mut statement, access);
        add_keyset(&mut statement, access, filter.order, after);
        statement.with(" limit $", i64::from(limit) + 1).with(" offset $", offset);
        let (sql, args) = statement.finish();
        let mut places: Vec<EventPlace> = self.0.fetch(sql, args).await?;
        let sizes = places.iter().map(|place| place.size_bytes);
        let count = fitting(sizes, MAX_ANSWER_BYTES).min(limit as usize);
        let has_more = count < places.len();
        places.truncate(count);
        let next = places.last().filter(|_| has_more).map(EventPlace::cursor);
        Ok(EventPage { events: self.events_at(&places).await?, next })
    }

    /// The numbers of the sessions in whose chains the events of the filter's session lie.
    async fn numbers_of(self, filter: &EventFilter) -> Result<Option<Vec<i64>>, StoreError> {
        let Some(chains) = filter.chains() else { return Ok(None) };
        Ok(Some(self.0.session_numbers(chains).await?))
    }

    /// How many events match, counted up to `cap`.
    pub async fn count(self, filter: &EventFilter, cap: i64) -> Result<i64, StoreError> {
        let numbers = self.numbers_of(filter).await?;
        let access = numbers.as_deref().map_or(Access::Time, Access::Sessions);
        let mut statement =
            Builder::of_workspace("select count(*) from (select 1 from events where org_id = $1");
        filter.add_to(&mut statement, access);
        if access == Access::Time {
            // In the order of the index of lists, which holds all that is asked for; left free, PostgreSQL may walk another one
            // for a large org, and read every row.
            add_keyset(&mut statement, access, filter.order, None);
        }
        statement.with(" limit $) as counted", cap);
        let (sql, args) = statement.finish();
        Ok(self.0.find(sql, args).await?.unwrap_or(0))
    }

    /// One event.
    pub async fn find(self, id: &str) -> Result<Option<StoredEvent>, StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(StoredEvent::COLUMNS)
            .text(" from events where org_id = $1 and workspace_id = $2")
            .with(" and id = $", id);
        let (sql, args) = statement.finish();
        self.0.find(sql, args).await
    }

    /// Events after a position, in the order in which they were stored.
    pub async fn after(self, position: i64, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement
            .text(StoredEvent::COLUMNS)
            .text(" from events where org_id = $1 and workspace_id || '' = $2")
            .with(" and position > $", position)
            .text(" order by position")
            .with(" limit $", limit);
        let (sql, args) = statement.finish();
        self.0.fetch(sql, args).await
    }

    /// Digests of what the given ids were used for; ids that were never used are left out.
    pub async fn key_digests(self, ids: Vec<String>) -> Result<Vec<(String, [u8; 16])>, StoreError> {
        let sql = "select id, content_digest from event_keys where org_id = $1 and workspace_id = $2 and id = any($3)";
        let rows: Vec<crate::statement::Row> = self.0.fetch_for_write(sql, crate::args![ids]).await?;
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }

    /// The position of the last stored event of the org.
    pub async fn last_position(self) -> Result<i64, StoreError> {
        let sql = "select last_position from org_state where org_id = $1";
        Ok(self.0.fetch_shared(sql, vec![]).await?.into_iter().next().unwrap_or(0))
    }
}
