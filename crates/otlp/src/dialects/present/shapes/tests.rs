//! One test for each shape of messages in providers' APIs and clients.

use super::*;

fn user(content: &str) -> Json {
    json!({"role": "user", "parts": [{"type": "text", "content": content}]})
}

fn assistant(content: &str) -> Json {
    json!({"role": "assistant", "parts": [{"type": "text", "content": content}]})
}

fn call() -> Json {
    json!({"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Paris"}})
}

fn answer() -> Json {
    json!({"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "18 degrees"}]})
}

#[test]
fn plain_texts_take_the_given_role() {
    assert_eq!(messages(&json!("hi"), "user"), [user("hi")]);
    assert_eq!(messages(&json!(""), "user"), Vec::<Json>::new());
    assert_eq!(messages(&Json::Null, "user"), Vec::<Json>::new());
    assert_eq!(messages(&json!("{\"messages\": \"hi\"}"), "user"), [user("hi")]);
}

#[test]
fn opentelemetry_messages_stay_as_they_are() {
    let value = json!([
        {"role": "user", "parts": [{"type": "text", "content": "hi"}], "name": null},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "get_weather",
            "arguments": "{\"city\": \"Paris\"}"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "18 degrees"}]},
    ]);
    assert_eq!(
        messages(&value, "user"),
        [user("hi"), json!({"role": "assistant", "parts": [call()]}), answer()]
    );
}

#[test]
fn openai_chat_completions() {
    let request = json!({"model": "m", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]});
    assert_eq!(
        messages(&request, "user"),
        [user("hi"), json!({"role": "assistant", "parts": [call()]}), answer()]
    );
    let answer = json!({"id": "chatcmpl-1", "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}]});
    let mut expected = assistant("hello");
    expected["finishReason"] = json!("stop");
    assert_eq!(messages(&answer, "assistant"), [expected]);
}

#[test]
fn openai_responses() {
    let request = json!({"model": "m", "instructions": "Be kind.", "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c1", "id": "fc_1", "name": "get_weather", "arguments": "{\"city\": \"Paris\"}"},
        {"type": "function_call_output", "call_id": "c1", "output": "18 degrees"},
    ]});
    assert_eq!(
        messages(&request, "user"),
        [
            json!({"role": "system", "parts": [{"type": "text", "content": "Be kind."}]}),
            user("hi"),
            json!({"role": "assistant", "parts": [call()]}),
            answer(),
        ]
    );
    let answer = json!({"id": "resp_1", "object": "response", "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}]}]});
    assert_eq!(messages(&answer, "assistant").last(), Some(&assistant("hello")));
}

#[test]
fn anthropic_messages() {
    let request = json!({"system": "Be kind.", "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1",
            "content": [{"type": "text", "text": "18 degrees"}]}]},
    ]});
    let found = messages(&request, "user");
    assert_eq!(found[0], json!({"role": "system", "parts": [{"type": "text", "content": "Be kind."}]}));
    assert_eq!(found[1..3], [user("hi"), json!({"role": "assistant", "parts": [call()]})]);
    assert_eq!(found[3]["parts"], answer()["parts"]);
    let answer = json!({"id": "msg_1", "type": "message", "role": "assistant", "stop_reason": "end_turn",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hello"}]});
    assert_eq!(
        messages(&answer, "assistant"),
        [json!({"role": "assistant", "finishReason": "end_turn", "parts": [
            {"type": "reasoning", "content": "hm"}, {"type": "text", "content": "hello"}]})]
    );
}

#[test]
fn gemini_contents() {
    let request = json!({"config": {"system_instruction": "Be kind."}, "contents": [
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "get_weather", "args": {"city": "Paris"}}}]},
    ]});
    assert_eq!(
        messages(&request, "user")[1..],
        [user("hi"), json!({"role": "assistant", "parts": [call()]})]
    );
    let answer = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}]});
    let mut expected = assistant("hello");
    expected["finishReason"] = json!("STOP");
    assert_eq!(messages(&answer, "assistant"), [expected]);
}

#[test]
fn content_alone_is_an_answer() {
    let answer = json!({"content": {"role": "model", "parts": [{"text": "hello"}]}, "usage_metadata": {}});
    assert_eq!(messages(&answer, "assistant"), [assistant("hello")]);
}

#[test]
fn langchain_messages() {
    let human = json!({"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"content": "hi", "type": "human"}});
    assert_eq!(messages(&json!({"messages": [[human]]}), "user"), [user("hi")]);
    let answer = json!({"generations": [[{"text": "hello", "generation_info": {"finish_reason": "stop"},
        "message": {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {"content": "hello", "type": "ai"}}}]], "llm_output": {}});
    let mut expected = assistant("hello");
    expected["finishReason"] = json!("stop");
    assert_eq!(messages(&answer, "assistant"), [expected]);
    assert_eq!(messages(&json!([{"type": "human", "content": "hi"}]), "user"), [user("hi")]);
}

#[test]
fn vercel_messages() {
    let prompt = json!([
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "c1", "toolName": "get_weather", "input": {"city": "Paris"}}]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "c1", "toolName": "get_weather",
            "output": {"type": "text", "value": "18 degrees"}}]},
    ]);
    assert_eq!(
        messages(&prompt, "user"),
        [user("hi"), json!({"role": "assistant", "parts": [call()]}), answer()]
    );
}

#[test]
fn media_become_uris_and_blobs() {
    let content = json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]}]);
    let found = messages(&content, "user");
    let parts = found[0]["parts"].as_array().unwrap();
    let kinds: Vec<_> = parts
        .iter()
        .map(|part| (part["type"].as_str().unwrap(), part["modality"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("uri", "image"), ("blob", "image"), ("blob", "image"), ("blob", "audio")]);
    assert_eq!(parts[1]["content"], "AAAA");
}

#[test]
fn what_has_no_known_shape_is_still_shown() {
    assert_eq!(messages(&json!({"score": 3}), "assistant"), [assistant("{\"score\":3}")]);
    assert_eq!(messages(&json!(42), "user"), [user("42")]);
}

#[test]
fn bottomless_nesting_ends() {
    let mut value = json!("deep");
    for _ in 0..100 {
        value = json!({"messages": value});
    }
    assert_eq!(messages(&value, "user"), Vec::<Json>::new());
}

#[test]
fn the_items_of_a_response_are_reasoning_calls_and_messages() {
    let answer = json!({"id": "resp_1", "object": "response", "output": [
        {"type": "reasoning", "id": "rs_1", "content": null,
            "summary": [{"type": "summary_text", "text": "I should look it up"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "So be it"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1+1", "container_id": "c", "outputs": []},
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"], "results": null},
        {"type": "mcp_call", "id": "m_1", "name": "get_weather", "arguments": "{\"city\": \"Paris\"}", "output": "18"},
        {"type": "custom_tool_call", "call_id": "ct_1", "id": "x", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "ct_1", "output": "1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42"}]},
    ]});
    let messages = messages(&answer, "assistant");
    let parts: Vec<(&Json, &Json)> =
        messages.iter().map(|message| (&message["role"], &message["parts"][0])).collect();
    let call = |id: &str, name: &str, arguments: Json| json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments});
    let expected = [
        ("assistant", json!({"type": "reasoning", "content": "I should look it up"})),
        ("assistant", json!({"type": "reasoning", "content": "So be it"})),
        ("assistant", call("ws_1", "web_search", json!({"action": {"type": "search", "query": "x"}}))),
        ("assistant", call("ci_1", "code_interpreter", json!({"code": "1+1", "container_id": "c"}))),
        ("assistant", call("fs_1", "file_search", json!({"queries": ["q"]}))),
        ("assistant", call("m_1", "get_weather", json!({"city": "Paris"}))),
        ("assistant", call("ct_1", "sql", json!("select 1"))),
        ("tool", json!({"type": "tool_call_response", "id": "ct_1", "response": "1"})),
        ("assistant", json!({"type": "text", "content": "42"})),
    ];
    for (found, (role, part)) in parts.iter().zip(&expected) {
        assert_eq!(*found, (&json!(role), part));
    }
    assert_eq!(parts.len(), expected.len());
}

#[test]
fn tools_that_the_provider_runs_are_calls_and_answers() {
    let content = json!([{"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "s_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s_1", "content": [{"type": "text", "text": "found"}]},
        {"type": "mcp_tool_use", "id": "s_2", "name": "echo", "server_name": "s", "input": {}},
        {"type": "server_tool_call", "id": "s_3", "name": "search", "server_tool_call": {"type": "web", "q": "x"}},
        {"type": "text", "text": "42"},
    ]}]);
    let messages = messages(&content, "assistant");
    let parts = messages[0]["parts"].as_array().unwrap();
    let kinds: Vec<&str> = parts.iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tool_call", "tool_call_response", "tool_call", "tool_call", "text"]);
    assert_eq!(parts[1]["response"], "found");
    assert_eq!(parts[3]["arguments"], json!({"type": "web", "q": "x"}));
}

#[test]
fn bedrock_converse() {
    let messages_of = json!({"messages": [
        {"role": "user", "content": [{"text": "hi"}, {"cachePoint": {"type": "default"}}]},
        {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}},
            {"toolUse": {"toolUseId": "c1", "name": "get_weather", "input": {"city": "Paris"}}}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "18 degrees"}]}}]},
    ], "system": [{"text": "be brief"}, {"cachePoint": {"type": "default"}}]});
    let found = messages(&messages_of, "user");
    let system: Vec<&Json> = found.iter().filter(|message| message["role"] == "system").collect();
    assert!(system.iter().all(|message| message["parts"][0]["content"] == "be brief"), "{system:?}");
    let rest: Vec<&Json> = found.iter().filter(|message| message["role"] != "system").collect();
    assert_eq!(rest[0], &user("hi"));
    assert_eq!(rest[1]["parts"], json!([{"type": "reasoning", "content": "hm"}, call()]));
    assert_eq!(rest[2]["parts"], answer()["parts"]);
    let answered = json!({"output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}}, "stopReason": "end_turn"});
    assert_eq!(messages(&answered, "assistant")[0]["parts"], assistant("hello")["parts"]);
}

/// Bug: each call of a tool was compared with all before it. 20,000 of them took most of a minute.
#[test]
fn very_many_calls_of_tools_are_shown_in_time() {
    let calls: Vec<Json> =
        (0..20_000).map(|id| json!({"id": format!("c{}", id / 2), "function": {"name": "f"}})).collect();
    let found = messages(&json!([{"role": "assistant", "tool_calls": calls}]), "assistant");
    assert_eq!(found[0]["parts"].as_array().unwrap().len(), 10_000);
}
