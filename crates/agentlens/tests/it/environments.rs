//! Environments are the senders' own words, as many as a workspace has room for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::samples::{note, now_us, with};
use crate::world::{Answer, Api, World};

on_both_engines!(
    the_senders_word_stands,
    names_beyond_the_limit_become_other,
    concurrent_senders_fill_the_limit_exactly,
    a_bound_key_brings_no_other_environment,
    names_that_can_be_none_are_refused,
);

async fn export(api: &Api, session: &str, environment: Option<&str>) -> Answer {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let named: Vec<Value> =
        environment.map(|name| attribute("deployment.environment.name", name)).into_iter().collect();
    let span = json!({ "traceId": format!("{:032x}", rand::random::<u128>()), "spanId": "00000000000000aa", "name": "chat",
        "startTimeUnixNano": (now_us() * 1000).to_string(),
        "attributes": [attribute("session.id", session), attribute("gen_ai.operation.name", "chat")] });
    let body = json!({ "resourceSpans": [{ "resource": { "attributes": named }, "scopeSpans": [{ "spans": [span] }] }] });
    let request = api.request("POST", "/v1/traces").header("content-type", "application/json");
    api.answer(request.body(body.to_string())).await
}

async fn the_senders_word_stands(world: World) {
    let staging = world.make_key(&["--environment", "staging"]);
    let metadata = with(note("in-metadata", "x"), "metadata", json!({ "environment": "Dev Alice" }));
    staging
        .send(&[with(note("native", "x"), "environment", "preview/pr-12"), metadata, note("unnamed", "x")])
        .await;
    for (session, name) in
        [("otel", Some("bedrock-agentcore:default")), ("prod", Some("prod")), ("otel-unnamed", None)]
    {
        export(&staging, session, name).await.expect(200);
    }
    world.settled().await;
    for (session, name) in [
        ("native", "preview/pr-12"),
        ("in-metadata", "Dev Alice"),
        ("unnamed", "staging"),
        ("otel", "bedrock-agentcore:default"),
        ("prod", "prod"),
        ("otel-unnamed", "staging"),
    ] {
        assert_eq!(world.read(&format!("/api/sessions/{session}")).await["environment"], name);
        let events =
            world.query("/api/events", &[("environment", name), ("sessionId", session)]).await.expect(200);
        assert_eq!(events["events"][0]["environment"], name, "{session}: {events}");
        let sessions = world.query("/api/sessions", &[("environment", name)]).await.expect(200);
        let ids: Vec<&Value> =
            sessions["sessions"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert!(ids.contains(&&json!(session)), "{sessions}");
    }
    let figures = world.query("/api/analytics", &[("environment", "preview/pr-12")]).await.expect(200);
    assert_eq!(figures["totals"]["eventCount"], 1);
    let production = world.query("/api/analytics", &[("environment", "production")]).await.expect(200);
    assert_eq!(production["totals"]["eventCount"], 0);
    assert!(world.run(&["verify"]).is_success);
}

async fn environments_of(world: &World) -> BTreeSet<String> {
    let page = world.query("/api/events", &[("limit", "1000")]).await.expect(200);
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["environment"].as_str().unwrap().to_owned())
        .collect()
}

async fn names_beyond_the_limit_become_other(world: World) {
    let named = |number: usize| with(note("s", "x"), "environment", format!("env-{number:02}"));
    world.send(&(0..45).map(named).collect::<Vec<_>>()).await;
    world.settled().await;
    for number in 40..60 {
        export(&world, &format!("otel-{number}"), Some(&format!("env-{number:02}"))).await.expect(200);
    }
    world.settled().await;
    // Those that every workspace has, and those that are there, stand as before.
    world
        .send(&[note("t", "x"), named(3), with(note("t", "x"), "environment", "development"), named(70)])
        .await;
    world.settled().await;
    let mut expected: BTreeSet<String> = (0..50).map(|number| format!("env-{number:02}")).collect();
    expected.extend(["production", "development", "other"].map(str::to_owned));
    assert_eq!(environments_of(&world).await, expected);
    assert_eq!(world.read("/api/sessions/otel-49").await["environment"], "env-49");
    assert_eq!(world.read("/api/sessions/otel-50").await["environment"], "other");
    let other = world.query("/api/analytics", &[("environment", "other")]).await.expect(200);
    assert_eq!(other["totals"]["eventCount"], 11);
    let ledger = world.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    assert_eq!(
        (&key["environment_limit"], &key["received"], &key["stored"]),
        (&json!(11), &json!(69), &json!(69))
    );
    assert_eq!(key["refused"], json!({}));
    // Another workspace has room of its own.
    let elsewhere = world.make_key(&["--workspace", "project"]);
    elsewhere.send(&[with(note("u", "x"), "environment", "env-99")]).await;
    world.settled().await;
    assert_eq!(elsewhere.read("/api/sessions/u").await["environment"], "env-99");
    assert!(world.run(&["verify"]).is_success);
}

async fn concurrent_senders_fill_the_limit_exactly(world: World) {
    let senders = (0..8).map(|sender| {
        let api = world.same_key();
        tokio::spawn(async move {
            for number in 0..10 {
                let name = format!("{sender}-{number}");
                api.send(&[with(note(&name, "x"), "environment", name.as_str()), note(&name, "y")]).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    world.settled().await;
    assert_eq!(world.database.number("default", "select count(*) from environments").await, 50);
    let sql = "select count(*) from events where environment = 'other'";
    assert_eq!(world.database.number("default", sql).await, 30);
    assert_eq!(environments_of(&world).await.len(), 52);
}

async fn a_bound_key_brings_no_other_environment(world: World) {
    let bound = world.make_key(&["--environment", "qa", "--bind-environment"]);
    let answer = bound
        .try_send(&[
            note("s", "1"),
            with(note("s", "2"), "environment", "qa"),
            with(note("s", "3"), "environment", "production"),
        ])
        .await
        .expect(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)), "{answer}");
    let error = &answer["errors"][0];
    assert_eq!((&error["field"], &error["reason"]), (&json!("environment"), &json!("environment_mismatch")));
    assert!(error["error"].as_str().unwrap().contains("bound to the environment `qa`"), "{error}");
    let partial = export(&bound, "otel", Some("production")).await.expect(200);
    assert_eq!(partial["partialSuccess"]["rejectedSpans"].to_string().trim_matches('"'), "1", "{partial}");
    assert!(
        partial["partialSuccess"]["errorMessage"].as_str().unwrap().contains("bound to the environment"),
        "{partial}"
    );
    export(&bound, "otel", Some("qa")).await.expect(200);
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 2);
    assert_eq!(environments_of(&world).await, BTreeSet::from(["qa".to_owned()]));
    let listed = world.run_json(&["key", "list"]);
    let bound = listed["keys"].as_array().unwrap().iter().filter(|key| key["environment_bound"] == true);
    assert_eq!(bound.map(|key| &key["environment"]).collect::<Vec<_>>(), ["qa"]);
}

async fn names_that_can_be_none_are_refused(world: World) {
    let long = "x".repeat(65);
    for (name, message) in [(long.as_str(), "the limit is 64 bytes"), ("a\nb", "control characters")] {
        let answer = world
            .try_send(&[note("s", "neighbour"), with(note("s", "x"), "environment", name)])
            .await
            .expect(202);
        assert_eq!(
            (&answer["errors"][0]["field"], &answer["errors"][0]["reason"]),
            (&json!("environment"), &json!("invalid_field"))
        );
        assert!(answer["errors"][0]["error"].as_str().unwrap().contains(message), "{answer}");
        // A span is not lost for the name of its environment.
        export(&world, "otel", Some(name)).await.expect(200);
    }
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 2);
    assert_eq!(world.read("/api/sessions/otel").await["environment"], "other");
}
