//! Responses.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use crate::wire::response::{MAX_MESSAGE_BYTES, Status};
use crate::wire::{Encoding, Partial, Signal, encode_status, encode_success};

const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];

fn partial(rejected: i64, message: &str) -> Option<Partial> {
    Some(Partial { rejected, message: message.to_owned() })
}

fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn full_success_has_no_partial_success() {
    for signal in SIGNALS {
        assert_eq!(encode_success(signal, Encoding::Protobuf, None), b"");
        assert_eq!(encode_success(signal, Encoding::Json, None), b"{}");
    }
}

#[test]
fn partial_success_has_a_count_and_a_reason() {
    let encode = |signal| encode_success(signal, Encoding::Protobuf, partial(3, "no id"));
    let traces =
        ExportTraceServiceResponse::decode(&*encode(Signal::Traces)).unwrap().partial_success.unwrap();
    assert_eq!((traces.rejected_spans, &*traces.error_message), (3, "no id"));
    let logs = ExportLogsServiceResponse::decode(&*encode(Signal::Logs)).unwrap().partial_success.unwrap();
    assert_eq!((logs.rejected_log_records, &*logs.error_message), (3, "no id"));
    let metrics = ExportMetricsServiceResponse::decode(&*encode(Signal::Metrics)).unwrap();
    let metrics = metrics.partial_success.unwrap();
    assert_eq!((metrics.rejected_data_points, &*metrics.error_message), (3, "no id"));
    for (signal, name) in
        SIGNALS.into_iter().zip(["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"])
    {
        let body = encode_success(signal, Encoding::Json, partial(3, "a \"b\"\n\u{0}"));
        let expected = serde_json::json!({"partialSuccess": {name: "3", "errorMessage": "a \"b\"\n\u{0}"}});
        assert_eq!(json(&body), expected);
    }
}

#[test]
fn a_warning_rejects_nothing() {
    let body = encode_success(Signal::Traces, Encoding::Protobuf, partial(0, "old names"));
    let partial_success = ExportTraceServiceResponse::decode(&*body).unwrap().partial_success.unwrap();
    assert_eq!((partial_success.rejected_spans, &*partial_success.error_message), (0, "old names"));
    let body = encode_success(Signal::Traces, Encoding::Json, partial(0, "old names"));
    assert_eq!(body, br#"{"partialSuccess":{"rejectedSpans":"0","errorMessage":"old names"}}"#);
}

#[test]
fn an_error_is_a_status_in_the_encoding_of_the_request() {
    let body = encode_status(Encoding::Protobuf, 3, "bad body");
    assert_eq!(Status::decode(&*body).unwrap(), Status { code: 3, message: "bad body".to_owned() });
    assert_eq!(body, b"\x08\x03\x12\x08bad body");
    let body = encode_status(Encoding::Json, 3, "bad \"body\"");
    assert_eq!(body, br#"{"code":3,"message":"bad \"body\"","details":[]}"#);
}

#[test]
fn messages_are_cut_between_characters() {
    let long = "é\u{1}".repeat(10 * 1024 * 1024);
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        assert!(encode_status(encoding, 13, &long).len() < 4 * 1024 * 1024);
        assert!(encode_success(Signal::Logs, encoding, partial(1, &long)).len() < 4 * 1024 * 1024);
    }
    let message = Status::decode(&*encode_status(Encoding::Protobuf, 13, &long)).unwrap().message;
    assert!(message.len() <= MAX_MESSAGE_BYTES && message.len() > MAX_MESSAGE_BYTES - 8, "{}", message.len());
    assert!(message.ends_with(" …"));
}

#[test]
fn content_types_name_encodings() {
    let of = Encoding::of_content_type;
    for protobuf in ["application/x-protobuf", "Application/X-Protobuf", " application/x-protobuf ; a=b"] {
        assert_eq!(of(protobuf), Some(Encoding::Protobuf), "{protobuf}");
    }
    for json in ["application/json", "application/JSON;charset=utf-8", "application/json; charset=UTF-8; x=y"]
    {
        assert_eq!(of(json), Some(Encoding::Json), "{json}");
    }
    for other in
        ["", "text/plain", "application/jsonl", "application/grpc", "application", "; application/json"]
    {
        assert_eq!(of(other), None, "{other}");
    }
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        assert_eq!(of(encoding.content_type()), Some(encoding));
    }
}
