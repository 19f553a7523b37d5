//! The typed facts of an event: what is filtered, summed and shown without opening the payload.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::EventType;
use crate::cost::{self, ServiceTier};
use crate::json::{Kind, Member, Value};
use crate::limits;
use crate::usage::{Reported, TokenConvention, Usage};

/// What was read out of an event. Absent means that the client did not say, or said something unreadable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The tool, the step, the retriever, the action, the form, or a custom event's own type.
    pub name: Option<String>,
    /// The model's provider.
    pub provider: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// What pairs a call with its response: `callId`, `requestId` or `submissionId`.
    pub call_id: Option<String>,
    /// The end user, from `metadata.userId`.
    pub user_id: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: Option<i64>,
    /// Tokens, normalised to inclusive totals.
    pub usage: Option<Usage>,
    /// Whether `usage` lacks a count because the client sent one that is impossible, such as -5. The computed cost is unknown then.
    pub lacks_tokens: bool,
    /// The service tier of a model's answer.
    pub service_tier: Option<ServiceTier>,
    /// The cost that the client stated, in nano-dollars.
    pub reported_cost_nanos: Option<i64>,
    /// What the event says of its session.
    pub session: Option<SessionFact>,
}

/// What an event says of its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SessionFact {
    /// The session begins.
    Started {
        /// The agent's name for people.
        agent_name: Option<String>,
        /// The agent's version.
        agent_version: Option<String>,
        /// Tags, at most [`limits::MAX_TAGS`].
        tags: Vec<String>,
    },
    /// The session ends.
    Ended {
        /// Whether it ended in an error.
        is_error: bool,
    },
}

/// Reads the facts of an event from the members of its payload and its metadata, a canonical JSON object.
pub fn facts_of(event_type: EventType, payload: &[Member<'_>], metadata: &str) -> Facts {
    let payload = Fields(Cow::Borrowed(payload));
    let mut facts = match event_type {
        EventType::LlmCall | EventType::LlmResponse | EventType::CostTracked | EventType::Embedding => {
            model_facts(event_type, &payload)
        }
        EventType::SessionStarted => Facts {
            session: Some(SessionFact::Started {
                agent_name: payload.name("agentName"),
                agent_version: payload.name("agentVersion"),
                tags: payload.tags(),
            }),
            ..Facts::default()
        },
        EventType::SessionEnded => {
            let is_error = payload.name("reason").as_deref() == Some("error");
            Facts { session: Some(SessionFact::Ended { is_error }), ..Facts::default() }
        }
        _ => Facts {
            name: ["toolName", "action", "formId", "name", "retrieverName", "type", "alertName"]
                .iter()
                .find_map(|key| payload.name(key)),
            call_id: ["callId", "requestId", "submissionId"].iter().find_map(|key| payload.name(key)),
            duration_us: payload.millis("durationMs"),
            ..Facts::default()
        },
    };
    if metadata.len() > 2 {
        facts.user_id = Fields::of(metadata).name("userId");
    }
    facts
}

fn model_facts(event_type: EventType, payload: &Fields<'_, '_>) -> Facts {
    let provider = payload.name("provider");
    let model = payload.name("model");
    let usage = match event_type {
        // Some published handlers put the counts beside the answer instead of into `usage`.
        EventType::LlmResponse if payload.get("usage").is_none() => {
            payload.number("inputTokens").map(|_| payload.clone())
        }
        EventType::LlmResponse => payload.get("usage").map(|usage| Fields::of(usage.text())),
        EventType::CostTracked => Some(payload.clone()),
        _ => None,
    };
    let reported = usage.map(|fields| reported(&fields));
    let lacks_tokens = reported.as_ref().is_some_and(Reported::has_impossible_part);
    let usage = reported.map(|reported| {
        let convention =
            TokenConvention::for_provider(provider.as_deref().unwrap_or(""), model.as_deref().unwrap_or(""));
        Usage::from_reported(reported, convention)
    });
    Facts {
        name: None,
        call_id: payload.name("callId"),
        duration_us: payload.millis("latencyMs").or_else(|| payload.millis("durationMs")),
        usage: usage.filter(|usage| !(lacks_tokens && usage.is_zero())),
        lacks_tokens,
        service_tier: payload.name("serviceTier").as_deref().and_then(ServiceTier::parse),
        reported_cost_nanos: payload.number("costUsd").and_then(cost::usd_to_nanos),
        provider,
        model,
        ..Facts::default()
    }
}

fn reported(usage: &Fields<'_, '_>) -> Reported {
    Reported {
        input: usage.number("inputTokens"),
        output: usage.number("outputTokens"),
        cache_read: usage.number("cacheReadTokens"),
        cache_write: usage.number("cacheWriteTokens"),
        reasoning: usage.number("thinkingTokens"),
        ..Reported::default()
    }
}

/// The top-level members of an object, read leniently.
#[derive(Clone)]
struct Fields<'m, 'a>(Cow<'m, [Member<'a>]>);

impl<'a> Fields<'_, 'a> {
    fn of(text: &'a str) -> Self {
        Self(Cow::Owned(Value::parse(text).and_then(|value| value.members()).unwrap_or_default()))
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.0.iter().find(|member| member.key == key).map(|member| member.value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// A short text for a typed column: not empty, without NUL (PostgreSQL texts can't hold one), cut at the limit.
    fn name(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        (value.kind() == Kind::String).then_some(())?;
        let text = value.as_str_lossy()?;
        let mut end = text.len().min(limits::MAX_NAME_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.get(..end).unwrap_or_default();
        let clean = if cut.contains('\0') { cut.replace('\0', "\u{fffd}") } else { cut.to_owned() };
        (!clean.is_empty()).then_some(clean)
    }

    fn tags(&self) -> Vec<String> {
        let Some(Ok(items)) =
            self.get("tags").filter(|value| value.kind() == Kind::Array).map(|value| value.elements())
        else {
            return Vec::new();
        };
        let tags = items.iter().filter_map(|item| item.as_str_lossy());
        tags.take(limits::MAX_TAGS)
            .map(|tag| tag.replace('\0', "\u{fffd}").chars().take(limits::MAX_NAME_BYTES / 4).collect())
            .collect()
    }

    /// Milliseconds as microseconds; what is negative or longer than ten years is not a duration.
    fn millis(&self, key: &str) -> Option<i64> {
        let millis = self.number(key)?;
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked on the same line")]
        (0.0..=limits::MAX_DURATION_US as f64 / 1000.0)
            .contains(&millis)
            .then(|| (millis * 1000.0).round() as i64)
    }
}
