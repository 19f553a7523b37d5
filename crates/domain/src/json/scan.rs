//! The one reader of JSON grammar: an iterative walk that reports tokens to a [`Sink`].
//!
//! Nesting is a fixed set of bits, so a walk allocates nothing and cannot overflow the stack.

use super::error::{JsonError, syntax};
use super::number::{Form, scan_number};
use crate::limits::MAX_JSON_DEPTH;

/// A token's bytes in the text, quotes included for strings.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A string token.
#[derive(Clone, Copy)]
pub(super) struct StringToken {
    pub(super) span: Span,
    /// Whether it holds an escape that ECMAScript would not print in the same way.
    pub(super) rewrite: bool,
}

/// What wants to hear of the tokens of a text. Every method may be left out.
pub(super) trait Sink {
    /// White space between tokens.
    fn space(&mut self, _span: Span) {}
    fn open_object(&mut self, _at: usize) {}
    fn close_object(&mut self, _at: usize) -> Result<(), JsonError> {
        Ok(())
    }
    fn open_array(&mut self, _at: usize) {}
    fn close_array(&mut self, _at: usize) {}
    fn comma(&mut self) {}
    fn key(&mut self, _token: StringToken) -> Result<(), JsonError> {
        Ok(())
    }
    fn string(&mut self, _token: StringToken) {}
    fn number(&mut self, _span: Span, _form: Form) -> Result<(), JsonError> {
        Ok(())
    }
}

/// Hears nothing: the walk itself is the validation.
pub(super) struct Validation;

impl Sink for Validation {}

/// Reads `text` to its end and reports every token.
pub(super) fn walk<S: Sink>(text: &str, sink: &mut S) -> Result<(), JsonError> {
    let mut walk = Walk { bytes: text.as_bytes(), at: 0, nesting: Nesting::default(), sink };
    walk.spaces();
    loop {
        let next = match walk.value()? {
            Next::Value => Next::Value,
            Next::End => walk.after_value()?,
        };
        if let Next::End = next {
            break;
        }
    }
    walk.spaces();
    if walk.at < walk.bytes.len() {
        return Err(syntax(walk.at, "there is text after the value"));
    }
    Ok(())
}

/// What the grammar wants next.
enum Next {
    Value,
    End,
}

struct Walk<'a, 'sink, S> {
    bytes: &'a [u8],
    at: usize,
    nesting: Nesting,
    sink: &'sink mut S,
}

impl<S: Sink> Walk<'_, '_, S> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn spaces(&mut self) {
        if self.peek().is_some_and(|byte| byte <= b' ') {
            let start = self.at;
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                self.at += 1;
            }
            self.sink.space(Span { start, end: self.at });
        }
    }

    /// Reads one value, or only the opening of a container that has something in it.
    #[inline]
    fn value(&mut self) -> Result<Next, JsonError> {
        match self.peek() {
            Some(b'"') => {
                let token = scan_string(self.bytes, self.at)?;
                self.at = token.span.end;
                self.sink.string(token);
            }
            Some(b'{') => return self.object(),
            Some(b'[') => return self.array(),
            Some(b'-' | b'0'..=b'9') => {
                let (end, form) = scan_number(self.bytes, self.at)?;
                let span = Span { start: self.at, end };
                self.at = end;
                self.sink.number(span, form)?;
            }
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            Some(_) => return Err(syntax(self.at, "a value was expected")),
            None => return Err(syntax(self.at, "the text ends where a value was expected")),
        }
        Ok(Next::End)
    }

    fn object(&mut self) -> Result<Next, JsonError> {
        self.nesting.open_object()?;
        self.sink.open_object(self.at);
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b'}') {
            return Ok(Next::End);
        }
        self.key()?;
        Ok(Next::Value)
    }

    fn array(&mut self) -> Result<Next, JsonError> {
        self.nesting.open_array()?;
        self.sink.open_array(self.at);
        self.at += 1;
        self.spaces();
        Ok(if self.peek() == Some(b']') { Next::End } else { Next::Value })
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(syntax(self.at, "a value was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a key, its colon and the white space around them.
    #[inline]
    fn key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(syntax(self.at, "a key in double quotes was expected"));
        }
        let token = scan_string(self.bytes, self.at)?;
        self.at = token.span.end;
        self.sink.key(token)?;
        self.spaces();
        if self.peek() != Some(b':') {
            return Err(syntax(self.at, "a colon was expected after the key"));
        }
        self.at += 1;
        self.spaces();
        Ok(())
    }

    /// Closes what ends here, up to the comma before the next value or the end of the outermost one.
    #[inline]
    fn after_value(&mut self) -> Result<Next, JsonError> {
        loop {
            let Some(in_object) = self.nesting.in_object() else { return Ok(Next::End) };
            self.spaces();
            match (self.peek(), in_object) {
                (Some(b','), _) => {
                    self.sink.comma();
                    self.at += 1;
                    self.spaces();
                    if in_object {
                        self.key()?;
                    }
                    return Ok(Next::Value);
                }
                (Some(b'}'), true) => self.sink.close_object(self.at)?,
                (Some(b']'), false) => self.sink.close_array(self.at),
                (Some(_), true) => return Err(syntax(self.at, "a comma or a closing brace was expected")),
                (Some(_), false) => return Err(syntax(self.at, "a comma or a closing bracket was expected")),
                (None, _) => return Err(syntax(self.at, "the text ends inside an object or array")),
            }
            self.at += 1;
            self.nesting.close();
        }
    }
}

/// Which containers are open: one bit each, set for objects.
#[derive(Default)]
struct Nesting {
    objects: [u64; MAX_JSON_DEPTH.div_ceil(64)],
    depth: usize,
}

impl Nesting {
    fn open_object(&mut self) -> Result<(), JsonError> {
        self.deepen()?;
        self.objects[(self.depth - 1) / 64] |= 1 << ((self.depth - 1) % 64);
        Ok(())
    }

    fn open_array(&mut self) -> Result<(), JsonError> {
        self.deepen()?;
        self.objects[(self.depth - 1) / 64] &= !(1 << ((self.depth - 1) % 64));
        Ok(())
    }

    fn deepen(&mut self) -> Result<(), JsonError> {
        if self.depth == MAX_JSON_DEPTH {
            return Err(JsonError::TooDeep { limit: MAX_JSON_DEPTH });
        }
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
    }

    fn in_object(&self) -> Option<bool> {
        let level = self.depth.checked_sub(1)?;
        Some(self.objects[level / 64] >> (level % 64) & 1 == 1)
    }
}

/// Reads the string whose opening quote is at `start`.
#[inline]
pub(super) fn scan_string(bytes: &[u8], start: usize) -> Result<StringToken, JsonError> {
    let mut at = start + 1;
    let mut rewrite = false;
    loop {
        at += plain_length(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'"') => return Ok(StringToken { span: Span { start, end: at + 1 }, rewrite }),
            Some(b'\\') => match bytes.get(at + 1) {
                Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                Some(b'/') => {
                    rewrite = true;
                    at += 2;
                }
                Some(b'u') => {
                    let digits = bytes.get(at + 2..at + 6);
                    if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                        return Err(syntax(at, "four hexadecimal digits were expected after \\u"));
                    }
                    rewrite = true;
                    at += 6;
                }
                _ => return Err(syntax(at, "this escape is unknown")),
            },
            Some(_) => return Err(syntax(at, "a control character must be escaped")),
            None => return Err(syntax(at, "the text ends inside a string")),
        }
    }
}

/// How many leading bytes JSON prints as they are: up to a quote, a backslash or a control character.
#[inline]
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = 0;
    // Eight bytes at a time: subtracting borrows into a byte's high bit when it is below the limit.
    // A borrow can also mark bytes after the first hit, which is why only the lowest mark is read.
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let marks = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        if marks & HIGHS != 0 {
            return at + (marks & HIGHS).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes[at..].iter().position(special).map_or(bytes.len(), |found| at + found)
}
