//! The live stream.

use serde_json::json;

use crate::samples::{event, note, with};
use crate::world::World;

on_both_engines!(
    events_come_as_they_are_stored,
    filters_hold,
    a_client_that_comes_back_misses_nothing,
    streams_of_others_are_silent,
    a_stream_ends_when_the_server_stops,
    a_quiet_stream_says_at_once_that_it_is_open,
);

async fn events_come_as_they_are_stored(world: World) {
    world.send(&[note("s", "before")]).await;
    let mut stream = world.stream(&[], None).await;
    world.try_send(&[note("s", "one"), note("s", "two")]).await.expect(202);
    let messages = stream.take(2).await;
    for (message, text) in messages.iter().zip(["one", "two"]) {
        assert_eq!(message.event, "event");
        assert_eq!(message.data["payload"]["data"]["text"], text);
        let id = message.data["id"].as_str().unwrap();
        assert_eq!(world.read(&format!("/api/events/{id}")).await, message.data);
    }
    // Browsers open streams without headers.
    let path = format!("/api/stream?token={}", world.key());
    let response = world.bare("GET", &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    world.answer(world.bare("GET", "/api/stream")).await.refusal(401);
    world.make_key(&["--scope", "events:write"]).get("/api/stream").await.refusal(403);
}

async fn filters_hold(world: World) {
    let mut by_session = world.stream(&[("sessionId", "s2")], None).await;
    let mut by_agent = world.stream(&[("agentId", "other")], None).await;
    let mut by_type = world.stream(&[("eventType", "session_started,session_ended")], None).await;
    world
        .send(&[
            note("s1", "x"),
            note("s2", "x"),
            with(note("s1", "x"), "agentId", "other"),
            event("s1", "session_started", json!({})),
            event("s1", "session_ended", json!({})),
        ])
        .await;
    assert_eq!(by_session.take(1).await[0].data["sessionId"], "s2");
    assert_eq!(by_agent.take(1).await[0].data["agentId"], "other");
    let types: Vec<_> =
        by_type.take(2).await.into_iter().map(|message| message.data["eventType"].clone()).collect();
    assert_eq!(types, ["session_started", "session_ended"]);
}

async fn a_client_that_comes_back_misses_nothing(world: World) {
    let mut stream = world.stream(&[], None).await;
    let texts =
        |from: usize, to: usize| (from..to).map(|number| note("s", &number.to_string())).collect::<Vec<_>>();
    world.send(&texts(0, 10)).await;
    let seen = stream.take(4).await;
    drop(stream);
    // More than one read of the stream's own chunks.
    world.send(&texts(10, 700)).await;
    let last = seen.last().unwrap().id.clone();
    let mut by_header = world.stream(&[], Some(&last)).await;
    let mut by_parameter = world.stream(&[("lastEventId", &last)], None).await;
    for stream in [&mut by_header, &mut by_parameter] {
        for (message, number) in stream.take(696).await.iter().zip(4..) {
            assert_eq!(message.data["payload"]["data"]["text"], number.to_string());
        }
    }
    world.send(&texts(700, 701)).await;
    assert_eq!(by_header.take(1).await[0].data["payload"]["data"]["text"], "700");
    world.answer(world.request("GET", "/api/stream").header("last-event-id", "x")).await.refusal(400);
}

async fn streams_of_others_are_silent(world: World) {
    let (_, other) = world.org("Other");
    let project = world.make_key(&["--workspace", "project"]);
    let mut of_other = other.stream(&[], Some("0")).await;
    let mut of_project = project.stream(&[], Some("0")).await;
    world.send(&[note("s", "ours")]).await;
    other.send(&[note("s", "theirs")]).await;
    project.send(&[note("s", "the project's")]).await;
    assert_eq!(of_other.take(1).await[0].data["payload"]["data"]["text"], "theirs");
    assert_eq!(of_project.take(1).await[0].data["payload"]["data"]["text"], "the project's");
}

async fn a_stream_ends_when_the_server_stops(mut world: World) {
    let mut stream = world.stream(&[], None).await;
    world.stop_gracefully().await;
    assert!(stream.next().await.is_none());
}

async fn a_quiet_stream_says_at_once_that_it_is_open(world: World) {
    let mut response = world.request("GET", "/api/stream").send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&first), ": connected\n\n");
}
