//! An OpenID provider that checks what it is sent, logs anybody in, and lies as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::codes::{Codes, Registration};
use super::signing::{Key, access_token_hash, sign_hs256, unsigned};
use super::{complain, parameters, random, redirect, serve};

/// Changes a document before it is sent.
pub type Change = Box<dyn Fn(&mut Value) + Send + Sync>;

/// How id tokens are signed.
pub enum Signature {
    /// With the published key.
    Right,
    /// With another key.
    With(Key),
    /// With an HMAC under this secret.
    Hmac(Vec<u8>),
    /// Not at all.
    None,
    /// Rightly, and then one claim is changed.
    Tampered,
}

/// What the double does wrong. Nothing, to begin with.
pub struct Lies {
    pub discovery: Change,
    pub jwks: Change,
    /// Parameters of the redirect back.
    pub answer: Change,
    pub header: Change,
    pub claims: Change,
    pub signature: Signature,
    /// The answer of the token endpoint.
    pub token: Change,
    pub token_status: u16,
    pub userinfo: Change,
    pub userinfo_status: u16,
    /// Sent instead of the discovery document.
    pub discovery_response: Option<fn() -> Response>,
    /// Sent instead of a token.
    pub token_response: Option<fn() -> Response>,
}

impl Default for Lies {
    fn default() -> Self {
        fn nothing() -> Change {
            Box::new(|_| {})
        }
        Self {
            discovery: nothing(),
            jwks: nothing(),
            answer: nothing(),
            header: nothing(),
            claims: nothing(),
            signature: Signature::Right,
            token: nothing(),
            token_status: 200,
            userinfo: nothing(),
            userinfo_status: 200,
            discovery_response: None,
            token_response: None,
        }
    }
}

/// The double.
pub struct Double {
    pub issuer: String,
    pub registration: Registration,
    pub lies: Mutex<Lies>,
    /// The keys: the first one signs, all are published.
    pub keys: Mutex<Vec<Key>>,
    /// What the clock says, in seconds.
    pub now: Mutex<i64>,
    /// Codes and tokens that were given out.
    pub secrets: Mutex<Vec<String>>,
    pub key_requests: AtomicUsize,
    pub discovery_requests: AtomicUsize,
    pub token_requests: AtomicUsize,
    codes: Codes,
    access_tokens: Mutex<Vec<String>>,
}

type Shared = State<Arc<Double>>;

impl Double {
    pub async fn start(redirect_uri: &str, key: Key, now: i64) -> Arc<Self> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let registration = Registration::new(redirect_uri);
        serve(move |address| {
            let double = Arc::new(Self {
                issuer: format!("http://{address}"),
                registration,
                lies: Mutex::default(),
                keys: Mutex::new(vec![key]),
                now: Mutex::new(now),
                secrets: Mutex::default(),
                key_requests: AtomicUsize::new(0),
                discovery_requests: AtomicUsize::new(0),
                token_requests: AtomicUsize::new(0),
                codes: Codes::default(),
                access_tokens: Mutex::default(),
            });
            let _ = sender.send(Arc::clone(&double));
            Router::new()
                .route("/.well-known/openid-configuration", get(discovery))
                .route("/authorize", get(authorize))
                .route("/token", post(token))
                .route("/jwks", get(jwks))
                .route("/userinfo", get(userinfo))
                .with_state(double)
        })
        .await;
        receiver.await.unwrap()
    }

    pub fn lie(&self, lies: Lies) {
        *self.lies.lock().unwrap() = lies;
    }

    /// How often a counted address was asked.
    pub fn count(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::SeqCst)
    }

    fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    fn id_token(&self, nonce: &str, access_token: &str) -> String {
        let (keys, lies, now) =
            (self.keys.lock().unwrap(), self.lies.lock().unwrap(), *self.now.lock().unwrap());
        let key = match &lies.signature {
            Signature::With(key) => key,
            _ => &keys[0],
        };
        let mut header = json!({"alg": key.algorithm(), "kid": keys[0].kid, "typ": "JWT"});
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.registration.client_id,
            "sub": "person-1",
            "nonce": nonce,
            "iat": now,
            "exp": now + 300,
            "email": "person@example.com",
            "email_verified": true,
            "name": "A Person",
            "groups": ["staff"],
        });
        // With Ed25519 the hash is another one.
        if key.algorithm() != "EdDSA" {
            claims["at_hash"] = json!(access_token_hash(access_token));
        }
        match &lies.signature {
            Signature::Hmac(_) => header["alg"] = json!("HS256"),
            Signature::None => header["alg"] = json!("none"),
            _ => {}
        }
        (lies.header)(&mut header);
        (lies.claims)(&mut claims);
        match &lies.signature {
            Signature::Right | Signature::With(_) => key.sign(&header, &claims),
            Signature::Hmac(secret) => sign_hs256(secret, &header, &claims),
            Signature::None => unsigned(&header, &claims),
            Signature::Tampered => {
                let signed = key.sign(&header, &claims);
                let signature = signed.rsplit('.').next().unwrap();
                claims["sub"] = json!("person-2");
                format!("{}{signature}", unsigned(&header, &claims))
            }
        }
    }
}

async fn discovery(State(double): Shared) -> Response {
    double.discovery_requests.fetch_add(1, Ordering::SeqCst);
    let lies = double.lies.lock().unwrap();
    if let Some(response) = lies.discovery_response {
        return response();
    }
    let issuer = &double.issuer;
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    (lies.discovery)(&mut document);
    super::json(200, &document)
}

async fn authorize(
    State(double): Shared,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    let parameters = match parameters(&query.unwrap_or_default()) {
        Ok(parameters) => parameters,
        Err(text) => return complain(&text),
    };
    let asked = match double.registration.check(&parameters, &["openid", "email", "profile"]) {
        Ok(asked) => asked,
        Err(text) => return complain(&text),
    };
    if asked.nonce.as_ref().is_none_or(|nonce| nonce.len() < 43) {
        return complain("nonce is missing, or can be guessed");
    }
    let code = double.codes.issue(asked);
    double.keep_secret(&code);
    let mut answer = json!({"code": code, "state": parameters["state"], "iss": double.issuer});
    (double.lies.lock().unwrap().answer)(&mut answer);
    let answer = answer.as_object().unwrap();
    let pairs: Vec<_> = answer.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    redirect(&double.registration.redirect_uri, &pairs)
}

async fn token(State(double): Shared, headers: HeaderMap, body: String) -> Response {
    double.token_requests.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let refuse = |error: &str| super::json(400, &json!({"error": error, "error_description": body}));
    if let Some(response) = double.lies.lock().unwrap().token_response {
        return response();
    }
    if header("content-type") != Some("application/x-www-form-urlencoded")
        || header("accept") != Some("application/json")
    {
        return refuse("invalid_request");
    }
    // Both halves are free of letters that would have to be encoded.
    let Registration { client_id, client_secret, .. } = &double.registration;
    let basic = format!("Basic {}", BASE64.encode(format!("{client_id}:{client_secret}").as_bytes()));
    let form = parameters(&body).unwrap_or_default();
    let is_in_form =
        form.get("client_id") == Some(client_id) && form.get("client_secret") == Some(client_secret);
    if header("authorization") != Some(basic.as_str()) && !is_in_form {
        return super::json(401, &json!({"error": "invalid_client"}));
    }
    if form.get("grant_type").map(String::as_str) != Some("authorization_code") {
        return refuse("unsupported_grant_type");
    }
    let Ok(asked) = double.codes.redeem(&form) else { return refuse("invalid_grant") };
    let access_token = random("access");
    double.access_tokens.lock().unwrap().push(access_token.clone());
    let id_token = double.id_token(&asked.nonce.unwrap_or_default(), &access_token);
    double.keep_secret(&access_token);
    double.keep_secret(&id_token);
    let lies = double.lies.lock().unwrap();
    let mut answer = json!({
        "access_token": access_token, "token_type": "Bearer", "expires_in": 300, "id_token": id_token,
    });
    (lies.token)(&mut answer);
    super::json(lies.token_status, &answer)
}

async fn jwks(State(double): Shared) -> Response {
    double.key_requests.fetch_add(1, Ordering::SeqCst);
    let keys: Vec<_> = double.keys.lock().unwrap().iter().map(Key::jwk).collect();
    let mut document = json!({"keys": keys});
    (double.lies.lock().unwrap().jwks)(&mut document);
    super::json(200, &document)
}

async fn userinfo(State(double): Shared, headers: HeaderMap) -> Response {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap()).unwrap_or_default();
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
    if !double.access_tokens.lock().unwrap().iter().any(|known| known == token) {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer error=\"invalid_token\"")])
            .into_response();
    }
    let lies = double.lies.lock().unwrap();
    let mut claims = json!({
        "sub": "person-1",
        "email": "person@example.com",
        "email_verified": true,
        "name": "A Person",
        "groups": ["staff"],
    });
    (lies.userinfo)(&mut claims);
    super::json(lies.userinfo_status, &claims)
}
