//! The schema of the body of `POST /api/events`, generated from the tables that every event is checked against.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use agentlens_domain::events::{FieldShape, Severity, TypeReference, reference};

/// The operation whose body is described.
const PATH: &str = "/api/events";

/// The schema of a field that accepts any value.
const ANY: [&str; 6] = ["string", "number", "boolean", "object", "array", "null"];

/// Adds the schemas of all event types and the body of `POST /api/events` to the document.
pub(crate) fn describe(document: &mut OpenApi) {
    let types = reference();
    let schemas = &mut document.components.get_or_insert_default().schemas;
    let mut add = |name: String, schema: Value| {
        if let Ok(schema) = serde_json::from_value(schema) {
            schemas.insert(name, schema);
        }
    };
    add("EventEnvelope".to_owned(), envelope());
    for of_type in &types {
        add(name_of(of_type), event(of_type));
    }
    let of_types: Vec<Value> = types.iter().map(|of_type| json!({ "$ref": reference_to(of_type) })).collect();
    add("EventInput".to_owned(), json!({ "oneOf": of_types, "description": "One event, of any type." }));
    let operation = document.paths.paths.get_mut(PATH).and_then(|item| item.post.as_mut());
    if let Some(operation) = operation {
        operation.request_body = serde_json::from_value(body(&types)).ok();
    }
}

/// `ToolCallEvent` for `tool_call`.
fn name_of(of_type: &TypeReference) -> String {
    let words = of_type.event_type.as_str().split('_');
    let capitalised = words.map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    capitalised.collect::<String>() + "Event"
}

fn reference_to(of_type: &TypeReference) -> String {
    format!("#/components/schemas/{}", name_of(of_type))
}

/// The members that all types share.
fn envelope() -> Value {
    let severities: Vec<&str> = Severity::EVERY.iter().map(|severity| severity.as_str()).collect();
    json!({
        "type": "object",
        "required": ["sessionId", "agentId"],
        "properties": {
            "sessionId": { "type": "string", "minLength": 1, "description": "The run or conversation; at most 256 bytes." },
            "agentId": { "type": "string", "description": "The agent; at most 256 bytes." },
            "id": { "type": "string", "description": "Your own id of the event, which makes sending it again harmless; the server makes one unless given." },
            "timestamp": { "type": "string", "description": "When it happened, RFC 3339, such as 2026-01-02T03:04:05.678Z; the server's time unless given." },
            "environment": { "type": "string", "description": "The environment that it belongs to, such as production or preview/pr-12; that of the key unless given." },
            "severity": { "type": "string", "enum": severities, "default": "info", "description": "`error` and `critical` count as errors." },
            "metadata": { "type": "object", "description": "Anything else, at most 64 KiB. `userId` in it is the end user." },
        },
    })
}

fn event(of_type: &TypeReference) -> Value {
    let fields: Map<String, Value> = of_type
        .fields
        .iter()
        .map(|field| {
            let mut schema = shape(field.shape);
            schema["description"] = field.meaning.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> =
        of_type.fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let mut payload = json!({ "type": "object", "properties": fields });
    if !required.is_empty() {
        payload["required"] = required.into();
    }
    json!({
        "description": of_type.about,
        "allOf": [
            { "$ref": "#/components/schemas/EventEnvelope" },
            {
                "type": "object",
                "required": ["eventType", "payload"],
                "properties": {
                    "eventType": { "type": "string", "enum": [of_type.event_type.as_str()] },
                    "payload": payload,
                },
            },
        ],
        "example": example("session-1", of_type),
    })
}

fn shape(shape: FieldShape) -> Value {
    match shape {
        FieldShape::String => json!({ "type": "string" }),
        FieldShape::Text => json!({ "type": "string", "minLength": 1 }),
        FieldShape::OneOf(choices) => json!({ "type": "string", "enum": choices }),
        FieldShape::Number => json!({ "type": "number" }),
        FieldShape::Amount => json!({ "type": "number", "minimum": 0 }),
        FieldShape::Whole(least) => json!({ "type": "integer", "minimum": least }),
        FieldShape::Object => json!({ "type": "object" }),
        FieldShape::Array => json!({ "type": "array", "items": { "type": ANY } }),
        FieldShape::Strings => json!({ "type": "array", "items": { "type": "string" } }),
        FieldShape::StringOrNull => json!({ "type": ["string", "null"] }),
        FieldShape::Any => json!({ "type": ANY }),
    }
}

fn example(session: &str, of_type: &TypeReference) -> Value {
    let payload: Value = serde_json::from_str(of_type.example).unwrap_or_default();
    json!({ "sessionId": session, "agentId": "my-agent", "eventType": of_type.event_type.as_str(), "payload": payload })
}

fn body(types: &[TypeReference]) -> Value {
    let one = json!({ "$ref": "#/components/schemas/EventInput" });
    let many = json!({ "type": "array", "minItems": 1, "items": one });
    let examples = |names: &[&str]| -> Value {
        let chosen = types.iter().filter(|of_type| names.contains(&of_type.event_type.as_str()));
        json!({ "events": chosen.map(|of_type| example("session-1", of_type)).collect::<Vec<_>>() })
    };
    json!({
        "description": "One event, an array of events, or `{\"events\": [...]}`. Unknown members of an event are dropped; unknown fields of a payload are kept.",
        "required": true,
        "content": { "application/json": {
            "schema": { "oneOf": [
                { "type": "object", "required": ["events"], "properties": { "events": many } }, many, one,
            ] },
            "examples": {
                "model call": { "summary": "A model call and its answer", "value": examples(&["llm_call", "llm_response"]) },
                "tool call": { "summary": "A tool call and its answer", "value": examples(&["tool_call", "tool_response"]) },
                "anything else": { "summary": "A custom event", "value": examples(&["custom"]) },
            },
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_described_with_its_required_fields() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let schemas = &document["components"]["schemas"];
        for of_type in reference() {
            let payload = &schemas[name_of(&of_type)]["allOf"][1]["properties"]["payload"];
            for field in &of_type.fields {
                assert!(
                    payload["properties"][field.name]["description"].is_string(),
                    "{}: {payload}",
                    field.name
                );
                let required = payload["required"].as_array().into_iter().flatten();
                assert_eq!(
                    required.into_iter().any(|name| name == field.name),
                    field.is_required,
                    "{}",
                    field.name
                );
            }
        }
        let body = &document["paths"][PATH]["post"]["requestBody"]["content"]["application/json"];
        assert!(
            body["examples"]["model call"]["value"]["events"][1]["payload"]["usage"].is_object(),
            "{body}"
        );
        assert_eq!(schemas["EventInput"]["oneOf"].as_array().unwrap().len(), 21);
    }
}
