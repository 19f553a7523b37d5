//! Forged id tokens. Each is refused, for the reason that was forged.

use serde_json::{Value, json};

use crate::doubles::oidc::{Change, Lies, Signature};
use crate::doubles::signing::Key;
use crate::world::{NOW, World, refusal};

fn claims(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Lies {
    Lies { claims: Box::new(change), ..Lies::default() }
}

fn set(name: &'static str, value: Value) -> Change {
    Box::new(move |document| document[name] = value.clone())
}

fn remove(name: &'static str) -> Change {
    Box::new(move |document| {
        document.as_object_mut().unwrap().remove(name);
    })
}

async fn assert_refused(name: &str, lies: Lies, reason: &str) {
    let world = World::lying(lies).await;
    let (code, detail) = refusal(world.run().await);
    assert_eq!((code, detail.contains(reason)), ("sign_in_invalid_token", true), "{name}: {detail}");
}

#[tokio::test]
async fn a_right_token_of_each_algorithm_signs_in() {
    for key in [Key::rsa("r"), Key::ec("e"), Key::ed("d")] {
        let name = key.algorithm();
        let world = World::with_key(key).await;
        let identity = world.run().await.unwrap();
        assert_eq!(identity.subject, "person-1", "{name}");
        assert_eq!(identity.provider_key, "oidc:connection-1");
        assert_eq!(
            (identity.verified_email(), identity.name.as_deref()),
            (Some("person@example.com"), Some("A Person"))
        );
        assert_eq!(identity.role_values, ["staff"]);
    }
}

#[tokio::test]
async fn a_token_for_another_client_is_refused() {
    const REASON: &str = "for another client";
    for (name, audience) in [
        ("another", json!("another-client")),
        ("list of another", json!(["another-client"])),
        ("none", json!([])),
        ("empty", json!("")),
    ] {
        assert_refused(name, claims(move |claims| claims["aud"] = audience.clone()), REASON).await;
    }
    let also_another = claims(|claims| claims["aud"] = json!([claims["aud"], "another-client"]));
    assert_refused("ours and another", also_another, REASON).await;
    let missing = Lies { claims: remove("aud"), ..Lies::default() };
    assert_refused("missing", missing, "").await;
    let party = Lies { claims: set("azp", json!("another-client")), ..Lies::default() };
    assert_refused("azp", party, "`azp`").await;
}

#[tokio::test]
async fn a_token_of_another_sign_in_is_refused() {
    for (name, change) in [
        ("another", set("nonce", json!("another-nonce-another-nonce-another-nonce-1"))),
        ("missing", remove("nonce")),
        ("empty", set("nonce", json!(""))),
        ("null", set("nonce", Value::Null)),
    ] {
        assert_refused(name, Lies { claims: change, ..Lies::default() }, "nonce").await;
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    for (name, suffix) in [("slash", "/"), ("tenant", "/other"), ("case", "X")] {
        let lies = claims(move |claims| {
            claims["iss"] = json!(format!("{}{suffix}", claims["iss"].as_str().unwrap()))
        });
        // `127.0.0.1:1X` is no address, so it can't be read at all.
        assert_refused(name, lies, if name == "case" { "" } else { "another issuer" }).await;
    }
    let other = Lies { claims: set("iss", json!("https://accounts.google.com")), ..Lies::default() };
    assert_refused("other", other, "another issuer").await;
    assert_refused("missing", Lies { claims: remove("iss"), ..Lies::default() }, "").await;
}

#[tokio::test]
async fn times_are_checked_with_a_minute_of_skew() {
    for (name, claim, second) in [
        ("expired", "exp", NOW - 60),
        ("expired long ago", "exp", 1),
        ("issued in the future", "iat", NOW + 61),
        ("issued before the flow", "iat", NOW - 661),
        ("not valid yet", "nbf", NOW + 61),
    ] {
        assert_refused(name, Lies { claims: set(claim, json!(second)), ..Lies::default() }, "").await;
    }
    for (name, change) in [
        ("never expires", remove("exp")),
        ("without a time of issue", remove("iat")),
        ("expiry is a word", set("exp", json!("tomorrow"))),
        ("not before is a word", set("nbf", json!("tomorrow"))),
    ] {
        assert_refused(name, Lies { claims: change, ..Lies::default() }, "").await;
    }
    for (claim, second) in
        [("exp", NOW - 59), ("iat", NOW + 60), ("iat", NOW - 660), ("nbf", NOW + 60), ("nbf", NOW - 9)]
    {
        let world = World::lying(Lies { claims: set(claim, json!(second)), ..Lies::default() }).await;
        assert!(world.run().await.is_ok(), "{claim} {second}");
    }
}

#[tokio::test]
async fn a_token_that_was_changed_or_signed_by_others_is_refused() {
    let signed = |signature| Lies { signature, ..Lies::default() };
    assert_refused("tampered", signed(Signature::Tampered), "signature is wrong").await;
    assert_refused("other key, same id", signed(Signature::With(Key::ec("other"))), "signature is wrong")
        .await;
    // RSA under the id of a key that is of another kind.
    assert_refused("other kind of key", signed(Signature::With(Key::rsa("other"))), "unknown key").await;
    let relabelled = Lies {
        header: set("alg", json!("ES256")),
        signature: Signature::With(Key::rsa("other")),
        ..Lies::default()
    };
    assert_refused("RSA called ES256", relabelled, "signature is wrong").await;
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    assert_refused("none", Lies { signature: Signature::None, ..Lies::default() }, "not signed").await;
    for name in ["None", "NONE", "nOnE", ""] {
        let lies = Lies { signature: Signature::None, header: set("alg", json!(name)), ..Lies::default() };
        assert_refused(name, lies, "can't be read").await;
    }
    let stripped = Lies { signature: Signature::None, header: set("alg", json!("ES256")), ..Lies::default() };
    assert_refused("stripped", stripped, "signature is wrong").await;
}

#[tokio::test]
async fn a_token_with_a_shared_secret_is_refused() {
    const REASON: &str = "not allowed";
    let world = World::new().await;
    let client_secret = world.double.registration.client_secret.clone().into_bytes();
    let public_key = world.double.keys.lock().unwrap()[0].public_bytes();
    for (name, secret) in
        [("client secret", client_secret), ("public key", public_key), ("empty", Vec::new())]
    {
        world.double.lie(Lies { signature: Signature::Hmac(secret), ..Lies::default() });
        let (code, detail) = refusal(world.run().await);
        assert_eq!((code, detail.contains(REASON)), ("sign_in_invalid_token", true), "{name}: {detail}");
    }
    // Even if the provider publishes the secret as a key.
    let published = Lies {
        jwks: Box::new(|document| {
            let symmetric =
                json!({"kty": "oct", "k": "c2VjcmV0", "kid": "first", "alg": "HS256", "use": "sig"});
            document["keys"].as_array_mut().unwrap().insert(0, symmetric);
        }),
        signature: Signature::Hmac(b"secret".to_vec()),
        ..Lies::default()
    };
    assert_refused("published", published, REASON).await;
}

#[tokio::test]
async fn a_token_of_another_algorithm_is_refused() {
    let lies = Lies { header: set("alg", json!("RS384")), ..Lies::default() };
    let world = World::with_key(Key::rsa("r")).await;
    world.double.lie(lies);
    let (code, detail) = refusal(world.run().await);
    assert_eq!((code, detail.contains("not allowed")), ("sign_in_invalid_token", true), "{detail}");
    for name in ["PS256", "ES384", "ES512", "RS512"] {
        assert_refused(name, Lies { header: set("alg", json!(name)), ..Lies::default() }, "not allowed")
            .await;
    }
    for name in ["RS1", "ES256K", "A128GCM"] {
        assert_refused(name, Lies { header: set("alg", json!(name)), ..Lies::default() }, "").await;
    }
}

#[tokio::test]
async fn a_token_of_another_kind_is_refused() {
    for (name, value) in [
        ("typ", json!("at+jwt")),
        ("typ", json!("logout+jwt")),
        ("cty", json!("JWT")),
        ("crit", json!(["exp"])),
    ] {
        assert_refused(name, Lies { header: set(name, value), ..Lies::default() }, "not supported").await;
    }
}

#[tokio::test]
async fn an_access_token_of_somebody_else_is_refused() {
    let exchanged = Lies { token: set("access_token", json!("another-access-token")), ..Lies::default() };
    assert_refused("exchanged", exchanged, "`at_hash`").await;
    let hash = Lies { claims: set("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), ..Lies::default() };
    assert_refused("hash", hash, "`at_hash`").await;
    let world = World::lying(Lies { claims: remove("at_hash"), ..Lies::default() }).await;
    assert!(world.run().await.is_ok(), "a provider need not bind them");
}

#[tokio::test]
async fn a_subject_that_names_nobody_is_refused() {
    for subject in [json!(""), json!("x".repeat(256)), json!("a\nb")] {
        let world = World::lying(Lies { claims: set("sub", subject), ..Lies::default() }).await;
        assert_eq!(refusal(world.run().await).0, "sign_in_invalid_answer");
    }
    for change in [remove("sub"), set("sub", json!(7)), set("sub", Value::Null)] {
        assert_refused("no text", Lies { claims: change, ..Lies::default() }, "").await;
    }
}
