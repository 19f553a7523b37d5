//! Finding events by content: an exact substring of the payload's text, or by agent, type, severity and the like.
//!
//! The tail that is not indexed yet is read directly. Then the segments are taken in the order of the list, and of
//! each only the blocks that may hold a match are read. The result is in the order of time, as every list is: a segment
//! is opened before rows that could come after its first one are handed out.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use agentlens_domain::limits::MAX_SEARCH_SCAN_EVENTS;
use agentlens_domain::page::Cursor;
use agentlens_domain::search::{Query, block_ranges, fold};

use super::list::{Access, EventFilter, Order, add_keyset};
use super::segments::{place_of_shard, shard_at};
use super::{COLUMNS, StoredEvent};
use crate::error::StoreError;
use crate::statement::{Builder, Row};
use crate::tenant::{Tenant, blocking};
use crate::{args, row_type};

/// Segments whose shards are fetched together: few at first, since most searches end in the newest ones.
const FIRST_SEGMENTS: usize = 4;
const MAX_SEGMENTS_TOGETHER: usize = 128;
/// Events of the tail that are read at a time; fewer once they turn out to be large.
const TAIL_WINDOW_EVENTS: i64 = 1024;
const LARGE_WINDOW_EVENTS: i64 = 32;
const TAIL_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// A page of search results.
#[derive(Debug, Default)]
pub struct SearchPage {
    /// The rows.
    pub events: Vec<StoredEvent>,
    /// Where to go on; absent when there is nothing more.
    pub next: Option<Cursor>,
    /// Whether the search stopped early, after reading as much as one request may; going on from `next` continues it.
    pub is_partial: bool,
}

row_type! {
    /// A stored segment.
    pub(crate) struct SegmentRow {
        /// Its first position.
        pub first_position: i64,
        /// Its last position.
        pub last_position: i64,
        /// Its earliest instant.
        pub min_ts_us: i64,
        /// Its latest instant.
        pub max_ts_us: i64,
        /// Its earliest day of expiry.
        pub min_expire_day: i32,
        /// Its latest day of expiry.
        pub max_expire_day: i32,
        /// Whether payload texts are in it.
        pub has_text: bool,
        /// First positions of its blocks, a JSON array.
        pub block_starts: String,
    }
}

/// Shards by the first position of their segment and their number.
type Shards = FxHashMap<i64, FxHashMap<u16, Vec<u8>>>;

/// A search under way.
struct Scan<'a> {
    tenant: &'a Tenant,
    filter: &'a EventFilter,
    query: Arc<Query>,
    has_needle: bool,
    after: Option<&'a Cursor>,
    /// Rows that are wanted: offset, limit, and one more to know whether there are more.
    wanted: usize,
    found: Vec<StoredEvent>,
    examined: usize,
}

impl Tenant {
    /// One page of events whose payload text holds `needle` (if given) and that match the filter, by time.
    pub async fn scan_events(
        &self,
        filter: &EventFilter,
        needle: Option<&str>,
        after: Option<&Cursor>,
        offset: u32,
        limit: u32,
    ) -> Result<SearchPage, StoreError> {
        let facets = facets_of(filter);
        let mut scan = Scan {
            tenant: self,
            filter,
            query: Arc::new(Query::new(needle.unwrap_or(""), &facets)),
            has_needle: needle.is_some(),
            after,
            wanted: (offset + limit) as usize + 1,
            found: Vec::new(),
            examined: 0,
        };
        let stopped_at = scan.run().await?;
        if let Some(edge) = &stopped_at {
            scan.drop_beyond(edge);
        }
        scan.sort();
        let mut events: Vec<StoredEvent> = scan.found.into_iter().skip(offset as usize).collect();
        let has_more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let last = events.last().map(|last| Cursor { value: last.ts_us, id: last.id.clone() });
        let next = if has_more { last } else { stopped_at.clone() };
        Ok(SearchPage { events, next, is_partial: stopped_at.is_some() && !has_more })
    }
}

fn facets_of(filter: &EventFilter) -> Vec<(&str, &str)> {
    let mut facets: Vec<(&str, &str)> = Vec::new();
    let single = [
        ("agent", &filter.agent_id),
        ("user", &filter.user_id),
        ("model", &filter.model),
        ("name", &filter.name),
    ];
    facets.extend(single.iter().filter_map(|(facet, value)| Some((*facet, value.as_deref()?))));
    // A facet of the query must be in the block, so alternatives can't be facets.
    if let [event_type] = filter.event_types.as_slice() {
        facets.push(("type", event_type));
    }
    if let [severity] = filter.severities.as_slice() {
        facets.push(("severity", severity));
    }
    facets
}

impl Scan<'_> {
    /// Collects matches until enough are certain; returns where it stopped if it read as much as it may.
    async fn run(&mut self) -> Result<Option<Cursor>, StoreError> {
        // The mark is read before the segments: what is indexed in between belongs to the tail for this search.
        let indexed = self.indexed().await?;
        let mut segments = self.segments().await?;
        segments.retain(|segment| segment.last_position <= indexed);
        self.read_tail(indexed).await?;
        match self.filter.order {
            Order::Descending => segments.sort_by_key(|segment| Reverse(segment.max_ts_us)),
            Order::Ascending => segments.sort_by_key(|segment| segment.min_ts_us),
        }
        let mut rest = segments.as_slice();
        let mut together = FIRST_SEGMENTS;
        while !rest.is_empty() {
            let (group, others) = rest.split_at(together.min(rest.len()));
            let mut shards = self.shards(group).await?;
            for (index, segment) in group.iter().enumerate() {
                if self.is_settled_before(segment) {
                    return Ok(None);
                }
                let edge = self.edge_of(&group[index]);
                if self.examined >= MAX_SEARCH_SCAN_EVENTS && self.is_progress(&edge) {
                    return Ok(Some(edge));
                }
                let own = shards.remove(&segment.first_position).unwrap_or_default();
                self.read_segment(segment, &own).await?;
            }
            rest = others;
            together = (together * 4).min(MAX_SEGMENTS_TOGETHER);
        }
        Ok(None)
    }

    async fn segments(&self) -> Result<Vec<SegmentRow>, StoreError> {
        let mut statement = Builder::new(
            "select first_position, last_position, min_ts_us, max_ts_us, min_expire_day, max_expire_day, has_text, block_starts
             from search_segments where org_id = $1",
        );
        let (mut from_us, mut to_us) = (self.filter.from_us, self.filter.to_us);
        match (self.after, self.filter.order) {
            (Some(cursor), Order::Descending) => {
                to_us = Some(to_us.map_or(cursor.value, |to| to.min(cursor.value)))
            }
            (Some(cursor), Order::Ascending) => {
                from_us = Some(from_us.map_or(cursor.value, |from| from.max(cursor.value)))
            }
            (None, _) => {}
        }
        statement.with_some(" and max_ts_us >= $", from_us).with_some(" and min_ts_us <= $", to_us);
        let (sql, args) = statement.finish();
        self.tenant.fetch(sql, args).await
    }

    /// The position up to which events are indexed.
    async fn indexed(&self) -> Result<i64, StoreError> {
        let indexed =
            self.tenant.find("select indexed_position from org_state where org_id = $1", vec![]).await?;
        Ok(indexed.unwrap_or(0))
    }

    /// Reads what is not indexed yet.
    async fn read_tail(&mut self, indexed: i64) -> Result<(), StoreError> {
        if !self.has_needle {
            let tail = indexed + 1..i64::MAX;
            return self.read_rows(std::slice::from_ref(&tail), None).await;
        }
        let last = self.tenant.last_position().await?;
        let mut from = indexed + 1;
        let mut window = TAIL_WINDOW_EVENTS;
        while from <= last {
            let part = from..from + window;
            let bytes = self.read_matching(std::slice::from_ref(&part), None).await?;
            from += window;
            window = if bytes > TAIL_WINDOW_BYTES { LARGE_WINDOW_EVENTS } else { TAIL_WINDOW_EVENTS };
        }
        Ok(())
    }

    /// The shards of segments that the query asks for. Half of them exclude most segments, of which the others are left out:
    /// what lacks a shard has no match.
    async fn shards(&self, group: &[SegmentRow]) -> Result<Shards, StoreError> {
        let numbers = self.query.shards();
        let (some, others) = numbers.split_at(numbers.len().div_ceil(2));
        let mut found = Shards::default();
        let all: Vec<i64> = group.iter().map(|segment| segment.first_position).collect();
        self.fetch_shards(&all, some, &mut found).await?;
        let left: Vec<i64> = all
            .into_iter()
            .filter(|first_position| {
                let own = found.get(first_position);
                let shard = |number| own.and_then(|own| own.get(&number)).map(Vec::as_slice);
                self.query.candidates_by(|number| some.contains(&number), shard) != 0
            })
            .collect();
        self.fetch_shards(&left, others, &mut found).await?;
        Ok(found)
    }

    async fn fetch_shards(
        &self,
        segments: &[i64],
        numbers: &[u16],
        found: &mut Shards,
    ) -> Result<(), StoreError> {
        let places: Vec<i64> = segments
            .iter()
            .flat_map(|first_position| numbers.iter().map(|number| place_of_shard(*first_position, *number)))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let sql = "select place, grams from search_shards where org_id = $1 and place = any($2)";
        let rows: Vec<Row> = self.tenant.fetch(sql, args![places]).await?;
        for row in &rows {
            let (first_position, number) = shard_at(row.get(0)?);
            found.entry(first_position).or_default().insert(number, row.get(1)?);
        }
        Ok(())
    }

    async fn read_segment(
        &mut self,
        segment: &SegmentRow,
        shards: &FxHashMap<u16, Vec<u8>>,
    ) -> Result<(), StoreError> {
        let candidates = match segment.has_text || !self.has_needle {
            true => self.query.candidates(|shard| shards.get(&shard).map(Vec::as_slice)),
            false => u64::MAX,
        };
        let starts: Vec<i64> = serde_json::from_str(&segment.block_starts).unwrap_or_default();
        let ranges = block_ranges(&starts, segment.last_position, candidates);
        if ranges.is_empty() {
            return Ok(());
        }
        let days = Some((segment.min_expire_day, segment.max_expire_day));
        if self.has_needle {
            self.read_matching(&ranges, days).await.map(|_| ())
        } else {
            self.read_rows(&ranges, days).await
        }
    }

    /// Reads rows that match the filter, as many as are wanted.
    async fn read_rows(&mut self, ranges: &[Range<i64>], days: Option<(i32, i32)>) -> Result<(), StoreError> {
        let mut statement = Builder::new("select ");
        statement.text(COLUMNS).text(" from events where org_id = $1");
        add_ranges(&mut statement, ranges, days);
        self.filter.add_to(&mut statement, Access::Position);
        add_keyset(&mut statement, Access::Position, self.filter.order, self.after);
        statement.with(" limit $", i64::try_from(self.wanted).unwrap_or(i64::MAX));
        let (sql, args) = statement.finish();
        let rows: Vec<StoredEvent> = self.tenant.fetch(sql, args).await?;
        self.examined += rows.len();
        self.found.extend(rows);
        Ok(())
    }

    /// Reads the payloads of rows that match the filter, and the whole rows of those that hold the needle. Returns how
    /// many bytes of payloads that were.
    async fn read_matching(
        &mut self,
        ranges: &[Range<i64>],
        days: Option<(i32, i32)>,
    ) -> Result<usize, StoreError> {
        let mut statement = Builder::new("select position, payload from events where org_id = $1");
        add_ranges(&mut statement, ranges, days);
        self.filter.add_to(&mut statement, Access::Position);
        add_keyset(&mut statement, Access::Position, self.filter.order, self.after);
        let (sql, args) = statement.finish();
        let rows: Vec<Row> = self.tenant.fetch(sql, args).await?;
        self.examined += rows.len();
        let query = Arc::clone(&self.query);
        let (matching, bytes) = blocking(move || matching_positions(&query, &rows)).await?;
        if !matching.is_empty() {
            let mut statement = Builder::new("select ");
            statement
                .text(COLUMNS)
                .text(" from events where org_id = $1")
                .with(" and position = any($)", matching);
            if let Some((first, last)) = days {
                statement.with(" and expire_day >= $", first).with(" and expire_day <= $", last);
            }
            add_keyset(&mut statement, Access::Position, self.filter.order, None);
            statement.with(" limit $", i64::try_from(self.wanted).unwrap_or(i64::MAX));
            let (sql, args) = statement.finish();
            let rows: Vec<StoredEvent> = self.tenant.fetch(sql, args).await?;
            self.found.extend(rows);
        }
        Ok(bytes)
    }

    fn sort(&mut self) {
        match self.filter.order {
            Order::Descending => self.found.sort_by(|a, b| (b.ts_us, &b.id).cmp(&(a.ts_us, &a.id))),
            Order::Ascending => self.found.sort_by(|a, b| (a.ts_us, &a.id).cmp(&(b.ts_us, &b.id))),
        }
    }

    /// Whether enough rows were found that come before everything in the segment and in those after it.
    fn is_settled_before(&self, segment: &SegmentRow) -> bool {
        let is_before = |event: &&StoredEvent| match self.filter.order {
            Order::Descending => event.ts_us > segment.max_ts_us,
            Order::Ascending => event.ts_us < segment.min_ts_us,
        };
        self.found.len() >= self.wanted && self.found.iter().filter(is_before).count() >= self.wanted
    }

    /// The place from which a stopped search goes on: the near edge of the segment that was not read.
    fn edge_of(&self, segment: &SegmentRow) -> Cursor {
        match self.filter.order {
            Order::Descending => Cursor { value: segment.max_ts_us + 1, id: String::new() },
            Order::Ascending => Cursor { value: segment.min_ts_us, id: String::new() },
        }
    }
}

impl Scan<'_> {
    /// Whether going on from `edge` is further than this search itself began; otherwise it would never end.
    fn is_progress(&self, edge: &Cursor) -> bool {
        self.after.is_none_or(|after| match self.filter.order {
            Order::Descending => edge.value < after.value,
            Order::Ascending => edge.value > after.value,
        })
    }

    /// Drops rows of the tail and of wide segments that lie beyond the edge: the next page finds them in their place.
    fn drop_beyond(&mut self, edge: &Cursor) {
        match self.filter.order {
            Order::Descending => self.found.retain(|event| event.ts_us >= edge.value),
            Order::Ascending => self.found.retain(|event| event.ts_us < edge.value),
        }
    }
}

fn add_ranges(statement: &mut Builder, ranges: &[Range<i64>], days: Option<(i32, i32)>) {
    for (index, range) in ranges.iter().enumerate() {
        statement.text(if index == 0 { " and (" } else { " or " });
        statement.with("(position >= $", range.start).with(" and position < $)", range.end);
    }
    statement.text(")");
    if let Some((first, last)) = days {
        statement.with(" and expire_day >= $", first).with(" and expire_day <= $", last);
    }
}

fn matching_positions(query: &Query, rows: &[Row]) -> Result<(Vec<i64>, usize), StoreError> {
    let (mut matching, mut bytes, mut text) = (Vec::new(), 0, String::new());
    for row in rows {
        let payload = row.bytes(1)?;
        bytes += payload.len();
        text.clear();
        fold(&String::from_utf8_lossy(payload), &mut text);
        if query.matches(&text) {
            matching.push(row.get(0)?);
        }
    }
    Ok((matching, bytes))
}
