//! What JSON may look like: everything that clients really send is taken, and kept as what it says.

use serde_json::{Value, json};

use super::client::{JSON, Post, events, now_nanos};
use crate::world::World;

on_both_engines!(spans_in_every_spelling_arrive, odd_requests_around_good_spans_arrive);

/// Members of a span besides its ids, and what must be found in its event at a pointer.
const SPELLINGS: &[(&str, &str, &str)] = &[
    (r#""parentSpanId":null"#, "/payload/parentSpanId", "null"),
    (r#""parentSpanId":"""#, "/payload/parentSpanId", "null"),
    (r#""parentSpanId":"B7AD6B7169203331""#, "/payload/parentSpanId", r#""b7ad6b7169203331""#),
    (r#""traceState":null,"links":null,"events":null,"status":null,"flags":null"#, "/payload/name", r#""n""#),
    (r#""attributes":null"#, "/payload/name", r#""n""#),
    (r#""attributes":[]"#, "/payload/name", r#""n""#),
    (r#""attributes":[null]"#, "/payload/name", r#""n""#),
    (r#""attributes":[{"key":"k","value":{"doubleValue":"NaN"}}]"#, "/payload/attributes/k", r#""NaN""#),
    (
        r#""attributes":[{"key":"k","value":{"doubleValue":"Infinity"}}]"#,
        "/payload/attributes/k",
        r#""Infinity""#,
    ),
    (
        r#""attributes":[{"key":"k","value":{"doubleValue":"-Infinity"}}]"#,
        "/payload/attributes/k",
        r#""-Infinity""#,
    ),
    (r#""attributes":[{"key":"k","value":{"doubleValue":"1.5"}}]"#, "/payload/attributes/k", "1.5"),
    (r#""attributes":[{"key":"k","value":{"doubleValue":2}}]"#, "/payload/attributes/k", "2"),
    (r#""attributes":[{"key":"k","value":{"arrayValue":{}}}]"#, "/payload/attributes/k", "[]"),
    (r#""attributes":[{"key":"k","value":{"arrayValue":{"values":null}}}]"#, "/payload/attributes/k", "[]"),
    (
        r#""attributes":[{"key":"k","value":{"arrayValue":{"values":[{"intValue":"1"},{"stringValue":"x"}]}}}]"#,
        "/payload/attributes/k",
        r#"[1,"x"]"#,
    ),
    (r#""attributes":[{"key":"k","value":{"kvlistValue":{}}}]"#, "/payload/attributes/k", "{}"),
    (
        r#""attributes":[{"key":"k","value":{"kvlistValue":{"values":[{"key":"a","value":{"boolValue":true}}]}}}]"#,
        "/payload/attributes/k",
        r#"{"a":true}"#,
    ),
    (r#""attributes":[{"key":"k","value":{"intValue":"42"}}]"#, "/payload/attributes/k", "42"),
    (r#""attributes":[{"key":"k","value":{"intValue":42}}]"#, "/payload/attributes/k", "42"),
    (r#""attributes":[{"key":"k","value":{"intValue":42.0}}]"#, "/payload/attributes/k", "42"),
    (r#""attributes":[{"key":"k","value":{"intValue":"-7"}}]"#, "/payload/attributes/k", "-7"),
    (r#""attributes":[{"key":"k","value":{"boolValue":false}}]"#, "/payload/attributes/k", "false"),
    (r#""attributes":[{"key":"k","value":{"stringValue":""}}]"#, "/payload/attributes/k", r#""""#),
    (
        r#""attributes":[{"key":"k","value":{"stringValue":"漢\u0000\"\\😀"}}]"#,
        "/payload/attributes/k",
        r#""漢\u0000\"\\😀""#,
    ),
    (
        r#""attributes":[{"key":"k","value":{"string_value":"x","unknown":1}}]"#,
        "/payload/attributes/k",
        r#""x""#,
    ),
    (
        r#""attributes":[{"key":"k","value":{}},{"key":"l","value":{"stringValue":"x"}}]"#,
        "/payload/attributes/l",
        r#""x""#,
    ),
    (
        r#""attributes":[{"key":"k"},{"key":"l","value":{"stringValue":"x"}}]"#,
        "/payload/attributes/l",
        r#""x""#,
    ),
    (
        r#""attributes":[{"key":"k","value":null},{"key":"l","value":{"stringValue":"x"}}]"#,
        "/payload/attributes/l",
        r#""x""#,
    ),
    (
        r#""attributes":[{"key":"k","value":{"intValue":true}},{"key":"l","value":{"stringValue":"x"}}]"#,
        "/payload/attributes/l",
        r#""x""#,
    ),
    (
        r#""attributes":[{"key":"k","value":"bare"},{"key":"l","value":{"stringValue":"x"}}]"#,
        "/payload/attributes/l",
        r#""x""#,
    ),
    (r#""kind":"SPAN_KIND_CLIENT""#, "/payload/spanKind", r#""CLIENT""#),
    (r#""kind":3"#, "/payload/spanKind", r#""CLIENT""#),
    (r#""kind":"3""#, "/payload/spanKind", r#""CLIENT""#),
    (r#""kind":"NO_SUCH_KIND""#, "/payload/name", r#""n""#),
    (r#""kind":99"#, "/payload/name", r#""n""#),
    (r#""status":{"code":"STATUS_CODE_ERROR","message":"no"}"#, "/severity", r#""error""#),
    (r#""status":{"code":2,"message":"no"}"#, "/severity", r#""error""#),
    (r#""status":{}"#, "/severity", r#""info""#),
    (r#""droppedAttributesCount":"3","dropped_events_count":1"#, "/payload/name", r#""n""#),
    (r#""unknown":{"a":[1,{"b":null}]},"other":1e300"#, "/payload/name", r#""n""#),
    (r#""flags":257"#, "/payload/name", r#""n""#),
    (
        r#""events":[{"name":"e","timeUnixNano":"1767323045678000000","attributes":null}]"#,
        "/payload/name",
        r#""n""#,
    ),
    (r#""events":[null,{}]"#, "/payload/name", r#""n""#),
    (r#""links":[{"traceId":"x","spanId":null}]"#, "/payload/name", r#""n""#),
];

fn request(span: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
}

async fn spans_in_every_spelling_arrive(world: World) {
    let now = now_nanos();
    let mut traces: Vec<u128> = Vec::new();
    for (members, ..) in SPELLINGS {
        let trace = rand::random();
        traces.push(trace);
        let body = request(&format!(
            r#"{{"traceId":"{trace:032x}","spanId":"00f067aa0ba902b7","name":"n","startTimeUnixNano":"{now}","endTimeUnixNano":{now},{members}}}"#
        ));
        let answer = Post::json(&world, "/v1/traces", body).send(&world).await;
        assert_eq!(answer.rejected(members, "traces", JSON), (0, String::new()), "{members}");
    }
    for ((members, pointer, expected), trace) in SPELLINGS.iter().zip(traces) {
        let events = events(&world, trace).await;
        assert_eq!(events.len(), 1, "{members}");
        let expected: Value = serde_json::from_str(expected).unwrap();
        let found = events[0].pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{members}: {}", events[0]);
    }
}

async fn odd_requests_around_good_spans_arrive(world: World) {
    let now = now_nanos();
    let span = |trace: u128| {
        format!(
            r#"{{"traceId":"{trace:032X}","spanId":"00F067AA0BA902B7","startTimeUnixNano":{now},"name":"n"}}"#
        )
    };
    let frames: [fn(&str) -> String; 12] = [
        request,
        |span| format!("\u{feff}{}", request(span)),
        |span| format!(" \r\n{}\t\n", request(span)),
        |span| request(span).replace("resourceSpans", "resource_spans").replace("scopeSpans", "scope_spans"),
        |span| request(span).replace("traceId", "trace_id").replace("spanId", "span_id"),
        |span| request(&format!("null,{span}")),
        |span| {
            format!(
                r#"{{"resourceSpans":[null,{{}},{{"resource":null,"schemaUrl":null,"scopeSpans":[null,{{"scope":null,"spans":[{span}]}}]}}]}}"#
            )
        },
        |span| {
            format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":{{}}}},"scopeSpans":[{{"scope":[],"spans":[{span}]}}]}}]}}"#
            )
        },
        |span| {
            format!(
                r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"intValue":"x"}}}}]}},"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#
            )
        },
        |span| {
            format!(
                r#"{{"unknown":[1,2],"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}],"new":{{}}}}]}}]}}"#
            )
        },
        |span| {
            format!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}],"schemaUrl":5}}],"instrumentationLibrarySpans":[]}}]}}"#
            )
        },
        |span| request(span).replace("\"name\":\"n\"", "\"name\":\"x\",\"name\":\"n\""),
    ];
    for (number, frame) in frames.iter().enumerate() {
        let trace = rand::random();
        let body = frame(&span(trace));
        let answer = Post::json(&world, "/v1/traces", body.clone()).send(&world).await;
        assert_eq!(answer.rejected(&body, "traces", JSON).0, 0, "frame {number}");
        let events = events(&world, trace).await;
        assert_eq!(events.len(), 1, "{body}");
        assert_eq!(events[0]["payload"]["name"], json!("n"), "{body}");
    }
}
