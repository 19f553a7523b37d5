//! The provider's own answer, which some clients send as a whole. It may hold facts that no attribute holds.

use agentlens_domain::json::{Kind, Member, Value};

use super::names::clean;

/// Prefixes of the ids of answers, for the providers whose answers clients send.
const PROVIDER_IDS: [&str; 3] = ["chatcmpl-", "resp_", "msg_"];

/// What was found in an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The provider's id of the answer.
    pub(super) id: Option<String>,
    /// The model that answered.
    pub(super) model: Option<String>,
}

impl Answer {
    /// Reads a text that may be an answer, or only its id.
    pub(super) fn read(text: &str) -> Self {
        if text.starts_with('"') {
            return Self { id: provider_made(text.trim_matches('"')), model: None };
        }
        let names_something = text.contains("\"model") || PROVIDER_IDS.iter().any(|id| text.contains(id));
        if !text.starts_with('{') || !names_something {
            return Self::default();
        }
        let Ok(answer) = Value::parse(text) else { return Self::default() };
        let mut found = Self::default();
        let generations = found.take(answer);
        if let Some(generations) = generations.filter(|_| !found.is_whole()) {
            found.take_generation(generations);
        }
        found
    }

    fn is_whole(&self) -> bool {
        self.id.is_some() && self.model.is_some()
    }

    /// Reads an object and its metadata in one pass. Returns LangChain's generations, if there are any.
    fn take<'a>(&mut self, value: Value<'a>) -> Option<Value<'a>> {
        let (mut id, mut model, mut inner, mut generations) = (None, None, None, None);
        let (mut has_status, mut has_usage) = (false, false);
        for Member { key, value } in value.members().ok()? {
            match &*key {
                "id" => id = value.as_str_lossy(),
                "model" => model = value.as_str_lossy(),
                "model_name" if model.is_none() => model = value.as_str_lossy(),
                "llm_output" | "response_metadata" => inner = Some(value),
                "generations" => generations = Some(value),
                "status" => has_status = true,
                "usage" => has_usage = true,
                _ => {}
            }
        }
        // A part of a Responses API answer has an id of its own, which is not the answer's.
        if !has_status || has_usage {
            self.id = self.id.take().or_else(|| provider_made(&id?));
            self.model = self.model.take().or_else(|| clean(&model?));
        }
        if let Some(inner) = inner.filter(|inner| inner.kind() == Kind::Object) {
            self.take(inner);
        }
        generations
    }

    /// LangChain keeps answers in batches of generations.
    fn take_generation(&mut self, generations: Value<'_>) {
        let Some(generation) = first(generations).and_then(first) else { return };
        if let Some(info) = generation.get("generation_info") {
            self.take(info);
        }
        let Some(message) = generation.get("message") else { return };
        self.take(message.get("kwargs").unwrap_or(message));
    }
}

fn first<'a>(list: Value<'a>) -> Option<Value<'a>> {
    list.elements().ok()?.first().copied()
}

fn provider_made(id: &str) -> Option<String> {
    PROVIDER_IDS.iter().any(|beginning| id.starts_with(beginning)).then(|| clean(id)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_their_id_and_model() {
        for (text, id, model) in [
            (r#"{"id":"chatcmpl-1","model":"gpt-5"}"#, Some("chatcmpl-1"), Some("gpt-5")),
            (
                r#"{"id":"resp_1","status":"completed","usage":{},"model":"gpt-5"}"#,
                Some("resp_1"),
                Some("gpt-5"),
            ),
            (r#"{"id":"msg_1","type":"message","status":"completed","content":[]}"#, None, None),
            (r#"{"id":"msg_1","type":"message","stop_reason":"end_turn","usage":{}}"#, Some("msg_1"), None),
            (r#""resp_1""#, Some("resp_1"), None),
            (r#""42""#, None, None),
            (r#"{"id":"42"}"#, None, None),
            (r#"{"llm_output":{"id":"chatcmpl-2","model_name":"gpt-5"}}"#, Some("chatcmpl-2"), Some("gpt-5")),
            (
                r#"{"generations":[[{"generation_info":{"model_name":"gpt-5"},"message":{"kwargs":{"id":"lc_run",
                    "response_metadata":{"id":"chatcmpl-3"}}}}]],"llm_output":null}"#,
                Some("chatcmpl-3"),
                Some("gpt-5"),
            ),
            ("not JSON \"model", None, None),
            ("{broken \"model", None, None),
        ] {
            let answer = Answer::read(text);
            assert_eq!((answer.id.as_deref(), answer.model.as_deref()), (id, model), "{text}");
        }
    }
}
