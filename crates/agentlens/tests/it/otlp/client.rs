//! An exporter in pieces: requests that can be wrong in one thing, and answers read as an exporter reads them.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::samples::{MEGABYTE, gzip, now_us};
use crate::world::{Api, World, until};

pub(super) const PROTOBUF: &str = "application/x-protobuf";
pub(super) const JSON: &str = "application/json";

/// The signals by the ends of their paths.
pub(super) const SIGNALS: [&str; 3] = ["traces", "logs", "metrics"];

/// One request, right in everything that is not changed.
#[derive(Clone)]
pub(super) struct Post {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    is_chunked: bool,
}

impl Post {
    /// A request in protobuf with the key of the world.
    pub(super) fn protobuf(world: &Api, path: &str, body: impl Into<Vec<u8>>) -> Self {
        let authorization = format!("Bearer {}", world.key());
        Self {
            method: "POST",
            path: path.to_owned(),
            headers: vec![("content-type", PROTOBUF.to_owned()), ("authorization", authorization)],
            body: body.into(),
            is_chunked: false,
        }
    }

    /// A request in JSON with the key of the world.
    pub(super) fn json(world: &Api, path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::protobuf(world, path, body).header("content-type", JSON)
    }

    /// The same with another header, or without it if the value is empty.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value));
        }
        self
    }

    /// The same with another method.
    pub(super) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// The same without a `Content-Length`.
    pub(super) fn chunked(mut self) -> Self {
        self.is_chunked = true;
        self
    }

    /// What is answered.
    pub(super) async fn send(self, world: &Api) -> Answer {
        let mut request = world.bare(self.method, &self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = if self.is_chunked {
            let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
                self.body.chunks(7000).map(|chunk| Ok(chunk.to_vec())).collect();
            request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks)))
        } else {
            request.body(self.body)
        };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap() }
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// `google.rpc.Status`, as clients have it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) details: Vec<Vec<u8>>,
}

impl Answer {
    pub(super) fn content_type(&self) -> &str {
        self.headers["content-type"].to_str().unwrap()
    }

    /// How many items a success says were rejected, and why; 0 and nothing where it has no partial success.
    #[track_caller]
    pub(super) fn rejected(&self, case: &str, signal: &str, content_type: &str) -> (i64, String) {
        assert_eq!(self.status, 200, "{case}: {:?}", self.body);
        assert_eq!(self.content_type(), content_type, "{case}");
        let partial =
            if content_type == JSON { self.json_partial(signal) } else { self.protobuf_partial(signal) };
        // OTLP: unset on full success.
        assert_ne!(partial, Some((0, String::new())), "{case}");
        partial.unwrap_or_default()
    }

    fn json_partial(&self, signal: &str) -> Option<(i64, String)> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let partial = body.get("partialSuccess")?;
        let field = match signal {
            "traces" => "rejectedSpans",
            "logs" => "rejectedLogRecords",
            _ => "rejectedDataPoints",
        };
        let rejected = partial[field].as_str().expect("64 bits are a text in proto3 JSON").parse().unwrap();
        Some((rejected, partial["errorMessage"].as_str().unwrap().to_owned()))
    }

    fn protobuf_partial(&self, signal: &str) -> Option<(i64, String)> {
        partial(signal, &self.body)
    }

    /// Code and message of a refusal, which must be a `google.rpc.Status` in the given encoding.
    #[track_caller]
    pub(super) fn fault(&self, case: &str, status: u16, content_type: &str) -> (i32, String) {
        assert_eq!(self.status, status, "{case}: {:?}", self.body);
        assert_eq!(self.content_type(), content_type, "{case}");
        assert!(self.headers.contains_key("x-request-id"), "{case}");
        let may_retry = matches!(status, 429 | 503);
        assert_eq!(self.headers.contains_key("retry-after"), may_retry, "{case}");
        let (code, message) = if content_type == JSON {
            let body: Value = serde_json::from_slice(&self.body).unwrap();
            (
                i32::try_from(body["code"].as_i64().unwrap()).unwrap(),
                body["message"].as_str().unwrap().to_owned(),
            )
        } else {
            let status = Status::decode(self.body.clone()).unwrap();
            (status.code, status.message)
        };
        assert!(!message.is_empty(), "{case}");
        (code, message)
    }
}

/// The partial success of a protobuf response.
pub(super) fn partial(signal: &str, body: &[u8]) -> Option<(i64, String)> {
    match signal {
        "traces" => ExportTraceServiceResponse::decode(body)
            .unwrap()
            .partial_success
            .map(|partial| (partial.rejected_spans, partial.error_message)),
        "logs" => ExportLogsServiceResponse::decode(body)
            .unwrap()
            .partial_success
            .map(|partial| (partial.rejected_log_records, partial.error_message)),
        _ => ExportMetricsServiceResponse::decode(body)
            .unwrap()
            .partial_success
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
    }
}

pub(super) fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).unwrap()
}

/// The path of a signal.
pub(super) fn path(signal: &str) -> String {
    format!("/v1/{signal}")
}

/// The clock as OTLP has it.
pub(super) fn now_nanos() -> u64 {
    u64::try_from(now_us()).unwrap() * 1000
}

pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, key_strindex: 0 }
}

/// A good span of a trace.
pub(super) fn span(trace: u128, number: u64) -> Span {
    let now = now_nanos();
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        name: format!("chat {number}"),
        kind: 3,
        start_time_unix_nano: now - 5_000_000,
        end_time_unix_nano: now,
        attributes: vec![
            attribute("gen_ai.operation.name", "chat"),
            attribute("gen_ai.request.model", "gpt-4o"),
        ],
        ..Span::default()
    }
}

/// A request of spans.
pub(super) fn traces(spans: Vec<Span>) -> Vec<u8> {
    let scope = Some(InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        ..Default::default()
    });
    let scope_spans = vec![ScopeSpans { scope, spans, schema_url: String::new() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// A good log record of a span: the event that carries what a call said.
pub(super) fn record(trace: u128, number: u64) -> LogRecord {
    LogRecord {
        time_unix_nano: now_nanos(),
        severity_number: 9,
        event_name: "gen_ai.client.inference.operation.details".to_owned(),
        attributes: vec![attribute("gen_ai.operation.name", "chat")],
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        ..LogRecord::default()
    }
}

/// A request of log records.
pub(super) fn logs(log_records: Vec<LogRecord>) -> Vec<u8> {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
        .encode_to_vec()
}

/// A request of as many metrics.
pub(super) fn metrics(count: usize) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: now_nanos(),
        value: Some(number_data_point::Value::AsInt(5)),
        ..NumberDataPoint::default()
    };
    let sum = Sum { data_points: vec![point], aggregation_temporality: 2, is_monotonic: true };
    let metric = Metric {
        name: "gen_ai.client.token.usage".to_owned(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric; count], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

/// A good request of a signal.
pub(super) fn good(signal: &str) -> Vec<u8> {
    match signal {
        "traces" => traces(vec![span(rand::random(), 1)]),
        "logs" => logs(vec![record(rand::random(), 1)]),
        _ => metrics(1),
    }
}

/// A good request of a signal in JSON.
pub(super) fn good_json(signal: &str) -> Vec<u8> {
    let ids = format!("\"traceId\":\"{:032x}\",\"spanId\":\"{:016x}\"", rand::random::<u128>(), 1);
    let body = match signal {
        "traces" => format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},"name":"chat"}}]}}]}}]}}"#),
        "logs" => format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{ids},"eventName":"gen_ai.choice"}}]}}]}}]}}"#
        ),
        _ => json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [{ "name": "m", "gauge": { "dataPoints": [{ "asInt": "5" }] } }] }] }] })
            .to_string(),
    };
    body.into_bytes()
}

/// The events of a trace that names no session, oldest first.
pub(super) async fn events(world: &World, trace: u128) -> Vec<Value> {
    world.settled().await;
    let session = format!("{trace:032x}");
    let page =
        world.query("/api/events", &[("sessionId", &session), ("order", "asc"), ("limit", "1000")]).await;
    page.expect(200)["events"].as_array().unwrap().clone()
}

/// Takes nearly all of the memory for bodies that one org may have, until the connections are dropped: 168 of 170 MiB.
pub(super) async fn take_room(world: &Api) -> Vec<TcpStream> {
    let address = world.address().strip_prefix("http://").unwrap();
    let mut held = Vec::new();
    for megabytes in [16; 10].into_iter().chain([8]) {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
            world.key(),
            megabytes * MEGABYTE
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&vec![b' '; (megabytes - 1) * MEGABYTE]).await.unwrap();
        held.push(connection);
    }
    let unfolds = gzip(&vec![0; 4 * MEGABYTE]);
    until("the memory to be taken", || async {
        let request = Post::json(world, "/v1/traces", unfolds.clone()).header("content-encoding", "gzip");
        (request.send(world).await.status == 429).then_some(())
    })
    .await;
    held
}
