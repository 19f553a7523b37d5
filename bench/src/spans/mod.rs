//! OTLP requests, prepared before the run: a pool of encoded bodies of which each request is a copy with new ids and
//! times, so that a span costs the generator a fraction of a microsecond. Compressed bodies can't be changed and are
//! therefore made in full number beforehand.

mod encode;
mod marks;
mod story;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

pub(crate) use marks::{Mark, Template, hex_text};
pub(crate) use story::{Place, RUN_SPANS, RUN_TICKS, Shape, Story, conversation_id};

use crate::events::now_ms;
use crate::http::Answer;
use crate::sender::Feed;
use crate::text::Text;

/// Different bodies; with 500 spans each, 8,000 different spans.
const POOL_BODIES: usize = 16;
/// Times of a body count from so long ago, so that its last span ends about now.
const RUN_NS: u64 = RUN_TICKS as u64 * 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// A body of these spans.
pub(crate) fn template(shapes: &[Shape], encoding: Encoding) -> Template {
    Template::new(encode::encode(shapes, encoding))
}

/// Bodies of `batch` spans, in runs of ten.
pub(crate) fn templates(
    text: &Text,
    seed: u64,
    batch: usize,
    encoding: Encoding,
    count: usize,
) -> Result<Vec<Template>> {
    ensure!(
        batch > 0 && batch.is_multiple_of(RUN_SPANS as usize) && batch < marks::MAX_NUMBER as usize,
        "a request holds whole runs of {RUN_SPANS} spans, and fewer than {} spans",
        marks::MAX_NUMBER
    );
    let mut story = Story::new(text, seed);
    let runs = u32::try_from(batch)? / RUN_SPANS;
    let bodies = (0..count).map(|_| {
        let shapes: Vec<Shape> = (0..runs).flat_map(|run| story.run(Place::of_trace(run))).collect();
        template(&shapes, encoding)
    });
    Ok(bodies.collect())
}

/// The serial number of a run's first request. Later runs begin higher, unless one sent more than a thousand
/// requests a second.
pub(crate) fn first_serial() -> u64 {
    now_ms()
}

/// When a body's times begin if its last span ends now.
pub(crate) fn begin_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0).saturating_sub(RUN_NS)
}

/// What all lanes of a run send.
pub(crate) struct Pool {
    templates: Vec<Template>,
    /// Ready bodies, if they are compressed.
    packed: Vec<Bytes>,
    first: u64,
    next: AtomicU64,
    /// Requests in all; without end if none is given.
    requests: Option<u64>,
}

impl Pool {
    pub(crate) fn new(
        text: &Text,
        seed: u64,
        batch: usize,
        encoding: Encoding,
        requests: Option<u64>,
    ) -> Result<Self> {
        let templates = templates(text, seed, batch, encoding, POOL_BODIES)?;
        Ok(Self { templates, packed: Vec::new(), first: first_serial(), next: AtomicU64::new(0), requests })
    }

    /// Makes every body of the run now, compressed.
    pub(crate) fn pack(&mut self) -> Result<()> {
        for index in 0..self.requests.unwrap_or(0) {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&self.stamped(index))?;
            self.packed.push(Bytes::from(encoder.finish()?));
        }
        Ok(())
    }

    fn stamped(&self, index: u64) -> Vec<u8> {
        let template = index as usize % self.templates.len();
        self.templates.get(template).map_or_else(Vec::new, |body| body.stamp(self.first + index, begin_ns()))
    }

    fn next(&self) -> Option<Bytes> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if self.requests.is_some_and(|requests| index >= requests) {
            return None;
        }
        match self.packed.is_empty() {
            true => Some(Bytes::from(self.stamped(index))),
            false => self.packed.get(usize::try_from(index).ok()?).cloned(),
        }
    }
}

/// One lane's hand in the pool.
pub(crate) struct SpanFeed(pub(crate) Arc<Pool>);

impl Feed for SpanFeed {
    fn next(&mut self, _key: usize) -> Option<Bytes> {
        self.0.next()
    }

    fn accepted(&self, answer: &Answer, batch: u64) -> u64 {
        batch.saturating_sub(refused(&answer.body))
    }
}

/// How many spans a successful answer says were refused.
pub(crate) fn refused(body: &[u8]) -> u64 {
    if body.first() == Some(&b'{') {
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let count = &answer["partialSuccess"]["rejectedSpans"];
        return count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0);
    }
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let count = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use agentlens_otlp::dialects::{Context, events_of_traces};
    use agentlens_otlp::wire;

    use super::*;

    #[test]
    fn both_encodings_say_the_same_and_nothing_is_refused() -> Result<()> {
        let text = Text::new();
        let now_us = 1_790_000_000_000_000;
        let read = |encoding, wire_encoding| -> Result<_> {
            let body = templates(&text, 1, 20, encoding, 1)?[0].stamp(5, 1_789_999_990_000_000_000);
            let decoded = wire::decode_traces(wire_encoding, &body)?;
            assert!(decoded.broken.is_empty() && decoded.repaired == 0);
            Ok(events_of_traces(&decoded.request, &Context { now_us }))
        };
        let protobuf = read(Encoding::Protobuf, wire::Encoding::Protobuf)?;
        let json = read(Encoding::Json, wire::Encoding::Json)?;
        assert_eq!((protobuf.events.len(), protobuf.refused.len()), (20, 0));
        assert_eq!(protobuf, json);
        let sessions: std::collections::BTreeSet<_> =
            protobuf.events.iter().map(|event| event.session_id.clone()).collect();
        let session = conversation_id(&hex_text(Mark::Conversation(0).id(5)));
        assert_eq!(sessions.into_iter().collect::<Vec<_>>(), [session]);
        Ok(())
    }

    #[test]
    fn a_span_is_about_thirteen_hundred_bytes() -> Result<()> {
        let bodies = templates(&Text::new(), 1, 500, Encoding::Protobuf, POOL_BODIES)?;
        let bytes: usize = bodies.iter().map(|body| body.stamp(1, begin_ns()).len()).sum();
        let mean = bytes / (500 * POOL_BODIES);
        assert!((1250..=1350).contains(&mean), "{mean}");
        Ok(())
    }
}
