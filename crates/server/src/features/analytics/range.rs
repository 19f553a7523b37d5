//! The time range of an analytics request, and the figures that cover it.
//!
//! Whole hours and days (UTC) are read from rollups. If the range, or a day of another time zone, starts or ends
//! within an hour, the events of that part are counted one by one, so figures are exact to the microsecond. If there
//! are too many of them, whole hours or days are used, and the response says which range they cover.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use agentlens_domain::rollups::{Dimension, Measures, Tier};
use agentlens_domain::time::{DAY_US, HOUR_US, day_start, format_rfc3339, hour_start};
use agentlens_store::{CellQuery, Figures, Workspace};

use crate::error::ApiError;
use crate::query::{self, Times};

/// Ranges up to this length have hourly buckets by default.
const HOURLY_RANGE_US: i64 = 48 * HOUR_US;
/// Hourly cells are kept this long.
const HOURS_KEPT_US: i64 = 35 * DAY_US;
/// The longest range.
const MAX_RANGE_US: i64 = 366 * DAY_US;

/// The width of the buckets in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granularity {
    Hour,
    Day,
    Week,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
pub(super) struct RangeQuery {
    /// The start of the range, inclusive; defaults to 24 hours before `to`. A date alone means its midnight.
    pub(super) from: Option<String>,
    /// The end of the range, inclusive; defaults to now. A date alone includes the whole day.
    pub(super) to: Option<String>,
    /// The length of the range before `to` (before now if `to` is absent), instead of `from`: `1h`, `3h`, `6h`, `12h`, `24h`, `3d`,
    /// `7d`, `30d` or `90d`.
    pub(super) range: Option<String>,
    /// The IANA name of the time zone for dates, days and weeks, such as `Europe/Berlin`; defaults to UTC. Hourly buckets start at
    /// full hours of UTC.
    pub(super) time_zone: Option<String>,
    /// Only this environment.
    pub(super) environment: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BucketQuery {
    /// The width of the buckets: `hour`, `day` or `week`. Defaults to `hour` for up to two days, otherwise to `day`.
    pub(super) granularity: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
pub(super) struct AgentQuery {
    /// Only this agent.
    pub(super) agent_id: Option<String>,
}

/// The range that the figures cover. It differs from the requested one if that starts or ends within an hour (or day) that has more
/// events than one request counts one by one. Then the whole hour (or day) is used.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Covered {
    /// The first instant.
    from: String,
    /// The last instant.
    to: String,
    /// The time zone of days and weeks.
    time_zone: String,
}

/// A parsed range.
pub(super) struct Range {
    pub(super) from_us: i64,
    /// The end, exclusive.
    pub(super) end_us: i64,
    pub(super) buckets: Buckets,
    pub(super) agent_id: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
    now_us: i64,
}

/// Assigns instants to the buckets of the response.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    granularity: Granularity,
    zone: TimeZone,
}

/// Cells, and parts of hours, that cover a range.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cover {
    cells: Vec<(Tier, i64, i64)>,
    edges: Vec<(i64, i64)>,
}

impl RangeQuery {
    pub(super) fn read(&self, now_us: i64) -> Result<Range, ApiError> {
        let times = Times {
            from: self.from.as_ref(),
            to: self.to.as_ref(),
            range: self.range.as_ref(),
            time_zone: self.time_zone.as_ref(),
        };
        let window = times.read(now_us)?;
        let to_us = window.to_us.unwrap_or(now_us);
        let from_us = window.from_us.unwrap_or(to_us - DAY_US);
        if from_us > to_us {
            return Err(ApiError::invalid_parameter("from", "must not be after `to`"));
        }
        if to_us - from_us > MAX_RANGE_US {
            return Err(ApiError::invalid_parameter(
                "from",
                format!("must not be more than {} days before `to`", MAX_RANGE_US / DAY_US),
            ));
        }
        let is_short = to_us - from_us <= HOURLY_RANGE_US;
        let granularity = if is_short { Granularity::Hour } else { Granularity::Day };
        Ok(Range {
            from_us,
            end_us: to_us + 1,
            buckets: Buckets { granularity, zone: window.zone },
            agent_id: None,
            environment: query::text(self.environment.as_ref()),
            model: None,
            provider: None,
            now_us,
        })
    }
}

impl Range {
    pub(super) fn by(mut self, params: &BucketQuery) -> Result<Self, ApiError> {
        let choices = [("hour", Granularity::Hour), ("day", Granularity::Day), ("week", Granularity::Week)];
        if let Some(granularity) = query::choice("granularity", params.granularity.as_ref(), &choices)? {
            self.buckets.granularity = granularity;
        }
        Ok(self)
    }

    pub(super) fn of_agent(mut self, params: &AgentQuery) -> Self {
        self.agent_id = query::text(params.agent_id.as_ref());
        self
    }

    /// The figures of a dimension by bucket, and what they cover.
    pub(super) async fn series(
        &self,
        workspace: &Workspace,
        dimension: Dimension,
    ) -> Result<(Figures, Option<Covered>), ApiError> {
        let is_hourly = self.buckets.granularity == Granularity::Hour;
        let mut cover = Cover::default();
        for (from_us, end_us) in self.pieces() {
            cover.add(self, (from_us, end_us), dimension, is_hourly);
        }
        self.figures(workspace, dimension, cover).await
    }

    /// The figures of a dimension over the whole range, and what they cover.
    pub(super) async fn whole(
        &self,
        workspace: &Workspace,
        dimension: Dimension,
    ) -> Result<(Figures, Option<Covered>), ApiError> {
        let mut cover = Cover::default();
        cover.add(self, (self.from_us, self.end_us), dimension, false);
        self.figures(workspace, dimension, cover).await
    }

    async fn figures(
        &self,
        workspace: &Workspace,
        dimension: Dimension,
        cover: Cover,
    ) -> Result<(Figures, Option<Covered>), ApiError> {
        let query = |tier, from_us, to_us| CellQuery {
            tier,
            dimension,
            environment: self.environment.clone(),
            agent_id: self.agent_id.clone(),
            provider: self.provider.clone(),
            name: self.model.clone(),
            from_us,
            to_us,
        };
        let edges = workspace
            .analytics()
            .cells_of_events(&query(Tier::Hour, self.from_us, self.end_us), &cover.edges)
            .await?;
        let queries = |spans: Vec<(Tier, i64, i64)>| {
            spans.into_iter().map(|(tier, from_us, to_us)| query(tier, from_us, to_us)).collect()
        };
        if let Some(edges) = edges {
            return Ok((Figures { queries: queries(cover.cells), edges }, None));
        }
        let spans = self.whole_cells(dimension);
        let from_us = spans.first().map_or(self.from_us, |span| span.1);
        let last_us = spans.last().map_or(self.end_us, |(tier, _, end_us)| match tier {
            Tier::Hour => hour_start(end_us - 1) + HOUR_US,
            Tier::Day => day_start(end_us - 1) + DAY_US,
        }) - 1;
        let covered = Covered {
            from: format_rfc3339(from_us),
            to: format_rfc3339(last_us),
            time_zone: self.buckets.zone.iana_name().unwrap_or("UTC").to_owned(),
        };
        Ok((Figures { queries: queries(spans), edges: Vec::new() }, Some(covered)))
    }

    /// The range, split where days of the requested time zone start. Days in UTC need no split, because a cell never crosses them.
    fn pieces(&self) -> Vec<(i64, i64)> {
        if self.buckets.zone == TimeZone::UTC || self.buckets.granularity == Granularity::Hour {
            return vec![(self.from_us, self.end_us)];
        }
        let (mut pieces, mut from_us) = (Vec::new(), self.from_us);
        while from_us < self.end_us {
            let end_us = self.buckets.next_day(from_us).clamp(from_us + 1, self.end_us);
            pieces.push((from_us, end_us));
            from_us = end_us;
        }
        pieces
    }

    /// The earliest hour that is certainly stored. Retention may be deleting older ones right now.
    fn hours_from(&self) -> i64 {
        hour_start(self.now_us - HOURS_KEPT_US) + 2 * HOUR_US
    }

    /// Adjacent intervals [from, to) of one tier each. The first and the last may extend beyond the range.
    fn whole_cells(&self, dimension: Dimension) -> Vec<(Tier, i64, i64)> {
        let (first_hour, end) = (hour_start(self.from_us), self.end_us);
        if dimension == Dimension::User {
            return vec![(Tier::Day, day_start(self.from_us), end)];
        }
        let is_short = self.end_us - self.from_us <= HOURLY_RANGE_US;
        let hours_from = self.hours_from();
        if (is_short || self.buckets.granularity == Granularity::Hour) && first_hour >= hours_from {
            return vec![(Tier::Hour, first_hour, end)];
        }
        // If hourly cells are deleted, the day that contains the edge is counted as a whole.
        let first_day = if first_hour < hours_from { day_start(self.from_us) } else { next_day(first_hour) };
        let last_day = if day_start(end) < hours_from { next_day(end - 1) } else { day_start(end) };
        let spans = [
            (Tier::Hour, first_hour, first_day),
            (Tier::Day, first_day, last_day),
            (Tier::Hour, last_day, end),
        ];
        spans.into_iter().filter(|(_, from_us, to_us)| from_us < to_us).collect()
    }
}

impl Cover {
    /// Covers [from, end) exactly: by days where possible, then hours, then parts of hours. `by_hours` excludes days.
    fn add(&mut self, range: &Range, (from_us, end_us): (i64, i64), dimension: Dimension, by_hours: bool) {
        let (mut at, hours_from) = (from_us, range.hours_from());
        while at < end_us {
            let midnight = day_start(at) + DAY_US;
            let (is_kept, has_hours) = (at >= hours_from, dimension != Dimension::User);
            let uses_days = !has_hours || !by_hours || !is_kept;
            let next = if uses_days && day_start(at) == at && day_start(end_us) > at {
                self.add_cells(Tier::Day, at, day_start(end_us).min(at + DAY_US))
            } else if has_hours && is_kept && hour_start(at) == at && hour_start(end_us) > at {
                self.add_cells(Tier::Hour, at, hour_start(end_us).min(at + HOUR_US))
            } else {
                let next_hour = if has_hours && is_kept { hour_start(at) + HOUR_US } else { midnight };
                let to_us = next_hour.min(end_us);
                self.edges.push((at, to_us));
                to_us
            };
            at = next;
        }
    }

    /// Adds a cell to the adjacent interval; returns the end of the cell.
    fn add_cells(&mut self, tier: Tier, from_us: i64, to_us: i64) -> i64 {
        match self.cells.last_mut() {
            Some((last, _, end_us)) if *last == tier && *end_us == from_us => *end_us = to_us,
            _ => self.cells.push((tier, from_us, to_us)),
        }
        to_us
    }
}

impl Buckets {
    /// The start of the bucket that contains an instant. Weeks start on Monday.
    pub(super) fn start(&self, us: i64) -> i64 {
        match self.granularity {
            Granularity::Hour => hour_start(us),
            Granularity::Day => self.day(us, 0).unwrap_or_else(|| day_start(us)),
            Granularity::Week => self.week(us).unwrap_or_else(|| day_start(us)),
        }
    }

    fn date(&self, us: i64) -> Option<jiff::civil::Date> {
        Some(Timestamp::from_microsecond(us).ok()?.to_zoned(self.zone.clone()).date())
    }

    fn midnight(&self, date: jiff::civil::Date) -> Option<i64> {
        Some(date.to_zoned(self.zone.clone()).ok()?.timestamp().as_microsecond())
    }

    /// The start of the day a number of days after that of the instant.
    fn day(&self, us: i64, days: i64) -> Option<i64> {
        self.midnight(self.date(us)?.checked_add(days.days()).ok()?)
    }

    fn next_day(&self, us: i64) -> i64 {
        self.day(us, 1).unwrap_or(i64::MAX)
    }

    fn week(&self, us: i64) -> Option<i64> {
        let since_monday = i64::from(self.date(us)?.weekday().to_monday_zero_offset());
        self.day(us, -since_monday)
    }

    /// The start of a bucket in the format of published clients: to the second, with the offset of its time zone.
    pub(super) fn text(&self, us: i64) -> String {
        if self.zone == TimeZone::UTC {
            return format_rfc3339(us).replace(".000Z", "Z");
        }
        let zoned = Timestamp::from_microsecond(us).map(|at| at.to_zoned(self.zone.clone()));
        zoned.map_or_else(|_| format_rfc3339(us), |zoned| zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }
}

fn next_day(us: i64) -> i64 {
    let start = day_start(us);
    if start == us { us } else { start + DAY_US }
}

/// The sum of sums.
pub(super) fn sum<K>(sums: &BTreeMap<K, Measures>) -> Measures {
    let mut total = Measures::default();
    for measures in sums.values() {
        total.merge(measures);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from_us: i64, end_us: i64, granularity: Granularity, zone: &str) -> Range {
        Range {
            from_us,
            end_us,
            buckets: Buckets { granularity, zone: TimeZone::get(zone).unwrap() },
            agent_id: None,
            environment: None,
            model: None,
            provider: None,
            now_us: 100 * DAY_US,
        }
    }

    fn cover(range: &Range, dimension: Dimension) -> Cover {
        let mut cover = Cover::default();
        for piece in range.pieces() {
            cover.add(range, piece, dimension, range.buckets.granularity == Granularity::Hour);
        }
        cover
    }

    #[test]
    fn a_range_is_covered_exactly_and_once() {
        for (from_us, end_us) in [
            (99 * DAY_US + 5, 100 * DAY_US - 3),
            (80 * DAY_US + HOUR_US * 3 + 7, 100 * DAY_US - HOUR_US * 2 - 1),
            (10 * DAY_US + 1, 100 * DAY_US - 1),
            (90 * DAY_US, 95 * DAY_US),
            (90 * DAY_US + 5, 90 * DAY_US + 7),
            (90 * DAY_US, 90 * DAY_US + 1),
            (10 * DAY_US + HOUR_US, 20 * DAY_US + 5 * HOUR_US),
        ] {
            for zone in ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"] {
                for granularity in [Granularity::Hour, Granularity::Day, Granularity::Week] {
                    for dimension in [Dimension::Total, Dimension::User] {
                        let range = range(from_us, end_us, granularity, zone);
                        let cover = cover(&range, dimension);
                        let mut parts: Vec<(i64, i64)> =
                            cover.cells.iter().map(|(_, from_us, to_us)| (*from_us, *to_us)).collect();
                        parts.extend(&cover.edges);
                        parts.sort_unstable();
                        assert_eq!(parts.first().unwrap().0, from_us);
                        assert_eq!(parts.last().unwrap().1, end_us);
                        assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0), "{parts:?}");
                        for (tier, at, _) in &cover.cells {
                            let is_kept = *tier == Tier::Day || *at >= range.hours_from();
                            assert!(is_kept && (*tier == Tier::Day || dimension != Dimension::User));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn whole_days_of_utc_need_no_edges() {
        let range = range(90 * DAY_US, 95 * DAY_US, Granularity::Day, "UTC");
        let expected = Cover { cells: vec![(Tier::Day, 90 * DAY_US, 95 * DAY_US)], edges: Vec::new() };
        assert_eq!(cover(&range, Dimension::Total), expected);
    }

    #[test]
    fn days_of_a_zone_of_whole_hours_need_no_edges() {
        let from_us = 90 * DAY_US - 5 * HOUR_US;
        let range = range(from_us, from_us + 3 * DAY_US, Granularity::Day, "Asia/Karachi");
        let expected = Cover { cells: vec![(Tier::Hour, from_us, from_us + 3 * DAY_US)], edges: Vec::new() };
        assert_eq!(cover(&range, Dimension::Total), expected);
    }

    #[test]
    fn hours_are_not_read_where_they_are_gone() {
        let range = range(10 * DAY_US, 20 * DAY_US, Granularity::Hour, "UTC");
        assert_eq!(cover(&range, Dimension::Total).cells, [(Tier::Day, 10 * DAY_US, 20 * DAY_US)]);
    }

    #[test]
    fn weeks_begin_on_monday_of_their_zone() {
        // 2026-01-02 was a Friday; its week began on 2025-12-29.
        let friday = 1_767_323_045_678_000;
        for (zone, text) in [
            ("UTC", "2025-12-29T00:00:00Z"),
            ("Asia/Kolkata", "2025-12-29T00:00:00+05:30"),
            ("America/New_York", "2025-12-29T00:00:00-05:00"),
        ] {
            let buckets = Buckets { granularity: Granularity::Week, zone: TimeZone::get(zone).unwrap() };
            assert_eq!(buckets.text(buckets.start(friday)), text);
        }
    }
}
