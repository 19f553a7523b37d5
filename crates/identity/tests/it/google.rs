//! Google.

use agentlens_identity::{Callback, ClientCredentials, Identity, Provider, Secret, SignIn, SignInError};
use serde_json::json;

use crate::doubles::google::Google;
use crate::doubles::parameters;
use crate::world::{NOW, REDIRECT_URI, entropy, micros, refusal, sign_in, visit};

async fn run(
    sign_in: &SignIn,
    provider: &Provider,
    change: fn(&mut Callback),
) -> Result<Identity, SignInError> {
    let started = sign_in.begin(provider, REDIRECT_URI, &entropy(), micros(NOW)).await.unwrap();
    let mut callback = visit(started.url.as_str()).await;
    change(&mut callback);
    sign_in.finish(provider, &started.flow, callback, REDIRECT_URI, micros(NOW)).await
}

#[tokio::test]
async fn a_person_signs_in() {
    let double = Google::start(REDIRECT_URI, NOW).await;
    let (sign_in, provider) = (sign_in(), double.provider());
    sign_in.check(&provider, micros(NOW)).await.unwrap();
    let identity = run(&sign_in, &provider, |_| {}).await.unwrap();
    assert_eq!(
        (identity.provider_key.as_str(), identity.subject.as_str()),
        ("google", "110169484474386276334")
    );
    assert_eq!(
        (identity.verified_email(), identity.name.as_deref()),
        (Some("person@gmail.com"), Some("A Person"))
    );
    double.person.lock().unwrap()["email_verified"] = json!(false);
    let identity = run(&sign_in, &provider, |_| {}).await.unwrap();
    assert_eq!((identity.verified_email(), identity.unrefuted_email()), (None, None));
}

#[tokio::test]
async fn google_named_in_the_answer_must_be_google() {
    let double = Google::start(REDIRECT_URI, NOW).await;
    let (sign_in, provider) = (sign_in(), double.provider());
    let named = |callback: &mut Callback| callback.iss = Some("https://accounts.google.com".to_owned());
    run(&sign_in, &provider, named).await.unwrap();
    let other = |callback: &mut Callback| callback.iss = Some("accounts.google.com".to_owned());
    assert_eq!(refusal(run(&sign_in, &provider, other).await).0, "sign_in_wrong_issuer");
}

#[tokio::test]
async fn a_replayed_code_and_a_wrong_secret_are_refused() {
    let double = Google::start(REDIRECT_URI, NOW).await;
    let (sign_in, provider) = (sign_in(), double.provider());
    let started = sign_in.begin(&provider, REDIRECT_URI, &entropy(), micros(NOW)).await.unwrap();
    let callback = visit(started.url.as_str()).await;
    let finish = |callback| sign_in.finish(&provider, &started.flow, callback, REDIRECT_URI, micros(NOW));
    finish(callback.clone()).await.unwrap();
    assert_eq!(refusal(finish(callback).await).0, "sign_in_provider_refused");
    let mut wrong = double.provider();
    if let Provider::Google { client, .. } = &mut wrong {
        client.secret = Secret::new("wrong");
    }
    assert_eq!(refusal(run(&sign_in, &wrong, |_| {}).await).0, "sign_in_misconfigured");
}

#[tokio::test]
async fn the_browser_is_sent_to_google_itself() {
    let client = ClientCredentials { id: "client".to_owned(), secret: Secret::new("secret") };
    let redirect_uri = "https://agentlens.example/api/auth/google/callback";
    let started =
        sign_in().begin(&Provider::google(client), redirect_uri, &entropy(), micros(NOW)).await.unwrap();
    assert!(started.url.as_str().starts_with("https://accounts.google.com/o/oauth2/v2/auth?"));
    let asked = parameters(started.url.query().unwrap()).unwrap();
    let expected = ("openid email profile", redirect_uri, "S256");
    assert_eq!(
        (asked["scope"].as_str(), asked["redirect_uri"].as_str(), asked["code_challenge_method"].as_str()),
        expected
    );
}
