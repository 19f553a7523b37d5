//! Events as they are now. What arrived of a span is shown as the span is now, once: on its first event; later arrivals are left
//! out.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};

use agentlens_domain::cost::{CostSource, nanos_to_usd};
use agentlens_domain::limits::MAX_ANSWER_BYTES;
use agentlens_domain::spans::ARRIVAL_ID_PREFIX;
use agentlens_otlp::dialects::present;
use agentlens_store::{StoreError, StoredEvent, Workspace, span_address};

use crate::spans::{Address, CurrentSpan, address_of, with_parts};

/// What events are read for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// The session that is read: what is shown in another one now is left out.
    pub session: Option<&'a str>,
    /// Whether events were chosen by their content. Then a span is shown on a later arrival where its first was not chosen.
    pub is_chosen: bool,
}

/// An event as it is now.
#[derive(Debug, Clone)]
pub struct CurrentEvent {
    /// The event. Where it shows a span, payload, session, agent, environment and cost are the span's; the hash is still that of
    /// what arrived.
    pub event: StoredEvent,
    /// The span that it shows.
    pub span: Option<CurrentSpan>,
}

/// Stored events as they are now, in the same order.
pub async fn current_events(
    workspace: &Workspace,
    events: Vec<StoredEvent>,
    reading: Reading<'_>,
) -> Result<Vec<CurrentEvent>, StoreError> {
    let addresses: Vec<Option<Address>> = events.iter().map(address).collect();
    let ids: Vec<Address> = addresses.iter().flatten().cloned().collect();
    let rows = workspace.spans().find(&ids).await?;
    let spans = with_parts(workspace, rows).await?;
    let mut spans: FxHashMap<Address, CurrentSpan> =
        spans.into_iter().map(|span| (address_of(&span.row), span)).collect();
    let shown = shown_on(&events, &addresses, &spans, reading);
    let payloads =
        payloads(workspace, &events, shown.iter().filter_map(|at| spans.get(at.as_ref()?))).await?;
    let is_of_a_span: Vec<bool> =
        addresses.iter().map(|at| at.as_ref().is_some_and(|at| spans.contains_key(at))).collect();
    let mut current = Vec::with_capacity(events.len());
    for ((event, shown), is_of_a_span) in events.into_iter().zip(shown).zip(is_of_a_span) {
        if let Some(span) = shown.and_then(|address| spans.remove(&address)) {
            let ids = span.content_ids();
            let texts: Vec<&str> = ids.iter().filter_map(|id| payloads.get(id)).map(String::as_str).collect();
            let payload = payload_of(&span, present(&texts));
            current.push(CurrentEvent { event: as_span(event, &span, &payload), span: Some(span) });
        } else if !is_of_a_span && reading.session.is_none_or(|session| session == event.session_id) {
            current.push(CurrentEvent { event, span: None });
        }
    }
    Ok(current)
}

/// For each event, the span that it shows.
fn shown_on(
    events: &[StoredEvent],
    addresses: &[Option<Address>],
    spans: &FxHashMap<Address, CurrentSpan>,
    reading: Reading<'_>,
) -> Vec<Option<Address>> {
    let chosen: FxHashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let mut later: FxHashSet<&Address> = FxHashSet::default();
    let mut shown_on = |event: &StoredEvent, address: &Option<Address>| {
        let (address, span) = spans.get_key_value(address.as_ref()?)?;
        let first = span.row.span.first_event_id();
        let is_shown = if chosen.contains(first) {
            event.id == first
        } else {
            reading.is_chosen && later.insert(address)
        };
        let is_of_session = reading.session.is_none_or(|session| session == span.row.session_id);
        (is_shown && is_of_session).then(|| address.clone())
    };
    events.iter().zip(addresses).map(|(event, address)| shown_on(event, address)).collect()
}

/// The payloads of all arrivals of spans and their parts; those of the page are at hand, the others are read.
async fn payloads<'s>(
    workspace: &Workspace,
    page: &[StoredEvent],
    shown: impl Iterator<Item = &'s CurrentSpan>,
) -> Result<FxHashMap<String, String>, StoreError> {
    let mut missing: FxHashSet<String> = shown.flat_map(CurrentSpan::content_ids).collect();
    let mut payloads: FxHashMap<String, String> = FxHashMap::default();
    for event in page {
        if missing.remove(&event.id) {
            payloads.insert(event.id.clone(), event.payload.clone());
        }
    }
    // A span with more content than one answer may have is shown without the rest.
    let read = workspace.events().by_ids_within(missing.into_iter().collect(), MAX_ANSWER_BYTES).await?;
    payloads.extend(read.into_iter().map(|event| (event.id, event.payload)));
    Ok(payloads)
}

/// The content of a span, with where it is and whom it is counted for.
fn payload_of(span: &CurrentSpan, mut payload: Map<String, Value>) -> Map<String, Value> {
    let (row, facts) = (&span.row, span.row.span.facts());
    let counted = &row.span.shown.counted;
    let own = &row.span.shown.own;
    let mut set = |name: &str, text: &str| payload.insert(name.to_owned(), text.into());
    set("traceId", &row.trace_id);
    set("spanId", &row.span_id);
    set("sessionId", &row.session_id);
    set("agentId", &counted.agent_id);
    set("environment", &counted.environment);
    if let Some(name) = &facts.span_name {
        set("name", name);
    }
    if let Some(user_id) = &counted.user_id {
        set("userId", user_id);
    }
    // The content of parts, which is read together with the span's, may name another parent.
    match &facts.parent_span_id {
        Some(parent) => set("parentSpanId", parent),
        None => payload.remove("parentSpanId"),
    };
    if own.cost_source.is_some_and(|source| source != CostSource::Unknown) {
        payload.insert("costUsd".to_owned(), nanos_to_usd(own.cost_nanos).into());
    }
    payload
}

/// The event with what its span is now.
fn as_span(event: StoredEvent, span: &CurrentSpan, payload: &Map<String, Value>) -> StoredEvent {
    let counted = &span.row.span.shown.counted;
    let cost = span.cost();
    StoredEvent {
        payload: serde_json::to_string(payload).unwrap_or_else(|_| "null".to_owned()),
        session_id: span.row.session_id.clone(),
        agent_id: counted.agent_id.clone(),
        environment: counted.environment.clone(),
        cost_source: cost.map(|cost| cost.source.as_str().to_owned()),
        cost_nanos: cost.map(|cost| cost.nanos),
        reported_cost_nanos: cost.and_then(|cost| cost.reported_nanos),
        computed_cost_nanos: cost.and_then(|cost| cost.computed_nanos),
        ..event
    }
}

/// Trace and span of an event that arrived of one.
fn address(event: &StoredEvent) -> Option<Address> {
    if !event.id.starts_with(ARRIVAL_ID_PREFIX) {
        return None;
    }
    span_address(&event.metadata, event.payload.as_bytes())
}
