//! GitHub.

use std::sync::Arc;

use agentlens_identity::{Callback, FlowSecrets, Identity, Provider, Secret, SignIn, SignInError};
use serde_json::{Value, json};

use crate::doubles::github::Github;
use crate::doubles::parameters;
use crate::world::{NOW, REDIRECT_URI, assert_discreet, entropy, micros, refusal, sign_in, visit};

struct World {
    double: Arc<Github>,
    provider: Provider,
    sign_in: SignIn,
}

impl World {
    async fn new() -> Self {
        let double = Github::start(REDIRECT_URI).await;
        Self { provider: double.provider(), double, sign_in: sign_in() }
    }

    async fn begin(&self) -> (FlowSecrets, Callback) {
        let started =
            self.sign_in.begin(&self.provider, REDIRECT_URI, &entropy(), micros(NOW)).await.unwrap();
        let callback = visit(started.url.as_str()).await;
        (started.flow, callback)
    }

    async fn finish(&self, flow: &FlowSecrets, callback: Callback) -> Result<Identity, SignInError> {
        let result = self.sign_in.finish(&self.provider, flow, callback, REDIRECT_URI, micros(NOW)).await;
        if let Err(error) = &result {
            let mut secrets = self.double.secrets.lock().unwrap().clone();
            secrets.push(self.double.registration.client_secret.clone());
            assert_discreet(error, flow, &secrets);
        }
        result
    }

    async fn run(&self) -> Result<Identity, SignInError> {
        let (flow, callback) = self.begin().await;
        self.finish(&flow, callback).await
    }
}

#[tokio::test]
async fn a_person_is_the_number_with_the_primary_verified_address() {
    let identity = World::new().await.run().await.unwrap();
    assert_eq!((identity.provider_key.as_str(), identity.subject.as_str()), ("github", "583231"));
    assert_eq!(
        (identity.verified_email(), identity.name.as_deref()),
        (Some("octo@example.com"), Some("Octo Person"))
    );
    assert!(identity.role_values.is_empty());
}

#[tokio::test]
async fn a_login_that_changes_hands_is_another_person() {
    let world = World::new().await;
    let first = world.run().await.unwrap();
    world.double.user.lock().unwrap()["id"] = json!(7);
    let second = world.run().await.unwrap();
    assert_ne!(first.subject, second.subject);
    for id in [json!("583231"), Value::Null, json!(-1), json!(1.5)] {
        world.double.user.lock().unwrap()["id"] = id;
        assert_eq!(refusal(world.run().await).0, "sign_in_invalid_answer");
    }
}

#[tokio::test]
async fn no_other_address_is_taken() {
    let world = World::new().await;
    // The public address of the profile is nobody's proof.
    world.double.user.lock().unwrap()["email"] = json!("victim@example.com");
    for emails in [
        json!([]),
        json!([{"email": "victim@example.com", "primary": true, "verified": false, "visibility": null}]),
        json!([{"email": "victim@example.com", "primary": false, "verified": true, "visibility": null}]),
        json!([
            {"email": "victim@example.com", "primary": true, "verified": false, "visibility": null},
            {"email": "other@example.com", "primary": false, "verified": true, "visibility": null},
        ]),
    ] {
        *world.double.emails.lock().unwrap() = Some(emails.clone());
        assert_eq!(world.run().await.unwrap().email, None, "{emails}");
    }
    for emails in
        [json!({}), json!(["victim@example.com"]), json!([{"email": "victim@example.com", "primary": true}])]
    {
        *world.double.emails.lock().unwrap() = Some(emails.clone());
        assert_eq!(refusal(world.run().await).0, "sign_in_invalid_answer", "{emails}");
    }
}

#[tokio::test]
async fn who_keeps_the_addresses_private_is_still_the_same_person() {
    let world = World::new().await;
    *world.double.emails.lock().unwrap() = None;
    let identity = world.run().await.unwrap();
    assert_eq!((identity.subject.as_str(), identity.email), ("583231", None));
}

#[tokio::test]
async fn errors_that_come_with_status_200_are_errors() {
    let world = World::new().await;
    let (flow, callback) = world.begin().await;
    world.finish(&flow, callback.clone()).await.unwrap();
    let replayed = refusal(world.finish(&flow, callback).await);
    assert_eq!(
        replayed,
        ("sign_in_provider_refused", "the token endpoint answered: bad_verification_code".to_owned())
    );
    let mut provider = world.double.provider();
    if let Provider::Github { client, .. } = &mut provider {
        client.secret = Secret::new("wrong");
    }
    let world = World { provider, ..world };
    let expected = "the token endpoint answered: incorrect_client_credentials".to_owned();
    assert_eq!(refusal(world.run().await), ("sign_in_misconfigured", expected));
}

#[tokio::test]
async fn a_code_of_another_flow_is_refused() {
    let world = World::new().await;
    let ((victim, _), (_, mut attacker)) = (world.begin().await, world.begin().await);
    attacker.state = Some(victim.state.clone());
    assert_eq!(refusal(world.finish(&victim, attacker).await).0, "sign_in_provider_refused");
}

#[tokio::test]
async fn state_and_issuer_are_compared() {
    let world = World::new().await;
    let (flow, callback) = world.begin().await;
    let wrong_state = Callback { state: Some("x".to_owned()), ..callback.clone() };
    assert_eq!(refusal(world.finish(&flow, wrong_state).await).0, "sign_in_wrong_flow");
    let wrong_issuer = Callback { iss: Some("https://github.com".to_owned()), ..callback.clone() };
    assert_eq!(refusal(world.finish(&flow, wrong_issuer).await).0, "sign_in_wrong_issuer");
    // Older servers don't name themselves.
    world.finish(&flow, Callback { iss: None, ..callback }).await.unwrap();
}

#[tokio::test]
async fn the_browser_is_sent_to_github_itself() {
    let client =
        agentlens_identity::ClientCredentials { id: "client".to_owned(), secret: Secret::new("secret") };
    let redirect_uri = "https://agentlens.example/api/auth/github/callback";
    let provider = Provider::github(client);
    let started = sign_in().begin(&provider, redirect_uri, &entropy(), micros(NOW)).await.unwrap();
    assert!(started.url.as_str().starts_with("https://github.com/login/oauth/authorize?"));
    let asked = parameters(started.url.query().unwrap()).unwrap();
    assert_eq!((asked["scope"].as_str(), asked["redirect_uri"].as_str()), ("user:email", redirect_uri));
    assert!(!asked.contains_key("nonce"));
}
