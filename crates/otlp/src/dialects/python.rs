//! Values as Python prints them: clients that call `str` on an object send `{'input_tokens': 12, 'cached': None}` or
//! `Usage(input_tokens=12, cached=None)` where others send JSON.

use serde_json::{Map, Number, Value as Json};

/// Texts that are nested more deeply are not read as values.
const MAX_DEPTH: usize = 64;

/// The value that Python prints as `text`; `None` if there is none.
pub(super) fn read(text: &str) -> Option<Json> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.rest.trim().is_empty().then_some(value)
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        match self.rest.as_bytes().first()? {
            b'{' => self.object(depth),
            b'[' => self.list(']', depth),
            b'(' => self.list(')', depth),
            b'\'' | b'"' => self.text().map(Json::String),
            b'<' => self.in_brackets().map(Json::from),
            b'-' | b'+' | b'.' | b'0'..=b'9' => self.number(),
            _ => self.word(depth),
        }
    }

    /// Consumes `token` if it comes next.
    fn take(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Whether another item follows, or `close` ends them; `None` if neither does.
    fn goes_on(&mut self, close: char) -> Option<bool> {
        let is_separated = self.take(',');
        if self.take(close) { Some(false) } else { is_separated.then_some(true) }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take('{');
        let mut members = Map::new();
        let mut goes_on = !self.take('}');
        while goes_on {
            let key = match self.value(depth + 1)? {
                Json::String(key) => key,
                key @ (Json::Number(_) | Json::Bool(_) | Json::Null) => key.to_string(),
                _ => return None,
            };
            self.take(':').then_some(())?;
            members.insert(key, self.value(depth + 1)?);
            goes_on = self.goes_on('}')?;
        }
        Some(Json::Object(members))
    }

    fn list(&mut self, close: char, depth: usize) -> Option<Json> {
        self.take(if close == ']' { '[' } else { '(' });
        let mut items = Vec::new();
        let mut goes_on = !self.take(close);
        while goes_on {
            items.push(self.value(depth + 1)?);
            goes_on = self.goes_on(close)?;
        }
        Some(Json::Array(items))
    }

    /// `None`, a truth value, or an object by its class and members.
    fn word(&mut self, depth: usize) -> Option<Json> {
        let name = self.name()?;
        match name {
            "None" | "null" => return Some(Json::Null),
            "True" | "true" => return Some(Json::Bool(true)),
            "False" | "false" => return Some(Json::Bool(false)),
            "nan" | "inf" => return Some(Json::String(name.to_owned())),
            _ => {}
        }
        self.take('(').then_some(())?;
        let mut members = Map::new();
        let mut goes_on = !self.take(')');
        while goes_on {
            self.rest = self.rest.trim_start();
            let key = self.name()?;
            self.take('=').then_some(())?;
            members.insert(key.to_owned(), self.value(depth + 1)?);
            goes_on = self.goes_on(')')?;
        }
        Some(Json::Object(members))
    }

    /// A value that Python can't print as a literal: `<Role.USER: 'user'>`, `<function run.<locals>.tool at 0x7f>`.
    fn in_brackets(&mut self) -> Option<&'t str> {
        let mut depth = 0_usize;
        for (at, character) in self.rest.char_indices() {
            match character {
                '<' => depth += 1,
                '>' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                let (value, rest) = self.rest.split_at(at + 1);
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn name(&mut self) -> Option<&'t str> {
        let is_in_name = |character: char| character.is_alphanumeric() || matches!(character, '_' | '.');
        let end = self.rest.find(|character| !is_in_name(character)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn number(&mut self) -> Option<Json> {
        let is_in_number = |character: char| {
            character.is_ascii_digit() || matches!(character, '-' | '+' | '.' | 'e' | 'E' | '_')
        };
        let end = self.rest.find(|character| !is_in_number(character)).unwrap_or(self.rest.len());
        let (literal, rest) = self.rest.split_at(end);
        self.rest = rest;
        let literal = literal.replace('_', "");
        match literal.parse::<i64>() {
            Ok(integer) => Some(Json::from(integer)),
            Err(_) => Number::from_f64(literal.parse().ok()?).map(Json::Number),
        }
    }

    fn text(&mut self) -> Option<String> {
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next()?;
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.push(escaped(&mut characters)?),
                _ if character == quote => {
                    self.rest = &self.rest[at + quote.len_utf8()..];
                    return Some(text);
                }
                _ => text.push(character),
            }
        }
        None
    }
}

/// The character of an escape sequence, after its backslash.
fn escaped(characters: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, letter) = characters.next()?;
    let digits = match letter {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Some(other),
    };
    let code: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
    char::from_u32(u32::from_str_radix(&code, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_prints_is_read() {
        for (text, expected) in [
            (
                "{'a': 1, 'b': None, 'c': [True, False,], }",
                Some(json!({"a": 1, "b": null, "c": [true, false]})),
            ),
            (
                "CompletionUsage(completion_tokens=17, prompt_tokens=42, details=Details(cached_tokens=30))",
                Some(json!({"completion_tokens": 17, "prompt_tokens": 42, "details": {"cached_tokens": 30}})),
            ),
            (r#"{"it's": 'a "b" \'c\' \n \u00e9'}"#, Some(json!({"it's": "a \"b\" 'c' \n é"}))),
            ("(1.5, -2, 1_000)", Some(json!([1.5, -2, 1000]))),
            ("{1: 'x'}", Some(json!({"1": "x"}))),
            (
                "M(role=<Role.USER: 'user'>, run=<function f.<locals>.g at 0x7f>)",
                Some(json!({"role": "<Role.USER: 'user'>", "run": "<function f.<locals>.g at 0x7f>"})),
            ),
            ("[<open, 1]", None),
            ("{}", Some(json!({}))),
            ("[INST] hello", None),
            ("{'a': 1} and more", None),
            ("{'a' 1}", None),
            ("{'a': 'open}", None),
            ("call(1)", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(read(&"[".repeat(100_000)), None);
    }
}
