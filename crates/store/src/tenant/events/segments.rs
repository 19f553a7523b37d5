//! Building the search index: some thousand events at a time, after they are stored. What is not indexed yet is a tail
//! of at most a few thousand events, which searches read directly.

use std::ops::Range;

use agentlens_domain::limits::{SEGMENT_EVENTS, SEGMENT_TEXT_BYTES};
use agentlens_domain::search::{SHARDS, Segment, SegmentBuilder, fold_for_index};

use crate::error::StoreError;
use crate::statement::{Builder, Value};
use crate::tenant::{Org, blocking};
use crate::{args, row_type};

/// Shards that one statement stores.
const SHARDS_AT_A_TIME: usize = 16;

/// Where a shard of a segment lies: the shards of a segment are neighbours, since they are written together.
pub(super) fn place_of_shard(first_position: i64, shard: u16) -> i64 {
    places_of_segment(first_position).start + i64::from(shard)
}

/// The places of all shards of a segment.
pub(crate) fn places_of_segment(first_position: i64) -> Range<i64> {
    first_position * SHARDS as i64..(first_position + 1) * SHARDS as i64
}

/// The segment's first position and the shard of a place.
pub(super) fn shard_at(place: i64) -> (i64, u16) {
    let shards = SHARDS as i64;
    (place.div_euclid(shards), u16::try_from(place.rem_euclid(shards)).unwrap_or(u16::MAX))
}

row_type! {
    /// What the index needs of an event.
    pub(crate) struct IndexedEvent {
        /// Its position.
        pub position: i64,
        /// Its instant.
        pub ts_us: i64,
        /// Its day of expiry.
        pub expire_day: i32,
        /// Its agent.
        pub agent_id: String,
        /// Its type.
        pub event_type: String,
        /// Its severity.
        pub severity: String,
        /// Its end user.
        pub user_id: Option<String>,
        /// Its model.
        pub model: Option<String>,
        /// Its name.
        pub name: Option<String>,
        /// Its payload, where its text is indexed.
        pub payload: Option<Vec<u8>>,
    }
}

/// A segment with the bounds of its events.
pub(super) struct Built {
    pub(super) segment: Segment,
    pub(super) ts_us: (i64, i64),
    pub(super) expire_day: (i32, i32),
}

/// The search index of an org.
#[derive(Clone, Copy)]
pub struct Segments<'o>(pub(super) &'o Org);

impl Org {
    /// The segments of its search index.
    pub fn segments(&self) -> Segments<'_> {
        Segments(self)
    }
}

impl Segments<'_> {
    /// Indexes the next segment if enough events wait for it; returns whether it did. `with_text` off leaves out the
    /// payloads' text, so that only agents, types and the like are found quickly.
    pub async fn index_next(self, with_text: bool) -> Result<bool, StoreError> {
        let state: Vec<crate::statement::Row> = self
            .0
            .fetch("select last_position, indexed_position from org_state where org_id = $1", vec![])
            .await?;
        let Some(row) = state.first() else { return Ok(false) };
        let (last, indexed): (i64, i64) = (row.get(0)?, row.get(1)?);
        let segment_events = i64::try_from(SEGMENT_EVENTS).unwrap_or(i64::MAX);
        if last - indexed < segment_events {
            return Ok(false);
        }
        let limit = indexed + segment_events;
        let reached = if with_text { self.segment_end(indexed, limit).await? } else { limit };
        let events = self.events(indexed, reached, with_text).await?;
        let built = blocking(move || Ok(build(&events))).await?;
        self.store_segment(built, indexed, reached, with_text).await?;
        Ok(true)
    }

    /// What the index needs of the events after `indexed` up to `reached`.
    pub(super) async fn events(
        self,
        indexed: i64,
        reached: i64,
        with_text: bool,
    ) -> Result<Vec<IndexedEvent>, StoreError> {
        let select = if with_text {
            "select position, ts_us, expire_day, agent_id, event_type, severity, user_id, model, name, payload
             from events where org_id = $1 and position > $2 and position <= $3 order by position"
        } else {
            "select position, ts_us, expire_day, agent_id, event_type, severity, user_id, model, name, null
             from events where org_id = $1 and position > $2 and position <= $3 order by position"
        };
        self.0.fetch(select, args![indexed, reached]).await
    }

    /// How far a segment may reach from `indexed` on, at most to `limit`, so that its payloads stay within the bytes of a
    /// segment: they are read at once.
    pub(super) async fn segment_end(self, indexed: i64, limit: i64) -> Result<i64, StoreError> {
        let sizes: Vec<crate::statement::Row> = self
            .0
            .fetch(
                "select position, cast(length(payload) as bigint) from events where org_id = $1 and position > $2 and position <= $3 order by position",
                args![indexed, limit],
            )
            .await?;
        let mut bytes = 0usize;
        for row in &sizes {
            bytes += usize::try_from(row.get::<i64>(1)?).unwrap_or(0);
            if bytes >= SEGMENT_TEXT_BYTES {
                return row.get(0);
            }
        }
        Ok(limit)
    }

    async fn store_segment(
        self,
        built: Option<Built>,
        indexed: i64,
        reached: i64,
        with_text: bool,
    ) -> Result<(), StoreError> {
        // All events of the range may have expired meanwhile; then there is nothing to store but the progress.
        let last = built.as_ref().map_or(reached, |built| built.segment.last_position);
        let mut statements: Vec<(String, Vec<Value>)> = Vec::new();
        if let Some(Built { segment, ts_us, expire_day }) = built {
            let starts = serde_json::to_string(&segment.block_starts).unwrap_or_default();
            statements.push((
                "insert into search_segments (org_id, first_position, last_position, min_ts_us, max_ts_us, min_expire_day, max_expire_day, has_text, block_starts)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
                    .to_owned(),
                args![segment.first_position, segment.last_position, ts_us.0, ts_us.1, expire_day.0, expire_day.1, with_text, starts],
            ));
            let first_position = segment.first_position;
            statements.extend(
                segment.shards.chunks(SHARDS_AT_A_TIME).map(|shards| insert_shards(first_position, shards)),
            );
        }
        statements.push((
            "update org_state set indexed_position = $3 where org_id = $1 and indexed_position = $2"
                .to_owned(),
            args![indexed, last],
        ));
        self.0.execute_all(statements).await.map(|_| ())
    }
}

/// One insert of several shards.
fn insert_shards(first_position: i64, shards: &[(u16, Vec<u8>)]) -> (String, Vec<Value>) {
    let mut statement = Builder::of_org("insert into search_shards (org_id, place, grams) values ");
    for (index, (shard, grams)) in shards.iter().enumerate() {
        statement
            .text(if index == 0 { "($1" } else { ", ($1" })
            .with(", $", place_of_shard(first_position, *shard))
            .with(", $", grams.as_slice())
            .text(")");
    }
    statement.finish()
}

pub(super) fn build(events: &[IndexedEvent]) -> Option<Built> {
    let first = events.first()?;
    let mut built = Built {
        segment: SegmentBuilder::new().finish(),
        ts_us: (first.ts_us, first.ts_us),
        expire_day: (first.expire_day, first.expire_day),
    };
    let mut builder = SegmentBuilder::new();
    let mut text = String::new();
    for event in events {
        if builder.is_full() {
            break;
        }
        push(&mut builder, event, &mut text);
        built.ts_us = (built.ts_us.0.min(event.ts_us), built.ts_us.1.max(event.ts_us));
        built.expire_day =
            (built.expire_day.0.min(event.expire_day), built.expire_day.1.max(event.expire_day));
    }
    built.segment = builder.finish();
    Some(built)
}

/// Adds an event to a segment. `text` is a buffer.
pub(super) fn push(builder: &mut SegmentBuilder, event: &IndexedEvent, text: &mut String) {
    text.clear();
    if let Some(payload) = &event.payload {
        fold_for_index(&String::from_utf8_lossy(payload), text);
    }
    let optional = [("user", &event.user_id), ("model", &event.model), ("name", &event.name)];
    let mut facets =
        vec![("agent", event.agent_id.as_str()), ("type", &event.event_type), ("severity", &event.severity)];
    facets.extend(optional.iter().filter_map(|(facet, value)| Some((*facet, value.as_deref()?))));
    builder.push(event.position, text, &facets);
}
