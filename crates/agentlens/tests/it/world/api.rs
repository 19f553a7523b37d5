//! Requests with one API key.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{PATIENCE, described, until};

/// How long one answer may take to come whole: the largest bodies, read by a debug build. A stream is one answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(180);

/// The server as the holder of one key sees it.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    address: String,
    key: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) text: String,
    /// Its body as JSON; null if it is none.
    pub(crate) json: Value,
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Self { status, headers, text, json }
    }

    /// The JSON of an answer that must have the given status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }

    /// The JSON of a refusal, which must have the one form of all refusals.
    #[track_caller]
    pub(crate) fn refusal(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.json["status"], status, "{}", self.text);
        for field in ["error", "code", "request_id"] {
            assert!(self.json[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {}", self.text);
        }
        assert_eq!(self.headers["x-request-id"].to_str().unwrap(), self.json["request_id"]);
        self.json
    }
}

impl Api {
    pub(super) fn new(address: String, key: String) -> Self {
        // The server is on this machine: a proxy of the environment must not come between.
        Self { client: Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), address, key }
    }

    /// The same server for another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// `http://127.0.0.1:...`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("{}{path}", self.address)).timeout(ANSWER_PATIENCE)
    }

    /// A request with the key.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(&self.key)
    }

    /// Sends a request.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Answer {
        self.answer_built(request.build().unwrap()).await
    }

    /// Sends a request that is ready.
    pub(crate) async fn answer_built(&self, request: Request) -> Answer {
        let (method, path) = (request.method().as_str().to_lowercase(), request.url().path().to_owned());
        let answer = Answer::read(self.client.execute(request).await.unwrap()).await;
        described::assert_described(&method, &path, answer.status);
        answer
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.answer(self.request("GET", path)).await
    }

    /// GET of something that must be there.
    pub(crate) async fn read(&self, path: &str) -> Value {
        self.get(path).await.expect(200)
    }

    /// GET with parameters, which are encoded.
    pub(crate) async fn query(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.answer(self.request("GET", path).query(parameters)).await
    }

    /// POST of a body as it is.
    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.answer(self.request("POST", path).header("content-type", "application/json").body(body)).await
    }

    /// Sends events, whatever comes of it.
    pub(crate) async fn try_send(&self, events: &[Value]) -> Answer {
        self.post("/api/events", json!({ "events": events }).to_string()).await
    }

    /// Sends events that must all be accepted, and waits until they can be read.
    pub(crate) async fn send(&self, events: &[Value]) -> Value {
        let answer = self.try_send(events).await.expect(202);
        assert_eq!(answer["accepted"], events.len(), "{answer}");
        self.settled().await;
        answer
    }

    /// Waits until nothing that was accepted waits to be stored.
    pub(crate) async fn settled(&self) {
        until("the queue to be empty", || async {
            let ledger = self.read("/v1/ingest/ledger").await;
            let keys = ledger["keys"].as_array().unwrap();
            keys.iter().all(|key| key["waiting"] == 0).then_some(())
        })
        .await;
    }

    /// All events of a list, page by page along its cursors.
    pub(crate) async fn walk(&self, parameters: &[(&str, &str)]) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut page_parameters = parameters.to_vec();
            page_parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = self.query("/api/events", &page_parameters).await.expect(200);
            all.extend(page["events"].as_array().unwrap().iter().cloned());
            assert_eq!(page["hasMore"].as_bool().unwrap(), page["nextCursor"].is_string(), "{page}");
            let Some(next) = page["nextCursor"].as_str() else { return all };
            assert_ne!(Some(next), cursor.as_deref(), "a cursor that leads to itself");
            cursor = Some(next.to_owned());
        }
    }

    /// A session's whole timeline, whose chain must hold.
    pub(crate) async fn timeline(&self, session: &str) -> Vec<Value> {
        let timeline = self.read(&format!("/api/sessions/{session}/timeline")).await;
        assert_eq!(timeline["chainValid"], true, "{timeline}");
        timeline["events"].as_array().unwrap().clone()
    }

    /// Opens the live stream.
    pub(crate) async fn stream(
        &self,
        parameters: &[(&str, &str)],
        last_event_id: Option<&str>,
    ) -> SentStream {
        let mut request = self.request("GET", "/api/stream").query(parameters);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        SentStream { response, buffer: String::new() }
    }
}

/// Server-sent events as they come.
pub(crate) struct SentStream {
    response: Response,
    buffer: String,
}

/// One message of a stream.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its `id`.
    pub(crate) id: String,
    /// Its `event`.
    pub(crate) event: String,
    /// Its `data`.
    pub(crate) data: Value,
}

impl SentStream {
    /// The next message; `None` when the server closes the stream.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let started = Instant::now();
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                if block.starts_with(':') {
                    continue;
                }
                return Some(message_of(&block));
            }
            let left = PATIENCE.checked_sub(started.elapsed()).expect("no message came in time");
            let chunk =
                tokio::time::timeout(left, self.response.chunk()).await.expect("no message came in time");
            let bytes = chunk.ok()??;
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next `count` messages.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(self.next().await.expect("the stream ended"));
        }
        messages
    }
}

fn message_of(block: &str) -> Message {
    let field = |name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("").to_owned()
    };
    Message {
        id: field("id"),
        event: field("event"),
        data: serde_json::from_str(&field("data")).unwrap_or_default(),
    }
}
