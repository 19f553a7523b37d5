//! What is traced: an agent's run of ten spans as OpenTelemetry's GenAI conventions have it. The agent takes three
//! steps, each asks a model, the first two call tools with the answer. About 1.3 KB a span as protobuf.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::marks::Mark;
use crate::text::Text;

/// Spans of one run.
pub(crate) const RUN_SPANS: u32 = 10;
/// Ticks from the beginning of a run to its end.
pub(crate) const RUN_TICKS: u32 = 68_000;
const STEP_TICKS: u32 = 22_000;
/// Runs of one conversation.
const CONVERSATION_RUNS: u32 = 2;

const AGENTS: [&str; 6] =
    ["support-triage", "billing-helper", "code-reviewer", "research-scout", "travel-planner", "shop-guide"];
/// Provider, model asked for, model that answered, host.
const MODELS: [(&str, &str, &str, &str); 4] = [
    ("openai", "gpt-4o", "gpt-4o-2024-08-06", "api.openai.com"),
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "api.openai.com"),
    ("anthropic", "claude-sonnet-4-20250514", "claude-sonnet-4-20250514", "api.anthropic.com"),
    ("mistral_ai", "mistral-large-latest", "mistral-large-2411", "api.mistral.ai"),
];
const TOOLS: [&str; 6] =
    ["search_orders", "read_file", "run_query", "send_mail", "fetch_page", "create_ticket"];
const FAILED_TOOLS_ONE_IN: u32 = 12;

/// An attribute's value, of the types that GenAI clients use.
pub(crate) enum Value {
    Text(String),
    List(String),
    Number(i64),
    Fraction(f64),
}

/// A span before it is encoded; ids are marks.
pub(crate) struct Shape {
    pub(crate) trace: u32,
    pub(crate) number: u32,
    pub(crate) parent: Option<u32>,
    pub(crate) name: String,
    /// Whether it calls another service.
    pub(crate) is_client: bool,
    pub(crate) start_ticks: u32,
    pub(crate) end_ticks: u32,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    pub(crate) error: Option<&'static str>,
}

/// Where a run, or a single span, hangs.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) trace: u32,
    pub(crate) conversation: u32,
    /// The number of its first span.
    pub(crate) first: u32,
    pub(crate) parent: Option<u32>,
    pub(crate) start_ticks: u32,
}

impl Place {
    /// Of a run that is a trace of its own.
    pub(crate) fn of_trace(trace: u32) -> Self {
        let (conversation, first) = (trace / CONVERSATION_RUNS, trace * RUN_SPANS);
        Self { trace, conversation, first, parent: None, start_ticks: 0 }
    }
}

/// Makes spans up. The same seed makes the same ones.
pub(crate) struct Story<'a> {
    text: &'a Text,
    rng: SmallRng,
}

impl<'a> Story<'a> {
    pub(crate) fn new(text: &'a Text, seed: u64) -> Self {
        Self { text, rng: SmallRng::seed_from_u64(seed) }
    }

    /// One run, parents first.
    pub(crate) fn run(&mut self, place: Place) -> Vec<Shape> {
        let agent = AGENTS[self.rng.random_range(0..AGENTS.len())];
        let model = self.rng.random_range(0..MODELS.len());
        let mut shapes = vec![self.agent(place, agent, model)];
        let mut number = place.first + 1;
        for step in 0..3u32 {
            let start_ticks = place.start_ticks + 500 + step * STEP_TICKS;
            let mut below = Place { first: number, parent: Some(place.first), start_ticks, ..place };
            shapes.push(self.step(below, step));
            below.parent = Some(number);
            below.first += 1;
            shapes.push(self.chat(below, agent, model));
            for tool in 0..[1, 2, 0][step as usize] {
                below.first += 1;
                below.start_ticks = start_ticks + 12_000 + tool * 4_000;
                shapes.push(self.tool(below, agent));
            }
            number = below.first + 1;
        }
        shapes
    }

    pub(crate) fn agent(&mut self, place: Place, agent: &str, model: usize) -> Shape {
        let (provider, asked, ..) = MODELS[model % MODELS.len()];
        let (question, answer) = (self.words(420), self.words(380));
        let attributes = vec![
            ("gen_ai.operation.name", text("invoke_agent")),
            ("gen_ai.provider.name", text(provider)),
            ("gen_ai.agent.name", text(agent)),
            ("gen_ai.conversation.id", Value::Text(conversation(place))),
            ("user.id", Value::Text(format!("user-{}", self.rng.random_range(0..5000)))),
            ("gen_ai.request.model", text(asked)),
            ("gen_ai.input.messages", Value::Text(message("user", &question))),
            ("gen_ai.output.messages", Value::Text(message("assistant", &answer))),
        ];
        shape(place, format!("invoke_agent {agent}"), RUN_TICKS, attributes)
    }

    fn step(&mut self, place: Place, step: u32) -> Shape {
        let attributes = vec![
            ("gen_ai.operation.name", text("agent_step")),
            ("gen_ai.conversation.id", Value::Text(conversation(place))),
            ("agent.step.number", Value::Number(i64::from(step) + 1)),
        ];
        shape(place, format!("step {}", step + 1), STEP_TICKS - 500, attributes)
    }

    fn chat(&mut self, place: Place, agent: &str, model: usize) -> Shape {
        let (provider, asked, answered, host) = MODELS[model % MODELS.len()];
        let (question, found, answer) = (self.words(560), self.words(360), self.words(400));
        let input = format!(
            "[{},{},{}]",
            part("system", &format!("You are {agent}. Answer in the customer's language.")),
            part("user", &question),
            part("tool", &found)
        );
        let (input_tokens, output_tokens) =
            (self.rng.random_range(300..4000), self.rng.random_range(40..900));
        let attributes = vec![
            ("gen_ai.operation.name", text("chat")),
            ("gen_ai.provider.name", text(provider)),
            ("gen_ai.agent.name", text(agent)),
            ("gen_ai.conversation.id", Value::Text(conversation(place))),
            ("gen_ai.request.model", text(asked)),
            ("gen_ai.request.temperature", Value::Fraction(0.2)),
            ("gen_ai.request.max_tokens", Value::Number(4096)),
            ("gen_ai.response.model", text(answered)),
            ("gen_ai.response.id", Value::Text(format!("chatcmpl-{}", Mark::Span(place.first).hex()))),
            ("gen_ai.response.finish_reasons", Value::List("stop".to_owned())),
            ("gen_ai.usage.input_tokens", Value::Number(input_tokens)),
            ("gen_ai.usage.output_tokens", Value::Number(output_tokens)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Number(input_tokens / 3)),
            ("gen_ai.usage.reasoning.output_tokens", Value::Number(output_tokens / 4)),
            ("gen_ai.input.messages", Value::Text(input)),
            ("gen_ai.output.messages", Value::Text(message("assistant", &answer))),
            ("gen_ai.tool.definitions", text(TOOL_DEFINITIONS)),
            ("server.address", text(host)),
            ("server.port", Value::Number(443)),
        ];
        let duration = self.rng.random_range(6_000..11_000);
        Shape { is_client: true, ..shape(place, format!("chat {asked}"), duration, attributes) }
    }

    pub(crate) fn tool(&mut self, place: Place, agent: &str) -> Shape {
        let tool = TOOLS[self.rng.random_range(0..TOOLS.len())];
        let (arguments, result) = (self.words(160), self.words(620));
        let mut attributes = vec![
            ("gen_ai.operation.name", text("execute_tool")),
            ("gen_ai.agent.name", text(agent)),
            ("gen_ai.conversation.id", Value::Text(conversation(place))),
            ("gen_ai.tool.name", text(tool)),
            ("gen_ai.tool.type", text("function")),
            ("gen_ai.tool.call.id", Value::Text(format!("call_{}", Mark::Span(place.first).hex()))),
            ("gen_ai.tool.call.arguments", Value::Text(format!("{{\"query\":\"{arguments}\"}}"))),
            ("gen_ai.tool.call.result", Value::Text(format!("{{\"found\":\"{result}\"}}"))),
        ];
        let error = self.rng.random_ratio(1, FAILED_TOOLS_ONE_IN).then_some("the service did not answer");
        if error.is_some() {
            attributes.push(("error.type", text("TimeoutError")));
        }
        let duration = self.rng.random_range(200..3_500);
        Shape { error, ..shape(place, format!("execute_tool {tool}"), duration, attributes) }
    }

    /// Text that is safe inside a JSON string.
    fn words(&mut self, bytes: usize) -> String {
        let mut out = Vec::with_capacity(bytes + 80);
        self.text.append(&mut out, bytes, &mut self.rng);
        String::from_utf8(out).unwrap_or_default()
    }
}

const TOOL_DEFINITIONS: &str = "[{\"type\":\"function\",\"name\":\"search_orders\",\"description\":\"Finds a customer's orders.\",\
\"parameters\":{\"type\":\"object\",\"properties\":{\"query\":{\"type\":\"string\"}},\"required\":[\"query\"]}}]";

/// As the server will know the session.
pub(crate) fn conversation_id(id: &str) -> String {
    format!("conv_{id}")
}

fn conversation(place: Place) -> String {
    conversation_id(&Mark::Conversation(place.conversation).hex())
}

fn shape(place: Place, name: String, ticks: u32, attributes: Vec<(&'static str, Value)>) -> Shape {
    Shape {
        trace: place.trace,
        number: place.first,
        parent: place.parent,
        name,
        is_client: false,
        start_ticks: place.start_ticks,
        end_ticks: place.start_ticks + ticks,
        attributes,
        error: None,
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn part(role: &str, content: &str) -> String {
    format!("{{\"role\":\"{role}\",\"parts\":[{{\"type\":\"text\",\"content\":\"{content}\"}}]}}")
}

fn message(role: &str, content: &str) -> String {
    format!("[{}]", part(role, content))
}
