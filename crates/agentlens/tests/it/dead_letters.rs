//! Batches that can't be applied (cloud form): kept with their reason, listed and replayed by command.

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::samples::note;
use crate::world::{World, until};

on_the_embedded_form!(without_dead_letters_the_list_is_empty);
on_the_cloud_form!(
    broken_messages_become_dead_letters,
    messages_of_unknown_orgs_are_dropped,
    foreign_messages_are_removed,
    a_batch_that_the_store_refuses_is_replayed_when_it_can_be,
    without_dead_letters_the_list_is_empty,
);

const SHARDS: usize = 8;

async fn redis() -> MultiplexedConnection {
    let url = std::env::var("AGENTLENS_TEST_REDIS_URL").unwrap();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn stream(world: &World, shard: usize) -> String {
    format!("{}:ingest:{shard}", world.redis_prefix)
}

async fn waiting_messages(world: &World, redis: &mut MultiplexedConnection) -> u64 {
    let mut count = 0;
    for shard in 0..SHARDS {
        let length: u64 = redis.xlen(stream(world, shard)).await.unwrap();
        count += length;
    }
    count
}

async fn until_empty(world: &World, redis: &MultiplexedConnection) {
    until("the streams to be empty", || async {
        (waiting_messages(world, &mut redis.clone()).await == 0).then_some(())
    })
    .await;
}

fn letters(world: &World) -> Vec<Value> {
    world.run_json(&["dead-letters", "list"])["dead_letters"].as_array().unwrap().clone()
}

async fn push(world: &World, redis: &mut MultiplexedConnection, fields: &[(&str, &[u8])]) {
    let _: String = redis.xadd(stream(world, 3), "*", fields).await.unwrap();
}

async fn broken_messages_become_dead_letters(world: World) {
    let mut redis = redis().await;
    for bytes in [&b"\x01nonsense"[..], b"", b"\x00older"] {
        let fields = [("org", &b"default"[..]), ("key", b"key_x"), ("events", b"7"), ("batch", bytes)];
        push(&world, &mut redis, &fields).await;
    }
    until_empty(&world, &redis).await;
    let letters = letters(&world);
    assert_eq!(letters.len(), 3, "{letters:?}");
    for letter in &letters {
        assert_eq!((&letter["key_id"], &letter["events"]), (&json!("key_x"), &json!(7)));
        assert!(!letter["reason"].as_str().unwrap().is_empty());
        assert!(letter["failed_at"].is_string());
    }
    assert!(letters[2]["reason"].as_str().unwrap().contains("version 0"), "{letters:?}");
    // The same over HTTP, for this org alone.
    let listed = world.read("/v1/dead-letters").await;
    assert_eq!(listed["dead_letters"], json!(letters));
    let path = format!("/v1/dead-letters/{}/replay", letters[0]["batch_id"].as_str().unwrap());
    let (_, other) = world.org("Other");
    assert_eq!(other.read("/v1/dead-letters").await["dead_letters"], json!([]));
    other.post(&path, "").await.refusal(404);
    world.post(&path, "").await.refusal(409);
    // Replaying what is still broken keeps it.
    let printed = world.run(&["dead-letters", "replay", "--json"]);
    assert!(!printed.is_success);
    assert_eq!((&printed.json["replayed"], printed.json["failed"].as_array().unwrap().len()), (&json!(0), 3));
    assert_eq!(self::letters(&world).len(), 3);
    // What comes after is not held up.
    world.send(&[note("s", "after")]).await;
}

async fn messages_of_unknown_orgs_are_dropped(world: World) {
    let mut redis = redis().await;
    let fields = [("org", &b"nobody"[..]), ("key", b"key_x"), ("events", b"1"), ("batch", b"\x01x")];
    push(&world, &mut redis, &fields).await;
    until_empty(&world, &redis).await;
    assert_eq!(letters(&world), Vec::<Value>::new());
    world.send(&[note("s", "after")]).await;
}

async fn foreign_messages_are_removed(world: World) {
    let mut redis = redis().await;
    push(&world, &mut redis, &[("hello", &b"world"[..])]).await;
    push(&world, &mut redis, &[("org", &b"../x"[..]), ("key", b"k"), ("events", b"1"), ("batch", b"x")])
        .await;
    push(
        &world,
        &mut redis,
        &[("org", &b"default"[..]), ("key", b"k"), ("events", b"many"), ("batch", b"x")],
    )
    .await;
    until_empty(&world, &redis).await;
    assert_eq!(letters(&world), Vec::<Value>::new());
    world.send(&[note("s", "after")]).await;
}

async fn a_batch_that_the_store_refuses_is_replayed_when_it_can_be(world: World) {
    let redis = redis().await;
    world.send(&[note("s", "before")]).await;
    // A rule that someone added by hand makes the store refuse one batch for good.
    let rule = "alter table events add constraint by_hand check (session_id <> 'refused') not valid";
    world.database.execute("default", rule).await;
    for _ in 0..2 {
        world.try_send(&[note("refused", "one"), note("refused", "two")]).await.expect(202);
    }
    world.try_send(&[note("s", "neighbour")]).await.expect(202);
    until_empty(&world, &redis).await;
    let kept = letters(&world);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[0]["events"], 2);
    assert!(kept[0]["reason"].as_str().unwrap().contains("by_hand"), "{kept:?}");
    assert_eq!(world.timeline("s").await.len(), 2);
    world.get("/api/sessions/refused").await.refusal(404);
    // Nothing is lost from the ledger meanwhile.
    let ledger = world.read("/v1/ingest/ledger").await;
    assert_eq!(ledger["keys"][0]["received"], 6, "{ledger}");
    world.database.execute("default", "alter table events drop constraint by_hand").await;
    let id = kept[0]["batch_id"].as_str().unwrap();
    assert_eq!(world.run_json(&["dead-letters", "replay", id]), json!({ "replayed": 1, "failed": [] }));
    let path = format!("/v1/dead-letters/{}/replay", kept[1]["batch_id"].as_str().unwrap());
    world.post(&path, "").await.expect(204);
    world.post(&path, "").await.refusal(404);
    assert_eq!(world.timeline("refused").await.len(), 4);
    assert_eq!(letters(&world), Vec::<Value>::new());
    let ledger = world.read("/v1/ingest/ledger").await;
    assert_eq!((&ledger["keys"][0]["received"], &ledger["keys"][0]["stored"]), (&json!(6), &json!(6)));
}

async fn without_dead_letters_the_list_is_empty(world: World) {
    assert_eq!(letters(&world), Vec::<Value>::new());
    assert_eq!(world.run_json(&["dead-letters", "replay"]), json!({ "replayed": 0, "failed": [] }));
    assert_eq!(world.run(&["dead-letters", "list"]).text, "");
}
