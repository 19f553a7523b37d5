//! Answers are bounded in bytes as well as in rows, and no request pays for more than it shows.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use agentlens_domain::limits::{MAX_ANSWER_BYTES, MAX_VERIFIED_EVENTS};
use serde_json::{Value, json};

use crate::samples::{event, note, with};
use crate::world::World;

on_both_engines!(
    pages_end_at_their_size_in_bytes,
    a_stream_reads_large_events_one_by_one,
    totals_do_not_follow_the_page,
    long_chains_are_verified_by_the_page,
    rings_of_parents_cost_no_more_than_lines,
    an_org_cannot_take_all_streams,
    memory_stays_small_whatever_is_read,
);

const LARGE_BYTES: usize = 1_000_000;

fn large(number: usize) -> Value {
    let text = format!("{number:05}{}", "A".repeat(LARGE_BYTES));
    event("large", "custom", json!({ "type": "t", "data": { "text": text } }))
}

async fn send_large(world: &World, count: usize) {
    for number in 0..count {
        world.try_send(&[large(number)]).await.expect(202);
    }
    world.settled().await;
}

async fn pages_end_at_their_size_in_bytes(world: World) {
    send_large(&world, 20).await;
    let most = MAX_ANSWER_BYTES + LARGE_BYTES;
    for filter in ["", "&search=AAAA", "&agentId=agent-1", "&sessionId=large"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = world.get(&format!("/api/events?limit=1000{filter}{cursor}")).await;
            assert!(answer.text.len() < most, "{filter}: {} bytes", answer.text.len());
            let page = answer.expect(200);
            let events = page["events"].as_array().unwrap();
            assert!(!events.is_empty());
            assert_eq!((&page["total"], &page["totalIsExact"]), (&json!(20), &json!(true)), "{filter}");
            seen.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 20, "{filter}");
    }
    let (mut count, mut after) = (0, 0);
    loop {
        let answer = world.get(&format!("/api/sessions/large/timeline?after={after}")).await;
        assert!(answer.text.len() < most, "{} bytes", answer.text.len());
        let page = answer.expect(200);
        count += page["events"].as_array().unwrap().len();
        assert_eq!(page["chainValid"], true);
        match page["nextSeq"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(count, 20);
}

async fn a_stream_reads_large_events_one_by_one(world: World) {
    send_large(&world, 5).await;
    let mut stream = world.stream(&[], Some("0")).await;
    let mut last = String::new();
    for (message, number) in stream.take(3).await.iter().zip(0..) {
        let text = message.data["payload"]["data"]["text"].as_str().unwrap();
        assert!(text.starts_with(&format!("{number:05}")) && text.len() == LARGE_BYTES + 5);
        // The position of an event in its org would say how much others send.
        assert_eq!(message.id, message.data["id"].as_str().unwrap());
        last.clone_from(&message.id);
    }
    let mut resumed = world.stream(&[], Some(&last)).await;
    let text = resumed.take(1).await[0].data["payload"]["data"]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("00003"));
}

async fn totals_do_not_follow_the_page(world: World) {
    let events: Vec<Value> =
        (0..38).map(|number| with(note("s", &format!("word {number}")), "severity", "warn")).collect();
    world.send(&events).await;
    for filter in ["severity=warn", "eventType=custom", "search=word", "agentId=agent-1", "sessionId=s"] {
        let (mut cursor, mut pages) = (String::new(), 0);
        loop {
            let page = world.read(&format!("/api/events?{filter}&limit=10{cursor}")).await;
            assert_eq!((&page["total"], &page["totalIsExact"]), (&json!(38), &json!(true)), "{filter}");
            pages += 1;
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(pages, 4, "{filter}");
    }
    let page = world.read("/api/events?search=nowhere").await;
    assert_eq!((&page["total"], &page["totalIsExact"]), (&json!(0), &json!(true)));
    let many: Vec<Value> = (0..10_001).map(|_| note("many", "further")).collect();
    for chunk in many.chunks(2_000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    for filter in
        ["", "agentId=agent-1", "search=further", "sessionId=many", "sessionId=many&eventType=custom"]
    {
        let page = world.read(&format!("/api/events?limit=3&{filter}")).await;
        assert_eq!((&page["total"], &page["totalIsExact"]), (&json!(10_000), &json!(false)), "{filter}");
    }
    let count = world.read("/api/sessions?countOnly=true").await;
    assert_eq!(count, json!({ "count": 2, "countIsExact": true }));
}

async fn long_chains_are_verified_by_the_page(world: World) {
    let length = MAX_VERIFIED_EVENTS + 1;
    let events: Vec<Value> = (0..length).map(|number| note("s", &number.to_string())).collect();
    world.send(&events).await;
    let first = world.read("/api/sessions/s/timeline?limit=1").await;
    assert_eq!(first["chainValid"], true);
    assert_eq!(first["verified"]["scope"], "page");
    assert!(first["verified"]["eventCount"].as_i64().unwrap() <= 2, "{first}");
    let short: Vec<Value> = (0..3).map(|number| note("t", &number.to_string())).collect();
    world.send(&short).await;
    let whole = world.read("/api/sessions/t/timeline?limit=1").await;
    assert_eq!(whole["verified"], json!({ "scope": "session", "eventCount": 3 }));
    // An event that was changed breaks the page that shows it, and no other.
    world
        .database
        .execute("default", "update events set severity = 'error' where session_id = 's' and seq = 1500")
        .await;
    for (after, view, holds) in
        [(0, "", true), (1490, "", false), (1490, "&view=chain", false), (1510, "", true)]
    {
        let page = world.read(&format!("/api/sessions/s/timeline?limit=20&after={after}{view}")).await;
        assert_eq!(page["chainValid"], holds, "{after}{view}: {}", page["verified"]);
    }
}

async fn rings_of_parents_cost_no_more_than_lines(world: World) {
    let step = |number: usize, parent: usize| {
        with(
            note("s", "x"),
            "metadata",
            json!({ "spanId": format!("{number}"), "parentSpanId": format!("{parent}") }),
        )
    };
    let events: Vec<Value> = (0..10_000).map(|number| step(number, (number + 1) % 10_000)).collect();
    for chunk in events.chunks(2_000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    let started = Instant::now();
    let trace = world.read("/api/sessions/s/trace").await;
    assert_eq!(trace["tree"].as_array().unwrap().len(), 10_000);
    // 10^8 steps take a debug build far longer.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

async fn an_org_cannot_take_all_streams(world: World) {
    let (_, other) = world.org("Other");
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(world.stream(&[], None).await);
    }
    let refusal = world.get("/api/stream").await.refusal(429);
    assert_eq!(refusal["code"], "too_many_streams");
    assert!(refusal["error"].as_str().unwrap().contains("100 live streams"), "{refusal}");
    drop(other.stream(&[], None).await);
    drop(streams);
}

/// The reviewer's attack: lists, searches with an offset and streams that nobody reads.
async fn memory_stays_small_whatever_is_read(world: World) {
    send_large(&world, 150).await;
    let before = world.peak_memory_bytes();
    for path in [
        "/api/events?limit=1000",
        "/api/events?limit=1&offset=149&search=AAAA",
        "/api/sessions/large/timeline",
    ] {
        assert_eq!(world.get(path).await.status, 200);
    }
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(world.stream(&[], Some("0")).await);
    }
    world.read("/api/events?limit=1").await;
    drop(idle);
    // Answers that nobody takes keep the org's turns, so no more of them are made. Others read meanwhile.
    let mut untaken = Vec::new();
    for _ in 0..60 {
        let mut client = TcpStream::connect(world.address().trim_start_matches("http://")).unwrap();
        let request = format!(
            "GET /api/events?limit=1000 HTTP/1.1\r\nHost: a\r\nauthorization: Bearer {}\r\n\r\n",
            world.key()
        );
        client.write_all(request.as_bytes()).unwrap();
        untaken.push(client);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_, other) = world.org("Other");
    other.read("/api/events").await;
    drop(untaken);
    let peak = world.peak_memory_bytes();
    assert!(peak < 512 * 1024 * 1024, "{peak}, {before} before anything was read");
}
