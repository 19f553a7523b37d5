//! OTLP as bytes: requests, responses and errors, as protobuf and as JSON.
