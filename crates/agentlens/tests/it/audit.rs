//! `GET /api/audit/verify`.

use crate::samples::{HOUR_US, at, note, now_us, with};
use crate::world::World;

on_both_engines!(
    a_session_and_a_range_are_verified,
    unclear_ranges_are_refused,
    it_needs_its_scope_and_its_org
);

async fn a_session_and_a_range_are_verified(world: World) {
    let now = now_us();
    for (session, age_hours) in [("old", 48), ("new", 1)] {
        let events: Vec<_> =
            (0..5).map(|_| with(note(session, "x"), "timestamp", at(now - age_hours * HOUR_US))).collect();
        world.send(&events).await;
    }
    let report = world.read("/api/audit/verify?sessionId=old").await;
    assert_eq!(report["verified"], true);
    assert_eq!(report["sessionId"], "old");
    assert!(report["range"].is_null());
    assert_eq!(report["sessionsVerified"], 1);
    assert_eq!(report["totalEvents"], 5);
    let timeline = world.timeline("old").await;
    assert_eq!(report["firstHash"], timeline[0]["hash"]);
    assert_eq!(report["lastHash"], timeline[4]["hash"]);
    let signature = report["signature"].as_str().unwrap();
    assert_eq!(signature.strip_prefix("hmac-sha256:").unwrap().len(), 64);
    let (from, to) = (at(now - 2 * HOUR_US), at(now));
    let report = world.query("/api/audit/verify", &[("from", &from), ("to", &to)]).await.expect(200);
    assert_eq!(report["sessionsVerified"], 1);
    let from = at(now - 72 * HOUR_US);
    let report = world.query("/api/audit/verify", &[("from", &from), ("to", &to)]).await.expect(200);
    assert_eq!((&report["sessionsVerified"], &report["totalEvents"]), (&2.into(), &10.into()));
    assert_eq!(report["brokenChains"], serde_json::json!([]));
}

async fn unclear_ranges_are_refused(world: World) {
    for query in [
        "",
        "?from=2026-01-01T00:00:00Z",
        "?to=2026-01-01T00:00:00Z",
        "?sessionId=s&from=2026-01-01T00:00:00Z",
        "?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        "?from=x&to=y",
    ] {
        world.get(&format!("/api/audit/verify{query}")).await.refusal(400);
    }
    world.get("/api/audit/verify?sessionId=nobody").await.refusal(404);
}

async fn it_needs_its_scope_and_its_org(world: World) {
    world.send(&[note("s", "x")]).await;
    world.make_key(&["--scope", "events:read"]).get("/api/audit/verify?sessionId=s").await.refusal(403);
    let auditor = world.make_key(&["--scope", "audit:read"]);
    assert_eq!(auditor.read("/api/audit/verify?sessionId=s").await["verified"], true);
    auditor.get("/api/sessions/s").await.refusal(403);
    let (_, other) = world.org("Other");
    other.get("/api/audit/verify?sessionId=s").await.refusal(404);
    let (from, to) = (at(now_us() - HOUR_US), at(now_us() + HOUR_US));
    for (api, sessions) in [(world.same_key(), 1), (other, 0)] {
        let report = api.query("/api/audit/verify", &[("from", &from), ("to", &to)]).await.expect(200);
        assert_eq!(report["sessionsVerified"], sessions);
    }
}
