//! The contribution of one span of a resolved structure.

use super::structure::{Node, Structure};
use super::{Contribution, SpanKind};
use crate::cost::{self, CostSource, PriceTable};
use crate::limits::MAX_DURATION_US;
use crate::usage::Usage;

/// A contribution, and the costs that it was computed from.
pub(super) struct Counted {
    pub(super) contribution: Contribution,
    pub(super) reported_cost_nanos: Option<i64>,
    pub(super) computed_cost_nanos: Option<i64>,
    pub(super) saved_cost_nanos: i64,
}

impl Counted {
    fn without_figures(contribution: Contribution) -> Self {
        Self { contribution, reported_cost_nanos: None, computed_cost_nanos: None, saved_cost_nanos: 0 }
    }
}

/// Counts one span. The caller sets the session and the user.
pub(super) fn count(structure: &Structure<'_>, index: usize, prices: &PriceTable) -> Counted {
    let node = &structure.nodes[index];
    let represents_call = node.is_call() && node.anchor == index;
    let owner = if represents_call {
        Some(&structure.nodes[node.figures])
    } else if node.owns_its_sum() {
        Some(node)
    } else {
        None
    };
    let is_tool = node.kind == SpanKind::Tool;
    let latency_us = node.facts.end_us.saturating_sub(node.facts.start_us).min(MAX_DURATION_US);
    let mut contribution = Contribution {
        environment: node.environment.to_owned(),
        agent_id: node.agent_id.clone(),
        tool: if is_tool { node.facts.tool_name.clone() } else { None },
        start_us: node.facts.start_us,
        events: node.arrivals,
        errors: i64::from((node.facts.is_error || node.has_failed_part) && node.part_of.is_none()),
        llm_calls: i64::from(represents_call && node.kind == SpanKind::Llm),
        tool_calls: i64::from(is_tool),
        latency_us: (is_tool || (represents_call && node.kind == SpanKind::Llm)).then_some(latency_us),
        ..Contribution::default()
    };
    let Some(owner) = owner else { return Counted::without_figures(contribution) };
    // Wrappers and duplicates of a call may have facts that the call itself lacks.
    let wrappers = structure.with_wrappers(index).skip(1);
    let around: Vec<&Node<'_>> = [node, owner].into_iter().chain(wrappers).collect();
    contribution.model = around.iter().find_map(|node| node.facts.model.clone());
    contribution.provider = around.iter().find_map(|node| node.facts.provider.clone());
    if !owner.names_figures() {
        // A call that succeeded was billed, but no span reports for how many tokens.
        let is_billed = contribution.llm_calls > 0 && contribution.errors == 0;
        if is_billed && !around.iter().any(|node| node.facts.is_cache_hit) {
            contribution.cost_source = Some(CostSource::Unknown);
        }
        return Counted::without_figures(contribution);
    }
    cost_of(contribution, &around, owner, prices)
}

fn cost_of(
    mut contribution: Contribution,
    around: &[&Node<'_>],
    owner: &Node<'_>,
    prices: &PriceTable,
) -> Counted {
    let usage = owner.facts.usage.unwrap_or_default();
    let stated = |node: &&Node<'_>| node.facts.reported_cost_nanos.filter(|nanos| *nanos > 0);
    let reported = around
        .iter()
        .find_map(stated)
        .or_else(|| around.iter().find_map(|node| node.lent_cost_nanos))
        .or_else(|| around.iter().find_map(|node| node.facts.reported_cost_nanos));
    let model = contribution.model.as_deref();
    let price =
        model.and_then(|model| prices.find(contribution.provider.as_deref(), model, contribution.start_us));
    let tier = around.iter().find_map(|node| node.facts.service_tier).unwrap_or_default();
    let computed =
        price.filter(|_| usage != Usage::default()).and_then(|price| cost::compute_at(price, &usage, tier));
    let cost = cost::resolve(reported, computed);
    contribution.usage = usage;
    // An answer from the client's own cache was not billed. The cost that it would have had is the amount saved.
    let is_cache_hit = around.iter().any(|node| node.facts.is_cache_hit);
    (contribution.cost_nanos, contribution.cost_source) =
        if is_cache_hit { (0, Some(CostSource::Computed)) } else { (cost.nanos, Some(cost.source)) };
    Counted {
        contribution,
        reported_cost_nanos: reported,
        computed_cost_nanos: cost.computed_nanos,
        saved_cost_nanos: if is_cache_hit { cost.nanos } else { 0 },
    }
}
