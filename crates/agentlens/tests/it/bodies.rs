//! Request bodies: their forms, paths, encodings and sizes.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::samples::{MEGABYTE, gzip, note};
use crate::world::{Answer, World};

on_both_engines!(
    three_forms_and_three_paths_are_taken,
    compressed_bodies_are_taken,
    broken_bodies_are_refused,
    bombs_are_refused,
    bodies_beyond_the_limits_are_refused,
    a_client_that_is_still_sending_learns_why_it_is_refused,
    a_payload_of_a_megabyte_is_kept_whole,
    large_parts_of_payloads_are_cut_and_their_facts_stay,
);

async fn three_forms_and_three_paths_are_taken(world: World) {
    let mut count = 0;
    for path in ["/api/events", "/v1/events", "/api/obs/ingest/events"] {
        for body in [json!({ "events": [note("s", path)] }), json!([note("s", path)]), note("s", path)] {
            for padding in ["", " \n\t"] {
                world.post(path, format!("{padding}{body}{padding}")).await.expect(202);
                count += 1;
            }
        }
    }
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), count);
}

async fn post_encoded(world: &World, encoding: &str, body: Vec<u8>) -> Answer {
    world.answer(world.request("POST", "/api/events").header("content-encoding", encoding).body(body)).await
}

async fn compressed_bodies_are_taken(world: World) {
    let events: Vec<Value> = (0..500).map(|number| note("s", &format!("text {number}"))).collect();
    let plain = json!({ "events": events }).to_string().into_bytes();
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    // A gzip body may be several members one after the other.
    let (start, end) = plain.split_at(1000);
    let members = [gzip(start), gzip(end)].concat();
    let bodies = [("gzip", gzip(&plain)), ("GZIP", members), ("zstd", zstd), ("identity", plain)];
    for (index, (encoding, body)) in bodies.into_iter().enumerate() {
        let answer = post_encoded(&world, encoding, body).await.expect(202);
        assert_eq!(answer["accepted"], events.len(), "{encoding}");
        world.settled().await;
        assert_eq!(world.timeline("s").await.len(), events.len() * (index + 1));
    }
}

async fn broken_bodies_are_refused(world: World) {
    let plain = json!({ "events": [note("s", "x")] }).to_string().into_bytes();
    let whole = gzip(&plain);
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 0xff;
    for (encoding, body) in [
        ("gzip", plain.clone()),
        ("zstd", plain.clone()),
        ("gzip", whole[..whole.len() - 9].to_vec()),
        ("gzip", damaged),
        ("br", plain.clone()),
        ("gzip, zstd", plain.clone()),
    ] {
        assert_eq!(post_encoded(&world, encoding, body).await.refusal(400)["code"], "invalid_encoding");
    }
    for body in [
        "",
        " ",
        "{",
        "[",
        "nonsense",
        "5",
        "null",
        "\"text\"",
        "{}",
        "{\"events\":5}",
        "{\"events\":null}",
        "{\"other\":[]}",
        "[{}] x",
        "{\"events\":[{}]",
        "\u{feff}[]",
    ] {
        let refusal = world.post("/api/events", body).await.refusal(400);
        // JSON, and an object, but not one that holds events.
        let is_object = ["{}", "{\"events\":null}", "{\"other\":[]}"].contains(&body);
        let expected = if is_object { "validation_failed" } else { "invalid_json" };
        assert_eq!(refusal["code"], expected, "{body}: {refusal}");
    }
    for body in ["[]", "{\"events\":[]}"] {
        assert_eq!(world.post("/api/events", body).await.refusal(400)["code"], "empty_batch");
    }
    let not_text = world.post("/api/events", vec![0xff, 0xfe, 0x00]).await;
    assert_eq!(not_text.refusal(400)["code"], "invalid_json");
    let not_text_inside = b"[{\"sessionId\":\"\xff\xfe\"}]".to_vec();
    assert_eq!(world.post("/api/events", not_text_inside).await.refusal(400)["code"], "invalid_json");
    world.settled().await;
    assert_eq!(world.read("/api/events").await["total"], 0);
}

async fn bombs_are_refused(world: World) {
    let bomb = vec![b' '; 65 * MEGABYTE];
    assert_eq!(post_encoded(&world, "gzip", gzip(&bomb)).await.refusal(413)["code"], "too_large");
    let zstd = zstd::encode_all(bomb.as_slice(), 1).unwrap();
    assert_eq!(post_encoded(&world, "zstd", zstd).await.refusal(413)["code"], "too_large");
    world.send(&[note("s", "still alive")]).await;
}

async fn bodies_beyond_the_limits_are_refused(world: World) {
    let large = vec![b' '; 16 * MEGABYTE + 1];
    let refusal = world.post("/api/events", large).await.refusal(413);
    assert!(refusal["error"].as_str().unwrap().contains("16777216"), "{refusal}");
    let many: Vec<Value> = vec![json!(0); 10_001];
    let refusal = world.try_send(&many).await.refusal(413);
    assert!(refusal["error"].as_str().unwrap().contains("10000"), "{refusal}");
    let most: Vec<Value> = (0..10_000).map(|_| json!({ "sessionId": "s", "agentId": "a", "eventType": "custom", "payload": { "type": "t", "data": {} } })).collect();
    world.send(&most).await;
    assert_eq!(world.read("/api/sessions/s").await["eventCount"], 10_000);
}

async fn a_payload_of_a_megabyte_is_kept_whole(world: World) {
    // With the members around it the payload's canonical text has exactly the limit.
    let frame = json!({ "type": "note", "data": { "text": "" } }).to_string().len();
    let mut text: String = "aé漢😀\"\\\n".chars().cycle().take(600_000).collect();
    while serde_json::to_string(&text).unwrap().len() - 2 + frame > MEGABYTE {
        let half = text.chars().count() * 3 / 4;
        text = text.chars().take(half).collect();
    }
    let missing = MEGABYTE - (serde_json::to_string(&text).unwrap().len() - 2 + frame);
    text.push_str(&"z".repeat(missing));
    let answer = world.send(&[note("s", &text)]).await;
    let id = answer["events"][0]["id"].as_str().unwrap();
    let stored = world.get(&format!("/api/events/{id}")).await;
    let expected = json!({ "type": "note", "data": { "text": text } }).to_string();
    assert_eq!(expected.len(), MEGABYTE);
    assert!(
        stored.text.contains(&format!("\"payload\":{expected},")),
        "the payload is not the same, byte for byte"
    );
    world.timeline("s").await;
}

async fn large_parts_of_payloads_are_cut_and_their_facts_stay(world: World) {
    let image = "iVBORw0KGgo+/".repeat(MEGABYTE / 10);
    let call = json!({"sessionId": "s", "agentId": "a", "eventType": "llm_response", "payload": {
        "callId": "c", "provider": "openai", "model": "gpt-4o", "completion": "A cat", "image": image,
        "usage": {"inputTokens": 1500, "outputTokens": 50, "totalTokens": 1550}}});
    let wide: serde_json::Map<String, Value> =
        (0..100_000).map(|at| (format!("member {at}"), json!("value"))).collect();
    let wide = json!({"sessionId": "s", "agentId": "a", "eventType": "session_started", "payload": wide});
    let answer = world.try_send(&[note("s", "before"), call, wide, note("s", "after")]).await.expect(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(3), &json!(1)));
    let error = &answer["errors"][0];
    assert_eq!(
        (&error["index"], &error["field"], &error["reason"]),
        (&json!(2), &json!("payload"), &json!("too_large"))
    );
    world.settled().await;
    let timeline = world.timeline("s").await;
    let payload = &timeline.iter().find(|event| event["eventType"] == "llm_response").unwrap()["payload"];
    assert_eq!((&payload["completion"], &payload["usage"]["inputTokens"]), (&json!("A cat"), &json!(1500)));
    assert!(payload["image"].as_str().unwrap().starts_with("[cut: "), "{payload}");
}

/// Plain clients send all of a body before they read the answer.
async fn a_client_that_is_still_sending_learns_why_it_is_refused(world: World) {
    let body = format!("{{\"events\": [{}]}}", " ".repeat(8 * MEGABYTE));
    let address = world.address().trim_start_matches("http://").to_owned();
    for (path, key) in [
        ("/api/events", "al_live_wrong"),
        ("/v1/traces", "al_live_wrong"),
        ("/api/events?strict=perhaps", world.key()),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let (body, address) = (body.clone(), address.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(body.as_bytes()).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            String::from_utf8(answer).unwrap()
        });
        let answer = answer.await.unwrap();
        let wanted = if key == world.key() { "HTTP/1.1 400" } else { "HTTP/1.1 401" };
        assert!(answer.starts_with(wanted), "{path}: {answer}");
    }
}
