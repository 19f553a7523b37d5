//! Spans as several features show them: a node of the trace tree, and the current content of an event that arrived of one.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use agentlens_domain::cost::{CostSource, nanos_to_usd};
use agentlens_domain::limits::MAX_ANSWER_BYTES;
use agentlens_domain::spans::{ARRIVAL_ID_PREFIX, Span, SpanKind};
use agentlens_otlp::dialects::present;
use agentlens_store::{SpanRow, StoreError, StoredEvent, Workspace, span_address};

use crate::api::{CostView, EventView, ms};
use crate::client::Client;

/// A span, as it is counted now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpanView {
    /// Its trace.
    trace_id: String,
    /// Its id.
    span_id: String,
    /// The span under which it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    /// agent, workflow, step, llm, embedding, rerank, tool, retriever, memory, guardrail, evaluator, prompt, chain, http or other.
    kind: &'static str,
    /// The session in which it is shown.
    session_id: String,
    /// The agent that it is counted for.
    agent_id: String,
    /// The agent's name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_name: Option<String>,
    /// The end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// The environment.
    environment: String,
    /// The model's provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
    /// From the start to the first token, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_ms: Option<f64>,
    /// Input tokens that it owns, cached ones included. What only repeats other spans' tokens owns none.
    input_tokens: i64,
    /// Output tokens that it owns, reasoning included.
    output_tokens: i64,
    /// Of the input, read from the provider's cache.
    cache_read_tokens: i64,
    /// Of the input, written to the provider's cache.
    cache_write_tokens: i64,
    /// Of the output, reasoning.
    reasoning_tokens: i64,
    /// What it says it used itself or in sum below it, where that is counted elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_rollup: Option<RollupView>,
    /// What it cost, where it owns something that costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostView>,
    /// What an answer from the client's own cache saved, in dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_usd: Option<f64>,
    /// The span as part of which it is shown, because both speak of one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_of: Option<SpanAddress>,
    /// The spans that are shown as parts of it; tokens and cost are those of all together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<SpanAddress>,
    /// The events that arrived of it.
    event_ids: Vec<String>,
}

/// Tokens that are counted elsewhere.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RollupView {
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
}

/// Where a span is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SpanAddress {
    /// The trace.
    trace_id: String,
    /// The span.
    span_id: String,
}

impl SpanView {
    /// The view of a stored span together with its parts.
    pub fn of(row: &SpanRow, parts: &Parts) -> Self {
        let (facts, shown) = (row.span.facts(), &row.span.shown);
        let (counted, own) = (&shown.counted, &shown.own);
        let elsewhere = facts.usage.filter(|usage| own.usage.is_zero() && !usage.is_zero());
        let of_parts = parts.of(row);
        let first_token_us = of_parts.iter().find_map(|part| part.span.facts().first_token_us);
        Self {
            trace_id: row.trace_id.clone(),
            span_id: row.span_id.clone(),
            parent_span_id: shown.parent_span_id.clone(),
            kind: kind(&row.span).as_str(),
            session_id: row.session_id.clone(),
            agent_id: counted.agent_id.clone(),
            agent_name: facts.agent_name.clone(),
            user_id: counted.user_id.clone(),
            environment: counted.environment.clone(),
            provider: facts.provider.clone(),
            model: facts.model.clone(),
            tool_name: facts.tool_name.clone(),
            time_to_first_token_ms: facts.first_token_us.or(first_token_us).map(ms),
            input_tokens: own.usage.input,
            output_tokens: own.usage.output,
            cache_read_tokens: own.usage.cache_read,
            cache_write_tokens: own.usage.cache_write_5m + own.usage.cache_write_1h,
            reasoning_tokens: own.usage.reasoning,
            reported_rollup: elsewhere
                .map(|usage| RollupView { input_tokens: usage.input, output_tokens: usage.output }),
            cost: cost(&row.span),
            saved_usd: (own.saved_cost_nanos > 0).then(|| nanos_to_usd(own.saved_cost_nanos)),
            part_of: shown.part_of.as_ref().map(SpanAddress::of),
            parts: shown.parts.iter().map(SpanAddress::of).collect(),
            event_ids: event_ids(&row.span),
        }
    }
}

impl SpanAddress {
    fn of((trace_id, span_id): &(String, String)) -> Self {
        Self { trace_id: trace_id.clone(), span_id: span_id.clone() }
    }
}

/// Spans that are shown as parts of others.
#[derive(Default)]
pub struct Parts(FxHashMap<(String, String), SpanRow>);

impl Parts {
    /// Reads the parts of the given spans.
    pub async fn read<'r>(
        workspace: &Workspace,
        rows: impl Iterator<Item = &'r SpanRow>,
    ) -> Result<Self, StoreError> {
        let ids: Vec<(String, String)> = rows.flat_map(|row| row.span.shown.parts.iter().cloned()).collect();
        let rows = workspace.spans().find(&ids).await?;
        Ok(Self(rows.into_iter().map(|row| ((row.trace_id.clone(), row.span_id.clone()), row)).collect()))
    }

    fn of(&self, row: &SpanRow) -> Vec<&SpanRow> {
        row.span.shown.parts.iter().filter_map(|part| self.0.get(part)).collect()
    }
}

/// What a span is about.
pub fn kind(span: &Span) -> SpanKind {
    span.facts().kind.unwrap_or(SpanKind::Other)
}

/// The ids of the events that arrived of a span, the first to arrive first.
pub fn event_ids(span: &Span) -> Vec<String> {
    let mut ids = vec![span.first_event_id().to_owned()];
    ids.extend(
        span.arrivals()
            .iter()
            .map(|stored| &stored.event_id)
            .filter(|id| *id != &ids[0])
            .cloned()
            .collect::<Vec<_>>(),
    );
    ids
}

fn cost(span: &Span) -> Option<CostView> {
    let own = &span.shown.own;
    let source: CostSource = own.cost_source?;
    Some(CostView {
        usd: nanos_to_usd(own.cost_nanos),
        source: source.as_str().to_owned(),
        reported_usd: own.reported_cost_nanos.map(nanos_to_usd),
        computed_usd: own.computed_cost_nanos.map(nanos_to_usd),
    })
}

/// What events are read for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading<'a> {
    /// The session that is read: what is shown in another one now is left out.
    pub session: Option<&'a str>,
    /// Whether events were chosen by what they say. Then a span is shown on a later arrival of it where its first was not
    /// chosen.
    pub is_chosen: bool,
}

/// Events as clients read them. What arrived of a span is shown as the span is now, once: on its first event; later arrivals
/// are left out.
pub async fn current_events(
    workspace: &Workspace,
    events: Vec<StoredEvent>,
    (client, reading): (Client, Reading<'_>),
) -> Result<Vec<EventView>, StoreError> {
    let addresses: Vec<Option<(String, String)>> = events.iter().map(address).collect();
    let ids: Vec<(String, String)> = addresses.iter().flatten().cloned().collect();
    let spans: FxHashMap<(String, String), SpanRow> = workspace
        .spans()
        .find(&ids)
        .await?
        .into_iter()
        .map(|row| ((row.trace_id.clone(), row.span_id.clone()), row))
        .collect();
    let parts = Parts::read(workspace, spans.values()).await?;
    let shown = shown_on(&events, &addresses, &spans, reading);
    let payloads = payloads(workspace, &events, shown.values().map(|row| (*row, &parts))).await?;
    let org = workspace.org_id().as_str().to_owned();
    let mut views = Vec::with_capacity(events.len());
    for (index, event) in events.into_iter().enumerate() {
        let is_of_a_span = addresses[index].as_ref().is_some_and(|address| spans.contains_key(address));
        if let Some(row) = shown.get(&index) {
            let ids = content_ids(row, &parts);
            let texts: Vec<&str> = ids.iter().filter_map(|id| payloads.get(id)).map(String::as_str).collect();
            let mut payload = present(&texts);
            let mut view = EventView::of(event, &org, client);
            view.show_span(row, &parts, &mut payload);
            views.push(view);
        } else if !is_of_a_span && reading.session.is_none_or(|session| session == event.session_id) {
            views.push(EventView::of(event, &org, client));
        }
    }
    Ok(views)
}

/// By the place of the event, the span that is shown on it.
fn shown_on<'s>(
    events: &[StoredEvent],
    addresses: &[Option<(String, String)>],
    spans: &'s FxHashMap<(String, String), SpanRow>,
    reading: Reading<'_>,
) -> FxHashMap<usize, &'s SpanRow> {
    let chosen: FxHashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let mut later: FxHashSet<&(String, String)> = FxHashSet::default();
    let mut shown = FxHashMap::default();
    for (index, (event, address)) in events.iter().zip(addresses).enumerate() {
        let Some((address, row)) = address.as_ref().and_then(|address| spans.get_key_value(address)) else {
            continue;
        };
        let first = row.span.first_event_id();
        let is_shown = if chosen.contains(first) {
            event.id == first
        } else {
            reading.is_chosen && later.insert(address)
        };
        if is_shown && reading.session.is_none_or(|session| session == row.session_id) {
            shown.insert(index, row);
        }
    }
    shown
}

/// The payloads of all arrivals of the spans and their parts; those of the page are at hand, the others are read.
async fn payloads<'r>(
    workspace: &Workspace,
    page: &[StoredEvent],
    shown: impl Iterator<Item = (&'r SpanRow, &'r Parts)>,
) -> Result<FxHashMap<String, String>, StoreError> {
    let mut missing: FxHashSet<String> = shown.flat_map(|(row, parts)| content_ids(row, parts)).collect();
    let mut payloads: FxHashMap<String, String> = FxHashMap::default();
    for event in page {
        if missing.remove(&event.id) {
            payloads.insert(event.id.clone(), event.payload.clone());
        }
    }
    // Spans of which very much arrived are shown without what lies beyond the limit.
    let read = workspace.events().by_ids_within(missing.into_iter().collect(), MAX_ANSWER_BYTES).await?;
    payloads.extend(read.into_iter().map(|event| (event.id, event.payload)));
    Ok(payloads)
}

/// The events that tell what a span and its parts say, its first one before the others.
fn content_ids(row: &SpanRow, parts: &Parts) -> Vec<String> {
    let mut ids: Vec<String> = event_ids(&row.span);
    ids.extend(parts.of(row).iter().flat_map(|part| event_ids(&part.span)));
    ids
}

impl EventView {
    /// Shows the span on the event: who it is counted for, what it owns, and its content.
    fn show_span(&mut self, row: &SpanRow, parts: &Parts, payload: &mut Map<String, Value>) {
        let counted = &row.span.shown.counted;
        let own = &row.span.shown.own;
        payload.insert("traceId".to_owned(), row.trace_id.clone().into());
        payload.insert("spanId".to_owned(), row.span_id.clone().into());
        // Of parts, which are read together with it, these are others.
        let facts = row.span.facts();
        payload.remove("parentSpanId");
        if let Some(parent) = &facts.parent_span_id {
            payload.insert("parentSpanId".to_owned(), parent.clone().into());
        }
        if let Some(name) = &facts.span_name {
            payload.insert("name".to_owned(), name.clone().into());
        }
        payload.insert("sessionId".to_owned(), row.session_id.clone().into());
        payload.insert("agentId".to_owned(), counted.agent_id.clone().into());
        payload.insert("environment".to_owned(), counted.environment.clone().into());
        if let Some(user_id) = &counted.user_id {
            payload.insert("userId".to_owned(), user_id.clone().into());
        }
        if own.cost_source.is_some_and(|source| source != CostSource::Unknown) {
            payload.insert("costUsd".to_owned(), nanos_to_usd(own.cost_nanos).into());
        }
        self.payload = to_raw_value(&payload).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.session_id.clone_from(&row.session_id);
        self.agent_id.clone_from(&counted.agent_id);
        self.environment.clone_from(&counted.environment);
        self.cost = cost(&row.span);
        self.span = Some(SpanView::of(row, parts));
    }
}

/// Trace and span of an event that arrived of one.
fn address(event: &StoredEvent) -> Option<(String, String)> {
    if !event.id.starts_with(ARRIVAL_ID_PREFIX) {
        return None;
    }
    span_address(&event.metadata, event.payload.as_bytes())
}
