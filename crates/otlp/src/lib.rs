//! OpenTelemetry: the wire formats of OTLP and the dialects of GenAI clients, read into domain events. Pure: no I/O.

pub mod dialects;
pub mod wire;
