//! Client ids and `Idempotency-Key`: a repeat is stored once, a clash is refused and said.

use serde_json::{Value, json};

use crate::samples::{note, with};
use crate::world::{Answer, World};

on_both_engines!(
    a_repeat_is_stored_once,
    a_clash_is_refused_and_said,
    a_repeat_and_a_clash_within_one_batch,
    the_same_id_serves_two_orgs,
    an_idempotency_key_makes_a_repeat_harmless,
    idempotency_keys_of_two_api_keys_are_apart,
    long_idempotency_keys_are_refused,
    strange_ids_are_kept,
);

fn with_id(id: &str, text: &str) -> Value {
    with(note("s", text), "id", id)
}

async fn a_repeat_is_stored_once(world: World) {
    let events: Vec<Value> = (0..10).map(|number| with_id(&format!("e{number}"), "same")).collect();
    for _ in 0..3 {
        let answer = world.send(&events).await;
        assert_eq!(answer["rejected"], 0);
        let ids: Vec<&str> =
            answer["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(ids, events.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>());
    }
    let timeline = world.timeline("s").await;
    assert_eq!(timeline.len(), 10);
    assert_eq!(world.read("/api/stats").await["totalEvents"], 10);
    // The same content under other member order and spacing of the envelope is still the same event.
    let reordered = format!(
        "[{{ \"payload\" : {}, \"eventType\":\"custom\", \"agentId\":\"agent-1\", \"id\":\"e0\", \"sessionId\":\"s\" }}]",
        events[0]["payload"]
    );
    let answer = world.post("/api/events", reordered).await.expect(202);
    assert_eq!(answer["rejected"], 0);
    world.settled().await;
    assert_eq!(world.timeline("s").await, timeline);
}

async fn a_clash_is_refused_and_said(world: World) {
    world.send(&[with_id("e1", "first")]).await;
    let answer = world.try_send(&[with_id("e1", "other"), with_id("e2", "good")]).await.expect(202);
    assert_eq!(answer["accepted"], 1);
    assert_eq!(answer["errors"][0]["index"], 0);
    assert_eq!(answer["errors"][0]["field"], "id");
    assert_eq!(answer["errors"][0]["reason"], "id_conflict");
    assert!(answer["errors"][0]["error"].as_str().unwrap().contains("e1"));
    world.try_send(&[with_id("e1", "other")]).await.refusal(400);
    world.settled().await;
    let texts: Vec<Value> =
        world.timeline("s").await.iter().map(|event| event["payload"]["data"]["text"].clone()).collect();
    assert_eq!(texts, ["first", "good"]);
}

async fn a_repeat_and_a_clash_within_one_batch(world: World) {
    let batch =
        [with_id("e1", "first"), with_id("e1", "first"), with_id("e1", "other"), with_id("e2", "good")];
    let answer = world.try_send(&batch).await.expect(202);
    assert_eq!(answer["accepted"], 3, "{answer}");
    assert_eq!(answer["errors"][0]["index"], 2);
    assert_eq!(answer["errors"][0]["reason"], "id_conflict");
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 2);
    let ledger = world.read("/v1/ingest/ledger").await;
    assert_eq!(ledger["keys"][0]["received"], 4);
    assert_eq!(ledger["keys"][0]["stored"], 2);
    assert_eq!(ledger["keys"][0]["refused"], json!({ "duplicate": 1, "id_conflict": 1 }));
}

async fn the_same_id_serves_two_orgs(world: World) {
    let (_, other) = world.org("Other");
    world.send(&[with_id("e1", "ours")]).await;
    other.send(&[with_id("e1", "theirs")]).await;
    assert_eq!(world.read("/api/events/e1").await["payload"]["data"]["text"], "ours");
    assert_eq!(other.read("/api/events/e1").await["payload"]["data"]["text"], "theirs");
}

async fn post_with_key(api: &crate::world::Api, key: &str, events: &[Value]) -> Answer {
    let request = api.request("POST", "/api/events").header("idempotency-key", key);
    api.answer(request.body(json!({ "events": events }).to_string())).await
}

async fn an_idempotency_key_makes_a_repeat_harmless(world: World) {
    let batch = [note("s", "one"), note("s", "two"), with_id("own", "three")];
    let first = post_with_key(&world, "k1", &batch).await.expect(202);
    world.settled().await;
    let second = post_with_key(&world, "k1", &batch).await.expect(202);
    world.settled().await;
    let ids = |answer: &Value| -> Vec<Value> {
        answer["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect()
    };
    assert_eq!(ids(&first), ids(&second));
    assert_eq!(ids(&first)[2], "own");
    assert_eq!(world.timeline("s").await.len(), 3);
    post_with_key(&world, "k2", &batch[..2]).await.expect(202);
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 5);
    // The same key for another content is a clash.
    let clash = post_with_key(&world, "k1", &[note("s", "other")]).await.refusal(400);
    assert_eq!(clash["details"][0]["path"], "events.0.id");
}

async fn idempotency_keys_of_two_api_keys_are_apart(world: World) {
    let other = world.make_key(&[]);
    post_with_key(&world, "k", &[note("s", "one")]).await.expect(202);
    post_with_key(&other, "k", &[note("s", "two")]).await.expect(202);
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 2);
}

async fn long_idempotency_keys_are_refused(world: World) {
    post_with_key(&world, &"k".repeat(255), &[note("s", "x")]).await.expect(202);
    let refusal = post_with_key(&world, &"k".repeat(256), &[note("s", "x")]).await.refusal(400);
    assert_eq!(refusal["code"], "invalid_idempotency_key");
    let request = world.request("POST", "/api/events").header("idempotency-key", "schlüssel".as_bytes());
    world.answer(request.body(note("s", "x").to_string())).await.refusal(400);
}

async fn strange_ids_are_kept(world: World) {
    for id in ["ü漢😀", "a/b?c#d%20", "'; drop table events; --", "\u{202e}x", "\n", &"x".repeat(256)] {
        let event = with(
            with(with(note(id, "strange"), "id", id), "agentId", id),
            "timestamp",
            "2026-01-02T03:04:05Z",
        );
        world.send(&[event]).await;
        let listed = world.query("/api/events", &[("sessionId", id)]).await.expect(200);
        assert_eq!(listed["total"], 1, "{id}");
        assert_eq!(listed["events"][0]["id"], id);
        assert_eq!(listed["events"][0]["agentId"], id);
        let listed = world.query("/api/events", &[("agentId", id)]).await.expect(200);
        assert_eq!(listed["events"][0]["id"], id);
        let mut path = String::from("/api/events/");
        path.extend(id.bytes().map(|byte| format!("%{byte:02x}")));
        assert_eq!(world.read(&path).await["id"], id);
    }
}
