//! A real, strict OpenID provider (npm oidc-provider), with its own pages: a person logs in through its form and
//! agrees.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use agentlens_identity::{
    Callback, ClientCredentials, Identity, OidcConnection, Provider, Secret, SignInError,
};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, Url};
use serde_json::json;

use crate::doubles::random;
use crate::world::{REDIRECT_URI, callback, entropy, refusal, sign_in};

/// The running provider. It ends when its standard input does, so at the latest with the test.
struct Real {
    process: Child,
    /// Kept open, so that the provider may write what it likes.
    _output: BufReader<ChildStdout>,
    issuer: String,
    client_secret: String,
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Clients of the provider: what they are called, how they prove themselves, how their tokens are signed.
const CLIENTS: [(&str, &str, &str); 3] = [
    ("rs256", "client_secret_basic", "RS256"),
    ("es256", "client_secret_post", "ES256"),
    ("eddsa", "client_secret_basic", "EdDSA"),
];

impl Real {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/oidc_provider.sh");
        let client_secret = random("secret");
        let clients: Vec<_> = CLIENTS
            .iter()
            .map(|(client_id, method, algorithm)| {
                json!({
                    "client_id": client_id, "client_secret": client_secret, "redirect_uris": [REDIRECT_URI],
                    "token_endpoint_auth_method": method, "id_token_signed_response_alg": algorithm,
                    "scope": "openid email profile groups",
                })
            })
            .collect();
        let mut process = Command::new(script)
            .env("CLIENTS", json!(clients).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut issuer = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut issuer).unwrap();
        assert!(issuer.starts_with("http://"), "the provider did not start: {issuer}");
        Self { process, _output: output, issuer: issuer.trim().to_owned(), client_secret }
    }

    fn connection(&self, client_id: &str) -> OidcConnection {
        OidcConnection {
            id: "connection-1".to_owned(),
            issuer: self.issuer.clone(),
            client: ClientCredentials {
                id: client_id.to_owned(),
                secret: Secret::new(self.client_secret.clone()),
            },
            scopes: vec!["groups".to_owned()],
            role_claim: Some("groups".to_owned()),
        }
    }
}

/// A browser: keeps cookies with their paths, follows redirects within the provider, fills in forms.
struct Browser {
    client: reqwest::Client,
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    fn new() -> Self {
        let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self { client, cookies: BTreeMap::new() }
    }

    async fn request(&mut self, method: Method, url: &Url, form: &[(&str, &str)]) -> Response {
        let sent: Vec<_> = self
            .cookies
            .iter()
            .filter(|((_, path), _)| url.path().starts_with(path.as_str()))
            .map(|((name, _), value)| format!("{name}={value}"))
            .collect();
        let mut request = self.client.request(method, url.clone()).header("cookie", sent.join("; "));
        if !form.is_empty() {
            request = request.form(form);
        }
        let response = request.send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let mut parts = cookie.to_str().unwrap().split("; ");
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or("/");
            self.cookies.insert((name.to_owned(), path.to_owned()), value.to_owned());
        }
        response
    }

    /// Walks until there is a page, or an address of ours.
    async fn walk(&mut self, method: Method, url: Url, form: &[(&str, &str)]) -> Stop {
        let mut url = url;
        let mut response = self.request(method, &url, form).await;
        for _ in 0..10 {
            let Some(location) = response.headers().get("location") else {
                let (status, text) = (response.status(), response.text().await.unwrap());
                return Stop::Page { url, text: format!("{status}\n{text}") };
            };
            let location = location.to_str().unwrap();
            if location.starts_with(REDIRECT_URI) {
                return Stop::Back(callback(location));
            }
            url = url.join(location).unwrap();
            response = self.request(Method::GET, &url, &[]).await;
        }
        panic!("too many redirects");
    }

    /// Opens the provider's page, logs in, agrees, and comes back.
    async fn log_in(&mut self, url: Url, login: &str) -> Callback {
        let mut stop = self.walk(Method::GET, url, &[]).await;
        let forms: [&[(&str, &str)]; 2] =
            [&[("prompt", "login"), ("login", login), ("password", "anything")], &[("prompt", "consent")]];
        for form in forms {
            let Stop::Page { url, text } = stop else { break };
            let action = text.split_once("action=\"").and_then(|(_, rest)| rest.split_once('"'));
            let Some((action, _)) = action else { panic!("no form: {text}") };
            assert!(text.contains(&format!("value=\"{}\"", form[0].1)), "another form: {text}");
            stop = self.walk(Method::POST, url.join(action).unwrap(), form).await;
        }
        match stop {
            Stop::Back(callback) => callback,
            Stop::Page { text, .. } => panic!("still at the provider: {text}"),
        }
    }
}

enum Stop {
    Page { url: Url, text: String },
    Back(Callback),
}

fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

async fn run(provider: &Provider, login: &str, change: fn(&mut Callback)) -> Result<Identity, SignInError> {
    let sign_in = sign_in();
    sign_in.check(provider, now_us()).await?;
    let started = sign_in.begin(provider, REDIRECT_URI, &entropy(), now_us()).await?;
    let mut callback = Browser::new().log_in(started.url.clone(), login).await;
    change(&mut callback);
    sign_in.finish(provider, &started.flow, callback, REDIRECT_URI, now_us()).await
}

#[tokio::test]
async fn a_person_signs_in_through_the_providers_own_pages() {
    let real = Real::start();
    for (client_id, ..) in CLIENTS {
        let provider = Provider::Oidc(real.connection(client_id));
        let identity = run(&provider, "alice", |_| {}).await.unwrap();
        assert_eq!(
            (identity.subject.as_str(), identity.verified_email()),
            ("alice", Some("alice@example.com"))
        );
        assert_eq!(identity.name.as_deref(), Some("Person alice"), "{client_id}");
        assert_eq!(identity.role_values, ["engineering", "team-alice"]);
        let unverified = run(&provider, "unverified-bob", |_| {}).await.unwrap();
        assert_eq!((unverified.verified_email(), unverified.unrefuted_email()), (None, None));
    }
}

#[tokio::test]
async fn the_provider_refuses_what_was_tampered_with() {
    let real = Real::start();
    let provider = Provider::Oidc(real.connection("rs256"));
    let other_code = |callback: &mut Callback| callback.code = Some("made-up".to_owned());
    assert_eq!(refusal(run(&provider, "alice", other_code).await).0, "sign_in_provider_refused");
    let no_issuer = |callback: &mut Callback| callback.iss = None;
    assert_eq!(refusal(run(&provider, "alice", no_issuer).await).0, "sign_in_wrong_issuer");
    let mut wrong = real.connection("es256");
    wrong.client.secret = Secret::new("wrong");
    assert_eq!(refusal(run(&Provider::Oidc(wrong), "alice", |_| {}).await).0, "sign_in_misconfigured");
    // One flow's code with another flow's verifier.
    let sign_in = sign_in();
    let begin = || async { sign_in.begin(&provider, REDIRECT_URI, &entropy(), now_us()).await.unwrap() };
    let (victim, attacker) = (begin().await, begin().await);
    let mut stolen = Browser::new().log_in(attacker.url, "mallory").await;
    stolen.state = Some(victim.flow.state.clone());
    let result = sign_in.finish(&provider, &victim.flow, stolen, REDIRECT_URI, now_us()).await;
    assert_eq!(refusal(result).0, "sign_in_provider_refused");
}

#[tokio::test]
async fn a_person_who_says_no_is_not_signed_in() {
    let real = Real::start();
    let provider = Provider::Oidc(real.connection("rs256"));
    let sign_in = sign_in();
    let started = sign_in.begin(&provider, REDIRECT_URI, &entropy(), now_us()).await.unwrap();
    let mut browser = Browser::new();
    let Stop::Page { url, text } = browser.walk(Method::GET, started.url, &[]).await else {
        panic!("no page")
    };
    let abort = text.split('"').find(|part| part.ends_with("/abort")).unwrap();
    let Stop::Back(callback) = browser.walk(Method::GET, url.join(abort).unwrap(), &[]).await else {
        panic!("not sent back")
    };
    let result = sign_in.finish(&provider, &started.flow, callback, REDIRECT_URI, now_us()).await;
    assert_eq!(refusal(result).0, "sign_in_cancelled");
}
