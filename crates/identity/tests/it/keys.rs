//! Keys of providers: rotated, unknown, withdrawn, weak.

use serde_json::{Value, json};

use crate::doubles::oidc::{Double, Lies, Signature};
use crate::doubles::signing::Key;
use crate::world::{NOW, World, micros, refusal};

fn key_id(kid: &'static str) -> Lies {
    Lies { header: Box::new(move |header| header["kid"] = json!(kid)), ..Lies::default() }
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_when_they_were_rotated() {
    let world = World::new().await;
    for _ in 0..3 {
        world.run().await.unwrap();
    }
    assert_eq!(Double::count(&world.double.key_requests), 1);
    assert_eq!(Double::count(&world.double.discovery_requests), 1);
    *world.double.keys.lock().unwrap() = vec![Key::ec("second")];
    assert!(refusal(world.run_at(NOW + 59).await).1.contains("unknown key"), "a minute hasn't passed");
    world.run_at(NOW + 60).await.unwrap();
    assert_eq!(Double::count(&world.double.key_requests), 2);
}

#[tokio::test]
async fn made_up_key_ids_lead_to_one_request_a_minute() {
    let world = World::new().await;
    world.run().await.unwrap();
    world.double.lie(key_id("made-up"));
    for now in [NOW + 60, NOW + 61, NOW + 90, NOW + 119] {
        let (code, detail) = refusal(world.run_at(now).await);
        assert_eq!((code, detail.contains("unknown key")), ("sign_in_invalid_token", true), "{detail}");
    }
    assert_eq!(Double::count(&world.double.key_requests), 2);
    refusal(world.run_at(NOW + 120).await);
    assert_eq!(Double::count(&world.double.key_requests), 3);
    // Those who are honest aren't in the way of it.
    world.double.lie(Lies::default());
    world.run_at(NOW + 121).await.unwrap();
    assert_eq!(Double::count(&world.double.key_requests), 3);
}

#[tokio::test]
async fn those_who_come_at_once_share_one_request() {
    let world = World::new().await;
    let first = tokio::join!(world.run(), world.run(), world.run(), world.run());
    assert!(first.0.is_ok() && first.1.is_ok() && first.2.is_ok() && first.3.is_ok());
    assert_eq!(Double::count(&world.double.key_requests), 1);
    *world.double.keys.lock().unwrap() = vec![Key::ec("second")];
    let at = NOW + 60;
    let second = tokio::join!(world.run_at(at), world.run_at(at), world.run_at(at), world.run_at(at));
    assert!(second.0.is_ok() && second.1.is_ok() && second.2.is_ok() && second.3.is_ok());
    assert_eq!(Double::count(&world.double.key_requests), 2);
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_not_believed_after_an_hour() {
    let world = World::new().await;
    world.run().await.unwrap();
    let stolen =
        std::mem::replace(&mut *world.double.keys.lock().unwrap(), vec![Key::ec("second")]).remove(0);
    world.double.lie(Lies { signature: Signature::With(stolen), ..key_id("first") });
    assert!(world.run_at(NOW + 3_599).await.is_ok());
    assert!(refusal(world.run_at(NOW + 3_600).await).1.contains("unknown key"));
}

#[tokio::test]
async fn a_token_must_say_which_of_several_keys_signed_it() {
    let nameless = || Lies {
        header: Box::new(|header| {
            header.as_object_mut().unwrap().remove("kid");
        }),
        ..Lies::default()
    };
    let world = World::lying(nameless()).await;
    world.run().await.unwrap();
    let world = World::lying(nameless()).await;
    world.double.keys.lock().unwrap().push(Key::ec("second"));
    assert!(refusal(world.run().await).1.contains("which of several keys"));
}

#[tokio::test]
async fn a_short_rsa_key_is_not_used() {
    let world = World::with_key(Key::weak_rsa("weak")).await;
    let (code, detail) = refusal(world.run().await);
    assert_eq!(
        (code, detail.contains("no key that can be used")),
        ("sign_in_invalid_answer", true),
        "{detail}"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_passed_over() {
    let lies = Lies {
        jwks: Box::new(|document| {
            let keys = document["keys"].as_array_mut().unwrap();
            keys.push(json!("nonsense"));
            keys.push(json!({"kty": "RSA"}));
            keys.push(json!({"kty": "EC", "crv": "P-256", "x": 1, "y": null}));
            keys.push(json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "first"}));
            keys.push(json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}));
        }),
        ..Lies::default()
    };
    World::lying(lies).await.run().await.unwrap();
}

#[tokio::test]
async fn too_many_keys_or_none_are_refused() {
    for keys in [json!([]), Value::Array(vec![json!({"kty": "RSA"}); 51]), json!({}), Value::Null] {
        let world = World::lying(Lies {
            jwks: Box::new(move |document| document["keys"] = keys.clone()),
            ..Lies::default()
        });
        let world = world.await;
        assert_eq!(refusal(world.run().await).0, "sign_in_invalid_answer");
        let checked = world.sign_in.check(&world.provider, micros(NOW)).await;
        assert_eq!(checked.unwrap_err().code(), "sign_in_invalid_answer");
    }
}
