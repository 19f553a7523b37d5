//! The hash chain over HTTP: the published vectors, an independent recount, and every kind of delivery.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::otel_requests::{chat, send_spans, span, trace_id};
use crate::samples::{HOUR_US, at, note, now_us, one_of_each, with};
use crate::world::World;

on_both_engines!(
    the_published_vectors_come_out,
    hashes_equal_an_independent_recount,
    what_arrives_of_spans_is_chained_as_it_came,
    late_and_shuffled_events_are_chained_as_they_arrive,
    sixteen_clients_on_one_session,
    repeated_delivery_changes_nothing,
    timelines_are_paged_by_sequence,
);

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<'a> {
    id: String,
    timestamp: String,
    session_id: String,
    agent_id: String,
    event_type: String,
    severity: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    metadata: &'a RawValue,
    prev_hash: Option<String>,
    hash: String,
    seq: i64,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timeline<'a> {
    #[serde(borrow)]
    events: Vec<Stored<'a>>,
    chain_valid: bool,
    chained: bool,
}

/// The published formula, written once more: nothing of the product is used.
fn hash(event: &Stored<'_>) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let previous = event.prev_hash.as_deref().map_or("null".to_owned(), text);
    let record = format!(
        r#"{{"v":2,"id":{},"timestamp":{},"sessionId":{},"agentId":{},"eventType":{},"severity":{},"payload":{},"metadata":{},"prevHash":{previous}}}"#,
        text(&event.id),
        text(&event.timestamp),
        text(&event.session_id),
        text(&event.agent_id),
        text(&event.event_type),
        text(&event.severity),
        event.payload.get(),
        event.metadata.get(),
    );
    Sha256::digest(record).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Recounts a session's chain; returns the ids in its order.
async fn recount(world: &World, session: &str) -> Vec<String> {
    let answer = world.get(&format!("/api/sessions/{session}/timeline?view=chain")).await;
    let timeline: Timeline<'_> = serde_json::from_str(&answer.text).unwrap();
    assert!(timeline.chain_valid && timeline.chained);
    let mut previous: Option<String> = None;
    for (event, seq) in timeline.events.iter().zip(1..) {
        assert_eq!(event.seq, seq);
        assert_eq!(event.prev_hash, previous, "event {seq}");
        assert_eq!(event.hash, hash(event), "event {seq}");
        previous = Some(event.hash.clone());
    }
    timeline.events.into_iter().map(|event| event.id).collect()
}

async fn the_published_vectors_come_out(world: World) {
    let body = r#"{"events":[
      {"id":"01HZX3V9K2ABCDEFGHJKMNPQRS","timestamp":"2026-01-02T03:04:05.678Z","sessionId":"sess-1","agentId":"agent-1","eventType":"tool_call",
       "payload":{"toolName":"search","callId":"c-1","arguments":{"q":"héllo \"w\"\n/\u2028 😀","n":1.0,"big":1e21,"small":1e-7,"z":-0.0,"arr":[1,2.50]}}},
      {"id":"01HZX3V9K2ABCDEFGHJKMNPQRT","timestamp":"2026-01-02T03:04:06.000Z","sessionId":"sess-1","agentId":"agent-1","eventType":"tool_response",
       "payload":{"callId":"c-1","toolName":"search","result":null,"durationMs":12.5},"metadata":{"source":"test","b":true}},
      {"id":"01HZX3V9K2ABCDEFGHJKMNPQRV","timestamp":"2026-01-02T03:04:05.678Z","sessionId":"sess-1","agentId":"agent-1","eventType":"custom","severity":"info",
       "payload":{"type":"x","data":{"10":"a","2":"b","k":1}},"metadata":{}}]}"#;
    // One request for each: within a request events are chained in the order of their time, and the third is early.
    let events: Value = serde_json::from_str(body).unwrap();
    for event in events["events"].as_array().unwrap() {
        world.send(std::slice::from_ref(event)).await;
    }
    let hashes: Vec<Value> =
        world.timeline("sess-1").await.iter().map(|event| event["hash"].clone()).collect();
    assert_eq!(
        hashes,
        [
            "87bff11cb6b7b38c860d1de37f3d19ca8d6966f45f9d0c4f50b5d94189022940",
            "467ef1315406044f86456a8c1294398fd5e34e9b2d2cc083f1161171e5923a29",
            "1eaf17ccc9e8b59c83067a95f59b82f9f386c1ab5101fc5a411dd0942cd4b1b2",
        ]
    );
    recount(&world, "sess-1").await;
}

async fn hashes_equal_an_independent_recount(world: World) {
    let events: Vec<Value> = one_of_each("s", now_us() - HOUR_US)
        .into_iter()
        .zip(0..)
        .map(|(event, number)| {
            let metadata = json!({ "source": "test", "n": number, "text": "\u{1}\"\\\u{2028}漢" });
            let severity = ["debug", "info", "warn", "error", "critical"][number % 5];
            with(with(event, "metadata", metadata), "severity", severity)
        })
        .collect();
    world.send(&events).await;
    assert_eq!(recount(&world, "s").await.len(), events.len());
}

async fn what_arrives_of_spans_is_chained_as_it_came(world: World) {
    let old = trace_id(1);
    send_spans(&world, &[span(1, 3, Some(2), chat(100, 10)), span(1, 2, Some(1), json!({}))]).await;
    // Another version of the same span, then the root, which names a session: what is shown moves, the chain stays.
    send_spans(&world, &[span(1, 3, Some(2), chat(120, 12))]).await;
    send_spans(&world, &[span(1, 1, None, json!({ "session.id": "late" }))]).await;
    assert_eq!((recount(&world, &old).await.len(), recount(&world, "late").await.len()), (3, 1));
    let shown = world.read("/api/sessions/late/timeline").await;
    assert_eq!(shown["events"].as_array().unwrap().len(), 3);
    assert_eq!((&shown["movedChains"], &shown["chainValid"]), (&json!([old]), &json!(true)));
    let wrong = world.get("/api/sessions/late/timeline?view=raw").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("view"), "{}", wrong.text);
}

async fn late_and_shuffled_events_are_chained_as_they_arrive(world: World) {
    let start_us = now_us() - 10 * HOUR_US;
    let mut events: Vec<Value> = (0..200)
        .map(|number| {
            let timestamp = at(start_us + number * 1_000_000);
            with(with(note("s", &number.to_string()), "timestamp", timestamp), "id", format!("e{number}"))
        })
        .collect();
    events.shuffle(&mut SmallRng::seed_from_u64(3));
    for chunk in events.chunks(17) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    // Within a request the order is that of time, as the published server has it.
    for chunk in events.chunks_mut(17) {
        chunk.sort_by_key(|event| event["timestamp"].as_str().unwrap().to_owned());
    }
    let order = recount(&world, "s").await;
    assert_eq!(order, events.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>());
    // An event long before all others goes to the end of the chain and to the start of the list.
    world.send(&[with(with(note("s", "late"), "timestamp", at(start_us - HOUR_US)), "id", "late")]).await;
    assert_eq!(recount(&world, "s").await.last().unwrap(), "late");
    let listed = world.query("/api/events", &[("sessionId", "s"), ("order", "asc"), ("limit", "1")]).await;
    assert_eq!(listed.expect(200)["events"][0]["id"], "late");
}

async fn sixteen_clients_on_one_session(world: World) {
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let api = world.same_key();
            tokio::spawn(async move {
                for batch in 0..5 {
                    let events: Vec<Value> = (0..10)
                        .map(|number| with(note("s", "x"), "id", format!("{client}-{batch}-{number}")))
                        .collect();
                    let answer = api.try_send(&events).await.expect(202);
                    assert_eq!(answer["accepted"], 10);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    world.settled().await;
    let order = recount(&world, "s").await;
    assert_eq!(order.len(), 16 * 5 * 10);
    // Each client's events are in the order in which it sent them.
    for client in 0..16 {
        let own: Vec<&String> = order.iter().filter(|id| id.starts_with(&format!("{client}-"))).collect();
        let sent: Vec<String> =
            (0..50).map(|number| format!("{client}-{}-{}", number / 10, number % 10)).collect();
        assert_eq!(own, sent.iter().collect::<Vec<_>>());
    }
    assert_eq!(world.read("/api/sessions/s").await["eventCount"], 800);
}

async fn repeated_delivery_changes_nothing(world: World) {
    let events: Vec<Value> = one_of_each("s", now_us() - HOUR_US)
        .into_iter()
        .zip(0..)
        .map(|(event, number)| with(event, "id", format!("e{number}")))
        .collect();
    world.send(&events).await;
    let paths = [
        "/api/sessions/s",
        "/api/sessions/s/timeline",
        "/api/agents",
        "/api/analytics",
        "/api/analytics/costs",
    ];
    let mut before = Vec::new();
    for path in paths {
        before.push(world.read(path).await);
    }
    // All at once, in parts, and all of it from several clients at a time.
    let repeats: Vec<_> = (1..8)
        .map(|size| {
            let (api, events) = (world.same_key(), events.clone());
            tokio::spawn(async move {
                for chunk in events.chunks(size * 3) {
                    api.try_send(chunk).await.expect(202);
                }
            })
        })
        .collect();
    for repeat in repeats {
        repeat.await.unwrap();
    }
    world.settled().await;
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(world.read(path).await, before, "{path}");
    }
    recount(&world, "s").await;
}

async fn timelines_are_paged_by_sequence(world: World) {
    let events: Vec<Value> = (0..25).map(|number| note("s", &number.to_string())).collect();
    world.send(&events).await;
    let (mut after, mut texts) = (0, Vec::new());
    loop {
        let path = format!("/api/sessions/s/timeline?limit=7&after={after}");
        let page = world.read(&path).await;
        assert_eq!(page["chainValid"], true);
        texts.extend(
            page["events"].as_array().unwrap().iter().map(|event| event["payload"]["data"]["text"].clone()),
        );
        match page["nextSeq"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(texts, (0..25).map(|number| json!(number.to_string())).collect::<Vec<_>>());
    for bad in ["limit=0", "limit=x", "after=x"] {
        world.get(&format!("/api/sessions/s/timeline?{bad}")).await.refusal(400);
    }
}
