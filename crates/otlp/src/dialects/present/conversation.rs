//! The messages to and from a model, from the best source.

use agentlens_domain::spans::SpanKind;
use serde_json::{Map, Value as Json, json};

use super::super::field::Field;
use super::super::raw::{RawValue, structure_of};
use super::super::table::table;
use super::merged::{Merged, members};
use super::values::{first, text_of};
use super::{families, parts, shapes};

/// Both sides of a call.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) input: Vec<Json>,
    pub(super) output: Vec<Json>,
}

impl Conversation {
    /// On a model's span every input is a message. On other spans only what is marked as a message is one.
    pub(super) fn of(merged: &Merged, kind: Option<SpanKind>) -> Self {
        let (mut input_in_events, mut output_in_events) = messages_in_events(merged);
        let mut conversation = Self {
            input: structured(
                merged,
                &table().input_families,
                Field::InputMessages,
                &mut input_in_events,
                "user",
            ),
            output: structured(
                merged,
                &table().output_families,
                Field::OutputMessages,
                &mut output_in_events,
                "assistant",
            ),
        };
        if conversation.output.is_empty() {
            conversation.output = of_vercel(merged);
        }
        let is_llm = kind.is_none_or(|kind| kind == SpanKind::Llm);
        if is_llm && conversation.input.is_empty() {
            conversation.input = raw(merged, Field::Input, "user");
        }
        if is_llm && conversation.output.is_empty() {
            conversation.output = raw(merged, Field::Output, "assistant");
        }
        if conversation.input.is_empty() || conversation.output.is_empty() {
            conversation.fill_from_all_messages(merged);
        }
        // A client's placeholder for a missing answer is not an answer.
        conversation
            .output
            .retain(|message| message["parts"].as_array().is_some_and(|parts| !parts.is_empty()));
        conversation
    }

    /// A list of all messages ends with the answer.
    fn fill_from_all_messages(&mut self, merged: &Merged) {
        let Some(value) = read(merged, Field::AllMessages) else { return };
        let mut whole = of_event_list(&value).unwrap_or_else(|| shapes::messages(&value, "user"));
        let is_answer = |message: &Json| message["role"] == "assistant";
        let answers = whole.iter().rev().take_while(|message| is_answer(message)).count();
        let answer = whole.split_off(whole.len() - answers);
        if self.input.is_empty() {
            self.input = whole;
        }
        if self.output.is_empty() {
            self.output = answer;
        }
    }

    /// The system instructions: in an attribute of their own, or the first messages of the input.
    pub(super) fn system(&self, merged: &Merged) -> Option<String> {
        if let Some(value) = read(merged, Field::System) {
            return Some(text_in(&shapes::messages(&value, "system"))).filter(|text| !text.is_empty());
        }
        let is_system = |message: &&Json| matches!(message["role"].as_str(), Some("system" | "developer"));
        let stated: Vec<Json> = self.input.iter().filter(is_system).cloned().collect();
        let stated = text_in(&stated);
        if !stated.is_empty() {
            return Some(stated);
        }
        // Some clients flatten the messages, and only the raw request has the instructions.
        let request = read(merged, Field::Input)?;
        let request = request.as_object()?;
        let system = first(request, &["system", "instructions", "system_instruction", "systemInstruction"])?;
        Some(text_in(&shapes::messages(system, "system"))).filter(|text| !text.is_empty())
    }

    /// The text of the question.
    pub(super) fn question(&self) -> String {
        text_in(&self.input)
    }

    /// The text of the answer.
    pub(super) fn completion(&self) -> Option<String> {
        Some(text_in(&self.output)).filter(|text| !text.is_empty())
    }

    /// The tool calls of the answer.
    pub(super) fn tool_calls(&self) -> Vec<Json> {
        let parts = self.output.iter().filter_map(|message| message["parts"].as_array()).flatten();
        let calls = parts.filter(|part| part["type"] == "tool_call").filter_map(Json::as_object);
        calls
            .map(|call| {
                let kept = ["id", "name", "arguments"].into_iter();
                let members = kept.filter_map(|key| Some((key.to_owned(), call.get(key)?.clone())));
                Json::Object(members.collect())
            })
            .collect()
    }

    /// The finish reason in the answer's message.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        self.output.iter().find_map(|message| message.get("finishReason")?.as_str())
    }
}

/// The value of a field's best key, as JSON.
pub(super) fn read(merged: &Merged, field: Field) -> Option<Json> {
    let keys = table().keys(field).iter();
    let found = keys.filter_map(|key| merged.attributes.get(key)).find(|value| !value.is_blank());
    found.map(RawValue::structure)
}

/// Messages that are marked as such: OpenTelemetry's first, then families, events and the other keys.
fn structured(
    merged: &Merged,
    names: &[String],
    field: Field,
    in_events: &mut Vec<Json>,
    role: &str,
) -> Vec<Json> {
    let keys = table().keys(field);
    let of_key = |key: &String| {
        let messages = merged.attributes.get(key).map(|value| shapes::messages(&value.structure(), role));
        messages.filter(|messages| !messages.is_empty())
    };
    if let Some(messages) = keys.first().and_then(of_key) {
        return messages;
    }
    if let Some(messages) = names.iter().find_map(|name| of_family(&merged.attributes, name, role)) {
        return messages;
    }
    if !in_events.is_empty() {
        return std::mem::take(in_events);
    }
    keys.iter().skip(1).find_map(of_key).unwrap_or_default()
}

/// Messages in the raw request or answer.
fn raw(merged: &Merged, field: Field, role: &str) -> Vec<Json> {
    let keys = table().keys(field).iter();
    let messages = keys
        .filter_map(|key| merged.attributes.get(key))
        .map(|value| shapes::messages(&value.structure(), role));
    messages.into_iter().find(|messages| !messages.is_empty()).unwrap_or_default()
}

fn of_family(attributes: &Map<String, Json>, family: &str, role: &str) -> Option<Vec<Json>> {
    let items = families::items(attributes, family)?;
    let messages: Vec<Json> = items.iter().flat_map(|item| of_family_item(item, role)).collect();
    (!messages.is_empty()).then_some(messages)
}

fn of_family_item(item: &Json, role: &str) -> Vec<Json> {
    let Some(object) = item.as_object() else { return shapes::messages(item, role) };
    // OpenInference's completions API: prompt.text and completion.text.
    let text = first(object, &["prompt", "completion"]).and_then(|inner| inner.get("text")?.as_str());
    if let Some(text) = text {
        return vec![json!({"role": role, "parts": [parts::text(text)]})];
    }
    let mut object = object.clone();
    // Traceloop sends a list of parts as a string.
    let parts = object.get("content").and_then(Json::as_str).map(structure_of);
    if let Some(parts @ Json::Array(_)) = parts.filter(shapes::is_list_of_parts) {
        object.insert("content".to_owned(), parts);
    }
    if !object.contains_key("role") && !object.contains_key("message") {
        object.insert("role".to_owned(), json!(role));
    }
    shapes::messages(&Json::Object(object), role)
}

/// An answer that the Vercel SDK sends in several attributes.
fn of_vercel(merged: &Merged) -> Vec<Json> {
    let mut answer = Vec::new();
    if let Some(reasoning) = read(merged, Field::ResponseReasoning) {
        let reasoning = text_in(&shapes::messages(&reasoning, "assistant"));
        if !reasoning.is_empty() {
            answer.push(json!({"type": "reasoning", "content": reasoning}));
        }
    }
    let keys = |field| table().keys(field).iter().filter_map(|key| merged.attributes.get(key)?.as_str());
    if let Some(text) =
        keys(Field::ResponseText).chain(keys(Field::ResponseJson)).find(|text| !text.is_empty())
    {
        answer.push(parts::text(text));
    }
    if let Some(Json::Array(calls)) = read(merged, Field::ResponseToolCalls) {
        answer.extend(calls.iter().filter_map(Json::as_object).map(parts::tool_call));
    }
    if answer.is_empty() { Vec::new() } else { vec![json!({"role": "assistant", "parts": answer})] }
}

/// Messages that are sent one by one, in the span's events or in log records.
fn messages_in_events(merged: &Merged) -> (Vec<Json>, Vec<Json>) {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let events = merged
        .events
        .iter()
        .filter_map(Json::as_object)
        .map(|event| (event.get("name").and_then(Json::as_str).unwrap_or(""), event));
    let logs = merged.logs.iter().map(|log| (Merged::log_name(log), log));
    for (name, event) in events.chain(logs) {
        let mut fields = members(event, "attributes").clone();
        match event.get("body") {
            Some(Json::Object(body)) => fields.extend(body.clone()),
            Some(body @ Json::String(_)) => {
                fields.entry("content").or_insert(body.clone());
            }
            _ => {}
        }
        add_message(name, fields, &mut input, &mut output);
    }
    (input, output)
}

fn add_message(name: &str, mut fields: Map<String, Json>, input: &mut Vec<Json>, output: &mut Vec<Json>) {
    let events = &table().events;
    let is_answer = events.answers.iter().any(|known| known == name);
    let role = match events.messages.get(name) {
        Some(role) => role.as_str(),
        None if is_answer => "assistant",
        None => return,
    };
    let into = if is_answer { output } else { input };
    // The oldest form of events holds everything in one string.
    if let Some(whole) = first(&fields, &["gen_ai.prompt", "gen_ai.completion"]) {
        into.extend(shapes::messages(&whole.structure(), role));
        return;
    }
    let reason = text_of(&fields, &["finish_reason"]);
    if let Some(Json::Object(message)) = fields.get("message").map(RawValue::structure) {
        fields = message;
    }
    if let Some(content) =
        fields.get("content").map(RawValue::structure).filter(|content| !content.is_string())
    {
        fields.insert("content".to_owned(), content);
    }
    fields.entry("role").or_insert_with(|| json!(role));
    let id = fields.get("id").cloned().filter(|_| role == "tool");
    if let Some(id) = id {
        fields.entry("tool_call_id").or_insert(id);
    }
    let before = into.len();
    into.extend(shapes::messages(&Json::Object(fields), role));
    if let (Some(reason), Some(message)) = (reason, into[before..].last_mut().and_then(Json::as_object_mut)) {
        message.insert("finishReason".to_owned(), json!(reason));
    }
}

/// The list of events that pydantic-ai's first versions wrote: each has its kind in `event.name`.
fn of_event_list(value: &Json) -> Option<Vec<Json>> {
    let events = value.as_array()?;
    events.first()?.get("event.name")?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for event in events.iter().filter_map(Json::as_object) {
        let name = event.get("event.name").and_then(Json::as_str).unwrap_or("");
        add_message(name, event.clone(), &mut input, &mut output);
    }
    input.append(&mut output);
    Some(input)
}

/// The texts of messages, one part per line.
fn text_in(messages: &[Json]) -> String {
    let parts = messages.iter().filter_map(|message| message["parts"].as_array()).flatten();
    let texts: Vec<&str> = parts.filter_map(parts::text_in).collect();
    texts.join("\n")
}
