//! The client: resolves, checks, connects, and reads a bounded answer.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{Client, Method, StatusCode, Url, redirect};

use crate::allow::AllowList;
use crate::policy::{OutboundError, Policy};

/// Bytes of an address.
const MAX_URL_BYTES: usize = 2_048;
/// Headers that decide where a request ends or who gets it; only the client sets them.
const FORBIDDEN_HEADERS: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Time for everything, from the name to the last byte of the answer.
    pub timeout: Duration,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Bytes of the body that is sent.
    pub max_request_bytes: usize,
    /// Bytes of the answer's headers.
    pub max_header_bytes: usize,
    /// Bytes of the answer's body.
    pub max_response_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            max_request_bytes: 1024 * 1024,
            max_header_bytes: 32 * 1024,
            max_response_bytes: 256 * 1024,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What was answered, whatever its status. A redirect is an answer like any other.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// The guarded client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    policy: Arc<Policy>,
    bounds: Bounds,
}

impl Outbound {
    /// A client that reaches the public internet over HTTPS, and what is allowed beside it.
    ///
    /// # Errors
    /// When the system's certificates can't be used.
    pub fn new(allowed: AllowList, bounds: Bounds) -> Result<Self, OutboundError> {
        let policy = Arc::new(Policy { allowed });
        let header_bytes = u32::try_from(bounds.max_header_bytes).unwrap_or(u32::MAX);
        let client = Client::builder()
            .dns_resolver(Arc::new(Guarded { policy: Arc::clone(&policy) }))
            .redirect(redirect::Policy::none())
            // A proxy would resolve names by itself.
            .no_proxy()
            .referer(false)
            .timeout(bounds.timeout)
            .connect_timeout(bounds.connect_timeout)
            .http2_max_header_list_size(header_bytes)
            // A kept connection would outlive the look at its address.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("AgentLens/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OutboundError::Failed(error.to_string()))?;
        Ok(Self { client, policy, bounds })
    }

    /// Reads an address as a customer gave it, and checks everything about it that can be known before its name is
    /// resolved; to be used when an address is stored.
    ///
    /// # Errors
    /// When no request to it would be made.
    pub fn parse_url(&self, text: &str) -> Result<Url, OutboundError> {
        if text.len() > MAX_URL_BYTES {
            return Err(OutboundError::InvalidUrl(format!("it is longer than {MAX_URL_BYTES} bytes")));
        }
        let url: Url = text.trim().parse().map_err(|error| OutboundError::InvalidUrl(format!("{error}")))?;
        self.policy.check_url(&url)?;
        Ok(url)
    }

    /// Makes a request and reads the whole answer.
    ///
    /// # Errors
    /// When the address may not be asked, a bound is exceeded, or the request fails.
    pub async fn send(&self, request: Request) -> Result<Response, OutboundError> {
        let Request { method, url, headers, body } = request;
        self.policy.check_url(&url)?;
        if let Some(name) = headers.keys().find(|name| FORBIDDEN_HEADERS.contains(name)) {
            return Err(OutboundError::ForbiddenHeader(name.to_string()));
        }
        if body.len() > self.bounds.max_request_bytes {
            return Err(OutboundError::RequestTooLarge(self.bounds.max_request_bytes));
        }
        let sent = self.client.request(method, url).headers(headers).body(body).send().await;
        let mut answer = sent.map_err(|error| self.reason(&error))?;
        let header_bytes: usize =
            answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > self.bounds.max_header_bytes {
            return Err(OutboundError::HeadersTooLarge(self.bounds.max_header_bytes));
        }
        let limit = self.bounds.max_response_bytes;
        if answer.content_length().is_some_and(|length| length > limit as u64) {
            return Err(OutboundError::ResponseTooLarge(limit));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.reason(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(OutboundError::ResponseTooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response { status: answer.status(), headers: answer.headers().clone(), body: body.freeze() })
    }

    /// Our own refusal, if it lies behind the client's error.
    fn reason(&self, error: &reqwest::Error) -> OutboundError {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        let mut last = String::new();
        while let Some(this) = cause {
            if let Some(refusal) = this.downcast_ref::<OutboundError>() {
                return refusal.clone();
            }
            last = this.to_string();
            cause = this.source();
        }
        if error.is_timeout() {
            OutboundError::TimedOut(self.bounds.timeout)
        } else {
            OutboundError::Failed(last)
        }
    }
}

/// Resolves names as the system does, and hands over only addresses that may be connected to.
struct Guarded {
    policy: Arc<Policy>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let name = name.as_str();
            let resolved = tokio::net::lookup_host((name, 0))
                .await
                .map_err(|_| OutboundError::UnknownHost(name.to_owned()))?;
            let permitted = policy.permitted(name, resolved)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
