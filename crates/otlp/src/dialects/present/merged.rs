//! All arrivals of one span, merged. The result does not depend on their order.

use agentlens_domain::spans::{Arrival, ArrivalSource};
use rustc_hash::FxHashSet;
use serde_json::{Map, Value as Json, json};

use super::super::arrivals::{Observed, Outcome, ResourceFacts};
use super::super::log_calls;
use super::super::reading::Reading;
use super::super::table::{LogCall, table};

/// A span's arrivals, merged.
pub(super) struct Merged {
    /// The span itself. Of several, the longest, plus the members that only the others have. Absent if only logs came.
    pub(super) span: Option<Map<String, Json>>,
    /// The log records in the order of their times. Those of one instant are in the usual order of messages.
    pub(super) logs: Vec<Map<String, Json>>,
    /// The attributes of spans, and of the log records that describe the whole span.
    pub(super) attributes: Map<String, Json>,
    /// The events of all spans, each once, in the order of their times. Those of one instant keep the span's order.
    pub(super) events: Vec<Json>,
    /// The rule for a log record that became the span.
    log_call: Option<&'static LogCall>,
}

impl Merged {
    /// Reads and merges the payloads, and skips texts that are not arrivals.
    pub(super) fn of(arrivals: &[&str]) -> Self {
        let mut spans = Vec::new();
        let mut logs = Vec::new();
        let mut log_call = None;
        let mut texts: Vec<&str> = arrivals.to_vec();
        texts.sort_unstable();
        texts.dedup();
        for text in texts {
            let Ok(Json::Object(arrival)) = serde_json::from_str(text) else { continue };
            let is_log = arrival.get("source").and_then(Json::as_str) == Some("log");
            if !is_log {
                spans.push(arrival);
            } else if let Some((span, rule)) = log_calls::span_of(&arrival, text) {
                spans.push(span);
                log_call = Some(rule);
            } else {
                logs.push(arrival);
            }
        }
        // The sorts are stable, so equal elements keep the order of the texts.
        spans.sort_by_key(|span| (duration(span), nanos(span, "endTimeUnixNano")));
        logs.sort_by_key(|log| (log_time(log), nanos(log, "observedTimeUnixNano"), usual_position(log)));
        let mut attributes = Map::new();
        for log in logs.iter().filter(|log| describes_the_span(log)) {
            attributes.extend(members(log, "attributes").clone());
        }
        for span in &spans {
            attributes.extend(members(span, "attributes").clone());
        }
        let events = events(&spans);
        Self { span: merge(spans), logs, attributes, events, log_call }
    }

    /// A member of the span, or else of the first log record that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.span.iter().chain(&self.logs).find_map(|arrival| arrival.get(key))
    }

    /// The members of an object of the span or of a log record.
    pub(super) fn object(&self, key: &str) -> Option<&Map<String, Json>> {
        self.get(key)?.as_object()
    }

    /// The span's name.
    pub(super) fn name(&self) -> &str {
        self.span.as_ref().and_then(|span| span.get("name")?.as_str()).unwrap_or("")
    }

    /// The name of a log record.
    pub(super) fn log_name(log: &Map<String, Json>) -> &str {
        log.get("eventName").and_then(Json::as_str).unwrap_or("")
    }

    /// The first exception in an event or a log record.
    pub(super) fn exception(&self) -> Option<&Map<String, Json>> {
        let names = &table().events.exception;
        let is_exception = |name: Option<&Json>| {
            name.and_then(Json::as_str).is_some_and(|name| names.iter().any(|known| known == name))
        };
        let events = self.events.iter().filter_map(Json::as_object);
        let event = events.into_iter().find(|event| is_exception(event.get("name")));
        let log = || self.logs.iter().find(|log| is_genai(log) && is_exception(log.get("eventName")));
        event.or_else(log).map(|exception| members(exception, "attributes"))
    }

    /// The facts, read in the same way as when each arrival was stored.
    pub(super) fn arrival(&self) -> Arrival {
        let none = Map::new();
        let resource = self.object("resource").unwrap_or(&none);
        let resource = ResourceFacts::of(&Reading::of(pairs(resource), |_| {}));
        let scope = self.object("scope").and_then(|scope| scope.get("name")?.as_str()).unwrap_or("");
        let reading = Reading::of(pairs(&self.attributes), |_| {})
            .in_scope(scope)
            .with_exclusive_input(self.log_call.is_some_and(|rule| rule.exclusive_input));
        let id = |key: &str| self.get(key).and_then(Json::as_str).map(str::to_owned);
        let start_us = self.start_us();
        let end_us = self.span.as_ref().map_or(start_us, |span| micros(nanos(span, "endTimeUnixNano")));
        Observed {
            trace_id: id("traceId").unwrap_or_default(),
            span_id: id("spanId").unwrap_or_default(),
            parent_span_id: id("parentSpanId"),
            source: if self.span.is_some() { ArrivalSource::Span } else { ArrivalSource::Log },
            name: self.name(),
            start_us,
            end_us: end_us.max(start_us),
            outcome: self.outcome(),
            first_token_us: self.first_token_us(),
            has_exception: self.exception().is_some(),
            stated_kind: self.log_call.map(|rule| rule.kind),
            reading: &reading,
            resource: &resource,
        }
        .arrival()
    }

    fn start_us(&self) -> i64 {
        let time = match &self.span {
            Some(span) => match nanos(span, "startTimeUnixNano") {
                0 => nanos(span, "endTimeUnixNano"),
                start => start,
            },
            None => self.logs.first().map_or(0, log_time),
        };
        micros(time)
    }

    fn outcome(&self) -> Outcome {
        let status = self.span.as_ref().and_then(|span| span.get("status")?.get("code")?.as_str());
        match status {
            Some("ERROR") => Outcome::Failed,
            Some("OK") => Outcome::Ok,
            _ => Outcome::Unset,
        }
    }

    fn first_token_us(&self) -> Option<i64> {
        let names = &table().events.first_token;
        let first = self.events.iter().filter_map(|event| {
            let name = event.get("name")?.as_str()?;
            names.iter().any(|known| known == name).then_some(())?;
            Some(nanos(event.as_object()?, "timeUnixNano"))
        });
        first.min().map(micros)
    }
}

/// Attributes for a [`Reading`].
pub(super) fn pairs(attributes: &Map<String, Json>) -> impl Iterator<Item = (&str, &Json)> {
    attributes.iter().map(|(key, value)| (key.as_str(), value))
}

/// The members of an inner object; empty if it is missing.
pub(super) fn members<'j>(object: &'j Map<String, Json>, key: &str) -> &'j Map<String, Json> {
    static NONE: std::sync::LazyLock<Map<String, Json>> = std::sync::LazyLock::new(Map::new);
    object.get(key).and_then(Json::as_object).unwrap_or(&NONE)
}

/// Nanoseconds, which are texts because a double can't hold them.
pub(super) fn nanos(object: &Map<String, Json>, key: &str) -> u64 {
    match object.get(key) {
        Some(Json::String(text)) => text.parse().unwrap_or(0),
        Some(Json::Number(number)) => number.as_u64().unwrap_or(0),
        _ => 0,
    }
}

fn micros(nanos: u64) -> i64 {
    i64::try_from(nanos / 1000).unwrap_or(i64::MAX)
}

fn duration(span: &Map<String, Json>) -> u64 {
    nanos(span, "endTimeUnixNano").saturating_sub(nanos(span, "startTimeUnixNano"))
}

/// When a log record was written, in nanoseconds.
pub(in super::super) fn log_time(log: &Map<String, Json>) -> u64 {
    match nanos(log, "timeUnixNano") {
        0 => nanos(log, "observedTimeUnixNano"),
        time => time,
    }
}

/// Whether a log record is about a call. Other records are a program's own logs, which do not describe the span around them.
fn is_genai(log: &Map<String, Json>) -> bool {
    table().events.is_genai_log(Merged::log_name(log))
}

/// Whether a log record's attributes describe the span, and not one message, an evaluation or an exception.
fn describes_the_span(log: &Map<String, Json>) -> bool {
    let events = &table().events;
    let name = Merged::log_name(log);
    let is_one_of = |names: &[String]| names.iter().any(|known| known == name);
    is_genai(log)
        && !events.messages.contains_key(name)
        && !is_one_of(&events.answers)
        && !is_one_of(&events.evaluation)
        && !is_one_of(&events.exception)
}

/// The last span, which is the longest, plus the members that only earlier ones have.
fn merge(spans: Vec<Map<String, Json>>) -> Option<Map<String, Json>> {
    let mut merged: Option<Map<String, Json>> = None;
    for span in spans {
        let mut whole = merged.unwrap_or_default();
        whole.extend(span);
        merged = Some(whole);
    }
    merged
}

fn events(spans: &[Map<String, Json>]) -> Vec<Json> {
    let mut events: Vec<&Json> =
        spans.iter().rev().filter_map(|span| span.get("events")?.as_array()).flatten().collect();
    // The sort is stable, so messages of one instant keep the span's order.
    events.sort_by_key(|event| event.as_object().map_or(0, |event| nanos(event, "timeUnixNano")));
    let mut known = FxHashSet::default();
    events.retain(|event| known.insert(event.to_string()));
    events.into_iter().cloned().collect()
}

/// The usual position of a log record's message among those of the same instant, whose order is not known.
fn usual_position(log: &Map<String, Json>) -> u8 {
    let events = &table().events;
    let name = Merged::log_name(log);
    match events.messages.get(name).map(String::as_str) {
        Some("system") => 0,
        Some("user") => 1,
        Some("assistant") => 2,
        Some("tool") => 3,
        _ if events.answers.iter().any(|known| known == name) => 4,
        _ => 5,
    }
}

/// The events to show: those of the span, and the log records.
pub(super) fn shown_events(merged: &Merged) -> Vec<Json> {
    let logs = merged.logs.iter().map(|log| {
        let mut event = Map::new();
        event.insert("name".to_owned(), json!(Merged::log_name(log)));
        event.insert("source".to_owned(), json!("log"));
        for key in ["timeUnixNano", "observedTimeUnixNano", "severityText", "body", "attributes"] {
            if let Some(value) = log.get(key) {
                event.insert(key.to_owned(), value.clone());
            }
        }
        Json::Object(event)
    });
    merged.events.iter().cloned().chain(logs).collect()
}
