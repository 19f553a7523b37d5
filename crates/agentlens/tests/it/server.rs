//! The server itself: what needs no key, documents, refusals in one form, starting and stopping.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::samples::{note, with};
use crate::world::{World, until};

on_both_engines!(
    health_version_and_features_need_no_key,
    the_served_description_is_the_committed_one,
    unknown_routes_and_methods_are_refused_in_one_form,
    what_is_not_built_says_so,
    answers_carry_ids_and_security_headers,
    each_request_is_one_line_of_the_log,
    a_graceful_stop_under_load_loses_nothing,
    a_second_start_finds_everything,
    wrong_options_are_refused,
    another_secret_is_refused,
    metrics_count_requests_and_events,
);

async fn health_version_and_features_need_no_key(world: World) {
    let get = async |path: &str| world.answer(world.bare("GET", path)).await.expect(200);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(get("/api/health").await, json!({ "status": "ok", "version": version }));
    assert_eq!(get("/api/version").await, json!({ "version": version, "apiVersion": "v1" }));
    let info = get("/api/server-info").await;
    assert_eq!(info["version"], version);
    for feature in ["sessions", "agents", "analytics", "stats", "events", "stream", "audit", "otlp"] {
        assert!(info["features"].as_array().unwrap().contains(&json!(feature)), "{info}");
    }
    get("/healthz").await;
    get("/readyz").await;
    assert!(world.run(&["--version"]).text.contains(version));
}

async fn the_served_description_is_the_committed_one(world: World) {
    let served = world.answer(world.bare("GET", "/openapi.json")).await;
    assert_eq!(served.headers["content-type"], "application/json");
    assert_eq!(world.answer(world.bare("GET", "/api/openapi.json")).await.text, served.text);
    assert_eq!(world.run(&["openapi"]).text.trim_end(), served.text.trim_end());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let committed = std::fs::read_to_string(format!("{root}/openapi.json")).unwrap();
    assert_eq!(committed.trim_end(), served.text.trim_end(), "run: agentlens openapi > openapi.json");
    let docs = world.answer(world.bare("GET", "/docs")).await;
    assert!(docs.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    for path in served.json["paths"].as_object().unwrap().keys() {
        assert!(docs.text.contains(path.as_str()), "{path} is not on the page");
    }
}

async fn unknown_routes_and_methods_are_refused_in_one_form(world: World) {
    for path in
        ["/nothing", "/api/nothing", "/v1/nothing", "/api/events/a/b", "/api//events", "/%2e%2e/etc/passwd"]
    {
        assert_eq!(world.get(path).await.refusal(404)["code"], "not_found", "{path}");
    }
    for (method, path) in [
        ("DELETE", "/api/events"),
        ("PUT", "/api/sessions"),
        ("POST", "/api/health"),
        ("PATCH", "/v1/events"),
    ] {
        let answer = world.answer(world.request(method, path)).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.json["code"], "method_not_allowed");
        assert_eq!(answer.json["status"], 405, "{method} {path}: {}", answer.text);
    }
}

async fn what_is_not_built_says_so(world: World) {
    for (path, feature) in [
        ("/api/recall?query=x", "recall"),
        ("/api/lessons/1", "lessons"),
        ("/api/agents/a/health", "health"),
        ("/api/guardrails", "guardrails"),
        ("/api/benchmarks", "benchmarks"),
    ] {
        let refusal = world.get(path).await.refusal(501);
        assert_eq!(refusal["code"], "not_implemented");
        assert!(refusal["error"].as_str().unwrap().contains(feature), "{refusal}");
    }
}

async fn answers_carry_ids_and_security_headers(world: World) {
    for path in ["/api/events", "/api/nothing", "/api/health"] {
        let answer = world.get(path).await;
        for (name, value) in [
            ("x-api-version", "v1"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        assert_eq!(answer.headers["x-request-id"].len(), 26);
        assert!(answer.headers.contains_key("content-security-policy"));
    }
}

async fn each_request_is_one_line_of_the_log(world: World) {
    let answer = world.try_send(&[note("s", "a secret text")]).await.expect(202);
    let id = answer["request_id"].as_str().unwrap();
    let log = world.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(id)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for part in ["POST", "/api/events", "202", "default"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(!log.contains("a secret text"));
}

async fn a_graceful_stop_under_load_loses_nothing(mut world: World) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (api, accepted) = (world.same_key(), Arc::clone(&accepted));
            tokio::spawn(async move {
                let mut acknowledged: Vec<String> = Vec::new();
                for batch in 0.. {
                    let ids: Vec<String> =
                        (0..20).map(|number| format!("{client}-{batch}-{number}")).collect();
                    let events: Vec<Value> = ids
                        .iter()
                        .map(|id| with(note(&format!("s{client}"), "x"), "id", id.as_str()))
                        .collect();
                    let body = json!(events).to_string();
                    match api.request("POST", "/api/events").body(body).send().await {
                        Ok(response) if response.status() == 202 => {
                            accepted.fetch_add(ids.len(), Ordering::Relaxed);
                            acknowledged.extend(ids);
                        }
                        _ => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    until("a load", || async { (accepted.load(Ordering::Relaxed) > 200).then_some(()) }).await;
    world.stop_gracefully().await;
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    world.start_server().await;
    world.settled().await;
    let mut stored = Vec::new();
    for client in 0..8 {
        stored.extend(
            world
                .timeline(&format!("s{client}"))
                .await
                .iter()
                .map(|event| event["id"].as_str().unwrap().to_owned()),
        );
    }
    let count = stored.len();
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), count, "an event is stored twice");
    for id in &acknowledged {
        assert!(stored.binary_search(id).is_ok(), "{id} was acknowledged and is lost");
    }
    assert_eq!(world.read("/api/stats").await["totalEvents"], count);
    assert_eq!(world.run_json(&["verify"])["verified"], true);
}

async fn a_second_start_finds_everything(mut world: World) {
    world.send(&[note("s", "one")]).await;
    world.stop_gracefully().await;
    let log = world.log();
    assert!(log.contains("stopped") && !log.contains("did not finish in time"), "{log}");
    world.start_server().await;
    world.send(&[note("s", "two")]).await;
    assert_eq!(world.timeline("s").await.len(), 2);
    // The bootstrap key is there once, however often the server starts with it.
    assert_eq!(world.run_json(&["key", "list"])["keys"].as_array().unwrap().len(), 1);
}

async fn wrong_options_are_refused(world: World) {
    for (arguments, said) in [
        (&["serve", "--listen", "nowhere"][..], "nowhere"),
        (&["serve", "--listen", "192.0.2.1:1"], "192.0.2.1:1"),
        (&["serve", "--bootstrap-api-key", "al_live_short"], "well-formed"),
        (&["serve", "--secret-key", "short"], "64 hexadecimal"),
        (&["serve", "--search", "perhaps"], "perhaps"),
        (&["serve", "--database-url", "nonsense"], ""),
        (&["serve", "--redis-url", "redis://127.0.0.1:1/0", "--database-url", ""], ""),
    ] {
        let printed = world.run(arguments);
        assert!(!printed.is_success && printed.error.contains(said), "{arguments:?}: {}", printed.error);
        assert!(!printed.error.contains("panicked"), "{arguments:?}: {}", printed.error);
    }
    if world.is_embedded() {
        let printed = world.run(&["serve", "--role", "gateway"]);
        assert!(printed.error.contains("--redis-url"), "{}", printed.error);
        let printed = world.run(&["serve", "--redis-url", "redis://127.0.0.1:1/0"]);
        assert!(printed.error.contains("--database-url"), "{}", printed.error);
    }
}

async fn another_secret_is_refused(mut world: World) {
    world.stop_gracefully().await;
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let output =
        command.env("AGENTLENS_SECRET_KEY", "ab".repeat(32)).stdout(Stdio::piped()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("secret"), "{error}");
    world.start_server().await;
    world.read("/api/events").await;
}

async fn metrics_count_requests_and_events(world: World) {
    world.send(&[note("s", "x"), note("s", "y")]).await;
    let metrics = world.answer(world.bare("GET", "/metrics")).await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.ends_with("# EOF\n"), "not the OpenMetrics form");
    assert!(
        metrics.text.lines().any(|line| line.contains("/api/events") && line.contains("202")),
        "{}",
        metrics.text
    );
    let counted = r#"agentlens_ingest_accepted_events_total{org="default"} 2"#;
    assert!(metrics.text.lines().any(|line| line == counted), "{}", metrics.text);
    // Paths that clients make up must not become labels.
    world.get("/api/made-up-path").await;
    world.get("/api/sessions/made-up-session").await;
    let text = world.answer(world.bare("GET", "/metrics")).await.text;
    assert!(!text.contains("made-up"), "{text}");
}
