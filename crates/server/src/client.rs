//! Published clients decode strictly and differently; what conflicts is chosen by who asks.

use axum::extract::FromRequestParts;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;

use crate::state::AppState;

/// Which published client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `agentlensai` for Python: knows 18 event types and three session states.
    Python,
    /// The Go client.
    Go,
    /// TypeScript, MCP, Java, browsers and everything else.
    Other,
}

impl Client {
    fn of(parts: &Parts) -> Self {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let name = header("x-agentlens-client").or_else(|| header(USER_AGENT.as_str())).unwrap_or("");
        if name.starts_with("python-httpx") || name.starts_with("agentlensai-python") {
            Self::Python
        } else if name.starts_with("Go-http-client") {
            Self::Go
        } else {
            Self::Other
        }
    }

    /// The event type as the client can decode it: a newer type reaches Python as `custom` rather than breaking the
    /// whole answer.
    pub fn event_type(self, event_type: &str) -> &str {
        let is_newer = matches!(
            event_type,
            "error"
                | "eval_result"
                | "human_score"
                | "feedback"
                | "skill_activated"
                | "retrieval"
                | "embedding"
                | "chain_step"
        );
        if self == Self::Python && is_newer { "custom" } else { event_type }
    }

    /// The session status as the client can decode it.
    pub fn session_status(self, status: &'static str) -> &'static str {
        if self == Self::Python && status == "idle" { "active" } else { status }
    }
}

impl FromRequestParts<AppState> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}
