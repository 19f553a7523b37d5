//! The API as one readable page without scripts: operations by tag, their parameters, bodies and answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// How many levels of nested objects the page shows.
const MAX_DEPTH: usize = 3;

/// The first steps, ready to copy.
const START: &str = r##"<pre>export AGENTLENS_SERVER_URL=http://127.0.0.1:3400
export AGENTLENS_API_KEY=al_live_...        # printed at the first start; `agentlens key create` makes another

agentlens doctor                            # is the key good, is an event stored and visible?
agentlens demo                              # 300 sessions to look at

curl -s "$AGENTLENS_SERVER_URL/api/events" \
  -H "Authorization: Bearer $AGENTLENS_API_KEY" -d '{"events": [
    {"sessionId": "s1", "agentId": "a1", "eventType": "custom",
     "payload": {"type": "hello", "data": {}}}]}'

curl -s -H "Authorization: Bearer $AGENTLENS_API_KEY" \
  "$AGENTLENS_SERVER_URL/api/sessions/s1/timeline"</pre>
<p>OpenTelemetry exporters: <code>OTEL_EXPORTER_OTLP_ENDPOINT=$AGENTLENS_SERVER_URL</code> and
<code>OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer $AGENTLENS_API_KEY"</code>.</p>"##;

const STYLE: &str = "
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); --soft: color-mix(in srgb, currentColor 62%, transparent); }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { margin: 2.5rem 0 .5rem; text-transform: capitalize; border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; } a { color: inherit; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; } summary { cursor: pointer; padding: .6rem .8rem; overflow-wrap: anywhere; }
details > div { padding: 0 .8rem .8rem; } .method { display: inline-block; min-width: 3.4rem; font-weight: 700; font-size: .8rem; }
code { font: .9em ui-monospace, monospace; } .soft { color: var(--soft); } table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); font-size: .92rem; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .5rem; }";

/// The page of an OpenAPI document.
pub(super) fn render(document: &Value) -> String {
    let mut tags: BTreeMap<&str, Vec<(&str, &str, &Value)>> = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            tags.entry(operation["tags"][0].as_str().unwrap_or("other"))
                .or_default()
                .push((method, path, operation));
        }
    }
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>AgentLens API</title><style>",
    );
    html.push_str(STYLE);
    html.push_str("</style></head><body><h1>AgentLens API</h1>");
    let _ = write!(
        html,
        "<p class=\"soft\">Version {}. The same as <a href=\"/openapi.json\">openapi.json</a>.</p>",
        escape(&document["info"]["version"])
    );
    html.push_str(START);
    html.push_str("<nav>");
    for tag in tags.keys() {
        let _ = write!(html, "<a href=\"#{tag}\">{tag}</a>");
    }
    html.push_str("<a href=\"#event-types\">event types</a><a href=\"#refusals\">refusals</a></nav>");
    for (tag, operations) in &tags {
        let _ = write!(html, "<h2 id=\"{tag}\">{tag}</h2>");
        for (method, path, operation) in operations {
            render_operation(&mut html, document, method, path, operation);
        }
    }
    render_event_types(&mut html, document);
    html.push_str("<h2 id=\"refusals\">refusals</h2><p>One body everywhere; <code>details</code> and <code>hint</code> are there where they help.</p>");
    html.push_str(&fields_of(document, &json!({ "$ref": "#/components/schemas/ErrorBody" }), MAX_DEPTH));
    html.push_str("</body></html>");
    html
}

/// The event types that clients may send, with an example of each.
fn render_event_types(html: &mut String, document: &Value) {
    html.push_str("<h2 id=\"event-types\">event types</h2>");
    let schemas = &document["components"]["schemas"];
    for of_type in schemas["EventInput"]["oneOf"].as_array().into_iter().flatten() {
        let schema = referenced(document, of_type);
        let payload = &schema["allOf"][1]["properties"];
        let _ = write!(
            html,
            "<details><summary><code>{}</code> <span class=\"soft\">{}</span></summary><div><p>Its <code>payload</code>:</p>{}<pre>{}</pre></div></details>",
            escape(&payload["eventType"]["enum"][0]),
            prose(&schema["description"]),
            fields_of(document, &payload["payload"], MAX_DEPTH),
            pretty(&schema["example"]),
        );
    }
}

fn render_operation(html: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        html,
        "<details><summary><span class=\"method\">{}</span> <code>{}</code> <span class=\"soft\">{}</span></summary><div>",
        method.to_uppercase(),
        escape_text(path),
        prose(&operation["summary"])
    );
    if operation["description"].is_string() {
        let _ = write!(html, "<p>{}</p>", prose(&operation["description"]));
    }
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        html.push_str("<table><tr><th>Parameter</th><th>In</th><th>Meaning</th></tr>");
        for parameter in parameters {
            let _ = write!(
                html,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escape(&parameter["name"]),
                escape(&parameter["in"]),
                prose(&parameter["description"])
            );
        }
        html.push_str("</table>");
    }
    render_body(html, document, &operation["requestBody"]);
    render_answers(html, document, &operation["responses"]);
    html.push_str("</div></details>");
}

fn render_body(html: &mut String, document: &Value, body: &Value) {
    let Some(content) = body["content"].as_object() else { return };
    let _ = write!(html, "<p>Body: {}</p>", prose(&body["description"]));
    for (media_type, media) in content {
        let _ = write!(html, "<p class=\"soft\">{}</p>", escape_text(media_type));
        html.push_str(&fields_of(document, &media["schema"], MAX_DEPTH));
        for example in media["examples"].as_object().into_iter().flat_map(serde_json::Map::values) {
            let _ =
                write!(html, "<p>{}</p><pre>{}</pre>", prose(&example["summary"]), pretty(&example["value"]));
        }
    }
}

/// Successful responses with their fields. Refusals share one line, because they all have the same body.
fn render_answers(html: &mut String, document: &Value, responses: &Value) {
    let mut refusals = Vec::new();
    html.push_str("<table><tr><th>Status</th><th>Answer</th></tr>");
    for (status, response) in responses.as_object().into_iter().flatten() {
        let schema = response["content"]
            .as_object()
            .and_then(|content| content.values().next())
            .map_or(&Value::Null, |media| &media["schema"]);
        if name_of(schema) == Some("ErrorBody") {
            let description = prose(&response["description"]);
            let space = if description.is_empty() { "" } else { " " };
            refusals.push(format!("{}{space}{description}", escape_text(status)));
            continue;
        }
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{} {}</td></tr>",
            escape_text(status),
            prose(&response["description"]),
            fields_of(document, schema, MAX_DEPTH)
        );
    }
    if !refusals.is_empty() {
        let _ = write!(
            html,
            "<tr><td class=\"soft\"><a href=\"#refusals\">refusals</a></td><td class=\"soft\">{}</td></tr>",
            refusals.join(" · ")
        );
    }
    html.push_str("</table>");
}

/// The name of a referenced schema.
fn name_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next())
}

/// The schema itself, or the one it refers to.
fn referenced<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    name_of(schema).map_or(schema, |name| &document["components"]["schemas"][name])
}

/// The fields of an object, or of the items of a list, down to a readable depth.
fn fields_of(document: &Value, schema: &Value, depth: usize) -> String {
    let schema = referenced(document, schema);
    let items = &schema["items"];
    if items.is_object() {
        return fields_of(document, items, depth);
    }
    let Some(fields) = schema["properties"].as_object().filter(|_| depth > 0) else { return String::new() };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = String::from("<table>");
    for (field, of) in fields {
        let optional =
            if required.contains(&field.as_str()) { "" } else { " <span class=\"soft\">optional</span>" };
        let _ = write!(
            text,
            "<tr><td><code>{}</code>{optional}</td><td>{} {}</td></tr>",
            escape_text(field),
            prose(&of["description"]),
            fields_of(document, of, depth - 1)
        );
    }
    text.push_str("</table>");
    text
}

/// HTML of a text in which backticks mark code.
fn prose(value: &Value) -> String {
    let text = value.as_str().unwrap_or("");
    let mut html = String::with_capacity(text.len());
    for (index, part) in text.split('`').enumerate() {
        let part = escape_text(part);
        if index % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(&part);
        }
    }
    html
}

fn pretty(value: &Value) -> String {
    escape_text(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn escape(value: &Value) -> String {
    escape_text(value.as_str().unwrap_or(""))
}

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_bodies_examples_and_no_backticks() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let html = render(&document);
        let (_, after_start) = html.split_once("</pre>").unwrap();
        let raw: Vec<&str> = after_start.lines().filter(|line| line.contains('`')).collect();
        assert_eq!(raw, [""; 0], "a backtick is shown as it is");
        for part in [
            "&quot;llm_call&quot;",
            "id=\"event-types\"",
            "<code>tool_error</code>",
            "href=\"#refusals\"",
            "<code>toolName</code>",
        ] {
            assert!(html.contains(part), "{part}");
        }
    }

    #[test]
    fn backticks_become_code_and_everything_is_escaped() {
        assert_eq!(prose(&json!("a `<b>` & c")), "a <code>&lt;b&gt;</code> &amp; c");
    }
}
