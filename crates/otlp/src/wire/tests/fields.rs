//! The rules of the JSON decoder for single fields and for values of attributes, one by one.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::json::{kept, right, span, value};
use crate::wire::{Encoding, decode_logs};

#[test]
fn ids_are_hexadecimal_or_base64() {
    let id = b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\xff\xfe\xff";
    for text in [
        "0af7651916cd43dd8448eb211cfffeff",
        "0AF7651916CD43DD8448EB211CFFFEFF",
        "CvdlGRbNQ92ESOshHP/+/w==",
        "CvdlGRbNQ92ESOshHP/+/w",
        "CvdlGRbNQ92ESOshHP_-_w==",
        "CvdlGRbNQ92ESOshHP_-_w",
    ] {
        assert_eq!(span(&format!(r#""traceId":"{text}""#)).0.trace_id, id, "{text}");
    }
    for text in ["b7ad6b7169203331", "B7AD6B7169203331", "t61rcWkgMzE=", "t61rcWkgMzE"] {
        let (span, repaired) = span(&format!(r#""spanId":"{text}","parentSpanId":"{text}""#));
        assert_eq!((span.span_id, repaired), (b"\xb7\xadkqi 31".to_vec(), 0), "{text}");
        assert_eq!(span.parent_span_id, b"\xb7\xadkqi 31");
    }
    // An id of a wrong length is read. The span is refused later, and the refusal names the length.
    assert_eq!(span(r#""spanId":"b7ad""#), (Span { span_id: vec![0xb7, 0xad], ..Span::default() }, 0));
    for absent in [r#""parentSpanId":null"#, r#""parentSpanId":"""#] {
        assert_eq!(span(absent), (Span::default(), 0), "{absent}");
    }
    for unusable in ["\"xyz\"", "\"b7a\"", "5", "[]", "{}", "true", "\"\\ud800\""] {
        assert_eq!(span(&format!(r#""spanId":{unusable}"#)), (Span::default(), 1), "{unusable}");
    }
}

#[test]
fn integers_come_as_strings_numbers_and_floats() {
    for text in ["1700000000000000001", "\"1700000000000000001\""] {
        let (span, repaired) = span(&format!(r#""startTimeUnixNano":{text},"endTimeUnixNano":{text}"#));
        assert_eq!((span.start_time_unix_nano, repaired), (1_700_000_000_000_000_001, 0), "{text}");
    }
    for text in ["1700000000000000000.0", "\"17000000000000000000e-1\"", "1.7e18", "1.7E+18"] {
        let (span, repaired) = span(&format!(r#""startTimeUnixNano":{text}"#));
        assert_eq!((span.start_time_unix_nano, repaired), (1_700_000_000_000_000_000, 0), "{text}");
    }
    assert_eq!(span(r#""startTimeUnixNano":18446744073709551615"#).0.start_time_unix_nano, u64::MAX);
    assert_eq!(span(r#""flags":4294967295"#).0.flags, u32::MAX);
    for unusable in
        ["-1", "18446744073709551616", "1.5", "\"\"", "\"x\"", "\"1e400\"", "1e300", "{}", "\"1 \"", "false"]
    {
        let (span, repaired) = span(&format!(r#""startTimeUnixNano":{unusable},"name":"n""#));
        assert_eq!((span.start_time_unix_nano, &*span.name, repaired), (0, "n", 1), "{unusable}");
    }
    assert_eq!(right(r#"{"intValue":"-9223372036854775808"}"#), Value::IntValue(i64::MIN));
    assert_eq!(right(r#"{"intValue":9223372036854775807}"#), Value::IntValue(i64::MAX));
    assert_eq!(right(r#"{"intValue":-12.0e1}"#), Value::IntValue(-120));
    assert_eq!(right(r#"{"intValue":-0}"#), Value::IntValue(0));
}

#[test]
fn enums_come_as_numbers_and_names() {
    for (text, kind) in
        [("3", 3), ("\"3\"", 3), ("\"SPAN_KIND_CLIENT\"", 3), ("77", 77), ("null", 0), ("3.0", 3)]
    {
        assert_eq!(span(&format!(r#""kind":{text}"#)), (Span { kind, ..Span::default() }, 0), "{text}");
    }
    for unusable in ["\"CLIENT\"", "{}", "1e10", "true"] {
        assert_eq!(span(&format!(r#""kind":{unusable}"#)), (Span::default(), 1), "{unusable}");
    }
    let status = span(r#""status":{"code":"STATUS_CODE_ERROR","message":"m"}"#).0.status;
    assert_eq!(status, Some(Status { code: 2, message: "m".to_owned() }));
    let records = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_INFO","body":{"stringValue":"b"}},{"body":"bare"}]}]}]}"#;
    let decoded = decode_logs(Encoding::Json, records.as_bytes()).unwrap();
    let records = &decoded.request.resource_logs[0].scope_logs[0].log_records;
    let body = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    assert_eq!(records[0], LogRecord { severity_number: 9, body: body("b"), ..LogRecord::default() });
    assert_eq!((records[1].body.clone(), decoded.repaired), (body("bare"), 1));
}

#[test]
fn empty_values_are_values() {
    assert_eq!(value("{}"), (Some(AnyValue { value: None }), 0));
    assert_eq!(value(r#"{"stringValue":null}"#), (Some(AnyValue { value: None }), 0));
    assert_eq!(right(r#"{"stringValue":""}"#), Value::StringValue(String::new()));
    for empty in
        [r#"{"arrayValue":{}}"#, r#"{"arrayValue":{"values":[]}}"#, r#"{"array_value":{"values":null}}"#]
    {
        assert_eq!(right(empty), Value::ArrayValue(ArrayValue::default()), "{empty}");
    }
    for empty in
        [r#"{"kvlistValue":{}}"#, r#"{"kvlistValue":{"values":[]}}"#, r#"{"kvlist_value":{"values":null}}"#]
    {
        assert_eq!(right(empty), Value::KvlistValue(KeyValueList::default()), "{empty}");
    }
    let int = |value| AnyValue { value: Some(Value::IntValue(value)) };
    let values = vec![int(1), AnyValue::default(), int(2)];
    assert_eq!(
        right(r#"{"arrayValue":{"values":[{"intValue":1},null,{"intValue":"2"}]}}"#),
        Value::ArrayValue(ArrayValue { values })
    );
}

#[test]
fn doubles_and_bytes_come_in_all_their_forms() {
    for (text, value) in [
        ("1", 1.0),
        ("\"1.5\"", 1.5),
        ("-0.1e-3", -0.0001),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
        ("1e-400", 0.0),
        ("0.30000000000000004", 0.300_000_000_000_000_04),
    ] {
        assert_eq!(right(&format!(r#"{{"doubleValue":{text}}}"#)), Value::DoubleValue(value), "{text}");
    }
    assert!(matches!(right(r#"{"doubleValue":"NaN"}"#), Value::DoubleValue(value) if value.is_nan()));
    for text in ["+/8=", "+/8", "-_8=", "-_8"] {
        let json = format!(r#"{{"bytesValue":"{text}"}}"#);
        assert_eq!(right(&json), Value::BytesValue(vec![0xfb, 0xff]), "{text}");
    }
    assert_eq!(right(r#"{"bytesValue":""}"#), Value::BytesValue(vec![]));
    assert_eq!(right(r#"{"boolValue":true}"#), Value::BoolValue(true));
}

#[test]
fn a_value_of_the_wrong_type_is_kept_as_its_text() {
    for (json, text) in [
        (r#"{"stringValue":5.50}"#, "5.5"),
        (r#"{"stringValue":{"a": [1, "\u00e9"]}}"#, r#"{"a":[1,"é"]}"#),
        (r#"{"stringValue":false}"#, "false"),
        (r#"{"intValue":"many"}"#, "many"),
        (r#"{"intValue":1.5}"#, "1.5"),
        (r#"{"intValue":9223372036854775808}"#, "9223372036854775808"),
        (r#"{"intValue":[1]}"#, "[1]"),
        (r#"{"boolValue":"yes"}"#, "yes"),
        (r#"{"boolValue":1}"#, "1"),
        (r#"{"doubleValue":true}"#, "true"),
        (r#"{"doubleValue":1e400}"#, "1e400"),
        (r#"{"doubleValue":"-1e400"}"#, "-1e400"),
        (r#"{"bytesValue":"***"}"#, "***"),
        (r#"{"arrayValue":[1, {"a":2}]}"#, r#"[1,{"a":2}]"#),
        (r#"{"arrayValue":[]}"#, "[]"),
        (r#"{"arrayValue":"x"}"#, "x"),
        (r#"{"kvlistValue":7}"#, "7"),
        (r#"{"kvlistValue":["a"]}"#, r#"["a"]"#),
        (r#"{"textValue":"x","n":[1]}"#, r#"{"textValue":"x","n":[1]}"#),
        (r#""bare""#, "bare"),
        ("5", "5"),
        ("-5.25", "-5.25"),
        ("true", "true"),
        ("[1, 2]", "[1,2]"),
        (r#""half \ud83d""#, "half \u{fffd}"),
        (r#""pair \uD83D\uDE00, half \ude00, \\ud83d\n""#, "pair 😀, half \u{fffd}, \\ud83d\n"),
    ] {
        assert_eq!(kept(json), text, "{json}");
    }
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(kept(&format!(r#"{{"stringValue":{deep}}}"#)), deep);
}

#[test]
fn odd_attributes_leave_the_others_alone() {
    let text = |key: &str, text: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
        key_strindex: 0,
    };
    let (read, repaired) = span(
        r#""attributes":[5,"x",[1],{"key":7,"value":{"stringValue":"v"}},{"key":"k","value":{"stringValue":"v"}}],"name":"n""#,
    );
    assert_eq!(
        read.attributes,
        [text("", "5"), text("", "x"), text("", "[1]"), text("7", "v"), text("k", "v")]
    );
    assert_eq!((&*read.name, repaired), ("n", 4));
    let (read, repaired) = span(r#""attributes":{"a":{"stringValue":"v"},"b":"w","c":null}"#);
    assert_eq!(
        read.attributes,
        [text("a", "v"), text("b", "w"), KeyValue { key: "c".to_owned(), ..KeyValue::default() }]
    );
    assert_eq!(repaired, 2);
    for lost in ["5", "\"x\"", "true"] {
        assert_eq!(span(&format!(r#""attributes":{lost}"#)), (Span::default(), 1), "{lost}");
    }
    let twice = span(
        r#""attributes":[{"key":"k","value":{"stringValue":"a"}},{"key":"k","value":{"stringValue":"b"}}]"#,
    );
    assert_eq!((twice.0.attributes, twice.1), (vec![text("k", "a"), text("k", "b")], 0));
}

#[test]
fn strings_keep_what_they_can() {
    let name = |json: &str| {
        let (span, repaired) = span(&format!(r#""name":"{json}""#));
        assert_eq!(repaired, 0, "{json}");
        span.name
    };
    assert_eq!(name(r#"a\u0000b\n\"\\\/\u00e9é\ud83d\ude00"#), "a\0b\n\"\\/éé😀");
    assert_eq!(name(r#"\b\f\n\r\t\"\\\/."#), "\u{8}\u{c}\n\r\t\"\\/.");
    assert_eq!(name(r"\ud83d"), "\u{fffd}");
    assert_eq!(name(r"a\ude00\ud83d\ud83d\ude00b"), "a\u{fffd}\u{fffd}😀b");
    assert_eq!(name(r"\ud83d\n\uD83D\u0041"), "\u{fffd}\n\u{fffd}A");
    let (read, _) = span(
        r#""un\ud800known":1,"name":"n","attributes":[{"key":"\udfff","value":{"stringValue":"\udfff"}}]"#,
    );
    assert_eq!((&*read.name, &*read.attributes[0].key), ("n", "\u{fffd}"));
    assert_eq!(span(r#""name":12.50"#), (Span { name: "12.5".to_owned(), ..Span::default() }, 1));
    assert_eq!(span(r#""status":"\ud800","name":"\ud800""#).0.name, "\u{fffd}");
}
