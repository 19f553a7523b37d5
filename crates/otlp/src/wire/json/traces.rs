//! Spans, their events, links and status.

use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde::de::MapAccess;

use super::leaf::{SPAN_ID_BYTES, TRACE_ID_BYTES};
use super::members::{Member, Members};

impl Members for Span {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"traceId" | b"trace_id" => member.id(&mut self.trace_id, TRACE_ID_BYTES),
            b"spanId" | b"span_id" => member.id(&mut self.span_id, SPAN_ID_BYTES),
            b"parentSpanId" | b"parent_span_id" => member.id(&mut self.parent_span_id, SPAN_ID_BYTES),
            b"traceState" | b"trace_state" => member.text(&mut self.trace_state),
            b"flags" => member.integer(&mut self.flags),
            b"name" => member.text(&mut self.name),
            b"kind" => member
                .enumeration(&mut self.kind, |name| SpanKind::from_str_name(name).map(|kind| kind as i32)),
            b"startTimeUnixNano" | b"start_time_unix_nano" => member.integer(&mut self.start_time_unix_nano),
            b"endTimeUnixNano" | b"end_time_unix_nano" => member.integer(&mut self.end_time_unix_nano),
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            b"events" => member.details(&mut self.events),
            b"droppedEventsCount" | b"dropped_events_count" => member.integer(&mut self.dropped_events_count),
            b"links" => member.details(&mut self.links),
            b"droppedLinksCount" | b"dropped_links_count" => member.integer(&mut self.dropped_links_count),
            b"status" => member.message(&mut self.status),
            _ => member.skip(),
        }
    }
}

impl Members for Event {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"name" => member.text(&mut self.name),
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            _ => member.skip(),
        }
    }
}

impl Members for Link {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"traceId" | b"trace_id" => member.id(&mut self.trace_id, TRACE_ID_BYTES),
            b"spanId" | b"span_id" => member.id(&mut self.span_id, SPAN_ID_BYTES),
            b"traceState" | b"trace_state" => member.text(&mut self.trace_state),
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            b"flags" => member.integer(&mut self.flags),
            _ => member.skip(),
        }
    }
}

impl Members for Status {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"message" => member.text(&mut self.message),
            b"code" => member
                .enumeration(&mut self.code, |name| StatusCode::from_str_name(name).map(|code| code as i32)),
            _ => member.skip(),
        }
    }
}
