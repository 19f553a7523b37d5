//! Paths, methods, content types and credentials: before a body is looked at.

use data_encoding::BASE64;

use super::client::{JSON, PROTOBUF, Post, SIGNALS, good, good_json, path, take_room};
use crate::samples::{MEGABYTE, gzip, note};
use crate::world::{World, until};

on_both_engines!(
    content_types_decide_on_the_encoding,
    every_path_takes_both_encodings,
    other_methods_are_refused,
    credentials_are_taken_from_every_place,
    refusals_of_credentials_are_in_the_form_of_the_request,
    basic_credentials_work_on_every_route,
    a_full_server_says_when_to_come_back,
);

async fn content_types_decide_on_the_encoding(world: World) {
    let good_types = [
        (PROTOBUF, PROTOBUF),
        ("application/x-protobuf; charset=utf-8", PROTOBUF),
        ("Application/X-Protobuf", PROTOBUF),
        (JSON, JSON),
        ("application/json;charset=UTF-8", JSON),
    ];
    let other_types = [
        "",
        "text/plain",
        "application/protobuf",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "application/grpc",
        "application/json-seq",
    ];
    for signal in SIGNALS {
        for (content_type, answered) in good_types {
            let body = if answered == JSON { good_json(signal) } else { good(signal) };
            let request = Post::protobuf(&world, &path(signal), body).header("content-type", content_type);
            let case = format!("{signal} {content_type}");
            let answer = request.send(&world).await;
            assert_eq!(answer.rejected(&case, signal, answered), (0, String::new()), "{case}");
        }
        for content_type in other_types {
            let request = Post::protobuf(&world, &path(signal), good(signal));
            let answer = request.header("content-type", content_type).send(&world).await;
            let (code, message) = answer.fault(&format!("{signal} {content_type}"), 415, JSON);
            assert_eq!(code, 3);
            assert!(message.contains(PROTOBUF) && message.contains(JSON), "{message}");
        }
    }
}

async fn every_path_takes_both_encodings(world: World) {
    for signal in SIGNALS {
        for path in [path(signal), format!("/api/public/otel/v1/{signal}")] {
            let answer = Post::protobuf(&world, &path, good(signal)).send(&world).await;
            assert_eq!(answer.rejected(&path, signal, PROTOBUF).0, 0);
            assert!(answer.body.is_empty(), "full success is an empty message");
            let answer = Post::json(&world, &path, good_json(signal)).send(&world).await;
            assert_eq!(answer.rejected(&path, signal, JSON).0, 0);
            assert_eq!(answer.body, "{}");
        }
    }
}

async fn other_methods_are_refused(world: World) {
    let paths = ["/v1/traces", "/v1/logs", "/v1/metrics", "/api/public/otel/v1/traces"];
    for path in paths {
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            for content_type in [JSON, PROTOBUF] {
                let request = Post::protobuf(&world, path, "").header("content-type", content_type);
                let answer = request.method(method).send(&world).await;
                let case = format!("{method} {path} {content_type}");
                assert_eq!(answer.fault(&case, 405, content_type).0, 12, "{case}");
                assert_eq!(answer.headers["allow"], "POST", "{case}");
            }
        }
    }
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64.encode(text.as_bytes()))
}

async fn credentials_are_taken_from_every_place(world: World) {
    let key = world.key().to_owned();
    let with_key = |user: &str| basic(&format!("{user}:{key}"));
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer  {key} ")),
        ("x-api-key", key.clone()),
        ("authorization", with_key("pk-lf-1234")),
        ("authorization", with_key("")),
        ("authorization", with_key("a").trim_end_matches('=').to_owned()),
        ("authorization", with_key("ab").trim_end_matches('=').to_owned()),
        ("authorization", with_key("user").replacen("Basic", "basic", 1)),
        ("authorization", with_key("é 漢")),
    ] {
        for signal in SIGNALS {
            let request = Post::protobuf(&world, &path(signal), good(signal)).header("authorization", "");
            let answer = request.header(name, &value).send(&world).await;
            assert_eq!(answer.rejected(&value, signal, PROTOBUF).0, 0);
        }
    }
}

async fn refusals_of_credentials_are_in_the_form_of_the_request(world: World) {
    let key = world.key().to_owned();
    let unknown = world.run_json(&["key", "generate"])["api_key"].as_str().unwrap().to_owned();
    let reader = world.make_key(&["--scope", "events:read"]).key().to_owned();
    for (value, status, code) in [
        (String::new(), 401, 16),
        ("Bearer".to_owned(), 401, 16),
        (format!("Bearer {unknown}"), 401, 16),
        (format!("Bearer {}", &key[..key.len() - 1]), 401, 16),
        (format!("Digest {key}"), 401, 16),
        (key.clone(), 401, 16),
        (basic(&key), 401, 16),
        (basic(&format!("{key}:")), 401, 16),
        (basic(&format!("user:{unknown}")), 401, 16),
        (format!("Basic user:{key}"), 401, 16),
        ("Basic".to_owned(), 401, 16),
        (format!("Bearer {reader}"), 403, 7),
        (basic(&format!("user:{reader}")), 403, 7),
    ] {
        for content_type in [JSON, PROTOBUF] {
            // Who may not send learns nothing of the body.
            let request =
                Post::protobuf(&world, "/v1/traces", "nonsense").header("content-type", content_type);
            let answer = request.header("authorization", &value).send(&world).await;
            assert_eq!(answer.fault(&value, status, content_type).0, code, "{value}");
            assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{value}");
        }
    }
    // A client that is still sending hears of it too.
    for (name, value, status) in [("authorization", "", 401), ("content-type", "text/plain", 415)] {
        let large = vec![b' '; 8 * MEGABYTE];
        let request = Post::json(&world, "/v1/traces", large).header(name, value);
        assert_eq!(request.send(&world).await.status, status);
    }
    let path = format!("/v1/traces?token={key}");
    let answer = Post::protobuf(&world, &path, good("traces")).header("authorization", "").send(&world).await;
    answer.fault("a key in the address", 401, PROTOBUF);
}

async fn basic_credentials_work_on_every_route(world: World) {
    let request = world.bare("GET", "/api/events").basic_auth("anyone", Some(world.key()));
    world.answer(request).await.expect(200);
    let request = world.bare("POST", "/api/events").basic_auth("anyone", Some(world.key()));
    world.answer(request.json(&note("s", "x"))).await.expect(202);
    let refusal = world.answer(world.bare("GET", "/api/events").basic_auth(world.key(), Some("x"))).await;
    assert_eq!(refusal.refusal(401)["code"], "invalid_key");
}

/// Bodies that are announced and do not come take the room that there is.
async fn a_full_server_says_when_to_come_back(world: World) {
    let held = take_room(&world).await;
    // A few kilobytes that become more than there is room for.
    let compressed = gzip(&vec![0; 4 * MEGABYTE]);
    for content_type in [JSON, PROTOBUF] {
        let request = Post::protobuf(&world, "/v1/traces", compressed.clone());
        let request = request.header("content-type", content_type).header("content-encoding", "gzip");
        let answer = request.send(&world).await;
        assert_eq!(answer.fault("full", 429, content_type).0, 8);
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    }
    // What needs little is still taken.
    let answer = Post::protobuf(&world, "/v1/traces", good("traces")).send(&world).await;
    assert_eq!(answer.rejected("small", "traces", PROTOBUF).0, 0);
    drop(held);
    until("the room to be given back", || async {
        let request = Post::protobuf(&world, "/v1/traces", compressed.clone());
        let answer = request.header("content-encoding", "gzip").send(&world).await;
        (answer.status == 400).then_some(())
    })
    .await;
}
