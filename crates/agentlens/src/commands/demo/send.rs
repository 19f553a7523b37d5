//! Sending batches as a well-behaved client does: with an `Idempotency-Key`, waiting when it is told to wait.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};

/// How often one batch is tried.
const MAX_ATTEMPTS: u32 = 8;
/// The longest wait that is obeyed.
const MAX_WAIT_S: u64 = 30;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What a server took of what it was sent.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    /// What it said of the first refused event.
    pub(super) first_refusal: Option<String>,
}

/// A connection to a server.
pub(super) struct Sender {
    client: Client,
    /// The address without a slash at its end.
    pub(super) address: String,
    events_url: Url,
    api_key: String,
    has_succeeded: bool,
}

enum Attempt {
    Done(Taken),
    Again(Duration, String),
    Failed(String),
}

impl Sender {
    pub(super) fn new(address: &str, api_key: &str) -> Result<Self, String> {
        let address = address.trim().trim_end_matches('/').to_owned();
        let wrong =
            || format!("--url `{address}` must be the server's address, such as http://127.0.0.1:3400");
        let events_url = Url::parse(&format!("{address}/api/events")).map_err(|_| wrong())?;
        if !["http", "https"].contains(&events_url.scheme()) {
            return Err(wrong());
        }
        let client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("agentlens-demo/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, address, events_url, api_key: api_key.trim().to_owned(), has_succeeded: false })
    }

    /// Sends one batch; waits and repeats while the server asks for that.
    pub(super) async fn send(&mut self, key: &str, events: &[Value]) -> Result<Taken, String> {
        let mut reason = String::new();
        for _ in 0..MAX_ATTEMPTS {
            match self.attempt(key, events).await {
                Attempt::Done(taken) => {
                    self.has_succeeded = true;
                    return Ok(taken);
                }
                Attempt::Failed(message) => return Err(message),
                Attempt::Again(wait, message) => {
                    reason = message;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Err(format!("gave up after {MAX_ATTEMPTS} attempts: {reason}"))
    }

    async fn attempt(&self, key: &str, events: &[Value]) -> Attempt {
        let request = self.client.post(self.events_url.clone()).bearer_auth(&self.api_key);
        match request.header("Idempotency-Key", key).json(&json!({ "events": events })).send().await {
            Ok(response) => self.judge(response).await,
            // Once it worked, the server may only be restarting.
            Err(error) if self.has_succeeded => Attempt::Again(
                Duration::from_secs(2),
                format!("{} does not answer: {}", self.address, root_of(&error)),
            ),
            Err(error) => Attempt::Failed(format!(
                "no server answers at {} ({}); start one with `agentlens serve`, or name another with --url",
                self.address,
                root_of(&error)
            )),
        }
    }

    async fn judge(&self, response: Response) -> Attempt {
        let status = response.status();
        let wait = wait_of(&response);
        let body: Value = response.json().await.unwrap_or_default();
        let said = body["error"].as_str().unwrap_or("no reason given").to_owned();
        match status {
            _ if status.is_success() && body["ingested"].is_u64() => Attempt::Done(taken(&body)),
            StatusCode::UNAUTHORIZED => Attempt::Failed(format!(
                "{} does not take this API key ({said}); `agentlens key create` makes one, give it with --api-key or AGENTLENS_API_KEY",
                self.address
            )),
            StatusCode::FORBIDDEN => Attempt::Failed(format!(
                "this API key may not send events ({said}); it needs the scope events:write"
            )),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Attempt::Again(wait, format!("{status}, {said}"))
            }
            StatusCode::BAD_REQUEST if body["code"].is_string() => {
                let first = &body["details"][0];
                let detail = first["message"].as_str().map(|text| format!(": {text}")).unwrap_or_default();
                Attempt::Failed(format!("the server refused a whole batch ({said}{detail})"))
            }
            _ if !body["error"].is_string() => Attempt::Failed(format!(
                "what answers at {} is not AgentLens (status {status}); name its address with --url",
                self.address
            )),
            _ => Attempt::Failed(format!("the server answered {status}: {said}")),
        }
    }
}

fn taken(body: &Value) -> Taken {
    let count = |name: &str| body[name].as_u64().unwrap_or(0);
    let first = &body["errors"][0];
    Taken {
        accepted: count("ingested"),
        rejected: count("rejected"),
        first_refusal: first["error"].as_str().map(str::to_owned),
    }
}

/// What `Retry-After` asks for; a second when it asks for nothing.
fn wait_of(response: &Response) -> Duration {
    let header = response.headers().get(reqwest::header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or(1).clamp(1, MAX_WAIT_S))
}

/// The innermost cause, which is what a person can act on.
fn root_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
