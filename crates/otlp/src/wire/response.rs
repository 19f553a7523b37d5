//! OTLP's responses: `Export*ServiceResponse` on success, `google.rpc.Status` on failure.

use agentlens_domain::json::write_string;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;

use super::Encoding;

/// The most bytes of a message in a response; a longer one is cut. OTLP allows 4 MiB for a response, and escaping
/// turns one byte into six at most.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The signals of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics.
    Metrics,
}

/// The losses of an accepted request, or a warning if nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The number of refused spans, log records or metrics; 0 for a warning. OTLP counts data points instead of metrics, but the
    /// data points of an unreadable metric can't be counted.
    pub rejected: i64,
    /// The reason, for the developer of the client.
    pub message: String,
}

/// The body of a `200`, without a partial success if nothing was lost.
pub fn encode_success(signal: Signal, encoding: Encoding, partial: Option<Partial>) -> Vec<u8> {
    let partial = partial.map(|partial| Partial { message: capped(partial.message), ..partial });
    match (encoding, signal) {
        (Encoding::Json, _) => success_json(signal, partial.as_ref()).into_bytes(),
        (Encoding::Protobuf, Signal::Traces) => {
            let partial_success = partial.map(|Partial { rejected, message }| ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: message,
            });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        (Encoding::Protobuf, Signal::Logs) => {
            let partial_success = partial.map(|Partial { rejected, message }| ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: message,
            });
            ExportLogsServiceResponse { partial_success }.encode_to_vec()
        }
        (Encoding::Protobuf, Signal::Metrics) => {
            let partial_success = partial.map(|Partial { rejected, message }| ExportMetricsPartialSuccess {
                rejected_data_points: rejected,
                error_message: message,
            });
            ExportMetricsServiceResponse { partial_success }.encode_to_vec()
        }
    }
}

/// The body of an error: a `google.rpc.Status` with a gRPC status code.
pub fn encode_status(encoding: Encoding, code: i32, message: &str) -> Vec<u8> {
    let message = capped(message.to_owned());
    match encoding {
        Encoding::Protobuf => Status { code, message }.encode_to_vec(),
        Encoding::Json => {
            let mut body = format!("{{\"code\":{code},\"message\":");
            write_string(&message, &mut body);
            body.push_str(",\"details\":[]}");
            body.into_bytes()
        }
    }
}

/// `google.rpc.Status`. Its details are always empty.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

fn success_json(signal: Signal, partial: Option<&Partial>) -> String {
    let Some(partial) = partial else { return "{}".to_owned() };
    let rejected = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
    };
    // proto3 JSON writes 64-bit integers as strings.
    let mut body =
        format!("{{\"partialSuccess\":{{\"{rejected}\":\"{}\",\"errorMessage\":", partial.rejected);
    write_string(&partial.message, &mut body);
    body.push_str("}}");
    body
}

fn capped(mut message: String) -> String {
    const CUT: &str = " …";
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - CUT.len()));
        message.push_str(CUT);
    }
    message
}
