//! Instants, dates and ranges, in the time zone in which they were asked for.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use agentlens_domain::time::{DAY_US, HOUR_US, parse_rfc3339};

use super::{choice, text};
use crate::error::ApiError;

/// The instants of the years 0 to 9999: what RFC 3339 can say, and what arithmetic on instants has room for.
const INSTANTS_US: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

/// Numbers below this are no milliseconds of our time (it is in 1973) but years, days or seconds; only 0 means the beginning.
const MIN_MILLIS: i64 = 100_000_000_000;

/// What `range` may be.
const RANGES: [(&str, i64); 9] = [
    ("1h", HOUR_US),
    ("3h", 3 * HOUR_US),
    ("6h", 6 * HOUR_US),
    ("12h", 12 * HOUR_US),
    ("24h", DAY_US),
    ("3d", 3 * DAY_US),
    ("7d", 7 * DAY_US),
    ("30d", 30 * DAY_US),
    ("90d", 90 * DAY_US),
];

/// The parameters of a range as they were sent.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each field is the parameter of its name")]
pub struct Times<'a> {
    pub from: Option<&'a String>,
    pub to: Option<&'a String>,
    pub range: Option<&'a String>,
    pub time_zone: Option<&'a String>,
}

/// A range, as far as it was given. Both ends are inclusive, in microseconds UTC.
#[derive(Debug, Clone)]
pub struct Window {
    /// The earliest instant.
    pub from_us: Option<i64>,
    /// The latest instant.
    pub to_us: Option<i64>,
    /// The time zone of dates and days.
    pub zone: TimeZone,
}

impl Times<'_> {
    /// Reads the range. A date without a time begins at its midnight, and as `to` ends with the day.
    pub fn read(&self, now_us: i64) -> Result<Window, ApiError> {
        let zone = zone(self.time_zone)?;
        let from_us = instant("from", self.from, &zone, Edge::Start)?;
        let to_us = instant("to", self.to, &zone, Edge::End)?;
        let (from_us, to_us) = match (choice("range", self.range, &RANGES)?, from_us) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid_parameter("range", "must not be given together with `from`"));
            }
            (Some(width_us), None) => {
                let to_us = to_us.unwrap_or(now_us);
                (Some(to_us.saturating_sub(width_us)), Some(to_us))
            }
            (None, from_us) => (from_us, to_us),
        };
        if from_us.zip(to_us).is_some_and(|(from_us, to_us)| from_us > to_us) {
            return Err(ApiError::invalid_parameter("from", "must not be after `to`"));
        }
        Ok(Window { from_us, to_us, zone })
    }
}

/// Which end of a range a date is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

/// The time zone of an IANA name; UTC unless given.
pub fn zone(value: Option<&String>) -> Result<TimeZone, ApiError> {
    let Some(name) = text(value) else { return Ok(TimeZone::UTC) };
    TimeZone::get(&name).map_err(|_| {
        ApiError::invalid_parameter(
            "timeZone",
            "must be the IANA name of a time zone, such as Europe/Berlin, Asia/Kolkata or UTC",
        )
    })
}

fn instant(name: &str, value: Option<&String>, zone: &TimeZone, edge: Edge) -> Result<Option<i64>, ApiError> {
    let Some(value) = text(value) else { return Ok(None) };
    // A plus sign that was not encoded arrives as a space.
    let value = value.replace(' ', "+");
    let read = parse_rfc3339(&value)
        .or_else(|| date(&value, zone, edge))
        .or_else(|| local_time(&value, zone))
        .or_else(|| value.parse::<i64>().ok().filter(is_millis).and_then(|millis| millis.checked_mul(1000)));
    read.filter(|us| INSTANTS_US.contains(us)).map(Some).ok_or_else(|| {
        ApiError::invalid_parameter(
            name,
            "must be an instant such as 2026-01-02T03:04:05Z, a date such as 2026-01-02, or milliseconds since 1970 such as 1767322800000",
        )
    })
}

fn is_millis(number: &i64) -> bool {
    *number == 0 || *number >= MIN_MILLIS
}

/// A date alone: its first instant, or its last.
fn date(text: &str, zone: &TimeZone, edge: Edge) -> Option<i64> {
    let date: Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let midnight = |date: Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp().as_microsecond());
    match edge {
        Edge::Start => midnight(date),
        Edge::End => Some(midnight(date.tomorrow().ok()?)? - 1),
    }
}

/// A date and a time without an offset.
fn local_time(text: &str, zone: &TimeZone) -> Option<i64> {
    let is_one = text.len() >= 16 && text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
    let time: DateTime = text.parse().ok().filter(|_| is_one && !text.contains('['))?;
    Some(time.to_zoned(zone.clone()).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: &str, to: &str, zone: &str) -> (Option<i64>, Option<i64>) {
        let [from, to, zone] = [from, to, zone].map(|text| Some(text.to_owned()));
        let times = Times { from: from.as_ref(), to: to.as_ref(), range: None, time_zone: zone.as_ref() };
        let window = times.read(0).unwrap();
        (window.from_us, window.to_us)
    }

    fn us(text: &str) -> i64 {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_date_is_a_day_of_its_zone() {
        assert_eq!(
            window("2026-03-01", "2026-03-01", "UTC"),
            (Some(us("2026-03-01T00:00:00Z")), Some(us("2026-03-02T00:00:00Z") - 1))
        );
        assert_eq!(
            window("2026-03-01", "2026-03-02", "Asia/Kolkata"),
            (Some(us("2026-02-28T18:30:00Z")), Some(us("2026-03-02T18:30:00Z") - 1))
        );
        // The day on which clocks go forward has 23 hours.
        assert_eq!(
            window("2026-03-29", "2026-03-29", "Europe/Berlin"),
            (Some(us("2026-03-28T23:00:00Z")), Some(us("2026-03-29T22:00:00Z") - 1))
        );
        // Midnight does not exist on this day.
        assert_eq!(
            window("2026-09-06", "2026-09-06", "America/Santiago"),
            (Some(us("2026-09-06T04:00:00Z")), Some(us("2026-09-07T03:00:00Z") - 1))
        );
    }

    #[test]
    fn times_without_an_offset_are_of_the_zone() {
        assert_eq!(
            window("2026-01-02T03:04:05", "2026-01-02T03:04:05Z", "Asia/Kathmandu"),
            (Some(us("2026-01-01T21:19:05Z")), Some(us("2026-01-02T03:04:05Z")))
        );
        assert_eq!(
            window("0", "1767322800000", "Asia/Kathmandu"),
            (Some(0), Some(us("2026-01-02T03:00:00Z")))
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (from, to, range, zone) in [
            (Some("2026-01-03"), Some("2026-01-02"), None, None),
            (Some("yesterday"), None, None, None),
            (Some("27.11.2026"), None, None, None),
            (None, Some("2026-02-30"), None, None),
            (Some("2026"), None, None, None),
            (Some("20260102"), None, None, None),
            (Some("1767322800"), None, None, None),
            (Some("-1"), None, None, None),
            (Some("2026-01-01"), None, Some("24h"), None),
            (None, None, Some("2h"), None),
            (None, None, None, Some("Mars/Olympus")),
            (None, None, None, Some("+05:30")),
        ] {
            let owned = [from, to, range, zone].map(|text| text.map(str::to_owned));
            let [from, to, range, time_zone] = owned.each_ref().map(Option::as_ref);
            assert!(Times { from, to, range, time_zone }.read(0).is_err(), "{owned:?}");
        }
    }
}
