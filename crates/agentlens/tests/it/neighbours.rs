//! What one org, one batch or one event can't do to the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::samples::note;
use crate::world::{Api, World, connect, until};

on_the_embedded_form!(
    an_event_that_the_store_refuses_costs_no_other,
    a_batch_that_the_store_refuses_is_in_the_ledger,
);
on_the_cloud_form!(
    an_event_that_the_store_refuses_costs_no_other,
    an_org_whose_batches_fail_delays_no_other_and_keeps_its_order,
    an_org_whose_batches_are_slow_delays_no_other,
    a_batch_that_fails_for_long_becomes_a_dead_letter,
    a_batch_that_ends_its_worker_becomes_a_dead_letter,
    a_message_of_a_newer_version_waits_and_holds_up_its_org_only,
    standby_workers_keep_their_connections,
    an_org_that_fills_its_share_of_the_queue_leaves_room_for_others,
);

const SHARDS: u64 = 8;

fn shard_of(org: &str) -> u64 {
    org.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        % SHARDS
}

/// An org in the same shard as another one.
fn org_beside(world: &World, org: &str) -> (String, Api) {
    for number in 0..200 {
        let made = world.org(&format!("Beside {number}"));
        if shard_of(&made.0) == shard_of(org) {
            return made;
        }
    }
    panic!("no org came into the shard of {org}");
}

async fn redis() -> MultiplexedConnection {
    let url = std::env::var("AGENTLENS_TEST_REDIS_URL").unwrap();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Makes the store do something before it inserts a session of this id.
async fn before_session(world: &World, session: &str, then: &str) {
    let sql = format!(
        "create function tenant.by_hand() returns trigger language plpgsql as
           $$ begin if new.session_id = '{session}' then {then}; end if; return new; end $$;
         create trigger by_hand before insert on tenant.sessions for each row execute function tenant.by_hand();"
    );
    world.database.execute("default", &sql).await;
}

async fn heal(world: &World) {
    world.database.execute("default", "drop trigger by_hand on tenant.sessions").await;
}

async fn waiting(api: &Api) -> i64 {
    let ledger = api.read("/v1/ingest/ledger").await;
    ledger["keys"].as_array().unwrap().iter().map(|key| key["waiting"].as_i64().unwrap()).sum()
}

fn letters(world: &World, org: &str) -> Vec<Value> {
    world.run_json(&["dead-letters", "list", "--org", org])["dead_letters"].as_array().unwrap().clone()
}

async fn until_logged(world: &World, text: &str) {
    until(text, || async { world.log().contains(text).then_some(()) }).await;
}

async fn an_org_whose_batches_fail_delays_no_other_and_keeps_its_order(world: World) {
    let (p, failing) = world.org("P");
    let (_, beside) = org_beside(&world, &p);
    before_session(&world, "stuck", "raise exception 'too slow' using errcode = '57014'").await;
    failing.try_send(&[note("stuck", "first")]).await.expect(202);
    failing.try_send(&[note("other", "second")]).await.expect(202);
    until_logged(&world, "a batch could not be applied").await;
    for number in 0..5 {
        beside.send(&[note("s", &format!("event {number}"))]).await;
    }
    // All the while the batches of P wait, none is given up and none overtakes another.
    assert_eq!(waiting(&failing).await, 2);
    assert_eq!(letters(&world, &p), Vec::<Value>::new());
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("agentlens_queue_parked_orgs 1"), "{metrics}");
    heal(&world).await;
    failing.settled().await;
    let first = "select position from events where session_id = 'stuck'";
    let second = "select position from events where session_id = 'other'";
    let (first, second) = (world.database.number(&p, first).await, world.database.number(&p, second).await);
    assert!(first < second, "{first} is behind {second}");
}

async fn an_org_whose_batches_are_slow_delays_no_other(world: World) {
    let (p, slow) = world.org("P");
    let (_, beside) = org_beside(&world, &p);
    before_session(&world, "slow", "perform pg_sleep(20)").await;
    slow.try_send(&[note("slow", "x")]).await.expect(202);
    for number in 0..5 {
        beside.send(&[note("s", &format!("event {number}"))]).await;
    }
    assert_eq!(waiting(&slow).await, 1);
    slow.settled().await;
}

async fn a_batch_that_fails_for_long_becomes_a_dead_letter(world: World) {
    let (p, failing) = world.org("P");
    before_session(&world, "stuck", "raise exception 'too slow' using errcode = '57014'").await;
    failing.try_send(&[note("stuck", "x")]).await.expect(202);
    failing.try_send(&[note("other", "y")]).await.expect(202);
    failing.settled().await;
    let letters = letters(&world, &p);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0]["reason"].as_str().unwrap().contains("57014"), "{letters:?}");
    assert_eq!(failing.timeline("other").await.len(), 1);
}

/// Redis counts how often a message was tried by workers that ended meanwhile.
async fn a_batch_that_ends_its_worker_becomes_a_dead_letter(mut world: World) {
    let mut redis = redis().await;
    before_session(&world, "poison", "perform pg_sleep(600)").await;
    world.try_send(&[note("poison", "x")]).await.expect(202);
    world.try_send(&[note("s", "behind it")]).await.expect(202);
    let stream = format!("{}:ingest:{}", world.redis_prefix, shard_of("default"));
    for ends in 1..=5 {
        let prefix = world.redis_prefix.clone();
        until("the message to be tried", || async {
            let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
                .arg(&stream)
                .arg("workers")
                .arg("-")
                .arg("+")
                .arg(1)
                .query_async(&mut redis.clone())
                .await
                .unwrap_or_default();
            (pending.first()?.3 >= ends).then_some(())
        })
        .await;
        world.kill();
        // Nobody waits for the lease of the dead here.
        for shard in 0..SHARDS {
            let _: i64 = redis.del(format!("{prefix}:lease:{shard}")).await.unwrap();
        }
        world.start_server().await;
    }
    end_orphans(&world).await;
    world.settled().await;
    let letters = letters(&world, "default");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0]["reason"].as_str().unwrap().contains("a worker ended"), "{letters:?}");
    assert_eq!(world.timeline("s").await.len(), 1);
}

/// The transactions of killed workers go on in the database and hold the org's row.
async fn end_orphans(world: &World) {
    let (_, app_url) = world.database.urls();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and usename = current_user and wait_event = 'PgSleep'";
    connect(&app_url).await.batch_execute(end).await.unwrap();
}

async fn a_message_of_a_newer_version_waits_and_holds_up_its_org_only(world: World) {
    let (p, newer) = world.org("P");
    let (_, beside) = org_beside(&world, &p);
    let mut redis = redis().await;
    let fields = [("org", p.as_bytes()), ("key", b"key_x"), ("events", b"7"), ("batch", b"\xf0newer")];
    let stream = format!("{}:ingest:{}", world.redis_prefix, shard_of(&p));
    let _: String = redis.xadd(&stream, "*", &fields).await.unwrap();
    until_logged(&world, "was written by a newer version").await;
    newer.try_send(&[note("s", "behind it")]).await.expect(202);
    for number in 0..5 {
        beside.send(&[note("s", &format!("event {number}"))]).await;
    }
    assert_eq!(letters(&world, &p), Vec::<Value>::new());
    let waits: u64 = redis.xlen(&stream).await.unwrap();
    assert_eq!(waits, 2);
    let metrics = until("the org to be in the metrics", || async {
        let text = world.get("/metrics").await.text;
        text.contains("agentlens_queue_blocked_orgs 1").then_some(text)
    })
    .await;
    assert!(metrics.contains("agentlens_dead_letters 0"), "{metrics}");
    // The shard is left to whoever can read it, again and again.
    let lease = format!("{}:lease:{}", world.redis_prefix, shard_of(&p));
    until("the lease to be free", || async {
        let holder: Option<String> = redis.clone().get(&lease).await.unwrap();
        holder.is_none().then_some(())
    })
    .await;
}

async fn standby_workers_keep_their_connections(world: World) {
    // Redis tells connections apart by the numbered database that they use.
    const DATABASE: u8 = 11;
    let url = std::env::var("AGENTLENS_TEST_REDIS_URL").unwrap();
    let url = format!("{}/{DATABASE}", url.trim_end_matches("/0").trim_end_matches('/'));
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for shard in 0..SHARDS {
        let lease = format!("{}:lease:{shard}", world.redis_prefix);
        let _: () = redis.set_ex(lease, "someone else", 300).await.unwrap();
    }
    let mut standby = world
        .command(&["serve", "--role", "worker", "--listen", "127.0.0.1:0"])
        .env("AGENTLENS_REDIS_URL", &url)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = BTreeSet::new();
    let mut begun = None;
    // Long enough for a worker that connects each second to be found out.
    while begun.is_none_or(|begun: Instant| begun.elapsed() < Duration::from_secs(3)) {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
        let of_standby = clients.lines().filter(|line| line.contains(&format!(" db={DATABASE} ")));
        seen.extend(of_standby.filter_map(|line| line.split(' ').next()).map(str::to_owned));
        if seen.len() > 1 {
            begun.get_or_insert_with(Instant::now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    standby.kill().unwrap();
    standby.wait().unwrap();
    for shard in 0..SHARDS {
        let _: i64 = redis.del(format!("{}:lease:{shard}", world.redis_prefix)).await.unwrap();
    }
    // Ours, the queue's, and the one for leases.
    assert!(seen.len() <= 3, "{seen:?}");
}

async fn refuse_by_hand(world: &World) {
    let rule = if world.is_embedded() {
        "create trigger by_hand before insert on events when new.session_id = 'refused'
           begin select raise(abort, 'by_hand'); end"
    } else {
        "alter table events add constraint by_hand check (session_id <> 'refused') not valid"
    };
    world.database.execute("default", rule).await;
}

async fn an_event_that_the_store_refuses_costs_no_other(world: World) {
    world.send(&[note("s", "before")]).await;
    refuse_by_hand(&world).await;
    let events: Vec<Value> = (0..300)
        .map(|number| note(if number == 7 || number == 201 { "refused" } else { "s" }, &number.to_string()))
        .collect();
    let answer = world.try_send(&events).await.expect(202);
    world.settled().await;
    assert_eq!(world.database.number("default", "select count(*) from events").await, 299);
    let ledger = world.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    assert_eq!((&key["received"], &key["stored"]), (&json!(301), &json!(299)), "{ledger}");
    if world.is_embedded() {
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(298), &json!(2)), "{answer}");
        let refused: Vec<_> =
            answer["errors"].as_array().unwrap().iter().map(|error| &error["index"]).collect();
        assert_eq!(refused, [7, 201]);
        assert_eq!(answer["errors"][0]["reason"], "store_refused");
        assert_eq!(key["refused"], json!({ "store_refused": 2 }));
        return;
    }
    // What was acknowledged is kept, and can be replayed.
    assert_eq!(key["refused"], json!({ "dead_letter": 2 }));
    let kept = letters(&world, "default");
    assert_eq!((kept.len(), &kept[0]["events"]), (1, &json!(2)), "{kept:?}");
    world.database.execute("default", "alter table events drop constraint by_hand").await;
    assert_eq!(world.run_json(&["dead-letters", "replay"]), json!({ "replayed": 1, "failed": [] }));
    assert_eq!(world.timeline("refused").await.len(), 2);
    let ledger = world.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    assert_eq!((&key["received"], &key["stored"]), (&json!(301), &json!(301)), "{ledger}");
}

async fn a_batch_that_the_store_refuses_is_in_the_ledger(world: World) {
    world.send(&[note("s", "before")]).await;
    refuse_by_hand(&world).await;
    world.try_send(&[note("refused", "one"), note("refused", "two")]).await.refusal(500);
    let ledger = world.read("/v1/ingest/ledger").await;
    let key = &ledger["keys"][0];
    assert_eq!((&key["received"], &key["stored"]), (&json!(3), &json!(1)), "{ledger}");
    assert_eq!(key["refused"], json!({ "store_refused": 2 }));
    world.send(&[note("s", "after")]).await;
}

async fn an_org_that_fills_its_share_of_the_queue_leaves_room_for_others(world: World) {
    // What waits of an org, as the queue counts it: a little less than half of all.
    let mut redis = redis().await;
    let room = format!("{}:ingest_room", world.redis_prefix);
    let _: i64 = redis.hset(&room, "default", (256_u64 << 20) - 1).await.unwrap();
    until("the org to be refused", || async {
        (world.try_send(&[note("s", "x")]).await.status == 429).then_some(())
    })
    .await;
    let (_, other) = world.org("Other");
    other.send(&[note("s", "x")]).await;
    // Its room comes back as its messages are applied.
    let _: i64 = redis.hdel(&room, "default").await.unwrap();
    until("the org to be taken again", || async {
        (world.try_send(&[note("s", "x")]).await.status == 202).then_some(())
    })
    .await;
    world.settled().await;
    other.settled().await;
    until("all room to be free", || async {
        let left: Vec<String> = redis.clone().hkeys(&room).await.unwrap();
        left.is_empty().then_some(())
    })
    .await;
}
