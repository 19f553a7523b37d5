//! What each event type's payload must hold, as data: the payload tables of the published protocol.
//!
//! Where published clients send something else than the tables say, the tables give way: a session's end without
//! a reason (CrewAI, AutoGen), tool arguments as a string (OpenAI instrumentation), messages without content
//! (assistant turns that only call tools), roles that came later (`developer`), no messages at all (Gemini), model
//! calls without a provider and answers with flat token counts (AutoGen, Semantic Kernel).

use super::{EventType, Refusal};
use crate::json::{Kind, Member, Value};
use crate::ledger::Reason;

/// What a field must be.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// A string of at least one character.
    Text,
    /// Any string.
    String,
    /// Any finite number.
    Number,
    /// A whole number, zero or more.
    Count,
    /// A whole number above zero.
    Positive,
    /// A number, zero or more.
    Amount,
    /// An object.
    Object,
    /// An array.
    Array,
    /// An array of strings.
    Strings,
    /// Anything at all, but present.
    Present,
    /// A string or null.
    StringOrNull,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// An array of `{role, content}`.
    Messages,
    /// `{inputTokens, outputTokens, totalTokens}` and more.
    Usage,
}

impl Need {
    /// What it must be, in words that follow "must be".
    pub(super) fn words(self) -> String {
        match self {
            Self::Text => "a string that is not empty",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Count => "a whole number, zero or more",
            Self::Positive => "a whole number above zero",
            Self::Amount => "a number, zero or more",
            Self::Object | Self::Usage => "an object",
            Self::Array => "an array",
            Self::Strings => "an array of strings",
            Self::Present => "any value",
            Self::StringOrNull => "a string or null",
            Self::OneOf(choices) => return format!("one of {}", choices.join(", ")),
            Self::Messages => "an array of messages",
        }
        .to_owned()
    }
}

/// A field's name, what it must be, and whether it must be there. A null counts as absent for optional fields.
pub(super) struct Rule(pub(super) &'static str, pub(super) Need, pub(super) Required);

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Required {
    Yes,
    No,
}
use Required::{No, Yes};

const APPROVAL_DECISION: &[Rule] = &[
    Rule("requestId", Need::Text, Yes),
    Rule("action", Need::Text, Yes),
    Rule("decidedBy", Need::Text, Yes),
    Rule("reason", Need::String, No),
];

pub(super) fn rules(event_type: EventType) -> &'static [Rule] {
    match event_type {
        EventType::SessionStarted => &[
            Rule("agentName", Need::String, No),
            Rule("agentVersion", Need::String, No),
            Rule("mcpClientInfo", Need::Object, No),
            Rule("tags", Need::Strings, No),
        ],
        EventType::SessionEnded => &[
            Rule("reason", Need::OneOf(&["completed", "error", "timeout", "manual"]), No),
            Rule("summary", Need::String, No),
            Rule("totalToolCalls", Need::Number, No),
            Rule("totalDurationMs", Need::Number, No),
        ],
        EventType::ToolCall => &[
            Rule("toolName", Need::Text, Yes),
            Rule("callId", Need::Text, Yes),
            Rule("arguments", Need::Present, Yes),
            Rule("serverName", Need::String, No),
        ],
        EventType::ToolResponse => &[
            Rule("callId", Need::Text, Yes),
            Rule("toolName", Need::Text, Yes),
            Rule("result", Need::Present, No),
            Rule("durationMs", Need::Number, Yes),
        ],
        EventType::ToolError => &[
            Rule("callId", Need::Text, Yes),
            Rule("toolName", Need::Text, Yes),
            Rule("error", Need::Present, Yes),
            Rule("errorCode", Need::String, No),
            Rule("durationMs", Need::Number, Yes),
        ],
        EventType::ApprovalRequested => &[
            Rule("requestId", Need::Text, Yes),
            Rule("action", Need::Text, Yes),
            Rule("params", Need::Object, Yes),
            Rule("urgency", Need::String, Yes),
        ],
        EventType::ApprovalGranted | EventType::ApprovalDenied | EventType::ApprovalExpired => {
            APPROVAL_DECISION
        }
        EventType::FormSubmitted => &[
            Rule("submissionId", Need::Text, Yes),
            Rule("formId", Need::Text, Yes),
            Rule("formName", Need::String, No),
            Rule("fieldCount", Need::Number, Yes),
        ],
        EventType::FormCompleted => &[
            Rule("submissionId", Need::Text, Yes),
            Rule("formId", Need::Text, Yes),
            Rule("completedBy", Need::Text, Yes),
            Rule("durationMs", Need::Number, Yes),
        ],
        EventType::FormExpired => &[
            Rule("submissionId", Need::Text, Yes),
            Rule("formId", Need::Text, Yes),
            Rule("expiredAfterMs", Need::Number, Yes),
        ],
        _ => model_rules(event_type),
    }
}

fn model_rules(event_type: EventType) -> &'static [Rule] {
    match event_type {
        EventType::CostTracked => &[
            Rule("provider", Need::Text, Yes),
            Rule("model", Need::Text, Yes),
            Rule("inputTokens", Need::Number, Yes),
            Rule("outputTokens", Need::Number, Yes),
            Rule("totalTokens", Need::Number, Yes),
            Rule("costUsd", Need::Number, Yes),
            Rule("serviceTier", Need::Text, No),
            Rule("trigger", Need::String, No),
        ],
        EventType::LlmCall => &[
            Rule("callId", Need::Text, Yes),
            Rule("provider", Need::Text, No),
            Rule("model", Need::Text, Yes),
            Rule("messages", Need::Messages, Yes),
            Rule("systemPrompt", Need::String, No),
            Rule("parameters", Need::Object, No),
            Rule("tools", Need::Array, No),
        ],
        EventType::LlmResponse => &[
            Rule("callId", Need::Text, Yes),
            Rule("provider", Need::Text, No),
            Rule("model", Need::Text, Yes),
            Rule("completion", Need::StringOrNull, Yes),
            Rule("toolCalls", Need::Array, No),
            Rule("finishReason", Need::Text, No),
            Rule("usage", Need::Usage, No),
            Rule("costUsd", Need::Number, No),
            Rule("serviceTier", Need::Text, No),
            Rule("latencyMs", Need::Number, No),
        ],
        EventType::AlertTriggered => &[
            Rule("alertRuleId", Need::Text, Yes),
            Rule("alertName", Need::Text, Yes),
            Rule("condition", Need::Present, Yes),
            Rule("currentValue", Need::Number, Yes),
            Rule("threshold", Need::Number, Yes),
            Rule("message", Need::String, Yes),
        ],
        EventType::AlertResolved => &[
            Rule("alertRuleId", Need::Text, Yes),
            Rule("alertName", Need::Text, Yes),
            Rule("resolvedBy", Need::String, No),
        ],
        EventType::Retrieval => &[
            Rule("query", Need::String, Yes),
            Rule("retrieverName", Need::String, No),
            Rule("topK", Need::Count, No),
            Rule("resultCount", Need::Count, No),
            Rule("durationMs", Need::Amount, No),
        ],
        EventType::Embedding => &[
            Rule("model", Need::String, Yes),
            Rule("inputCount", Need::Count, Yes),
            Rule("dimensions", Need::Positive, No),
            Rule("durationMs", Need::Amount, No),
        ],
        EventType::ChainStep => &[
            Rule("name", Need::String, Yes),
            Rule("stepType", Need::String, No),
            Rule("durationMs", Need::Amount, No),
        ],
        EventType::Custom => &[Rule("type", Need::String, Yes), Rule("data", Need::Object, Yes)],
        _ => &[],
    }
}

/// Checks a payload's members against its type's table; the first fault is returned.
pub(super) fn check(event_type: EventType, members: &[Member<'_>]) -> Result<(), Refusal> {
    for Rule(name, need, required) in rules(event_type) {
        let value = members.iter().find(|member| member.key == *name).map(|member| member.value);
        match value {
            None if *required == Yes => {
                let message = format!("payload.{name} is required in events of type {}", event_type.as_str());
                return Err(Refusal::missing(format!("payload.{name}"), name, members, message));
            }
            None => {}
            Some(value) if value.is_null() && *required == No => {}
            Some(value) => check_field(name, *need, value)?,
        }
    }
    Ok(())
}

fn check_field(name: &str, need: Need, value: Value<'_>) -> Result<(), Refusal> {
    let kind = value.kind();
    let is_whole_at_least = |least: i64| value.as_i64().is_some_and(|number| number >= least);
    let fits = match need {
        Need::Text => kind == Kind::String && value.text().len() > 2,
        Need::String => kind == Kind::String,
        Need::Number => kind == Kind::Number,
        Need::Count => is_whole_at_least(0),
        Need::Positive => is_whole_at_least(1),
        Need::Amount => value.as_f64().is_some_and(|number| number >= 0.0),
        Need::Object => kind == Kind::Object,
        Need::Array => kind == Kind::Array,
        Need::Strings => is_array_of(value, |item| item.kind() == Kind::String),
        Need::Present => true,
        Need::StringOrNull => matches!(kind, Kind::String | Kind::Null),
        Need::OneOf(choices) => value.as_str().is_some_and(|text| choices.contains(&text.as_ref())),
        Need::Messages => return check_messages(value),
        Need::Usage => return check_usage(value),
    };
    if fits {
        return Ok(());
    }
    let message = format!("payload.{name} must be {}", need.words());
    Err(Refusal::new(format!("payload.{name}"), Reason::InvalidField, message))
}

fn is_array_of(value: Value<'_>, test: impl Fn(&Value<'_>) -> bool) -> bool {
    value.kind() == Kind::Array && value.elements().is_ok_and(|items| items.iter().all(test))
}

fn check_messages(value: Value<'_>) -> Result<(), Refusal> {
    let refuse = |field: String, expected: &str| {
        let message = format!("{field} must be {expected}");
        Err(Refusal::new(field, Reason::InvalidField, message))
    };
    let items = match value.kind() {
        Kind::Array => value.elements().unwrap_or_default(),
        _ => return refuse("payload.messages".to_owned(), "an array of messages"),
    };
    for (index, item) in items.iter().enumerate() {
        if item.kind() != Kind::Object {
            return refuse(format!("payload.messages.{index}"), "an object with role and content");
        }
        if !item.get("role").is_some_and(|role| role.kind() == Kind::String && role.text().len() > 2) {
            return refuse(
                format!("payload.messages.{index}.role"),
                "a string such as system, user, assistant or tool",
            );
        }
        let content_fits = match item.get("content") {
            None => true,
            Some(content) => matches!(content.kind(), Kind::String | Kind::Array | Kind::Null),
        };
        if !content_fits {
            return refuse(format!("payload.messages.{index}.content"), "a string or an array of parts");
        }
    }
    Ok(())
}

fn check_usage(value: Value<'_>) -> Result<(), Refusal> {
    if value.kind() != Kind::Object {
        return Err(Refusal::new("payload.usage", Reason::InvalidField, "payload.usage must be an object"));
    }
    for name in ["inputTokens", "outputTokens", "totalTokens"] {
        let field = format!("payload.usage.{name}");
        match value.get(name) {
            None => {
                return Err(Refusal::new(
                    field.clone(),
                    Reason::MissingField,
                    format!("{field} is required"),
                ));
            }
            Some(count) if count.kind() != Kind::Number => {
                return Err(Refusal::new(
                    field.clone(),
                    Reason::InvalidField,
                    format!("{field} must be a number"),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
