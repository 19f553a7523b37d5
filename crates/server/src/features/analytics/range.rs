//! The time range of an analytics request and the cells that cover it.
//!
//! Up to 48 hours, hours are read; beyond, whole days with hours at the edges. A bucket is counted whole: figures are
//! exact to the hour; where hours are no longer kept, and for users, to the day.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::IntoParams;

use agentlens_domain::rollups::{Dimension, Measures, Tier};
use agentlens_domain::time::{DAY_US, HOUR_US, day_start, format_rfc3339, hour_start};
use agentlens_store::{CellQuery, CellRow, Tenant};

use crate::error::ApiError;
use crate::query::{self, Times};

/// Ranges up to this long are read by the hour.
const HOURLY_RANGE_US: i64 = 48 * HOUR_US;
/// Hours are kept this long.
const HOURS_KEPT_US: i64 = 35 * DAY_US;
/// The longest range.
const MAX_RANGE_US: i64 = 366 * DAY_US;

/// The width of the answer's buckets.
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
    /// The earliest instant, inclusive; 24 hours before `to` unless given.
    pub(super) from: Option<String>,
    /// The latest instant, inclusive; now unless given.
    pub(super) to: Option<String>,
    /// `1h`, `3h`, `6h`, `12h`, `24h`, `3d`, `7d`, `30d` or `90d` before `to` (before now unless given), instead of `from`.
    pub(super) range: Option<String>,
    /// The time zone of dates and of days, by its IANA name; UTC unless given.
    pub(super) time_zone: Option<String>,
    /// `hour`, `day` or `week`.
    pub(super) granularity: Option<String>,
    /// Figures of one agent.
    pub(super) agent_id: Option<String>,
    /// production, staging or development.
    pub(super) environment: Option<String>,
    /// Figures of one model (`/llm` only).
    pub(super) model: Option<String>,
    /// Figures of one provider (`/llm` only).
    pub(super) provider: Option<String>,
}

/// A request that was read.
pub(super) struct Range {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
    pub(super) granularity: Granularity,
    pub(super) agent_id: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
    now_us: i64,
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
        let choices = [("hour", Granularity::Hour), ("day", Granularity::Day), ("week", Granularity::Week)];
        let default = if to_us - from_us <= HOURLY_RANGE_US { Granularity::Hour } else { Granularity::Day };
        Ok(Range {
            from_us,
            to_us,
            granularity: query::choice("granularity", self.granularity.as_ref(), &choices)?
                .unwrap_or(default),
            agent_id: query::text(self.agent_id.as_ref()),
            environment: query::text(self.environment.as_ref()),
            model: query::text(self.model.as_ref()),
            provider: query::text(self.provider.as_ref()),
            now_us,
        })
    }
}

impl Range {
    /// The cells of a dimension that cover the range, in the order of their buckets.
    pub(super) async fn cells(
        &self,
        tenant: &Tenant,
        workspace: &str,
        dimension: Dimension,
    ) -> Result<Vec<CellRow>, ApiError> {
        let spans = match dimension {
            Dimension::User => vec![(Tier::Day, day_start(self.from_us), self.end_us())],
            _ => self.spans(),
        };
        let queries = spans.iter().map(|(tier, from_us, to_us)| {
            let query = CellQuery {
                tier: *tier,
                dimension,
                workspace: workspace.to_owned(),
                environment: self.environment.clone(),
                agent_id: self.agent_id.clone(),
                provider: self.provider.clone().filter(|_| dimension == Dimension::Model),
                name: self.model.clone().filter(|_| dimension == Dimension::Model),
                from_us: *from_us,
                to_us: *to_us,
            };
            async move { tenant.cells(&query).await }
        });
        let parts = futures_util::future::try_join_all(queries).await?;
        // What spans were counted in until more was known of them has nothing in it any more.
        let is_something =
            |cell: &CellRow| cell.measures.event_count != 0 || cell.measures.session_count != 0;
        Ok(parts.into_iter().flatten().filter(is_something).collect())
    }

    /// Where the last bucket must begin before. A `to` on the start of an hour means the end of the hour before it, so
    /// that adjoining reports don't count an hour twice.
    fn end_us(&self) -> i64 {
        let is_boundary = hour_start(self.to_us) == self.to_us && self.to_us > self.from_us;
        if is_boundary { self.to_us } else { self.to_us + 1 }
    }

    /// Adjoining spans of one tier each: [from, to).
    fn spans(&self) -> Vec<(Tier, i64, i64)> {
        let (first_hour, end) = (hour_start(self.from_us), self.end_us());
        let is_short = self.to_us - self.from_us <= HOURLY_RANGE_US;
        // Retention may just be removing the oldest hours.
        let hours_from = hour_start(self.now_us - HOURS_KEPT_US) + 2 * HOUR_US;
        if (is_short || self.granularity == Granularity::Hour) && first_hour >= hours_from {
            return vec![(Tier::Hour, first_hour, end)];
        }
        // Where hours are gone, the day that holds the edge is counted whole.
        let first_day = if first_hour < hours_from { day_start(self.from_us) } else { next_day(first_hour) };
        let last_day = if day_start(end) < hours_from { next_day(end - 1) } else { day_start(end) };
        let spans = [
            (Tier::Hour, first_hour, first_day),
            (Tier::Day, first_day, last_day),
            (Tier::Hour, last_day, end),
        ];
        spans.into_iter().filter(|(_, from_us, to_us)| from_us < to_us).collect()
    }

    /// The start of the answer's bucket that holds the instant. Weeks begin on Monday.
    pub(super) fn bucket(&self, us: i64) -> i64 {
        match self.granularity {
            Granularity::Hour => hour_start(us),
            Granularity::Day => day_start(us),
            // 1970-01-01 was a Thursday: three days after a Monday.
            Granularity::Week => day_start(us) - (us.div_euclid(DAY_US) + 3).rem_euclid(7) * DAY_US,
        }
    }

    /// The sums of each of the answer's buckets.
    pub(super) fn by_bucket(&self, cells: &[CellRow]) -> BTreeMap<i64, Measures> {
        let mut buckets: BTreeMap<i64, Measures> = BTreeMap::new();
        for cell in cells {
            buckets.entry(self.bucket(cell.bucket_us)).or_default().merge(&cell.measures);
        }
        buckets
    }
}

fn next_day(us: i64) -> i64 {
    let start = day_start(us);
    if start == us { us } else { start + DAY_US }
}

/// The sum of cells.
pub(super) fn sum(cells: &[CellRow]) -> Measures {
    let mut total = Measures::default();
    for cell in cells {
        total.merge(&cell.measures);
    }
    total
}

/// Sums by a key of the cells.
pub(super) fn sum_by<'a, K: Ord>(
    cells: &'a [CellRow],
    key: impl Fn(&'a CellRow) -> K,
) -> BTreeMap<K, Measures> {
    let mut sums: BTreeMap<K, Measures> = BTreeMap::new();
    for cell in cells {
        sums.entry(key(cell)).or_default().merge(&cell.measures);
    }
    sums
}

/// A bucket's start as published clients read it: to the second.
pub(super) fn bucket_text(us: i64) -> String {
    format_rfc3339(us).replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from_us: i64, to_us: i64, granularity: Granularity) -> Range {
        Range {
            from_us,
            to_us,
            granularity,
            agent_id: None,
            environment: None,
            model: None,
            provider: None,
            now_us: 100 * DAY_US,
        }
    }

    #[test]
    fn spans_adjoin_and_cover_the_range() {
        for (from_us, to_us) in [
            (99 * DAY_US + 5, 100 * DAY_US - 3),
            (80 * DAY_US + HOUR_US * 3 + 7, 100 * DAY_US - HOUR_US * 2 - 1),
            (10 * DAY_US + 1, 100 * DAY_US - 1),
            (90 * DAY_US, 95 * DAY_US - 1),
            (10 * DAY_US + HOUR_US, 20 * DAY_US + 5 * HOUR_US),
        ] {
            let spans = range(from_us, to_us, Granularity::Day).spans();
            assert!(
                spans.first().unwrap().1 <= from_us && spans.last().unwrap().2 > to_us,
                "{from_us} {to_us}"
            );
            assert!(spans.windows(2).all(|pair| pair[0].2 == pair[1].1));
        }
    }

    #[test]
    fn hours_are_not_read_where_they_are_gone() {
        let spans = range(10 * DAY_US + HOUR_US, 20 * DAY_US + 5 * HOUR_US, Granularity::Hour).spans();
        assert_eq!(spans, vec![(Tier::Day, 10 * DAY_US, 21 * DAY_US)]);
    }

    #[test]
    fn weeks_begin_on_monday() {
        let range = range(0, 1, Granularity::Week);
        // 2026-01-02 was a Friday; its week began on 2025-12-29.
        assert_eq!(bucket_text(range.bucket(1_767_323_045_678_000)), "2025-12-29T00:00:00Z");
    }
}
