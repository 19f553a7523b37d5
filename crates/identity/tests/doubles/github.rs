//! GitHub, as its documentation describes "Authorizing OAuth apps" and the endpoints for users and their addresses.

use std::sync::{Arc, Mutex};

use agentlens_identity::{ClientCredentials, GithubEndpoints, Provider, Secret};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::codes::{Codes, Registration, Wrong};
use super::{complain, parameters, random, redirect, serve};

/// The double, with the person who is logged in there.
pub struct Github {
    pub base: String,
    pub registration: Registration,
    pub user: Mutex<Value>,
    /// `None`: the person didn't allow it.
    pub emails: Mutex<Option<Value>>,
    /// Codes and tokens that were given out.
    pub secrets: Mutex<Vec<String>>,
    codes: Codes,
    access_tokens: Mutex<Vec<String>>,
}

type Shared = State<Arc<Github>>;

impl Github {
    pub async fn start(redirect_uri: &str) -> Arc<Self> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let registration = Registration::new(redirect_uri);
        serve(move |address| {
            let double = Arc::new(Self {
                base: format!("http://{address}"),
                registration,
                user: Mutex::new(json!({
                    "login": "octo-person", "id": 583_231, "node_id": "MDQ6VXNlcjE=", "type": "User",
                    "site_admin": false, "name": "Octo Person", "email": null, "created_at": "2011-01-25T18:44:36Z",
                })),
                emails: Mutex::new(Some(json!([
                    {"email": "old@example.com", "primary": false, "verified": true, "visibility": null},
                    {"email": "octo@example.com", "primary": true, "verified": true, "visibility": "private"},
                ]))),
                secrets: Mutex::default(),
                codes: Codes::default(),
                access_tokens: Mutex::default(),
            });
            let _ = sender.send(Arc::clone(&double));
            Router::new()
                .route("/login/oauth/authorize", get(authorize))
                .route("/login/oauth/access_token", post(access_token))
                .route("/api/user", get(user))
                .route("/api/user/emails", get(emails))
                .with_state(double)
        })
        .await;
        receiver.await.unwrap()
    }

    /// The way to it. The issuer is the real one.
    pub fn provider(&self) -> Provider {
        let client = ClientCredentials {
            id: self.registration.client_id.clone(),
            secret: Secret::new(self.registration.client_secret.clone()),
        };
        let endpoints = GithubEndpoints {
            authorization: format!("{}/login/oauth/authorize", self.base),
            token: format!("{}/login/oauth/access_token", self.base),
            api: format!("{}/api", self.base),
            ..GithubEndpoints::default()
        };
        Provider::Github { client, endpoints }
    }

    /// Checks what every request to the API must have.
    fn check_api(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let refuse = |status, message: &str| Err(Box::new(super::json(status, &json!({"message": message}))));
        if header("user-agent").is_empty() {
            return refuse(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
            );
        }
        if header("accept") != "application/vnd.github+json" || header("x-github-api-version") != "2022-11-28"
        {
            return refuse(415, "the double complains: Accept or X-GitHub-Api-Version");
        }
        let token = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if !self.access_tokens.lock().unwrap().iter().any(|known| known == token) {
            return refuse(401, "Bad credentials");
        }
        Ok(())
    }
}

async fn authorize(State(double): Shared, RawQuery(query): RawQuery) -> Response {
    let asked = parameters(&query.unwrap_or_default())
        .and_then(|parameters| Ok((double.registration.check(&parameters, &["user:email"])?, parameters)));
    let (asked, parameters) = match asked {
        Ok(asked) => asked,
        Err(text) => return complain(&text),
    };
    let code = double.codes.issue(asked);
    double.secrets.lock().unwrap().push(code.clone());
    redirect(
        &double.registration.redirect_uri,
        &[("code", &code), ("state", &parameters["state"]), ("iss", "https://github.com/login/oauth")],
    )
}

/// Errors come with status 200, and everything as a form unless JSON is asked for.
async fn access_token(State(double): Shared, headers: HeaderMap, body: String) -> Response {
    let wants_json = headers.get("accept").is_some_and(|value| value == "application/json");
    let answer = |value: Value| {
        if wants_json {
            return super::json(200, &value);
        }
        let pairs: Vec<_> =
            value.as_object().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        ([("content-type", "application/x-www-form-urlencoded; charset=utf-8")], pairs.join("&"))
            .into_response()
    };
    let refuse = |error: &str| {
        answer(json!({"error": error, "error_description": body, "error_uri": "https://docs.github.com/"}))
    };
    let form = parameters(&body).unwrap_or_default();
    let Registration { client_id, client_secret, .. } = &double.registration;
    if form.get("client_id") != Some(client_id) || form.get("client_secret") != Some(client_secret) {
        return refuse("incorrect_client_credentials");
    }
    let asked = match double.codes.redeem(&form) {
        Ok(asked) => asked,
        Err(Wrong::RedirectUri) => return refuse("redirect_uri_mismatch"),
        Err(Wrong::Code | Wrong::Verifier) => return refuse("bad_verification_code"),
    };
    let token = random("access");
    double.access_tokens.lock().unwrap().push(token.clone());
    double.secrets.lock().unwrap().push(token.clone());
    answer(json!({"access_token": token, "scope": asked.scope, "token_type": "bearer"}))
}

async fn user(State(double): Shared, headers: HeaderMap) -> Response {
    match double.check_api(&headers) {
        Ok(()) => super::json(200, &double.user.lock().unwrap()),
        Err(response) => *response,
    }
}

async fn emails(State(double): Shared, headers: HeaderMap) -> Response {
    if let Err(response) = double.check_api(&headers) {
        return *response;
    }
    match &*double.emails.lock().unwrap() {
        Some(emails) => super::json(200, emails),
        None => super::json(404, &json!({"message": "Not Found", "status": "404"})),
    }
}
