//! Hostile inputs: exact storage or a clear refusal, never a 500, never another event's loss.

use crate::samples::note;
use crate::world::World;

on_both_engines!(
    texts_are_read_back_exactly,
    numbers_are_read_back_exactly,
    unstorable_json_is_refused_alone,
    a_million_levels_are_refused,
    the_order_of_keys_is_that_of_javascript,
);

fn raw_event(payload_data: &str) -> String {
    format!(
        r#"{{"sessionId":"s","agentId":"a","eventType":"custom","payload":{{"type":"t","data":{{"v":{payload_data}}}}}}}"#
    )
}

async fn stored_texts(world: &World, values: &[&str]) -> Vec<String> {
    let events: Vec<String> = values.iter().map(|value| raw_event(value)).collect();
    let answer = world.post("/api/events", format!("[{}]", events.join(","))).await.expect(202);
    assert_eq!(answer["rejected"], 0, "{answer}");
    world.settled().await;
    let timeline = world.get("/api/sessions/s/timeline").await;
    // Lone surrogates are no text in Rust, so the answer is looked at as it is.
    assert!(timeline.text.contains(r#""chainValid":true"#), "{}", timeline.text);
    let parts = timeline.text.split(r#""payload":{"type":"t","data":{"v":"#).skip(1);
    parts.map(|part| part.split(r#"}},"metadata":"#).next().unwrap().to_owned()).collect()
}

async fn texts_are_read_back_exactly(world: World) {
    let sent = [
        r#""\u0000""#,
        r#""a\u0000b""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        "\"\\u001f\u{7f}\"",
        r#""\b\t\n\f\r\"\\""#,
        "\"\u{2028}\u{2029}\u{feff}\u{fffd}\"",
        "\"漢字😀\u{202e}e\u{301}\"",
        r#""/""#,
        r#"{"":1," ":2}"#,
        r#"{"__proto__":1,"constructor":{}}"#,
        "[[],{},null,true,false,\"\"]",
        r#""</script><script>alert(1)</script>""#,
        r#""'; drop table events; --""#,
    ];
    assert_eq!(stored_texts(&world, &sent).await, sent);
}

async fn numbers_are_read_back_exactly(world: World) {
    // What is sent, and what JavaScript makes of it; numbers that no double holds are kept as they were sent.
    let cases = [
        ("1.0", "1"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("2.50", "2.5"),
        ("1e21", "1e+21"),
        ("1e-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("123456789012345680000", "123456789012345680000"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("5e-324", "5e-324"),
        ("9007199254740991", "9007199254740991"),
        ("12345678901234567890", "12345678901234567890"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551616", "18446744073709551616"),
    ];
    let sent: Vec<&str> = cases.iter().map(|(sent, _)| *sent).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, stored)| *stored).collect();
    assert_eq!(stored_texts(&world, &sent).await, expected);
}

async fn unstorable_json_is_refused_alone(world: World) {
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let long = "9".repeat(400);
    let bad = ["1e400", "-1e999999", &long, r#"{"k":1,"k":2}"#, r#"{"a":{"k":1,"\u006b":2}}"#, &deep];
    let good = note("s", "neighbour").to_string();
    let events: Vec<String> = bad.iter().flat_map(|value| [good.clone(), raw_event(value)]).collect();
    let duplicate_member = r#"{"sessionId":"s","sessionId":"t","agentId":"a","eventType":"custom","payload":{"type":"t","data":{}}}"#;
    let answer = world
        .post("/api/events", format!("[{},{duplicate_member},{good}]", events.join(",")))
        .await
        .expect(202);
    assert_eq!(answer["rejected"], bad.len() + 1, "{answer}");
    for error in answer["errors"].as_array().unwrap() {
        assert_eq!(error["reason"], "unstorable_json", "{error}");
    }
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), bad.len() + 1);
    // Ids and timestamps are not payloads: they must be texts that every database holds.
    for (field, value) in [
        ("sessionId", r#""a\u0000b""#),
        ("agentId", r#""\ud800""#),
        ("id", r#""\u0000""#),
        ("timestamp", r#""\u0000""#),
        ("timestamp", r#""9999-12-31T23:59:59.999999999Z""#),
        ("timestamp", r#""0000-01-01T00:00:00Z""#),
        ("timestamp", r#""-000001-01-01T00:00:00Z""#),
        ("timestamp", r#""+999999-01-01T00:00:00Z""#),
        ("severity", "5"),
        ("eventType", r#""cust\u0000om""#),
    ] {
        let event = good.replacen('{', &format!("{{\"{field}\":{value},"), 1);
        let event = match field {
            "sessionId" => event.replace(r#","sessionId":"s""#, "").replace(r#""sessionId":"s","#, ""),
            "agentId" => event.replace(r#","agentId":"agent-1""#, ""),
            "eventType" => event.replace(r#","eventType":"custom""#, ""),
            _ => event,
        };
        let refusal = world.post("/api/events", event.clone()).await.refusal(400);
        assert_eq!(refusal["details"][0]["path"], format!("events.0.{field}"), "{event}: {refusal}");
    }
}

async fn a_million_levels_are_refused(world: World) {
    let million = 1_000_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(million), close.repeat(million));
        let body = format!("[{},{}]", note("s", "neighbour"), raw_event(&deep));
        let answer = world.post("/api/events", body).await;
        assert!(answer.status < 500, "{}", answer.text);
        // Nothing but the deep event is lost.
        assert_eq!(answer.expect(202)["accepted"], 1);
        let unclosed = world.post("/api/events", open.repeat(million)).await;
        unclosed.refusal(400);
    }
    world.settled().await;
    assert_eq!(world.timeline("s").await.len(), 2);
}

async fn the_order_of_keys_is_that_of_javascript(world: World) {
    let stored =
        stored_texts(&world, &[r#"{"b":1,"10":2,"2":3,"a":4,"01":5,"4294967295":6,"4294967294":7}"#]).await;
    assert_eq!(stored, [r#"{"2":3,"10":2,"4294967294":7,"b":1,"a":4,"01":5,"4294967295":6}"#]);
}
