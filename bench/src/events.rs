//! Events as agents send them: sessions of about twenty events (start, model calls with usage and
//! cost, tool calls with answers and errors, end), hundreds of them open at once, ten agents, five
//! models. Bodies are written by copying pieces, about a third of a microsecond per event.

use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::http::Answer;
use crate::sender::{Feed, Plan};
use crate::text::Text;

const AGENTS: [&str; 10] = [
    "support-triage",
    "billing-helper",
    "code-reviewer",
    "research-scout",
    "sales-writer",
    "data-cleaner",
    "ops-watcher",
    "travel-planner",
    "legal-reader",
    "shop-guide",
];
/// Provider and model.
const MODELS: [(&str, &str); 5] = [
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-20250514"),
    ("google", "gemini-2.0-flash"),
    ("mistral", "mistral-large-latest"),
];
const TOOLS: [&str; 8] = [
    "search_orders",
    "read_file",
    "run_query",
    "send_mail",
    "fetch_page",
    "create_ticket",
    "get_weather",
    "lookup_user",
];
/// What follows a payload's text in every event: closing fields, metadata and timestamp.
const TAIL_BYTES: usize = 145;
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const MS_PER_DAY: u64 = 86_400_000;

/// One conversation in progress.
struct Session {
    id: String,
    agent: usize,
    model: usize,
    step: u32,
    /// Rounds of model call, answer, tool call, tool answer before the closing ones.
    rounds: u32,
}

enum Kind {
    Started,
    LlmCall,
    LlmResponse,
    ToolCall,
    ToolResponse,
    Ended,
}

impl Session {
    fn open(rng: &mut SmallRng) -> Self {
        let id = format!("ses_{:016x}", rng.random::<u64>());
        let (agent, model) = (rng.random_range(0..AGENTS.len()), rng.random_range(0..MODELS.len()));
        Self { id, agent, model, step: 0, rounds: rng.random_range(2..=6) }
    }

    fn kind(&self) -> Kind {
        let Some(step) = self.step.checked_sub(1) else { return Kind::Started };
        match (step.checked_sub(self.rounds * 4), step % 4) {
            (None | Some(0), 0) => Kind::LlmCall,
            (None | Some(1), 1) => Kind::LlmResponse,
            (None, 2) => Kind::ToolCall,
            (None, _) => Kind::ToolResponse,
            (Some(_), _) => Kind::Ended,
        }
    }
}

/// What the events of a load are like.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    pub(crate) event_bytes: usize,
    pub(crate) open_sessions: usize,
    pub(crate) seed: u64,
}

/// Bodies of one lane: a generator for each key.
pub(crate) struct EventFeed {
    generators: Vec<Generator>,
    batch: usize,
}

impl EventFeed {
    pub(crate) fn new(text: &Arc<Text>, mix: &Mix, plan: &Plan, lane: usize, lanes: usize) -> Self {
        let sessions = mix.open_sessions.div_ceil(lanes * plan.keys.len().max(1));
        let generators = (0..plan.keys.len())
            .map(|key| {
                let seed = mix.seed ^ ((lane as u64) << 32) ^ ((key as u64) << 48);
                Generator::new(text.clone(), seed, sessions, mix.event_bytes)
            })
            .collect();
        Self { generators, batch: plan.batch }
    }
}

impl Feed for EventFeed {
    fn next(&mut self, key: usize) -> Option<Bytes> {
        Some(Bytes::from(self.generators.get_mut(key)?.body(self.batch, now_ms(), 0)))
    }

    fn accepted(&self, answer: &Answer, _batch: u64) -> u64 {
        answer.count("accepted").or_else(|| answer.count("ingested")).unwrap_or(0)
    }
}

/// Makes bodies for one key. The same seed makes the same bodies.
pub(crate) struct Generator {
    text: Arc<Text>,
    rng: SmallRng,
    sessions: Vec<Session>,
    event_bytes: usize,
    client_ids: bool,
    day: (u64, String),
}

impl Generator {
    pub(crate) fn new(text: Arc<Text>, seed: u64, sessions: usize, event_bytes: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let sessions = (0..sessions.max(1))
            .map(|_| {
                // Sessions start out at different points, or all would end in the same second.
                let mut session = Session::open(&mut rng);
                session.step = rng.random_range(0..session.rounds * 4 + 4);
                session
            })
            .collect();
        Self { text, rng, sessions, event_bytes, client_ids: false, day: (u64::MAX, String::new()) }
    }

    /// One session of exactly `4 * rounds + 4` events, for the timeline measurement.
    pub(crate) fn of_one_session(text: Arc<Text>, id: &str, rounds: u32) -> Self {
        let mut generator = Self::new(text, 1, 1, 600);
        generator.sessions[0] = Session { id: id.to_owned(), agent: 0, model: 0, step: 0, rounds };
        generator
    }

    /// Gives every event an id, so that sending a body again stores nothing twice.
    pub(crate) fn with_client_ids(mut self) -> Self {
        self.client_ids = true;
        self
    }

    /// A request body of `count` events, the first at `start_ms`, each `step_us` after the one before.
    pub(crate) fn body(&mut self, count: usize, start_ms: u64, step_us: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(count * (self.event_bytes + 64) + 16);
        out.extend_from_slice(b"{\"events\":[");
        for index in 0..count {
            if index > 0 {
                out.push(b',');
            }
            self.event(&mut out, start_ms + index as u64 * step_us / 1000);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn event(&mut self, out: &mut Vec<u8>, at_ms: u64) {
        let begin = out.len();
        let index = self.rng.random_range(0..self.sessions.len());
        let kind = self.sessions[index].kind();
        out.push(b'{');
        if self.client_ids {
            out.extend_from_slice(b"\"id\":\"");
            push_ulid(out, at_ms, self.rng.random());
            out.extend_from_slice(b"\",");
        }
        let session = &self.sessions[index];
        put(
            out,
            &[
                "\"sessionId\":\"",
                &session.id,
                "\",\"agentId\":\"",
                AGENTS[session.agent],
                "\",\"eventType\":\"",
            ],
        );
        let ended = matches!(kind, Kind::Ended);
        self.payload(out, index, &kind, begin);
        put(out, &[",\"metadata\":{\"source\":\"bench\",\"userId\":\"user-"]);
        push_number(out, self.rng.random_range(0..500));
        put(out, &["\",\"traceId\":\""]);
        push_hex(out, self.rng.random());
        put(out, &["\"},\"timestamp\":\""]);
        self.push_timestamp(out, at_ms);
        put(out, &["\"}"]);
        self.sessions[index].step += 1;
        if ended {
            self.sessions[index] = Session::open(&mut self.rng);
        }
    }

    fn payload(&mut self, out: &mut Vec<u8>, index: usize, kind: &Kind, begin: usize) {
        let session = &self.sessions[index];
        let (provider, model) = MODELS[session.model];
        match kind {
            Kind::Started => {
                put(
                    out,
                    &[
                        "session_started\",\"severity\":\"info\",\"payload\":{\"agentName\":\"",
                        AGENTS[session.agent],
                    ],
                );
                put(
                    out,
                    &["\",\"agentVersion\":\"2.4.1\",\"tags\":[\"bench\",\"", provider, "\"],\"goal\":\""],
                );
                self.filler(out, begin);
                put(out, &["\"}"]);
            }
            Kind::LlmCall => {
                put(
                    out,
                    &["llm_call\",\"severity\":\"info\",\"payload\":{\"callId\":\"c", &session.id[4..], "-"],
                );
                push_number(out, u64::from(session.step / 2));
                put(out, &["\",\"provider\":\"", provider, "\",\"model\":\"", model]);
                put(out, &["\",\"messages\":[{\"role\":\"user\",\"content\":\""]);
                self.filler(out, begin);
                put(out, &["\"}],\"parameters\":{\"temperature\":0.2,\"maxTokens\":1024}}"]);
            }
            Kind::LlmResponse => self.llm_response(out, index, begin),
            Kind::ToolCall => {
                put(out, &["tool_call\",\"severity\":\"info\",\"payload\":{\"toolName\":\"", tool(session)]);
                put(out, &["\",\"callId\":\"t", &session.id[4..], "-"]);
                push_number(out, u64::from(session.step / 2));
                put(out, &["\",\"arguments\":{\"limit\":20,\"query\":\""]);
                self.filler(out, begin);
                put(out, &["\"}}"]);
            }
            Kind::ToolResponse => self.tool_response(out, index, begin),
            Kind::Ended => {
                put(
                    out,
                    &[
                        "session_ended\",\"severity\":\"info\",\"payload\":{\"reason\":\"completed\",\"totalToolCalls\":",
                    ],
                );
                push_number(out, u64::from(session.rounds));
                put(out, &[",\"summary\":\""]);
                self.filler(out, begin);
                put(out, &["\"}"]);
            }
        }
    }

    fn llm_response(&mut self, out: &mut Vec<u8>, index: usize, begin: usize) {
        let session = &self.sessions[index];
        let (provider, model) = MODELS[session.model];
        put(
            out,
            &["llm_response\",\"severity\":\"info\",\"payload\":{\"callId\":\"c", &session.id[4..], "-"],
        );
        push_number(out, u64::from((session.step - 1) / 2));
        put(
            out,
            &[
                "\",\"provider\":\"",
                provider,
                "\",\"model\":\"",
                model,
                "\",\"finishReason\":\"stop\",\"usage\":",
            ],
        );
        let (input, output) = (self.rng.random_range(100..4000), self.rng.random_range(10..900));
        put(out, &["{\"inputTokens\":"]);
        push_number(out, input);
        put(out, &[",\"outputTokens\":"]);
        push_number(out, output);
        put(out, &[",\"totalTokens\":"]);
        push_number(out, input + output);
        put(out, &["},\"costUsd\":0.0"]);
        // Five digits, the last one odd, so that the number has no trailing zero.
        push_number(out, self.rng.random_range(5_000..50_000u64) * 2 - 1);
        put(out, &[",\"latencyMs\":"]);
        let latency: u64 = self.rng.random_range(1..80);
        push_number(out, 150 + latency * latency);
        put(out, &[",\"completion\":\""]);
        self.filler(out, begin);
        put(out, &["\"}"]);
    }

    fn tool_response(&mut self, out: &mut Vec<u8>, index: usize, begin: usize) {
        let failed = self.rng.random_ratio(1, 12);
        let session = &self.sessions[index];
        put(
            out,
            &[if failed {
                "tool_error\",\"severity\":\"error"
            } else {
                "tool_response\",\"severity\":\"info"
            }],
        );
        put(
            out,
            &["\",\"payload\":{\"toolName\":\"", tool(session), "\",\"callId\":\"t", &session.id[4..], "-"],
        );
        push_number(out, u64::from((session.step - 1) / 2));
        put(out, &["\",\"durationMs\":"]);
        push_number(out, self.rng.random_range(3..2500));
        put(
            out,
            &[if failed {
                ",\"errorCode\":\"E_UPSTREAM\",\"error\":\""
            } else {
                ",\"result\":{\"ok\":true,\"text\":\""
            }],
        );
        self.filler(out, begin);
        put(out, &[if failed { "\"}" } else { "\"}}" }]);
    }

    /// Text that brings the event to its size, give or take a half of the text.
    fn filler(&mut self, out: &mut Vec<u8>, begin: usize) {
        let room = self.event_bytes.saturating_sub(out.len() - begin + TAIL_BYTES).max(24);
        let bytes = self.rng.random_range(room / 2..=room * 3 / 2);
        self.text.append(out, bytes, &mut self.rng);
    }

    fn push_timestamp(&mut self, out: &mut Vec<u8>, at_ms: u64) {
        let (day, in_day) = (at_ms / MS_PER_DAY, at_ms % MS_PER_DAY);
        if self.day.0 != day {
            let noon = i64::try_from(day * 86_400).unwrap_or(0);
            let date = jiff::Timestamp::from_second(noon).unwrap_or_default();
            self.day = (day, date.strftime("%Y-%m-%dT").to_string());
        }
        out.extend_from_slice(self.day.1.as_bytes());
        for (value, after) in
            [(in_day / 3_600_000, b':'), (in_day / 60_000 % 60, b':'), (in_day / 1000 % 60, b'.')]
        {
            push_padded(out, value, 2);
            out.push(after);
        }
        push_padded(out, in_day % 1000, 3);
        out.push(b'Z');
    }
}

fn tool(session: &Session) -> &'static str {
    TOOLS[(session.agent + (session.step.saturating_sub(1) / 4) as usize) % TOOLS.len()]
}

fn put(out: &mut Vec<u8>, pieces: &[&str]) {
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    push_padded(out, value, 1);
}

/// Decimal digits with leading zeros up to `width`.
fn push_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 || digits.len() - at < width {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_hex(out: &mut Vec<u8>, value: u128) {
    for shift in (0..32).rev() {
        out.push(b"0123456789abcdef"[(value >> (shift * 4)) as usize & 15]);
    }
}

/// A ULID of a time and eighty random bits.
pub(crate) fn push_ulid(out: &mut Vec<u8>, at_ms: u64, random: u128) {
    let value = (u128::from(at_ms) << 80) | (random >> 48);
    for shift in (0..26).rev() {
        out.push(CROCKFORD[(value >> (shift * 5)) as usize & 31]);
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
