//! Prints requests as OTLP JSON, in each of the forms that clients use.

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span};
use serde_json::{Map, Value, json};

/// The form that a client uses where OTLP JSON allows several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spelling {
    /// Names as in the schema instead of lowerCamelCase.
    pub(super) snake_case: bool,
    /// 64-bit integers as numbers instead of strings.
    pub(super) plain_integers: bool,
    /// Enums by name.
    pub(super) enum_names: bool,
    /// Ids in upper case.
    pub(super) upper_case: bool,
    /// `null` for absent values.
    pub(super) nulls: bool,
}

/// A name in both forms, and its value; `None` if it is absent.
type Field<'a> = (&'a str, Option<Value>);

impl Spelling {
    pub(super) fn traces(self, request: &ExportTraceServiceRequest) -> String {
        let resources = request.resource_spans.iter().map(|under| {
            let scopes = under.scope_spans.iter().map(|under| {
                let spans = under.spans.iter().map(|span| self.span(span));
                self.scoped(under.scope.as_ref(), ("spans", Some(spans.collect())), &under.schema_url)
            });
            self.resourced(under.resource.as_ref(), ("scopeSpans", Some(scopes.collect())), &under.schema_url)
        });
        self.object([("resourceSpans", Some(resources.collect()))]).to_string()
    }

    pub(super) fn logs(self, request: &ExportLogsServiceRequest) -> String {
        let resources = request.resource_logs.iter().map(|under| {
            let scopes = under.scope_logs.iter().map(|under| {
                let records = under.log_records.iter().map(|record| self.record(record));
                self.scoped(under.scope.as_ref(), ("logRecords", Some(records.collect())), &under.schema_url)
            });
            self.resourced(under.resource.as_ref(), ("scopeLogs", Some(scopes.collect())), &under.schema_url)
        });
        self.object([("resourceLogs", Some(resources.collect()))]).to_string()
    }

    fn object<'a>(self, fields: impl IntoIterator<Item = Field<'a>>) -> Value {
        let mut object = Map::new();
        for (name, value) in fields {
            let name = if self.snake_case { snake_case(name) } else { name.to_owned() };
            match value {
                Some(value) => drop(object.insert(name, value)),
                None if self.nulls => drop(object.insert(name, Value::Null)),
                None => {}
            }
        }
        Value::Object(object)
    }

    fn resourced(self, resource: Option<&Resource>, contents: Field<'_>, schema_url: &str) -> Value {
        let resource = resource.map(|resource| {
            self.object([
                ("attributes", Some(self.attributes(&resource.attributes))),
                ("droppedAttributesCount", Some(json!(resource.dropped_attributes_count))),
            ])
        });
        self.object([("resource", resource), contents, ("schemaUrl", Some(json!(schema_url)))])
    }

    fn scoped(self, scope: Option<&InstrumentationScope>, contents: Field<'_>, schema_url: &str) -> Value {
        let scope = scope.map(|scope| {
            self.object([
                ("name", Some(json!(scope.name))),
                ("version", Some(json!(scope.version))),
                ("attributes", Some(self.attributes(&scope.attributes))),
                ("droppedAttributesCount", Some(json!(scope.dropped_attributes_count))),
            ])
        });
        self.object([("schemaUrl", Some(json!(schema_url))), ("scope", scope), contents])
    }

    fn span(self, span: &Span) -> Value {
        let kind = SpanKind::try_from(span.kind).ok().map(|kind| kind.as_str_name());
        self.object([
            ("traceId", Some(self.id(&span.trace_id))),
            ("spanId", Some(self.id(&span.span_id))),
            ("traceState", Some(json!(span.trace_state))),
            ("parentSpanId", Some(self.id(&span.parent_span_id))),
            ("flags", Some(json!(span.flags))),
            ("name", Some(json!(span.name))),
            ("kind", Some(self.enumeration(span.kind, kind))),
            ("startTimeUnixNano", Some(self.integer(span.start_time_unix_nano))),
            ("endTimeUnixNano", Some(self.integer(span.end_time_unix_nano))),
            ("attributes", Some(self.attributes(&span.attributes))),
            ("droppedAttributesCount", Some(json!(span.dropped_attributes_count))),
            ("events", Some(span.events.iter().map(|event| self.event(event)).collect())),
            ("droppedEventsCount", Some(json!(span.dropped_events_count))),
            ("links", Some(span.links.iter().map(|link| self.link(link)).collect())),
            ("droppedLinksCount", Some(json!(span.dropped_links_count))),
            ("status", span.status.as_ref().map(|status| self.status(status))),
        ])
    }

    fn event(self, event: &span::Event) -> Value {
        self.object([
            ("timeUnixNano", Some(self.integer(event.time_unix_nano))),
            ("name", Some(json!(event.name))),
            ("attributes", Some(self.attributes(&event.attributes))),
            ("droppedAttributesCount", Some(json!(event.dropped_attributes_count))),
        ])
    }

    fn link(self, link: &span::Link) -> Value {
        self.object([
            ("traceId", Some(self.id(&link.trace_id))),
            ("spanId", Some(self.id(&link.span_id))),
            ("traceState", Some(json!(link.trace_state))),
            ("attributes", Some(self.attributes(&link.attributes))),
            ("droppedAttributesCount", Some(json!(link.dropped_attributes_count))),
            ("flags", Some(json!(link.flags))),
        ])
    }

    fn status(self, status: &Status) -> Value {
        let name = StatusCode::try_from(status.code).ok().map(|code| code.as_str_name());
        self.object([
            ("message", Some(json!(status.message))),
            ("code", Some(self.enumeration(status.code, name))),
        ])
    }

    fn record(self, record: &LogRecord) -> Value {
        let severity = SeverityNumber::try_from(record.severity_number).ok();
        let severity = severity.map(|severity| severity.as_str_name());
        self.object([
            ("timeUnixNano", Some(self.integer(record.time_unix_nano))),
            ("observedTimeUnixNano", Some(self.integer(record.observed_time_unix_nano))),
            ("severityNumber", Some(self.enumeration(record.severity_number, severity))),
            ("severityText", Some(json!(record.severity_text))),
            ("body", record.body.as_ref().map(|body| self.value(body))),
            ("attributes", Some(self.attributes(&record.attributes))),
            ("droppedAttributesCount", Some(json!(record.dropped_attributes_count))),
            ("flags", Some(json!(record.flags))),
            ("traceId", Some(self.id(&record.trace_id))),
            ("spanId", Some(self.id(&record.span_id))),
            ("eventName", Some(json!(record.event_name))),
        ])
    }

    fn attributes(self, attributes: &[KeyValue]) -> Value {
        let attribute = |attribute: &KeyValue| {
            let mut fields = vec![
                ("key", Some(json!(attribute.key))),
                ("value", attribute.value.as_ref().map(|value| self.value(value))),
            ];
            if attribute.key_strindex != 0 {
                fields.push(("keyStrindex", Some(json!(attribute.key_strindex))));
            }
            self.object(fields)
        };
        attributes.iter().map(attribute).collect()
    }

    fn value(self, value: &AnyValue) -> Value {
        use any_value::Value::{
            ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue,
            StringValueStrindex,
        };
        let list = |values: Value| self.object([("values", Some(values))]);
        let field = match &value.value {
            None => return self.object([]),
            Some(StringValue(text)) => ("stringValue", json!(text)),
            Some(BoolValue(value)) => ("boolValue", json!(value)),
            Some(IntValue(value)) => ("intValue", self.integer(*value)),
            Some(DoubleValue(value)) => ("doubleValue", double(*value)),
            Some(ArrayValue(array)) if array.values.is_empty() => ("arrayValue", json!({})),
            Some(ArrayValue(array)) => {
                ("arrayValue", list(array.values.iter().map(|value| self.value(value)).collect()))
            }
            Some(KvlistValue(pairs)) => ("kvlistValue", list(self.attributes(&pairs.values))),
            Some(BytesValue(bytes)) => ("bytesValue", json!(BASE64.encode(bytes))),
            Some(StringValueStrindex(index)) => ("stringValueStrindex", json!(index)),
        };
        self.object([(field.0, Some(field.1))])
    }

    fn id(self, id: &[u8]) -> Value {
        json!(if self.upper_case { HEXUPPER.encode(id) } else { HEXLOWER.encode(id) })
    }

    fn integer(self, value: impl Into<serde_json::Number> + ToString) -> Value {
        if self.plain_integers { Value::Number(value.into()) } else { json!(value.to_string()) }
    }

    fn enumeration(self, number: i32, name: Option<&str>) -> Value {
        if self.enum_names
            && let Some(name) = name
        {
            json!(name)
        } else {
            json!(number)
        }
    }
}

fn double(value: f64) -> Value {
    match value {
        _ if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        _ => json!(value),
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}
