//! The senders: they choose the ids, repeat a batch until it is acknowledged, and remember what was.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::CrashArgs;
use crate::events::{now_ms, push_ulid};
use crate::http::{Connection, Origin};

const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// A batch that nobody takes for so long fails the run.
const DELIVERY_LIMIT: Duration = Duration::from_secs(120);
/// Sessions that all senders write to at the same time, and for how long before others take their place.
const SHARED_SESSIONS: u64 = 4;
const SHARED_FOR_MS: u64 = 3000;

/// What was acknowledged of one event.
pub(crate) struct Acknowledged {
    pub(crate) payload: u64,
    pub(crate) at: Instant,
}

/// All that the senders know.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By event id.
    pub(crate) events: HashMap<String, Acknowledged>,
    pub(crate) statuses: BTreeMap<String, u64>,
    /// What was refused though nothing was wrong with it.
    pub(crate) refusals: Vec<String>,
}

pub(crate) struct Senders {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Senders {
    pub(super) fn start(runtime: &Runtime, args: &CrashArgs, seed: u64, origin: Origin, key: &str) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let senders = (0..args.senders).map(|index| Sender {
            origin: origin.clone(),
            key: key.to_owned(),
            ledger: ledger.clone(),
            stop: stop.clone(),
            rng: SmallRng::seed_from_u64(seed ^ ((index as u64 + 1) << 40)),
            largest_batch: args.batch,
            longest_pause_ms: args.pause_ms,
            session: None,
            index,
        });
        let tasks = senders.map(|sender| runtime.spawn(sender.run())).collect();
        Self { ledger, stop, tasks }
    }

    /// Lets every sender finish its batch, so that nothing remains that was sent and not acknowledged.
    pub(crate) fn stop(self, runtime: &Runtime) -> Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            runtime.block_on(task)??;
        }
        Ok(std::mem::take(&mut *self.ledger.lock()))
    }
}

struct Session {
    id: String,
    agent: String,
    remaining: u32,
}

struct Sender {
    origin: Origin,
    key: String,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    rng: SmallRng,
    largest_batch: usize,
    longest_pause_ms: u64,
    session: Option<Session>,
    index: usize,
}

impl Sender {
    async fn run(mut self) -> Result<()> {
        let mut connection = None;
        while !self.stop.load(Ordering::Relaxed) {
            let size = self.rng.random_range(1..=self.largest_batch.max(1));
            let events = self.batch(size);
            self.deliver(&mut connection, &events).await?;
            let pause = self.rng.random_range(0..=self.longest_pause_ms);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    async fn deliver(&mut self, connection: &mut Option<Connection>, events: &[Value]) -> Result<()> {
        let body = Bytes::from(json!({ "events": events }).to_string());
        let since = Instant::now();
        loop {
            let pause = match self.attempt(connection, &body, events).await {
                Ok(None) => return Ok(()),
                Ok(Some(pause)) => pause,
                Err(_) => {
                    *connection = None;
                    *self.ledger.lock().statuses.entry("no answer".to_owned()).or_default() += 1;
                    Duration::from_millis(20)
                }
            };
            ensure!(
                since.elapsed() < DELIVERY_LIMIT,
                "a batch was not taken for {} s",
                DELIVERY_LIMIT.as_secs()
            );
            tokio::time::sleep(pause.min(LONGEST_RETRY_PAUSE)).await;
        }
    }

    /// One try: `None` when acknowledged, else how long to wait before the next.
    async fn attempt(
        &self,
        connection: &mut Option<Connection>,
        body: &Bytes,
        events: &[Value],
    ) -> Result<Option<Duration>> {
        if connection.is_none() {
            *connection = Some(self.origin.connect().await?);
        }
        let connection = connection.as_mut().context("connected above")?;
        let sending = connection.post("/api/events", &self.key, body.clone());
        let answer = tokio::time::timeout(ATTEMPT_LIMIT, sending).await??;
        let mut ledger = self.ledger.lock();
        *ledger.statuses.entry(answer.status.as_str().to_owned()).or_default() += 1;
        if !answer.status.is_success() {
            if answer.status.is_client_error() && answer.status.as_u16() != 429 {
                let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
                ledger.refusals.push(format!("status {}: {body}", answer.status));
            }
            return Ok(Some(answer.retry_after.unwrap_or(Duration::from_millis(50))));
        }
        let answer = answer.json()?;
        let errors = answer["errors"].as_array().cloned().unwrap_or_default();
        let refused: Vec<u64> = errors.iter().filter_map(|error| error["index"].as_u64()).collect();
        ledger.refusals.extend(errors.iter().map(Value::to_string));
        let at = Instant::now();
        for (index, event) in events.iter().enumerate() {
            if !refused.contains(&(index as u64)) {
                let id = event["id"].as_str().unwrap_or_default().to_owned();
                ledger.events.insert(id, Acknowledged { payload: fingerprint(&event["payload"]), at });
            }
        }
        Ok(None)
    }

    /// Events in pairs (call and answer), mostly of the sender's own session, some of sessions that
    /// all senders write to at the same time.
    fn batch(&mut self, size: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(size + 2);
        while events.len() < size {
            if self.rng.random_ratio(1, 6) {
                let (number, turn) = (self.rng.random_range(0..SHARED_SESSIONS), now_ms() / SHARED_FOR_MS);
                self.tool_pair(&mut events, &format!("shared-{turn}-{number}"), "agent-shared");
                continue;
            }
            let Some(session) = self.session.take() else {
                let id = format!("crash-{}-{:012x}", self.index, self.rng.random::<u64>() >> 16);
                let agent = format!("agent-{}", self.rng.random_range(0..5));
                let payload = json!({"agentName": agent, "tags": ["crash"]});
                events.push(self.event(&id, &agent, "session_started", "info", &payload));
                self.session = Some(Session { id, agent, remaining: self.rng.random_range(5..60) });
                continue;
            };
            if session.remaining == 0 {
                let payload = json!({"reason": "completed"});
                events.push(self.event(&session.id, &session.agent, "session_ended", "info", &payload));
                continue;
            }
            if self.rng.random_ratio(1, 2) {
                self.llm_pair(&mut events, &session.id, &session.agent);
            } else {
                self.tool_pair(&mut events, &session.id, &session.agent);
            }
            self.session = Some(Session { remaining: session.remaining - 1, ..session });
        }
        events
    }

    /// A model no price table knows, so that the cost is the one stated here.
    fn llm_pair(&mut self, events: &mut Vec<Value>, session: &str, agent: &str) {
        let call = format!("{:016x}", self.rng.random::<u64>());
        let model = format!("unpriced-{}", self.rng.random_range(0..3));
        let payload = json!({"callId": call, "provider": "bench", "model": model,
            "messages": [{"role": "user", "content": format!("question {call} 質問")}]});
        events.push(self.event(session, agent, "llm_call", "info", &payload));
        let (input, output) = (self.rng.random_range(1..5000), self.rng.random_range(1..900));
        let cost_nanos: u32 = self.rng.random_range(1..50_000_000);
        let payload = json!({"callId": call, "provider": "bench", "model": model, "completion": "an answer",
            "finishReason": "stop", "costUsd": f64::from(cost_nanos) / 1e9, "latencyMs": self.rng.random_range(1..9000),
            "usage": {"inputTokens": input, "outputTokens": output, "totalTokens": input + output}});
        events.push(self.event(session, agent, "llm_response", "info", &payload));
    }

    fn tool_pair(&mut self, events: &mut Vec<Value>, session: &str, agent: &str) {
        let call = format!("{:016x}", self.rng.random::<u64>());
        let payload =
            json!({"toolName": "probe", "callId": call, "arguments": {"n": self.rng.random_range(0..1000)}});
        events.push(self.event(session, agent, "tool_call", "info", &payload));
        let duration = self.rng.random_range(1..3000);
        let event = if self.rng.random_ratio(1, 8) {
            let payload =
                json!({"toolName": "probe", "callId": call, "error": "refused", "durationMs": duration});
            self.event(session, agent, "tool_error", "error", &payload)
        } else {
            let payload = json!({"toolName": "probe", "callId": call, "result": [1, "zwei", null], "durationMs": duration});
            self.event(session, agent, "tool_response", "info", &payload)
        };
        events.push(event);
    }

    fn event(&mut self, session: &str, agent: &str, kind: &str, severity: &str, payload: &Value) -> Value {
        let mut id = Vec::with_capacity(26);
        push_ulid(&mut id, now_ms(), self.rng.random());
        json!({
            "id": String::from_utf8_lossy(&id), "sessionId": session, "agentId": agent, "eventType": kind,
            "severity": severity, "payload": payload, "metadata": {"source": "crash"},
            "timestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        })
    }
}

/// Of a payload, with its keys in their order: a changed byte changes it.
pub(crate) fn fingerprint(payload: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.to_string().hash(&mut hasher);
    hasher.finish()
}
