//! Messages in values of unknown shape: requests and answers of every provider's API, as clients pass them on.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::super::raw::structure_of;
use super::parts;
use super::values::{first, member, text_of};

/// How deeply messages may be nested.
const MAX_DEPTH: usize = 8;

/// The messages in `value`. A message without a role gets `role`; a value of an unknown shape becomes one text of that role.
pub(super) fn messages(value: &Json, role: &str) -> Vec<Json> {
    let mut found = Vec::new();
    collect(value, role, 0, &mut found);
    found
}

fn collect(value: &Json, role: &str, depth: usize, found: &mut Vec<Json>) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Json::Null => {}
        Json::String(text) => match structure_of(text) {
            Json::String(text) => found.extend(of_parts(role, parts::of_content(&Json::String(text)))),
            structure => collect(&structure, role, depth + 1, found),
        },
        Json::Array(items) if is_list_of_parts(value) => {
            found.extend(of_parts(role, items.iter().filter_map(parts::part).collect()));
        }
        Json::Array(items) => items.iter().for_each(|item| collect(item, role, depth + 1, found)),
        Json::Object(object) => of_object(object, role, depth, found),
        other => found.extend(of_parts(role, vec![parts::text(&other.to_string())])),
    }
}

/// Whether a value is a list of parts of one message.
pub(super) fn is_list_of_parts(value: &Json) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_part))
}

/// Whether a list's item is a part of a message, not a message.
fn is_part(item: &Json) -> bool {
    let Some(object) = item.as_object() else { return false };
    let kind = object.get("type").and_then(Json::as_str).unwrap_or("");
    let is_message =
        ["role", "lc", "message", "parts", "data", "kwargs"].iter().any(|key| object.contains_key(*key));
    let is_gemini_part = [
        "functionCall",
        "function_call",
        "functionResponse",
        "function_response",
        "inlineData",
        "inline_data",
    ]
    .iter()
    .any(|key| object.contains_key(*key));
    // The Responses API lists calls and their results beside messages.
    let stands_alone = kind == "message" || parts::role_of_item(kind).is_some();
    let has_no_type = is_gemini_part || parts::is_of_converse(object);
    !is_message && !stands_alone && (!kind.is_empty() && role_of_type(kind).is_none() || has_no_type)
}

fn of_object(object: &Map<String, Json>, role: &str, depth: usize, found: &mut Vec<Json>) {
    if is_message(object) {
        found.extend(message(object, role));
        return;
    }
    if parts::is_of_converse(object) {
        found.extend(of_parts(role, parts::part(&Json::Object(object.clone())).into_iter().collect()));
        return;
    }
    let mut inside = |key: &str, role: &str| match object.get(key) {
        Some(value) if !value.is_null() => {
            collect(value, role, depth + 1, found);
            true
        }
        _ => false,
    };
    // A request: the instructions come first, then the member with the messages.
    inside("system", "system");
    inside("instructions", "system");
    inside("system_instruction", "system");
    inside("systemInstruction", "system");
    let config = object.get("config").and_then(Json::as_object);
    if let Some(system) =
        config.and_then(|config| member(config, &["system_instruction", "systemInstruction"]))
    {
        collect(system, "system", depth + 1, found);
    }
    let mut inside = |key: &str, role: &str| match object.get(key) {
        Some(value) if !value.is_null() => {
            collect(value, role, depth + 1, found);
            true
        }
        _ => false,
    };
    if ["messages", "contents"].iter().any(|key| inside(key, "user")) {
        return;
    }
    if ["input", "inputs", "prompt", "prompts"].iter().any(|key| inside(key, "user")) {
        return;
    }
    if of_answer(object, depth, found) {
        return;
    }
    if let Some(text) = text_of(object, &["text", "response_text", "answer"]).filter(|_| object.len() <= 2) {
        found.extend(of_parts(role, vec![parts::text(&text)]));
    } else if !object.is_empty() {
        found.extend(of_parts(role, vec![parts::text(&Json::Object(object.clone()).to_string())]));
    }
}

/// An answer of an API: choices, candidates, generations, output items, or one message.
fn of_answer(object: &Map<String, Json>, depth: usize, found: &mut Vec<Json>) -> bool {
    for key in ["choices", "candidates", "generations", "output", "message", "response", "content"] {
        let Some(value) = object.get(key).filter(|value| value.is_array() || value.is_object()) else {
            continue;
        };
        let choices: Vec<&Json> = match value {
            Json::Array(items) => items
                .iter()
                .flat_map(|item| item.as_array().map_or_else(|| vec![item], |inner| inner.iter().collect()))
                .collect(),
            other => vec![other],
        };
        let before = found.len();
        for choice in choices {
            of_choice(choice, depth, found);
        }
        if found.len() > before {
            return true;
        }
    }
    false
}

fn of_choice(choice: &Json, depth: usize, found: &mut Vec<Json>) {
    let Some(object) = choice.as_object() else { return collect(choice, "assistant", depth + 1, found) };
    let before = found.len();
    match first(object, &["message", "content", "delta"]) {
        Some(message) if !is_message(object) => collect(message, "assistant", depth + 1, found),
        _ => match text_of(object, &["text"]).filter(|_| !is_message(object)) {
            Some(text) => found.extend(of_parts("assistant", vec![parts::text(&text)])),
            None => collect(choice, "assistant", depth + 1, found),
        },
    }
    let reason = text_of(object, &["finish_reason", "finishReason"])
        .or_else(|| text_of(object.get("generation_info")?.as_object()?, &["finish_reason"]));
    if let (Some(reason), Some(message)) = (reason, found[before..].last_mut().and_then(Json::as_object_mut))
    {
        message.entry("finishReason").or_insert(Json::String(reason));
    }
}

fn is_message(object: &Map<String, Json>) -> bool {
    let has = |key: &str| object.contains_key(key);
    let kind = object.get("type").and_then(Json::as_str).unwrap_or("");
    has("role")
        || has("parts")
        || has("lc")
        || (role_of_type(kind).is_some() && (has("content") || has("data") || has("kwargs")))
        || kind == "message"
        || parts::role_of_item(kind).is_some()
        || (has("content") && (has("tool_calls") || has("event.name")))
        || (has("tool_calls") && !has("messages"))
        || (has("message") && object.len() == 1 && object.get("message").is_some_and(Json::is_object))
}

/// The roles of LangChain's message types and classes.
fn role_of_type(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "human" | "HumanMessage" | "HumanMessageChunk" => "user",
        "ai" | "AIMessage" | "AIMessageChunk" => "assistant",
        "system" | "SystemMessage" => "system",
        "tool" | "ToolMessage" | "FunctionMessage" => "tool",
        "ChatMessage" => "user",
        _ => return None,
    })
}

/// One message in OpenTelemetry's shape.
fn message(object: &Map<String, Json>, role: &str) -> Option<Json> {
    if let Some(inner) = first(object, &["kwargs", "data"]).and_then(Json::as_object) {
        let class = object.get("id").and_then(Json::as_array).and_then(|path| path.last()?.as_str());
        let kind = class.or_else(|| object.get("type")?.as_str()).unwrap_or("");
        return message(inner, role_of_type(kind).unwrap_or(role));
    }
    if let (1, Some(inner)) = (object.len(), object.get("message").and_then(Json::as_object)) {
        return message(inner, role);
    }
    let kind = object.get("type").and_then(Json::as_str).unwrap_or("");
    if let Some(role) = parts::role_of_item(kind) {
        return Some(json!({"role": role, "parts": [parts::part(&Json::Object(object.clone()))?]}));
    }
    let stated = text_of(object, &["role"]).or_else(|| role_of_type(kind).map(str::to_owned));
    let role = match stated.as_deref().unwrap_or(role) {
        "model" | "ai" => "assistant",
        "human" => "user",
        role => role,
    };
    let parts = parts_of(object, role);
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    if let Some(name) = text_of(object, &["name"]) {
        message.insert("name".to_owned(), json!(name));
    }
    if parts.is_empty() && role != "assistant" {
        return None;
    }
    message.insert("parts".to_owned(), Json::Array(parts));
    if let Some(reason) = text_of(object, &["finish_reason", "finishReason", "stop_reason"]) {
        message.insert("finishReason".to_owned(), json!(reason));
    }
    Some(Json::Object(message))
}

fn parts_of(object: &Map<String, Json>, role: &str) -> Vec<Json> {
    let mut parts = Vec::new();
    if let Some(thinking) = text_of(object, &["reasoning_content", "reasoning", "thinking"]) {
        parts.push(json!({"type": "reasoning", "content": thinking}));
    }
    let content = first(object, &["parts", "contents", "content"]).map_or_else(Vec::new, parts::of_content);
    let is_answer_of_tool = role == "tool" || role == "function";
    if is_answer_of_tool && !content.iter().any(|part| part["type"] == "tool_call_response") {
        parts.push(parts::tool_response(object));
    } else {
        parts.extend(content);
    }
    if let Some(refusal) = text_of(object, &["refusal"]) {
        parts.push(json!({"type": "refusal", "content": refusal}));
    }
    let extra = object.get("additional_kwargs").and_then(Json::as_object);
    let calls = [object.get("tool_calls"), extra.and_then(|extra| extra.get("tool_calls"))];
    let calls = calls.into_iter().flatten().find_map(|calls| match calls {
        Json::Array(calls) if !calls.is_empty() => Some(calls.clone()),
        // Some clients send a list as a string.
        Json::String(text) => structure_of(text).as_array().filter(|calls| !calls.is_empty()).cloned(),
        _ => None,
    });
    let calls = calls.unwrap_or_else(|| {
        object.get("function_call").filter(|call| call.is_object()).cloned().into_iter().collect()
    });
    // LangChain sends the same call twice: in the content and beside it.
    let key_of = |part: &Json| (part["id"].to_string(), part["name"].to_string());
    let mut known: HashSet<(String, String)> =
        parts.iter().filter(|part| part["type"] == "tool_call").map(key_of).collect();
    for call in calls.iter().filter_map(Json::as_object) {
        let call = parts::tool_call(call);
        if known.insert(key_of(&call)) {
            parts.push(call);
        }
    }
    parts
}

fn of_parts(role: &str, parts: Vec<Json>) -> Option<Json> {
    if parts.is_empty() {
        return None;
    }
    let members = [("role", json!(role)), ("parts", Json::Array(parts))];
    Some(Json::Object(members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()))
}

#[cfg(test)]
mod tests;
