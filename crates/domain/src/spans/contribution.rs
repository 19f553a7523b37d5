//! What a span adds to the sums of its session, its agent and its rollup cells.
//!
//! The counted contribution is stored with the span. When an arrival changes the span, the old one is subtracted and the new
//! one added, so every sum equals a recount at any time.

use serde::{Deserialize, Serialize};

use crate::cost::CostSource;
use crate::rollups::{CellParts, Dimension, Measures, model_cell};
use crate::usage::Usage;

/// Whether a contribution is added or subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It is added.
    Plus,
    /// It was counted before and is subtracted.
    Minus,
}

impl Sign {
    /// The number with this sign.
    pub fn of(self, number: i64) -> i64 {
        match self {
            Self::Plus => number,
            Self::Minus => number.saturating_neg(),
        }
    }
}

/// What one span adds to sums, and to which.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// The session in which it is shown.
    pub session_id: String,
    /// The environment.
    pub environment: String,
    /// The agent.
    pub agent_id: String,
    /// The end user.
    pub user_id: Option<String>,
    /// The model's provider, for calls of models.
    pub provider: Option<String>,
    /// The model, for calls of models.
    pub model: Option<String>,
    /// The tool, for tools.
    pub tool: Option<String>,
    /// The start of the span, microseconds UTC. Its hour is the one in which the span is counted.
    pub start_us: i64,
    /// Events: the arrivals of the span.
    pub events: i64,
    /// 1 if it failed.
    pub errors: i64,
    /// 1 if it is a model call and, among its duplicates, the one that is counted.
    pub llm_calls: i64,
    /// 1 if it is a tool.
    pub tool_calls: i64,
    /// Tokens that it owns.
    pub usage: Usage,
    /// Cost in nano-dollars that it owns.
    pub cost_nanos: i64,
    /// The source of the cost; absent if nothing has a cost.
    pub cost_source: Option<CostSource>,
    /// The duration of a model or tool call, microseconds.
    pub latency_us: Option<i64>,
}

impl Contribution {
    /// The measures of its cells.
    pub(crate) fn measures(&self, sign: Sign) -> Measures {
        let usage = match sign {
            Sign::Plus => self.usage,
            Sign::Minus => Usage::default().saturating_sub(self.usage),
        };
        let mut measures = Measures {
            event_count: sign.of(self.events),
            error_count: sign.of(self.errors),
            llm_call_count: sign.of(self.llm_calls),
            tool_call_count: sign.of(self.tool_calls),
            tool_error_count: sign.of(self.tool_calls.min(self.errors)),
            usage,
            cost_nanos: sign.of(self.cost_nanos),
            unknown_cost_count: sign.of(i64::from(self.cost_source == Some(CostSource::Unknown))),
            ..Measures::default()
        };
        if let Some(latency_us) = self.latency_us {
            let sketch = match sign {
                Sign::Plus => &mut measures.latency,
                Sign::Minus => &mut measures.removed_latency,
            };
            sketch.add(latency_us);
        }
        measures
    }

    /// The cells in which it is counted: dimension, agent, provider and name.
    pub(crate) fn cells(&self) -> impl Iterator<Item = CellParts<'_>> {
        let agent = self.agent_id.as_str();
        // A span that reports a sum of calls that never arrived is included, so that the models' figures add up to the total.
        let counts_calls = self.llm_calls != 0 || self.cost_nanos != 0 || !self.usage.is_zero();
        let has_model_cell = counts_calls || self.model.is_some();
        [
            Some((Dimension::Total, "", "", "")),
            Some((Dimension::Agent, agent, "", "")),
            has_model_cell.then(|| model_cell(agent, self.provider.as_deref(), self.model.as_deref())),
            self.tool.as_deref().map(|tool| (Dimension::Tool, agent, "", tool)),
            self.user_id.as_deref().map(|user| (Dimension::User, "", "", user)),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(contribution: &Contribution) -> Vec<(&str, &str)> {
        let cells = contribution.cells().filter(|(dimension, ..)| *dimension == Dimension::Model);
        cells.map(|(_, _, provider, name)| (provider, name)).collect()
    }

    #[test]
    fn calls_without_a_model_share_one_cell() {
        let call =
            Contribution { llm_calls: 1, provider: Some("openai".to_owned()), ..Contribution::default() };
        assert_eq!(models(&call), [("", "unknown")]);
        let named = Contribution { model: Some("gpt-4o".to_owned()), ..call };
        assert_eq!(models(&named), [("openai", "gpt-4o")]);
        let usage = Usage { input: 1, ..Usage::default() };
        assert_eq!(models(&Contribution { usage, ..Contribution::default() }), [("", "unknown")]);
        assert_eq!(models(&Contribution { tool_calls: 1, ..Contribution::default() }), []);
    }
}
