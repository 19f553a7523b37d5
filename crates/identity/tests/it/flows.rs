//! Flows: begun once, ended once, with the same provider.

use agentlens_identity::{FlowSecrets, OidcConnection, Provider, Secret};

use crate::doubles::oidc::{Double, Lies};
use crate::doubles::parameters;
use crate::doubles::signing::Key;
use crate::world::{NOW, REDIRECT_URI, World, connection, entropy, micros, refusal, sign_in, visit};

#[tokio::test]
async fn an_answer_that_is_replayed_is_refused_by_the_provider() {
    let world = World::new().await;
    let started = world.begin().await;
    let callback = visit(started.url.as_str()).await;
    world.finish(&started.flow, callback.clone()).await.unwrap();
    assert_eq!(refusal(world.finish(&started.flow, callback).await).0, "sign_in_provider_refused");
}

#[tokio::test]
async fn a_code_of_another_flow_is_refused() {
    // Login CSRF, and a stolen code: the attacker's code with the victim's flow.
    let world = World::new().await;
    let (victim, attacker) = (world.begin().await, world.begin().await);
    let mut callback = visit(attacker.url.as_str()).await;
    callback.state = Some(victim.flow.state.clone());
    // PKCE stops it at the provider, before there is a token.
    assert_eq!(refusal(world.finish(&victim.flow, callback).await).0, "sign_in_provider_refused");
}

#[tokio::test]
async fn a_code_for_another_address_is_refused() {
    let world = World::new().await;
    let started = world.begin().await;
    let callback = visit(started.url.as_str()).await;
    let other = "http://127.0.0.1:1/api/auth/google/callback";
    let result = world.sign_in.finish(&world.provider, &started.flow, callback, other, micros(NOW)).await;
    assert_eq!(refusal(result).0, "sign_in_provider_refused");
}

#[tokio::test]
async fn a_flow_is_not_ended_with_another_provider_or_other_settings() {
    let world = World::new().await;
    let other = Double::start(REDIRECT_URI, Key::ec("other"), NOW).await;
    let right = connection(&world.double);
    let mut changed = [right.clone(), right.clone(), right.clone()];
    changed[0].id = "connection-2".to_owned();
    changed[1].issuer.clone_from(&other.issuer);
    changed[2].client.id = "another-client".to_owned();
    for connection in changed {
        let started = world.begin().await;
        let callback = visit(started.url.as_str()).await;
        let provider = Provider::Oidc(connection);
        let result =
            world.sign_in.finish(&provider, &started.flow, callback, REDIRECT_URI, micros(NOW)).await;
        assert_eq!(refusal(result).0, "sign_in_wrong_flow");
    }
    assert_eq!(Double::count(&world.double.token_requests) + Double::count(&other.token_requests), 0);
}

#[tokio::test]
async fn a_flow_survives_being_stored_and_other_processes() {
    let world = World::new().await;
    let started = world.begin().await;
    let stored = serde_json::to_string(&started.flow).unwrap();
    let flow: FlowSecrets = serde_json::from_str(&stored).unwrap();
    let callback = visit(started.url.as_str()).await;
    // Another node, which has fetched nothing yet.
    let result = sign_in().finish(&world.provider, &flow, callback, REDIRECT_URI, micros(NOW)).await;
    assert_eq!(result.unwrap().subject, "person-1");
}

#[tokio::test]
async fn secrets_are_never_printed_and_never_sent_to_the_browser() {
    let world = World::new().await;
    let started = world.begin().await;
    let flow = &started.flow;
    let url = started.url.as_str();
    assert!(!url.contains(&flow.pkce_verifier) && !url.contains(&world.double.registration.client_secret));
    let printed = format!("{:?} {:?} {:?}", started.flow, world.provider, visit(url).await);
    for secret in [&flow.state, &flow.nonce, &flow.pkce_verifier, &world.double.registration.client_secret] {
        assert!(!printed.contains(secret.as_str()), "{printed}");
    }
    for code in world.double.secrets.lock().unwrap().iter() {
        assert!(!printed.contains(code.as_str()), "{printed}");
    }
}

#[tokio::test]
async fn every_flow_has_secrets_of_its_own() {
    let world = World::new().await;
    let (first, second) = (world.begin().await.flow, world.begin().await.flow);
    let all = [
        &first.state,
        &first.nonce,
        &first.pkce_verifier,
        &second.state,
        &second.nonce,
        &second.pkce_verifier,
    ];
    let distinct: std::collections::HashSet<_> = all.into_iter().collect();
    assert_eq!(distinct.len(), 6);
    assert!(distinct.iter().all(|secret| secret.len() == 43), "256 bits each");
}

#[tokio::test]
async fn a_connections_scopes_are_asked_for_beside_the_usual_ones() {
    let world = World::new().await;
    let connection = OidcConnection { scopes: vec!["groups".to_owned()], ..connection(&world.double) };
    let started = world
        .sign_in
        .begin(&Provider::Oidc(connection), REDIRECT_URI, &entropy(), micros(NOW))
        .await
        .unwrap();
    let asked = parameters(started.url.query().unwrap()).unwrap();
    assert_eq!(asked["scope"], "openid email profile groups");
}

#[tokio::test]
async fn a_wrong_client_secret_is_the_administrators_task() {
    let world = World::new().await;
    let mut connection = connection(&world.double);
    connection.client.secret = Secret::new("wrong");
    let world = World { provider: Provider::Oidc(connection), ..world };
    let expected = ("sign_in_misconfigured", "the token endpoint answered: invalid_client".to_owned());
    assert_eq!(refusal(world.run().await), expected);
}

#[tokio::test]
async fn the_secret_is_sent_in_the_way_that_the_provider_takes() {
    for method in ["client_secret_basic", "client_secret_post"] {
        let lies = Lies {
            discovery: Box::new(move |document| {
                document["token_endpoint_auth_methods_supported"] =
                    serde_json::json!([method, "private_key_jwt"]);
            }),
            ..Lies::default()
        };
        World::lying(lies).await.run().await.unwrap();
    }
}
