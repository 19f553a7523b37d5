//! The clock of a server is handed in, so that tests move time.

use agentlens_domain::time::parse_rfc3339;

use crate::samples::{HOUR_US, at, note, with};
use crate::world::World;

const DAY_US: i64 = 24 * HOUR_US;

on_both_engines!(a_moved_clock_is_the_time_everywhere,);

async fn a_moved_clock_is_the_time_everywhere(world: World) {
    world.send(&[note("early", "x")]).await;
    assert_eq!(world.read("/api/sessions/early").await["status"], "active");
    world.move_clock(400 * DAY_US);
    let begun = world.now_us();
    // Gateway, ids and the reading side.
    world.send(&[note("late", "x"), with(note("late", "y"), "timestamp", at(begun))]).await;
    let timeline = world.timeline("late").await;
    let stamped = parse_rfc3339(timeline[0]["timestamp"].as_str().unwrap()).unwrap();
    assert!((begun..begun + HOUR_US).contains(&stamped), "{timeline:?}");
    assert_ne!(world.read("/api/sessions/early").await["status"], "active");
    assert_eq!(world.read("/api/stats/overview").await["eventsTodayCount"], 2);
    // The command line.
    let made = world.run_json(&["org", "create", "Late"]);
    let listed = world.run_json(&["org", "list"]);
    let row = listed["orgs"].as_array().unwrap().iter().find(|org| org["org_id"] == made["org_id"]).unwrap();
    assert!(parse_rfc3339(row["created_at"].as_str().unwrap()).unwrap() >= begun, "{row}");
}
