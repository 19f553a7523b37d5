//! A sign-in with a browser, and an OpenID provider that can lie.

use std::sync::Arc;

use agentlens_identity::{
    Callback, ClientCredentials, ENTROPY_BYTES, FlowSecrets, Identity, OidcConnection, Provider, Secret,
    SignIn, SignInError, Started,
};
use agentlens_outbound::AllowList;
use reqwest::redirect::Policy;
use ring::rand::{SecureRandom, SystemRandom};

use crate::doubles::oidc::{Double, Lies};
use crate::doubles::parameters;
use crate::doubles::signing::Key;

/// An instant, in seconds.
pub const NOW: i64 = 1_800_000_000;
/// Where browsers come back to. Nothing listens there: the tests read the address they are sent to.
pub const REDIRECT_URI: &str = "http://127.0.0.1:1/api/auth/oidc/callback";

pub fn micros(seconds: i64) -> i64 {
    seconds * 1_000_000
}

/// A client that may reach this machine.
pub fn sign_in() -> SignIn {
    SignIn::new(AllowList::new(vec!["127.0.0.1".parse().unwrap()])).unwrap()
}

pub fn entropy() -> [u8; ENTROPY_BYTES] {
    let mut bytes = [0; ENTROPY_BYTES];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// Opens the provider's page in a browser whose person says yes at once, and reads where it is sent back to.
pub async fn visit(url: &str) -> Callback {
    let browser = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let response = browser.get(url).send().await.unwrap();
    let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let Some(location) = location else { panic!("{}", response.text().await.unwrap()) };
    callback(&location)
}

/// A server runs sign-ins on any of its threads, so they must hold no lock while they wait.
fn sendable<T: Send>(future: T) -> T {
    future
}

/// What an address of ours brings back.
pub fn callback(location: &str) -> Callback {
    let (address, query) = location.split_once('?').unwrap();
    assert_eq!(address, REDIRECT_URI);
    let mut parameters = parameters(query).unwrap();
    Callback {
        code: parameters.remove("code"),
        state: parameters.remove("state"),
        iss: parameters.remove("iss"),
        error: parameters.remove("error"),
    }
}

/// An error tells nobody a secret: not by its text, its detail, or when it is printed for debugging.
pub fn assert_discreet(error: &SignInError, flow: &FlowSecrets, secrets: &[String]) {
    let shown = format!("{error} {error:?} {:?} {flow:?}", error.detail());
    let of_flow = [&flow.state, &flow.nonce, &flow.pkce_verifier];
    for secret in secrets.iter().chain(of_flow) {
        assert!(!shown.contains(secret.as_str()), "{secret} is in: {shown}");
        // A token is secret in parts, too.
        for part in secret.split('.').filter(|part| part.len() > 20) {
            assert!(!shown.contains(part), "{part} is in: {shown}");
        }
    }
}

pub struct World {
    pub double: Arc<Double>,
    pub sign_in: SignIn,
    pub provider: Provider,
}

impl World {
    pub async fn new() -> Self {
        Self::with_key(Key::ec("first")).await
    }

    pub async fn with_key(key: Key) -> Self {
        let double = Double::start(REDIRECT_URI, key, NOW).await;
        let provider = Provider::Oidc(connection(&double));
        Self { double, sign_in: sign_in(), provider }
    }

    /// A world whose provider lies.
    pub async fn lying(lies: Lies) -> Self {
        let world = Self::new().await;
        world.double.lie(lies);
        world
    }

    pub async fn begin(&self) -> Started {
        self.sign_in.begin(&self.provider, REDIRECT_URI, &entropy(), micros(NOW)).await.unwrap()
    }

    pub async fn finish(&self, flow: &FlowSecrets, callback: Callback) -> Result<Identity, SignInError> {
        self.finish_at(flow, callback, NOW).await
    }

    async fn finish_at(
        &self,
        flow: &FlowSecrets,
        callback: Callback,
        now: i64,
    ) -> Result<Identity, SignInError> {
        let result =
            sendable(self.sign_in.finish(&self.provider, flow, callback, REDIRECT_URI, micros(now))).await;
        if let Err(error) = &result {
            let mut secrets = self.double.secrets.lock().unwrap().clone();
            secrets.push(self.double.registration.client_secret.clone());
            assert_discreet(error, flow, &secrets);
        }
        result
    }

    /// A whole sign-in.
    pub async fn run(&self) -> Result<Identity, SignInError> {
        self.run_at(NOW).await
    }

    pub async fn run_at(&self, now: i64) -> Result<Identity, SignInError> {
        *self.double.now.lock().unwrap() = now;
        let entropy = entropy();
        let begin = self.sign_in.begin(&self.provider, REDIRECT_URI, &entropy, micros(now));
        let started = sendable(begin).await?;
        let callback = visit(started.url.as_str()).await;
        self.finish_at(&started.flow, callback, now).await
    }
}

/// An org's connection to the double.
pub fn connection(double: &Double) -> OidcConnection {
    OidcConnection {
        id: "connection-1".to_owned(),
        issuer: double.issuer.clone(),
        client: ClientCredentials {
            id: double.registration.client_id.clone(),
            secret: Secret::new(double.registration.client_secret.clone()),
        },
        scopes: Vec::new(),
        role_claim: Some("groups".to_owned()),
    }
}

/// The stable code of a refusal, and its detail.
pub fn refusal(result: Result<Identity, SignInError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    (error.code(), error.detail().map(|detail| detail.as_str().to_owned()).unwrap_or_default())
}
