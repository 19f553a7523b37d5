//! SQL through every string that the API takes, under the role that the server has: it is data, whatever it says.
//!
//! The operations are taken from the served `openapi.json`, so a new one is covered by itself.

use serde_json::{Value, json};

use crate::people::PASSWORD;
use crate::samples::{note, with};
use crate::world::{Api, Browser, World};

on_both_engines!(injection_through_every_string);

/// Endings of strings, comments, unions, second statements, waits, and what databases read in a way of their own.
const STRINGS: [&str; 10] = [
    "' or '1'='1",
    "'; drop table control.users; drop table users; --",
    "x' union select user_id, email, password_hash from users --",
    "1; select pg_sleep(20)--",
    "\\'; delete from events where 1=1; --",
    "$1 or true",
    "%' or 1=1 /*",
    "\u{2019} or 1=1; set role postgres; reset role",
    "'||(select secret from server_settings)||'",
    "a\u{0}b",
];
/// What would end the session or the membership that this test needs.
const SKIPPED: [&str; 4] =
    ["DELETE /v1/me/sessions", "POST /v1/members/leave", "POST /v1/sign-out", "GET /api/stream"];
/// Forms that one network may send in a minute.
const FORMS: usize = 20;

/// A request of an operation with one string replaced.
struct Probe {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    body: Option<Value>,
}

fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    name.map_or(schema, |name| &document["components"]["schemas"][name])
}

fn is_string(schema: &Value) -> bool {
    schema["type"] == "string"
        || schema["type"].as_array().is_some_and(|types| types.contains(&json!("string")))
}

/// A body that is taken, as far as that can be said without knowing the operation.
fn harmless(document: &Value, schema: &Value) -> Value {
    let mut body = json!({});
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let of = resolved(document, &schema["properties"][name]);
        body[name] = match name {
            "email" => "somebody@example.com".into(),
            "password" => PASSWORD.into(),
            "role" => "viewer".into(),
            _ if is_string(of) => "something".into(),
            _ if of["type"] == "array" => json!(["something"]),
            _ if of["type"] == "object" => json!({}),
            _ if of["type"] == "boolean" => false.into(),
            _ => 1.into(),
        };
    }
    body
}

/// Every string of an operation, replaced by `text`, one at a time.
fn probes(document: &Value, method: &str, template: &str, operation: &Value, text: &str) -> Vec<Probe> {
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    let schema = resolved(document, &operation["requestBody"]["content"]["application/json"]["schema"]);
    let body = schema["properties"].is_object().then(|| harmless(document, schema));
    let plain_path = |replaced: &str| {
        let mut path = template.to_owned();
        while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
            path.replace_range(from..=to, replaced);
        }
        path
    };
    let probe = |path: String, query: Vec<(String, String)>, body: Option<Value>| Probe {
        method: method.to_uppercase(),
        path,
        query,
        body,
    };
    let mut all = Vec::new();
    if template.contains('{') {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        all.push(probe(plain_path(&encoded), Vec::new(), body.clone()));
    }
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
        let name = parameter["name"].as_str().unwrap().to_owned();
        all.push(probe(plain_path("x"), vec![(name, text.to_owned())], body.clone()));
    }
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let of = resolved(document, of);
        let value = match &of["type"] {
            _ if is_string(of) => json!(text),
            kind if *kind == "array" => json!([text]),
            kind if kind.to_string().contains("object") => json!({ text: text }),
            _ => continue,
        };
        let mut body = body.clone().unwrap_or(json!({}));
        body[name] = value;
        all.push(probe(plain_path("x"), Vec::new(), Some(body)));
    }
    all
}

/// All that the owner and a key of an org see.
async fn seen(owner: &Browser, key: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["/v1/org", "/v1/members", "/v1/invitations", "/v1/workspaces", "/v1/environments"] {
        all.push(owner.read(path).await);
    }
    for path in ["/api/events", "/api/sessions", "/api/agents", "/api/stats"] {
        all.push(key.read(path).await);
    }
    all
}

async fn injection_through_every_string(world: World) {
    let (other, other_key) = world.org("Other");
    let made = world.run_json(&["user", "create", "bob@example.com", "--org", &other, "--role", "owner"]);
    let bob = Browser::new(&world);
    bob.sign_in("bob@example.com", made["password"].as_str().unwrap()).await;
    other_key.send(&[note("secret-of-bob", "secret-of-bob")]).await;
    let before = seen(&bob, &other_key).await;
    world.send(&[note("ours", "x")]).await;
    let owner = world.person("owner@example.com", "owner").await;
    let document = world.read("/openapi.json").await;
    let (mut tried, mut forms) = (0, 0);
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, it)| it.is_object()) {
            let name = format!("{} {template}", method.to_uppercase());
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let is_form = operation["x-permission"] == "none";
            for text in STRINGS {
                for probe in probes(&document, method, template, operation, text) {
                    forms += usize::from(is_form);
                    if is_form && forms % FORMS == 0 {
                        world.move_clock(60_000_000);
                    }
                    try_one(&world, &owner, &name, &probe).await;
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 1_000, "{tried}");
    events_with_such_strings(&world).await;
    for header in ["agentlens-org", "agentlens-workspace"] {
        for text in STRINGS.iter().filter(|text| text.is_ascii() && !text.contains('\0')) {
            let answer = world.answer(owner.request("GET", "/v1/org").header(header, *text)).await;
            assert!(
                answer.status < 500 && !answer.text.contains("Other"),
                "{header} {text}: {}",
                answer.text
            );
        }
    }
    assert_eq!(seen(&bob, &other_key).await, before);
    assert_eq!(owner.read("/v1/me").await["email"], "owner@example.com");
    assert_eq!(world.read("/api/sessions/ours").await["id"], "ours");
}

/// Nothing fails in the server, nothing of another org is seen, and what the string says is not done.
async fn try_one(world: &World, owner: &Browser, name: &str, probe: &Probe) {
    let by_person = owner.request(&probe.method, &probe.path);
    let by_key = world.request(&probe.method, &probe.path);
    for request in [by_person, by_key] {
        let mut request = request.query(&probe.query);
        if let Some(body) = &probe.body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let begun = std::time::Instant::now();
        let answer = world.answer(request).await;
        assert!(answer.status < 500, "{name} {:?} {:?}: {}", probe.query, probe.body, answer.text);
        assert!(begun.elapsed().as_secs() < 15, "{name} {:?} {:?}", probe.query, probe.body);
        for word in ["secret-of-bob", "argon2", "syntax", "sqlite", "postgres:"] {
            assert!(
                !answer.text.to_lowercase().contains(word),
                "{name} {:?} {:?}: {}",
                probe.query,
                probe.body,
                answer.text
            );
        }
    }
}

/// Events whose texts are such strings come back as they were sent.
async fn events_with_such_strings(world: &World) {
    for text in STRINGS {
        let event = with(note(text, text), "agentId", text);
        let event = with(event, "metadata", json!({ text: text, "userId": text }));
        let answer = world.try_send(&[event]).await;
        assert!([202, 400].contains(&answer.status), "{text:?}: {}", answer.text);
        if answer.status == 202 {
            world.settled().await;
            let found = world.query("/api/events", &[("sessionId", text)]).await.expect(200);
            assert_eq!(found["total"], 1, "{text:?}: {found}");
            assert_eq!(found["events"][0]["agentId"], text, "{found}");
        }
    }
}
