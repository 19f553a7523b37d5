//! Texts that serde_json refuses although they are JSON.
//!
//! Half a surrogate pair is no character and `1e400` is no double, so serde_json's only way with them is an error
//! when they stand where an object or a list was due. They are rare, so the text is read first and mended only
//! after an error.

use std::borrow::Cow;

/// The text with U+FFFD for each half of a surrogate pair that stands alone, written at the same length, and with
/// numbers beyond a double in quotes; `None` if it has neither.
pub(super) fn mended(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut mended, mut copied, mut at, mut in_string) = (String::new(), 0, 0, false);
    while let Some(&byte) = bytes.get(at) {
        let (length, replacement) = match byte {
            b'\\' => escape(&bytes[at..]),
            b'-' | b'0'..=b'9' if !in_string => number(&text[at..]),
            _ => {
                in_string ^= byte == b'"';
                (1, None)
            }
        };
        if let Some(replacement) = replacement {
            mended.push_str(text.get(copied..at)?);
            mended.push_str(&replacement);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return None;
    }
    mended.push_str(text.get(copied..)?);
    Some(mended)
}

/// The length of the escape that the bytes begin with, and what to write instead.
fn escape(bytes: &[u8]) -> (usize, Option<Cow<'_, str>>) {
    match (code_unit(bytes), bytes.get(6..).and_then(code_unit)) {
        (None, _) => (2, None),
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some(Cow::Borrowed("\\ufffd"))),
        (Some(_), _) => (6, None),
    }
}

fn code_unit(bytes: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"\\u")?.get(..4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

fn number(text: &str) -> (usize, Option<Cow<'_, str>>) {
    let is_part = |character: char| matches!(character, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
    let length = text.find(|character| !is_part(character)).unwrap_or(text.len());
    let beyond = text[..length].parse().is_ok_and(f64::is_infinite);
    (length, beyond.then(|| Cow::Owned(format!("\"{}\"", &text[..length]))))
}
