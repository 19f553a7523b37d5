//! Money as integers: nano-dollars in an `i64`, read from decimals without passing through floats.

/// Nano-dollars in one dollar.
pub const NANOS_PER_USD: i64 = 1_000_000_000;

/// A single stated cost above this many dollars is a client's mistake; so sums of almost a million events at the limit
/// still fit an `i64`.
const MAX_USD: f64 = 1e4;

/// The same limit for a cost that is computed from tokens.
pub const MAX_COST_NANOS: i64 = 10_000 * NANOS_PER_USD;

const NANO_DECIMALS: usize = 9;

/// Dollars as a client states them, in nano-dollars: the shortest decimal that prints the number,
/// rounded half to even at the ninth place. `None` for NaN, negative amounts and more than 10,000 dollars.
///
/// Going by the printed decimal makes `0.1` exactly 100 000 000 nanos; multiplying the binary fraction
/// would be a coin's toss at halves.
pub fn usd_to_nanos(usd: f64) -> Option<i64> {
    if !(0.0..=MAX_USD).contains(&usd) {
        return None;
    }
    let text = usd.abs().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let kept = fraction.get(..NANO_DECIMALS).unwrap_or(fraction);
    let dropped = fraction.get(NANO_DECIMALS..).unwrap_or("");
    let nanos = join_decimal(whole, kept, NANO_DECIMALS)?;
    let round_up = match dropped.as_bytes().split_first() {
        None => false,
        Some((b'5', rest)) => rest.iter().any(|&digit| digit != b'0') || nanos % 2 == 1,
        Some((&first, _)) => first > b'5',
    };
    Some(nanos + i64::from(round_up))
}

/// Nano-dollars as dollars, for showing only: never compute with the result.
pub fn nanos_to_usd(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_USD as f64
}

/// A plain non-negative decimal (`"0.15"`) in nanos, exactly: `None` if it has other characters, more
/// than nine decimals or does not fit.
pub(super) fn parse_nanos(text: &str) -> Option<i64> {
    parse_scaled(text, NANO_DECIMALS)
}

/// A plain non-negative decimal as a whole number of 10^-`decimals`, exactly.
pub(super) fn parse_scaled(text: &str, decimals: usize) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > decimals {
        return None;
    }
    join_decimal(whole, fraction, decimals)
}

fn join_decimal(whole: &str, fraction: &str, decimals: usize) -> Option<i64> {
    let digits = whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits.clone().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padding = std::iter::repeat_n(b'0', decimals.saturating_sub(fraction.len()));
    digits
        .chain(padding)
        .try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
}

/// `dividend / divisor` (positive divisor), rounded half to even.
pub(super) fn divide_half_even(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend.div_euclid(divisor);
    let twice_remainder = dividend.rem_euclid(divisor).saturating_mul(2);
    match twice_remainder.cmp(&divisor) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stated_dollars_become_nanos_by_their_print() {
        for (usd, nanos) in [
            (0.0, Some(0)),
            (-0.0, Some(0)),
            (0.1, Some(100_000_000)),
            (0.1 + 0.2, Some(300_000_000)),
            (1.005, Some(1_005_000_000)),
            (0.0000000005, Some(0)),
            (0.0000000015, Some(2)),
            (0.0000000025, Some(2)),
            (0.00000000250001, Some(3)),
            (5e-324, Some(0)),
            (1e4, Some(10_000_000_000_000)),
            (1.1e4, None),
            (-0.01, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(usd_to_nanos(usd), nanos, "{usd}");
        }
    }

    #[test]
    fn prices_parse_exactly_or_not_at_all() {
        for (text, nanos) in [
            ("2.5", Some(2_500_000_000)),
            ("0.003625", Some(3_625_000)),
            ("15", Some(15_000_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("-1", None),
            ("1e3", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_nanos(text), nanos, "{text}");
        }
    }

    #[test]
    fn halves_go_to_even() {
        let rounded: Vec<_> = [4, 5, 6, 15, 25, 26].map(|n| divide_half_even(n, 10)).into();
        assert_eq!(rounded, [0, 0, 1, 2, 2, 3]);
    }

    proptest! {
        #[test]
        fn nanos_survive_the_way_out_and_back(nanos in 0_i64..10_000_000_000_000) {
            prop_assert_eq!(usd_to_nanos(nanos_to_usd(nanos)), Some(nanos));
        }
    }
}
