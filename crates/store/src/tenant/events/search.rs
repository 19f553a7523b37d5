//! Finding events by content: an exact substring of the payload's text, or by agent, type, severity and the like.
//!
//! The tail that is not indexed yet is read directly. Then the segments are taken in the order of the list, and of
//! each only the blocks that may hold a match are read. The result is in the order of time, as every list is: a segment
//! is opened before rows that could come after its first one are handed out.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use agentlens_domain::limits::{MAX_ANSWER_BYTES, MAX_COUNTED_ROWS, MAX_SEARCH_SCAN_EVENTS};
use agentlens_domain::page::Cursor;
use agentlens_domain::search::{Query, block_ranges, fold};

use super::list::{Access, EventFilter, Order, add_keyset};
use super::places::{EventPlace, PLACE_COLUMNS, fitting};
use super::segments::{place_of_shard, shard_at};
use super::{Events, StoredEvent};
use crate::error::StoreError;
use crate::statement::{Builder, FromRow, Row};
use crate::tenant::{Workspace, blocking};
use crate::{args, row_type};

/// Segments whose shards are fetched together: few at first, since most searches end in the newest ones.
const FIRST_SEGMENTS: usize = 4;
const MAX_SEGMENTS_TOGETHER: usize = 128;
/// Payloads of events that are not indexed yet, read at a time.
const TAIL_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Payloads that are read to count the matches of a search; beyond, its total is not exact.
const MAX_COUNTING_BYTES: usize = 64 * 1024 * 1024;

/// A page of search results.
#[derive(Debug, Default)]
pub struct SearchPage {
    /// The rows.
    pub events: Vec<StoredEvent>,
    /// Where to go on; absent when there is nothing more.
    pub next: Option<Cursor>,
    /// Whether the search stopped early, after reading as much as one request may; going on from `next` continues it.
    pub is_partial: bool,
    /// How many rows match, on this page and on all others; at most `MAX_COUNTED_ROWS`.
    pub total: i64,
    /// Whether `total` is exact; otherwise there are at least as many.
    pub total_is_exact: bool,
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
    workspace: &'a Workspace,
    filter: &'a EventFilter,
    query: Arc<Query>,
    has_needle: bool,
    after: Option<&'a Cursor>,
    /// Rows of the page: offset, limit, and one more to know whether there are more.
    wanted: usize,
    /// Rows that are counted, once the page is complete.
    counted: usize,
    found: Vec<EventPlace>,
    examined: usize,
    /// Bytes of payloads that were read.
    bytes: usize,
}

/// How a scan ended.
enum End {
    /// Everything was read.
    Complete,
    /// The page is complete, and the rows behind it were not all counted.
    Enough,
    /// It read as much as one request may before the page was complete; it goes on from here.
    Stopped(Cursor),
}

impl Events<'_> {
    /// One page of events whose payload text holds `needle` (if given) and that match the filter, by time: `limit` rows, or as
    /// many as fit into an answer.
    pub async fn search(
        self,
        filter: &EventFilter,
        needle: Option<&str>,
        after: Option<&Cursor>,
        offset: u32,
        limit: u32,
    ) -> Result<SearchPage, StoreError> {
        let facets = facets_of(filter);
        let query = Arc::new(Query::new(needle.unwrap_or(""), &facets));
        let counted = usize::try_from(MAX_COUNTED_ROWS).unwrap_or(usize::MAX) + 1;
        let scan = |after, wanted, counted| Scan {
            workspace: self.0,
            filter,
            query: Arc::clone(&query),
            has_needle: needle.is_some(),
            after,
            wanted,
            counted,
            found: Vec::new(),
            examined: 0,
            bytes: 0,
        };
        let wanted = (offset + limit) as usize + 1;
        // A later page is found from its cursor on, and counted from the beginning.
        let mut page = scan(after, wanted, if after.is_some() { 0 } else { counted });
        let mut all = scan(None, 0, counted);
        let counting = async {
            match after {
                Some(_) => all.run().await.map(Some),
                None => Ok(None),
            }
        };
        let (end, end_of_count) = tokio::try_join!(page.run(), counting)?;
        let (total, total_is_exact) = match &end_of_count {
            Some(end) => all.total(end),
            None => page.total(&end),
        };
        let (events, next, is_partial) = page.finish(end, offset as usize, limit as usize).await?;
        Ok(SearchPage { events, next, is_partial, total, total_is_exact })
    }
}

fn facets_of(filter: &EventFilter) -> Vec<(&str, &str)> {
    let mut facets: Vec<(&str, &str)> = Vec::new();
    let single = [
        ("agent", &filter.agent_id),
        ("user", &filter.user_id),
        // Calls of which no model is known have no such facet.
        ("model", if filter.asks_for_unknown_models() { &None } else { &filter.model }),
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
    /// Collects matches until enough are certain, or as much was read as one request may.
    async fn run(&mut self) -> Result<End, StoreError> {
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
            for segment in group {
                if self.is_settled_before(segment) {
                    if !self.goes_on_counting() {
                        return Ok(End::Enough);
                    }
                } else {
                    let edge = self.edge_of(segment);
                    if self.examined >= MAX_SEARCH_SCAN_EVENTS && self.is_progress(&edge) {
                        return Ok(End::Stopped(edge));
                    }
                }
                let own = shards.remove(&segment.first_position).unwrap_or_default();
                self.read_segment(segment, &own).await?;
            }
            rest = others;
            together = (together * 4).min(MAX_SEGMENTS_TOGETHER);
        }
        Ok(End::Complete)
    }

    fn goes_on_counting(&self) -> bool {
        self.found.len() < self.counted
            && self.examined < MAX_SEARCH_SCAN_EVENTS
            && self.bytes < MAX_COUNTING_BYTES
    }

    /// How many rows match, and whether that is exact.
    fn total(&self, end: &End) -> (i64, bool) {
        let found = i64::try_from(self.found.len()).unwrap_or(i64::MAX);
        let is_exact = matches!(end, End::Complete) && found <= MAX_COUNTED_ROWS;
        (found.min(MAX_COUNTED_ROWS), is_exact)
    }

    /// The page: its events, where the next one begins, and whether it is incomplete.
    async fn finish(
        mut self,
        end: End,
        offset: usize,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, Option<Cursor>, bool), StoreError> {
        let stopped_at = match end {
            End::Stopped(edge) => Some(edge),
            End::Complete | End::Enough => None,
        };
        if let Some(edge) = &stopped_at {
            self.drop_beyond(edge);
        }
        self.sort();
        let rows = self.found.get(offset..).unwrap_or_default();
        let count = fitting(rows.iter().map(|row| row.size_bytes), MAX_ANSWER_BYTES).min(limit);
        let has_more = count < rows.len();
        let places = &rows[..count];
        let next = if has_more { places.last().map(EventPlace::cursor) } else { stopped_at.clone() };
        let events = self.workspace.events().events_at(places).await?;
        Ok((events, next, stopped_at.is_some() && !has_more))
    }

    async fn segments(&self) -> Result<Vec<SegmentRow>, StoreError> {
        let mut statement = Builder::of_org(
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
        self.workspace.fetch_shared(sql, args).await
    }

    /// The position up to which events are indexed.
    async fn indexed(&self) -> Result<i64, StoreError> {
        let sql = "select indexed_position from org_state where org_id = $1";
        let indexed = self.workspace.fetch_shared(sql, vec![]).await?.into_iter().next();
        Ok(indexed.unwrap_or(0))
    }

    /// Reads what is not indexed yet.
    async fn read_tail(&mut self, indexed: i64) -> Result<(), StoreError> {
        let tail = indexed + 1..i64::MAX;
        if !self.has_needle {
            return self.read_rows(std::slice::from_ref(&tail), None).await;
        }
        let mut statement =
            Builder::of_workspace("select position, octet_length(payload) from events where org_id = $1");
        add_ranges(&mut statement, std::slice::from_ref(&tail), None);
        self.filter.add_to(&mut statement, Access::Position);
        statement.text(" order by position");
        let (sql, args) = statement.finish();
        let rows: Vec<Row> = self.workspace.fetch(sql, args).await?;
        let sizes = rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?)));
        let sizes: Vec<(i64, i64)> = sizes.collect::<Result<_, StoreError>>()?;
        let mut rest = sizes.as_slice();
        while !rest.is_empty() {
            let count = fitting(rest.iter().map(|(_, size)| *size), TAIL_WINDOW_BYTES);
            let (window, others) = rest.split_at(count);
            if let [(first, _), ..] = window
                && let [.., (last, _)] = window
            {
                let block = *first..*last + 1;
                self.read_matching(std::slice::from_ref(&block), None).await?;
            }
            rest = others;
        }
        Ok(())
    }

    /// The shards of segments that the query asks for. Half of the shards are fetched first. A segment that lacks one of them
    /// cannot match, so its remaining shards are never read.
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
        let rows: Vec<Row> = self.workspace.fetch_shared(sql, args![places]).await?;
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
        let starts: Vec<i64> = serde_json::from_str(&segment.block_starts)
            .map_err(|_| StoreError::Corrupt("the blocks of a search segment".to_owned()))?;
        let ranges = block_ranges(&starts, segment.last_position, candidates);
        if ranges.is_empty() {
            return Ok(());
        }
        let days = Some((segment.min_expire_day, segment.max_expire_day));
        if self.has_needle {
            self.read_matching(&ranges, days).await
        } else {
            self.read_rows(&ranges, days).await
        }
    }

    /// Finds rows that match the filter, as many as are wanted.
    async fn read_rows(&mut self, ranges: &[Range<i64>], days: Option<(i32, i32)>) -> Result<(), StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement.text(PLACE_COLUMNS).text(" from events where org_id = $1");
        add_ranges(&mut statement, ranges, days);
        self.filter.add_to(&mut statement, Access::Position);
        add_keyset(&mut statement, Access::Position, self.filter.order, self.after);
        statement.with(" limit $", i64::try_from(self.wanted.max(self.counted)).unwrap_or(i64::MAX));
        let (sql, args) = statement.finish();
        let rows: Vec<EventPlace> = self.workspace.fetch(sql, args).await?;
        self.examined += rows.len();
        self.found.extend(rows);
        Ok(())
    }

    /// Reads the payloads of rows that match the filter, and keeps the places of those that hold the needle.
    async fn read_matching(
        &mut self,
        ranges: &[Range<i64>],
        days: Option<(i32, i32)>,
    ) -> Result<(), StoreError> {
        let mut statement = Builder::of_workspace("select ");
        statement.text(PLACE_COLUMNS).text(", payload from events where org_id = $1");
        add_ranges(&mut statement, ranges, days);
        self.filter.add_to(&mut statement, Access::Position);
        add_keyset(&mut statement, Access::Position, self.filter.order, self.after);
        let (sql, args) = statement.finish();
        let rows: Vec<Row> = self.workspace.fetch(sql, args).await?;
        self.examined += rows.len();
        let query = Arc::clone(&self.query);
        let (matching, bytes) = blocking(move || matching_places(&query, &rows)).await?;
        self.bytes += bytes;
        self.found.extend(matching);
        Ok(())
    }

    fn sort(&mut self) {
        match self.filter.order {
            Order::Descending => self.found.sort_by(|a, b| (b.ts_us, &b.id).cmp(&(a.ts_us, &a.id))),
            Order::Ascending => self.found.sort_by(|a, b| (a.ts_us, &a.id).cmp(&(b.ts_us, &b.id))),
        }
    }

    /// Whether enough rows were found that come before everything in the segment and in those after it.
    fn is_settled_before(&self, segment: &SegmentRow) -> bool {
        let is_before = |event: &&EventPlace| match self.filter.order {
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

/// The column of the payload, behind those of the place.
const PAYLOAD_COLUMN: usize = 5;

fn matching_places(query: &Query, rows: &[Row]) -> Result<(Vec<EventPlace>, usize), StoreError> {
    let (mut matching, mut bytes, mut text) = (Vec::new(), 0, String::new());
    for row in rows {
        let payload = row.bytes(PAYLOAD_COLUMN)?;
        bytes += payload.len();
        text.clear();
        fold(&String::from_utf8_lossy(payload), &mut text);
        if query.matches(&text) {
            matching.push(EventPlace::from_row(row)?);
        }
    }
    Ok((matching, bytes))
}
