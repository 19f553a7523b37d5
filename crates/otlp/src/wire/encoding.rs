//! The two encodings of OTLP over HTTP, by their content types.

/// How a body is encoded. A response is encoded as its request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP's JSON: proto3 JSON with ids in hexadecimal.
    Json,
}

impl Encoding {
    /// The encoding that a `Content-Type` names, whatever its parameters; `None` if OTLP has no such type.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        [Self::Protobuf, Self::Json]
            .into_iter()
            .find(|encoding| essence.eq_ignore_ascii_case(encoding.content_type()))
    }

    /// The content type of a body in this encoding.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}
