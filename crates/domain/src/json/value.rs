//! Looking into a JSON text: a value is a slice of it, valid by construction.

use std::borrow::Cow;

use super::canonical::canonicalize;
use super::error::{JsonError, syntax};
use super::scan::{Validation, plain_length, walk};
use super::string::{decode, decode_lossy};

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// The text of one JSON value, known to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    text: &'a str,
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its key, unescaped; U+FFFD stands for lone surrogates.
    pub key: Cow<'a, str>,
    /// Its value.
    pub value: Value<'a>,
}

/// In objects with more members, repetition is looked for by sorting instead of key by key.
const MAX_KEYS_COMPARED: usize = 32;

/// Integers beyond this are not all doubles, so a double says nothing certain about them.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

impl<'a> Value<'a> {
    /// Validates all of `text`, white space around it left out. Repeated keys are found when an
    /// object's members are listed.
    ///
    /// # Errors
    /// When the text is not JSON or nests too deeply.
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        walk(text, &mut Validation)?;
        Ok(Self { text: text.trim_matches([' ', '\t', '\n', '\r']) })
    }

    /// Takes text that is known to be one valid value without white space around it.
    pub(super) fn of_valid(text: &'a str) -> Self {
        Self { text }
    }

    /// The value as it was sent.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// What the value is.
    pub fn kind(&self) -> Kind {
        match self.text.as_bytes().first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The string; `None` if it is none, or if it holds a lone surrogate and so is not text.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        let inside = self.inside_string()?;
        if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inside));
        }
        decode(inside).map(Cow::Owned)
    }

    /// The string with U+FFFD for lone surrogates; `None` if it is none.
    pub fn as_str_lossy(&self) -> Option<Cow<'a, str>> {
        self.inside_string().map(unescape_lossy)
    }

    /// The number as a double; `None` if it is none or beyond a double.
    pub fn as_f64(&self) -> Option<f64> {
        match self.kind() {
            Kind::Number => self.text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// The number if it is an integer, also when written as `12.0` or `12e3`.
    pub fn as_i64(&self) -> Option<i64> {
        if self.kind() != Kind::Number {
            return None;
        }
        if let Ok(integer) = self.text.parse() {
            return Some(integer);
        }
        let number = self.as_f64()?;
        (number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER).then_some(number as i64)
    }

    /// The truth value; `None` if it is none.
    pub fn as_bool(&self) -> Option<bool> {
        match self.text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Whether the value is `null`.
    pub fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    /// The members of an object, in the order sent. What is inside them is not looked at.
    ///
    /// # Errors
    /// When the value is no object or names a key twice.
    pub fn members(&self) -> Result<Vec<Member<'a>>, JsonError> {
        let mut members: Vec<Member<'a>> = Vec::with_capacity(16);
        let mut items = Items::of_object(self.text)?;
        while let Some((key, value)) = items.next_member()? {
            let key = unescape_lossy(key);
            if members.len() < MAX_KEYS_COMPARED && members.iter().any(|earlier| earlier.key == key) {
                self.refuse_repetition(&key)?;
            }
            members.push(Member { key, value });
        }
        if members.len() > MAX_KEYS_COMPARED {
            let mut keys: Vec<&str> = members.iter().map(|member| &*member.key).collect();
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                self.refuse_repetition(pair[0])?;
            }
        }
        Ok(members)
    }

    /// The elements of an array.
    ///
    /// # Errors
    /// When the value is no array.
    pub fn elements(&self) -> Result<Vec<Value<'a>>, JsonError> {
        let mut elements = Vec::new();
        let mut items = Items::of_array(self.text)?;
        while let Some(element) = items.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }

    /// The member of an object with this key; `None` if there is none or the value is no object.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let mut items = Items::of_object(self.text).ok()?;
        while let Some((found, value)) = items.next_member().ok()? {
            if found == key || (found.contains('\\') && unescape_lossy(found) == key) {
                return Some(value);
            }
        }
        None
    }

    fn inside_string(&self) -> Option<&'a str> {
        self.text.strip_prefix('"')?.strip_suffix('"')
    }

    /// Two keys that differ only in lone surrogates look the same once unescaped; only in that case
    /// does it take the canonical form to know whether a repeated key really is one.
    fn refuse_repetition(&self, key: &str) -> Result<(), JsonError> {
        if key.contains(char::REPLACEMENT_CHARACTER) && canonicalize(self.text).is_ok() {
            return Ok(());
        }
        Err(JsonError::DuplicateKey { path: key.to_owned() })
    }
}

fn unescape_lossy(inside: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Cow::Borrowed(inside);
    }
    Cow::Owned(decode_lossy(inside))
}

/// Steps through the items of a valid object or array. Errors cannot arise from valid text; they
/// stand in for the panics that slicing would otherwise risk.
struct Items<'a> {
    text: &'a str,
    at: usize,
}

const BROKEN: &str = "the value is incomplete";

impl<'a> Items<'a> {
    fn of_object(text: &'a str) -> Result<Self, JsonError> {
        if text.starts_with('{') {
            Ok(Self { text, at: 1 })
        } else {
            Err(syntax(0, "an object was expected"))
        }
    }

    fn of_array(text: &'a str) -> Result<Self, JsonError> {
        if text.starts_with('[') { Ok(Self { text, at: 1 }) } else { Err(syntax(0, "an array was expected")) }
    }

    /// The next member: the inside of its key as written, and its value.
    #[inline]
    fn next_member(&mut self) -> Result<Option<(&'a str, Value<'a>)>, JsonError> {
        self.skip_separators();
        if self.byte() != Some(b'"') {
            return Ok(None);
        }
        let key = self.take_value()?;
        self.skip_separators();
        let value = self.take_value()?;
        let key = key.inside_string().ok_or(syntax(self.at, BROKEN))?;
        Ok(Some((key, value)))
    }

    #[inline]
    fn next_element(&mut self) -> Result<Option<Value<'a>>, JsonError> {
        self.skip_separators();
        if self.byte() == Some(b']') { Ok(None) } else { self.take_value().map(Some) }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_separators(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')) {
            self.at += 1;
        }
    }

    #[inline]
    fn take_value(&mut self) -> Result<Value<'a>, JsonError> {
        let end = value_end(self.text.as_bytes(), self.at);
        match self.text.get(self.at..end) {
            Some(text) if !text.is_empty() => {
                self.at = end;
                Ok(Value { text })
            }
            _ => Err(syntax(self.at, BROKEN)),
        }
    }
}

/// Where the valid value that starts at `at` ends.
#[inline]
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => at = word_end(bytes, at),
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

#[inline]
fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        at += plain_length(&bytes[at..]);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            _ => at += 2,
        }
    }
    bytes.len()
}

fn word_end(bytes: &[u8], start: usize) -> usize {
    let is_word = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E');
    bytes[start..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |length| start + length)
}
