//! The canonical form: what ECMAScript's `JSON.stringify(JSON.parse(text))` prints.
//!
//! One pass over the text. Stretches that are canonical already stay pending and are copied in one
//! go; positions are therefore counted in the output as it will be once everything pending is copied.

use super::error::{JsonError, syntax};
use super::number::{Form, same_decimal};
use super::path::path_at;
use super::scan::{Sink, Span, StringToken, walk};
use super::string::rewrite;
use super::value::Value;
use crate::limits::MAX_ERROR_LITERAL_CHARS;

/// A JSON text in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    /// What ECMAScript prints for the text: every number is a double.
    pub text: String,
    /// The same with the literals that a double does not hold exactly as they were sent; only there
    /// when there is such a literal.
    pub lossless: Option<String>,
}

impl Canonical {
    /// The text as a value, without validating it again.
    pub fn value(&self) -> Value<'_> {
        Value::of_valid(&self.text)
    }
}

/// Prints `text` in canonical form.
///
/// # Errors
/// When the text is not JSON, names a key twice, nests too deeply or holds a number beyond a double.
pub fn canonicalize(text: &str) -> Result<Canonical, JsonError> {
    let mut printer = Printer::new(text, Numbers::AsDoubles);
    walk(text, &mut printer)?;
    let lossless = if printer.lossy {
        let mut keeper = Printer::new(text, Numbers::AsSent);
        walk(text, &mut keeper)?;
        Some(keeper.finish())
    } else {
        None
    };
    Ok(Canonical { text: printer.finish(), lossless })
}

/// What to print for a number that a double does not hold exactly.
enum Numbers {
    AsDoubles,
    AsSent,
}

/// In objects with more keys, repetition is looked for once by sorting instead of key by key.
const MAX_KEYS_COMPARED: usize = 32;

/// The rank of a key that is not an array index: after all that are.
const NO_INDEX: u32 = u32::MAX;

/// A key of an object that is still open.
struct Key {
    fingerprint: u64,
    /// Its quoted text in the output, which is also where its member starts.
    start: usize,
    end: usize,
    /// Where it stands in the source.
    source: usize,
    /// The array index it spells, or [`NO_INDEX`].
    index: u32,
}

/// An object that is still open.
struct OpenObject {
    /// Where its first member starts in the output.
    start: usize,
    /// Where its keys start in the stack of keys.
    keys: usize,
    /// Whether an array-index key came after a key that must follow it.
    unordered: bool,
}

struct Printer<'a> {
    text: &'a str,
    out: String,
    /// The start of the source text that is consumed, canonical and not copied yet.
    pending: usize,
    keys: Vec<Key>,
    objects: Vec<OpenObject>,
    numbers: Numbers,
    lossy: bool,
}

impl<'a> Printer<'a> {
    fn new(text: &'a str, numbers: Numbers) -> Self {
        Self {
            text,
            out: String::with_capacity(text.len()),
            pending: 0,
            keys: Vec::with_capacity(16),
            objects: Vec::with_capacity(8),
            numbers,
            lossy: false,
        }
    }

    fn finish(mut self) -> String {
        self.flush(self.text.len());
        self.out
    }

    /// Copies what is pending before `at`.
    fn flush(&mut self, at: usize) {
        self.out.push_str(&self.text[self.pending..at]);
        self.pending = at;
    }

    /// Leaves out or replaces a stretch of the source: what is before it is copied.
    fn skip(&mut self, span: Span) {
        self.flush(span.start);
        self.pending = span.end;
    }

    /// Where the source byte `at` will be in the output.
    fn position(&self, at: usize) -> usize {
        self.out.len() + at - self.pending
    }

    fn rewrite(&mut self, span: Span) {
        self.skip(span);
        self.out.push('"');
        rewrite(&self.text[span.start + 1..span.end - 1], &mut self.out);
        self.out.push('"');
    }

    fn duplicate(&self, source: usize) -> JsonError {
        JsonError::DuplicateKey { path: path_at(self.text, source) }
    }

    /// Refuses `key` if one of `earlier` and later keys is the same. Everything up to byte `end` of
    /// the source, where the key ends, has been read.
    fn refuse_repetition(&mut self, earlier: usize, key: &Key, end: usize) -> Result<(), JsonError> {
        for other in earlier..self.keys.len() {
            if self.keys[other].fingerprint == key.fingerprint {
                self.flush(end);
                let other = &self.keys[other];
                if self.out[other.start..other.end] == self.out[key.start..key.end] {
                    return Err(self.duplicate(key.source));
                }
            }
        }
        Ok(())
    }

    /// As [`Self::refuse_repetition`], for all keys from `first` on at once.
    fn refuse_repetitions(&self, first: usize) -> Result<(), JsonError> {
        let text = |key: &Key| &self.out[key.start..key.end];
        let mut sorted: Vec<&Key> = self.keys[first..].iter().collect();
        sorted.sort_by(|left, right| {
            left.fingerprint.cmp(&right.fingerprint).then_with(|| text(left).cmp(text(right)))
        });
        match sorted.windows(2).find(|pair| text(pair[0]) == text(pair[1])) {
            Some(pair) => Err(self.duplicate(pair[1].source)),
            None => Ok(()),
        }
    }

    /// Moves the array-index members of an object before the others, in ascending order.
    fn reorder(&mut self, object: &OpenObject) {
        let keys = &self.keys[object.keys..];
        let ends = keys.iter().skip(1).map(|next| next.start - 1).chain([self.out.len()]);
        let mut members: Vec<(u32, &str)> =
            keys.iter().zip(ends).map(|(key, end)| (key.index, &self.out[key.start..end])).collect();
        members.sort_by_key(|(index, _)| *index);
        let mut ordered = String::with_capacity(self.out.len() - object.start);
        for (_, member) in members {
            if !ordered.is_empty() {
                ordered.push(',');
            }
            ordered.push_str(member);
        }
        self.out.truncate(object.start);
        self.out.push_str(&ordered);
    }
}

impl Sink for Printer<'_> {
    fn space(&mut self, span: Span) {
        self.skip(span);
    }

    fn open_object(&mut self, at: usize) {
        let start = self.position(at) + 1;
        self.objects.push(OpenObject { start, keys: self.keys.len(), unordered: false });
    }

    fn close_object(&mut self, at: usize) -> Result<(), JsonError> {
        let Some(object) = self.objects.pop() else { return Ok(()) };
        if self.keys.len() - object.keys > MAX_KEYS_COMPARED {
            self.flush(at);
            self.refuse_repetitions(object.keys)?;
        }
        if object.unordered {
            self.flush(at);
            self.reorder(&object);
        }
        self.keys.truncate(object.keys);
        Ok(())
    }

    #[inline]
    fn key(&mut self, token: StringToken) -> Result<(), JsonError> {
        let Span { start: source, end } = token.span;
        let start = self.position(source);
        if token.rewrite {
            self.rewrite(token.span);
        }
        let inside = if token.rewrite {
            &self.out.as_bytes()[start + 1..self.out.len() - 1]
        } else {
            &self.text.as_bytes()[source + 1..end - 1]
        };
        let (fingerprint, index) = (fingerprint(inside), array_index(inside));
        let key = Key { fingerprint, start, end: start + inside.len() + 2, source, index };
        let Some(object) = self.objects.last_mut() else { return Ok(()) };
        let first = object.keys;
        let earlier = self.keys[first..].last();
        object.unordered |= earlier.is_some_and(|earlier| key.index < earlier.index);
        if self.keys.len() - first < MAX_KEYS_COMPARED {
            self.refuse_repetition(first, &key, end)?;
        }
        self.keys.push(key);
        Ok(())
    }

    #[inline]
    fn string(&mut self, token: StringToken) {
        if token.rewrite {
            self.rewrite(token.span);
        }
    }

    #[inline]
    fn number(&mut self, span: Span, form: Form) -> Result<(), JsonError> {
        if form == Form::Canonical {
            return Ok(());
        }
        let literal = &self.text[span.start..span.end];
        let value: f64 = literal.parse().map_err(|_| syntax(span.start, "a number was expected"))?;
        if !value.is_finite() {
            let literal = literal.chars().take(MAX_ERROR_LITERAL_CHARS).collect();
            return Err(JsonError::NumberOutOfRange { path: path_at(self.text, span.start), literal });
        }
        let mut buffer = ryu_js::Buffer::new();
        let printed = buffer.format_finite(value);
        if printed == literal {
            return Ok(());
        }
        if !same_decimal(literal, printed) {
            self.lossy = true;
            if let Numbers::AsSent = self.numbers {
                return Ok(());
            }
        }
        self.skip(span);
        self.out.push_str(printed);
        Ok(())
    }
}

/// Tells most different keys apart without looking at their text.
#[inline]
fn fingerprint(key: &[u8]) -> u64 {
    let (head, tail) = match (key.first_chunk(), key.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (key.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0),
    };
    head.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ tail ^ (key.len() as u64).rotate_right(8)
}

/// The array index that a key spells: digits without a leading zero, below 2^32 - 1.
#[inline]
fn array_index(key: &[u8]) -> u32 {
    match key {
        [b'0'] => 0,
        [b'1'..=b'9', ..] if key.len() <= 10 && key.iter().all(u8::is_ascii_digit) => {
            let index = key.iter().fold(0, |index: u64, digit| index * 10 + u64::from(digit - b'0'));
            u32::try_from(index).unwrap_or(NO_INDEX)
        }
        _ => NO_INDEX,
    }
}
