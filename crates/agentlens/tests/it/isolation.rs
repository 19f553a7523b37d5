//! Two orgs and two workspaces: nothing of one is ever seen by another.
//!
//! The routes are taken from the served `openapi.json`, so a new one is covered by itself.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::samples::{HOUR_US, note, now_us, one_of_each, with};
use crate::world::{Api, World};

on_both_engines!(
    a_workspace_is_answered_as_if_it_were_alone,
    random_requests_of_one_org_see_nothing_of_another,
    writing_to_the_ids_of_another_org_touches_nothing
);

/// Everything that one org or workspace holds, marked so that a leak can be recognised anywhere.
struct Owned {
    api: Api,
    mark: String,
    ids: Vec<String>,
}

async fn own(api: Api, mark: &str) -> Owned {
    let session = format!("session-{mark}");
    let metadata = json!({ "userId": format!("user-{mark}"), "secret": mark });
    let mut events: Vec<Value> = one_of_each(&session, now_us() - HOUR_US);
    events.push(note(&session, &format!("the secret of {mark}")));
    let events: Vec<Value> = events
        .into_iter()
        .zip(0..)
        .map(|(event, number)| {
            let event = with(with(event, "metadata", metadata.clone()), "agentId", format!("agent-{mark}"));
            if number % 2 == 0 { with(event, "id", format!("event-{mark}-{number}")) } else { event }
        })
        .collect();
    let answer = api.send(&events).await;
    let mut ids: Vec<String> = answer["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    ids.extend([session, format!("agent-{mark}"), format!("user-{mark}")]);
    Owned { api, mark: mark.to_owned(), ids }
}

async fn paths(world: &World) -> Vec<(String, Vec<String>)> {
    let document = world.read("/openapi.json").await;
    let mut paths = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(get) = item.get("get") else { continue };
        // A browser's way back from a provider takes no credential, and only so many requests of a network.
        if path.ends_with("/callback") {
            continue;
        }
        let parameters = get["parameters"].as_array().cloned().unwrap_or_default();
        let queries = parameters.iter().filter(|parameter| parameter["in"] == "query");
        paths.push((
            path.clone(),
            queries.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect(),
        ));
    }
    assert!(paths.len() >= 20, "{paths:?}");
    paths
}

async fn random_requests_of_one_org_see_nothing_of_another(world: World) {
    let (_, other) = world.org("Other");
    let project = world.make_key(&["--workspace", "project"]);
    let owners = [
        own(world.same_key(), "aaaaaaaa").await,
        own(other, "bbbbbbbb").await,
        own(project, "cccccccc").await,
    ];
    let paths = paths(&world).await;
    // By address: every id of another on every route that takes one.
    for owner in &owners {
        for foreign in owners.iter().filter(|foreign| foreign.mark != owner.mark) {
            for (path, _) in paths.iter().filter(|(path, _)| path.contains('{')) {
                for id in &foreign.ids {
                    let answer = owner.api.get(&with_id(path, id)).await;
                    assert_eq!(answer.status, 404, "{path} {id}: {}", answer.text);
                    // But for what was asked for, nothing of the other is in the answer.
                    let said = answer.text.replace(id.as_str(), "");
                    assert!(!said.contains(&foreign.mark), "{path} {id}: {}", answer.text);
                }
            }
        }
    }
    filter_by_foreign_values(&owners, &paths).await;
}

/// What every endpoint without an id in its path answers, without the times.
async fn answers(api: &Api, paths: &[String]) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    for path in paths {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answers.insert(path.clone(), without_times(serde_json::from_str(&answer.text).unwrap()));
    }
    answers
}

fn without_times(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() >= 20 && text.as_bytes()[10] == b'T' => "time".into(),
        Value::Array(items) => items.into_iter().map(without_times).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, without_times(value))).collect()
        }
        other => other,
    }
}

/// Not a count, not a sum, not a name of another workspace of the org is in any answer.
async fn a_workspace_is_answered_as_if_it_were_alone(world: World) {
    let document = world.read("/openapi.json").await;
    let is_read = |operation: &Value| operation["x-permission"] == "events:read";
    let paths: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, item)| !path.contains('{') && *path != "/api/stream" && is_read(&item["get"]))
        .map(|(path, _)| path.clone())
        .collect();
    assert!(paths.len() >= 10, "{paths:?}");
    let project = world.make_key(&["--workspace", "project"]);
    let before = answers(&project, &paths).await;
    own(world.same_key(), "aaaaaaaa").await;
    assert_eq!(answers(&project, &paths).await, before);
    // Both hold the same now, and each sees it once.
    own(project.clone(), "aaaaaaaa").await;
    let stats = ["/api/stats".to_owned()];
    assert_eq!(answers(&project, &stats).await, answers(&world.same_key(), &stats).await);
    assert_ne!(answers(&project, &paths).await, before);
}

/// By parameter: random filters with values of another.
async fn filter_by_foreign_values(owners: &[Owned], paths: &[(String, Vec<String>)]) {
    let mut random = SmallRng::seed_from_u64(99);
    let values = [
        "custom",
        "desc",
        "asc",
        "5",
        "1000",
        "true",
        "0",
        "day",
        "90d",
        "2026-01-01T00:00:00Z",
        "secret",
        "e",
    ];
    for _ in 0..600 {
        let (path, parameters) = paths.choose(&mut random).unwrap();
        if path == "/api/stream" {
            continue;
        }
        let owner = owners.choose(&mut random).unwrap();
        let foreign: Vec<&Owned> = owners.iter().filter(|foreign| foreign.mark != owner.mark).collect();
        let mut query: Vec<(&str, String)> = Vec::new();
        for name in parameters {
            if random.random_bool(0.6) {
                continue;
            }
            let ids = &foreign.choose(&mut random).unwrap().ids;
            let value = if random.random_bool(0.6) {
                ids.choose(&mut random).unwrap().as_str()
            } else {
                values.choose(&mut random).unwrap()
            };
            query.push((name, value.to_owned()));
        }
        let pool = if random.random_bool(0.5) { &owner.ids } else { &foreign[0].ids };
        let path = with_id(path, pool.choose(&mut random).unwrap());
        let answer = owner.api.answer(owner.api.request("GET", &path).query(&query)).await;
        assert!(answer.status < 500, "{path} {query:?}: {}", answer.text);
        if answer.status == 200 {
            let sent_back: Vec<&String> = query.iter().map(|(_, value)| value).collect();
            for foreign in foreign {
                let is_leak = answer.text.contains(&foreign.mark)
                    && !sent_back.iter().any(|value| value.contains(&foreign.mark));
                assert!(!is_leak, "{path} {query:?}: {}", answer.text);
                assert!(
                    !answer.text.contains(&format!("the secret of {}", foreign.mark)),
                    "{path} {query:?}"
                );
            }
        }
    }
}

fn with_id(path: &str, id: &str) -> String {
    match (path.find('{'), path.find('}')) {
        (Some(from), Some(to)) => format!("{}{id}{}", &path[..from], &path[to + 1..]),
        _ => path.to_owned(),
    }
}

async fn writing_to_the_ids_of_another_org_touches_nothing(world: World) {
    let (_, other) = world.org("Other");
    let ours = own(world.same_key(), "aaaaaaaa").await;
    let before = world.timeline("session-aaaaaaaa").await;
    let figures = world.read("/api/analytics").await;
    // The other org sends into our session, as our agent, with our event ids.
    let events: Vec<Value> = ours
        .ids
        .iter()
        .map(|id| {
            with(with(note("session-aaaaaaaa", "forged"), "agentId", "agent-aaaaaaaa"), "id", id.as_str())
        })
        .collect();
    other.send(&events).await;
    assert_eq!(world.timeline("session-aaaaaaaa").await, before);
    assert_eq!(world.read("/api/analytics").await, figures);
    assert_eq!(other.timeline("session-aaaaaaaa").await.len(), events.len());
}
