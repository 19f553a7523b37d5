//! One export request: reads its items into events, makes them durable, and reports the refused ones in the response.

use std::time::Duration;

use bytes::Bytes;

use agentlens_domain::events::{NewEvent, Refusal};
use agentlens_domain::ledger::{Reason, Refusals};
use agentlens_fairness::Shortage;
use agentlens_ingest::EventsRequest;
use agentlens_ingest::gateway::LARGE_BODY_BYTES;
use agentlens_otlp::dialects::{self, ClientReport, Context, Normalised};
use agentlens_otlp::wire::{self, BrokenItem, Encoding, MAX_DETAILS, Partial, Signal, WireError};

use crate::auth::{EventsWrite, Scope};
use crate::error::{ApiError, request_id};
use crate::ingest_requests::{MAX_REASONS, Observed, Report};
use crate::state::AppState;

/// An export request.
pub(super) struct Export {
    /// The signal.
    pub(super) signal: Signal,
    /// The encoding.
    pub(super) encoding: Encoding,
    /// The decompressed message.
    pub(super) body: Bytes,
    /// The client's `User-Agent`.
    pub(super) user_agent: Option<String>,
}

/// The readable part of a request.
struct Reading {
    /// The number of items in the request, as far as it is known.
    items: usize,
    events: Vec<NewEvent>,
    refused: Vec<Refused>,
    clients: Vec<ClientReport>,
    repaired: u64,
}

/// An item that is not stored.
struct Refused {
    reason: Reason,
    /// Which item it is, and why it was refused.
    message: String,
}

impl Refused {
    /// Whether data was lost. A span that was only announced is sent again when it ends.
    fn is_lost(&self) -> bool {
        self.reason != Reason::Duplicate
    }
}

/// Ingests one request. Accepted items are durable on return. `None` means that all were accepted.
pub(super) async fn export(
    state: &AppState,
    scope: &Scope<EventsWrite>,
    export: Export,
) -> Result<Option<Partial>, ApiError> {
    let Export { signal, encoding, body, user_agent } = export;
    let now_us = state.now_us();
    let observed = |items, refused, report| Observed {
        request_id: request_id(),
        received_us: now_us,
        signal: name(signal),
        user_agent: user_agent.clone(),
        items,
        refused,
        report,
    };
    let reading = match read(state, scope, (signal, encoding), body, now_us).await? {
        Ok(reading) => reading,
        Err(error) => {
            let observed = observed(0, 0, Report::of_failure(&error.to_string()));
            state.ingest_requests.note(&scope.workspace, scope.key()?, observed);
            return Err(refusal_of(&error));
        }
    };
    let Reading { items, events, mut refused, clients, repaired } = reading;
    if signal != Signal::Metrics {
        let refusals = store(state, scope, now_us, items, events, &refused).await?;
        refused.extend(refusals.into_iter().map(|refusal| Refused {
            reason: refusal.reason,
            message: format!("{}: {}", refusal.field, refusal.message),
        }));
        let accepted = items.saturating_sub(refused.len());
        state.metrics.count_ingest(scope.org_id().as_str(), accepted, refused.len());
    }
    state.metrics.count_otlp(name(signal), items.saturating_sub(refused.len()), refused.len());
    let partial = partial_of(signal, items, &refused);
    if items > 0 {
        let reasons = refused.iter().take(MAX_REASONS).map(|refused| refused.message.clone()).collect();
        let observed = observed(items, refused.len(), Report::of(clients, reasons, repaired));
        state.ingest_requests.note(&scope.workspace, scope.key()?, observed);
    }
    Ok(partial)
}

async fn store(
    state: &AppState,
    scope: &Scope<EventsWrite>,
    now_us: i64,
    received_count: usize,
    events: Vec<NewEvent>,
    refused: &[Refused],
) -> Result<Vec<Refusal>, ApiError> {
    let mut refusals = Refusals::default();
    for refused in refused {
        refusals.add(refused.reason);
    }
    let sender = scope.key()?.sender();
    let request = EventsRequest { sender, now_us, received_count, events, refused: refusals };
    Ok(state.gateway.ingest_events(scope.org(), request).await?)
}

/// Reads a request, on the blocking pool if that takes long. The memory of small requests is limited by their size
/// and the number of threads. Large ones wait for memory.
async fn read(
    state: &AppState,
    scope: &Scope<EventsWrite>,
    (signal, encoding): (Signal, Encoding),
    body: Bytes,
    now_us: i64,
) -> Result<Result<Reading, WireError>, ApiError> {
    if body.len() <= LARGE_BODY_BYTES {
        return Ok(read_now(signal, encoding, &body, now_us));
    }
    let parsing = &state.shares.parsing;
    let bytes = decoded_bytes(body.len()).min(parsing.rule().most());
    let room = parsing.take(scope.org_id(), bytes, DECODE_PATIENCE).await.map_err(busy)?;
    let task = tokio::task::spawn_blocking(move || {
        let reading = read_now(signal, encoding, &body, now_us);
        drop(room);
        reading
    });
    task.await.map_err(|_| ApiError::internal())
}

/// How long a large request waits for memory to be decoded in.
const DECODE_PATIENCE: Duration = Duration::from_secs(10);
/// A decoded request made of empty attributes takes this many times its bytes.
const MAX_GROWTH: u64 = 36;
/// Bytes that a decoded attribute takes in addition to its text.
const DETAIL_BYTES: u64 = 100;

/// The most bytes that a request takes once decoded.
fn decoded_bytes(length: usize) -> u64 {
    let length = length as u64;
    (length * MAX_GROWTH).min(2 * length + MAX_DETAILS as u64 * DETAIL_BYTES)
}

fn busy(shortage: Shortage) -> ApiError {
    let message = match shortage {
        Shortage::OwnShare { .. } | Shortage::TooManyWaiting => {
            "Too many large requests of this org are being decoded"
        }
        _ => "The server is decoding as many large requests as it can",
    };
    ApiError::too_many_requests("bodies_full", message, 1)
        .with_hint("retry after the seconds in Retry-After, and send fewer large requests at a time")
}

fn read_now(signal: Signal, encoding: Encoding, body: &[u8], now_us: i64) -> Result<Reading, WireError> {
    let context = Context { now_us };
    match signal {
        Signal::Traces => {
            let decoded = wire::decode_traces(encoding, body)?;
            let normalised = dialects::events_of_traces(&decoded.request, &context);
            Ok(Reading::of("Span", normalised, decoded.broken, decoded.repaired))
        }
        Signal::Logs => {
            let decoded = wire::decode_logs(encoding, body)?;
            let normalised = dialects::events_of_logs(&decoded.request, &context);
            Ok(Reading::of("Log record", normalised, decoded.broken, decoded.repaired))
        }
        Signal::Metrics => {
            // Counted and not stored, because spans already report the tokens.
            let decoded = wire::decode_metrics(encoding, body)?;
            let mut reading = Reading::of("Metric", Normalised::default(), decoded.broken, decoded.repaired);
            reading.items += decoded.request;
            Ok(reading)
        }
    }
}

impl Reading {
    fn of(noun: &str, normalised: Normalised, broken: Vec<BrokenItem>, repaired: u64) -> Self {
        let items = normalised.events.len() + normalised.refused.len() + broken.len();
        let broken =
            broken.into_iter().map(|broken| Refused { reason: broken.reason, message: broken.message });
        let refused = normalised.refused.into_iter().map(|refused| Refused {
            reason: refused.reason,
            message: format!("{noun} number {}: {}.", refused.index + 1, refused.message),
        });
        Self {
            items,
            refused: broken.chain(refused).collect(),
            events: normalised.events,
            clients: normalised.clients,
            repaired,
        }
    }
}

/// The message to the client about lost items.
fn partial_of(signal: Signal, items: usize, refused: &[Refused]) -> Option<Partial> {
    let lost: Vec<&str> =
        refused.iter().filter(|refused| refused.is_lost()).map(|refused| &*refused.message).collect();
    if lost.is_empty() {
        return None;
    }
    let noun = match signal {
        Signal::Traces => "spans",
        Signal::Logs => "log records",
        Signal::Metrics => "metrics",
    };
    let mut message = format!("{} of {items} {noun} were refused. ", lost.len());
    message.push_str(&lost[..lost.len().min(MAX_REASONS)].join(" "));
    if lost.len() > MAX_REASONS {
        message.push_str(&format!(" And {} more.", lost.len() - MAX_REASONS));
    }
    Some(Partial { rejected: i64::try_from(lost.len()).unwrap_or(i64::MAX), message })
}

/// The body is not a request; sending it again does not help.
fn refusal_of(error: &WireError) -> ApiError {
    match error {
        WireError::TooManyItems { .. } | WireError::TooManyDetails { .. } | WireError::TooLong { .. } => {
            ApiError::too_large(error.to_string())
        }
        WireError::Json { .. } | WireError::Protobuf { .. } => {
            ApiError::bad_request("invalid_body", error.to_string())
        }
    }
}

/// The name of a signal in paths, rows and metrics.
fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces",
        Signal::Logs => "logs",
        Signal::Metrics => "metrics",
    }
}
