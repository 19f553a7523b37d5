//! Log records.

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use serde::de::MapAccess;

use super::leaf::{SPAN_ID_BYTES, TRACE_ID_BYTES};
use super::members::{Member, Members};

impl Members for LogRecord {
    fn member<'de, A: MapAccess<'de>>(&mut self, name: &[u8], member: Member<'_, A>) -> Result<(), A::Error> {
        match name {
            b"timeUnixNano" | b"time_unix_nano" => member.integer(&mut self.time_unix_nano),
            b"observedTimeUnixNano" | b"observed_time_unix_nano" => {
                member.integer(&mut self.observed_time_unix_nano)
            }
            b"severityNumber" | b"severity_number" => member.enumeration(&mut self.severity_number, |name| {
                SeverityNumber::from_str_name(name).map(|number| number as i32)
            }),
            b"severityText" | b"severity_text" => member.text(&mut self.severity_text),
            b"body" => member.value(&mut self.body),
            b"attributes" => member.attributes(&mut self.attributes),
            b"droppedAttributesCount" | b"dropped_attributes_count" => {
                member.integer(&mut self.dropped_attributes_count)
            }
            b"flags" => member.integer(&mut self.flags),
            b"traceId" | b"trace_id" => member.id(&mut self.trace_id, TRACE_ID_BYTES),
            b"spanId" | b"span_id" => member.id(&mut self.span_id, SPAN_ID_BYTES),
            b"eventName" | b"event_name" => member.text(&mut self.event_name),
            _ => member.skip(),
        }
    }
}
