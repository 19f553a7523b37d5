//! Providers that run in the test's own process, on loopback. They check everything that they are sent as their
//! documentation says, and can be told to lie.

pub mod codes;
pub mod github;
pub mod google;
pub mod oidc;
pub mod signing;

use std::collections::HashMap;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

/// Parameters of a query or form. One that comes twice is refused, as RFC 6749 demands.
pub type Parameters = HashMap<String, String>;

/// Serves routes on a free port until the test ends.
pub async fn serve(routes: impl FnOnce(SocketAddr) -> Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = routes(address);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// Reads `a=b&c=d`.
pub fn parameters(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::new();
    let url: reqwest::Url = format!("http://x/?{text}").parse().unwrap();
    for (name, value) in url.query_pairs() {
        if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(format!("{name} comes twice"));
        }
    }
    Ok(parameters)
}

/// Text that can't be guessed.
pub fn random(prefix: &str) -> String {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).unwrap();
    format!("{prefix}-{}", BASE64URL_NOPAD.encode(&bytes))
}

/// A redirect with parameters added to an address.
pub fn redirect(to: &str, parameters: &[(&str, &str)]) -> Response {
    let mut url: reqwest::Url = to.parse().unwrap();
    url.query_pairs_mut().extend_pairs(parameters);
    (StatusCode::FOUND, [("location", url.as_str())]).into_response()
}

/// JSON with a status.
pub fn json(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json")], value.to_string()).into_response()
}

/// What a double refuses without a redirect, so that the test sees it.
pub fn complain(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("the double complains: {text}")).into_response()
}
