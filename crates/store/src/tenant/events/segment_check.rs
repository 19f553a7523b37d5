//! Checking the search index against the events, a segment at a time: that every event is in it, and that it names every block that
//! a search for the event asks for.
//!
//! A segment of which no event is gone is built again and must be the same. Of the others only what is left can be checked: the
//! index may name more than that, which costs a search time but hides nothing.

use agentlens_domain::limits::SEGMENT_EVENTS;
use agentlens_domain::search::{Segment, SegmentBuilder};
use agentlens_domain::time::day_of;

use super::search::SegmentRow;
use super::segments::{Built, IndexedEvent, Segments, build, places_of_segment, push, shard_at};
use crate::error::StoreError;
use crate::statement::{NamedRow, Row};
use crate::tenant::blocking;
use crate::{args, row_type};

/// Segments that are listed at a time.
const CHUNK_SEGMENTS: u32 = 100;
/// How often a segment is checked again because retention may have changed it meanwhile.
const MAX_TRIES: usize = 3;
/// So many faults are named.
const MAX_FAULTS: usize = 20;
/// Blocks of a segment: see [`Segment`].
const MAX_BLOCKS: usize = 64;

row_type! {
    struct Marks {
        pub indexed_position: i64,
        pub last_position: i64,
        pub last_of_segments: i64,
    }
}

impl Segments<'_> {
    /// Checks the index as far as it reaches. Returns what is wrong, in words. What expired before `now_us` may be missing.
    pub async fn verify(self, now_us: i64) -> Result<Vec<String>, StoreError> {
        // One statement, so that all of it is of one moment.
        let sql = "select indexed_position, last_position,
               (select coalesce(max(last_position), 0) from search_segments where org_id = $1)
             from org_state where org_id = $1";
        let Some(marks) = self.0.find::<Marks>(sql, args![]).await? else { return Ok(Vec::new()) };
        let mut faults = Vec::new();
        if marks.indexed_position > marks.last_position {
            faults.push(format!(
                "The search index says that it reaches event {}, but only {} events were stored",
                marks.indexed_position, marks.last_position
            ));
        }
        if marks.last_of_segments > marks.indexed_position {
            faults.push(format!(
                "The search index says that it reaches event {}, but it holds events up to {}",
                marks.indexed_position, marks.last_of_segments
            ));
        }
        let end = marks.indexed_position.min(marks.last_position);
        let (mut reached, mut after) = (0, i64::MIN);
        loop {
            let rows = self.listed(after, CHUNK_SEGMENTS).await?;
            for row in rows.iter().filter(|row| row.last_position <= end) {
                if row.first_position <= reached {
                    faults.push(format!("The search index holds event {} twice", row.first_position));
                }
                faults.extend(self.unindexed(reached + 1, row.first_position - 1, now_us).await?);
                faults.extend(self.verify_segment(row.first_position).await?);
                reached = reached.max(row.last_position);
                if faults.len() >= MAX_FAULTS {
                    return Ok(faults);
                }
            }
            match rows.last() {
                Some(last) if rows.len() == CHUNK_SEGMENTS as usize => after = last.first_position,
                _ => break,
            }
        }
        faults.extend(self.unindexed(reached + 1, end, now_us).await?);
        Ok(faults)
    }

    async fn listed(self, after: i64, limit: u32) -> Result<Vec<SegmentRow>, StoreError> {
        let sql = format!(
            "select {} from search_segments where org_id = $1 and first_position > $2 order by first_position limit $3",
            SegmentRow::COLUMNS
        );
        self.0.fetch(sql, args![after, limit]).await
    }

    /// What is wrong if an event that has not expired lies between two positions, where no segment is.
    async fn unindexed(self, first: i64, last: i64, now_us: i64) -> Result<Option<String>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let sql = "select position from events where org_id = $1 and position >= $2 and position <= $3 and expire_day >= $4
             order by position limit 1";
        let event: Option<i64> = self.0.find(sql, args![first, last, day_of(now_us)]).await?;
        Ok(event.map(|position| format!("Event {position} is missing in the search index")))
    }

    /// What is wrong with a segment; nothing if it is gone, since retention deletes segments.
    async fn verify_segment(self, first_position: i64) -> Result<Option<String>, StoreError> {
        let mut fault = None;
        for _ in 0..MAX_TRIES {
            let rows = self.listed(first_position - 1, 1).await?;
            let Some(row) = rows.into_iter().find(|row| row.first_position == first_position) else {
                return Ok(None);
            };
            let last_position = row.last_position;
            if self.is_as_events_say(row).await? {
                return Ok(None);
            }
            fault = Some(format!(
                "The search index of events {first_position} to {last_position} differs from its events"
            ));
        }
        Ok(fault)
    }

    async fn is_as_events_say(self, row: SegmentRow) -> Result<bool, StoreError> {
        let (first, last) = (row.first_position, row.last_position);
        let has_bounds = first <= last && last - first < i64::try_from(SEGMENT_EVENTS).unwrap_or(i64::MAX);
        let Ok(block_starts) = serde_json::from_str::<Vec<i64>>(&row.block_starts) else { return Ok(false) };
        let is_ascending = block_starts.is_sorted_by(|left, right| left < right);
        let is_inside = block_starts.first() == Some(&first) && block_starts.last() <= Some(&last);
        if !has_bounds || !is_ascending || !is_inside || block_starts.len() > MAX_BLOCKS {
            return Ok(false);
        }
        // A segment that was made to reach further than one ever does is not read as a whole.
        if row.has_text && self.segment_end(first - 1, last).await? != last {
            return Ok(false);
        }
        let events = self.events(first - 1, last, row.has_text).await?;
        let places = places_of_segment(first);
        let sql = "select place, grams from search_shards where org_id = $1 and place >= $2 and place < $3 order by place";
        let shards: Vec<Row> = self.0.fetch(sql, args![places.start, places.end]).await?;
        let shards = shards.iter().map(|row| Ok((shard_at(row.get(0)?).1, row.get(1)?)));
        let shards = shards.collect::<Result<Vec<(u16, Vec<u8>)>, StoreError>>()?;
        let segment = Segment { first_position: first, last_position: last, block_starts, shards };
        let stored = Built {
            segment,
            ts_us: (row.min_ts_us, row.max_ts_us),
            expire_day: (row.min_expire_day, row.max_expire_day),
        };
        blocking(move || Ok(is_same_or_covers(&stored, &events))).await
    }
}

/// Whether a stored segment is what its events make; if some of them are gone, whether it has what is left.
fn is_same_or_covers(stored: &Built, events: &[IndexedEvent]) -> bool {
    let Some(built) = build(events) else { return true };
    let segment = &stored.segment;
    let length = segment.last_position - segment.first_position + 1;
    if i64::try_from(events.len()) == Ok(length) {
        return built.segment == *segment
            && (built.ts_us, built.expire_day) == (stored.ts_us, stored.expire_day);
    }
    let is_within = stored.ts_us.0 <= built.ts_us.0
        && stored.ts_us.1 >= built.ts_us.1
        && stored.expire_day.0 <= built.expire_day.0
        && stored.expire_day.1 >= built.expire_day.1;
    is_within && segment.covers(&build_in_blocks(&segment.block_starts, events))
}

/// The segment of some events, in the blocks of a stored one.
fn build_in_blocks(block_starts: &[i64], events: &[IndexedEvent]) -> Segment {
    let (mut builder, mut text) = (SegmentBuilder::new(), String::new());
    let mut starts = block_starts.iter().copied().peekable();
    for event in events {
        while let Some(start) = starts.next_if(|start| *start <= event.position) {
            builder.start_block(start);
        }
        push(&mut builder, event, &mut text);
    }
    starts.for_each(|start| builder.start_block(start));
    builder.finish()
}
