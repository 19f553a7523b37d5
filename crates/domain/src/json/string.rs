//! JSON strings: taking escapes apart and writing them as ECMAScript does.

use std::fmt::Write as _;

use super::scan::plain_length;

/// What ECMAScript prints for a character that must be escaped; empty for any other.
#[inline]
pub(crate) fn escape(byte: u8) -> &'static str {
    const CONTROLS: [&str; 32] = [
        "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007", "\\b", "\\t",
        "\\n", "\\u000b", "\\f", "\\r", "\\u000e", "\\u000f", "\\u0010", "\\u0011", "\\u0012", "\\u0013",
        "\\u0014", "\\u0015", "\\u0016", "\\u0017", "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c",
        "\\u001d", "\\u001e", "\\u001f",
    ];
    match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        _ => CONTROLS.get(usize::from(byte)).copied().unwrap_or_default(),
    }
}

/// Appends `text` as a JSON string, quotes included, as ECMAScript prints it.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_length(rest.as_bytes()));
        out.push_str(plain);
        let Some(&byte) = special.as_bytes().first() else { break };
        out.push_str(escape(byte));
        rest = &special[1..];
    }
    out.push('"');
}

/// A stretch of JSON text with its escapes taken apart.
pub(crate) enum Piece<'a> {
    /// Text without escapes.
    Plain(&'a str),
    /// One escaped character.
    Char(char),
    /// Half of a surrogate pair whose other half is missing: no character at all.
    LoneSurrogate(u16),
}

/// Takes the escapes of JSON text apart. What is not an escape comes out as it is.
pub(crate) struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Takes the escape that `rest` begins with, which is `length` bytes long.
    fn take(&mut self, length: usize, piece: Piece<'a>) -> Option<Piece<'a>> {
        self.rest = &self.rest[length..];
        Some(piece)
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let bytes = self.rest.as_bytes();
        let escaped = match bytes {
            [] => return None,
            [b'\\', escaped, ..] => *escaped,
            [b'\\'] => return self.take(1, Piece::Plain("\\")),
            _ => {
                let length = memchr::memchr(b'\\', bytes).unwrap_or(bytes.len());
                let plain = &self.rest[..length];
                return self.take(length, Piece::Plain(plain));
            }
        };
        let character = match escaped {
            b'"' | b'\\' | b'/' => escaped as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match unicode_escape(bytes) {
                Some((length, piece)) => return self.take(length, piece),
                None => return self.take(1, Piece::Plain("\\")),
            },
            _ => return self.take(1, Piece::Plain("\\")),
        };
        self.take(2, Piece::Char(character))
    }
}

/// Reads `\uXXXX` and, when it is the first half of a pair, the second half too.
fn unicode_escape<'a>(bytes: &[u8]) -> Option<(usize, Piece<'a>)> {
    let unit = code_unit(bytes)?;
    if let Some(character) = char::from_u32(u32::from(unit)) {
        return Some((6, Piece::Char(character)));
    }
    let pair = code_unit(&bytes[6..]).and_then(|low| char::decode_utf16([unit, low]).next()?.ok());
    Some(match pair {
        Some(character) => (12, Piece::Char(character)),
        None => (6, Piece::LoneSurrogate(unit)),
    })
}

fn code_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit: u16, &digit| Some(unit << 4 | (digit as char).to_digit(16)? as u16))
}

/// Appends the inside of a valid JSON string with every escape as ECMAScript prints it.
pub(super) fn rewrite(inside: &str, out: &mut String) {
    for piece in Pieces::of(inside) {
        match piece {
            Piece::Plain(plain) => out.push_str(plain),
            Piece::Char(character) => match u8::try_from(character).map(escape) {
                Ok("") | Err(_) => out.push(character),
                Ok(escaped) => out.push_str(escaped),
            },
            // Writing to a String cannot fail.
            Piece::LoneSurrogate(unit) => drop(write!(out, "\\u{unit:04x}")),
        }
    }
}

/// The text that the inside of a valid JSON string stands for; `None` if it holds a lone surrogate.
pub(super) fn decode(inside: &str) -> Option<String> {
    let mut out = String::with_capacity(inside.len());
    for piece in Pieces::of(inside) {
        match piece {
            Piece::Plain(plain) => out.push_str(plain),
            Piece::Char(character) => out.push(character),
            Piece::LoneSurrogate(_) => return None,
        }
    }
    Some(out)
}

/// As [`decode`], with U+FFFD for every lone surrogate.
pub(super) fn decode_lossy(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    for piece in Pieces::of(inside) {
        match piece {
            Piece::Plain(plain) => out.push_str(plain),
            Piece::Char(character) => out.push(character),
            Piece::LoneSurrogate(_) => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
    out
}
