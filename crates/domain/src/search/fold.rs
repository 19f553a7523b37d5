//! What of a payload can be searched: the text as people see it, whatever escapes it travelled in.
//!
//! A payload is JSON, and its texts often hold JSON again: attributes of spans, arguments of tools. Python writes such inner JSON
//! in ASCII, so that `退款` is `\u9000\u6b3e` there. The searchable text is the payload with its escapes undone, followed by what
//! undoing the escapes that are left makes of it, and so on.

use std::ops::Range;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::unescape::unescape;
use crate::json::{Piece, Pieces};

/// How often escapes are undone: the payload, JSON in one of its texts, JSON in a text of that, and once more.
const MAX_LAYERS: usize = 4;

/// Stands between the layers of a text, so that no match spans two.
const SEPARATOR: char = '\0';

/// Bytes on either side of a change that are indexed with it. Four bytes make a gram, and changing the case of a character
/// shortens it to a third at most.
const MARGIN_BYTES: usize = 12;

/// Appends the searchable text of a canonical JSON payload: its layers in lower case and in Unicode's composed form. U+FFFD
/// stands for lone surrogates.
pub fn fold(payload: &str, out: &mut String) {
    fold_layers(payload, out, |layer, _, out| fold_text(layer, out));
}

/// Appends a text with the same grams as [`fold`]'s, and shorter: of further layers only what differs from the one before.
pub fn fold_for_index(payload: &str, out: &mut String) {
    fold_layers(payload, out, |layer, changes, out| {
        for window in windows(layer, changes) {
            fold_text(&layer[window], out);
            out.push(SEPARATOR);
        }
    });
}

fn fold_layers(payload: &str, out: &mut String, further: impl Fn(&str, &[Range<usize>], &mut String)) {
    out.reserve(payload.len());
    let start = out.len();
    for piece in Pieces::of(payload) {
        match piece {
            Piece::Plain(plain) => lower(plain, out),
            Piece::Char(character) => out.extend(character.to_lowercase()),
            Piece::LoneSurrogate(_) => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
    compose(out, start);
    // Escapes of an inner text begin with a backslash, which is escaped itself.
    if memchr::memmem::find(payload.as_bytes(), br"\\").is_none() {
        return;
    }
    let (mut layer, mut next, mut changes) =
        (String::with_capacity(payload.len()), String::new(), Vec::new());
    unescape(payload, &mut layer, &mut changes);
    for _ in 1..MAX_LAYERS {
        next.clear();
        changes.clear();
        unescape(&layer, &mut next, &mut changes);
        if changes.is_empty() {
            break;
        }
        out.push(SEPARATOR);
        further(&next, &changes, out);
        std::mem::swap(&mut layer, &mut next);
    }
}

/// Appends any text as it is searched.
pub(super) fn fold_text(text: &str, out: &mut String) {
    let start = out.len();
    lower(text, out);
    compose(out, start);
}

/// The surroundings of changes, joined where they meet. They begin and end at ASCII characters, so that composing them gives what
/// composing the whole text does.
fn windows(text: &str, changes: &[Range<usize>]) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let is_ascii = |at: usize| bytes.get(at).is_none_or(u8::is_ascii);
    let mut windows: Vec<Range<usize>> = Vec::new();
    for change in changes {
        let mut start = change.start.saturating_sub(MARGIN_BYTES);
        let mut end = change.end.saturating_add(MARGIN_BYTES).min(bytes.len());
        match windows.last() {
            Some(last) if last.end >= end => continue,
            Some(last) => start = start.max(last.start),
            None => {}
        }
        while start > 0 && !is_ascii(start) {
            start -= 1;
        }
        while !is_ascii(end) {
            end += 1;
        }
        match windows.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => windows.push(start..end),
        }
    }
    windows
}

/// Brings what was appended from `start` on into composed form, in which the same text has the same bytes.
fn compose(out: &mut String, start: usize) {
    let Some(text) = out.get(start..).filter(|text| !text.is_ascii()) else { return };
    if is_nfc_quick(text.chars()) != IsNormalized::Yes {
        let composed: String = text.nfc().collect();
        out.truncate(start);
        out.push_str(&composed);
    }
}

/// Appends `text` in lower case. Character by character: the case of a character must not depend on
/// its neighbours, or a part of a text would not be found in it.
fn lower(text: &str, out: &mut String) {
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
