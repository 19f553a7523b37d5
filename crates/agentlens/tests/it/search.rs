//! Full-text search and filters, over what is indexed and over what is not yet.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::samples::{HOUR_US, at, note, now_us, with};
use crate::world::{World, until};

on_both_engines!(
    texts_are_found_by_any_part,
    what_is_shown_is_found_however_it_was_encoded,
    searches_and_filters_equal_a_recount_on_both_sides_of_the_index,
    searches_stay_in_their_org_and_workspace,
);

async fn found(world: &World, needle: &str) -> Vec<String> {
    let page = world.query("/api/events", &[("search", needle), ("limit", "1000")]).await.expect(200);
    let mut ids: Vec<String> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

const TEXTS: [(&str, &str); 8] = [
    ("english", "The quick brown fox jumps over the lazy dog"),
    ("chinese", "今天天气很好,我们去公园散步"),
    ("japanese", "東京タワーは赤い"),
    ("german", "Straße ÜBER Größe"),
    ("code", "if (a < b && c == \"d\") { return x[0] % 2; }"),
    ("lines", "first line\nsecond\tline\\end"),
    ("emoji", "ship it 🚀🔥 now"),
    ("wild", "100% _under_ *star* ? ' ; --"),
];

const NEEDLES: [(&str, &[&str]); 25] = [
    ("quick brown", &["english"]),
    ("QUICK Brown", &["english"]),
    ("ick bro", &["english"]),
    ("quick  brown", &[]),
    ("lazy cat", &[]),
    ("天气", &["chinese"]),
    ("天气很好,我们", &["chinese"]),
    ("好", &["chinese"]),
    ("タワー", &["japanese"]),
    ("京タ", &["japanese"]),
    ("東", &["japanese"]),
    ("über", &["german"]),
    ("straße", &["german"]),
    ("a < b && c", &["code"]),
    ("\"d\"", &["code"]),
    ("x[0] % 2", &["code"]),
    ("line\nsecond", &["lines"]),
    ("🚀🔥", &["emoji"]),
    ("🚀", &["emoji"]),
    ("100%", &["wild"]),
    ("_under_", &["wild"]),
    ("*star*", &["wild"]),
    ("%", &["code", "wild"]),
    ("' ; --", &["wild"]),
    ("zzzzzz", &[]),
];

async fn texts_are_found_by_any_part(world: World) {
    let events: Vec<Value> = TEXTS.iter().map(|(id, text)| with(note("s", text), "id", *id)).collect();
    world.send(&events).await;
    check_needles(&world).await;
    // The same again when the index holds them: more than a segment of other events come after.
    fill(&world, 4200).await;
    check_needles(&world).await;
}

async fn check_needles(world: &World) {
    for (needle, expected) in NEEDLES {
        assert_eq!(found(world, needle).await, expected, "{needle}");
    }
    assert!(found(world, "note\",\"data").await.len() >= TEXTS.len());
}

/// Messages as Python's `json.dumps` writes them, and as others do.
const MESSAGES: [(&str, &str); 2] = [
    (
        "python",
        r#"[{"role":"user","parts":[{"type":"text","content":"Ask about \u9000\u6b3e\u653f\u7b56, he said \"cancel my order\"\nplease, C:\\New, caf\u00e9"}]}]"#,
    ),
    (
        "others",
        "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"Ask about 退款政策, he said \\\"cancel my order\\\"\\nplease, C:\\\\New, cafe\u{301}\"}]}]",
    ),
];

async fn what_is_shown_is_found_however_it_was_encoded(world: World) {
    for (name, messages) in MESSAGES {
        let attributes =
            [("gen_ai.operation.name", "chat"), ("session.id", name), ("gen_ai.input.messages", messages)]
                .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
        let span = json!({ "traceId": format!("{:032x}", rand::random::<u128>()), "spanId": "00000000000000aa", "name": "chat",
            "startTimeUnixNano": (now_us() * 1000).to_string(), "attributes": attributes });
        let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
        let request = world.request("POST", "/v1/traces").header("content-type", "application/json");
        world.answer(request.body(body.to_string())).await.expect(200);
        world.send(&[with(note(name, messages), "id", name)]).await;
    }
    world.settled().await;
    for is_indexed in [false, true] {
        if is_indexed {
            fill(&world, 4200).await;
        }
        for needle in [
            "退款政策",
            "退款",
            "\"cancel my order\"",
            "order\"\nplease",
            "c:\\new",
            "café",
            "cafe\u{301}",
            "order",
        ] {
            // Of each session the span and the note.
            assert_eq!(found(&world, needle).await.len(), 4, "{needle:?}, indexed: {is_indexed}");
        }
        assert_eq!(found(&world, "退款 政策").await, [] as [&str; 0]);
    }
}

/// Sends events that no needle finds, and waits for the index.
async fn fill(world: &World, count: usize) {
    let filler =
        json!({ "sessionId": "filler", "agentId": "f", "eventType": "session_started", "payload": {} });
    for chunk in vec![filler; count].chunks(1000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    until("the search index", || async {
        let segments = world.database.number("default", "select count(*) from search_segments").await;
        (segments > 0).then_some(())
    })
    .await;
}

const WORDS: [&str; 12] = [
    "alpha",
    "beta",
    "gamma",
    "天地",
    "玄黄",
    "delta",
    "quote\"d",
    "back\\slash",
    "Ümlaut",
    "x_y",
    "50%",
    "omega",
];

fn random_event(random: &mut SmallRng, number: usize, now: i64) -> Value {
    let text: Vec<&str> =
        (0..random.random_range(1..5)).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    let severity = ["info", "info", "info", "warn", "critical"][random.random_range(0..5)];
    let agent = if random.random_bool(0.02) { "rare".to_owned() } else { format!("a{}", number % 4) };
    json!({
        "id": format!("e{number:05}"),
        "sessionId": format!("s{}", number % 50),
        "agentId": agent,
        "eventType": "custom",
        "severity": severity,
        "payload": { "type": "note", "data": { "text": text.join(" ") } },
        // Many share an instant, and they do not come in the order of time.
        "timestamp": at(now - random.random_range(0..200) * HOUR_US / 10),
    })
}

async fn searches_and_filters_equal_a_recount_on_both_sides_of_the_index(world: World) {
    let mut random = SmallRng::seed_from_u64(23);
    let now = now_us();
    let events: Vec<Value> = (0..9000).map(|number| random_event(&mut random, number, now)).collect();
    for chunk in events.chunks(1000) {
        world.try_send(chunk).await.expect(202);
    }
    world.settled().await;
    until("the search index", || async {
        let segments = world.database.number("default", "select count(*) from search_segments").await;
        (segments >= 2).then_some(())
    })
    .await;
    let middle = at(now - 10 * HOUR_US);
    let cases: Vec<Vec<(&str, &str)>> = vec![
        vec![("search", "alpha"), ("agentId", "rare")],
        vec![("search", "天地 玄")],
        vec![("search", "quote\"d back"), ("severity", "critical")],
        vec![("search", "50% X_Y"), ("from", &middle)],
        vec![("search", "omega omega omega")],
        vec![("agentId", "rare")],
        vec![("agentId", "rare"), ("severity", "warn"), ("to", &middle)],
        vec![("severity", "critical"), ("search", "ümlaut"), ("agentId", "a1"), ("from", &middle)],
        vec![("search", "gamma"), ("eventType", "tool_call")],
        vec![("agentId", "nobody")],
    ];
    for case in &cases {
        for order in ["asc", "desc"] {
            let expected = recount(&events, case, order);
            let parameters = [case.as_slice(), &[("order", order), ("limit", "113")]].concat();
            let walked = world.walk(&parameters).await;
            let ids: Vec<&str> = walked.iter().map(|event| event["id"].as_str().unwrap()).collect();
            assert_eq!(ids, expected, "{case:?} {order}");
            // The same list cut by offset.
            let parameters =
                [case.as_slice(), &[("order", order), ("limit", "20"), ("offset", "30")]].concat();
            let page = world.query("/api/events", &parameters).await.expect(200);
            let cut: Vec<&str> = page["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["id"].as_str().unwrap())
                .collect();
            assert_eq!(
                cut,
                expected.iter().copied().skip(30).take(20).collect::<Vec<_>>(),
                "{case:?} {order}"
            );
        }
    }
}

fn recount<'a>(events: &'a [Value], case: &[(&str, &str)], order: &str) -> Vec<&'a str> {
    let holds = |event: &Value| {
        case.iter().all(|(name, value)| {
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            match *name {
                "search" => event["payload"]["data"]["text"]
                    .as_str()
                    .unwrap()
                    .to_lowercase()
                    .contains(&value.to_lowercase()),
                "from" => text("timestamp").as_str() >= *value,
                "to" => text("timestamp").as_str() <= *value,
                field => text(field) == *value,
            }
        })
    };
    let mut found: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| holds(event))
        .map(|event| (event["timestamp"].as_str().unwrap(), event["id"].as_str().unwrap()))
        .collect();
    found.sort_unstable();
    if order == "desc" {
        found.reverse();
    }
    found.into_iter().map(|(_, id)| id).collect()
}

async fn searches_stay_in_their_org_and_workspace(world: World) {
    let (_, other) = world.org("Other");
    let project = world.make_key(&["--workspace", "project"]);
    world.send(&[with(note("s", "the secret word"), "id", "ours")]).await;
    assert_eq!(found(&world, "secret").await, ["ours"]);
    for api in [&other, &project] {
        assert_eq!(api.read("/api/events?search=secret").await["events"], json!([]));
    }
    fill(&world, 4200).await;
    assert_eq!(found(&world, "secret").await, ["ours"]);
    for api in [&other, &project] {
        assert_eq!(api.read("/api/events?search=secret").await["events"], json!([]));
        assert_eq!(api.read("/api/events?agentId=f").await["total"], 0);
    }
}
