//! Claims that stand at the userinfo address.

use serde_json::{Value, json};

use crate::doubles::oidc::{Change, Lies};
use crate::world::{World, refusal};

/// An id token with nothing but the subject, as strict providers give.
fn bare_token() -> Change {
    Box::new(|claims| {
        for name in ["email", "email_verified", "name", "groups"] {
            claims.as_object_mut().unwrap().remove(name);
        }
    })
}

fn userinfo(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Lies {
    Lies { claims: bare_token(), userinfo: Box::new(change), ..Lies::default() }
}

#[tokio::test]
async fn what_the_token_lacks_is_asked_for() {
    let world = World::lying(userinfo(|_| {})).await;
    let identity = world.run().await.unwrap();
    assert_eq!(identity.verified_email(), Some("person@example.com"));
    assert_eq!(
        (identity.name.as_deref(), identity.role_values.as_slice()),
        (Some("A Person"), &["staff".to_owned()][..])
    );
}

#[tokio::test]
async fn another_persons_claims_are_refused() {
    let world = World::lying(userinfo(|claims| claims["sub"] = json!("person-2"))).await;
    let (code, detail) = refusal(world.run().await);
    assert_eq!((code, detail.contains("another person")), ("sign_in_invalid_token", true), "{detail}");
    let nobody = World::lying(userinfo(|claims| claims["sub"] = Value::Null)).await;
    assert_eq!(refusal(nobody.run().await).0, "sign_in_invalid_answer");
}

#[tokio::test]
async fn an_address_that_is_not_verified_is_not_believed() {
    for (said, verified, unrefuted) in
        [(json!(false), false, false), (json!("false"), false, false), (Value::Null, false, true)]
    {
        let lies = Lies {
            claims: {
                let said = said.clone();
                Box::new(move |claims| claims["email_verified"] = said.clone())
            },
            userinfo: Box::new(move |claims| claims["email_verified"] = said.clone()),
            ..Lies::default()
        };
        let identity = World::lying(lies).await.run().await.unwrap();
        assert_eq!(
            (identity.verified_email().is_some(), identity.unrefuted_email().is_some()),
            (verified, unrefuted)
        );
    }
}

#[tokio::test]
async fn a_no_in_either_place_is_a_no() {
    // The token leaves it open, as Microsoft's do.
    let lies = Lies {
        claims: Box::new(|claims| claims["email_verified"] = Value::Null),
        userinfo: Box::new(|claims| claims["email_verified"] = json!(false)),
        ..Lies::default()
    };
    assert_eq!(World::lying(lies).await.run().await.unwrap().unrefuted_email(), None);
}

#[tokio::test]
async fn an_address_that_is_none_is_left_out() {
    for email in ["", "person", "a b@example.com", "a@example.com\nbcc: b@example.com"] {
        let world = World::lying(userinfo(move |claims| claims["email"] = json!(email))).await;
        assert_eq!(world.run().await.unwrap().email, None, "{email:?}");
    }
    let long = format!("{}@example.com", "a".repeat(250));
    let world = World::lying(userinfo(move |claims| claims["email"] = json!(long))).await;
    assert_eq!(world.run().await.unwrap().email, None);
}

#[tokio::test]
async fn a_userinfo_address_that_fails_signs_nobody_in() {
    for (status, code) in [(401, "sign_in_invalid_answer"), (500, "sign_in_provider_unreachable")] {
        let world = World::lying(Lies { userinfo_status: status, ..userinfo(|_| {}) }).await;
        assert_eq!(refusal(world.run().await).0, code);
    }
}
