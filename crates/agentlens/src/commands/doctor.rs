//! `agentlens doctor`: whether a server takes this address and key, stores an event and shows it again.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use agentlens_domain::ids::ulid_at;
use agentlens_domain::keys::ApiKey;

use crate::clock;
use crate::config::{Common, DoctorOptions};
use crate::output;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the event may take to show.
const VISIBLE_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The agent that test events belong to.
const AGENT: &str = "agentlens-doctor";

/// One thing that was checked.
struct Check {
    name: &'static str,
    /// `Err` says what is wrong and what to do.
    outcome: Result<String, String>,
}

/// Runs the checks in their order and stops at the first that fails, since the next ones need it.
pub(crate) async fn run(options: DoctorOptions, common: &Common) -> Result<(), String> {
    let key = options.server.api_key()?;
    let client = Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("agentlens-doctor/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())?;
    let url = options.server.url()?.to_owned();
    let patient =
        Patient { client, url, key, session: format!("doctor-{}", ulid_at(clock::open()?.now_us())) };
    let checks = patient.examine().await;
    let is_well = checks.iter().all(|check| check.outcome.is_ok());
    if common.json {
        let all: Vec<Value> = checks
            .iter()
            .map(|check| {
                let (Ok(detail) | Err(detail)) = &check.outcome;
                json!({ "check": check.name, "ok": check.outcome.is_ok(), "detail": detail })
            })
            .collect();
        output::json(
            &json!({ "ok": is_well, "url": patient.url, "session_id": patient.session, "checks": all }),
        );
    } else {
        for check in &checks {
            let (mark, detail) = match &check.outcome {
                Ok(detail) => ("ok    ", detail),
                Err(detail) => ("FAILED", detail),
            };
            output::line(&format!("{mark}  {:8}  {}", check.name, output::plain(detail)));
        }
    }
    if is_well { Ok(()) } else { Err("not everything works; see above".to_owned()) }
}

/// A server as one client sees it.
struct Patient {
    client: Client,
    url: String,
    key: String,
    session: String,
}

impl Patient {
    async fn examine(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut add = |name, outcome: Result<String, String>| {
            let is_well = outcome.is_ok();
            checks.push(Check { name, outcome });
            is_well
        };
        if add("server", self.server().await)
            && add("key", self.key_form())
            && add("send", self.send().await)
            && add("read", self.read().await)
        {
            add("otlp", self.otlp().await);
        }
        checks
    }

    async fn server(&self) -> Result<String, String> {
        let answer = self.client.get(format!("{}/api/version", self.url)).send().await;
        let response = answer.map_err(|error| {
            format!(
                "no server answers at {} ({}); start one with `agentlens serve`, or give its address with --url or AGENTLENS_SERVER_URL",
                self.url,
                root_of(&error)
            )
        })?;
        let (status, body) = read_answer(response).await;
        match body["version"].as_str() {
            Some(version) if body["apiVersion"].is_string() => {
                Ok(format!("AgentLens {version} answers at {}", self.url))
            }
            _ => Err(format!(
                "what answers at {} is not AgentLens (status {status}); give the address without a path, such as http://127.0.0.1:3400",
                self.url
            )),
        }
    }

    fn key_form(&self) -> Result<String, String> {
        match ApiKey::parse(&self.key) {
            Some(key) => Ok(format!("{}... is a well-formed key", key.shown_prefix())),
            None => Err("this is not a well-formed AgentLens key (al_live_... or al_test_...): it was mistyped or cut, or it belongs to another product".to_owned()),
        }
    }

    async fn send(&self) -> Result<String, String> {
        let event = json!({
            "sessionId": self.session, "agentId": AGENT, "eventType": "custom",
            "payload": { "type": "doctor", "data": { "from": "agentlens doctor" } },
        });
        let (status, body) =
            self.ask(Method::POST, "/api/events", Some(json!({ "events": [event] }))).await?;
        match status {
            _ if status.is_success() && body["ingested"] == 1 => {
                Ok(format!("a test event of session {} was accepted", self.session))
            }
            StatusCode::FORBIDDEN => Err(format!("{}; the key needs the scope events:write", said(&body))),
            _ => Err(format!("the server answered {status}: {}", said(&body))),
        }
    }

    async fn read(&self) -> Result<String, String> {
        let (path, started) = (format!("/api/sessions/{}/timeline", self.session), Instant::now());
        loop {
            let (status, body) = self.ask(Method::GET, &path, None).await?;
            match status {
                StatusCode::OK if body["events"][0]["agentId"] == AGENT => {
                    return match body["chainValid"].as_bool() {
                        Some(true) => Ok("the event is visible and its hash chain is valid".to_owned()),
                        _ => Err("the event is visible, but its hash chain is not valid".to_owned()),
                    };
                }
                StatusCode::OK | StatusCode::NOT_FOUND => {}
                StatusCode::FORBIDDEN => {
                    return Ok(
                        "not read back: this key may send but not read (no scope events:read)".to_owned()
                    );
                }
                _ => return Err(format!("the server answered {status}: {}", said(&body))),
            }
            if started.elapsed() > VISIBLE_WITHIN {
                return Err(format!(
                    "the event was accepted but is not visible after {} seconds; is a worker running? (agentlens_queue_batches in /metrics)",
                    VISIBLE_WITHIN.as_secs()
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn otlp(&self) -> Result<String, String> {
        let (status, body) =
            self.ask(Method::POST, "/v1/traces", Some(json!({ "resourceSpans": [] }))).await?;
        if status.is_success() {
            return Ok(format!("OpenTelemetry exporters can use OTEL_EXPORTER_OTLP_ENDPOINT={}", self.url));
        }
        Err(format!("/v1/traces answered {status}: {}", said(&body)))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), String> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await;
        let response = answer.map_err(|error| format!("the server does not answer: {}", root_of(&error)))?;
        let (status, body) = read_answer(response).await;
        if status == StatusCode::UNAUTHORIZED {
            return Err(format!(
                "the server does not take this key ({}); `agentlens key list` shows its keys, `agentlens key create` makes one",
                said(&body)
            ));
        }
        Ok((status, body))
    }
}

async fn read_answer(response: Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap_or_default())
}

fn said(body: &Value) -> String {
    let text = body["error"].as_str().or_else(|| body["message"].as_str());
    text.unwrap_or("no reason given").to_owned()
}

/// The innermost cause, which is what a person can act on.
fn root_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
