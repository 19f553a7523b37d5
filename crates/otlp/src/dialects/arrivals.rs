//! The typed facts of one arrival, read in the same way when it is stored and when it is shown.

use agentlens_domain::cost::{ServiceTier, usd_to_nanos};
use agentlens_domain::environments;
use agentlens_domain::events::{UNKNOWN_AGENT, is_failed_tool_result};
use agentlens_domain::json::Value;
use agentlens_domain::limits;
use agentlens_domain::spans::{Arrival, ArrivalSource, SessionClaim, SpanKind};
use agentlens_domain::time;

use super::answers::Answer;
use super::field::Field;
use super::kinds;
use super::names::{clean, clean_id};
use super::providers::provider;
use super::raw::RawValue;
use super::reading::Reading;
use super::table::RESOURCE_RANK;
use super::tokens::{number_in, usage};

/// The environment that Langfuse's clients send when none was chosen.
const UNCHOSEN_ENVIRONMENT: &str = "default";

/// How a span ended, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The status is not set.
    Unset,
    /// The status is a success.
    Ok,
    /// The status is an error.
    Failed,
}

/// The facts of a resource, which apply to all of its spans.
#[derive(Debug, Clone, Default)]
pub(super) struct ResourceFacts {
    service: Option<String>,
    session: Option<SessionClaim>,
    user_id: Option<String>,
    environment: Option<String>,
    agent_id: Option<String>,
    agent_name: Option<String>,
    instance: Option<String>,
}

impl ResourceFacts {
    pub(super) fn of<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Self {
        let service = text(reading, Field::Service)
            .filter(|name| name != "unknown_service" && !name.starts_with("unknown_service:"));
        let mut session = session(reading);
        if let Some(claim) = &mut session {
            claim.rank = claim.rank.saturating_add(RESOURCE_RANK);
        }
        Self {
            service,
            session,
            user_id: text(reading, Field::User),
            environment: environment(reading),
            agent_id: text(reading, Field::AgentId),
            agent_name: text(reading, Field::AgentName),
            instance: text(reading, Field::ServiceInstance),
        }
    }

    /// The session of log records that name neither a session nor a trace: one per process, or one per service and day.
    pub(super) fn fallback_session(&self, at_us: i64) -> String {
        self.instance.clone().unwrap_or_else(|| {
            let service = self.agent_id.as_deref().or(self.service.as_deref()).unwrap_or(UNKNOWN_AGENT);
            let day = time::format_rfc3339(at_us);
            let id = format!("logs-{service}-{}", day.get(..10).unwrap_or_default());
            clean_id(&id).unwrap_or_default()
        })
    }
}

/// The parts of one arrival that are not attributes; those are in `reading`.
pub(super) struct Observed<'o, 'a, V> {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent_span_id: Option<String>,
    pub(super) source: ArrivalSource,
    /// The span's name, or the log record's.
    pub(super) name: &'o str,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    pub(super) outcome: Outcome,
    /// The time of the first event that marks the first token.
    pub(super) first_token_us: Option<i64>,
    /// Whether an exception is among the events.
    pub(super) has_exception: bool,
    /// The kind, if it is known without the attributes.
    pub(super) stated_kind: Option<SpanKind>,
    pub(super) reading: &'o Reading<'a, V>,
    pub(super) resource: &'o ResourceFacts,
}

impl<'a, V: RawValue + 'a> Observed<'_, 'a, V> {
    /// The facts, without the digest: that needs the payload.
    pub(super) fn arrival(self) -> Arrival {
        let reading = self.reading;
        let is_span = self.source == ArrivalSource::Span;
        let has_failed = self.outcome == Outcome::Failed || self.has_exception;
        let kind = self.stated_kind.or_else(|| is_span.then(|| kinds::kind(reading, self.name, has_failed)));
        let answer = answer(reading, kind);
        let model = text(reading, Field::ResponseModel)
            .or(answer.model)
            .or_else(|| text(reading, Field::AnyModel))
            .or_else(|| text(reading, Field::RequestModel))
            .or_else(|| model_in_request(reading, kind));
        let calls_a_model = kind.is_none_or(SpanKind::calls_a_model);
        let provider = provider(reading.text(Field::Provider).as_deref(), model.as_deref());
        let usage = usage(reading, kind, provider.as_deref(), model.as_deref());
        let agent_name = self.agent_name(kind);
        let first_token_us = first_token(reading, self.start_us, self.end_us).or_else(|| {
            let at = self.first_token_us?;
            Some(at - self.start_us).filter(|wait| *wait >= 0)
        });
        Arrival {
            source: self.source,
            digest: [0; 8],
            kind,
            start_us: self.start_us,
            end_us: self.end_us,
            session: session(reading).or_else(|| self.resource.session.clone()),
            agent_id: text(reading, Field::AgentId)
                .or_else(|| self.resource.agent_id.clone())
                .or_else(|| agent_name.clone()),
            agent_name,
            // Like the service, a workflow is the agent only if nothing in the trace names one.
            service: text(reading, Field::WorkflowName).or_else(|| self.resource.service.clone()),
            user_id: text(reading, Field::User).or_else(|| self.resource.user_id.clone()),
            environment: environment(reading).or_else(|| self.resource.environment.clone()),
            provider,
            model,
            response_id: text(reading, Field::ResponseId).or(answer.id),
            usage,
            reported_cost_nanos: reported_cost_nanos(reading),
            is_cache_hit: calls_a_model && is_cache_hit(reading),
            service_tier: if calls_a_model { service_tier(reading) } else { None },
            tool_name: tool_name(reading, kind, self.name),
            call_id: call_id(reading, kind),
            first_token_us,
            is_error: self.is_error() || is_failed_tool(reading, kind),
            is_of_library: is_span && reading.is_of_library(),
            span_name: is_span.then(|| clean(self.name)).flatten(),
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
        }
    }

    fn is_error(&self) -> bool {
        let reading = self.reading;
        let says_so = || {
            let level = reading.text(Field::Level);
            reading.get(Field::ErrorType).is_some()
                || level.is_some_and(|level| level.eq_ignore_ascii_case("error"))
        };
        match self.outcome {
            Outcome::Failed => true,
            // An exception that was caught and handled is not a failure.
            Outcome::Ok => says_so(),
            Outcome::Unset => self.has_exception || says_so(),
        }
    }

    /// The agent's name. On an agent's own span, an attribute that names the span also names the agent.
    fn agent_name(&self, kind: Option<SpanKind>) -> Option<String> {
        let reading = self.reading;
        let is_agent = kind == Some(SpanKind::Agent);
        let stated = text(reading, Field::AgentName);
        let entity = || is_agent.then(|| text(reading, Field::EntityName)).flatten();
        let span = || (is_agent && reading.agents_name_spans()).then(|| clean(self.name)).flatten();
        stated.or_else(entity).or_else(span).or_else(|| self.resource.agent_name.clone())
    }
}

fn text<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, field: Field) -> Option<String> {
    clean(&reading.text(field)?)
}

fn session<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Option<SessionClaim> {
    let (rank, id) = reading.session()?;
    Some(SessionClaim { rank, id: clean_id(&id)? })
}

fn environment<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Option<String> {
    let text = reading.text(Field::Environment)?;
    environments::read(&text).filter(|name| *name != UNCHOSEN_ENVIRONMENT).map(str::to_owned)
}

fn tool_name<'a, V: RawValue + 'a>(
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
    span_name: &str,
) -> Option<String> {
    if let Some(name) = text(reading, Field::ToolName) {
        return Some(name);
    }
    if kind != Some(SpanKind::Tool) {
        return None;
    }
    text(reading, Field::EntityName).or_else(|| {
        let name = span_name.strip_prefix("execute_tool ").or_else(|| span_name.strip_prefix("tools/call "));
        let name = name.unwrap_or(span_name);
        clean(name.strip_suffix(".tool").unwrap_or(name))
    })
}

fn first_token<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, start_us: i64, end_us: i64) -> Option<i64> {
    let waits =
        [(Field::FirstTokenSeconds, 1e6), (Field::FirstTokenMillis, 1e3), (Field::FirstTokenMicros, 1.0)];
    for (field, us_per_unit) in waits {
        if let Some(mut wait) = reading.number(field).map(|wait| wait * us_per_unit) {
            // The first token can't be later than the end. Strands sends milliseconds under a name for seconds.
            let duration = (end_us - start_us) as f64;
            if field == Field::FirstTokenSeconds
                && duration > 0.0
                && wait > duration
                && wait / 1e3 <= duration
            {
                wait /= 1e3;
            }
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked on the same line")]
            return (0.0..=limits::MAX_DURATION_US as f64).contains(&wait).then(|| wait.round() as i64);
        }
    }
    let instant = reading.text(Field::FirstTokenInstant)?;
    let at_us = time::parse_rfc3339(instant.trim_matches('"'))?;
    Some(at_us - start_us).filter(|wait| *wait >= 0)
}

fn reported_cost_nanos<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Option<i64> {
    let parts = || {
        let parts = (reading.number(Field::CostInput), reading.number(Field::CostOutput));
        (parts != (None, None)).then(|| parts.0.unwrap_or(0.0) + parts.1.unwrap_or(0.0))
    };
    let object = || {
        let object = reading.get(Field::CostObject)?.structure();
        number_in(&object, &["total", "total_cost", "totalCost"]).or_else(|| {
            // The parts do not overlap, whatever their names.
            let parts = object.as_object()?.values().filter_map(RawValue::number);
            parts.reduce(|sum, part| sum + part)
        })
    };
    reading.number(Field::Cost).or_else(parts).or_else(object).and_then(usd_to_nanos)
}

fn is_cache_hit<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> bool {
    if let Some(stated) = reading.get(Field::CacheHit).and_then(RawValue::flag) {
        return stated;
    }
    let Some(object) = reading.get(Field::CacheHitObject) else { return false };
    // Most such objects don't hold it, and a search for the word is cheaper than parsing.
    if object.string().is_some_and(|text| !text.contains("cache_hit")) {
        return false;
    }
    object.structure().get("cache_hit").and_then(RawValue::flag).unwrap_or(false)
}

fn service_tier<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Option<ServiceTier> {
    if reading.get(Field::Batch).and_then(RawValue::flag) == Some(true) {
        return Some(ServiceTier::Batch);
    }
    if let Some(word) = reading.text(Field::ServiceTier) {
        return ServiceTier::parse(&word);
    }
    let request = reading.get(Field::Parameters)?;
    // A text without the word need not be parsed.
    if request.string().is_some_and(|text| !text.contains("service_tier")) {
        return None;
    }
    ServiceTier::parse(request.structure().get("service_tier")?.as_str()?)
}

/// The provider's own answer, if no attribute holds its id and model.
fn answer<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, kind: Option<SpanKind>) -> Answer {
    let is_told = reading.get(Field::ResponseId).is_some() && reading.get(Field::ResponseModel).is_some();
    if is_told || kind != Some(SpanKind::Llm) {
        return Answer::default();
    }
    reading.get(Field::ResponseObject).and_then(RawValue::string).map(Answer::read).unwrap_or_default()
}

/// The model in the request's settings or in the raw request. A failed call may name it nowhere else.
fn model_in_request<'a, V: RawValue + 'a>(
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
) -> Option<String> {
    if !kind.is_some_and(SpanKind::calls_a_model) {
        return None;
    }
    [Field::Parameters, Field::Input].into_iter().find_map(|field| {
        let request = reading.get(field)?;
        // A text without the word need not be parsed.
        if request.string().is_some_and(|text| !text.contains("model")) {
            return None;
        }
        let request = request.structure();
        let model = ["model", "model_name", "model_id", "modelId"]
            .into_iter()
            .find_map(|key| request.get(key)?.as_str());
        clean(model?)
    })
}

/// Whether a tool's result reports a failure. The span's status may be a success all the same.
fn is_failed_tool<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, kind: Option<SpanKind>) -> bool {
    if kind != Some(SpanKind::Tool) {
        return false;
    }
    if reading.text(Field::ToolStatus).is_some_and(|word| matches!(&*word, "error" | "failed" | "failure")) {
        return true;
    }
    let Some(result) = reading.get(Field::Result) else { return false };
    match result.string() {
        Some(text) => is_failed_tool_result(text),
        None => is_failed_tool_result(&result.structure().to_string()),
    }
}

/// The id of the call in the message that LangChain's tools return to the model.
fn call_id<'a, V: RawValue + 'a>(reading: &Reading<'a, V>, kind: Option<SpanKind>) -> Option<String> {
    if let Some(id) = text(reading, Field::CallId) {
        return Some(id);
    }
    let result = reading.get(Field::Result).filter(|_| kind == Some(SpanKind::Tool))?.string()?;
    if !result.contains("tool_call_id") {
        return None;
    }
    let message = Value::parse(result).ok()?;
    let fields = message.get("data").or_else(|| message.get("kwargs")).unwrap_or(message);
    clean(&fields.get("tool_call_id")?.as_str_lossy()?)
}
