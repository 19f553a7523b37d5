//! What may be sent, as data: each event type with its payload's fields and an example. `docs/events.md` and the schema of
//! `POST /api/events` are made from it, and it is made from the tables that every event is checked against.

use super::EventType;
use super::payloads::{Need, Required, Rule, rules};

/// One event type that clients may send.
#[derive(Debug)]
pub struct TypeReference {
    /// The type.
    pub event_type: EventType,
    /// When to send it.
    pub about: &'static str,
    /// The fields of its payload that are known. Others are kept too.
    pub fields: Vec<FieldReference>,
    /// A payload, as JSON.
    pub example: &'static str,
}

/// One field of a payload.
#[derive(Debug)]
pub struct FieldReference {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it must be, in words that follow "must be".
    pub must_be: String,
    /// The same for schemas.
    pub shape: FieldShape,
    /// What it says.
    pub meaning: &'static str,
}

/// What JSON a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldShape {
    /// A string.
    String,
    /// A string of at least one character.
    Text,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A number.
    Number,
    /// A number, zero or more.
    Amount,
    /// A whole number, this or more.
    Whole(i64),
    /// An object.
    Object,
    /// An array.
    Array,
    /// An array of strings.
    Strings,
    /// A string or null.
    StringOrNull,
    /// Anything.
    Any,
}

/// All event types that clients may send, in the order of the protocol.
pub fn reference() -> Vec<TypeReference> {
    let known = EventType::EVERY.iter().copied().filter(|event_type| !event_type.is_server_only());
    known
        .map(|event_type| {
            let (about, example) = about(event_type);
            let fields = rules(event_type).iter().map(|rule| field(event_type, rule)).collect();
            TypeReference { event_type, about, fields, example }
        })
        .collect()
}

fn field(event_type: EventType, Rule(name, need, required): &Rule) -> FieldReference {
    let shape = match *need {
        Need::Text => FieldShape::Text,
        Need::String => FieldShape::String,
        Need::Number => FieldShape::Number,
        Need::Count => FieldShape::Whole(0),
        Need::Positive => FieldShape::Whole(1),
        Need::Amount => FieldShape::Amount,
        Need::Object | Need::Usage => FieldShape::Object,
        Need::Array | Need::Messages => FieldShape::Array,
        Need::Strings => FieldShape::Strings,
        Need::Present => FieldShape::Any,
        Need::StringOrNull => FieldShape::StringOrNull,
        Need::OneOf(choices) => FieldShape::OneOf(choices),
    };
    FieldReference {
        name,
        is_required: *required == Required::Yes,
        must_be: need.words(),
        shape,
        meaning: meaning(event_type, name),
    }
}

/// When to send a type, and a payload of it.
fn about(event_type: EventType) -> (&'static str, &'static str) {
    match event_type {
        EventType::SessionStarted => (
            "A session begins. Optional: a session also begins with its first event of any type.",
            r#"{"agentName": "Support bot", "agentVersion": "2.1.0", "tags": ["beta", "eu"]}"#,
        ),
        EventType::SessionEnded => (
            "A session ends. Without it, a session is shown as idle after a while.",
            r#"{"reason": "completed", "summary": "Refunded order 1234."}"#,
        ),
        EventType::ToolCall => (
            "The agent calls a tool. `callId` pairs the call with its `tool_response` or `tool_error`.",
            r#"{"toolName": "search", "callId": "call-1", "arguments": {"query": "weather in Bern"}}"#,
        ),
        EventType::ToolResponse => (
            "A tool answers.",
            r#"{"toolName": "search", "callId": "call-1", "result": {"forecast": "sunny"}, "durationMs": 120}"#,
        ),
        EventType::ToolError => (
            "A tool fails. The event counts as an error.",
            r#"{"toolName": "search", "callId": "call-1", "error": "timed out", "errorCode": "ETIMEDOUT", "durationMs": 5000}"#,
        ),
        EventType::LlmCall => (
            "The agent calls a model. `callId` pairs the call with its `llm_response`.",
            r#"{"callId": "llm-1", "provider": "openai", "model": "gpt-4o-mini", "messages": [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Say hello."}], "parameters": {"temperature": 0.2}}"#,
        ),
        EventType::LlmResponse => (
            "A model answers. Cost is computed from `usage` and the model's price, unless `costUsd` above zero is sent.",
            r#"{"callId": "llm-1", "provider": "openai", "model": "gpt-4o-mini", "completion": "Hello!", "finishReason": "stop", "usage": {"inputTokens": 21, "outputTokens": 3, "totalTokens": 24, "cacheReadTokens": 0}, "latencyMs": 420}"#,
        ),
        EventType::CostTracked => (
            "A cost that is not part of an `llm_response`.",
            r#"{"provider": "openai", "model": "whisper-1", "inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "costUsd": 0.006}"#,
        ),
        _ => about_others(event_type),
    }
}

fn about_others(event_type: EventType) -> (&'static str, &'static str) {
    match event_type {
        EventType::ApprovalRequested => (
            "Somebody must approve an action. `requestId` pairs the request with its decision.",
            r#"{"requestId": "approval-1", "action": "refund", "params": {"amountUsd": 40}, "urgency": "high"}"#,
        ),
        EventType::ApprovalGranted => (
            "The action is approved.",
            r#"{"requestId": "approval-1", "action": "refund", "decidedBy": "maria", "reason": "within policy"}"#,
        ),
        EventType::ApprovalDenied => (
            "The action is denied.",
            r#"{"requestId": "approval-1", "action": "refund", "decidedBy": "maria", "reason": "too much"}"#,
        ),
        EventType::ApprovalExpired => (
            "Nobody decided in time.",
            r#"{"requestId": "approval-1", "action": "refund", "decidedBy": "system"}"#,
        ),
        EventType::FormSubmitted => (
            "A form was submitted. `submissionId` pairs it with its end.",
            r#"{"submissionId": "form-1", "formId": "contact", "formName": "Contact", "fieldCount": 4}"#,
        ),
        EventType::FormCompleted => (
            "A form was completed.",
            r#"{"submissionId": "form-1", "formId": "contact", "completedBy": "maria", "durationMs": 90000}"#,
        ),
        EventType::FormExpired => (
            "A form was not completed in time.",
            r#"{"submissionId": "form-1", "formId": "contact", "expiredAfterMs": 3600000}"#,
        ),
        EventType::AlertTriggered => (
            "An alert fired.",
            r#"{"alertRuleId": "rule-1", "alertName": "Error rate", "condition": "error_rate > 0.1", "currentValue": 0.2, "threshold": 0.1, "message": "2 of 10 calls failed"}"#,
        ),
        EventType::AlertResolved => (
            "An alert is over.",
            r#"{"alertRuleId": "rule-1", "alertName": "Error rate", "resolvedBy": "system"}"#,
        ),
        EventType::Retrieval => (
            "Documents were retrieved.",
            r#"{"query": "refund policy", "retrieverName": "handbook", "topK": 5, "resultCount": 3, "durationMs": 35}"#,
        ),
        EventType::Embedding => (
            "Texts were embedded.",
            r#"{"model": "text-embedding-3-small", "inputCount": 12, "dimensions": 1536, "durationMs": 80}"#,
        ),
        EventType::ChainStep => (
            "A step of a chain or graph ran.",
            r#"{"name": "classify", "stepType": "router", "durationMs": 210}"#,
        ),
        _ => {
            ("Anything else: choose a `type` of your own.", r#"{"type": "note", "data": {"text": "hello"}}"#)
        }
    }
}

/// What each field says; `type.field` where one name means several things.
const MEANINGS: &[(&str, &str)] = &[
    ("session_ended.reason", "why; `error` marks the session as failed"),
    ("session_ended.summary", "a summary of the result"),
    ("custom.type", "your own name of what happened"),
    ("chain_step.name", "the step"),
    ("embedding.model", "the model"),
    ("alert_triggered.message", "one sentence for a person"),
    ("agentName", "the agent's name for people"),
    ("agentVersion", "the agent's version"),
    ("mcpClientInfo", "information about the MCP client"),
    ("tags", "words to filter sessions by, at most 64"),
    ("totalToolCalls", "how many tools were called"),
    ("totalDurationMs", "how long it took, milliseconds"),
    ("toolName", "the tool"),
    ("callId", "pairs a call with its answer; unique within the session"),
    ("arguments", "the tool's input, any JSON"),
    ("serverName", "the MCP server that offers the tool"),
    ("result", "the tool's output, any JSON"),
    ("durationMs", "how long it took, milliseconds"),
    ("error", "what went wrong, any JSON"),
    ("errorCode", "a code of the error"),
    ("requestId", "pairs a request with its decision"),
    ("action", "the action that was requested"),
    ("params", "the arguments of the action"),
    ("urgency", "such as low, normal, high or critical"),
    ("decidedBy", "who decided"),
    ("reason", "why"),
    ("submissionId", "pairs a submission with its end"),
    ("formId", "the form"),
    ("formName", "its name for people"),
    ("fieldCount", "how many fields it has"),
    ("completedBy", "who completed it"),
    ("expiredAfterMs", "after how many milliseconds"),
    ("provider", "such as openai, anthropic or google"),
    ("model", "the model, as the provider names it"),
    ("inputTokens", "tokens of the input"),
    ("outputTokens", "tokens of the output"),
    ("totalTokens", "both together"),
    ("costUsd", "what it cost in US dollars; 0 means not stated"),
    (
        "serviceTier",
        "`standard` (the default), `batch`, `flex` or `priority`, which vendors price differently",
    ),
    ("trigger", "what the cost is for"),
    (
        "messages",
        "the conversation: objects with `role` and `content` (a string, an array of parts, or null)",
    ),
    ("systemPrompt", "a system prompt that is not among the messages"),
    ("parameters", "such as temperature"),
    ("tools", "the tools that the model may call"),
    ("completion", "the text of the answer; null if it only calls tools"),
    ("toolCalls", "the tools that the model asks for"),
    ("finishReason", "such as stop, length or tool_calls"),
    (
        "usage",
        "tokens: `inputTokens`, `outputTokens` and `totalTokens` are required in it; `cacheReadTokens`, `cacheWriteTokens` and `thinkingTokens` are read too. A count below 0 or above 10,000,000,000 is left out, and the computed cost is unknown then",
    ),
    ("latencyMs", "how long the model took, milliseconds"),
    ("alertRuleId", "the rule"),
    ("alertName", "its name for people"),
    ("condition", "what it watches, any JSON"),
    ("currentValue", "the value that fired it"),
    ("threshold", "the limit for the value"),
    ("resolvedBy", "who or what ended it"),
    ("query", "what was searched for"),
    ("retrieverName", "the retriever"),
    ("topK", "how many results were asked for"),
    ("resultCount", "how many were returned"),
    ("inputCount", "how many texts"),
    ("dimensions", "of the vectors"),
    ("stepType", "the kind of step"),
    ("data", "anything, as an object"),
];

fn meaning(event_type: EventType, name: &str) -> &'static str {
    let own = format!("{}.{name}", event_type.as_str());
    let find = |key: &str| MEANINGS.iter().find(|(known, _)| *known == key).map(|(_, meaning)| *meaning);
    find(&own).or_else(|| find(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::events::{AcceptContext, accept};
    use crate::ids::UlidSequence;

    #[test]
    fn every_field_has_a_meaning_and_every_meaning_a_field() {
        let mut used = BTreeSet::new();
        for of_type in reference() {
            for field in &of_type.fields {
                let own = format!("{}.{}", of_type.event_type.as_str(), field.name);
                assert!(!field.meaning.is_empty(), "{own} has no meaning");
                let is_own = MEANINGS.iter().any(|(known, _)| *known == own);
                used.insert(if is_own { own } else { field.name.to_owned() });
            }
        }
        let known: BTreeSet<String> = MEANINGS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(used, known);
    }

    #[test]
    fn examples_are_accepted_and_show_known_fields() {
        assert_eq!(reference().len(), 21);
        for of_type in reference() {
            let name = of_type.event_type.as_str();
            let text = format!(
                r#"{{"sessionId":"s","agentId":"a","eventType":"{name}","payload":{}}}"#,
                of_type.example
            );
            let mut ids = UlidSequence::at(0);
            let mut context =
                AcceptContext { now_us: 1_767_323_045_678_000, ids: &mut ids, idempotency: None };
            accept(&text, 0, &mut context).unwrap();
            let payload: serde_json::Value = serde_json::from_str(of_type.example).unwrap();
            let known: Vec<&str> = of_type.fields.iter().map(|field| field.name).collect();
            for field in payload.as_object().unwrap().keys() {
                assert!(known.contains(&field.as_str()), "{name}: {field}");
            }
        }
    }
}
