//! A span as it is shown: the payloads of all its arrivals, read again into one view.
//!
//! Nothing here is stored. The view does not depend on the order of arrival. It uses the current table of attributes, so a
//! new rule also applies to spans that arrived before it.

mod conversation;
mod families;
mod merged;
mod parts;
mod settings;
mod shapes;
mod values;
mod work;

use agentlens_domain::cost::{ServiceTier, nanos_to_usd};
use agentlens_domain::spans::{Arrival, SpanKind};
use agentlens_domain::usage::Usage;
use serde_json::{Map, Value as Json, json};

use self::conversation::{Conversation, read};
pub(super) use self::merged::log_time;
use self::merged::{Merged, members, shown_events};
use self::values::{as_text, millis, text_of};
use super::field::Field;
use super::raw::RawValue;
use super::table::table;

/// The current view of one span, from the payloads of all its arrivals. It has only the members whose values are known.
///
/// `traceId`, `spanId`, `parentSpanId`, `kind`, `name`, `provider`, `model`, `requestModel`, `responseModel`,
/// `responseId`, `system`, `inputMessages`, `outputMessages` (each with `role`, `name`, `parts`), `completion`,
/// `toolCalls`, `finishReason`, `finishReasonRaw`, `usage`, `costUsd`, `parameters`, `tools`, `toolName`, `callId`,
/// `arguments`, `result`, `query`, `documents`, `embeddings`, `input`, `output`, `evaluations`, `timeToFirstTokenMs`,
/// `durationMs`, `latencyMs`, `error`, `sessionId`, `userId`, `agentId`, `agentName`, `environment`, `cacheHit`,
/// `batch`, `spanKind`, `scope`, `resource`, `links`, `attributes`, `events`.
pub fn present(arrivals: &[&str]) -> Map<String, Json> {
    let merged = Merged::of(arrivals);
    let arrival = merged.arrival();
    let mut view = View(Map::new());
    view.identity(&merged, &arrival);
    view.model(&merged, &arrival);
    view.conversation(&merged, &arrival);
    view.usage(&arrival);
    view.settings(&merged);
    view.work(&merged, &arrival);
    view.evaluations(&merged);
    view.times(&merged, &arrival);
    view.error(&merged, &arrival);
    view.session_and_agent(&arrival);
    view.raw(&merged);
    view.0
}

/// Reads a log record that is a call of its own; `None` for other records.
pub(super) fn arrival_of_log(payload: &str) -> Option<Arrival> {
    let merged = Merged::of(&[payload]);
    merged.span.is_some().then(|| merged.arrival())
}

struct View(Map<String, Json>);

impl View {
    /// Inserts a value unless it is empty.
    fn put(&mut self, key: &str, value: impl Into<Json>) {
        let value = value.into();
        if !value.is_blank() {
            self.0.insert(key.to_owned(), value);
        }
    }

    fn put_some<V: Into<Json>>(&mut self, key: &str, value: Option<V>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn identity(&mut self, merged: &Merged, arrival: &Arrival) {
        self.put("traceId", arrival.trace_id.as_str());
        self.put("spanId", arrival.span_id.as_str());
        self.put_some("parentSpanId", arrival.parent_span_id.as_deref());
        self.put_some("kind", arrival.kind.map(SpanKind::as_str));
        self.put("name", merged.name());
    }

    fn model(&mut self, merged: &Merged, arrival: &Arrival) {
        let text = |field| read(merged, field).map(|value| as_text(&value));
        // A client with one attribute for both models sends the one that answered, if there was an answer.
        let asked =
            text(Field::RequestModel).or_else(|| settings::model(merged)).or_else(|| text(Field::AnyModel));
        let answered =
            arrival.model.clone().filter(|_| !arrival.is_error && asked != text(Field::RequestModel));
        self.put_some("provider", arrival.provider.as_deref());
        self.put_some("model", arrival.model.as_deref());
        self.put_some("requestModel", asked);
        self.put_some("responseModel", text(Field::ResponseModel).or(answered));
        self.put_some("responseId", arrival.response_id.as_deref());
    }

    fn conversation(&mut self, merged: &Merged, arrival: &Arrival) {
        let speaks = !matches!(
            arrival.kind,
            Some(SpanKind::Tool | SpanKind::Embedding | SpanKind::Retriever | SpanKind::Rerank)
        );
        if !speaks {
            return;
        }
        let conversation = Conversation::of(merged, arrival.kind);
        let reason = finish_reason(merged).or_else(|| conversation.finish_reason().map(str::to_owned));
        self.put_some("system", conversation.system(merged));
        self.put_some("completion", conversation.completion());
        self.put("toolCalls", conversation.tool_calls());
        self.put("inputMessages", conversation.input.into_iter().map(without_reason).collect::<Vec<_>>());
        self.put("outputMessages", conversation.output.into_iter().map(without_reason).collect::<Vec<_>>());
        self.put_some("finishReason", reason.as_deref().map(|reason| table().finish_reason(reason)));
        self.put_some("finishReasonRaw", reason);
    }

    fn usage(&mut self, arrival: &Arrival) {
        self.put_some("usage", arrival.usage.map(|usage| Json::Object(usage_view(&usage))));
        self.put_some("costUsd", arrival.reported_cost_nanos.map(nanos_to_usd));
        self.put_some("cacheHit", arrival.is_cache_hit.then_some(true));
        let tier = arrival.service_tier;
        self.put_some("batch", tier.filter(|tier| *tier == ServiceTier::Batch).map(|_| true));
        self.put_some(
            "serviceTier",
            tier.filter(|tier| *tier != ServiceTier::Batch).map(ServiceTier::as_str),
        );
    }

    fn settings(&mut self, merged: &Merged) {
        self.put("parameters", settings::parameters(merged));
        self.put("tools", settings::tools(merged));
    }

    fn work(&mut self, merged: &Merged, arrival: &Arrival) {
        let kind = arrival.kind;
        self.put_some("toolName", arrival.tool_name.as_deref());
        self.put_some("callId", arrival.call_id.as_deref());
        if kind == Some(SpanKind::Tool) {
            self.put_some("arguments", work::arguments(merged));
            self.put_some("result", work::result(merged));
        }
        if matches!(kind, Some(SpanKind::Retriever | SpanKind::Rerank | SpanKind::Memory)) {
            let (query, documents) = (work::query(merged), work::documents(merged));
            if documents.is_none() {
                self.put_some("output", work::output(merged));
            }
            self.put_some("query", query);
            self.put_some("documents", documents);
        }
        if kind == Some(SpanKind::Embedding) {
            let (embeddings, texts) = work::embeddings(merged);
            self.put("embeddings", embeddings);
            let question = || Some(Conversation::of(merged, kind).question()).filter(|text| !text.is_empty());
            match texts.as_slice() {
                [] => self.put_some("input", work::embedded(merged).or_else(|| question().map(Json::String))),
                [text] => self.put("input", text.as_str()),
                texts => self.put("input", texts),
            }
        }
        if work::shows_raw(kind) {
            self.put_some("input", work::input(merged));
            self.put_some("output", work::output(merged));
        }
    }

    fn evaluations(&mut self, merged: &Merged) {
        let is_evaluation = |name: &str| table().events.evaluation.iter().any(|known| known == name);
        let logs = merged.logs.iter().map(|log| (Merged::log_name(log), log));
        let events =
            merged.events.iter().filter_map(|event| Some((event.get("name")?.as_str()?, event.as_object()?)));
        let fields = events.chain(logs).filter(|(name, _)| is_evaluation(name));
        let mut evaluations: Vec<Json> =
            fields.map(|(_, event)| evaluation(members(event, "attributes"))).collect();
        let names = table().keys(Field::EvaluationName);
        if evaluations.is_empty() && names.iter().any(|name| merged.attributes.contains_key(name)) {
            evaluations.push(evaluation(&merged.attributes));
        }
        self.put("evaluations", evaluations);
    }

    fn times(&mut self, merged: &Merged, arrival: &Arrival) {
        self.put_some("timeToFirstTokenMs", arrival.first_token_us.map(millis));
        if merged.span.is_some() {
            let duration = millis(arrival.end_us - arrival.start_us);
            self.put("durationMs", duration.clone());
            if arrival.kind == Some(SpanKind::Llm) {
                self.put("latencyMs", duration);
            }
        }
    }

    fn error(&mut self, merged: &Merged, arrival: &Arrival) {
        if !arrival.is_error {
            return;
        }
        let none = Map::new();
        let exception = merged.exception().unwrap_or(&none);
        let text = |field| read(merged, field).map(|value| as_text(&value));
        let status = merged.span.as_ref().and_then(|span| text_of(members(span, "status"), &["message"]));
        let mut error = Map::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                error.insert(key.to_owned(), json!(value));
            }
        };
        let of_exception = |key: &str| exception.get(key).map(as_text);
        put(
            "type",
            text(Field::ErrorType)
                .or_else(|| of_exception("exception.type"))
                .or_else(|| text(Field::ExceptionType)),
        );
        put("message", of_exception("exception.message").or(status).or_else(|| text(Field::ErrorMessage)));
        put("stacktrace", of_exception("exception.stacktrace"));
        if error.is_empty() && arrival.kind == Some(SpanKind::Tool) {
            // OpenTelemetry's error type for a tool that reports a failure in its result.
            error.insert("type".to_owned(), json!("tool_error"));
            if let Some(message) = work::failure(merged) {
                error.insert("message".to_owned(), json!(message));
            }
        }
        self.0.insert("error".to_owned(), Json::Object(error));
    }

    fn session_and_agent(&mut self, arrival: &Arrival) {
        self.put_some("sessionId", arrival.session.as_ref().map(|claim| claim.id.as_str()));
        self.put_some("userId", arrival.user_id.as_deref());
        self.put_some("agentId", arrival.agent_id.as_deref().or(arrival.service.as_deref()));
        self.put_some("agentName", arrival.agent_name.as_deref());
        self.put_some("environment", arrival.environment.as_deref());
    }

    fn raw(&mut self, merged: &Merged) {
        for key in ["spanKind", "scope", "resource", "links"] {
            self.put_some(key, merged.get(key).cloned());
        }
        self.put("attributes", merged.attributes.clone());
        self.put("events", shown_events(merged));
    }
}

fn finish_reason(merged: &Merged) -> Option<String> {
    let value = read(merged, Field::FinishReasons)?;
    let reason = value.as_array().map_or(Some(&value), |reasons| reasons.first())?;
    reason.as_str().filter(|reason| !reason.is_empty()).map(str::to_owned)
}

/// The reason is shown once, for the whole answer.
fn without_reason(mut message: Json) -> Json {
    if let Some(message) = message.as_object_mut() {
        message.shift_remove("finishReason");
    }
    message
}

fn usage_view(usage: &Usage) -> Map<String, Json> {
    let mut view = Map::new();
    let mut put = |key: &str, tokens: i64| view.insert(key.to_owned(), json!(tokens));
    put("inputTokens", usage.input);
    put("outputTokens", usage.output);
    put("totalTokens", usage.total());
    for (key, tokens) in [
        ("cacheReadTokens", usage.cache_read),
        ("cacheWriteTokens", usage.cache_write_5m.saturating_add(usage.cache_write_1h)),
        ("thinkingTokens", usage.reasoning),
        ("audioInputTokens", usage.audio_input),
        ("audioOutputTokens", usage.audio_output),
    ] {
        if tokens != 0 {
            put(key, tokens);
        }
    }
    view
}

fn evaluation(attributes: &Map<String, Json>) -> Json {
    let mut view = Map::new();
    for (name, field) in [
        ("name", Field::EvaluationName),
        ("score", Field::EvaluationScore),
        ("label", Field::EvaluationLabel),
        ("explanation", Field::EvaluationExplanation),
    ] {
        if let Some(value) = table().keys(field).iter().find_map(|key| attributes.get(key)) {
            view.insert(name.to_owned(), value.clone());
        }
    }
    Json::Object(view)
}
