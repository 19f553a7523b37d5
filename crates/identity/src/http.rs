//! Requests to providers: bounded, without redirects, and only to where the operator lets customers' requests go.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use agentlens_outbound::{
    AllowList, Bounds, HeaderMap, HeaderName, HeaderValue, Method, Outbound, OutboundError, Request,
    Response, StatusCode, Url,
};
use bytes::Bytes;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Detail, SignInError};

/// What a request to a provider may cost.
const BOUNDS: Bounds = Bounds {
    timeout: Duration::from_secs(5),
    connect_timeout: Duration::from_secs(5),
    max_request_bytes: 64 * 1024,
    max_header_bytes: 32 * 1024,
    max_response_bytes: 256 * 1024,
};

/// The client for providers.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    outbound: Outbound,
}

impl Http {
    pub(crate) fn new(allowed: AllowList) -> Result<Self, OutboundError> {
        Ok(Self { outbound: Outbound::new(allowed, BOUNDS)? })
    }

    /// An address that may be asked, or that a browser may be sent to.
    pub(crate) fn parse_url(&self, what: &'static str, text: &str) -> Result<Url, SignInError> {
        let parsed = self.outbound.parse_url(text);
        parsed.map_err(|error| SignInError::Misconfigured(Detail::with(&format!("{what}: {error}"))))
    }

    /// Asks for a JSON document; `what` names it in the detail of an error.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        url: Url,
    ) -> Result<T, SignInError> {
        let answer = self.get(what, url, &[("accept", "application/json")]).await?;
        if answer.status.as_u16() != 200 {
            return Err(unexpected_status(what, &answer));
        }
        parse(what, &answer)
    }

    /// Asks for anything.
    pub(crate) async fn get(
        &self,
        what: &'static str,
        url: Url,
        fields: &[(&'static str, &str)],
    ) -> Result<Response, SignInError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value)
                .map_err(|_| SignInError::InvalidAnswer("a token that can't be sent back".into()))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let request = Request { method: Method::GET, url, headers, body: Bytes::new() };
        self.outbound.send(request).await.map_err(|error| SignInError::from_outbound(what, &error))
    }
}

/// Reads JSON. What exactly is wrong with it is not repeated: it may hold a token.
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, answer: &Response) -> Result<T, SignInError> {
    serde_json::from_slice(&answer.body).map_err(|_| unreadable(what))
}

/// An answer that says something else than it should.
pub(crate) fn unreadable(what: &'static str) -> SignInError {
    SignInError::InvalidAnswer(Detail::with(&format!("{what}: not the JSON that was expected")))
}

/// An answer of a status that says no.
pub(crate) fn unexpected_status(what: &'static str, answer: &Response) -> SignInError {
    let detail = Detail::with(&format!("{what}: answered with status {}", answer.status.as_u16()));
    if answer.status.is_server_error() {
        SignInError::Unreachable(detail)
    } else {
        SignInError::InvalidAnswer(detail)
    }
}

/// How the OAuth library asks a token endpoint.
impl<'c> AsyncHttpClient<'c> for Http {
    type Error = OutboundError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, OutboundError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let url = self.outbound.parse_url(&parts.uri.to_string())?;
            let request = Request { method: parts.method, url, headers: parts.headers, body: body.into() };
            let answer = self.outbound.send(request).await?;
            // GitHub sends its errors with status 200, where the library expects a token.
            let is_failure =
                answer.status == StatusCode::OK && serde_json::from_slice::<Failure>(&answer.body).is_ok();
            let mut response = HttpResponse::new(answer.body.to_vec());
            *response.status_mut() = if is_failure { StatusCode::BAD_REQUEST } else { answer.status };
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// The answer of a token endpoint that refuses.
#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "error")]
    _error: String,
}
