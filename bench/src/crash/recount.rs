//! Counting again, from the stored events themselves, what the server keeps counted.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Counters of a session, or of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) events: u64,
    tool_calls: u64,
    errors: u64,
    llm_calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_nanos: u64,
}

impl Counters {
    pub(crate) fn add(&mut self, event: &Value) {
        let kind = event["eventType"].as_str().unwrap_or_default();
        let payload = &event["payload"];
        self.events += 1;
        self.tool_calls += u64::from(kind == "tool_call");
        self.errors += u64::from(kind == "tool_error");
        if kind == "llm_response" {
            self.llm_calls += 1;
            self.input_tokens += payload["usage"]["inputTokens"].as_u64().unwrap_or(0);
            self.output_tokens += payload["usage"]["outputTokens"].as_u64().unwrap_or(0);
            self.cost_nanos += nanos(&payload["costUsd"]);
        }
    }

    /// Compares with a session as the server tells it.
    pub(crate) fn differences_from_session(&self, told: &Value) -> Vec<String> {
        self.differences(
            told,
            &[
                ("eventCount", self.events),
                ("toolCallCount", self.tool_calls),
                ("errorCount", self.errors),
                ("llmCallCount", self.llm_calls),
                ("totalInputTokens", self.input_tokens),
                ("totalOutputTokens", self.output_tokens),
            ],
        )
    }

    /// Compares with the totals of the analytics.
    pub(crate) fn differences_from_totals(&self, told: &Value) -> Vec<String> {
        let fields =
            [("eventCount", self.events), ("toolCallCount", self.tool_calls), ("errorCount", self.errors)];
        self.differences(told, &fields)
    }

    /// Compares with the summary of the model analytics.
    pub(crate) fn differences_from_llm_summary(&self, told: &Value) -> Vec<String> {
        let fields = [
            ("totalCalls", self.llm_calls),
            ("totalInputTokens", self.input_tokens),
            ("totalOutputTokens", self.output_tokens),
        ];
        self.differences(told, &fields)
    }

    fn differences(&self, told: &Value, fields: &[(&str, u64)]) -> Vec<String> {
        let mut found: Vec<String> = fields
            .iter()
            .filter(|(name, counted)| told[*name] != json!(counted))
            .map(|(name, counted)| format!("{name} is {}, counted {counted}", told[*name]))
            .collect();
        if nanos(&told["totalCostUsd"]) != self.cost_nanos {
            let counted = self.cost_nanos as f64 / 1e9;
            found.push(format!("totalCostUsd is {}, counted {counted}", told["totalCostUsd"]));
        }
        found
    }
}

/// Dollars as whole nano-dollars, so that sums are exact.
fn nanos(dollars: &Value) -> u64 {
    (dollars.as_f64().unwrap_or(0.0) * 1e9).round() as u64
}

/// Everything counted again.
#[derive(Default)]
pub(crate) struct Recount {
    pub(crate) all: Counters,
    pub(crate) sessions: HashMap<String, Counters>,
}

impl Recount {
    pub(crate) fn add(&mut self, event: &Value) {
        self.all.add(event);
        let session = event["sessionId"].as_str().unwrap_or_default();
        if let Some(counters) = self.sessions.get_mut(session) {
            counters.add(event);
        } else {
            let mut counters = Counters::default();
            counters.add(event);
            self.sessions.insert(session.to_owned(), counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_is_one_off_is_found() {
        let mut counters = Counters::default();
        counters.add(&json!({"eventType": "tool_call", "payload": {}}));
        counters.add(&json!({"eventType": "llm_response", "payload": {"costUsd": 0.000_000_3,
            "usage": {"inputTokens": 5, "outputTokens": 2}}}));
        let told = json!({"eventCount": 2, "toolCallCount": 1, "errorCount": 0, "llmCallCount": 1,
            "totalInputTokens": 5, "totalOutputTokens": 2, "totalCostUsd": 3e-7});
        assert!(counters.differences_from_session(&told).is_empty());
        let mut wrong = told;
        wrong["totalOutputTokens"] = json!(3);
        assert_eq!(counters.differences_from_session(&wrong).len(), 1);
    }
}
