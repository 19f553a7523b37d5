//! Cutting large parts out of a JSON text, so that what is small stays: an inline image must not take the tokens of its call
//! with it.
//!
//! What says least is cut first: encoded bytes and long lists of numbers, then the middle of long texts, at last whole lists and
//! objects. Each cut leaves a text in its place with the length of what was there and the beginning of its SHA-256.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::error::JsonError;
use super::number::Form;
use super::scan::{Sink, Span, StringToken, walk};
use super::string::{decode_lossy, write_string};

/// Characters in a row, all of base64's alphabet, that are taken for encoded bytes.
const MIN_ENCODED_BYTES: usize = 1024;
/// Numbers of a list of numbers that are kept.
const KEPT_NUMBERS: usize = 16;
/// Texts longer than this are looked into, if they hold JSON themselves.
const MIN_INNER_BYTES: usize = 1024;
/// How deep JSON in texts of JSON is followed.
const MAX_INNER_DEPTH: usize = 3;
/// Bytes of a list or object that are left alone even at last.
const KEPT_CONTAINER_BYTES: usize = 4096;

/// How much is cut.
#[derive(Clone, Copy)]
struct Measure {
    /// Longer texts lose their middle.
    text_bytes: usize,
    /// Whether texts that hold JSON are cut inside of it, so that they still hold JSON.
    looks_inside: bool,
    /// At this depth, and deeper, longer lists and objects are emptied; the whole text has depth 1.
    container_depth: usize,
}

const MEASURES: [Measure; 8] = [
    Measure { text_bytes: usize::MAX, looks_inside: true, container_depth: usize::MAX },
    Measure { text_bytes: 256 * 1024, looks_inside: true, container_depth: usize::MAX },
    Measure { text_bytes: 64 * 1024, looks_inside: true, container_depth: usize::MAX },
    Measure { text_bytes: 16 * 1024, looks_inside: true, container_depth: usize::MAX },
    Measure { text_bytes: 2 * 1024, looks_inside: true, container_depth: usize::MAX },
    Measure { text_bytes: 4 * 1024, looks_inside: false, container_depth: usize::MAX },
    Measure { text_bytes: 4 * 1024, looks_inside: false, container_depth: 3 },
    Measure { text_bytes: 4 * 1024, looks_inside: false, container_depth: 2 },
];

/// The same JSON with at most `limit` bytes, its largest parts cut; `None` if even then it is longer, or is no JSON.
pub fn shorten(text: &str, limit: usize) -> Option<String> {
    MEASURES.iter().find_map(|measure| {
        let shortened = apply(text, *measure, 0).ok()?;
        (shortened.len() <= limit).then_some(shortened)
    })
}

fn apply(text: &str, measure: Measure, inner_depth: usize) -> Result<String, JsonError> {
    let mut cutter = Cutter {
        text,
        measure,
        inner_depth,
        out: String::new(),
        pending: 0,
        open: Vec::new(),
        numbers: Numbers::default(),
    };
    walk(text, &mut cutter)?;
    cutter.flush(text.len());
    Ok(cutter.out)
}

/// Numbers of one list that follow each other.
#[derive(Default)]
struct Numbers {
    count: usize,
    /// Where the last of them ends.
    end: usize,
    /// What of them is left out.
    left_out: Option<Range<usize>>,
}

struct Cutter<'a> {
    text: &'a str,
    measure: Measure,
    inner_depth: usize,
    out: String,
    /// Where the text begins that is not copied yet.
    pending: usize,
    /// Where each open list or object begins, in the text and in the output.
    open: Vec<(usize, usize)>,
    numbers: Numbers,
}

impl Cutter<'_> {
    fn flush(&mut self, at: usize) {
        self.out.push_str(&self.text[self.pending..at]);
        self.pending = at;
    }

    fn begin(&mut self, at: usize) {
        self.end_numbers();
        self.flush(at);
        self.open.push((at, self.out.len()));
    }

    /// Ends a list or an object, and empties it if it is too long.
    fn end(&mut self, at: usize) {
        self.end_numbers();
        let depth = self.open.len();
        let Some((start, written)) = self.open.pop() else { return };
        if depth < self.measure.container_depth {
            return;
        }
        self.flush(at + 1);
        if self.out.len() - written > KEPT_CONTAINER_BYTES {
            let cut = &self.text[start..=at];
            self.out.truncate(written);
            let mark = mark(cut, "bytes", cut.len());
            // It stays what it was, for whoever expects a list or an object.
            let emptied = if cut.starts_with('[') {
                format!("[\"{mark}\"]")
            } else {
                format!("{{\"cut\":\"{mark}\"}}")
            };
            self.out.push_str(&emptied);
        }
    }

    /// Says how many numbers were left out of the list that ends here, or goes on with something else.
    fn end_numbers(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let Some(left_out) = numbers.left_out else { return };
        self.flush(left_out.start);
        let mark = mark(&self.text[left_out.clone()], "numbers", numbers.count - KEPT_NUMBERS);
        self.out.push_str(",\"");
        self.out.push_str(&mark);
        self.out.push('"');
        self.pending = left_out.end;
    }

    /// What a text becomes, quotes included; `None` if it stays as it is. `inside` is the text as JSON has it.
    fn shortened(&self, inside: &str) -> Option<String> {
        if inside.len() < MIN_ENCODED_BYTES.min(MIN_INNER_BYTES) {
            return None;
        }
        if let Some(inner) = self.shortened_inside(inside) {
            return Some(inner);
        }
        let without_bytes = without_encoded(inside);
        let rest = without_bytes.as_deref().unwrap_or(inside);
        if rest.len() > self.measure.text_bytes {
            let decoded = decode_lossy(rest);
            let mut out = String::new();
            write_string(&without_middle(&decoded, self.measure.text_bytes), &mut out);
            return Some(out);
        }
        without_bytes.map(|text| format!("\"{text}\""))
    }

    /// A text that holds JSON, with that cut.
    fn shortened_inside(&self, inside: &str) -> Option<String> {
        let holds_json = matches!(inside.as_bytes().first(), Some(b'{' | b'['));
        if !self.measure.looks_inside || !holds_json || self.inner_depth >= MAX_INNER_DEPTH {
            return None;
        }
        let inner = apply(&decode_lossy(inside), self.measure, self.inner_depth + 1).ok()?;
        let mut out = String::with_capacity(inner.len());
        write_string(&inner, &mut out);
        Some(out)
    }
}

impl Sink for Cutter<'_> {
    fn open_object(&mut self, at: usize) {
        self.begin(at);
    }

    fn close_object(&mut self, at: usize) -> Result<(), JsonError> {
        self.end(at);
        Ok(())
    }

    fn open_array(&mut self, at: usize) {
        self.begin(at);
    }

    fn close_array(&mut self, at: usize) {
        self.end(at);
    }

    fn key(&mut self, _token: StringToken) -> Result<(), JsonError> {
        self.end_numbers();
        Ok(())
    }

    fn string(&mut self, token: StringToken) {
        self.end_numbers();
        let Span { start, end } = token.span;
        if let Some(shortened) = self.shortened(&self.text[start + 1..end - 1]) {
            self.flush(start);
            self.out.push_str(&shortened);
            self.pending = end;
        }
    }

    fn number(&mut self, span: Span, _form: Form) -> Result<(), JsonError> {
        // A word between two numbers is not reported, but it stands there.
        let follows = self.numbers.count > 0 && self.text[self.numbers.end..span.start].trim() == ",";
        if !follows {
            self.end_numbers();
        }
        self.numbers.count += 1;
        if self.numbers.count > KEPT_NUMBERS {
            let start = self.numbers.left_out.as_ref().map_or(self.numbers.end, |left_out| left_out.start);
            self.numbers.left_out = Some(start..span.end);
        }
        self.numbers.end = span.end;
        Ok(())
    }
}

/// What stands in the place of what was cut. Nothing of it has to be escaped.
fn mark(cut: &str, unit: &str, count: usize) -> String {
    let digest = Sha256::digest(cut.as_bytes());
    format!("[cut: {count} {unit}, sha256 {}]", data_encoding::HEXLOWER.encode(&digest[..8]))
}

/// The beginning and the end of a text.
fn without_middle(text: &str, limit: usize) -> String {
    let start = text.floor_char_boundary(limit / 2);
    let end = text.ceil_char_boundary(text.len() - text.len().min(limit / 4));
    let cut = &text[start..end.max(start)];
    format!("{} {} {}", &text[..start], mark(cut, "bytes", cut.len()), &text[end.max(start)..])
}

/// The inside of a JSON string without stretches of encoded bytes; `None` if it has none.
fn without_encoded(inside: &str) -> Option<String> {
    let bytes = inside.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| is_of_encoded(**byte)).count();
        // A backslash at the end belongs to what follows.
        let end = if length < MIN_ENCODED_BYTES { at } else { at + length };
        let run = inside.get(at..end).unwrap_or("").trim_end_matches('\\');
        if run.len() >= MIN_ENCODED_BYTES {
            out.push_str(&inside[copied..at]);
            out.push_str(&mark(run, "bytes", run.len()));
            copied = at + run.len();
        }
        at += length + 1;
    }
    (copied > 0).then(|| {
        out.push_str(&inside[copied..]);
        out
    })
}

/// Base64 of either alphabet; its line breaks are escapes here.
fn is_of_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    const LIMIT: usize = 64 * 1024;

    fn shortened(value: &Json) -> Json {
        let text = shorten(&value.to_string(), LIMIT).unwrap();
        assert!(text.len() <= LIMIT);
        serde_json::from_str(&text).unwrap()
    }

    fn words(count: usize) -> String {
        (0..count).map(|number| format!("word{number} ")).collect()
    }

    #[test]
    fn encoded_bytes_go_first_and_their_surroundings_stay() {
        let image = "iVBORw0KGgo+/".repeat(100_000);
        let found = shortened(&json!({
            "url": format!("data:image/png;base64,{image}"),
            "markdown": format!("look ![it]({image}) \"here\""),
            "messages": json!([{"text": "What is this?", "data": image}]).to_string(),
            "lines": "QUJD\n".repeat(10_000), "usage": {"input": 1500}, "prompt": words(2000),
        }));
        let url = found["url"].as_str().unwrap();
        assert!(url.starts_with("data:image/png;base64,[cut: 1300000 bytes, sha256 "), "{url}");
        let markdown = found["markdown"].as_str().unwrap();
        assert!(markdown.starts_with("look ![it]([cut: ") && markdown.ends_with("]) \"here\""), "{markdown}");
        let messages: Json = serde_json::from_str(found["messages"].as_str().unwrap()).unwrap();
        assert_eq!(messages[0]["text"], "What is this?");
        assert!(found["lines"].as_str().unwrap().starts_with("[cut: "));
        assert_eq!((&found["usage"]["input"], &found["prompt"]), (&json!(1500), &json!(words(2000))));
    }

    #[test]
    fn long_texts_keep_their_beginning_and_their_end() {
        let found = shortened(&json!({"prompt": format!("é{}END", words(100_000)), "answer": "A cat"}));
        let prompt = found["prompt"].as_str().unwrap();
        assert!(prompt.starts_with("éword0 ") && prompt.ends_with("END") && prompt.contains(" [cut: "));
        assert_eq!(found["answer"], "A cat");
    }

    #[test]
    fn json_in_a_text_stays_json() {
        let messages =
            json!([{"role": "user", "content": words(100_000)}, {"role": "user", "content": "Why?"}]);
        let found =
            shortened(&json!({"a": messages.to_string(), "b": json!(messages.to_string()).to_string()}));
        let inner: Json = serde_json::from_str(found["a"].as_str().unwrap()).unwrap();
        assert_eq!(inner[1]["content"], "Why?");
        assert!(inner[0]["content"].as_str().unwrap().starts_with("word0 "));
    }

    #[test]
    fn vectors_keep_their_first_numbers() {
        let vector: Vec<f64> = (0..3000).map(|number| f64::from(number) / 7.0).collect();
        let found =
            shortened(&json!({"data": [{"embedding": vector}, {"embedding": vector}, [1, null, 2]], "n": 3}));
        let embedding = found["data"][0]["embedding"].as_array().unwrap();
        assert_eq!(embedding.len(), KEPT_NUMBERS + 1);
        assert!(embedding[KEPT_NUMBERS].as_str().unwrap().starts_with("[cut: 2984 numbers, sha256 "));
        assert_eq!((&found["data"][2], &found["n"]), (&json!([1, null, 2]), &json!(3)));
    }

    #[test]
    fn many_small_parts_go_at_last() {
        let events: Vec<Json> =
            (0..10_000).map(|number| json!({"name": format!("event {number}")})).collect();
        let attributes: serde_json::Map<String, Json> =
            (0..10_000).map(|number| (format!("key {number}"), json!("value"))).collect();
        let found =
            shortened(&json!({"name": "chat", "events": events, "attributes": attributes, "end": [1]}));
        assert_eq!((&found["name"], &found["end"]), (&json!("chat"), &json!([1])));
        assert!(found["events"][0].as_str().unwrap().starts_with("[cut: "));
        assert!(found["attributes"]["cut"].as_str().unwrap().starts_with("[cut: "));
        let wide: serde_json::Map<String, Json> =
            (0..10_000).map(|number| (format!("key {number}"), json!("value"))).collect();
        assert_eq!(shorten(&Json::Object(wide).to_string(), LIMIT), None);
        assert_eq!(shorten("{", LIMIT), None);
    }

    #[test]
    fn other_content_leaves_another_mark() {
        let [one, other] = ["a", "b"].map(|end| shortened(&json!({"data": "x".repeat(LIMIT) + end})));
        assert_ne!(one, other);
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            "[a-zA-Z0-9\\\\\"\n/é ]{0,3000}".prop_map(Json::from),
            "[a-zA-Z0-9\\\\]{1000,3000}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                prop::collection::vec(any::<i32>(), 0..40).prop_map(Json::from),
                prop::collection::vec(("[a-z]{1,3}", inner.clone()), 0..6)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
                inner.prop_map(|value| Json::String(value.to_string())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_left_is_json_within_the_limit(value in any_json(), limit in 100_usize..20_000) {
            if let Some(text) = shorten(&value.to_string(), limit) {
                prop_assert!(text.len() <= limit);
                prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{text}");
            }
        }
    }
}
