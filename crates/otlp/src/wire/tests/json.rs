//! The rules of the JSON decoder for requests as a whole, one by one.

use agentlens_domain::ledger::Reason;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use crate::wire::batch::{MAX_DETAILS, MAX_ITEMS};
use crate::wire::json::MAX_ITEM_VALUES;
use crate::wire::{Decoded, Encoding, WireError, decode_logs, decode_metrics, decode_traces};

type Traces = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

fn traces(json: &str) -> Result<Decoded<Traces>, WireError> {
    decode_traces(Encoding::Json, json.as_bytes())
}

fn in_request(spans: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":{spans}}}]}}]}}"#)
}

fn all_spans(decoded: &Decoded<Traces>) -> Vec<Span> {
    let scopes = decoded.request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

/// The span with these members, and the number of repairs.
pub(super) fn span(members: &str) -> (Span, u64) {
    let decoded =
        traces(&in_request(&format!("[{{{members}}}]"))).unwrap_or_else(|error| panic!("{members}: {error}"));
    assert_eq!(decoded.broken, [], "{members}");
    (all_spans(&decoded).remove(0), decoded.repaired)
}

/// The value of an attribute, and the number of repairs.
pub(super) fn value(json: &str) -> (Option<AnyValue>, u64) {
    let (span, repaired) = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#));
    assert_eq!(span.attributes[0].key, "k");
    (span.attributes[0].value.clone(), repaired)
}

/// The value of an attribute without repairs.
pub(super) fn right(json: &str) -> Value {
    let (value, repaired) = value(json);
    assert_eq!(repaired, 0, "{json}");
    value.unwrap().value.unwrap()
}

/// The text as which an attribute is kept.
pub(super) fn kept(json: &str) -> String {
    let (value, repaired) = value(json);
    assert_eq!(repaired, 1, "{json}");
    let Some(Value::StringValue(text)) = value.unwrap().value else { panic!("{json}") };
    text
}

#[test]
fn an_empty_object_is_an_empty_request() {
    for empty in ["{}", " {\n} ", "\u{feff}{}", r#"{"resourceSpans":null}"#, r#"{"resourceSpans":[]}"#] {
        let decoded = traces(empty).unwrap();
        assert_eq!(decoded, Decoded { request: Traces::default(), broken: vec![], repaired: 0 }, "{empty}");
    }
    for error in ["", "null", "[]", "5", "\"x\"", "true"] {
        assert!(matches!(traces(error), Err(WireError::Json { .. })), "{error}");
    }
}

#[test]
fn both_forms_of_names_are_read_and_unknown_ones_are_skipped() {
    let camel = r#"{"resourceSpans":[{"schemaUrl":"s","scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c",
        "startTimeUnixNano":"5","new":{"a":[1,{}]},"droppedEventsCount":2,"attributes":[{"key":"k","value":{"stringValue":"v","x":1},"y":null}]}]}]}]}"#;
    let snake = camel
        .replace("resourceSpans", "resource_spans")
        .replace("schemaUrl", "schema_url")
        .replace("scopeSpans", "scope_spans")
        .replace("traceId", "trace_id")
        .replace("startTimeUnixNano", "start_time_unix_nano")
        .replace("droppedEventsCount", "dropped_events_count")
        .replace("stringValue", "string_value");
    let decoded = traces(camel).unwrap();
    assert_eq!(decoded, traces(&snake).unwrap());
    assert_eq!(decoded, traces(&camel.replace("traceId", "trace\\u0049d")).unwrap());
    let spans = all_spans(&decoded);
    assert_eq!((spans[0].trace_id.len(), spans[0].start_time_unix_nano, decoded.repaired), (16, 5, 0));
}

#[test]
fn null_means_absent_everywhere() {
    let fields = [
        "traceId",
        "spanId",
        "parentSpanId",
        "traceState",
        "flags",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "droppedAttributesCount",
        "events",
        "droppedEventsCount",
        "links",
        "droppedLinksCount",
        "status",
    ];
    let nulls: Vec<String> = fields.iter().map(|field| format!("\"{field}\":null")).collect();
    assert_eq!(span(&nulls.join(",")), (Span::default(), 0));
    let holes = r#"{"resourceSpans":[null,{"resource":null,"schemaUrl":null,"scopeSpans":[null,{"scope":null,"spans":[null,{}]}]}]}"#;
    let decoded = traces(holes).unwrap();
    assert_eq!((all_spans(&decoded), decoded.repaired, decoded.broken.len()), (vec![Span::default()], 0, 0));
    assert_eq!(span(r#""name":"n","name":null"#).0.name, "n");
    assert_eq!(span(r#""attributes":[null,{"key":null,"value":null}]"#).0.attributes, [KeyValue::default()]);
    assert_eq!(value("null"), (None, 0));
    assert_eq!(
        right(r#"{"stringValue":null,"intValue":1,"arrayValue":null,"kvlistValue":null}"#),
        Value::IntValue(1)
    );
}

#[test]
fn the_last_of_repeated_members_wins() {
    let (read, _) = span(
        r#""name":"a","name":"b","kind":1,"kind":2,"events":[{}],"events":[{},{}],"status":{"code":1,"message":"m"},"status":{"code":2}"#,
    );
    assert_eq!((&*read.name, read.kind, read.events.len()), ("b", 2, 2));
    assert_eq!(read.status, Some(Status { code: 2, message: String::new() }));
    assert_eq!(right(r#"{"stringValue":"a","intValue":1}"#), Value::IntValue(1));
}

#[test]
fn invalid_utf8_is_replaced_and_counted() {
    let mut body = in_request(r#"[{"name":"a?b"},{"name":"c??d"}]"#).into_bytes();
    body.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xff);
    let decoded = decode_traces(Encoding::Json, &body).unwrap();
    let names: Vec<String> = all_spans(&decoded).into_iter().map(|span| span.name).collect();
    assert_eq!(
        (names, decoded.repaired),
        (vec!["a\u{fffd}b".to_owned(), "c\u{fffd}\u{fffd}d".to_owned()], 3)
    );
}

#[test]
fn a_body_without_spans_is_reported() {
    for odd in ["7", "\"x\"", "[]", "true", "\"\\ud800\""] {
        assert_eq!(
            refusal(odd),
            (Reason::InvalidField, "The span number 2 is not a JSON object.".to_owned())
        );
    }
    for odd in [
        in_request("{}"),
        in_request("7"),
        r#"{"resourceSpans":[5]}"#.to_owned(),
        r#"{"resourceSpans":"x"}"#.to_owned(),
        r#"{"resourceSpans":[{"scopeSpans":[[]]}]}"#.to_owned(),
    ] {
        let decoded = traces(&odd).unwrap();
        assert_eq!((all_spans(&decoded).len(), decoded.broken.len()), (0, 1), "{odd}");
        let message = &decoded.broken[0].message;
        assert!(message.starts_with("Where spans were expected, a value is not a JSON "), "{message}");
    }
    for odd in
        [r#""events":7"#, r#""events":[7]"#, r#""status":7"#, r#""links":{"a":1}"#, r#""status":[1,[2]]"#]
    {
        assert_eq!(span(odd).1, 1, "{odd}");
    }
    let resource =
        r#"{"resourceSpans":[{"resource":5,"scopeSpans":[{"scope":"s","spans":[{"name":"a"}]}]}]}"#;
    let decoded = traces(resource).unwrap();
    assert_eq!((all_spans(&decoded).len(), decoded.broken.len(), decoded.repaired), (1, 0, 2));
}

#[test]
fn items_of_another_signal_are_reported() {
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
    let decoded = traces(logs).unwrap();
    assert_eq!(
        decoded.broken[0].message,
        "The list resourceLogs belongs to /v1/logs; here nothing of it is read."
    );
    assert_eq!(decode_logs(Encoding::Json, logs.as_bytes()).unwrap().broken, []);
    assert_eq!(decode_metrics(Encoding::Json, logs.as_bytes()).unwrap().broken.len(), 1);
}

#[test]
fn invalid_json_is_refused_with_its_position() {
    let place = |json: &str| match traces(json) {
        Err(WireError::Json { line, column, .. }) => (line, column),
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(place("{\n  \"a\" 1}"), (2, 7));
    assert_eq!(place(r#"{"a":nul}"#), (1, 9));
    assert_eq!(place("{} {}"), (1, 4));
    assert_eq!(
        traces("{\"a\":}").unwrap_err().to_string(),
        "The body is not valid OTLP JSON: expected value at line 1, column 6."
    );
    let whole = in_request(r#"[{"name":"a\ud83d","attributes":[{"key":"k","value":{"intValue":1}}]}]"#);
    for cut in 0..whole.len() {
        assert!(matches!(traces(&whole[..cut]), Err(WireError::Json { .. })), "{cut}");
    }
    assert!(traces(&whole).is_ok());
    for broken in [
        r#""name":"\x""#,
        r#""name":"\u12g4""#,
        r#""name":01"#,
        "\"name\":\"\t\"",
        r#""name":tru"#,
        r#""name":1."#,
        r#""name":"#,
    ] {
        assert!(
            matches!(traces(&in_request(&format!("[{{{broken}}}]"))), Err(WireError::Json { .. })),
            "{broken}"
        );
    }
}

/// Why the second of three spans is refused; the other two arrive.
fn refusal(span: &str) -> (Reason, String) {
    let request = in_request(&format!(r#"[{{"name":"a"}},{span},{{"name":"b"}}]"#));
    let mut decoded = traces(&request).unwrap_or_else(|error| panic!("{span:.200}: {error}"));
    assert_eq!((all_spans(&decoded).len(), decoded.broken.len(), decoded.repaired), (2, 1, 0));
    let broken = decoded.broken.remove(0);
    (broken.reason, broken.message)
}

#[test]
fn an_unreadable_span_is_refused_alone() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let many = vec!["0"; MAX_ITEM_VALUES].join(",");
    for (span, reason, message) in [
        (
            r#"{"name":"n","flags":1e400}"#.to_owned(),
            Reason::InvalidField,
            "The span number 2 cannot be read: number out of range at line 1, column 25 of its JSON.",
        ),
        (
            format!(r#"{{"attributes":[{{"key":"k","value":{deep}}}]}}"#),
            Reason::InvalidField,
            "The span number 2 cannot be read: recursion limit exceeded at line 1, column 159 of its JSON.",
        ),
        (
            format!(r#"{{"attributes":[{many}]}}"#),
            Reason::TooLarge,
            "The span number 2 holds more than 250000 JSON values.",
        ),
    ] {
        assert_eq!(refusal(&span), (reason, message.to_owned()));
    }
}

#[test]
fn values_nest_up_to_the_limit() {
    for (open, close) in
        [(r#"{"arrayValue":{"values":["#, "]}}"), (r#"{"kvlistValue":{"values":[{"value":"#, "}]}}")]
    {
        let nested = |levels: usize| {
            format!("{}{}{}", open.repeat(levels), r#"{"stringValue":"x"}"#, close.repeat(levels))
        };
        let mut value = Some(right(&nested(29)));
        let mut depth = 0;
        while let Some(inner) = value {
            value = match inner {
                Value::ArrayValue(mut list) => list.values.remove(0).value,
                Value::KvlistValue(mut list) => list.values.remove(0).value.unwrap().value,
                _ => break,
            };
            depth += 1;
        }
        assert_eq!(depth, 29);
        for levels in [60, 100_000] {
            let deep = format!(r#"{{"attributes":[{{"key":"k","value":{}}}]}}"#, nested(levels));
            assert!(refusal(&deep).1.contains("recursion limit exceeded"), "{levels}");
        }
    }
    let unclosed = in_request("[{\"attributes\":[{\"value\":").replace("}]}]}", "")
        + &r#"{"kvlistValue":{"values":[{"value":"#.repeat(100_000);
    assert!(matches!(traces(&unclosed), Err(WireError::Json { .. })));
    let around = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(traces(&around).is_ok());
}

#[test]
fn the_items_of_a_request_are_limited() {
    let spans = |count: usize| in_request(&format!("[{}]", vec!["{}"; count].join(",")));
    assert_eq!(all_spans(&traces(&spans(MAX_ITEMS)).unwrap()).len(), MAX_ITEMS);
    assert_eq!(traces(&spans(MAX_ITEMS + 1)), Err(WireError::TooManyItems { limit: MAX_ITEMS }));
    let resources = format!(r#"{{"resourceSpans":[{}]}}"#, vec!["5"; MAX_ITEMS + 1].join(","));
    assert_eq!(traces(&resources), Err(WireError::TooManyItems { limit: MAX_ITEMS }));
}

#[test]
fn metrics_are_counted_whatever_they_contain() {
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"gen_ai.client.token.usage","histogram":{"dataPoints":[{"count":2,"sum":"NaN","bucketCounts":["1","x"]}]}},
        {"name":5,"sum":{"dataPoints":[{"asInt":"x"}]}},
        {"name":"odd","gauge":7},
        null, 7]}]}]}"#;
    let decoded = decode_metrics(Encoding::Json, json.as_bytes()).unwrap();
    assert_eq!((decoded.request, decoded.repaired, decoded.broken.len()), (3, 0, 1));
}

#[test]
fn the_contents_of_items_are_limited() {
    let dense = format!("{{\"attributes\":[{}]}}", vec!["{}"; MAX_ITEM_VALUES - 10].join(","));
    let spans = |count: usize| in_request(&format!("[{}]", vec![dense.as_str(); count].join(",")));
    assert_eq!(all_spans(&traces(&spans(2)).unwrap()).len(), 2);
    assert_eq!(traces(&spans(3)), Err(WireError::TooManyDetails { limit: MAX_DETAILS }));
    // The same around the items.
    let resource = format!(r#"{{"resourceSpans":[{{"resource":{dense}}}]}}"#);
    assert!(traces(&resource).is_ok());
    let twice = format!(r#"{{"resourceSpans":[{{"resource":{dense}}},{{"resource":{dense}}},{{}}]}}"#);
    assert!(traces(&twice).is_ok());
    let thrice = format!(r#"{{"resourceSpans":[{{"resource":{dense}}},{{"x":[{dense},{dense}]}}]}}"#);
    assert_eq!(traces(&thrice), Err(WireError::TooManyDetails { limit: MAX_DETAILS }));
}

#[test]
fn reports_of_misplaced_lists_are_limited() {
    for pair in [r#""resourceLogs":0"#, r#""resourceSpans":0"#, r#""resourceSpans":[{"scopeSpans":0}]"#] {
        let body = |count: usize| format!("{{{}}}", vec![pair; count].join(","));
        assert_eq!(traces(&body(MAX_ITEMS)).unwrap().broken.len(), MAX_ITEMS, "{pair}");
        let error = traces(&body(MAX_ITEMS + 1));
        assert_eq!(error, Err(WireError::TooManyItems { limit: MAX_ITEMS }), "{pair}");
    }
}
