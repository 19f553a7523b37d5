//! OpenTelemetry requests to send: spans in shorthand, and captures of real clients decoded, so that they can be sent in
//! another order, split and encoding.

#[path = "../../../otlp/src/wire/tests/printer.rs"]
mod printer;

use std::borrow::Borrow;
use std::sync::LazyLock;

use agentlens_otlp::wire::{Encoding, decode_logs, decode_traces};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::{Value, json};

use self::printer::Spelling;
use crate::samples::{HOUR_US, now_us};
use crate::world::Api;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// When the spans of all tests begin, in microseconds UTC: two hours ago, at a whole second.
pub(crate) static BASE_US: LazyLock<i64> =
    LazyLock::new(|| (now_us() - 2 * HOUR_US).div_euclid(1_000_000) * 1_000_000);

/// A request body as a client sends it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Body {
    path: &'static str,
    content_type: &'static str,
    bytes: Vec<u8>,
}

impl Body {
    /// Whether the other one is in the same encoding.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.content_type == other.content_type
    }

    /// Posts it; it must be taken whole. Nothing is awaited beyond the answer.
    pub(crate) async fn post(&self, api: &Api) {
        let request = api.request("POST", self.path).header("content-type", self.content_type);
        let answer = api.answer(request.body(self.bytes.clone())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if self.content_type == JSON {
            assert!(answer.json.get("partialSuccess").is_none(), "{}", answer.text);
        } else {
            assert_eq!(answer.text, "", "an empty message is full success");
        }
    }
}

/// A request of one signal, decoded.
#[derive(Debug, Clone)]
pub(crate) enum Export {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    /// As it was captured: nothing of it is kept, so another form of it would show nothing.
    Metrics(Body),
}

/// One span or log record with the resource and scope around it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// A request that holds it alone.
    pub(crate) export: Export,
    /// When it began, in nanoseconds.
    pub(crate) start_ns: u64,
}

impl Export {
    /// Reads a captured body by the name of its file, which says signal and encoding.
    pub(crate) fn read(file_name: &str, bytes: &[u8]) -> Self {
        let encoding = if file_name.ends_with(".json") { Encoding::Json } else { Encoding::Protobuf };
        match file_name.split('.').nth(1) {
            Some("traces") => Self::Traces(decode_traces(encoding, bytes).unwrap().request),
            Some("logs") => Self::Logs(decode_logs(encoding, bytes).unwrap().request),
            Some("metrics") => {
                let content_type = if encoding == Encoding::Json { JSON } else { PROTOBUF };
                Self::Metrics(Body { path: "/v1/metrics", content_type, bytes: bytes.to_vec() })
            }
            _ => panic!("{file_name} names no signal"),
        }
    }

    fn path(&self) -> &'static str {
        match self {
            Self::Traces(_) => "/v1/traces",
            Self::Logs(_) => "/v1/logs",
            Self::Metrics(body) => body.path,
        }
    }

    /// As protobuf, or a metric as it was captured.
    pub(crate) fn protobuf(&self) -> Body {
        let bytes = match self {
            Self::Traces(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
            Self::Metrics(body) => return body.clone(),
        };
        Body { path: self.path(), content_type: PROTOBUF, bytes }
    }

    /// As JSON, or a metric as it was captured; `spelling` chooses between the ways in which clients write it.
    pub(crate) fn json(&self, spelling: usize) -> Body {
        let flag = |bit: usize| spelling >> bit & 1 == 1;
        let spelling = Spelling {
            snake_case: flag(0),
            plain_integers: flag(1),
            enum_names: flag(2),
            upper_case: flag(3),
            nulls: flag(4),
        };
        let text = match self {
            Self::Traces(request) => spelling.traces(request),
            Self::Logs(request) => spelling.logs(request),
            Self::Metrics(body) => return body.clone(),
        };
        Body { path: self.path(), content_type: JSON, bytes: text.into_bytes() }
    }

    /// Its bytes as they were captured.
    pub(crate) fn captured(&self, file_name: &str, bytes: Vec<u8>) -> Body {
        let content_type = if file_name.ends_with(".json") { JSON } else { PROTOBUF };
        Body { path: self.path(), content_type, bytes }
    }

    /// Its spans or log records one by one; metrics have none.
    pub(crate) fn items(&self) -> Vec<Item> {
        match self {
            Self::Traces(request) => items_of_traces(request),
            Self::Logs(request) => items_of_logs(request),
            Self::Metrics(_) => Vec::new(),
        }
    }

    /// Takes the contents of another request of the same signal; `false` if it is of another.
    pub(crate) fn absorb(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Traces(own), Self::Traces(other)) => {
                own.resource_spans.extend(other.resource_spans.iter().cloned());
            }
            (Self::Logs(own), Self::Logs(other)) => {
                own.resource_logs.extend(other.resource_logs.iter().cloned());
            }
            _ => return false,
        }
        true
    }
}

fn items_of_traces(request: &ExportTraceServiceRequest) -> Vec<Item> {
    let mut items = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let scope_spans = vec![ScopeSpans { spans: vec![span.clone()], ..scope.clone() }];
                let resource_spans = vec![ResourceSpans { scope_spans, ..resource.clone() }];
                let export = Export::Traces(ExportTraceServiceRequest { resource_spans });
                items.push(Item { export, start_ns: started(span) });
            }
        }
    }
    items
}

fn started(span: &Span) -> u64 {
    span.start_time_unix_nano
}

fn items_of_logs(request: &ExportLogsServiceRequest) -> Vec<Item> {
    let mut items = Vec::new();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            for record in &scope.log_records {
                let scope_logs = vec![ScopeLogs { log_records: vec![record.clone()], ..scope.clone() }];
                let resource_logs = vec![ResourceLogs { scope_logs, ..resource.clone() }];
                let export = Export::Logs(ExportLogsServiceRequest { resource_logs });
                items.push(Item { export, start_ns: recorded(record) });
            }
        }
    }
    items
}

fn recorded(record: &LogRecord) -> u64 {
    record.time_unix_nano.max(record.observed_time_unix_nano)
}

/// The id of a trace as the API writes it.
pub(crate) fn trace_id(trace: u32) -> String {
    format!("{trace:032x}")
}

/// The id of a span as the API writes it.
pub(crate) fn span_id(span: u32) -> String {
    format!("{span:016x}")
}

/// A span of a trace with attributes. Span `n` begins `n` milliseconds after [`BASE_US`] and takes a second.
pub(crate) fn span(trace: u32, id: u32, parent: Option<u32>, attributes: impl Borrow<Value>) -> Value {
    let start_ms = i64::from(id);
    let sketch = json!({
        "traceId": trace_id(trace),
        "spanId": span_id(id),
        "parentSpanId": parent.map(span_id),
        "name": format!("span {id}"),
        "kind": 1,
        "attributes": attributes_of(attributes.borrow()),
    });
    timed(sketch, start_ms, start_ms + 1_000)
}

/// The span at another time, in milliseconds after [`BASE_US`].
pub(crate) fn timed(mut span: Value, start_ms: i64, end_ms: i64) -> Value {
    span["startTimeUnixNano"] = nanos(start_ms);
    span["endTimeUnixNano"] = nanos(end_ms);
    span
}

fn nanos(ms: i64) -> Value {
    json!(((*BASE_US + ms * 1_000) * 1_000).to_string())
}

/// A point event on a span, so many milliseconds after [`BASE_US`].
pub(crate) fn span_event(name: &str, ms: i64) -> Value {
    json!({ "name": name, "timeUnixNano": nanos(ms) })
}

/// The attributes of a call of gpt-4o with so many tokens.
pub(crate) fn chat(input_tokens: i64, output_tokens: i64) -> Value {
    json!({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
    })
}

/// The attributes of a run of an agent.
pub(crate) fn agent(name: &str) -> Value {
    json!({ "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name })
}

/// Both sets of attributes.
pub(crate) fn and(mut attributes: Value, further: Value) -> Value {
    let Value::Object(further) = further else { panic!("attributes are an object") };
    attributes.as_object_mut().unwrap().extend(further);
    attributes
}

/// Attributes as OTLP's JSON has them.
pub(crate) fn attributes_of(attributes: &Value) -> Value {
    let pairs = attributes.as_object().unwrap().iter();
    pairs.map(|(key, value)| json!({ "key": key, "value": any_value(value) })).collect()
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(items) => {
            json!({ "arrayValue": { "values": items.iter().map(any_value).collect::<Vec<_>>() } })
        }
        Value::Object(_) => json!({ "kvlistValue": { "values": attributes_of(value) } }),
    }
}

/// A request of spans under a resource with attributes.
pub(crate) fn spans_of(resource: &Value, spans: &[Value]) -> Body {
    spans_of_scope(resource, "it", spans)
}

fn spans_of_scope(resource: &Value, scope: &str, spans: &[Value]) -> Body {
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": attributes_of(resource) },
        "scopeSpans": [{ "scope": { "name": scope, "version": "1" }, "spans": spans }],
    }] });
    Body { path: "/v1/traces", content_type: JSON, bytes: request.to_string().into_bytes() }
}

/// Sends spans of a service `shop`, which must all be taken, and waits until they can be read.
pub(crate) async fn send_spans(api: &Api, spans: &[Value]) {
    spans_of(&json!({ "service.name": "shop" }), spans).post(api).await;
    api.settled().await;
}

/// Sends a span of an instrumentation scope, as [`send_spans`] does.
pub(crate) async fn send_span_of_scope(api: &Api, scope: &str, span: &Value) {
    spans_of_scope(&json!({ "service.name": "shop" }), scope, std::slice::from_ref(span)).post(api).await;
    api.settled().await;
}

/// The tree of a session, whole; pages are the caller's to ask for.
pub(crate) async fn tree(api: &Api, session: &str) -> Vec<Value> {
    let trace = api.read(&format!("/api/sessions/{session}/trace?limit=1000")).await;
    assert_eq!((&trace["chainValid"], &trace["isTruncated"]), (&json!(true), &json!(false)), "{trace}");
    trace["tree"].as_array().unwrap().clone()
}
