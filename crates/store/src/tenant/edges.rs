//! Figures of parts of hours, read from events and spans by the rules by which rollups count them.
//!
//! Rollups are kept by the hour and the day (UTC). Where a range begins or ends between two hours, or a day of another time zone
//! does, the events between are counted one by one. That is exact, and bounded: of too many, the caller uses whole cells.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use agentlens_domain::cost::CostSource;
use agentlens_domain::events::{EventType, Facts, NewEvent, Severity};
use agentlens_domain::limits::{MAX_EDGE_BYTES, MAX_EDGE_EVENTS};
use agentlens_domain::rollups::{CellKey, Counted, Dimension, Measures, Rollup, Tier};
use agentlens_domain::spans::{ARRIVAL_ID_PREFIX, Contribution, Sign};
use agentlens_domain::time::{HOUR_US, day_start, hour_start};
use agentlens_domain::usage::Usage;

use super::analytics::{Analytics, CellQuery, CellRow};
use super::spans::span_address;
use crate::error::StoreError;
use crate::row_type;
use crate::statement::{Builder, Row};

/// Events, and spans, that are read at a time.
const CHUNK_ROWS: u32 = 1_000;
/// Bytes of arrivals that are read at a time.
const CHUNK_BYTES: i64 = 4 * 1024 * 1024;

row_type! {
    /// What rollups count of an event.
    struct CountedRow {
        pub ts_us: i64,
        pub id: String,
        pub environment: String,
        pub agent_id: String,
        pub event_type: String,
        pub severity: String,
        pub name: Option<String>,
        pub provider: Option<String>,
        pub model: Option<String>,
        pub user_id: Option<String>,
        pub duration_us: Option<i64>,
        pub input_tokens: Option<i64>,
        pub output_tokens: Option<i64>,
        pub usage_parts: Option<String>,
        pub cost_nanos: Option<i64>,
        pub cost_source: Option<String>,
        pub position: i64,
        pub size_bytes: i64,
    }
}

/// A cell's key with texts of its own: tier, dimension, start; environment, agent, provider, name.
pub(super) type OwnKey = ((Tier, Dimension, i64), [String; 4]);

/// Counted cells.
pub(super) type Counts = BTreeMap<OwnKey, Measures>;

/// Sums under way.
struct Sums<'q> {
    workspace_id: &'q str,
    /// Only the cells of this query are counted; without one, all.
    query: Option<&'q CellQuery>,
    cells: Counts,
}

impl Analytics<'_> {
    /// The cells that the events of the ranges [from, to) make, whatever the tier and range of the query; `None` if that would
    /// read more than one request may. A cell begins with its hour, or with its range.
    pub async fn cells_of_events(
        self,
        query: &CellQuery,
        ranges: &[(i64, i64)],
    ) -> Result<Option<Vec<CellRow>>, StoreError> {
        let mut left = MAX_EDGE_EVENTS;
        for (from_us, to_us) in ranges {
            let mut statement = Builder::of_workspace(
                "select count(*) from (select 1 from events where org_id = $1 and workspace_id = $2",
            );
            add_range(&mut statement, (*from_us, *to_us));
            statement.text(" order by ts_us, id").with(" limit $) as counted", left + 1);
            let (sql, args) = statement.finish();
            left -= self.0.find::<i64>(sql, args).await?.unwrap_or(0);
            if left < 0 {
                return Ok(None);
            }
        }
        let (mut cells, mut bytes_left) = (Vec::new(), MAX_EDGE_BYTES);
        for range in ranges {
            let mut sums =
                Sums { workspace_id: self.0.id().as_str(), query: Some(query), cells: Counts::new() };
            if !self.count_events_between(&mut sums, *range, &mut bytes_left).await? {
                return Ok(None);
            }
            self.count_beginnings_between(&mut sums, *range).await?;
            cells.extend(sums.finish(range.0));
        }
        Ok(Some(cells))
    }

    /// All cells that the events, spans and sessions of some days make. Both ends of the range are the starts of days.
    pub(super) async fn count_days(self, (from_us, to_us): (i64, i64)) -> Result<Counts, StoreError> {
        let mut sums = Sums { workspace_id: self.0.id().as_str(), query: None, cells: Counts::new() };
        let (mut hour_us, mut bytes_left) = (from_us, i64::MAX);
        loop {
            hour_us = hour_start(self.next_instant(hour_us).await?);
            if hour_us >= to_us {
                break;
            }
            let range = (hour_us, hour_us + HOUR_US);
            self.count_events_between(&mut sums, range, &mut bytes_left).await?;
            self.count_beginnings_between(&mut sums, range).await?;
            hour_us = range.1;
        }
        let mut days = Counts::new();
        for (((tier, dimension, bucket_us), texts), measures) in &sums.cells {
            if *tier == Tier::Hour {
                let day = (Tier::Day, *dimension, day_start(*bucket_us));
                days.entry((day, texts.clone())).or_default().merge(measures);
            }
        }
        for (key, measures) in days {
            sums.cells.entry(key).or_default().merge(&measures);
        }
        Ok(sums.cells)
    }

    /// The first instant, from one on, at which an event lies or a session begins; the end of time if there is none.
    pub(super) async fn next_instant(self, from_us: i64) -> Result<i64, StoreError> {
        let sql = "select coalesce(min(us), 9223372036854775807) from (
               select min(ts_us) as us from events
                 where org_id = $1 and workspace_id = $2 and ts_us > -9000000000000000000 and ts_us >= $3
               union all select min(started_us) from sessions
                 where org_id = $1 and workspace_id = $2 and started_us > -9000000000000000000 and started_us >= $3) t";
        Ok(self.0.find(sql, crate::args![from_us]).await?.unwrap_or(i64::MAX))
    }

    /// Counts the events and spans of a range; returns whether there was room for them.
    async fn count_events_between(
        self,
        sums: &mut Sums<'_>,
        range: (i64, i64),
        bytes_left: &mut i64,
    ) -> Result<bool, StoreError> {
        let mut arrivals: Vec<(i64, i64)> = Vec::new();
        let mut after: Option<(i64, String)> = None;
        loop {
            let mut statement = Builder::of_workspace(
                "select ts_us, id, environment, agent_id, event_type, severity, name, provider, model, user_id, duration_us,
                   input_tokens, output_tokens, usage_parts, cost_nanos, cost_source, position, octet_length(payload)
                 from events where org_id = $1 and workspace_id = $2",
            );
            add_range(&mut statement, range);
            if let Some((ts_us, id)) = &after {
                statement.with(" and (ts_us, id) > ($", *ts_us).with(", $)", id.as_str());
            }
            statement.text(" order by ts_us, id").with(" limit $", CHUNK_ROWS);
            let (sql, args) = statement.finish();
            let rows: Vec<CountedRow> = self.0.fetch(sql, args).await?;
            after = rows.last().map(|last| (last.ts_us, last.id.clone()));
            let is_last = rows.len() < CHUNK_ROWS as usize;
            let (spans, own): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|row| row.id.starts_with(ARRIVAL_ID_PREFIX));
            sums.add_events(own);
            arrivals.extend(spans.iter().map(|row| (row.position, row.size_bytes)));
            if is_last {
                break;
            }
        }
        *bytes_left -= arrivals.iter().map(|(_, size)| size).sum::<i64>();
        if *bytes_left < 0 {
            return Ok(false);
        }
        let addresses: Vec<(String, String)> = self.addresses_of(&arrivals).await?.into_iter().collect();
        for some in addresses.chunks(CHUNK_ROWS as usize) {
            let spans = self.0.spans().find(some).await?;
            let counted = spans.iter().map(|row| &row.span.shown.counted);
            sums.add_spans(counted.filter(|counted| (range.0..range.1).contains(&counted.start_us)));
        }
        Ok(true)
    }

    /// The spans of which something arrived at these positions.
    async fn addresses_of(self, arrivals: &[(i64, i64)]) -> Result<FxHashSet<(String, String)>, StoreError> {
        let mut addresses = FxHashSet::default();
        let mut rest = arrivals;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(CHUNK_ROWS as usize).take_while(|(_, size)| {
                bytes += size;
                bytes <= CHUNK_BYTES
            });
            let (some, others) = rest.split_at(fitting.count().max(1));
            let positions: Vec<i64> = some.iter().map(|(position, _)| *position).collect();
            let sql = "select metadata, payload from events
                 where org_id = $1 and workspace_id || '' = $2 and position = any($3)";
            for row in self.0.fetch::<Row>(sql, crate::args![positions]).await? {
                addresses.extend(span_address(&row.get::<String>(0)?, row.bytes(1)?));
            }
            rest = others;
        }
        Ok(addresses)
    }

    async fn count_beginnings_between(
        self,
        sums: &mut Sums<'_>,
        (from_us, to_us): (i64, i64),
    ) -> Result<(), StoreError> {
        let mut statement = Builder::of_workspace(
            "select environment, agent_id, count(*), min(started_us) from sessions where org_id = $1 and workspace_id = $2",
        );
        statement.with(" and started_us >= $", from_us).with(" and started_us < $", to_us).text(
            " and started_us > -9000000000000000000 and event_count > 0 group by environment, agent_id",
        );
        let (sql, args) = statement.finish();
        for row in self.0.fetch::<Row>(sql, args).await? {
            let (environment, agent_id): (String, String) = (row.get(0)?, row.get(1)?);
            let (count, start_us): (i64, i64) = (row.get(2)?, row.get(3)?);
            let mut rollup = Rollup::default();
            rollup.add_beginning((sums.workspace_id, &environment, &agent_id), start_us, Sign::Plus);
            for (key, mut measures) in rollup.into_changes() {
                measures.session_count *= count;
                sums.add(&key, &measures);
            }
        }
        Ok(())
    }
}

fn add_range(statement: &mut Builder, (from_us, to_us): (i64, i64)) {
    statement
        .text(" and ts_us > -9000000000000000000")
        .with(" and ts_us >= $", from_us)
        .with(" and ts_us < $", to_us);
}

impl Sums<'_> {
    fn add_events(&mut self, rows: Vec<CountedRow>) {
        let events: Vec<(NewEvent, String, i64, bool)> = rows.into_iter().filter_map(counted_event).collect();
        let mut rollup = Rollup::default();
        let workspace_id = self.workspace_id;
        for (event, environment, cost_nanos, cost_is_unknown) in &events {
            let (cost_nanos, cost_is_unknown) = (*cost_nanos, *cost_is_unknown);
            rollup.add(event, Counted { workspace_id, environment, cost_nanos, cost_is_unknown });
        }
        for (key, measures) in rollup.into_changes() {
            self.add(&key, &measures);
        }
    }

    fn add_spans<'s>(&mut self, spans: impl Iterator<Item = &'s Contribution>) {
        let spans: Vec<&Contribution> = spans.collect();
        let mut rollup = Rollup::default();
        for span in spans {
            rollup.add_span(self.workspace_id, span, Sign::Plus);
        }
        for (key, measures) in rollup.into_changes() {
            self.add(&key, &measures);
        }
    }

    fn add(&mut self, key: &CellKey<'_>, measures: &Measures) {
        if self.query.is_none_or(|query| query.is_about(key)) {
            let texts = [key.environment, key.agent_id, key.provider, key.name].map(str::to_owned);
            let place = (key.tier, key.dimension, key.bucket_us);
            self.cells.entry((place, texts)).or_default().merge(measures);
        }
    }

    /// The cells; one that began before the range begins with it.
    fn finish(self, from_us: i64) -> impl Iterator<Item = CellRow> {
        self.cells.into_iter().map(move |((place, texts), measures)| {
            let ((_, _, bucket_us), [environment, agent_id, provider, name]) = (place, texts);
            CellRow { bucket_us: bucket_us.max(from_us), environment, agent_id, provider, name, measures }
        })
    }
}

/// An event as far as rollups count it, with its environment, its cost and whether that is unknown.
fn counted_event(row: CountedRow) -> Option<(NewEvent, String, i64, bool)> {
    let parts = row.usage_parts.as_deref().and_then(|parts| serde_json::from_str::<Usage>(parts).ok());
    let usage = row.input_tokens.map(|input| Usage {
        input,
        output: row.output_tokens.unwrap_or(0),
        ..parts.unwrap_or_default()
    });
    let event = NewEvent {
        id: row.id,
        environment: None,
        content_digest: None,
        session_id: String::new(),
        agent_id: row.agent_id,
        event_type: EventType::parse(&row.event_type)?,
        severity: Severity::parse(&row.severity)?,
        timestamp: String::new(),
        ts_us: row.ts_us,
        payload: String::new(),
        metadata: String::new(),
        holds_wide_numbers: false,
        facts: Facts {
            name: row.name,
            provider: row.provider,
            model: row.model,
            user_id: row.user_id,
            duration_us: row.duration_us,
            usage,
            ..Facts::default()
        },
        span: None,
    };
    let is_unknown = row.cost_source.as_deref() == Some(CostSource::Unknown.as_str());
    Some((event, row.environment, row.cost_nanos.unwrap_or(0), is_unknown))
}
