//! Instants. Inside the program an instant is an integer of microseconds UTC; at the edges it is RFC 3339.

use jiff::Timestamp;

/// 9999-12-30T00:00:00Z: the last midnight that the library writes in every offset.
const LAST_US: i64 = 253_402_128_000_000_000;
/// Microseconds of an hour.
pub const HOUR_US: i64 = 3_600_000_000;
/// Microseconds of a day.
pub const DAY_US: i64 = 24 * HOUR_US;

/// Reads RFC 3339 with any offset and any precision down to nanoseconds; `None` if the text is something else.
///
/// What lies below a microsecond is cut off: it is kept in the text, which the hash covers.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    // The parser knows more forms (time zone annotations, spaces) than the protocol does.
    let date_and_time = text.as_bytes();
    if date_and_time.len() < 20 || text.contains('[') || !matches!(date_and_time.get(10), Some(b'T' | b't')) {
        return None;
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// Writes an instant as `2026-01-02T03:04:05.678Z`: milliseconds always, microseconds when there are any.
///
/// Instants outside of the years 0 to 9999 are clamped to them (the last two days of 9999 are beyond the library).
pub fn format_rfc3339(us: i64) -> String {
    let clamped = us.clamp(-62_167_219_200_000_000, LAST_US);
    let timestamp = Timestamp::from_microsecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH);
    if clamped % 1000 == 0 { format!("{timestamp:.3}") } else { format!("{timestamp:.6}") }
}

/// The day of an instant, counted from 1970-01-01.
pub fn day_of(us: i64) -> i32 {
    i32::try_from(us.div_euclid(DAY_US)).unwrap_or(i32::MAX)
}

/// The start of the hour that holds the instant.
pub fn hour_start(us: i64) -> i64 {
    us - us.rem_euclid(HOUR_US)
}

/// The start of the day (UTC) that holds the instant.
pub fn day_start(us: i64) -> i64 {
    us - us.rem_euclid(DAY_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_precisions_denote_the_same_instant() {
        let instant = parse_rfc3339("2026-01-02T03:04:05.678Z").unwrap();
        for same in [
            "2026-01-02T05:04:05.678+02:00",
            "2026-01-01T22:04:05.678000-05:00",
            "2026-01-02T03:04:05.678000999Z",
        ] {
            assert_eq!(parse_rfc3339(same), Some(instant), "{same}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "now",
            "2026-01-02T03:04:05Z[UTC]",
            "2026-01-02 03:04:05Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn writing_keeps_microseconds() {
        assert_eq!(format_rfc3339(1_767_323_045_678_000), "2026-01-02T03:04:05.678Z");
        assert_eq!(format_rfc3339(1_767_323_045_678_901), "2026-01-02T03:04:05.678901Z");
        assert_eq!(format_rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert!(format_rfc3339(i64::MAX).starts_with("9999"));
        assert!(format_rfc3339(i64::MIN).starts_with("0000"));
    }

    #[test]
    fn buckets_start_at_or_before_the_instant() {
        assert_eq!(hour_start(-1), -HOUR_US);
        assert_eq!(day_start(DAY_US + 5), DAY_US);
        assert_eq!(day_of(-1), -1);
    }
}
