//! What runs on a clock.

use crate::samples::{HOUR_US, note};
use crate::world::{World, until};

on_both_engines!(jobs_are_listed_and_run_at_start, a_job_can_be_run_now);

const DAY_US: i64 = 24 * HOUR_US;

async fn jobs_are_listed_and_run_at_start(world: World) {
    for name in ["retention", "partitions", "outbox", "changes"] {
        until("the job to run", || async {
            let listed = world.run_json(&["job", "list"]);
            let jobs = listed["jobs"].as_array().unwrap();
            let job = jobs.iter().find(|job| job["name"] == name).unwrap();
            assert_eq!(job["failing"], 0, "{listed}");
            job["last_run_at"].is_string().then_some(())
        })
        .await;
    }
    let metrics = world.answer(world.bare("GET", "/metrics")).await.text;
    assert!(metrics.contains("agentlens_job_runs_total{job=\"retention\",outcome=\"ok\"}"), "{metrics}");
    assert!(world.run(&["job", "list"]).text.contains("retention"));
}

async fn a_job_can_be_run_now(world: World) {
    let made = world.run_json(&["org", "create", "Short", "--retention-days", "7"]);
    let (org, api) = (made["org_id"].as_str().unwrap(), world.with_key(made["api_key"].as_str().unwrap()));
    api.send(&[note("old", "x")]).await;
    world.send(&[note("kept", "x")]).await;
    world.move_clock(10 * DAY_US);
    api.send(&[note("new", "x")]).await;
    let ran = world.run_json(&["job", "run", "retention", "--org", org]);
    assert_eq!((&ran["succeeded"], &ran["failed"]), (&1.into(), &0.into()), "{ran}");
    if world.is_embedded() {
        api.get("/api/sessions/old").await.refusal(404);
    }
    api.read("/api/sessions/new").await;
    world.read("/api/sessions/kept").await;
    assert_eq!(world.run_json(&["verify"])["verified"], true);
    for (arguments, said) in [
        (&["job", "run", "nonsense"][..], "there is no job"),
        (&["job", "run", "retention", "--org", "x"], "no org x"),
    ] {
        let printed = world.run(arguments);
        assert!(!printed.is_success && printed.error.contains(said), "{}", printed.error);
    }
}
