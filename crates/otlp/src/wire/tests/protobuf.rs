//! The rules of the protobuf decoder, one by one.

use agentlens_domain::ledger::Reason;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::wire::batch::{MAX_CARRIER_BYTES, MAX_DETAILS, MAX_ITEM_BYTES, MAX_ITEMS};
use crate::wire::{Decoded, Encoding, WireError, decode_logs, decode_metrics, decode_traces};

fn traces(body: &[u8]) -> Result<Decoded<ExportTraceServiceRequest>, WireError> {
    decode_traces(Encoding::Protobuf, body)
}

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

fn named(name: &str) -> Span {
    Span { name: name.to_owned(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "scope".to_owned(),
        version: "1".to_owned(),
        attributes: vec![attribute("language", "python")],
        dropped_attributes_count: 3,
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: "inner".to_owned() }];
    let attributes = vec![attribute("service.name", "shop"), attribute("host", "here")];
    let resource = Some(Resource { attributes, dropped_attributes_count: 4, entity_refs: vec![] });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url: "outer".to_owned() }];
    ExportTraceServiceRequest { resource_spans }
}

/// The bytes of the request, with invalid UTF-8 instead of `text`.
fn with_invalid_utf8(request: &impl Message, text: &str) -> Vec<u8> {
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] = 0xff;
    bytes
}

fn names(decoded: &Decoded<ExportTraceServiceRequest>) -> Vec<&str> {
    let scopes = decoded.request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| &*span.name).collect()
}

#[test]
fn an_empty_body_is_an_empty_request() {
    let decoded = traces(b"").unwrap();
    assert_eq!(
        decoded,
        Decoded { request: ExportTraceServiceRequest::default(), broken: vec![], repaired: 0 }
    );
    assert!(decode_logs(Encoding::Protobuf, b"").is_ok() && decode_metrics(Encoding::Protobuf, b"").is_ok());
}

#[test]
fn one_bad_span_never_harms_a_good_one() {
    let whole = request(vec![named("first"), named("spoil"), named("last")]);
    let decoded = traces(&with_invalid_utf8(&whole, "spoil")).unwrap();
    assert_eq!(names(&decoded), ["first", "last"]);
    assert_eq!(decoded.broken.len(), 1);
    let message = &decoded.broken[0].message;
    assert!(
        message.starts_with("The span number 2 cannot be decoded: Span.name: invalid string"),
        "{message}"
    );
    let mut expected = whole;
    expected.resource_spans[0].scope_spans[0].spans.remove(1);
    assert_eq!((decoded.request, decoded.repaired), (expected, 0));
    // A request in which all spans are bad is still a request.
    let decoded = traces(&with_invalid_utf8(&request(vec![named("spoil")]), "spoil")).unwrap();
    assert_eq!((names(&decoded).len(), decoded.broken.len()), (0, 1));
}

#[test]
fn one_bad_log_record_never_harms_a_good_one() {
    let record = |name: &str| LogRecord { event_name: name.to_owned(), ..LogRecord::default() };
    let scope_logs =
        vec![ScopeLogs { log_records: vec![record("spoil"), record("good")], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let body = with_invalid_utf8(&ExportLogsServiceRequest { resource_logs }, "spoil");
    let decoded = decode_logs(Encoding::Protobuf, &body).unwrap();
    assert_eq!(decoded.request.resource_logs[0].scope_logs[0].log_records, [record("good")]);
    assert!(decoded.broken[0].message.starts_with("The log record number 1 cannot be decoded: "));
}

#[test]
fn resources_and_scopes_lose_only_unreadable_parts() {
    let whole = request(vec![named("span")]);
    let mut expected = whole.clone();
    expected.resource_spans[0].resource.as_mut().unwrap().attributes.remove(0);
    let decoded = traces(&with_invalid_utf8(&whole, "shop")).unwrap();
    assert_eq!(decoded, Decoded { request: expected, broken: vec![], repaired: 1 });

    let mut expected = whole.clone();
    expected.resource_spans[0].scope_spans[0].scope.as_mut().unwrap().name = "\u{fffd}cope".to_owned();
    let decoded = traces(&with_invalid_utf8(&whole, "scope")).unwrap();
    assert_eq!(decoded, Decoded { request: expected, broken: vec![], repaired: 1 });

    let mut expected = whole.clone();
    expected.resource_spans[0].schema_url = "\u{fffd}uter".to_owned();
    let decoded = traces(&with_invalid_utf8(&whole, "outer")).unwrap();
    assert_eq!(decoded, Decoded { request: expected, broken: vec![], repaired: 1 });
}

#[test]
fn a_damaged_scope_loses_only_its_own_rest() {
    // The second span of the scope has a length beyond the end of the scope.
    let span = named("kept").encode_to_vec();
    let mut scope = vec![0x12, span.len() as u8];
    scope.extend(&span);
    scope.extend(b"\x12\x7f\x2a");
    let good = ScopeSpans { spans: vec![named("next")], ..ScopeSpans::default() }.encode_to_vec();
    let mut resource = vec![0x12, scope.len() as u8];
    resource.extend(&scope);
    resource.extend([0x12, good.len() as u8]);
    resource.extend(&good);
    let mut body = vec![0x0a, resource.len() as u8];
    body.extend(&resource);
    let decoded = traces(&body).unwrap();
    assert_eq!(names(&decoded), ["kept", "next"]);
    assert_eq!(decoded.broken.len(), 1);
    assert!(decoded.broken[0].message.contains("announces 127 bytes where only 1 are left"));
}

#[test]
fn garbage_is_an_error() {
    let whole = request(vec![named("first"), named("last")]).encode_to_vec();
    for cut in 1..whole.len() {
        assert!(matches!(traces(&whole[..cut]), Err(WireError::Protobuf { .. })), "{cut}");
    }
    for garbage in [
        &b"{\"resourceSpans\":[]}"[..],
        b"\x0a\x02\xff\xff",
        b"\x08\x05",
        b"\xff",
        b"\x00",
        b"\x0a",
        b"hello",
    ] {
        assert!(matches!(traces(garbage), Err(WireError::Protobuf { .. })), "{garbage:?}");
    }
    assert_eq!(
        traces(b"\x0a\x05").unwrap_err().to_string(),
        "The body is not a valid protobuf request: field 1 announces 5 bytes where only 0 are left."
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let whole = request(vec![named("span")]);
    let mut body = whole.encode_to_vec();
    // A string, a varint, both fixed sizes and a group, under unused numbers.
    body.extend(b"\xa2\x06\x02hi\xa8\x06\x05\xad\x06\x01\x02\x03\x04\xa9\x06\x01\x02\x03\x04\x05\x06\x07\x08\xab\x06\x08\x01\xac\x06");
    assert_eq!(traces(&body).unwrap(), Decoded { request: whole, broken: vec![], repaired: 0 });
}

#[test]
fn a_resource_in_parts_is_merged() {
    let part = |key: &str| Resource { attributes: vec![attribute(key, "v")], ..Resource::default() };
    let part =
        |key: &str| ResourceSpans { resource: Some(part(key)), ..ResourceSpans::default() }.encode_to_vec();
    let joined = [part("a"), part("b")].concat();
    let mut body = vec![0x0a, joined.len() as u8];
    body.extend(joined);
    assert_eq!(traces(&body).unwrap().request, ExportTraceServiceRequest::decode(&*body).unwrap());
}

#[test]
fn hostile_nesting_loses_a_span_and_no_stack() {
    let nested = |levels: usize| {
        (0..levels).fold(AnyValue::default(), |inner, _| AnyValue {
            value: Some(Value::ArrayValue(ArrayValue { values: vec![inner] })),
        })
    };
    let span = |levels: usize| Span {
        attributes: vec![KeyValue { value: Some(nested(levels)), ..KeyValue::default() }],
        ..named("nested")
    };
    assert_eq!(traces(&request(vec![span(40)]).encode_to_vec()).unwrap().broken, []);
    let decoded = traces(&request(vec![named("first"), span(200), named("last")]).encode_to_vec()).unwrap();
    assert_eq!(names(&decoded), ["first", "last"]);
    assert!(decoded.broken[0].message.contains("recursion limit"), "{}", decoded.broken[0].message);
    // Written from the inside out, because building so deep a value would overflow the stack.
    let mut deep = Vec::new();
    for _ in 0..5_000 {
        let mut outer = vec![0x0a];
        prost::encode_length_delimiter(deep.len(), &mut outer).unwrap();
        outer.append(&mut deep);
        deep = vec![0x2a];
        prost::encode_length_delimiter(outer.len(), &mut deep).unwrap();
        deep.append(&mut outer);
    }
    for field in [2, 9, 2, 2, 1] {
        let mut outer = vec![field << 3 | 2];
        prost::encode_length_delimiter(deep.len(), &mut outer).unwrap();
        outer.append(&mut deep);
        deep = outer;
    }
    assert_eq!(traces(&deep).unwrap().broken.len(), 1);
    assert!(traces(&b"\x0b".repeat(1_000_000)).is_err());
    assert!(traces(&b"\x23".repeat(1_000_000)).is_err());
}

#[test]
fn logs_sent_as_traces_are_refused_with_a_hint() {
    let record = LogRecord { time_unix_nano: 5, severity_text: "INFO".to_owned(), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let decoded = traces(&body).unwrap();
    let message = &decoded.broken[0].message;
    assert!(message.ends_with("It looks like a log record; these belong to /v1/logs."), "{message}");
}

#[test]
fn the_items_of_a_request_are_limited() {
    let spans = |count: usize| request(vec![Span::default(); count]).encode_to_vec();
    assert_eq!(names(&traces(&spans(MAX_ITEMS)).unwrap()).len(), MAX_ITEMS);
    assert_eq!(traces(&spans(MAX_ITEMS + 1)), Err(WireError::TooManyItems { limit: MAX_ITEMS }));
    let resources = b"\x0a\x00".repeat(MAX_ITEMS + 1);
    assert_eq!(traces(&resources), Err(WireError::TooManyItems { limit: MAX_ITEMS }));
}

#[test]
fn the_contents_of_items_are_limited() {
    let dense = Span { attributes: vec![KeyValue::default(); 500_000], ..Span::default() };
    let error = traces(&request(vec![dense; 5]).encode_to_vec());
    assert_eq!(error, Err(WireError::TooManyDetails { limit: MAX_DETAILS }));
    let long = Span { name: "x".repeat(MAX_ITEM_BYTES), ..Span::default() };
    let short = Span { name: "short".to_owned(), ..Span::default() };
    let decoded = traces(&request(vec![long, short]).encode_to_vec()).unwrap();
    assert_eq!(names(&decoded), ["short"]);
    assert!(decoded.broken[0].message.contains("the limit is 16777216"), "{:?}", decoded.broken);
    assert_eq!(decoded.broken[0].reason, Reason::TooLarge);
}

/// The bytes as a field of this number.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
    field.extend_from_slice(bytes);
    field
}

#[test]
fn resources_and_scopes_are_limited_like_items() {
    let too_long = |part| Err(WireError::TooLong { part, limit: MAX_CARRIER_BYTES });
    let empties = b"\x0a\x00".repeat(MAX_CARRIER_BYTES / 2 + 1);
    assert_eq!(traces(&field(1, &field(1, &empties))), too_long("resource"));
    // The limit also applies if it comes in parts, because they are one message.
    let parts = field(1, &b"\x0a\x00".repeat(MAX_CARRIER_BYTES / 4)).repeat(3);
    assert_eq!(traces(&field(1, &parts)), too_long("resource"));
    let empties = b"\x1a\x00".repeat(MAX_CARRIER_BYTES / 2 + 1);
    assert_eq!(traces(&field(1, &field(2, &field(1, &empties)))), too_long("scope"));
    let many = Err(WireError::TooManyDetails { limit: MAX_DETAILS });
    let attributes = field(1, &field(1, &b"\x0a\x00".repeat(MAX_DETAILS / 2 + 1)));
    assert_eq!(traces(&attributes.repeat(2)), many);
    let entities = field(1, &field(1, &field(3, &b"\x1a\x00".repeat(MAX_DETAILS / 2 + 1))));
    assert_eq!(traces(&entities.repeat(2)), many);
    let attributes = field(1, &field(2, &field(1, &b"\x1a\x00".repeat(MAX_DETAILS / 2 + 1))));
    assert_eq!(traces(&attributes.repeat(2)), many);
}

#[test]
fn metrics_are_counted_without_decoding_them() {
    let named = field(2, b"\x0a\x01a");
    // Empty points, which are as dense as possible, and one that can't be decoded.
    let dense = field(2, &field(5, &b"\x0a\x00".repeat(MAX_CARRIER_BYTES / 2 - 8)));
    let unreadable = field(2, &field(5, b"\x0a\x05"));
    let with_invalid_utf8 = field(2, b"\x0a\x01\xff");
    let metrics = [named, dense.repeat(3), unreadable, with_invalid_utf8].concat();
    let decoded = decode_metrics(Encoding::Protobuf, &field(1, &field(2, &metrics))).unwrap();
    assert_eq!((decoded.request, decoded.broken.len(), decoded.repaired), (5, 1, 0));
    let message = &decoded.broken[0].message;
    assert!(message.starts_with("The metric number 6 cannot be decoded"), "{message}");
}
