//! Code that the three signals share: limits, items in scopes in resources, and notes about unreadable parts.

use agentlens_domain::ledger::Reason;
use agentlens_domain::limits::MAX_BODY_BYTES;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::WireError;
use super::density::Shape;

/// The most spans, log records or metrics of one request, and the most resources and scopes. An empty one has two bytes and takes
/// hundreds in memory.
pub(super) const MAX_ITEMS: usize = 100_000;
/// The most attributes, events, links and elements of values of one request. An empty one has two bytes and takes up to a hundred
/// in memory.
pub const MAX_DETAILS: usize = 500_000;
/// The most bytes of one span, log record or metric in protobuf. It equals the limit of a body, so compression can't
/// be used to exceed it. A payload that is too large is cut later, and its tokens and cost are kept. [`MAX_DETAILS`]
/// limits the memory it takes.
pub(super) const MAX_ITEM_BYTES: usize = MAX_BODY_BYTES;
/// The most bytes of one resource or scope in protobuf.
pub(super) const MAX_CARRIER_BYTES: usize = 4 * 1024 * 1024;

/// A decoded request, and what had to be omitted or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded<T> {
    /// The readable part.
    pub request: T,
    /// One entry for each unreadable span, log record or metric, or for a part that may have held some.
    pub broken: Vec<BrokenItem>,
    /// The number of attributes and fields of a wrong type. They are kept in another form or omitted.
    pub repaired: u64,
}

/// An item that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenItem {
    /// The reason's stable name.
    pub reason: Reason,
    /// Which item it is and why it was refused, as a sentence for the client.
    pub message: String,
}

/// Notes that are taken while a body is read.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) repaired: u64,
    pub(super) broken: Vec<BrokenItem>,
    /// The first error after which reading continued.
    pub(super) stop: Option<WireError>,
    /// Items found so far, readable or not.
    items: usize,
    /// Resources and scopes found so far.
    carriers: usize,
    /// Attributes, events, links and elements of values found so far.
    details: usize,
}

impl Notes {
    /// Adds a broken item. Their number is limited, because a list of another signal may have two bytes and its note
    /// takes a hundred.
    pub(super) fn broken(&mut self, reason: Reason, message: String) -> Result<(), WireError> {
        if self.broken.len() == MAX_ITEMS {
            return Err(WireError::TooManyItems { limit: MAX_ITEMS });
        }
        self.broken.push(BrokenItem { reason, message });
        Ok(())
    }

    /// The number of the next item, from 1.
    pub(super) fn next_item(&mut self) -> Result<usize, WireError> {
        count(&mut self.items)
    }

    /// Counts attributes, events, links and elements of values.
    pub(super) fn add_details(&mut self, details: usize) -> Result<(), WireError> {
        self.details = self.details.saturating_add(details);
        if self.details > MAX_DETAILS {
            return Err(WireError::TooManyDetails { limit: MAX_DETAILS });
        }
        Ok(())
    }

    /// Returns an error if a part that is not decoded yet would exceed the limit.
    pub(super) fn check_details(&self, details: usize) -> Result<(), WireError> {
        if self.details.saturating_add(details) > MAX_DETAILS {
            return Err(WireError::TooManyDetails { limit: MAX_DETAILS });
        }
        Ok(())
    }

    /// Counts a resource or a scope.
    pub(super) fn next_carrier(&mut self) -> Result<usize, WireError> {
        count(&mut self.carriers)
    }

    pub(super) fn has_items(&self) -> bool {
        self.items > 0
    }

    pub(super) fn decoded<T>(self, request: T) -> Decoded<T> {
        Decoded { request, broken: self.broken, repaired: self.repaired }
    }
}

fn count(counter: &mut usize) -> Result<usize, WireError> {
    if *counter == MAX_ITEMS {
        return Err(WireError::TooManyItems { limit: MAX_ITEMS });
    }
    *counter += 1;
    Ok(*counter)
}

/// The items of one resource.
pub(super) struct UnderResource<I> {
    pub(super) resource: Option<Resource>,
    pub(super) scopes: Vec<UnderScope<I>>,
    pub(super) schema_url: String,
}

/// The items of one instrumentation scope of a resource.
pub(super) struct UnderScope<I> {
    pub(super) scope: Option<InstrumentationScope>,
    pub(super) items: Vec<I>,
    pub(super) schema_url: String,
}

impl<I> Default for UnderResource<I> {
    fn default() -> Self {
        Self { resource: None, scopes: Vec::new(), schema_url: String::new() }
    }
}

impl<I> Default for UnderScope<I> {
    fn default() -> Self {
        Self { scope: None, items: Vec::new(), schema_url: String::new() }
    }
}

/// An item of a signal: a span, a log record or a metric.
pub(super) trait Item: prost::Message + Default {
    /// The request of the signal.
    type Request;
    /// The name of one item in error messages.
    const NOUN: &'static str;
    /// The names of the lists in JSON.
    const RESOURCES: &'static str;
    const SCOPES: &'static str;
    const ITEMS: &'static str;

    fn request(resources: Vec<UnderResource<Self>>) -> Self::Request;

    /// The message that it is in protobuf, for counting details.
    const SHAPE: Shape;

    /// The number of attributes, events, links and elements of values in it.
    fn details(&self) -> usize;
}

pub(super) fn details_of(attributes: &[KeyValue]) -> usize {
    attributes.iter().map(|pair| 1 + pair.value.as_ref().map_or(0, elements_of)).sum()
}

fn elements_of(value: &AnyValue) -> usize {
    match &value.value {
        Some(Value::ArrayValue(list)) => list.values.iter().map(|value| 1 + elements_of(value)).sum(),
        Some(Value::KvlistValue(list)) => details_of(&list.values),
        _ => 0,
    }
}

impl Item for Span {
    type Request = ExportTraceServiceRequest;
    const NOUN: &'static str = "span";
    const RESOURCES: &'static str = "resourceSpans";
    const SCOPES: &'static str = "scopeSpans";
    const ITEMS: &'static str = "spans";
    const SHAPE: Shape = Shape::Span;

    fn request(resources: Vec<UnderResource<Self>>) -> Self::Request {
        let scope = |UnderScope { scope, items: spans, schema_url }| ScopeSpans { scope, spans, schema_url };
        let resource = |from: UnderResource<Self>| ResourceSpans {
            resource: from.resource,
            scope_spans: from.scopes.into_iter().map(scope).collect(),
            schema_url: from.schema_url,
        };
        ExportTraceServiceRequest { resource_spans: resources.into_iter().map(resource).collect() }
    }

    fn details(&self) -> usize {
        let events = self.events.iter().map(|event| 1 + details_of(&event.attributes));
        let links = self.links.iter().map(|link| 1 + details_of(&link.attributes));
        details_of(&self.attributes) + events.sum::<usize>() + links.sum::<usize>()
    }
}

impl Item for LogRecord {
    type Request = ExportLogsServiceRequest;
    const NOUN: &'static str = "log record";
    const RESOURCES: &'static str = "resourceLogs";
    const SCOPES: &'static str = "scopeLogs";
    const ITEMS: &'static str = "logRecords";
    const SHAPE: Shape = Shape::LogRecord;

    fn request(resources: Vec<UnderResource<Self>>) -> Self::Request {
        let scope = |UnderScope { scope, items: log_records, schema_url }| ScopeLogs {
            scope,
            log_records,
            schema_url,
        };
        let resource = |from: UnderResource<Self>| ResourceLogs {
            resource: from.resource,
            scope_logs: from.scopes.into_iter().map(scope).collect(),
            schema_url: from.schema_url,
        };
        ExportLogsServiceRequest { resource_logs: resources.into_iter().map(resource).collect() }
    }

    fn details(&self) -> usize {
        details_of(&self.attributes) + self.body.as_ref().map_or(0, elements_of)
    }
}

/// A metric. Metrics are counted and not stored, and their points are skipped because they take a hundred times their bytes
/// in memory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Metric {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

impl Item for Metric {
    /// The number of metrics.
    type Request = usize;
    const NOUN: &'static str = "metric";
    const RESOURCES: &'static str = "resourceMetrics";
    const SCOPES: &'static str = "scopeMetrics";
    const ITEMS: &'static str = "metrics";
    const SHAPE: Shape = Shape::Text;

    fn request(resources: Vec<UnderResource<Self>>) -> Self::Request {
        resources.iter().flat_map(|resource| &resource.scopes).map(|scope| scope.items.len()).sum()
    }

    fn details(&self) -> usize {
        0
    }
}
