//! Parts of a message, converted from the shapes of all providers and clients to OpenTelemetry's.

use serde_json::{Map, Value as Json, json};

use super::super::raw::structure_of;
use super::values::{as_text, first, member, text_of};

/// A part that is text.
pub(super) fn text(content: &str) -> Json {
    json!({"type": "text", "content": content})
}

/// The parts in a message's content: one text, one part, or a list of them.
pub(super) fn of_content(content: &Json) -> Vec<Json> {
    match content {
        Json::Null => Vec::new(),
        Json::String(content) if content.is_empty() => Vec::new(),
        Json::String(content) => vec![text(content)],
        Json::Array(items) => items.iter().filter_map(part).collect(),
        other => part(other).into_iter().collect(),
    }
}

/// One part. A part of an unknown type is kept as it is; a value without a type is shown as text.
pub(super) fn part(value: &Json) -> Option<Json> {
    let object = match value {
        Json::Null => return None,
        Json::Object(object) => unwrapped(object),
        Json::String(content) if content.is_empty() => return None,
        other => return Some(text(&as_text(other))),
    };
    let kind = object.get("type").and_then(Json::as_str).unwrap_or("");
    match kind {
        "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" => {
            words(object).map(|content| text(&content))
        }
        "tool_call" | "tool_use" | "tool-call" | "function_call" | "server_tool_use" | "function" => {
            Some(tool_call(object))
        }
        "tool_call_response" | "tool_result" | "tool-result" | "function_call_output" => {
            Some(tool_response(object))
        }
        "reasoning" | "thinking" | "redacted_thinking" => Some(reasoning(object)),
        "refusal" => Some(json!({"type": "refusal", "content": words(object)})),
        "image_url" | "input_image" | "image" | "input_audio" | "audio" | "document" | "input_file" => {
            Some(without_nulls(media(kind, object)))
        }
        "" => untyped(object),
        _ if is_call(kind) => Some(tool_call(object)),
        _ if is_response(kind) => Some(tool_response(object)),
        _ => Some(Json::Object(object.clone())),
    }
}

/// Calls of tools that a provider runs itself, or that a client declares in its own way: `web_search_call`, `mcp_call`,
/// `custom_tool_call` of the Responses API, `mcp_tool_use` of Anthropic's, `server_tool_call` of OpenTelemetry.
fn is_call(kind: &str) -> bool {
    kind.ends_with("_call") || kind.ends_with("_tool_use")
}

/// Their answers: `computer_call_output`, `web_search_tool_result`, `server_tool_call_response`.
fn is_response(kind: &str) -> bool {
    ["_call_output", "_tool_result", "_call_response"].iter().any(|end| kind.ends_with(end))
}

/// The role of an item that the Responses API lists beside messages; `None` for other items.
pub(super) fn role_of_item(kind: &str) -> Option<&'static str> {
    match kind {
        // OpenTelemetry's parts of messages.
        "tool_call" | "server_tool_call" | "tool_call_response" | "server_tool_call_response" => None,
        "reasoning" | "mcp_list_tools" | "mcp_approval_request" | "compaction" => Some("assistant"),
        _ if kind.ends_with("_call") => Some("assistant"),
        _ if kind.ends_with("_call_output") => Some("tool"),
        _ => None,
    }
}

/// OpenInference wraps its parts in an object with one member.
fn unwrapped(object: &Map<String, Json>) -> &Map<String, Json> {
    ["message_content", "tool_call"]
        .into_iter()
        .find_map(|wrapper| object.get(wrapper)?.as_object())
        .filter(|_| object.len() == 1)
        .unwrap_or(object)
}

/// Whether an object is a part of Bedrock's Converse API: its only member names its type.
pub(super) fn is_of_converse(object: &Map<String, Json>) -> bool {
    const MEMBERS: [&str; 8] = [
        "toolUse",
        "toolResult",
        "cachePoint",
        "reasoningContent",
        "guardContent",
        "image",
        "document",
        "video",
    ];
    object.len() == 1
        && object.iter().all(|(key, value)| MEMBERS.contains(&key.as_str()) && value.is_object())
}

/// A part of Bedrock's Converse API.
fn of_converse(object: &Map<String, Json>) -> Option<Json> {
    let (kind, value) = object.iter().next()?;
    let inner = value.as_object()?;
    match kind.as_str() {
        "toolUse" => Some(tool_call(inner)),
        "toolResult" => Some(tool_response(inner)),
        // It marks a position in the prompt and has no content.
        "cachePoint" => None,
        "reasoningContent" => {
            let text = inner.get("reasoningText").and_then(Json::as_object).unwrap_or(inner);
            Some(reasoning(text))
        }
        "guardContent" => Some(text(&inner.get("text").and_then(Json::as_object).and_then(words)?)),
        _ => {
            let format = text_of(inner, &["format"]);
            let content = inner.get("source").and_then(|source| source.get("bytes"));
            let blob = json!({"type": "blob", "modality": kind, "mime_type": format, "content": content});
            Some(without_nulls(blob))
        }
    }
}

/// A part of Gemini or Bedrock. It has no type; its member's name shows what it is.
fn untyped(object: &Map<String, Json>) -> Option<Json> {
    if is_of_converse(object) {
        return of_converse(object);
    }
    if let Some(call) = member(object, &["functionCall", "function_call"]).and_then(Json::as_object) {
        return Some(tool_call(call));
    }
    if let Some(response) =
        member(object, &["functionResponse", "function_response"]).and_then(Json::as_object)
    {
        return Some(tool_response(response));
    }
    if let Some(data) = member(object, &["inlineData", "inline_data"]).and_then(Json::as_object) {
        let mime_type = text_of(data, &["mimeType", "mime_type"]);
        let modality = modality_of(mime_type.as_deref().unwrap_or(""));
        let content = data.get("data");
        let blob = json!({"type": "blob", "modality": modality, "mime_type": mime_type, "content": content});
        return Some(without_nulls(blob));
    }
    if let Some(data) = member(object, &["fileData", "file_data"]).and_then(Json::as_object) {
        let uri = text_of(data, &["fileUri", "file_uri"]);
        let mime_type = text_of(data, &["mimeType", "mime_type"]);
        return Some(without_nulls(json!({"type": "uri", "uri": uri, "mime_type": mime_type})));
    }
    if object.get("thought").and_then(Json::as_bool) == Some(true) {
        return Some(reasoning(object));
    }
    match words(object) {
        Some(content) => Some(text(&content)),
        None if object.contains_key("name") && first(object, &["arguments", "args"]).is_some() => {
            Some(tool_call(object))
        }
        None => Some(text(&Json::Object(object.clone()).to_string())),
    }
}

fn words(object: &Map<String, Json>) -> Option<String> {
    text_of(object, &["text", "content", "refusal", "value"])
}

/// A tool call. Arguments that are JSON in a string become JSON.
pub(super) fn tool_call(call: &Map<String, Json>) -> Json {
    let call = unwrapped(call);
    let function = call.get("function").and_then(Json::as_object).unwrap_or(call);
    let id = text_of(call, &["call_id", "toolCallId", "tool_call_id", "toolUseId", "id"]);
    let kind = call.get("type").and_then(Json::as_str).unwrap_or("");
    let name = text_of(function, &["name", "toolName"])
        .or_else(|| text_of(call, &["name", "toolName"]))
        .or_else(|| kind.strip_suffix("_call").map(str::to_owned));
    let arguments = first(function, &["arguments", "args", "input", "parameters"])
        .or_else(|| first(call, &["arguments", "args", "input"]))
        .cloned()
        .or_else(|| is_call(kind).then(|| built_in_arguments(call)));
    let mut part = Map::new();
    part.insert("type".to_owned(), json!("tool_call"));
    if let Some(id) = id {
        part.insert("id".to_owned(), json!(id));
    }
    part.insert("name".to_owned(), json!(name));
    part.insert("arguments".to_owned(), arguments.as_ref().map_or(Json::Null, parsed));
    Json::Object(part)
}

/// The arguments of a built-in tool: all members that are not about the call itself.
fn built_in_arguments(call: &Map<String, Json>) -> Json {
    const ABOUT_THE_CALL: [&str; 11] = [
        "type", "id", "call_id", "name", "status", "role", "output", "outputs", "result", "results", "error",
    ];
    let arguments =
        call.iter().filter(|(key, value)| !ABOUT_THE_CALL.contains(&key.as_str()) && !value.is_null());
    let mut arguments: Map<String, Json> =
        arguments.map(|(key, value)| (key.clone(), value.clone())).collect();
    match (arguments.len(), arguments.get_mut("server_tool_call")) {
        // OpenTelemetry has the whole call in one member.
        (1, Some(inner)) => inner.take(),
        _ => Json::Object(arguments),
    }
}

/// A tool's answer.
pub(super) fn tool_response(response: &Map<String, Json>) -> Json {
    let id = text_of(response, &["call_id", "toolCallId", "tool_call_id", "tool_use_id", "toolUseId", "id"]);
    let result = first(response, &["response", "result", "output", "content", "server_tool_call_response"]);
    let result = result.map_or(Json::Null, |result| match result {
        // Vercel wraps an output with its type.
        Json::Object(typed) if typed.len() == 2 && typed.contains_key("type") => {
            typed.get("value").cloned().unwrap_or_else(|| result.clone())
        }
        // Anthropic's results have content like a message.
        Json::Array(_) => joined_text(result).map_or_else(|| result.clone(), Json::String),
        other => other.clone(),
    });
    let mut part = Map::new();
    part.insert("type".to_owned(), json!("tool_call_response"));
    if let Some(id) = id {
        part.insert("id".to_owned(), json!(id));
    }
    part.insert("response".to_owned(), result);
    Json::Object(part)
}

/// The text of content that consists of texts only.
fn joined_text(content: &Json) -> Option<String> {
    let parts = of_content(content);
    let texts: Option<Vec<&str>> = parts.iter().map(text_in).collect();
    texts.filter(|texts| !texts.is_empty()).map(|texts| texts.join("\n"))
}

/// The content of a part, if it is text.
pub(super) fn text_in(part: &Json) -> Option<&str> {
    (part.get("type")?.as_str()? == "text").then_some(())?;
    part.get("content")?.as_str()
}

fn reasoning(object: &Map<String, Json>) -> Json {
    let content = text_of(object, &["content", "text", "thinking", "reasoning", "summary", "data"]);
    let joined = |key: &str| object.get(key).and_then(joined_text);
    let content = content.or_else(|| joined("content")).or_else(|| joined("summary"));
    json!({"type": "reasoning", "content": content.unwrap_or_default()})
}

/// Images, audio and documents: a URL, an id, or the bytes.
fn media(kind: &str, object: &Map<String, Json>) -> Json {
    let modality = match kind {
        "input_audio" | "audio" => "audio",
        "document" | "input_file" => "document",
        _ => "image",
    };
    let inner = first(object, &["image_url", "input_audio", "audio", "source", "image", "document", "file"]);
    let fields = inner.and_then(Json::as_object).unwrap_or(object);
    // OpenInference nests once more: image.image.url.
    let fields = fields.get("image").and_then(Json::as_object).unwrap_or(fields);
    let mime_type = text_of(fields, &["media_type", "mime_type", "mediaType", "mimeType", "format"])
        .or_else(|| text_of(object, &["mediaType", "mimeType", "mime_type"]));
    if let Some(id) = text_of(fields, &["file_id"]) {
        return json!({"type": "file", "modality": modality, "mime_type": mime_type, "file_id": id});
    }
    let place = inner.and_then(Json::as_str).map(str::to_owned).or_else(|| text_of(fields, &["url", "uri"]));
    let bytes = text_of(fields, &["data", "file_data", "content"]);
    match (place, bytes) {
        (Some(place), _) if place.starts_with("data:") => {
            let (head, content) = place.split_once(',').unwrap_or((&place, ""));
            let mime_type = head.trim_start_matches("data:").split(';').next();
            json!({"type": "blob", "modality": modality, "mime_type": mime_type, "content": content})
        }
        (Some(place), _) => {
            json!({"type": "uri", "modality": modality, "mime_type": mime_type, "uri": place})
        }
        (None, Some(content)) => {
            json!({"type": "blob", "modality": modality, "mime_type": mime_type, "content": content})
        }
        (None, None) => Json::Object(object.clone()),
    }
}

fn without_nulls(mut part: Json) -> Json {
    if let Some(part) = part.as_object_mut() {
        part.retain(|_, value| !value.is_null());
    }
    part
}

fn modality_of(mime_type: &str) -> &'static str {
    match mime_type.split('/').next() {
        Some("audio") => "audio",
        Some("video") => "video",
        Some("application" | "text") => "document",
        _ => "image",
    }
}

fn parsed(value: &Json) -> Json {
    match value {
        Json::String(text) => structure_of(text),
        other => other.clone(),
    }
}
