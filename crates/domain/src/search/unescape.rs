//! Undoing escapes in a text that may hold JSON or a Python literal.

use std::ops::Range;

/// Appends `text` with every escape of JSON or Python undone, and the places in `out` where one was. What is no escape is kept
/// as it is. U+FFFD stands for lone surrogates.
pub(super) fn unescape(text: &str, out: &mut String, changes: &mut Vec<Range<usize>>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (character, length) = match read_escape(escape) {
            Some((character, length)) => {
                let start = out.len();
                changes.push(start..start + character.len_utf8());
                (character, length)
            }
            None => ('\\', 1),
        };
        out.push(character);
        rest = &escape[length..];
    }
    out.push_str(rest);
}

/// The character of the escape that `text` begins with, and how many bytes it takes.
fn read_escape(text: &str) -> Option<(char, usize)> {
    let bytes = text.as_bytes();
    Some(match *bytes.get(1)? {
        byte @ (b'"' | b'\\' | b'/' | b'\'') => (char::from(byte), 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        // Python's: one byte of Latin-1, and one code point.
        b'x' => (char::from_u32(hex(bytes, 2, 2)?)?, 4),
        b'U' => (char::from_u32(hex(bytes, 2, 8)?)?, 10),
        b'u' => {
            let unit = hex(bytes, 2, 4)?;
            if let Some(character) = char::from_u32(unit) {
                return Some((character, 6));
            }
            let is_pair = bytes.get(6..8).is_some_and(|head| head == br"\u");
            let low = if is_pair { hex(bytes, 8, 4) } else { None };
            let units = [Some(unit), low].map(|unit| unit.and_then(|unit| u16::try_from(unit).ok()));
            match char::decode_utf16(units.into_iter().flatten()).next() {
                Some(Ok(character)) => (character, 12),
                _ => (char::REPLACEMENT_CHARACTER, 6),
            }
        }
        _ => return None,
    })
}

fn hex(bytes: &[u8], start: usize, digits: usize) -> Option<u32> {
    let digits = bytes.get(start..start + digits)?;
    digits.iter().try_fold(0_u32, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}
