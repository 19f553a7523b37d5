//! Every operation of `openapi.json` needs the permission that it names there, or is on the list of open ones.

use serde_json::Value;

use crate::world::{Api, World};

on_both_engines!(every_operation_needs_the_permission_that_it_names,);

/// Operations that need no key. This list is compared for equality, so an operation gets on it by a decision only.
const OPEN: [&str; 3] = ["GET /api/health", "GET /api/server-info", "GET /api/version"];
const SCOPES: [&str; 4] = ["events:write", "events:read", "audit:read", "keys:manage"];

async fn status(api: &Api, method: &str, path: &str, has_key: bool) -> u16 {
    let request = if has_key { api.request(method, path) } else { api.bare(method, path) };
    // Only the head of the answer: a stream has no end.
    request.send().await.unwrap().status().as_u16()
}

async fn every_operation_needs_the_permission_that_it_names(world: World) {
    let document = world.read("/openapi.json").await;
    let keys: Vec<(&str, Api)> =
        SCOPES.iter().map(|scope| (*scope, world.make_key(&["--scope", scope]))).collect();
    let mut open = Vec::new();
    let mut count = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        let operations: Vec<(String, &Value)> = item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !["parameters", "summary", "description", "servers"].contains(&name.as_str()))
            .map(|(method, operation)| (method.to_uppercase(), operation))
            .collect();
        for (method, operation) in operations {
            count += 1;
            let name = format!("{method} {template}");
            let path = template.replace("{id}", "nobody");
            let permission = operation["x-permission"].as_str();
            let permission = permission.unwrap_or_else(|| panic!("{name} names no permission"));
            if permission == "none" {
                assert_eq!(status(&world, &method, &path, false).await, 200, "{name}");
                open.push(name);
                continue;
            }
            assert!(SCOPES.contains(&permission), "{name} needs {permission}");
            assert_eq!(status(&world, &method, &path, false).await, 401, "{name} without a key");
            for (scope, api) in &keys {
                let is_refused = status(api, &method, &path, true).await == 403;
                assert_eq!(is_refused, *scope != permission, "{name} with {scope}");
            }
        }
    }
    open.sort();
    assert_eq!(open, OPEN);
    assert!(count >= 25, "{count} operations");
}
