//! OTLP as bytes: requests, responses and errors, as protobuf and as JSON.
//!
//! A request is read as far as it is readable. What cannot be kept is told item by item ([`BrokenItem`]), what
//! could only be kept in another form is counted ([`Decoded::repaired`]); only a body that is no request at all is
//! an error. So one bad span never harms a good one. One odd attribute never harms its span in JSON; in protobuf a span
//! of which any string is not UTF-8 is told as broken, and only resources and scopes are kept without what is odd.
//!
//! Both encodings end in the same prost types, and both walk with bounded depth and a bounded number of items.

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

/// Why a body as a whole is no request. Sending it again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// The body is not JSON, or its objects and lists are not those of a request.
    #[error("The body is not valid OTLP JSON: {what} at line {line}, column {column}.")]
    Json {
        /// What was found or missed.
        what: String,
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1.
        column: usize,
    },
    /// The body is not a protobuf message of the kind that the path takes.
    #[error("The body is not a valid protobuf request: {what}.")]
    Protobuf {
        /// What was found or missed.
        what: String,
    },
    /// There are more spans, log records or metrics than one request may carry.
    #[error("The request holds more than {limit} items; send smaller batches.")]
    TooManyItems {
        /// The most items that a request may carry.
        limit: usize,
    },
    /// A resource or a scope is longer than one may be.
    #[error("A {part} of the request has more than {limit} bytes.")]
    TooLong {
        /// What it is.
        part: &'static str,
        /// The most bytes that it may have.
        limit: usize,
    },
    /// The items hold more attributes, events, links and elements of values than one request may carry.
    #[error("The request holds more than {limit} attributes, events and links; send smaller batches.")]
    TooManyDetails {
        /// The most that a request may carry.
        limit: usize,
    },
}

/// Reads the body of `POST /v1/traces`.
///
/// # Errors
/// When the body as a whole is no trace request.
pub fn decode_traces(
    encoding: Encoding,
    body: &[u8],
) -> Result<Decoded<ExportTraceServiceRequest>, WireError> {
    decode::<Span>(encoding, body)
}

/// Reads the body of `POST /v1/logs`.
///
/// # Errors
/// When the body as a whole is no logs request.
pub fn decode_logs(encoding: Encoding, body: &[u8]) -> Result<Decoded<ExportLogsServiceRequest>, WireError> {
    decode::<LogRecord>(encoding, body)
}

/// Counts the metrics in the body of `POST /v1/metrics`; what they say is not looked into.
///
/// # Errors
/// When the body as a whole is no metrics request.
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
