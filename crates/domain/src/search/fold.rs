//! What of a payload can be searched.

use crate::json::{Piece, Pieces};

/// Appends the searchable text of a canonical JSON payload: the JSON text with the escapes of its
/// strings taken apart and every character in lower case. U+FFFD stands for lone surrogates.
pub fn fold(payload: &str, out: &mut String) {
    out.reserve(payload.len());
    for piece in Pieces::of(payload) {
        match piece {
            Piece::Plain(plain) => lower(plain, out),
            Piece::Char(character) => out.extend(character.to_lowercase()),
            Piece::LoneSurrogate(_) => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

/// Appends `text` in lower case. Character by character: the case of a character must not depend on
/// its neighbours, or a part of a text would not be found in it.
pub(super) fn lower(text: &str, out: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let (ascii, others) = rest.split_at(ascii_length(rest));
        let start = out.len();
        out.push_str(ascii);
        out[start..].make_ascii_lowercase();
        let others_length = others.bytes().position(|byte| byte.is_ascii()).unwrap_or(others.len());
        let (others, next) = others.split_at(others_length);
        out.extend(others.chars().flat_map(char::to_lowercase));
        rest = next;
    }
}

/// How many leading bytes are ASCII. Mostly all are, which the library finds out many at a time.
fn ascii_length(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.bytes().position(|byte| !byte.is_ascii()).unwrap_or(text.len())
}
