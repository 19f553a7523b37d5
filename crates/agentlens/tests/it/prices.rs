//! Calls cost what their host asks at their tier and size. Where that isn't known, the cost is unknown.

use serde_json::{Value, json};

use crate::samples::{note, now_us};
use crate::world::World;

on_both_engines!(
    calls_cost_what_their_host_asks_at_their_tier_and_size,
    native_events_name_their_tier,
    calls_with_impossible_tokens_have_an_unknown_cost,
    an_org_sets_and_removes_its_own_prices,
);

async fn an_org_sets_and_removes_its_own_prices(world: World) {
    let admin = world.person("admin@example.com", "admin").await;
    let (_, other) = world.org("Other");
    let price = json!({ "model": "acme/own-1", "provider": null, "from": "2020-01-01", "input": "2.50", "output": "10",
        "cache_read": null, "cache_write": null });
    assert_eq!(admin.send("PUT", "/v1/prices", Some(price.clone())).await.status, 204);
    assert_eq!(admin.read("/v1/prices").await["prices"], json!([price]));
    assert_eq!(other.read("/v1/prices").await["prices"], json!([]));
    let path = "/v1/prices?model=acme/own-1&from=2020-01-01";
    other.answer(other.request("DELETE", path)).await.refusal(404);
    for (field, wrong) in [("input", "-1"), ("from", "soon"), ("model", " ")] {
        let mut price = price.clone();
        price[field] = json!(wrong);
        admin.send("PUT", "/v1/prices", Some(price)).await.refusal(400);
    }
    admin.send("DELETE", "/v1/prices", None).await.refusal(400);
    admin.send("DELETE", "/v1/prices?model=acme/own-1", None).await.refusal(404);
    assert_eq!(admin.send("DELETE", path, None).await.status, 204);
    assert_eq!(admin.read("/v1/prices").await["prices"], json!([]));
    let log = admin.read("/v1/audit?act=prices").await;
    assert_eq!(
        (&log["entries"][0]["act"], &log["entries"][1]["act"]),
        (&json!("prices.delete"), &json!("prices.set"))
    );
    assert_eq!(log["entries"][0]["before"]["input"], "2.50");
    let member = world.person("member@example.com", "member").await;
    member.send("GET", "/v1/prices", None).await.refusal(403);
}

/// The cost of the session of one call, as its trace shows it.
async fn cost_of(
    world: &World,
    session: &str,
    provider: &str,
    model: &str,
    tokens: (i64, i64),
    more: &[(&str, &str)],
) -> Value {
    let texts = [
        ("session.id", session),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", provider),
        ("gen_ai.request.model", model),
    ];
    let texts =
        texts.iter().chain(more).map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
    let counts = [("gen_ai.usage.input_tokens", tokens.0), ("gen_ai.usage.output_tokens", tokens.1)]
        .map(|(key, value)| json!({ "key": key, "value": { "intValue": value.to_string() } }));
    let attributes: Vec<Value> = texts.chain(counts).collect();
    let trace_id = format!("{:032x}", rand::random::<u128>());
    let start = (now_us() * 1000).to_string();
    let span = json!({ "traceId": trace_id, "spanId": "00000000000000aa", "name": "chat", "startTimeUnixNano": start,
        "endTimeUnixNano": start, "attributes": attributes });
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    let request = world.request("POST", "/v1/traces").header("content-type", "application/json");
    world.answer(request.body(body.to_string())).await.expect(200);
    world.settled().await;
    world.read(&format!("/api/sessions/{session}/trace")).await["tree"][0]["span"]["cost"].clone()
}

async fn calls_cost_what_their_host_asks_at_their_tier_and_size(world: World) {
    let tier = "openai.response.service_tier";
    let open_model = "accounts/fireworks/models/deepseek-v4-pro";
    for (number, (provider, model, tokens, more, usd)) in [
        ("openai", "gpt-5-mini", (2000, 500), &[][..], Some(0.0015)),
        ("openai", "gpt-5-mini", (2000, 500), &[(tier, "default")][..], Some(0.0015)),
        ("openai", "gpt-5-mini", (2000, 500), &[(tier, "batch")][..], Some(0.00075)),
        ("openai", "gpt-5-mini", (2000, 500), &[(tier, "flex")][..], Some(0.00075)),
        ("openai", "gpt-5-mini", (2000, 500), &[(tier, "priority")][..], Some(0.0027)),
        ("openai", "gpt-5-mini", (2000, 500), &[(tier, "scale")][..], None),
        ("openai", "gpt-5.5", (300_000, 1000), &[][..], Some(3.045)),
        ("openai", "gpt-5.5-pro", (300_000, 1000), &[][..], Some(18.27)),
        ("aws.bedrock", "us.openai.gpt-5.5", (300_000, 1000), &[][..], None),
        ("fireworks", open_model, (1_000_000, 1_000_000), &[][..], Some(5.22)),
        ("novita", "deepseek/deepseek-v4-pro", (1_000_000, 1_000_000), &[][..], None),
        ("deepseek", "deepseek-v4-pro", (1_000_000, 1_000_000), &[][..], Some(1.305)),
    ]
    .into_iter()
    .enumerate()
    {
        let cost = cost_of(&world, &format!("s{number}"), provider, model, tokens, more).await;
        let (source, shown) =
            if usd.is_some() { ("computed", usd) } else { ("unknown", cost["usd"].as_f64()) };
        assert_eq!(cost["source"], source, "{provider} {model} {tokens:?} {more:?}: {cost}");
        assert_eq!(cost["usd"].as_f64(), shown, "{provider} {model} {tokens:?} {more:?}: {cost}");
    }
}

async fn native_events_name_their_tier(world: World) {
    let usage = json!({ "inputTokens": 2000, "outputTokens": 500, "totalTokens": 2500 });
    for (tier, source, usd) in [
        (json!(null), "computed", 0.0015),
        (json!("flex"), "computed", 0.00075),
        (json!("priority"), "computed", 0.0027),
        (json!("scale"), "unknown", 0.0),
    ] {
        let mut payload = json!({ "callId": "c", "provider": "openai", "model": "gpt-5-mini", "completion": "x", "usage": usage });
        if !tier.is_null() {
            payload["serviceTier"] = tier.clone();
        }
        let session = format!("tier-{tier}").replace('"', "");
        let event =
            json!({ "sessionId": session, "agentId": "a", "eventType": "llm_response", "payload": payload });
        world.try_send(&[event]).await.expect(202);
        world.settled().await;
        let event = &world.read(&format!("/api/events?sessionId={session}")).await["events"][0];
        assert_eq!(
            (&event["cost"]["source"], &event["cost"]["usd"]),
            (&json!(source), &json!(usd)),
            "{tier}"
        );
    }
    let payload = json!({ "callId": "c", "model": "gpt-5-mini", "completion": "x", "serviceTier": 1 });
    let event = json!({ "sessionId": "s", "agentId": "a", "eventType": "llm_response", "payload": payload });
    let answer = world.try_send(&[event, note("s", "beside it")]).await.expect(202);
    assert_eq!(
        (&answer["accepted"], &answer["errors"][0]["field"]),
        (&json!(1), &json!("payload.serviceTier")),
        "{answer}"
    );
}

async fn calls_with_impossible_tokens_have_an_unknown_cost(world: World) {
    let answer = |input: Value, output: Value| {
        let usage = json!({ "inputTokens": input, "outputTokens": output, "totalTokens": 1 });
        let payload = json!({ "callId": "c", "provider": "openai", "model": "gpt-5-mini", "completion": "x", "usage": usage });
        json!({ "sessionId": "s", "agentId": "a", "eventType": "llm_response", "payload": payload })
    };
    let events =
        [answer(json!(-5), json!(1e30)), answer(json!(-5), json!(7)), answer(json!(2000), json!(500))];
    world.try_send(&events).await.expect(202);
    world.settled().await;
    let list = world.read("/api/events?sessionId=s").await;
    let sources = list["events"].as_array().unwrap().iter().map(|event| event["cost"]["source"].as_str());
    assert_eq!(sources.filter(|source| *source == Some("unknown")).count(), 2, "{list}");
    let session = world.read("/api/sessions/s").await;
    let counted = ["llmCallCount", "totalInputTokens", "totalOutputTokens"].map(|key| &session[key]);
    assert_eq!((counted, &session["totalCostUsd"]), ([&json!(3), &json!(2000), &json!(507)], &json!(0.0015)));
    assert_eq!(world.read("/api/analytics").await["totals"]["unknownCostCount"], 2);
}
