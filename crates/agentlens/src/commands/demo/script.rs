//! One session being written: what an agent does becomes events of the published protocol, each with its place in time.

use serde_json::{Value, json};

use agentlens_domain::cost::{self, PriceTable};
use agentlens_domain::events::{EventType, facts_of};
use agentlens_domain::json::Value as JsonText;
use agentlens_domain::time::format_rfc3339;

use super::random::Random;

/// Messages of a conversation that a model call repeats; real clients cut long ones too.
const KEPT_MESSAGES: usize = 12;
/// Tokens of what a provider adds to every call and clients do not log: tool descriptions and formatting.
const UNSEEN_TOKENS: i64 = 2_600;
/// How long an agent waits for a tool.
const TOOL_TIMEOUT_MS: i64 = 30_000;
/// Attempts of an agent at a tool that stays broken.
const ATTEMPTS: u32 = 3;

/// A model as an agent uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) provider: &'static str,
    pub(super) name: &'static str,
    /// Output tokens per second.
    pub(super) speed: i64,
    /// Whether it thinks before it answers.
    pub(super) is_reasoning: bool,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Error,
    Timeout,
    /// Nobody ends it.
    Open,
}

/// A tool as an agent calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) duration_ms: (i64, i64),
    /// How often a call fails, in a hundred.
    pub(super) flaky_percent: i64,
    /// What it says then.
    pub(super) error: &'static str,
}

/// What one session sends and costs.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) events: Vec<Value>,
    pub(super) cost_nanos: i64,
}

/// A session under way. Times are relative to its start until [`Script::finish`].
#[derive(Debug)]
pub(super) struct Script {
    pub(super) random: Random,
    pub(super) ending: Ending,
    pub(super) user_id: Option<String>,
    agent_id: &'static str,
    session_id: String,
    /// Whether the client knows prices and states costs; the server computes them otherwise.
    states_cost: bool,
    system: String,
    messages: Vec<Value>,
    events: Vec<(i64, Value)>,
    at_ms: i64,
    calls: u32,
    cached_tokens: i64,
    tool_calls: i64,
    /// The instant at which prices are looked up, microseconds UTC.
    price_us: i64,
    cost_nanos: i64,
}

impl Script {
    pub(super) fn new(
        agent_id: &'static str,
        session_id: String,
        random: Random,
        ending: Ending,
        price_us: i64,
    ) -> Self {
        Self {
            random,
            ending,
            user_id: None,
            agent_id,
            session_id,
            states_cost: false,
            system: String::new(),
            messages: Vec::new(),
            events: Vec::new(),
            at_ms: 0,
            calls: 0,
            cached_tokens: 0,
            tool_calls: 0,
            price_us,
            cost_nanos: 0,
        }
    }

    /// The session begins.
    pub(super) fn start(&mut self, agent_name: &str, version: &str, tags: &[&str]) {
        self.push(
            "session_started",
            "info",
            json!({ "agentName": agent_name, "agentVersion": version, "tags": tags }),
        );
    }

    /// From here on the client states what its calls cost.
    pub(super) fn state_costs(&mut self) {
        self.states_cost = true;
    }

    /// What the model is told before everything else.
    pub(super) fn instruct(&mut self, system: impl Into<String>) {
        self.system = system.into();
    }

    /// Time passes.
    pub(super) fn wait_ms(&mut self, low: i64, high: i64) {
        self.at_ms += self.random.range(low, high);
    }

    /// Someone says something.
    pub(super) fn hear(&mut self, text: &str) {
        self.remember("user", text);
    }

    /// The model answers what was said.
    pub(super) fn answer(&mut self, model: Model, completion: &str) {
        self.call_model(model, Some(completion), None);
        self.remember("assistant", completion);
    }

    /// The model asks for a tool, which answers. `false` if the tool stays broken and the session ends in an error.
    pub(super) fn use_tool(&mut self, model: Model, tool: Tool, arguments: &Value, result: &Value) -> bool {
        self.call_model(model, None, Some((tool, arguments)));
        let must_fail = self.ending == Ending::Error && tool.flaky_percent > 0;
        let attempts = if must_fail { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            if must_fail || (attempt == 0 && self.random.chance(tool.flaky_percent)) {
                self.failing_call(tool, arguments);
            }
            self.wait_ms(500, 4_000);
        }
        if must_fail {
            self.push(
                "custom",
                "critical",
                json!({ "type": "gave_up", "data": { "tool": tool.name, "attempts": attempts, "lastError": tool.error } }),
            );
            return false;
        }
        self.run_tool(tool, arguments, result);
        true
    }

    /// A tool that is called without a model, and answers.
    pub(super) fn run_tool(&mut self, tool: Tool, arguments: &Value, result: &Value) {
        let call_id = self.begin_tool(tool, arguments);
        let duration_ms = self.random.range(tool.duration_ms.0, tool.duration_ms.1);
        self.at_ms += duration_ms;
        self.push(
            "tool_response",
            "info",
            json!({ "callId": call_id, "toolName": tool.name, "result": result, "durationMs": duration_ms }),
        );
        let text: String = result.to_string().chars().take(1200).collect();
        self.remember("tool", &text);
    }

    fn failing_call(&mut self, tool: Tool, arguments: &Value) {
        let call_id = self.begin_tool(tool, arguments);
        let is_timeout = self.random.chance(30);
        let (error, code, duration_ms) = if is_timeout {
            (
                format!("{} gave no answer within {TOOL_TIMEOUT_MS} ms", tool.name),
                "ETIMEDOUT",
                TOOL_TIMEOUT_MS,
            )
        } else {
            (tool.error.to_owned(), "EUPSTREAM", self.random.range(40, 900))
        };
        self.at_ms += duration_ms;
        self.push(
            "tool_error",
            "error",
            json!({ "callId": call_id, "toolName": tool.name, "error": error, "errorCode": code, "durationMs": duration_ms }),
        );
    }

    fn begin_tool(&mut self, tool: Tool, arguments: &Value) -> String {
        let call_id = self.next_call("call");
        self.tool_calls += 1;
        self.push(
            "tool_call",
            "info",
            json!({ "toolName": tool.name, "callId": call_id, "arguments": arguments }),
        );
        self.at_ms += 2;
        call_id
    }

    /// Someone is asked; `decision` is granted, denied or expired.
    pub(super) fn ask(&mut self, action: &str, params: &Value, decided_by: &str, decision: &str) {
        let request_id = self.next_call("approval");
        self.push(
            "approval_requested",
            "info",
            json!({ "requestId": request_id, "action": action, "params": params, "urgency": "normal" }),
        );
        self.wait_ms(20_000, 240_000);
        let (severity, reason) = match decision {
            "granted" => ("info", "within policy"),
            "denied" => ("warn", "not today: please take the cheaper way"),
            _ => ("warn", "nobody answered in time"),
        };
        self.push(
            &format!("approval_{decision}"),
            severity,
            json!({ "requestId": request_id, "action": action, "decidedBy": decided_by, "reason": reason }),
        );
    }

    /// Any other event.
    pub(super) fn note(&mut self, event_type: &str, payload: Value) {
        self.push(event_type, "info", payload);
        self.wait_ms(5, 60);
    }

    fn call_model(&mut self, model: Model, completion: Option<&str>, tool: Option<(Tool, &Value)>) {
        let call_id = self.next_call("llm");
        let mut messages = vec![json!({ "role": "system", "content": self.system })];
        messages.extend(self.messages.iter().cloned());
        let input = UNSEEN_TOKENS + tokens_of(&Value::from(messages.clone()).to_string());
        let said = completion.map_or_else(
            || tool.map_or(20, |(_, arguments)| tokens_of(&arguments.to_string()) + 12),
            tokens_of,
        );
        let mut usage = self.usage(model, input, said);
        let latency_ms =
            self.random.range(180, 700) + usage["outputTokens"].as_i64().unwrap_or(said) * 1000 / model.speed;
        self.push(
            "llm_call",
            "info",
            json!({
                "callId": call_id, "provider": model.provider, "model": model.name, "messages": messages,
                "parameters": { "temperature": 0.2, "maxTokens": 4096 },
            }),
        );
        self.at_ms += latency_ms;
        // The call that follows gets the next number.
        let next_id = format!("call_{}_{}", self.session_id, self.calls + 1);
        let tool_calls = tool
            .map(|(tool, arguments)| json!([{ "id": next_id, "name": tool.name, "arguments": arguments }]));
        let mut payload = json!({
            "callId": call_id, "provider": model.provider, "model": model.name, "completion": completion,
            "finishReason": if tool.is_some() { "tool_calls" } else { "stop" },
            "usage": usage.take(), "costUsd": 0, "latencyMs": latency_ms,
        });
        if let Some(tool_calls) = tool_calls {
            payload["toolCalls"] = tool_calls;
        }
        let nanos = self.price_of(&payload);
        if self.states_cost {
            payload["costUsd"] = json!(cost::nanos_to_usd(nanos));
        }
        self.cost_nanos += nanos;
        self.push("llm_response", "info", payload);
        self.wait_ms(20, 200);
    }

    /// Token counts as the provider's own API reports them: Anthropic's leaves cached tokens out of `inputTokens`.
    fn usage(&mut self, model: Model, input: i64, said: i64) -> Value {
        let thinking = if model.is_reasoning { self.random.range(40, 900) } else { 0 };
        let cached = self.cached_tokens.min(input * 9 / 10);
        let cache_write = if model.provider == "anthropic" && input > 600 { (input - cached) / 2 } else { 0 };
        self.cached_tokens = if input > 600 { input / 128 * 128 } else { 0 };
        let stated_input = if model.provider == "anthropic" { input - cached - cache_write } else { input };
        let output = said + thinking;
        let mut usage = json!({ "inputTokens": stated_input, "outputTokens": output, "totalTokens": stated_input + output });
        for (name, count) in
            [("cacheReadTokens", cached), ("cacheWriteTokens", cache_write), ("thinkingTokens", thinking)]
        {
            if count > 0 {
                usage[name] = json!(count);
            }
        }
        usage
    }

    /// What the server will compute, from the same facts and the same table.
    fn price_of(&self, payload: &Value) -> i64 {
        let text = payload.to_string();
        let members = JsonText::parse(&text).and_then(|value| value.members()).unwrap_or_default();
        let facts = facts_of(EventType::LlmResponse, &members, "{}");
        let (Some(model), Some(usage)) = (facts.model, facts.usage) else { return 0 };
        PriceTable::embedded()
            .find(facts.provider.as_deref(), &model, self.price_us)
            .and_then(|price| cost::compute(price, &usage))
            .unwrap_or(0)
    }

    fn remember(&mut self, role: &str, content: &str) {
        self.messages.push(json!({ "role": role, "content": content }));
        if self.messages.len() > KEPT_MESSAGES {
            self.messages.remove(0);
            // The beginning changed, so the provider's cache no longer fits.
            self.cached_tokens /= 3;
        }
    }

    fn next_call(&mut self, kind: &str) -> String {
        self.calls += 1;
        format!("{kind}_{}_{}", self.session_id, self.calls)
    }

    fn push(&mut self, event_type: &str, severity: &str, payload: Value) {
        let mut metadata = json!({ "source": "demo" });
        if let Some(user) = &self.user_id {
            metadata["userId"] = json!(user);
        }
        let mut event = json!({
            "id": format!("{}-{:04}", self.session_id, self.events.len() + 1), "sessionId": self.session_id, "agentId": self.agent_id,
            "eventType": event_type, "severity": severity, "metadata": metadata,
        });
        event["payload"] = payload;
        self.events.push((self.at_ms, event));
        self.at_ms += 1;
    }

    /// Ends the session and gives its events their instants: from `start_us` on, and never after `now_us`.
    pub(super) fn finish(mut self, summary: &str, start_us: i64, now_us: i64) -> Story {
        self.wait_ms(100, 1_500);
        let ended = match self.ending {
            Ending::Completed => Some(("completed", "info")),
            Ending::Error => Some(("error", "error")),
            Ending::Timeout => Some(("timeout", "warn")),
            Ending::Open => None,
        };
        if let Some((reason, severity)) = ended {
            let (total, calls) = (self.at_ms, self.tool_calls);
            self.push(
                "session_ended",
                severity,
                json!({ "reason": reason, "summary": summary, "totalToolCalls": calls, "totalDurationMs": total }),
            );
        }
        let base_us = start_us.min(now_us - (self.at_ms + 1_000) * 1_000);
        let events = self.events.into_iter().map(|(at_ms, mut event)| {
            event["timestamp"] = json!(format_rfc3339(base_us + at_ms * 1_000));
            event
        });
        Story { events: events.collect(), cost_nanos: self.cost_nanos }
    }
}

/// About how many tokens a text has: four bytes each, as a rule of thumb.
fn tokens_of(text: &str) -> i64 {
    i64::try_from(text.len() / 4 + 1).unwrap_or(i64::MAX)
}
