//! Retention: what is past its day goes, everything else stays.

use agentlens_domain::batches::Outcome;
use agentlens_domain::ids::OrgId;
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::{day_of, day_start};
use agentlens_store::{Applied, DroppedPartitions, Org, RETENTION_JOB, RunResult, SessionRow};

use crate::batches::{DAY_US, NOW_US, batch, batch_at, note, real_now_us};
use crate::world::{Workspaces, World, apply, apply_at, connect};

on_both_engines!(
    expired_days_go_and_others_stay,
    a_session_that_lives_on_keeps_its_chain,
    an_id_lives_as_long_as_its_event,
    a_shorter_or_longer_retention_leaves_no_hole,
    what_is_deleted_by_hand_is_found_beside_retention,
    orgs_without_retention_keep_everything,
    an_interrupted_run_is_continued,
    many_sessions_expire_at_once,
);

/// An org that keeps events for 7 days.
pub(crate) async fn with_retention(world: &World, name: &str) -> Org {
    let org = OrgId::parse(name).unwrap();
    world.store.control().ensure_org(&Caller::service("test", &org), "Short").await.unwrap();
    world.store.control().set_retention(&Caller::service("test", &org), Some(7)).await.unwrap();
    world.store.org(&org).await.unwrap()
}

/// Runs retention as the job does: every org records what it loses, then partitions go.
pub(crate) async fn retain(world: &World, orgs: &[&Org], now_us: i64) {
    world.store.make_partitions(now_us).await.unwrap();
    for org in orgs {
        org.retention().delete_expired(now_us).await.unwrap();
    }
    for row in world.store.control().list_orgs().await.unwrap() {
        if !orgs.iter().any(|org| org.id().as_str() == row.org_id) {
            let other = world.store.org(&OrgId::parse(&row.org_id).unwrap()).await.unwrap();
            other.retention().delete_expired(now_us).await.unwrap();
        }
    }
    world.store.drop_partitions(now_us).await.unwrap();
    // PostgreSQL deletes sessions whose events went with their partition.
    for org in orgs {
        org.retention().delete_expired(now_us).await.unwrap();
    }
}

async fn assert_holds(org: &Org, session: &str) -> SessionRow {
    let session = org.ws("default").sessions().find(session).await.unwrap().unwrap();
    assert_eq!(org.ws("default").chains().verify_session(&session).await.unwrap().broken, None);
    session
}

async fn ids(org: &Org) -> Vec<String> {
    org.ws("default").events().after(0, 1000).await.unwrap().into_iter().map(|event| event.id).collect()
}

async fn expired_days_go_and_others_stay(world: World) {
    let (org, keeper) = (with_retention(&world, "short").await, world.org("keeper").await);
    // Each event comes in on its own day.
    for days in [20, 9, 8, 7, 6, 0] {
        let us = NOW_US - days * DAY_US;
        let event = note(&format!("age-{days}"), &format!("s{days}"), us);
        for org in [&org, &keeper] {
            apply_at(org, us, vec![batch_at(us, &format!("b{days}"), std::slice::from_ref(&event))]).await;
        }
    }
    retain(&world, &[&org, &keeper], NOW_US).await;
    assert_eq!(ids(&org).await, ["age-8", "age-7", "age-6", "age-0"]);
    for (days, is_left) in [(0, true), (8, true), (9, false), (20, false)] {
        let session = org.ws("default").sessions().find(&format!("s{days}")).await.unwrap();
        assert_eq!(session.is_some(), is_left, "{days}");
    }
    assert_eq!(ids(&keeper).await.len(), 6);
    for org in [&org, &keeper] {
        assert_eq!(org.chains().verify_all().await.unwrap().broken, []);
        assert_eq!(org.chains().verify_sums(NOW_US).await.unwrap(), [""; 0]);
    }
    let digests =
        org.ws("default").events().key_digests(vec!["age-20".to_owned(), "age-0".to_owned()]).await.unwrap();
    assert_eq!(digests.len(), 1);
}

/// Its oldest events expire, and events that come later continue its chain.
async fn a_session_that_lives_on_keeps_its_chain(world: World) {
    let org = with_retention(&world, "short").await;
    let noon = day_start(NOW_US) + DAY_US / 2;
    let near = noon - 8 * DAY_US - DAY_US / 24;
    apply_at(&org, near, vec![batch_at(near, "b1", &[note("old", "s", near)])]).await;
    retain(&world, &[&org], noon).await;
    assert_eq!(ids(&org).await, ["old"], "its day has not come");
    apply_at(&org, noon, vec![batch_at(noon, "b2", &[note("new", "s", noon)])]).await;
    assert_holds(&org, "s").await;
    // Two days later the first is gone, and the rest of the chain holds because the removal was recorded.
    retain(&world, &[&org], noon + 2 * DAY_US).await;
    assert_eq!(ids(&org).await, ["new"]);
    let session = assert_holds(&org, "s").await;
    let removals = org.ws("default").removals().of_session(session.number).await.unwrap();
    let [removal] = removals.as_slice() else { panic!("{removals:?}") };
    assert_eq!((removal.first_seq, removal.last_seq, removal.event_count), (1, 1, 1));
    assert_eq!((removal.why.as_str(), removal.removed_by.as_str()), ("retention", "retention"));
    // It goes on, and a later run extends the record.
    let later = noon + 3 * DAY_US;
    apply_at(&org, later, vec![batch_at(later, "b3", &[note("newer", "s", later)])]).await;
    retain(&world, &[&org], noon + 10 * DAY_US).await;
    assert_eq!(ids(&org).await, ["newer"]);
    assert_holds(&org, "s").await;
    let removals = org.ws("default").removals().of_session(session.number).await.unwrap();
    assert_eq!(removals.iter().map(|removal| removal.last_seq).collect::<Vec<_>>(), [2]);
}

/// Bug: a late event lived longer than the memory of its id, so the id could be stored twice or fail its batch for good.
async fn an_id_lives_as_long_as_its_event(world: World) {
    let org = with_retention(&world, "short").await;
    let late = note("late", "s", NOW_US - 6 * DAY_US);
    apply(&org, vec![batch("b0", &[note("first", "s", NOW_US)])]).await;
    apply(&org, vec![batch("b1", std::slice::from_ref(&late))]).await;
    let then = NOW_US + 4 * DAY_US;
    retain(&world, &[&org], then).await;
    assert_eq!(ids(&org).await, ["first", "late"], "both expire with the session");
    let again = apply_at(&org, then, vec![batch_at(then, "b2", &[late])]).await;
    assert_eq!(again.batches, [Applied::Now(vec![Outcome::Duplicate])]);
    assert_eq!(ids(&org).await.len(), 2);
}

/// Whatever the retention was when events came, days of expiry never fall along a chain.
async fn a_shorter_or_longer_retention_leaves_no_hole(world: World) {
    let org = OrgId::parse("changing").unwrap();
    let control = world.store.control();
    control.ensure_org(&Caller::service("test", &org), "Changing").await.unwrap();
    for (day, retention) in [(0, Some(30)), (1, Some(7)), (2, Some(90)), (3, None), (4, Some(7))] {
        control.set_retention(&Caller::service("test", &org), retention).await.unwrap();
        let org = world.reopened().await.org(&org).await.unwrap();
        let us = NOW_US + day * DAY_US;
        apply_at(&org, us, vec![batch_at(us, &format!("b{day}"), &[note(&format!("e{day}"), "s", us)])])
            .await;
    }
    let org = world.reopened().await.org(&org).await.unwrap();
    for day in [5, 20, 40, 80, 100, 130, 400] {
        retain(&world, &[&org], NOW_US + day * DAY_US).await;
        assert_eq!(org.chains().verify_all().await.unwrap().broken, [], "day {day}");
        assert_eq!(org.chains().verify_sums(NOW_US + day * DAY_US).await.unwrap(), [""; 0], "day {day}");
    }
}

/// What a run of the same day recorded already is not recorded again (PostgreSQL; SQLite deletes what it records).
async fn an_interrupted_run_is_continued(world: World) {
    let org = with_retention(&world, "short").await;
    let old = NOW_US - 9 * DAY_US;
    let events: Vec<_> =
        (0..3).map(|number| note(&format!("e{number}"), &format!("s{number}"), old)).collect();
    apply_at(&org, old, vec![batch_at(old, "b1", &events)]).await;
    let numbers = |org: &Org| {
        let org = org.clone();
        async move {
            let removals = org.removals().list("", 10).await.unwrap();
            removals.into_iter().map(|removal| removal.session_number).collect::<Vec<_>>()
        }
    };
    let today = day_of(NOW_US);
    let cut = format!("update org_state set recording_day = {today}, recorded_session = 2");
    assert_eq!(world.by_hand(&org, &cut).await, 1);
    org.retention().delete_expired(NOW_US).await.unwrap();
    if world.database.is_some() {
        assert_eq!(numbers(&org).await, [3]);
        // So is one of an earlier day: an org that needs more than a day still gets through.
        world.by_hand(&org, "delete from removals").await;
        assert_eq!(world.by_hand(&org, &format!("{cut}, recorded_day = 0")).await, 1);
        org.retention().delete_expired(NOW_US + DAY_US).await.unwrap();
        assert_eq!(numbers(&org).await, [3]);
        // What came to expire since is recorded after it.
        let cut = format!("{cut}, recorded_day = 0").replace(&today.to_string(), &(today - 1).to_string());
        assert_eq!(world.by_hand(&org, &cut).await, 1);
        org.retention().delete_expired(NOW_US).await.unwrap();
        assert_eq!(numbers(&org).await.len(), 3);
    }
}

/// More sessions expire than are recorded in one step, and some of them go on.
async fn many_sessions_expire_at_once(world: World) {
    let org = with_retention(&world, "short").await;
    let old = NOW_US - 9 * DAY_US;
    let events: Vec<_> =
        (0..2_500).map(|number| note(&format!("e{number}"), &format!("s{}", number % 1_250), old)).collect();
    for (number, part) in events.chunks(500).enumerate() {
        apply_at(&org, old, vec![batch_at(old, &format!("b{number}"), part)]).await;
    }
    let events: Vec<_> = (0..1_250)
        .step_by(10)
        .map(|number| note(&format!("n{number}"), &format!("s{number}"), NOW_US))
        .collect();
    apply(&org, vec![batch("later", &events)]).await;
    retain(&world, &[&org], NOW_US).await;
    assert_eq!(ids(&org).await.len(), 125);
    let report = org.chains().verify_all().await.unwrap();
    assert_eq!((report.sessions_verified, report.broken), (125, vec![]));
    assert_eq!(org.chains().verify_sums(NOW_US).await.unwrap(), [""; 0]);
    let removals = org.removals().list("", 2_000).await.unwrap();
    assert_eq!(removals.len(), 125);
    assert!(removals.iter().all(|removal| (removal.last_seq, removal.event_count) == (2, 2)));
}

async fn orgs_without_retention_keep_everything(world: World) {
    let org = world.org("keeper").await;
    apply(&org, vec![batch("b1", &[note("x", "s", NOW_US - 3000 * DAY_US)])]).await;
    retain(&world, &[&org], NOW_US + 1000 * DAY_US).await;
    assert_eq!(ids(&org).await, ["x"]);
    assert!(org.ws("default").sessions().find("s").await.unwrap().is_some());
}

/// Bug: with any retention set, the beginning of a chain could be deleted by hand unnoticed.
async fn what_is_deleted_by_hand_is_found_beside_retention(world: World) {
    let org = with_retention(&world, "short").await;
    let events: Vec<_> = (0..10).map(|number| note(&format!("e{number}"), "s", NOW_US)).collect();
    apply(&org, vec![batch("b1", &events)]).await;
    world.by_hand(&org, "delete from events where seq <= 6").await;
    let broken = org.chains().verify_all().await.unwrap().broken;
    let [fault] = broken.as_slice() else { panic!("{broken:?}") };
    assert_eq!(fault.reason, "Event 0 is missing: expected sequence 1, got 7");
}

async fn partition_names(world: &World) -> Option<Vec<String>> {
    let owner = connect(&world.database.as_ref()?.owner_url).await;
    let sql = "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'tenant.events'::regclass";
    Some(owner.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect())
}

#[test]
fn partitions_are_made_ahead_and_dropped_when_over() {
    crate::world::run_postgres(|world| async move {
        let org = with_retention(&world, "short").await;
        let today = day_of(NOW_US);
        world.store.make_partitions(NOW_US).await.unwrap();
        let ahead = partition_names(&world).await.unwrap();
        for day in today + 1..=today + 8 {
            assert!(ahead.contains(&format!("events_{day}_{}", day + 1)), "{ahead:?}");
        }
        apply(&org, vec![batch("b1", &[note("old", "s1", NOW_US)])]).await;
        let later = NOW_US + 20 * DAY_US;
        apply_at(&org, later, vec![batch_at(later, "b2", &[note("new", "s2", later)])]).await;
        assert_eq!(ids(&org).await, ["old", "new"]);
        retain(&world, &[&org], later).await;
        assert_eq!(ids(&org).await, ["new"]);
        let left = partition_names(&world).await.unwrap();
        assert!(!left.contains(&format!("events_{}_{}", today + 8, today + 9)), "{left:?}");
    });
}

/// Bug: a partition was made inside the transaction that applies, and waited for every reader, with everybody behind it.
#[test]
fn a_long_reader_delays_neither_a_new_partition_nor_the_drop_of_an_old_one() {
    crate::world::run_postgres(|world| async move {
        let org = with_retention(&world, "short").await;
        apply(&org, vec![batch("b1", &[note("old", "s", NOW_US)])]).await;
        let mut reader = connect(&world.database.as_ref().unwrap().app_url).await;
        let reading = reader.transaction().await.unwrap();
        reading.query("select count(*) from tenant.events", &[]).await.unwrap();

        let later = NOW_US + 20 * DAY_US;
        apply_at(&org, later, vec![batch_at(later, "b2", &[note("new", "s2", later)])]).await;
        assert_eq!(ids(&org).await, ["old", "new"], "stored while the reader reads");
        org.retention().delete_expired(later).await.unwrap();
        assert_eq!(world.store.drop_partitions(later).await.unwrap().dropped, 0, "the reader is in the way");
        assert_eq!(ids(&org).await, ["old", "new"]);

        reading.rollback().await.unwrap();
        retain(&world, &[&org], later).await;
        assert_eq!(ids(&org).await, ["new"]);
    });
}

/// Bug: one org whose retention failed kept the expired events of all orgs.
#[test]
fn an_org_that_cannot_record_is_not_waited_for_for_ever() {
    crate::world::run_postgres(|world| async move {
        let (org, stuck) = (with_retention(&world, "short").await, with_retention(&world, "stuck").await);
        let keeper = world.org("keeper").await;
        for org in [&org, &stuck, &keeper] {
            for day in [0, 20] {
                let us = NOW_US + day * DAY_US;
                let event = note(&format!("e{day}"), "s", us);
                apply_at(org, us, vec![batch_at(us, &format!("b{day}"), &[event])]).await;
            }
        }
        let later = NOW_US + 20 * DAY_US;
        // An org that has not run yet is waited for.
        org.retention().delete_expired(later).await.unwrap();
        assert_eq!(world.store.drop_partitions(later).await.unwrap(), DroppedPartitions::default());

        let control = world.store.control();
        let failed = async |org: &Org, at_us: i64, times: usize| {
            for _ in 0..times {
                let error = Some("no".to_owned());
                let result = RunResult { org: Some(org.id()), began_us: at_us, due_us: at_us, error };
                control.note_run(RETENTION_JOB, &result).await.unwrap();
            }
        };
        // One that loses nothing is not, once it has failed; one that does is, for three days, and some tries.
        failed(&keeper, later, 1).await;
        failed(&stuck, later, 1).await;
        for (us, times) in [(later, 0), (later + 2 * DAY_US, 30)] {
            failed(&stuck, us, times).await;
            let report = world.store.drop_partitions(us).await.unwrap();
            assert_eq!((report.dropped, report.waiting_for), (0, vec![stuck.id().clone()]));
        }
        assert_eq!((ids(&org).await.len(), ids(&stuck).await.len()), (2, 2));
        let then = later + 3 * DAY_US;
        let report = world.store.drop_partitions(then).await.unwrap();
        assert_eq!((report.dropped, report.waiting_for), (1, vec![]));
        assert_eq!(report.unrecorded, vec![stuck.id().clone()]);
        for org in [&org, &stuck, &keeper] {
            assert_eq!(ids(org).await.len(), if org.id() == keeper.id() { 2 } else { 1 });
        }
        assert_eq!(world.store.drop_partitions(then).await.unwrap().unrecorded, []);

        // Verification accepts no gap that the org did not record, and says why it is there.
        for org in [&org, &keeper] {
            let report = org.chains().verify_all().await.unwrap();
            assert_eq!((report.broken, report.notes), (vec![], vec![]));
        }
        let report = stuck.chains().verify_all().await.unwrap();
        let [fault] = report.broken.as_slice() else { panic!("{:?}", report.broken) };
        assert_eq!(fault.reason, "Event 0 is missing: expected sequence 1, got 2");
        let [said] = report.notes.as_slice() else { panic!("{:?}", report.notes) };
        assert!(said.contains("1 events that expire before 2026-01-"), "{said}");
        assert!(
            said.contains(
                "without a record of the org's own, because its retention had failed since 2026-01-22T"
            ),
            "{said}"
        );
        assert_eq!(stuck.chains().verify_sums(then).await.unwrap(), [""; 0]);
        let audit = stuck.audit().verify().await.unwrap();
        assert_eq!(audit.broken, [""; 0]);
        // It is nobody's to take back.
        world
            .control_by_hand("stuck", "delete from control_audit_log where act = 'events.drop_unrecorded'")
            .await;
        assert_ne!(stuck.audit().verify().await.unwrap().broken, [""; 0]);
        // Its retention works again. The gap stays, for nothing vouches for what was in it.
        let end = NOW_US + 40 * DAY_US;
        apply_at(&stuck, end, vec![batch_at(end, "b40", &[note("e40", "s", end)])]).await;
        retain(&world, &[&org, &stuck, &keeper], end).await;
        assert_eq!(ids(&stuck).await, ["e40"]);
        let [fault] = stuck.chains().verify_all().await.unwrap().broken.try_into().unwrap();
        assert_eq!(fault.reason, "Event 0 is missing: expected sequence 1, got 3");
        retain(&world, &[&org, &stuck, &keeper], end + 10 * DAY_US).await;
        assert_eq!(stuck.chains().verify_all().await.unwrap().broken, []);
    });
}

/// Bug: an org that could not be read at all did the same.
#[test]
fn an_org_that_cannot_be_read_is_not_waited_for_for_ever() {
    crate::world::run_postgres(|world| async move {
        let (org, stuck) = (with_retention(&world, "short").await, with_retention(&world, "stuck").await);
        for org in [&org, &stuck] {
            apply(org, vec![batch("b1", &[note("old", "s", NOW_US)])]).await;
        }
        world.by_hand(&stuck, "delete from org_state").await;
        let then = NOW_US + 20 * DAY_US;
        org.retention().delete_expired(then).await.unwrap();
        assert!(stuck.retention().delete_expired(then).await.is_err());
        for began_us in (0..24).map(|hour| then - (95 - hour) * DAY_US / 24) {
            let error = Some("no".to_owned());
            let result = RunResult { org: Some(stuck.id()), began_us, due_us: then, error };
            world.store.control().note_run(RETENTION_JOB, &result).await.unwrap();
        }
        let report = world.store.drop_partitions(then).await.unwrap();
        assert_eq!(report.unrecorded, vec![stuck.id().clone()]);
        assert_eq!((ids(&org).await.len(), ids(&stuck).await.len()), (0, 0));
        assert_eq!(stuck.chains().verify_all().await.unwrap().notes.len(), 1);
    });
}

/// A wrong clock must not delete data: outside of tests the database's own clock has the last word.
#[test]
fn days_that_have_not_come_are_not_dropped() {
    crate::world::run_postgres(|world| async move {
        let database = world.database.as_ref().unwrap();
        let app = connect(&database.app_url).await;
        app.batch_execute("delete from control.settings where name = 'test_clock'").await.unwrap();
        let far = day_of(real_now_us()) + 5;
        let refused = app.execute("select tenant.drop_expired_event_partition($1)", &[&far]).await;
        assert!(refused.unwrap_err().as_db_error().unwrap().message().contains("has not come yet"));
    });
}
