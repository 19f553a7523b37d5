use std::collections::HashSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::limits::MAX_JSON_DEPTH;

fn printed(text: &str) -> String {
    canonicalize(text).unwrap_or_else(|error| panic!("{text}: {error}")).text
}

fn lossless(text: &str) -> Option<String> {
    canonicalize(text).unwrap().lossless
}

#[test]
fn white_space_goes_and_canonical_text_stays() {
    assert_eq!(
        printed(" { \"a\" :\t[ 1 , \"b c\" , { } , [ ] ]\r\n, \"d\" : null } "),
        r#"{"a":[1,"b c",{},[]],"d":null}"#
    );
    for text in
        ["null", "true", "false", "0", "-1", "1.5", "\"\"", "[]", "{}", r#"{"a":{"b":[{"c":"\n\"\\"}]}}"#]
    {
        assert_eq!(printed(text), text);
    }
}

#[test]
fn numbers_print_as_javascript_doubles() {
    let examples = [
        ("1.0", "1"),
        ("2.50", "2.5"),
        ("1e2", "100"),
        ("1e21", "1e+21"),
        ("1E20", "100000000000000000000"),
        ("1e-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("0e99999999999999999999", "0"),
        ("12345678901234567890", "12345678901234567000"),
        ("9007199254740993", "9007199254740992"),
        ("5e-324", "5e-324"),
        ("1e-400", "0"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("123456789012345", "123456789012345"),
        ("0.1234567890123456789012", "0.12345678901234568"),
        ("-12.0625", "-12.0625"),
    ];
    for (literal, expected) in examples {
        assert_eq!(printed(literal), expected, "{literal}");
    }
}

#[test]
fn only_numbers_that_a_double_changes_are_kept_as_sent() {
    for exact in [
        "1.0",
        "1e2",
        "2.50",
        "-0",
        "0.1",
        "1e-7",
        "12345678901234567000",
        "0e5",
        "100e-2",
        "0.30000000000000004",
    ] {
        assert_eq!(lossless(exact), None, "{exact}");
    }
    for changed in [
        "12345678901234567890",
        "9007199254740993",
        "0.1234567890123456789012",
        "1e-400",
        "1e-99999999999999999999",
        "1.00000000000000000000000001E+5",
        "-0.10000000000000000000001",
    ] {
        assert_eq!(lossless(changed).as_deref(), Some(changed));
    }
    let mixed = r#"{"b": 1.0, "7": [12345678901234567890, 2.50], "2": "\u0041"}"#;
    assert_eq!(printed(mixed), r#"{"2":"A","7":[12345678901234567000,2.5],"b":1}"#);
    assert_eq!(lossless(mixed).unwrap(), r#"{"2":"A","7":[12345678901234567890,2.5],"b":1}"#);
}

#[test]
fn strings_print_with_javascript_escapes() {
    assert_eq!(printed(r#""\u0041\/\u00e9\u2028\u007f""#), "\"A/é\u{2028}\u{7f}\"");
    assert_eq!(printed(r#""\u0008\u0009\u000A\u000c\u000D\u001F\u0000""#), r#""\b\t\n\f\r\u001f\u0000""#);
    assert_eq!(printed(r#""\u0022\u005C""#), r#""\"\\""#);
    assert_eq!(printed(r#""\uD83D\uDE00""#), "\"😀\"");
    assert_eq!(printed(r#""\uDE00\uD83D\uD83Dx\uD83D\n""#), r#""\ude00\ud83d\ud83dx\ud83d\n""#);
}

#[test]
fn array_index_keys_come_first_in_ascending_order() {
    assert_eq!(
        printed(
            r#"{"b":1,"10":2,"2":{"z":0,"1":[{"k":0,"0":9}]},"01":3,"4294967294":4,"4294967295":5,"-1":6,"\u0030":7}"#
        ),
        r#"{"0":7,"2":{"1":[{"0":9,"k":0}],"z":0},"10":2,"4294967294":4,"b":1,"01":3,"4294967295":5,"-1":6}"#
    );
}

#[test]
fn repeated_keys_are_refused_with_their_path() {
    let path = |text: &str| match canonicalize(text) {
        Err(JsonError::DuplicateKey { path }) => path,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(path(r#"{"a":1,"a":2}"#), "a");
    assert_eq!(path(r#"{"a":1,"\u0061":2}"#), "a");
    assert_eq!(
        path(r#"{"x":{"a":1},"list":[0,{"a":{}},{"inputTokens":1,"b":[1,2],"inputTokens":2}]}"#),
        "list.2.inputTokens"
    );
    let many: Vec<String> = (0..100).map(|n| format!("\"key {n:03} of many\": {n}")).collect();
    assert!(canonicalize(&format!("{{{}}}", many.join(","))).is_ok());
    assert_eq!(
        path(&format!("{{\"o\":{{{}, \"key 007 of many\":0}}}}", many.join(","))),
        "o.key 007 of many"
    );
    assert_eq!(printed(r#"{"\ud83d":1,"\ud83e":2}"#), r#"{"\ud83d":1,"\ud83e":2}"#);
}

#[test]
fn errors_are_clear_sentences() {
    let told = |text: &str| canonicalize(text).unwrap_err().to_string();
    assert_eq!(told(r#"{"a":{"b":1,"b":1}}"#), "The key \"a.b\" appears more than once in its object.");
    assert_eq!(told("[1,{\"n\":-1e400}]"), "The number -1e400 at \"1.n\" is too large to be represented.");
    assert_eq!(told("1e400"), "The number 1e400 at the top level is too large to be represented.");
    let Err(JsonError::NumberOutOfRange { literal, .. }) = canonicalize(&"9".repeat(500)) else { panic!() };
    assert_eq!(literal, "9".repeat(40));
    assert_eq!(told("{\"a\" 1}"), "The JSON is not valid at byte 5: a colon was expected after the key.");
}

#[test]
fn what_is_not_json_is_refused() {
    let broken = [
        "",
        " ",
        "{",
        "[",
        "}",
        "]",
        "[}",
        "{]",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[1 2]",
        "nul",
        "nulll",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e1",
        "1e",
        "1e+",
        "--1",
        "NaN",
        "Infinity",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "1 1",
        "{} {}",
        "[1],",
        "\u{feff}1",
        "\u{a0}1",
        "{\"a\"}",
        "{\"a\":}",
        "{1:1}",
        "tru",
        "/**/1",
    ];
    for text in broken {
        assert!(matches!(canonicalize(text), Err(JsonError::Syntax { .. })), "{text}");
        assert!(matches!(Value::parse(text), Err(JsonError::Syntax { .. })), "{text}");
    }
}

#[test]
fn nesting_is_followed_to_the_limit_and_no_further() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(printed(&nested(MAX_JSON_DEPTH)), nested(MAX_JSON_DEPTH));
    let too_deep = JsonError::TooDeep { limit: MAX_JSON_DEPTH };
    for text in [nested(MAX_JSON_DEPTH + 1), "[".repeat(1_000_000), "{\"a\":".repeat(1_000_000)] {
        assert_eq!(canonicalize(&text), Err(too_deep.clone()));
        assert_eq!(Value::parse(&text).unwrap_err(), too_deep);
    }
}

#[test]
fn values_are_read() {
    let text = " {\"s\":\"a\\n\\u00e9\",\"i\":12.0,\"f\":1.5,\"b\":true,\"n\":null,\"o\":{\"x\":[\"}\\\"\",{}]},\
                \"a\":[ 1 , \"two\",[3] ],\"l\":\"\\ud83d\",\"\\u006b\":9007199254740993,\"e\":1e3,\"h\":1e400} ";
    let value = Value::parse(text).unwrap();
    assert_eq!((value.kind(), value.text()), (Kind::Object, text.trim()));
    let get = |key: &str| value.get(key).unwrap();
    assert_eq!(get("s").as_str().unwrap(), "a\né");
    assert_eq!((get("l").as_str(), get("l").as_str_lossy().unwrap().as_ref()), (None, "\u{fffd}"));
    assert_eq!((get("i").as_i64(), get("e").as_i64(), get("f").as_i64()), (Some(12), Some(1000), None));
    assert_eq!((get("f").as_f64(), get("h").as_f64(), get("s").as_f64()), (Some(1.5), None, None));
    assert_eq!(get("k").as_i64(), Some(9_007_199_254_740_993));
    assert_eq!((get("b").as_bool(), get("n").as_bool()), (Some(true), None));
    assert!(get("n").is_null() && value.get("none").is_none() && get("a").get("x").is_none());
    assert_eq!(get("o").text(), r#"{"x":["}\"",{}]}"#);
    let elements: Vec<&str> = get("a").elements().unwrap().iter().map(Value::text).collect();
    assert_eq!(elements, ["1", "\"two\"", "[3]"]);
    let keys: Vec<String> =
        value.members().unwrap().into_iter().map(|member| member.key.into_owned()).collect();
    assert_eq!(keys, ["s", "i", "f", "b", "n", "o", "a", "l", "k", "e", "h"]);
    assert!(get("a").members().is_err() && value.elements().is_err());
    assert!(Value::parse("{}").unwrap().members().unwrap().is_empty());
    assert!(Value::parse("[ ]").unwrap().elements().unwrap().is_empty());
}

#[test]
fn members_refuse_repeated_keys() {
    let members = |text: &str| Value::parse(text).unwrap().members().map(|members| members.len());
    let repeated = JsonError::DuplicateKey { path: "a".to_owned() };
    assert_eq!(members(r#"{"a":1,"b":2,"\u0061":3}"#), Err(repeated.clone()));
    let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    assert_eq!(members(&format!("{{{}}}", many.join(","))), Ok(100));
    assert_eq!(members(&format!("{{\"a\":0,{},\"a\":1}}", many.join(","))), Err(repeated));
    assert_eq!(members(r#"{"\ud83d":1,"\ud83e":2}"#), Ok(2));
}

/// A string literal in any of the spellings JSON has for its characters.
fn string_literal() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-zA-Z0-9 _.:,{}\\[\\]-]{0,12}",
        1 => any::<char>().prop_filter("must be escaped", |c| *c >= ' ' && !"\"\\".contains(*c)).prop_map(String::from),
        1 => prop::sample::select(vec!["\\n", "\\t", "\\r", "\\b", "\\f", "\\/", "\\\\", "\\\"", "é", "😀", "\u{2028}"])
            .prop_map(String::from),
        1 => any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        1 => (0xd7f0_u16..0xe010).prop_map(|unit| format!("\\u{unit:04X}")),
        1 => (0_u16..0x80).prop_map(|unit| format!("\\u{unit:04X}")),
        1 => (0x1_0000_u32..0x11_0000).prop_map(|point| {
            let mut units = [0; 2];
            char::from_u32(point).unwrap().encode_utf16(&mut units);
            format!("\\u{:04x}\\u{:04X}", units[0], units[1])
        }),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number_literal() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("no JSON", |n| n.is_finite())
            .prop_map(|n| format!("{n:e}")),
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("no JSON", |n| n.is_finite())
            .prop_map(|n| format!("{n}")),
        any::<i64>().prop_map(|n| n.to_string()),
        (any::<i32>(), 0..4_usize).prop_map(|(n, zeros)| format!("{n}.{}", "0".repeat(zeros + 1))),
        (-1e16..1e16).prop_map(|n: f64| format!("{n}")),
        (0_i64..1_000_000, 0..20_usize).prop_map(|(n, width)| format!("{}.{n:0width$}", n % 3)),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?",
        "-?[1-9]\\.[0-9]{0,3}5[eE]-?(6|7|2[0-2]|30[0-7])",
        (1_u64 << 52..1 << 54).prop_map(|n| n.to_string()),
    ]
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        1 => prop::sample::select(vec!["null", "true", "false"]).prop_map(String::from),
        3 => number_literal(),
        3 => string_literal(),
    ];
    let key = prop_oneof![
        4 => string_literal(),
        2 => (0_u32..30).prop_map(|n| format!("\"{n}\"")),
        1 => (u32::MAX - 3..=u32::MAX).prop_map(|n| format!("\"{n}\"")),
        1 => "\"[0-9]{1,12}\"",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let member = (key.clone(), inner.clone()).prop_map(|(key, value)| format!(" {key} :{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|elements| format!("[{}]", elements.join(", "))),
            prop::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:\\\\u0-9ed.+ é-]{0,60}") {
        for text in [String::from_utf8_lossy(&bytes).into_owned(), text] {
            prop_assert_eq!(canonicalize(&text).is_ok(), canonicalize(&printed_or(&text)).is_ok());
            if let Ok(value) = Value::parse(&text) {
                let _ = (value.members(), value.elements(), value.as_str(), value.as_i64(), value.get("a"));
            }
            for piece in Pieces::of(&text) {
                if let Piece::Plain(plain) = piece {
                    prop_assert!(!plain.is_empty());
                }
            }
        }
    }

    #[test]
    fn cut_text_never_panics(text in json_text(), cut in any::<prop::sample::Index>()) {
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let at = boundaries[cut.index(boundaries.len())];
        let _ = (canonicalize(&text[..at]), canonicalize(&text[at..]), Value::parse(&text[at..]));
    }

    #[test]
    fn canonical_text_is_its_own_canonical_form(text in json_text()) {
        let Ok(once) = canonicalize(&text) else { return Ok(()) };
        let again = canonicalize(&once.text).unwrap();
        prop_assert_eq!(&again.text, &once.text);
        prop_assert_eq!(&again.lossless, &None);
        if let Some(lossless) = &once.lossless {
            prop_assert_eq!(&canonicalize(lossless).unwrap(), &once);
        }
    }

    #[test]
    fn members_and_elements_cover_the_text(text in json_text()) {
        let value = Value::parse(&text).unwrap();
        if let Ok(elements) = value.elements() {
            for element in &elements {
                prop_assert!(Value::parse(element.text()).is_ok());
            }
            let joined: Vec<&str> = elements.iter().map(Value::text).collect();
            let rejoined = canonicalize(&format!("[{}]", joined.join(",")));
            prop_assert_eq!(rejoined.ok(), canonicalize(&text).ok());
        }
        if let Ok(members) = value.members() {
            for member in members {
                prop_assert!(Value::parse(member.value.text()).is_ok());
                prop_assert!(value.get(&member.key).is_some());
            }
        }
    }
}

fn printed_or(text: &str) -> String {
    canonicalize(text).map_or_else(|_| text.to_owned(), |canonical| canonical.text)
}

/// Prints every line of `lines` as ECMAScript does, in one process.
fn printed_by_node(lines: &str) -> String {
    const PROGRAM: &str = "const lines = require('fs').readFileSync(0, 'utf8').split('\\n'); lines.pop(); \
        process.stdout.write(lines.map(line => JSON.stringify(JSON.parse(line)) + '\\n').join(''));";
    let mut node = Command::new("node")
        .args(["-e", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test compares with Node.js: install it so that `node` is on PATH");
    node.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut output = String::new();
    node.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(node.wait().unwrap().success(), "node refused a text");
    output
}

#[test]
fn prints_what_node_prints() {
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<String> = Vec::new();
    for (count, strategy) in
        [(4000, json_text().boxed()), (4000, number_literal().boxed()), (1000, string_literal().boxed())]
    {
        texts.extend((0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()));
    }
    let kept: Vec<(String, String)> = texts
        .into_iter()
        .filter_map(|text| match canonicalize(&text) {
            Ok(canonical) => Some((text, canonical.text)),
            Err(JsonError::DuplicateKey { .. } | JsonError::NumberOutOfRange { .. }) => None,
            Err(error) => panic!("{text}: {error}"),
        })
        .collect();
    assert!(kept.len() > 8000, "too few texts to compare: {}", kept.len());
    let lines: String = kept.iter().flat_map(|(text, _)| [text, "\n"]).collect();
    let expected = printed_by_node(&lines);
    assert_eq!(expected.lines().count(), kept.len());
    for ((text, ours), node) in kept.iter().zip(expected.split('\n')) {
        assert_eq!(ours, node, "{text}");
    }
    assert!(
        kept.iter().map(|(text, _)| text).collect::<HashSet<_>>().len() > 5000,
        "the texts hardly differ"
    );
}
