use super::agents::AGENTS;
use super::*;

use agentlens_domain::events::{AcceptContext, accept};
use agentlens_domain::ids::UlidSequence;

const NOW_US: i64 = 1_795_348_800_000_000;

fn stories(sessions: u32, run: &str) -> Vec<Story> {
    appointments(sessions, 7, NOW_US).iter().map(|each| tell(each, run, NOW_US)).collect()
}

#[test]
fn every_event_is_one_that_the_server_takes_and_none_is_in_the_future() {
    let mut ids = UlidSequence::at(NOW_US);
    let mut seen = BTreeSet::new();
    for story in stories(300, "run") {
        for event in story.events {
            let mut context = AcceptContext { now_us: NOW_US, ids: &mut ids, idempotency: None };
            let accepted = accept(&event.to_string(), 0, &mut context).unwrap();
            assert!(accepted.ts_us <= NOW_US && accepted.ts_us > NOW_US - 9 * DAY_US);
            assert!(seen.insert(accepted.id));
        }
    }
}

#[test]
fn every_agent_has_work_and_some_conversations_are_long() {
    let all = stories(300, "run");
    let longest = all.iter().map(|story| story.events.len()).max().unwrap();
    assert!(longest >= 80, "the longest session has {longest} events");
    let used: BTreeSet<_> =
        appointments(300, 7, NOW_US).iter().map(|appointment| appointment.agent.id).collect();
    assert_eq!(used.len(), AGENTS.len());
    // Most calls have a price; the model without one is there to show what unknown looks like.
    assert!(all.iter().filter(|story| story.cost_nanos > 0).count() > 250);
}

#[test]
fn the_same_clock_tells_the_same_stories_and_a_run_has_ids_of_its_own() {
    let (one, same, other) = (stories(30, "a"), stories(30, "a"), stories(30, "b"));
    let events = |all: &[Story]| all.iter().flat_map(|story| story.events.clone()).collect::<Vec<_>>();
    assert_eq!(events(&one), events(&same));
    assert_ne!(events(&one)[0]["id"], events(&other)[0]["id"]);
    assert_eq!(events(&one).len(), events(&other).len());
}

#[test]
fn an_address_must_be_one() {
    assert!(Sender::new("localhost:3400", "key").is_err());
    assert!(Sender::new("", "key").is_err());
    assert_eq!(Sender::new("http://localhost:3400/", "key").unwrap().address, "http://localhost:3400");
}

#[test]
fn numbers_print_in_base_36() {
    assert_eq!((base36(0), base36(35), base36(36)), ("0".to_owned(), "z".to_owned(), "10".to_owned()));
}
