//! The API as one readable page without scripts: operations by tag, their parameters, bodies and answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

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
    html.push_str("<pre>curl -H \"Authorization: Bearer $AGENTLENS_API_KEY\" \\\n  -H \"Content-Type: application/json\" \\\n  -d '{\"events\":[{\"sessionId\":\"s1\",\"agentId\":\"a1\",\"eventType\":\"custom\",\"payload\":{\"type\":\"hello\",\"data\":{}}}]}' \\\n  http://127.0.0.1:3400/api/events</pre><nav>");
    for tag in tags.keys() {
        let _ = write!(html, "<a href=\"#{tag}\">{tag}</a>");
    }
    html.push_str("</nav>");
    for (tag, operations) in &tags {
        let _ = write!(html, "<h2 id=\"{tag}\">{tag}</h2>");
        for (method, path, operation) in operations {
            render_operation(&mut html, document, method, path, operation);
        }
    }
    html.push_str("</body></html>");
    html
}

fn render_operation(html: &mut String, document: &Value, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        html,
        "<details><summary><span class=\"method\">{}</span> <code>{}</code> <span class=\"soft\">{}</span></summary><div>",
        method.to_uppercase(),
        escape_text(path),
        escape(&operation["summary"])
    );
    if let Some(text) = operation["description"].as_str() {
        let _ = write!(html, "<p>{}</p>", escape_text(text));
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
                escape(&parameter["description"])
            );
        }
        html.push_str("</table>");
    }
    if let Some(body) = operation["requestBody"]["description"].as_str() {
        let _ = write!(html, "<p>Body: <code>{}</code></p>", escape_text(&body.replace('`', "")));
    }
    html.push_str("<table><tr><th>Status</th><th>Answer</th></tr>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let schema = response["content"]
            .as_object()
            .and_then(|content| content.values().next())
            .map_or(&Value::Null, |media| &media["schema"]);
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{} {}</td></tr>",
            escape_text(status),
            escape(&response["description"]),
            fields_of(document, schema)
        );
    }
    html.push_str("</table></div></details>");
}

/// The fields of an answer, one level deep.
fn fields_of(document: &Value, schema: &Value) -> String {
    let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) else {
        return String::new();
    };
    if name == "ErrorBody" {
        return "<span class=\"soft\">{error, status, code, details?, hint?, request_id}</span>".to_owned();
    }
    let mut text = String::from("<table>");
    for (field, of) in document["components"]["schemas"][name]["properties"].as_object().into_iter().flatten()
    {
        let _ = write!(
            text,
            "<tr><td><code>{}</code></td><td>{}</td></tr>",
            escape_text(field),
            escape(&of["description"])
        );
    }
    text.push_str("</table>");
    text
}

fn escape(value: &Value) -> String {
    escape_text(value.as_str().unwrap_or(""))
}

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
