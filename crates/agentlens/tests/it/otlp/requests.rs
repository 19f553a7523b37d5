//! What became of the last requests: listed, by key, and only to those who may read.

use serde_json::{Value, json};

use super::client::{JSON, PROTOBUF, Post, attribute, metrics, span, traces};
use crate::world::{Api, World, until};

on_both_engines!(
    a_request_is_listed_with_what_was_read_of_it,
    a_request_of_which_nothing_was_read_is_listed,
    requests_are_listed_page_by_page_and_by_key,
    unmapped_attributes_are_summed_by_client,
    ordinary_requests_are_kept_once_a_second,
    requests_are_read_by_their_workspace_only,
);

/// The listed requests, when there are at least so many.
async fn requests(api: &Api, parameters: &[(&str, &str)], count: usize) -> Vec<Value> {
    until("requests to be kept", || async {
        let page = api.query("/v1/ingest/requests", parameters).await.expect(200);
        let requests = page["requests"].as_array().unwrap().clone();
        (requests.len() >= count).then_some(requests)
    })
    .await
}

/// Sends spans of which the second of each pair is bad, so that each request is kept.
async fn send_half(api: &Api, spans: u64) -> String {
    let trace = rand::random();
    let mut spans: Vec<_> = (1..=spans).map(|number| span(trace, number)).collect();
    for span in spans.iter_mut().skip(1).step_by(2) {
        span.span_id.push(0);
    }
    let answer = Post::protobuf(api, "/v1/traces", traces(spans)).send(api).await;
    assert_eq!(answer.status, 200);
    answer.headers["x-request-id"].to_str().unwrap().to_owned()
}

async fn a_request_is_listed_with_what_was_read_of_it(world: World) {
    let trace = rand::random();
    let mut odd = span(trace, 1);
    odd.attributes.extend([
        attribute("my.own.key", "x"),
        attribute("my.list.0.a", "x"),
        attribute("my.list.1.a", "x"),
    ]);
    let mut bad = span(trace, 2);
    bad.trace_id.pop();
    let body = traces(vec![odd, bad, span(trace, 3)]);
    let request = Post::protobuf(&world, "/v1/traces", body).header("user-agent", "OTel-OTLP-Exporter/1");
    let answer = request.send(&world).await;
    let listed = requests(&world, &[], 1).await.remove(0);
    let key_id = world.read("/v1/ingest/ledger").await["keys"][0]["key_id"].clone();
    assert_eq!(listed["request_id"], answer.headers["x-request-id"].to_str().unwrap());
    assert!(listed["received_at"].as_str().unwrap().ends_with('Z'), "{listed}");
    for (field, expected) in [
        ("key_id", key_id),
        ("signal", json!("traces")),
        ("user_agent", json!("OTel-OTLP-Exporter/1")),
        ("clients", json!([{ "name": "lib", "version": "1.2", "items": 3 }])),
        ("accepted", json!(2)),
        ("refused", json!(1)),
        ("reasons", json!(["Span number 2: traceId has 15 bytes and must have 16."])),
        ("failed", json!(false)),
        ("unmapped", json!({ "lib": { "my.own.key": 1, "my.list.*.a": 2 } })),
    ] {
        assert_eq!(listed[field], expected, "{field}: {listed}");
    }
    let other_key = world.make_key(&[]);
    Post::protobuf(&other_key, "/v1/metrics", metrics(3)).send(&other_key).await;
    let listed = requests(&world, &[], 2).await.remove(0);
    assert_eq!((&listed["signal"], &listed["accepted"]), (&json!("metrics"), &json!(3)), "{listed}");
}

async fn a_request_of_which_nothing_was_read_is_listed(world: World) {
    Post::json(&world, "/v1/logs", "{\"resourceLogs\"").send(&world).await.fault("broken", 400, JSON);
    let listed = requests(&world, &[], 1).await.remove(0);
    assert_eq!((&listed["failed"], &listed["signal"]), (&json!(true), &json!("logs")), "{listed}");
    assert!(listed["reasons"][0].as_str().unwrap().contains("JSON"), "{listed}");
}

async fn requests_are_listed_page_by_page_and_by_key(world: World) {
    let other = world.make_key(&[]);
    let mut sent = Vec::new();
    for number in 0..8 {
        let api = if number % 2 == 0 { &world.same_key() } else { &other };
        sent.push(send_half(api, 2).await);
        requests(&world, &[], sent.len()).await;
    }
    sent.reverse();
    let ids = |requests: &[Value]| -> Vec<String> {
        requests.iter().map(|request| request["request_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = requests(&world, &[], 8).await;
    assert_eq!(ids(&all), sent);
    let (mut walked, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut parameters = vec![("limit", "3")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = world.query("/v1/ingest/requests", &parameters).await.expect(200);
        walked.extend(ids(page["requests"].as_array().unwrap()));
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(walked, sent);
    let key_id = all[0]["key_id"].as_str().unwrap();
    let of_key: Vec<String> = sent.iter().step_by(2).cloned().collect();
    assert_eq!(ids(&requests(&world, &[("key_id", key_id)], 4).await), of_key);
    assert_eq!(
        world.query("/v1/ingest/requests", &[("key_id", "none")]).await.expect(200)["requests"],
        json!([])
    );
    for parameters in [("limit", "0"), ("limit", "x"), ("cursor", "x"), ("key_id", "a\0b")] {
        world.query("/v1/ingest/requests", &[parameters]).await.refusal(400);
    }
}

async fn unmapped_attributes_are_summed_by_client(world: World) {
    for (number, key) in (1..).zip(["one", "two", "two"]) {
        let mut odd = span(rand::random(), number);
        odd.attributes.push(attribute(key, "x"));
        let mut bad = span(rand::random(), 9);
        bad.trace_id.pop();
        Post::protobuf(&world, "/v1/traces", traces(vec![odd, bad])).send(&world).await;
    }
    requests(&world, &[], 3).await;
    let sums = world.read("/v1/ingest/unmapped").await;
    assert_eq!(sums["requests"], 3, "{sums}");
    let expected =
        json!([{ "name": "lib", "versions": ["1.2"], "items": 6, "unmapped": { "one": 1, "two": 2 } }]);
    assert_eq!(sums["clients"], expected);
}

async fn ordinary_requests_are_kept_once_a_second(world: World) {
    let started = std::time::Instant::now();
    for _ in 0..30 {
        let body = traces(vec![span(rand::random(), 1)]);
        Post::protobuf(&world, "/v1/traces", body)
            .send(&world)
            .await
            .rejected("ordinary", "traces", PROTOBUF);
    }
    let most = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
    let kept = requests(&world, &[], 1).await.len();
    assert!(kept <= most, "{kept} were kept");
    // What shows something is kept beside them.
    send_half(&world, 2).await;
    requests(&world, &[], kept + 1).await;
}

async fn requests_are_read_by_their_workspace_only(world: World) {
    let (_, other_org) = world.org("other");
    let other_workspace = world.make_key(&["--workspace", "second"]);
    let writer = world.make_key(&["--scope", "events:write"]);
    send_half(&world, 2).await;
    requests(&world, &[], 1).await;
    for api in [&other_org, &other_workspace] {
        assert_eq!(api.read("/v1/ingest/requests").await["requests"], json!([]));
        assert_eq!(api.read("/v1/ingest/unmapped").await, json!({ "requests": 0, "clients": [] }));
    }
    for path in ["/v1/ingest/requests", "/v1/ingest/unmapped"] {
        assert_eq!(writer.get(path).await.refusal(403)["code"], "insufficient_scope");
        assert_eq!(world.answer(world.bare("GET", path)).await.refusal(401)["code"], "missing_credential");
        world.answer(world.request("POST", path)).await.refusal(405);
    }
}
