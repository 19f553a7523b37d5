//! Scalars: the text of one JSON value, read as the type that a field has.

use std::borrow::Cow;

use agentlens_domain::json::Value;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

/// Bytes of a trace id.
pub(super) const TRACE_ID_BYTES: usize = 16;
/// Bytes of a span id.
pub(super) const SPAN_ID_BYTES: usize = 8;

/// The text of a valid JSON value that is not `null`.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a>(&'a str);

impl<'a> Leaf<'a> {
    /// `None` for `null`. The text must be valid JSON without white space around it.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        (text != "null").then_some(Self(text))
    }

    /// The string, U+FFFD for each half of a surrogate pair that stands alone; `None` if it is no string.
    #[inline]
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inside.as_bytes().contains(&b'\\') {
            return Some(Cow::Borrowed(inside));
        }
        unescape(inside).map(Cow::Owned).or_else(|| Value::parse(self.0).ok()?.as_str_lossy())
    }

    /// The string itself, or the JSON text of anything else.
    pub(super) fn text(self) -> String {
        self.string().map_or_else(|| self.0.to_owned(), Cow::into_owned)
    }

    /// A number, or a string with a number in it.
    fn number_text(self) -> Option<&'a str> {
        match self.0.as_bytes().first()? {
            b'"' => self.0.strip_prefix('"')?.strip_suffix('"'),
            b'-' | b'0'..=b'9' => Some(self.0),
            _ => None,
        }
    }

    /// An integer of the asked type, also when written as `12.0` or `12e3`.
    #[inline]
    pub(super) fn integer<N: TryFrom<i128>>(self) -> Option<N> {
        let text = self.number_text()?;
        let integer = match text.parse::<i64>() {
            Ok(integer) => i128::from(integer),
            Err(_) => exact_integer(text)?,
        };
        N::try_from(integer).ok()
    }

    /// A double, also `"NaN"`, `"Infinity"` and `"-Infinity"`. A number beyond a double is none.
    pub(super) fn double(self) -> Option<f64> {
        let text = self.number_text()?;
        let value: f64 = text.parse().ok()?;
        let overflown = value.is_infinite() && text.contains(|character: char| character.is_ascii_digit());
        (!overflown).then_some(value)
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Bytes in either alphabet of base64, padded or not.
    pub(super) fn bytes(self) -> Option<Vec<u8>> {
        base64(&self.string()?)
    }

    /// An id that is `length` bytes long when it is right: hexadecimal, or base64 when it is as long as that
    /// would be. Hexadecimal of another length is read too, so that the id can be refused for what it is.
    pub(super) fn id(self, length: usize) -> Option<Vec<u8>> {
        let text = self.string()?;
        let digits = text.trim_end_matches('=').len();
        if digits == (length * 4).div_ceil(3)
            && let Some(id) = base64(&text)
        {
            return Some(id);
        }
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
    }
}

/// The text of the inside of a string, as long as its escapes are those of one character. Messages in attributes
/// are JSON in JSON, so quotes come every few bytes and nothing else does.
fn unescape(inside: &str) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.bytes().position(|byte| byte == b'\\') {
        text.push_str(&rest[..at]);
        text.push(match rest.as_bytes().get(at + 1)? {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            escaped @ (b'"' | b'\\' | b'/') => char::from(*escaped),
            _ => return None,
        });
        rest = &rest[at + 2..];
    }
    text.push_str(rest);
    Some(text)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let url_safe = digits.iter().any(|digit| matches!(digit, b'-' | b'_'));
    let alphabet = if url_safe { BASE64URL_NOPAD } else { BASE64_NOPAD };
    alphabet.decode(digits).ok()
}

/// The value of a decimal literal if it is an integer, without the detour over a double.
fn exact_integer(text: &str) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut number: i128 = format!("{whole}{fraction}").parse().ok()?;
    if number == 0 {
        return Some(0);
    }
    let mut power = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    while power < 0 {
        if number % 10 != 0 {
            return None;
        }
        number /= 10;
        power += 1;
    }
    number.checked_mul(10_i128.checked_pow(u32::try_from(power).ok()?)?)
}
