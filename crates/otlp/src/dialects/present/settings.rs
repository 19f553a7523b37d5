//! The request's settings and the tools it offers.

use serde_json::{Map, Value as Json, json};

use super::super::field::Field;
use super::super::raw::{RawValue, structure_of};
use super::super::table::table;
use super::conversation::read;
use super::families;
use super::merged::Merged;
use super::values::{first, text_of};

/// Members of a request that are not settings, because they are shown elsewhere.
const NO_SETTINGS: [&str; 12] = [
    "model",
    "model_name",
    "messages",
    "input",
    "contents",
    "prompt",
    "tools",
    "functions",
    "system",
    "instructions",
    "_type",
    "extra_headers",
];

/// The settings, each under one name.
pub(super) fn parameters(merged: &Merged) -> Map<String, Json> {
    let mut parameters = Map::new();
    for key in table().keys(Field::Parameters) {
        let Some(Json::Object(object)) = merged.attributes.get(key).map(RawValue::structure) else {
            continue;
        };
        for (name, value) in object {
            if !NO_SETTINGS.contains(&&*name) {
                add(&mut parameters, camel_case(&name), value);
            }
        }
    }
    for (key, value) in &merged.attributes {
        if let Some(name) = table().parameter_names.get(key) {
            add(&mut parameters, name.clone(), setting(value));
        }
    }
    parameters
}

/// The requested model, from the raw request or its settings.
pub(super) fn model(merged: &Merged) -> Option<String> {
    let requests = [Field::Parameters, Field::Input].into_iter().filter_map(|field| read(merged, field));
    requests.into_iter().find_map(|request| {
        // One client sends the whole answer instead of the settings.
        let is_answer = request.get("created_at").is_some();
        request
            .as_object()
            .filter(|_| !is_answer)
            .and_then(|request| text_of(request, &["model", "model_name"]))
    })
}

fn add(parameters: &mut Map<String, Json>, name: String, value: Json) {
    // An infinite limit is not a limit.
    if !value.is_null() && value != "Infinity" {
        parameters.insert(name, value);
    }
}

/// A setting's value. Python clients print booleans as `True` and `False`.
fn setting(value: &Json) -> Json {
    match value.as_str() {
        Some("True") => Json::Bool(true),
        Some("False") => Json::Bool(false),
        _ => value.structure(),
    }
}

fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut is_start = false;
    for character in name.chars() {
        match character {
            '_' if !out.is_empty() => is_start = true,
            _ if is_start => {
                out.extend(character.to_uppercase());
                is_start = false;
            }
            _ => out.push(character),
        }
    }
    out
}

/// The tools that the model may call: name, description and parameters.
pub(super) fn tools(merged: &Merged) -> Vec<Json> {
    let stated = match read(merged, Field::Tools) {
        Some(Json::Array(tools)) => tools,
        Some(Json::Object(tools)) => tools.into_iter().map(|(_, tool)| tool).collect(),
        _ => Vec::new(),
    };
    let stated = if stated.is_empty() {
        families::items(&merged.attributes, "llm.tools.").unwrap_or_default()
    } else {
        stated
    };
    let stated = if stated.is_empty() {
        families::items(&merged.attributes, "llm.request.functions.").unwrap_or_default()
    } else {
        stated
    };
    let stated = if stated.is_empty() { in_request(merged).unwrap_or_default() } else { stated };
    stated.iter().filter_map(tool).collect()
}

/// The tools of a raw request.
fn in_request(merged: &Merged) -> Option<Vec<Json>> {
    let requests = [Field::Input, Field::InputMessages].into_iter().filter_map(|field| read(merged, field));
    requests.into_iter().find_map(|request| match request.get("tools")? {
        Json::Array(tools) => Some(tools.clone()),
        _ => None,
    })
}

fn tool(value: &Json) -> Option<Json> {
    let value = match value {
        Json::String(text) => structure_of(text),
        other => other.clone(),
    };
    let mut object = value.as_object()?;
    let schema;
    // OpenInference: tool.json_schema, a text.
    if let Some(inner) = object.get("tool").and_then(|tool| tool.get("json_schema")) {
        schema = inner.structure();
        object = schema.as_object()?;
    }
    let function = object.get("function").and_then(Json::as_object).unwrap_or(object);
    let mut tool = Map::new();
    let kind = text_of(object, &["type"]).unwrap_or_else(|| "function".to_owned());
    tool.insert("type".to_owned(), json!(kind));
    tool.insert("name".to_owned(), json!(text_of(function, &["name"])?));
    if let Some(description) = text_of(function, &["description"]) {
        tool.insert("description".to_owned(), json!(description));
    }
    if let Some(parameters) = first(function, &["parameters", "inputSchema", "input_schema"]) {
        tool.insert("parameters".to_owned(), parameters.structure());
    }
    Some(Json::Object(tool))
}
