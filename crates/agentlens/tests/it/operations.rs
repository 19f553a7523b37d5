//! Every operation and the permission it needs. A route that is not in this list fails the test.

use serde_json::json;

use crate::samples::note;
use crate::world::World;

on_both_engines!(every_operation_needs_its_scope);

const OPERATIONS: &[(&str, &str, Option<&str>)] = &[
    ("post", "/api/events", Some("events:write")),
    ("post", "/v1/traces", Some("events:write")),
    ("post", "/v1/logs", Some("events:write")),
    ("post", "/v1/metrics", Some("events:write")),
    ("get", "/v1/ingest/ledger", Some("events:read")),
    ("get", "/v1/ingest/requests", Some("events:read")),
    ("get", "/v1/ingest/unmapped", Some("events:read")),
    ("get", "/api/events", Some("events:read")),
    ("get", "/api/events/{id}", Some("events:read")),
    ("get", "/api/sessions", Some("events:read")),
    ("get", "/api/sessions/{id}", Some("events:read")),
    ("get", "/api/sessions/{id}/timeline", Some("events:read")),
    ("get", "/api/sessions/{id}/trace", Some("events:read")),
    ("get", "/api/agents", Some("events:read")),
    ("get", "/api/agents/{id}", Some("events:read")),
    ("get", "/api/analytics", Some("events:read")),
    ("get", "/api/analytics/llm", Some("events:read")),
    ("get", "/api/analytics/costs", Some("events:read")),
    ("get", "/api/analytics/agents", Some("events:read")),
    ("get", "/api/analytics/tools", Some("events:read")),
    ("get", "/api/analytics/users", Some("events:read")),
    ("get", "/api/stats", Some("events:read")),
    ("get", "/api/stats/overview", Some("events:read")),
    ("get", "/api/stream", Some("events:read")),
    ("get", "/api/audit/verify", Some("audit:read")),
    ("get", "/api/health", None),
    ("get", "/api/server-info", None),
    ("get", "/api/version", None),
];
const SCOPES: [&str; 4] = ["events:write", "events:read", "audit:read", "keys:manage"];

async fn every_operation_needs_its_scope(world: World) {
    let document = world.read("/openapi.json").await;
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_open = operation["security"] == json!([]) || operation["security"] == json!([{}]);
            described.push((method.as_str(), path.as_str(), is_open));
        }
    }
    let mut listed: Vec<_> =
        OPERATIONS.iter().map(|(method, path, scope)| (*method, *path, scope.is_none())).collect();
    described.sort_unstable();
    listed.sort_unstable();
    assert_eq!(described, listed, "openapi.json and this list differ");

    world.send(&[note("s", "x")]).await;
    let keys: Vec<_> = SCOPES.iter().map(|scope| (*scope, world.make_key(&["--scope", scope]))).collect();
    for (method, path, needed) in OPERATIONS {
        let path = path.replace("{id}", "s");
        let method = method.to_uppercase();
        let without = world.bare(&method, &path).send().await.unwrap().status();
        let Some(needed) = needed else {
            assert_eq!(without, 200, "{path}");
            continue;
        };
        assert_eq!(without, 401, "{method} {path} without a key");
        let mistyped = world.bare(&method, &path).bearer_auth("al_live_x").send().await.unwrap().status();
        assert_eq!(mistyped, 401, "{method} {path} with a mistyped key");
        for (scope, api) in &keys {
            let status = api.request(&method, &path).send().await.unwrap().status();
            assert_eq!(status == 403, scope != needed, "{method} {path} with {scope}: {status}");
        }
    }
}
