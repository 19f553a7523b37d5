//! A thin HTTP client for measuring: one connection, no pool, no retries, no redirects, HTTP/1.1 or
//! HTTP/2 with prior knowledge. What the generator spends here is taken from the server it measures.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpStream;

const HTTP2_WINDOW_BYTES: u32 = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// HTTP/1.1: one request in flight per connection.
    #[value(name = "1")]
    One,
    /// HTTP/2 without TLS, with prior knowledge.
    #[value(name = "2")]
    Two,
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    authority: String,
    version: Version,
}

impl Origin {
    pub(crate) fn parse(url: &str, version: Version) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{url}: only http:// is measured");
        }
        let authority = uri.authority().context("the URL names no host")?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()), version })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let sender = match self.version {
            Version::One => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Version::Two => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(HTTP2_WINDOW_BYTES)
                    .initial_connection_window_size(HTTP2_WINDOW_BYTES)
                    .handshake(io)
                    .await?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        };
        Ok(Connection { authority: self.authority.clone(), sender })
    }
}

/// Where bodies are posted to, and the headers that say what they are.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Target {
    pub(crate) fn json(path: &str) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self { path: path.to_owned(), headers }
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// An open connection. After an error it is dropped and a new one opened.
pub(crate) struct Connection {
    authority: String,
    sender: Sender,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}: the answer is not JSON", self.status))
    }

    /// The value of a top-level count, found without parsing an answer of many kilobytes.
    pub(crate) fn count(&self, field: &str) -> Option<u64> {
        let needle = format!("\"{field}\":");
        let at = memchr::memmem::find(&self.body, needle.as_bytes())? + needle.len();
        let digits: Vec<u8> = self
            .body
            .get(at..)?
            .iter()
            .copied()
            .skip_while(u8::is_ascii_whitespace)
            .take_while(u8::is_ascii_digit)
            .collect();
        std::str::from_utf8(&digits).ok()?.parse().ok()
    }
}

impl Connection {
    /// A second lane over the same HTTP/2 connection; `None` over HTTP/1.1, which cannot share.
    pub(crate) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Two(sender) => {
                Some(Self { authority: self.authority.clone(), sender: Sender::Two(sender.clone()) })
            }
        }
    }

    pub(crate) async fn get(&mut self, path: &str, key: Option<&str>) -> Result<Answer> {
        self.send(Method::GET, path, &[], key, Bytes::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, key: &str, body: Bytes) -> Result<Answer> {
        self.post_to(&Target::json(path), Some(key), body).await
    }

    pub(crate) async fn post_to(
        &mut self,
        target: &Target,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        self.send(Method::POST, &target.path, &target.headers, key, body).await
    }

    /// GET that must answer 200 with JSON.
    pub(crate) async fn get_json(&mut self, path: &str, key: &str) -> Result<Value> {
        let answer = self.get(path, Some(key)).await?;
        if answer.status != StatusCode::OK {
            let body = String::from_utf8_lossy(&answer.body);
            bail!("GET {path} answered {}: {}", answer.status, body.chars().take(300).collect::<String>());
        }
        answer.json()
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Answer> {
        let (target, host) = match &self.sender {
            Sender::One(_) => (path.to_owned(), true),
            Sender::Two(_) => (format!("http://{}{path}", self.authority), false),
        };
        let mut request = Request::builder().method(method).uri(target);
        if host {
            request = request.header("host", &self.authority);
        }
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body))?;
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse::<u32>().ok())
            .map(|seconds| Duration::from_secs(u64::from(seconds)));
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, retry_after, body })
    }
}

/// Writes a query value with everything but unreserved characters escaped.
pub(crate) fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
