//! Discovery documents that lie, and addresses that must not be asked.

use agentlens_identity::{Provider, SignIn};
use agentlens_outbound::AllowList;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::doubles::oidc::{Double, Lies};
use crate::world::{NOW, World, connection, micros, refusal};

async fn assert_refused(name: &str, lies: Lies, code: &str, reason: &str) {
    let world = World::lying(lies).await;
    let (actual, detail) = refusal(world.run().await);
    assert_eq!((actual, detail.contains(reason)), (code, true), "{name}: {detail}");
    let checked = world.sign_in.check(&world.provider, micros(NOW)).await.unwrap_err();
    assert_eq!(checked.code(), code, "{name}");
}

fn set(name: &'static str, value: Value) -> Lies {
    Lies { discovery: Box::new(move |document| document[name] = value.clone()), ..Lies::default() }
}

#[tokio::test]
async fn a_document_of_another_issuer_is_refused() {
    for suffix in ["/", "/tenant", "?x"] {
        let lies = Lies {
            discovery: Box::new(move |document| {
                document["issuer"] = json!(format!("{}{suffix}", document["issuer"].as_str().unwrap()));
            }),
            ..Lies::default()
        };
        assert_refused(suffix, lies, "sign_in_misconfigured", "names the issuer").await;
    }
    let other = set("issuer", json!("https://accounts.google.com"));
    assert_refused("other", other, "sign_in_misconfigured", "names the issuer").await;
    // As it is written in the settings, so it must be in the document: here the settings have a slash too many.
    let world = World::new().await;
    let mut connection = connection(&world.double);
    connection.issuer.push('/');
    let world = World { provider: Provider::Oidc(connection), ..world };
    assert_eq!(refusal(world.run().await).0, "sign_in_misconfigured");
}

#[tokio::test]
async fn a_document_cannot_lead_where_customers_requests_must_not_go() {
    for field in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
        for address in [
            "https://10.0.0.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "http://idp.example/x",
            "https://user:password@idp.example/",
            "javascript:alert(1)//",
            "data:text/html,x",
            "/relative",
            "",
        ] {
            let name = format!("{field} {address}");
            assert_refused(&name, set(field, json!(address)), "sign_in_misconfigured", field).await;
        }
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_used_is_refused_at_once() {
    let algorithms = set("id_token_signing_alg_values_supported", json!(["HS256", "PS256", "none"]));
    assert_refused("algorithms", algorithms, "sign_in_misconfigured", "RS256").await;
    let methods = set("token_endpoint_auth_methods_supported", json!(["private_key_jwt", "none"]));
    assert_refused("methods", methods, "sign_in_misconfigured", "client secret").await;
    for field in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"] {
        assert_refused(field, set(field, Value::Null), "sign_in_invalid_answer", "JSON").await;
    }
}

#[tokio::test]
async fn documents_are_bounded_and_redirects_are_not_followed() {
    type Answer = fn() -> Response;
    let cases: [(&str, Answer, &str, &str); 6] = [
        ("large", || vec![b' '; 256 * 1024 + 1].into_response(), "sign_in_invalid_answer", "larger"),
        ("HTML", || "<html>".into_response(), "sign_in_invalid_answer", "JSON"),
        ("list", || crate::doubles::json(200, &json!([])), "sign_in_invalid_answer", "JSON"),
        (
            "moved",
            || (StatusCode::FOUND, [("location", "/jwks")]).into_response(),
            "sign_in_invalid_answer",
            "302",
        ),
        ("missing", || StatusCode::NOT_FOUND.into_response(), "sign_in_invalid_answer", "404"),
        ("broken", || StatusCode::BAD_GATEWAY.into_response(), "sign_in_provider_unreachable", "502"),
    ];
    for (name, response, code, reason) in cases {
        let lies = Lies { discovery_response: Some(response), ..Lies::default() };
        assert_refused(name, lies, code, reason).await;
    }
}

#[tokio::test]
async fn an_issuer_that_may_not_be_asked_is_refused() {
    let world = World::new().await;
    for (issuer, code) in [
        ("http://idp.example", "sign_in_misconfigured"),
        ("https://10.0.0.1", "sign_in_misconfigured"),
        ("https://idp.example/?tenant=1", "sign_in_misconfigured"),
        ("https://idp.example/#x", "sign_in_misconfigured"),
        ("idp.example", "sign_in_misconfigured"),
        ("", "sign_in_misconfigured"),
        ("http://127.0.0.1:1", "sign_in_provider_unreachable"),
    ] {
        let mut connection = connection(&world.double);
        connection.issuer = issuer.to_owned();
        let checked = world.sign_in.check(&Provider::Oidc(connection), micros(NOW)).await;
        assert_eq!(checked.unwrap_err().code(), code, "{issuer}");
    }
    // Without the operator's leave, not even the double is asked.
    let strict = SignIn::new(AllowList::default()).unwrap();
    assert_eq!(strict.check(&world.provider, micros(NOW)).await.unwrap_err().code(), "sign_in_misconfigured");
    assert_eq!(Double::count(&world.double.discovery_requests), 0);
}

#[tokio::test]
async fn a_document_is_fetched_again_after_an_hour() {
    let world = World::new().await;
    world.run().await.unwrap();
    world.run_at(NOW + 3_599).await.unwrap();
    assert_eq!(Double::count(&world.double.discovery_requests), 1);
    world.double.lie(set("issuer", json!("https://evil.example")));
    assert_eq!(refusal(world.run_at(NOW + 3_600).await).0, "sign_in_misconfigured");
}

#[tokio::test]
async fn a_connection_that_works_passes_the_check() {
    let world = World::new().await;
    world.sign_in.check(&world.provider, micros(NOW)).await.unwrap();
    assert_eq!(Double::count(&world.double.key_requests), 1);
}
