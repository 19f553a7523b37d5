//! Numbers as ECMAScript sees them, and whether a double holds what a literal says.

use super::error::{JsonError, syntax};

/// How a literal relates to what ECMAScript prints for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// The literal is what ECMAScript prints.
    Canonical,
    /// It takes reading the number to know.
    Unknown,
}

/// Any decimal of at most this many digits survives a double unchanged.
const EXACT_DIGITS: usize = 15;

/// ECMAScript prints smaller numbers with an exponent: at most five zeros follow the point.
const MAX_ZEROS_AFTER_POINT: usize = 5;

/// Reads the number that starts at `start`; answers where it ends.
#[inline]
pub(super) fn scan_number(bytes: &[u8], start: usize) -> Result<(usize, Form), JsonError> {
    let digits = start + usize::from(bytes.get(start) == Some(&b'-'));
    let whole_end = skip_digits(bytes, digits);
    match (whole_end - digits, bytes.get(digits)) {
        (0, _) => return Err(syntax(digits, "a digit was expected")),
        (2.., Some(b'0')) => return Err(syntax(digits, "a number must not start with a zero")),
        _ => {}
    }
    let mut end = whole_end;
    if bytes.get(end) == Some(&b'.') {
        end = skip_digits(bytes, whole_end + 1);
        if end == whole_end + 1 {
            return Err(syntax(end, "a digit was expected after the point"));
        }
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        end = skip_digits(bytes, exponent);
        if end == exponent {
            return Err(syntax(end, "a digit was expected in the exponent"));
        }
        return Ok((end, Form::Unknown));
    }
    let fraction = bytes.get(whole_end + 1..end).unwrap_or_default();
    Ok((end, form(&bytes[start..digits], &bytes[digits..whole_end], fraction)))
}

fn skip_digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// Whether a literal without an exponent is surely printed as it stands.
fn form(sign: &[u8], whole: &[u8], fraction: &[u8]) -> Form {
    let zero = whole == b"0";
    let canonical = match fraction.last() {
        _ if whole.len() + fraction.len() > EXACT_DIGITS => false,
        None => !zero || sign.is_empty(),
        Some(b'0') => false,
        Some(_) => {
            !zero || fraction.iter().take_while(|&&digit| digit == b'0').count() <= MAX_ZEROS_AFTER_POINT
        }
    };
    if canonical { Form::Canonical } else { Form::Unknown }
}

/// Whether two literals denote the same decimal value; `-0` counts as `0`.
pub(super) fn same_decimal(left: &str, right: &str) -> bool {
    let (left, right) = (Decimal::of(left), Decimal::of(right));
    match (left.significant.is_empty(), right.significant.is_empty()) {
        (false, false) => {
            left.negative == right.negative
                && left.exponent == right.exponent
                && left.digits().eq(right.digits())
        }
        (left_zero, right_zero) => left_zero == right_zero,
    }
}

/// A literal's value as 0.digits times ten to the exponent.
struct Decimal<'a> {
    negative: bool,
    /// From the first to the last digit that is not zero, maybe with a point inside.
    significant: &'a str,
    exponent: i128,
}

impl<'a> Decimal<'a> {
    fn of(literal: &'a str) -> Self {
        let (negative, unsigned) = match literal.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, literal),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let shift = if whole.is_empty() {
            let zeros = fraction.len() - fraction.trim_start_matches('0').len();
            -(zeros as i128)
        } else {
            whole.len() as i128
        };
        // An exponent beyond 64 bits is either out of range or denotes a value no double prints as.
        let saturated = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let exponent = i128::from(exponent.parse::<i64>().unwrap_or(saturated));
        let significant = mantissa.trim_start_matches(['0', '.']).trim_end_matches(['0', '.']);
        Self { negative, significant, exponent: exponent + shift }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.significant.bytes().filter(|&byte| byte != b'.')
    }
}
