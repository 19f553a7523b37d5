//! Rollups: sums by hour and by day that every screen reads instead of events.
//!
//! A cell is (workspace, environment, dimension, key) of one hour or one day. One event is counted in the total,
//! in its agent's cell, and in the cell of its model or tool and of its user where it has them. Users have cells of days only:
//! there can be as many of them as events in an hour. All measures are
//! sums or mergeable sketches, so cells add up in any order, and equal a recount.

mod changes;

pub use changes::{Cell, ChangesError, MAX_WAITING_CHANGES, decode_changes, encode_changes, merged};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::events::{EventType, NewEvent};
use crate::latency::Latency;
use crate::spans::{Contribution, Sign};
use crate::time::{day_start, hour_start};
use crate::usage::Usage;

/// The model under which calls are counted whose client names none.
pub const UNKNOWN_MODEL: &str = "unknown";

/// What a cell is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dimension {
    /// Everything of the workspace and environment.
    Total,
    /// One agent.
    Agent,
    /// One model of one agent; the name is the model.
    Model,
    /// One tool of one agent; the name is the tool.
    Tool,
    /// One end user; the name is the user id.
    User,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Total, Self::Agent, Self::Model, Self::Tool, Self::User];

    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::User => "user",
        }
    }
}

/// The width of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// One hour.
    Hour,
    /// One day, UTC.
    Day,
}

/// A cell's key. It borrows from the events that are counted. The order is the order of writing, the same on every node, so that no two writers can deadlock; what differs most comes first, to be
/// compared quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey<'a> {
    /// Hour or day.
    pub tier: Tier,
    /// What the cell is about.
    pub dimension: Dimension,
    /// The start of the hour or day, in microseconds UTC.
    pub bucket_us: i64,
    /// The model, tool or user; empty for totals and agents.
    pub name: &'a str,
    /// The agent; empty for totals and users.
    pub agent_id: &'a str,
    /// The model's provider; empty for everything else.
    pub provider: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The workspace.
    pub workspace_id: &'a str,
}

impl CellKey<'_> {
    /// The same of the whole day.
    pub fn of_day(&self) -> Self {
        Self { tier: Tier::Day, bucket_us: day_start(self.bucket_us), ..*self }
    }
}

/// A cell's measures: sums over its events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Events.
    pub event_count: i64,
    /// Errors, as sessions count them.
    pub error_count: i64,
    /// Sessions that begin in this cell, with their agent and in their environment.
    pub session_count: i64,
    /// `llm_response` events.
    pub llm_call_count: i64,
    /// `tool_call` events.
    pub tool_call_count: i64,
    /// `tool_error` events, and `tool_response` events that report a failure.
    pub tool_error_count: i64,
    /// Tokens of `llm_response` events.
    pub usage: Usage,
    /// Cost that counts, in nano-dollars.
    pub cost_nanos: i64,
    /// Calls whose cost is unknown: their price is, or how many tokens they took.
    pub unknown_cost_count: i64,
    /// Durations of model answers and tool answers.
    pub latency: Latency,
    /// Durations that were counted in the cell and no longer are; empty in cells that are read.
    pub removed_latency: Latency,
}

impl Measures {
    /// Adds another cell's sums.
    pub fn merge(&mut self, other: &Self) {
        self.event_count += other.event_count;
        self.error_count += other.error_count;
        self.session_count += other.session_count;
        self.llm_call_count += other.llm_call_count;
        self.tool_call_count += other.tool_call_count;
        self.tool_error_count += other.tool_error_count;
        self.usage = self.usage.saturating_add(other.usage);
        self.cost_nanos = self.cost_nanos.saturating_add(other.cost_nanos);
        self.unknown_cost_count += other.unknown_cost_count;
        self.latency.merge(&other.latency);
        self.removed_latency.merge(&other.removed_latency);
    }
}

/// What of an event the rollups count besides the event itself.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// The workspace.
    pub workspace_id: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// Its cost in nano-dollars.
    pub cost_nanos: i64,
    /// Whether its cost is unknown.
    pub cost_is_unknown: bool,
}

/// The sums of a group of events, ready to be merged into the stored cells.
#[derive(Debug, Default)]
pub struct Rollup<'a> {
    hours: FxHashMap<CellKey<'a>, Measures>,
    days: FxHashMap<CellKey<'a>, Measures>,
}

impl<'a> Rollup<'a> {
    /// Counts one event in all its cells.
    pub fn add(&mut self, event: &'a NewEvent, counted: Counted<'a>) {
        let bucket_us = hour_start(event.ts_us);
        for (dimension, agent_id, provider, name) in cells_of(event) {
            let is_daily = dimension == Dimension::User;
            let (tier, bucket_us) =
                if is_daily { (Tier::Day, day_start(bucket_us)) } else { (Tier::Hour, bucket_us) };
            let key = CellKey {
                tier,
                workspace_id: counted.workspace_id,
                environment: counted.environment,
                dimension,
                agent_id,
                provider,
                name,
                bucket_us,
            };
            let cells = if is_daily { &mut self.days } else { &mut self.hours };
            count(cells.entry(key).or_default(), event, counted);
        }
    }

    /// Counts what a span contributes, or takes it away again.
    pub fn add_span(&mut self, workspace_id: &'a str, span: &'a Contribution, sign: Sign) {
        let measures = span.measures(sign);
        for (dimension, agent_id, provider, name) in span.cells() {
            let (tier, bucket_us) = if dimension == Dimension::User {
                (Tier::Day, day_start(span.start_us))
            } else {
                (Tier::Hour, hour_start(span.start_us))
            };
            let key = CellKey {
                tier,
                workspace_id,
                environment: &span.environment,
                dimension,
                agent_id,
                provider,
                name,
                bucket_us,
            };
            let cells = if tier == Tier::Day { &mut self.days } else { &mut self.hours };
            cells.entry(key).or_default().merge(&measures);
        }
    }

    /// Counts the beginning of a session, or takes it away again; `place` is workspace, environment and agent.
    pub fn add_beginning(&mut self, place: (&'a str, &'a str, &'a str), start_us: i64, sign: Sign) {
        let (workspace_id, environment, agent) = place;
        for (dimension, agent_id) in [(Dimension::Total, ""), (Dimension::Agent, agent)] {
            let key = CellKey {
                tier: Tier::Hour,
                workspace_id,
                environment,
                dimension,
                agent_id,
                provider: "",
                name: "",
                bucket_us: hour_start(start_us),
            };
            self.hours.entry(key).or_default().session_count += sign.of(1);
        }
    }

    /// What was counted: the cells of hours, and of days those that have none of hours. [`Rollup::add_change`] takes it up again.
    pub fn into_changes(self) -> Vec<(CellKey<'a>, Measures)> {
        let counted = self.hours.into_iter().chain(self.days);
        // What came and went within one group leaves nothing to write.
        counted.filter(|(_, measures)| *measures != Measures::default()).collect()
    }

    /// Counts what another rollup counted.
    pub fn add_change(&mut self, key: CellKey<'a>, measures: &Measures) {
        let cells = if key.tier == Tier::Day { &mut self.days } else { &mut self.hours };
        cells.entry(key).or_default().merge(measures);
    }

    /// The cells of hours and of days, in the order of writing.
    pub fn into_sorted(self) -> Vec<(CellKey<'a>, Measures)> {
        let mut days = self.days;
        for (key, measures) in &self.hours {
            days.entry(key.of_day()).or_default().merge(measures);
        }
        let mut cells: Vec<_> = self.hours.into_iter().chain(days).collect();
        cells.retain(|(_, measures)| *measures != Measures::default());
        cells.sort_unstable_by_key(|(key, _)| *key);
        cells
    }
}

/// A cell's dimension, agent, provider and name.
pub(crate) type CellParts<'a> = (Dimension, &'a str, &'a str, &'a str);

/// The cell of a call of a model. Calls of which no model is known share one, whatever their provider.
pub(crate) fn model_cell<'a>(
    agent_id: &'a str,
    provider: Option<&'a str>,
    model: Option<&'a str>,
) -> CellParts<'a> {
    match model {
        Some(model) => (Dimension::Model, agent_id, provider.unwrap_or(""), model),
        None => (Dimension::Model, agent_id, "", UNKNOWN_MODEL),
    }
}

fn cells_of(event: &NewEvent) -> impl Iterator<Item = CellParts<'_>> {
    let facts = &event.facts;
    let model = match event.event_type {
        EventType::LlmResponse | EventType::CostTracked => Some(facts.model.as_deref()),
        _ => None,
    };
    let tool = match event.event_type {
        EventType::ToolCall | EventType::ToolResponse | EventType::ToolError => facts.name.as_deref(),
        _ => None,
    };
    let agent = event.agent_id.as_str();
    [
        Some((Dimension::Total, "", "", "")),
        Some((Dimension::Agent, agent, "", "")),
        model.map(|model| model_cell(agent, facts.provider.as_deref(), model)),
        tool.map(|tool| (Dimension::Tool, agent, "", tool)),
        facts.user_id.as_deref().map(|user| (Dimension::User, "", "", user)),
    ]
    .into_iter()
    .flatten()
}

fn count(cell: &mut Measures, event: &NewEvent, counted: Counted<'_>) {
    cell.event_count += 1;
    cell.error_count += i64::from(event.is_error());
    cell.cost_nanos = cell.cost_nanos.saturating_add(counted.cost_nanos);
    cell.unknown_cost_count += i64::from(counted.cost_is_unknown);
    match event.event_type {
        EventType::LlmResponse => {
            cell.llm_call_count += 1;
            cell.usage = cell.usage.saturating_add(event.facts.usage.unwrap_or_default());
        }
        EventType::ToolCall => cell.tool_call_count += 1,
        EventType::ToolError => cell.tool_error_count += 1,
        EventType::ToolResponse => cell.tool_error_count += i64::from(event.is_error()),
        _ => {}
    }
    if matches!(event.event_type, EventType::LlmResponse | EventType::ToolResponse | EventType::ToolError)
        && let Some(duration_us) = event.facts.duration_us
    {
        cell.latency.add(duration_us);
    }
}
