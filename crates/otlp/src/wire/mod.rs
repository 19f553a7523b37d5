//! OTLP as bytes: requests, responses and errors, as protobuf and as JSON.
//!
//! One bad span never harms another: it becomes a [`BrokenItem`], and only a body that is not a request is an error. Fields
//! that can only be kept in another form are counted in [`Decoded::repaired`].
//!
//! In JSON, an attribute of a wrong type never harms its span. In protobuf, a string that is not UTF-8 refuses its span, but
//! in a resource or a scope only the attribute is lost.
//!
//! Both encodings are read into the same prost types, with a bounded depth and a bounded number of items.

mod batch;
mod density;
mod encoding;
mod json;
mod protobuf;
mod response;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use thiserror::Error;

pub use batch::{BrokenItem, Decoded, MAX_DETAILS};
pub use encoding::Encoding;
pub use response::{Partial, Signal, encode_status, encode_success};

use batch::{Item, Metric};

#[cfg(test)]
mod tests;

/// Why a whole body is not a request. Sending it again does not help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The body is not JSON, or its objects and lists don't form a request.
    #[error("The body is not valid OTLP JSON: {what} at line {line}, column {column}.")]
    Json {
        /// What is wrong.
        what: String,
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
    },
    /// The body is not the protobuf message that the path expects.
    #[error("The body is not a valid protobuf request: {what}.")]
    Protobuf {
        /// What is wrong.
        what: String,
    },
    /// The request has more spans, log records or metrics than allowed.
    #[error("The request holds more than {limit} items; send smaller batches.")]
    TooManyItems {
        /// The maximum number of items of a request.
        limit: usize,
    },
    /// A resource or a scope is too long.
    #[error("A {part} of the request has more than {limit} bytes.")]
    TooLong {
        /// Whether it is a resource or a scope.
        part: &'static str,
        /// Its maximum number of bytes.
        limit: usize,
    },
    /// The items hold more attributes, events, links and elements of values than a request may have.
    #[error("The request holds more than {limit} attributes, events and links; send smaller batches.")]
    TooManyDetails {
        /// The maximum for a request.
        limit: usize,
    },
}

/// Reads the body of `POST /v1/traces`.
///
/// # Errors
/// When the body as a whole is not a trace request.
pub fn decode_traces(
    encoding: Encoding,
    body: &[u8],
) -> Result<Decoded<ExportTraceServiceRequest>, WireError> {
    decode::<Span>(encoding, body)
}

/// Reads the body of `POST /v1/logs`.
///
/// # Errors
/// When the body as a whole is not a logs request.
pub fn decode_logs(encoding: Encoding, body: &[u8]) -> Result<Decoded<ExportLogsServiceRequest>, WireError> {
    decode::<LogRecord>(encoding, body)
}

/// Counts the metrics in the body of `POST /v1/metrics` without reading them.
///
/// # Errors
/// When the body as a whole is not a metrics request.
pub fn decode_metrics(encoding: Encoding, body: &[u8]) -> Result<Decoded<usize>, WireError> {
    decode::<Metric>(encoding, body)
}

fn decode<I: Item + json::FromJson>(
    encoding: Encoding,
    body: &[u8],
) -> Result<Decoded<I::Request>, WireError> {
    let (resources, notes) = match encoding {
        Encoding::Protobuf => protobuf::read::<I>(body)?,
        Encoding::Json => json::read::<I>(body)?,
    };
    Ok(notes.decoded(I::request(resources)))
}
