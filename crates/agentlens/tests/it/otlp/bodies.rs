//! Bodies as bytes: compressed, chunked, too large, empty and broken.

use super::client::{
    JSON, PROTOBUF, Post, SIGNALS, attribute, deflate, events, good, good_json, path, span, traces, zstd,
};
use crate::samples::{MEGABYTE, gzip};
use crate::world::World;

on_both_engines!(
    compressed_and_chunked_bodies_arrive,
    wrongly_compressed_bodies_are_refused,
    bodies_beyond_the_limits_are_refused,
    empty_requests_succeed,
    broken_bodies_are_refused_for_good,
    requests_of_more_items_than_a_batch_arrive_whole,
    a_span_with_a_large_image_keeps_its_tokens,
);

async fn compressed_and_chunked_bodies_arrive(world: World) {
    type Compress = fn(&[u8]) -> Vec<u8>;
    let plain: Compress = <[u8]>::to_vec;
    let cases: [(&str, Compress); 7] = [
        ("", plain),
        ("identity", plain),
        ("gzip", gzip),
        ("GZIP", gzip),
        ("x-gzip", gzip),
        ("zstd", zstd),
        ("deflate", deflate),
    ];
    for (encoding, compress) in cases {
        for is_chunked in [false, true] {
            let case = format!("{encoding} {is_chunked}");
            let trace = rand::random();
            let body = compress(&traces((1..=300).map(|number| span(trace, number)).collect()));
            let request = Post::protobuf(&world, "/v1/traces", body).header("content-encoding", encoding);
            let request = if is_chunked { request.chunked() } else { request };
            assert_eq!(request.send(&world).await.rejected(&case, "traces", PROTOBUF).0, 0);
            assert_eq!(events(&world, trace).await.len(), 300, "{case}");
            for signal in SIGNALS {
                let request = Post::json(&world, &path(signal), compress(&good_json(signal)));
                let request = request.header("content-encoding", encoding);
                let request = if is_chunked { request.chunked() } else { request };
                assert_eq!(request.send(&world).await.rejected(&case, signal, JSON).0, 0);
            }
        }
    }
}

async fn wrongly_compressed_bodies_are_refused(world: World) {
    let plain = good("traces");
    let whole = gzip(&plain);
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 0xff;
    let cases = [
        ("gzip", plain.clone()),
        ("zstd", plain.clone()),
        ("gzip", whole[..whole.len() - 9].to_vec()),
        ("gzip", damaged),
        ("gzip", Vec::new()),
        ("br", plain.clone()),
        ("deflate", plain.clone()),
        ("deflate", whole.clone()),
        ("gzip, zstd", plain.clone()),
        ("zstd", whole),
    ];
    for (encoding, body) in cases {
        for content_type in [JSON, PROTOBUF] {
            let request =
                Post::protobuf(&world, "/v1/traces", body.clone()).header("content-type", content_type);
            let answer = request.header("content-encoding", encoding).send(&world).await;
            assert_eq!(answer.fault(encoding, 400, content_type).0, 3, "{encoding}");
        }
    }
}

async fn bodies_beyond_the_limits_are_refused(world: World) {
    let bomb = vec![b' '; 65 * MEGABYTE];
    let large = vec![b' '; 16 * MEGABYTE + 1];
    let cases = [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb)), ("deflate", deflate(&bomb)), ("", large)];
    for (encoding, body) in cases {
        for content_type in [JSON, PROTOBUF] {
            for is_chunked in [false, true] {
                let request = Post::protobuf(&world, "/v1/traces", body.clone());
                let request =
                    request.header("content-type", content_type).header("content-encoding", encoding);
                let request = if is_chunked { request.chunked() } else { request };
                let case = format!("{encoding} {content_type} {is_chunked}");
                let (code, message) = request.send(&world).await.fault(&case, 413, content_type);
                assert_eq!(code, 8, "{case}");
                assert!(message.contains("bytes"), "{case}: {message}");
            }
        }
    }
    let spans = ["{}"; 100_001].join(",");
    let many = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    let (_, message) = Post::json(&world, "/v1/traces", many).send(&world).await.fault("many", 413, JSON);
    assert!(message.contains("100000"), "{message}");
    let answer = Post::protobuf(&world, "/v1/traces", good("traces")).send(&world).await;
    assert_eq!(answer.rejected("still alive", "traces", PROTOBUF).0, 0);
}

async fn empty_requests_succeed(world: World) {
    for (signal, resources) in SIGNALS.into_iter().zip(["resourceSpans", "resourceLogs", "resourceMetrics"]) {
        let answer = Post::protobuf(&world, &path(signal), "").send(&world).await;
        assert_eq!(answer.rejected(signal, signal, PROTOBUF).0, 0);
        let compressed = Post::protobuf(&world, &path(signal), gzip(b"")).header("content-encoding", "gzip");
        assert_eq!(compressed.send(&world).await.rejected(signal, signal, PROTOBUF).0, 0);
        // A resource without scopes, and a scope without items.
        for body in [&b"\x0a\x00"[..], b"\x0a\x02\x12\x00"] {
            let answer = Post::protobuf(&world, &path(signal), body).send(&world).await;
            assert_eq!(answer.rejected(signal, signal, PROTOBUF).0, 0);
        }
        for body in [
            "{}".to_owned(),
            " {\n} ".to_owned(),
            format!("{{\"{resources}\":[]}}"),
            format!("{{\"{resources}\":null}}"),
            format!("{{\"{resources}\":[{{}}]}}"),
            "{\"unknown\":1}".to_owned(),
        ] {
            let answer = Post::json(&world, &path(signal), body.clone()).send(&world).await;
            assert_eq!(answer.rejected(&body, signal, JSON).0, 0);
        }
    }
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"], serde_json::json!([]));
}

async fn broken_bodies_are_refused_for_good(world: World) {
    for signal in SIGNALS {
        let whole = good(signal);
        for body in
            [&b"\xff\xff\xff"[..], b"nonsense", b"{}", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", &whole[..1]]
        {
            let answer = Post::protobuf(&world, &path(signal), body).send(&world).await;
            let (code, message) = answer.fault(signal, 400, PROTOBUF);
            assert_eq!(code, 3, "{body:?}");
            assert!(message.contains("protobuf"), "{message}");
        }
        let whole = good_json(signal);
        let truncated = String::from_utf8_lossy(&whole[..whole.len() - 3]).into_owned();
        for body in ["", " ", "{", "[", "[]", "null", "5", "\"x\"", "nonsense", "{} x", &truncated] {
            let (code, message) =
                Post::json(&world, &path(signal), body).send(&world).await.fault(body, 400, JSON);
            assert_eq!(code, 3, "{body}");
            assert!(message.contains("JSON"), "{message}");
        }
        // Each in the other's clothes.
        Post::json(&world, &path(signal), good(signal)).send(&world).await.fault(signal, 400, JSON);
        Post::protobuf(&world, &path(signal), good_json(signal))
            .send(&world)
            .await
            .fault(signal, 400, PROTOBUF);
    }
    assert_eq!(world.read("/v1/ingest/ledger").await["keys"], serde_json::json!([]));
    // A span that is nested too deeply is refused alone.
    let (open, close) = (r#"{"arrayValue":{"values":["#.repeat(100), "]}}".repeat(100));
    let trace = rand::random::<u128>();
    let deep = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[
            {{"traceId":"{trace:032x}","spanId":"{:016x}","attributes":[{{"key":"k","value":{open}{close}}}]}},
            {{"traceId":"{trace:032x}","spanId":"{:016x}"}}]}}]}}]}}"#,
        1, 2
    );
    let answer = Post::json(&world, "/v1/traces", deep).send(&world).await;
    let (rejected, message) = answer.rejected("deep", "traces", JSON);
    assert_eq!(rejected, 1, "{message}");
    assert!(message.contains("The span number 1 cannot be read: recursion limit exceeded"), "{message}");
    assert_eq!(events(&world, trace).await.len(), 1);
}

async fn requests_of_more_items_than_a_batch_arrive_whole(world: World) {
    let count = 12_000;
    let trace = rand::random();
    let body = gzip(&traces((1..=count).map(|number| span(trace, number)).collect()));
    let request = Post::protobuf(&world, "/v1/traces", body).header("content-encoding", "gzip");
    assert_eq!(request.send(&world).await.rejected("many", "traces", PROTOBUF).0, 0);
    world.settled().await;
    let session = format!("/api/sessions/{trace:032x}");
    assert_eq!(world.read(&session).await["eventCount"], count);
    let ledger = world.read("/v1/ingest/ledger").await;
    assert_eq!(
        (&ledger["keys"][0]["received"], &ledger["keys"][0]["stored"]),
        (&count.into(), &count.into())
    );
}

/// Bug: a span of more than 4 MiB was refused whole in protobuf, and cut and kept in JSON.
async fn a_span_with_a_large_image_keeps_its_tokens(world: World) {
    for megabytes in [1, 5, 14] {
        let image = "iVBORw0KGgo/".repeat(megabytes * MEGABYTE / 12);
        let input = format!(r#"[{{"role":"user","parts":[{{"type":"blob","content":"{image}"}}]}}]"#);
        let trace = rand::random();
        let mut call = span(trace, 1);
        call.attributes.push(attribute("gen_ai.input.messages", &input));
        call.attributes.push(attribute("gen_ai.usage.input_tokens", "900"));
        let request = Post::protobuf(&world, "/v1/traces", traces(vec![call]));
        assert_eq!(request.send(&world).await.rejected("large", "traces", PROTOBUF).0, 0, "{megabytes}");
        assert_eq!(events(&world, trace).await.len(), 1);
        let session = world.read(&format!("/api/sessions/{trace:032x}")).await;
        assert_eq!((&session["llmCallCount"], &session["totalInputTokens"]), (&1.into(), &900.into()));
    }
}
