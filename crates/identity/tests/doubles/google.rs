//! Google, as its page "OpenID Connect" describes the server flow.

use std::sync::{Arc, Mutex};

use agentlens_identity::{ClientCredentials, GoogleEndpoints, Provider, Secret};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::codes::{Codes, Registration};
use super::signing::{Key, access_token_hash};
use super::{complain, parameters, random, redirect, serve};

const ISSUER: &str = "https://accounts.google.com";

/// The double, with the person who is logged in there.
pub struct Google {
    pub base: String,
    pub registration: Registration,
    /// Claims of the person.
    pub person: Mutex<Value>,
    /// What the clock says, in seconds.
    pub now: i64,
    key: Key,
    next_key: Key,
    codes: Codes,
}

type Shared = State<Arc<Google>>;

impl Google {
    pub async fn start(redirect_uri: &str, now: i64) -> Arc<Self> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let registration = Registration::new(redirect_uri);
        serve(move |address| {
            let double = Arc::new(Self {
                base: format!("http://{address}"),
                registration,
                person: Mutex::new(json!({
                    "sub": "110169484474386276334", "email": "person@gmail.com", "email_verified": true,
                    "name": "A Person", "given_name": "A", "family_name": "Person",
                    "picture": "https://lh3.googleusercontent.com/a/photo",
                })),
                now,
                key: Key::rsa("google-1"),
                next_key: Key::ec("google-2"),
                codes: Codes::default(),
            });
            let _ = sender.send(Arc::clone(&double));
            Router::new()
                .route("/o/oauth2/v2/auth", get(authorize))
                .route("/token", post(token))
                .route("/oauth2/v3/certs", get(certificates))
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
        let endpoints = GoogleEndpoints {
            issuer: ISSUER.to_owned(),
            authorization: format!("{}/o/oauth2/v2/auth", self.base),
            token: format!("{}/token", self.base),
            jwks: format!("{}/oauth2/v3/certs", self.base),
        };
        Provider::Google { client, endpoints }
    }
}

async fn authorize(State(double): Shared, RawQuery(query): RawQuery) -> Response {
    let asked = parameters(&query.unwrap_or_default()).and_then(|parameters| {
        Ok((double.registration.check(&parameters, &["openid", "email", "profile"])?, parameters))
    });
    let (asked, parameters) = match asked {
        Ok(asked) => asked,
        Err(text) => return complain(&text),
    };
    if asked.nonce.is_none() {
        return complain("nonce is missing");
    }
    let scope = "email profile openid https://www.googleapis.com/auth/userinfo.email";
    let code = double.codes.issue(asked);
    redirect(
        &double.registration.redirect_uri,
        &[
            ("state", &parameters["state"]),
            ("code", &code),
            ("scope", scope),
            ("authuser", "0"),
            ("prompt", "none"),
        ],
    )
}

async fn token(State(double): Shared, headers: HeaderMap, body: String) -> Response {
    let refuse =
        |status, error: &str| super::json(status, &json!({"error": error, "error_description": body}));
    let form = parameters(&body).unwrap_or_default();
    let Registration { client_id, client_secret, .. } = &double.registration;
    if headers.get("content-type").is_none_or(|value| value != "application/x-www-form-urlencoded") {
        return refuse(400, "invalid_request");
    }
    if form.get("client_id") != Some(client_id) || form.get("client_secret") != Some(client_secret) {
        return refuse(401, "invalid_client");
    }
    if form.get("grant_type").is_none_or(|grant| grant != "authorization_code") {
        return refuse(400, "unsupported_grant_type");
    }
    let Ok(asked) = double.codes.redeem(&form) else { return refuse(400, "invalid_grant") };
    let access_token = random("access");
    let mut claims = double.person.lock().unwrap().clone();
    claims["iss"] = json!(ISSUER);
    claims["azp"] = json!(client_id);
    claims["aud"] = json!(client_id);
    claims["at_hash"] = json!(access_token_hash(&access_token));
    claims["nonce"] = json!(asked.nonce);
    claims["iat"] = json!(double.now);
    claims["exp"] = json!(double.now + 3_600);
    let header = json!({"alg": "RS256", "kid": double.key.kid, "typ": "JWT"});
    super::json(
        200,
        &json!({
            "access_token": access_token, "expires_in": 3_599, "scope": asked.scope, "token_type": "Bearer",
            "id_token": double.key.sign(&header, &claims),
        }),
    )
}

async fn certificates(State(double): Shared) -> Response {
    super::json(200, &json!({"keys": [double.key.jwk(), double.next_key.jwk()]}))
}
