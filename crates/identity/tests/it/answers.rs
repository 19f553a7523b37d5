//! What browsers bring back, and what token endpoints answer.

use agentlens_identity::Callback;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::doubles::oidc::{Double, Lies};
use crate::world::{World, refusal, visit};

/// Brings back something else than what the provider sent.
async fn brought(world: &World, change: impl FnOnce(&mut Callback)) -> (&'static str, String) {
    let started = world.begin().await;
    let mut callback = visit(started.url.as_str()).await;
    change(&mut callback);
    refusal(world.finish(&started.flow, callback).await)
}

#[tokio::test]
async fn an_answer_with_another_state_is_refused() {
    let world = World::new().await;
    let other = world.begin().await.flow.state;
    for state in [None, Some(String::new()), Some(other), Some("x".repeat(10_000))] {
        assert_eq!(brought(&world, |callback| callback.state = state).await.0, "sign_in_wrong_flow");
    }
    let prefix = brought(&world, |callback| {
        callback.state.as_mut().unwrap().pop();
    });
    assert_eq!(prefix.await.0, "sign_in_wrong_flow");
    assert_eq!(Double::count(&world.double.token_requests), 0, "no code is sent anywhere");
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused() {
    let world = World::new().await;
    let slash = format!("{}/", world.double.issuer);
    for iss in [None, Some(String::new()), Some(slash), Some("https://evil.example".to_owned())] {
        assert_eq!(brought(&world, |callback| callback.iss = iss).await.0, "sign_in_wrong_issuer");
    }
    assert_eq!(Double::count(&world.double.token_requests), 0, "no code is sent anywhere");
}

#[tokio::test]
async fn a_provider_that_never_names_itself_need_not_do_so_in_an_answer() {
    let lies = Lies {
        discovery: Box::new(|document| {
            document.as_object_mut().unwrap().remove("authorization_response_iss_parameter_supported");
        }),
        answer: Box::new(|answer| {
            answer.as_object_mut().unwrap().remove("iss");
        }),
        ..Lies::default()
    };
    let world = World::lying(lies).await;
    world.run().await.unwrap();
    let other = brought(&world, |callback| callback.iss = Some("https://evil.example".to_owned()));
    assert_eq!(other.await.0, "sign_in_wrong_issuer");
}

#[tokio::test]
async fn an_error_is_told_without_the_providers_words() {
    let world = World::new().await;
    let error = |text: &str| {
        let error = Some(text.to_owned());
        |callback: &mut Callback| *callback = Callback { error, code: None, ..callback.clone() }
    };
    assert_eq!(brought(&world, error("access_denied")).await, ("sign_in_cancelled", String::new()));
    let refused = |text: &str| ("sign_in_provider_refused", text.to_owned());
    assert_eq!(brought(&world, error("temporarily_unavailable")).await, refused("temporarily_unavailable"));
    let invented = "<script>alert(1)</script>";
    assert_eq!(brought(&world, error(invented)).await, refused("an error that no standard names"));
    // An error with a code is an error; and an error is believed from the right provider only.
    let with_code = |callback: &mut Callback| callback.error = Some("access_denied".to_owned());
    assert_eq!(brought(&world, with_code).await.0, "sign_in_cancelled");
    let forged = |callback: &mut Callback| {
        callback.error = Some("access_denied".to_owned());
        callback.state = None;
    };
    assert_eq!(brought(&world, forged).await.0, "sign_in_wrong_flow");
    assert_eq!(Double::count(&world.double.token_requests), 0);
}

#[tokio::test]
async fn an_answer_without_a_usable_code_is_refused() {
    let world = World::new().await;
    for code in [None, Some(String::new()), Some("c".repeat(8_193))] {
        assert_eq!(brought(&world, |callback| callback.code = code).await.0, "sign_in_invalid_answer");
    }
    assert_eq!(Double::count(&world.double.token_requests), 0);
    let unknown = brought(&world, |callback| callback.code = Some("made-up".to_owned()));
    assert_eq!(
        unknown.await,
        ("sign_in_provider_refused", "the token endpoint answered: invalid_grant".to_owned())
    );
}

#[tokio::test]
async fn a_token_endpoint_that_refuses_or_talks_nonsense_signs_nobody_in() {
    type Answer = fn() -> axum::response::Response;
    let cases: [(&str, Answer); 10] = [
        ("sign_in_misconfigured", || crate::doubles::json(401, &json!({"error": "invalid_client"}))),
        ("sign_in_misconfigured", || {
            crate::doubles::json(200, &json!({"error": "incorrect_client_credentials"}))
        }),
        ("sign_in_provider_refused", || {
            crate::doubles::json(200, &json!({"error": "bad_verification_code"}))
        }),
        ("sign_in_provider_refused", || crate::doubles::json(400, &json!({"error": "who knows"}))),
        ("sign_in_invalid_answer", || (StatusCode::OK, "<html>").into_response()),
        ("sign_in_invalid_answer", || crate::doubles::json(200, &json!({}))),
        ("sign_in_invalid_answer", || crate::doubles::json(500, &json!("broken"))),
        ("sign_in_invalid_answer", || {
            (StatusCode::OK, [("content-type", "application/json")], "").into_response()
        }),
        ("sign_in_invalid_answer", || (StatusCode::OK, vec![b' '; 256 * 1024 + 1]).into_response()),
        ("sign_in_invalid_answer", || {
            (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response()
        }),
    ];
    for (index, (code, response)) in cases.into_iter().enumerate() {
        let world = World::lying(Lies { token_response: Some(response), ..Lies::default() }).await;
        assert_eq!(refusal(world.run().await).0, code, "{index}");
        assert_eq!(Double::count(&world.double.token_requests), 1, "{index}");
    }
}

#[tokio::test]
async fn an_answer_without_a_usable_token_is_refused() {
    let cases = [("id_token", json!(null)), ("token_type", json!("mac")), ("access_token", json!(null))];
    for (name, value) in cases {
        let lies = Lies { token: Box::new(move |answer| answer[name] = value.clone()), ..Lies::default() };
        assert_eq!(refusal(World::lying(lies).await.run().await).0, "sign_in_invalid_answer", "{name}");
    }
    for id_token in ["", "a.b", "a.b.c", "....", "not a token", "eyJhbGciOiJFUzI1NiJ9.e30.AA"] {
        let lies =
            Lies { token: Box::new(move |answer| answer["id_token"] = json!(id_token)), ..Lies::default() };
        assert_eq!(refusal(World::lying(lies).await.run().await).0, "sign_in_invalid_token", "{id_token}");
    }
}
