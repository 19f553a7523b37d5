//! While PostgreSQL or Redis is away (cloud form).

use redis::AsyncCommands;

use crate::samples::{note, with};
use crate::world::{World, until};

on_the_cloud_form!(
    without_the_database_known_keys_go_on_sending,
    a_change_that_comes_through_redis_ends_the_trust_in_keys,
);

async fn until_away(world: &World) {
    until("the gateway to notice", || async {
        (world.bare("GET", "/readyz").send().await.unwrap().text().await.unwrap().contains("away"))
            .then_some(())
    })
    .await;
}

async fn without_the_database_known_keys_go_on_sending(world: World) {
    // Of another org: what changes in an org makes a gateway look up its keys again.
    let (_, unknown) = world.org("Other");
    world.send(&[note("s", "before")]).await;
    world.database.go_away().await;
    until_away(&world).await;
    assert_eq!(world.get("/readyz").await.status, 200);
    // With an id of the client's too, which is looked up where it can be.
    world.try_send(&[note("s", "meanwhile"), with(note("s", "named"), "id", "an-id")]).await.expect(202);
    unknown.try_send(&[note("s", "by a key that was never used")]).await.refusal(503);
    world.get("/api/events").await.refusal(503);
    world.database.come_back().await;
    until("the events to be stored", || async {
        let answer = world.get("/api/sessions/s/timeline").await;
        (answer.status == 200 && answer.json["events"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    unknown.send(&[note("s", "known now")]).await;
}

async fn a_change_that_comes_through_redis_ends_the_trust_in_keys(world: World) {
    world.send(&[note("s", "before")]).await;
    world.database.go_away().await;
    until_away(&world).await;
    world.try_send(&[note("s", "meanwhile")]).await.expect(202);
    // Another node, which reaches the database, has read a change that this one can't see.
    let url = std::env::var("AGENTLENS_TEST_REDIS_URL").unwrap();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let _: () = redis.set(format!("{}:changes", world.redis_prefix), 1_000_000).await.unwrap();
    until("the key to be refused", || async {
        (world.try_send(&[note("s", "revoked?")]).await.status == 503).then_some(())
    })
    .await;
    world.database.come_back().await;
    until("the key to be known again", || async {
        (world.try_send(&[note("s", "after")]).await.status == 202).then_some(())
    })
    .await;
}
