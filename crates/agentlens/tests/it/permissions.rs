//! Every operation of `openapi.json` needs the permission that it names there, or is on the list of open ones: tried without a
//! credential, with a key of each scope, and by a person of each role.

use serde_json::{Value, json};

use crate::world::{Api, World};

on_both_engines!(every_operation_needs_the_permission_that_it_names,);

/// Operations that need no credential. This list is compared for equality, so an operation gets on it by a decision only.
const OPEN: [&str; 16] = [
    "GET /.well-known/jwks.json",
    "GET /api/health",
    "GET /api/server-info",
    "GET /api/version",
    "GET /v1/deletions/{id}",
    "GET /v1/sign-in/{provider}/callback",
    "POST /v1/invitations/join",
    "POST /v1/invitations/look",
    "POST /v1/keys/revoke-leaked",
    "POST /v1/password/forgotten",
    "POST /v1/password/reset",
    "POST /v1/sign-in",
    "POST /v1/sign-in/code",
    "POST /v1/sign-in/{provider}",
    "POST /v1/sign-up",
    "POST /v1/verify",
];
const SCOPES: [&str; 10] = [
    "events:write",
    "events:read",
    "audit:read",
    "keys:manage",
    "org:read",
    "org:manage",
    "members:manage",
    "workspaces:manage",
    "prices:manage",
    "dead_letters:manage",
];
/// The roles with what they do not include.
const ROLES: [(&str, &[&str]); 5] = [
    ("owner", &[]),
    ("admin", &["owners:manage", "org:delete"]),
    (
        "auditor",
        &[
            "events:write",
            "keys:manage",
            "org:manage",
            "members:manage",
            "workspaces:manage",
            "prices:manage",
            "dead_letters:manage",
            "sso:manage",
            "owners:manage",
            "org:delete",
        ],
    ),
    (
        "member",
        &[
            "audit:read",
            "keys:manage",
            "org:manage",
            "members:manage",
            "workspaces:manage",
            "prices:manage",
            "sso:manage",
            "owners:manage",
            "org:delete",
        ],
    ),
    (
        "viewer",
        &[
            "events:write",
            "audit:read",
            "keys:manage",
            "org:manage",
            "members:manage",
            "workspaces:manage",
            "prices:manage",
            "dead_letters:manage",
            "sso:manage",
            "owners:manage",
            "org:delete",
        ],
    ),
];
/// What ends the access of whoever asks, so it is asked last.
const LAST: [&str; 3] = ["DELETE /v1/me/sessions", "POST /v1/members/leave", "POST /v1/sign-out"];

/// An operation and the permission that it names.
struct Operation {
    name: String,
    method: String,
    path: String,
    permission: String,
}

async fn operations(world: &World) -> Vec<Operation> {
    let document = world.read("/openapi.json").await;
    let mut all = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        let is_method = |name: &str| !["parameters", "summary", "description", "servers"].contains(&name);
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| is_method(name)) {
            let method = method.to_uppercase();
            let name = format!("{method} {template}");
            let permission = operation["x-permission"].as_str();
            let permission = permission.unwrap_or_else(|| panic!("{name} names no permission")).to_owned();
            let is_open = operation["security"] == json!([]) || operation["security"] == json!([{}]);
            assert_eq!(is_open, permission == "none", "{name}");
            let path = template
                .replace("{id}", "nobody")
                .replace("{name}", "nothing")
                .replace("{provider}", "google");
            all.push(Operation { name, method, path, permission });
        }
    }
    all.sort_by_key(|operation| (LAST.contains(&operation.name.as_str()), operation.name.clone()));
    all
}

/// The status, and the code of a refusal. Only the head of a good answer is read: a stream has no end.
async fn outcome(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    if status < 400 {
        return (status, String::new());
    }
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

async fn every_operation_needs_the_permission_that_it_names(world: World) {
    let operations = operations(&world).await;
    let keys: Vec<(&str, Api)> =
        SCOPES.iter().map(|scope| (*scope, world.make_key(&["--scope", scope]))).collect();
    let mut open: Vec<&str> = Vec::new();
    for Operation { name, method, path, permission } in &operations {
        let (status, code) = outcome(world.bare(method, path)).await;
        if permission == "none" {
            // A form is taken from pages of the server only. What programs send without a key needs its body, or names what is not there.
            let is_open = status == 200
                || ["cross_site", "unsupported_media_type", "not_found"].contains(&code.as_str());
            assert!(is_open, "{name}: {status} {code}");
            open.push(name);
            continue;
        }
        assert_eq!(status, 401, "{name} without a key");
        let mistyped = outcome(world.bare(method, path).bearer_auth("al_live_x")).await;
        assert_eq!(mistyped.0, 401, "{name} with a mistyped key");
        for (scope, api) in &keys {
            let (status, code) = outcome(api.request(method, path)).await;
            if permission == "account" {
                assert_eq!((status, code.as_str()), (401, "sign_in_required"), "{name} with {scope}");
            } else {
                let is_refused = code == "insufficient_scope";
                assert_eq!(
                    is_refused || status == 403 && code.is_empty(),
                    scope != permission,
                    "{name} with {scope}: {status} {code}"
                );
            }
        }
    }
    open.sort_unstable();
    assert_eq!(open, OPEN);
    assert!(operations.len() >= 60, "{} operations", operations.len());

    for (role, refused) in ROLES {
        let browser = world.person(&format!("{role}@example.com"), role).await;
        for Operation { name, method, path, permission } in &operations {
            if permission == "none" {
                continue;
            }
            let (status, code) = outcome(browser.request(method, path)).await;
            assert_ne!(status, 401, "{name} by {role}: {code}");
            let is_refused = code == "insufficient_role";
            // OTLP has an error body of its own, and says it by the status alone.
            let is_refused =
                is_refused || status == 403 && code.is_empty() && refused.contains(&permission.as_str());
            assert_eq!(
                is_refused,
                refused.contains(&permission.as_str()),
                "{name} by {role}: {status} {code}"
            );
            // From a page of another site nothing may be changed.
            if method != "GET" && !LAST.contains(&name.as_str()) {
                let elsewhere = browser.request(method, path).header("origin", "https://evil.example.com");
                let (status, code) = outcome(elsewhere).await;
                assert!(
                    status == 403 && (code == "cross_site" || code.is_empty()),
                    "{name} by {role}: {status} {code}"
                );
            }
        }
    }
}
