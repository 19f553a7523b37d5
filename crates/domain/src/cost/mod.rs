//! What calls cost, in whole nano-dollars.
//!
//! A client may state a cost and we may compute one from its tokens; [`resolve`] says which of the two
//! is counted and keeps the other beside it, so that a wrong price never hides. Everything that is summed
//! is an `i64` of nano-dollars; [`compute`] rounds once per call, half to even.

mod money;
mod names;
mod prices;
mod service_tier;
mod table;
#[cfg(test)]
mod tests;

pub use money::{MAX_COST_NANOS, NANOS_PER_USD, nanos_to_usd, usd_to_nanos};
pub use names::canonical_provider;
pub use prices::{ONE_MILLIONTHS, Price, PriceError, PriceSpec, Rates, RatesSpec, Tier, TierSpec};
use serde::{Deserialize, Serialize};
pub use service_tier::ServiceTier;
pub use table::PriceTable;

use crate::events::{EventType, NewEvent};
use crate::usage::Usage;

/// Rates are per this many tokens.
const TOKENS_PER_RATE: i128 = 1_000_000;

/// The cost of one call at the standard service tier, in nano-dollars: every token at the rate of its kind, rounded half to even
/// once. `None` if the price of so long an input isn't known.
///
/// Cached input is billed at cache rates, the rest of the input as audio or text, output as reasoning,
/// audio or text. A part that exceeds what its total leaves for it is cut there, negative parts count
/// as 0, and the tier is chosen by the inclusive input.
pub fn compute(price: &Price, usage: &Usage) -> Option<i64> {
    compute_at(price, usage, ServiceTier::Standard)
}

/// The same at a service tier; `None` if the price doesn't say what that tier costs.
pub fn compute_at(price: &Price, usage: &Usage, tier: ServiceTier) -> Option<i64> {
    let rates = price.rates_for(usage.input)?;
    let millionths = price.factor_millionths(tier, usage.input)?;
    let scaled = token_rates(rates, usage).saturating_mul(i128::from(millionths));
    Some(to_nanos(money::divide_half_even(scaled, TOKENS_PER_RATE * i128::from(ONE_MILLIONTHS))))
}

/// The sum of tokens times rate: nano-dollars times a million.
fn token_rates(rates: &Rates, usage: &Usage) -> i128 {
    let plain_input = usage.uncached_input();
    let audio_input = usage.audio_input.clamp(0, plain_input);
    let output = usage.output.max(0);
    let reasoning = usage.reasoning.clamp(0, output);
    let audio_output = usage.audio_output.clamp(0, output - reasoning);
    [
        (plain_input - audio_input, rates.input),
        (audio_input, rates.audio_input),
        (usage.cache_read, rates.cache_read),
        (usage.cache_write_5m, rates.cache_write_5m),
        (usage.cache_write_1h, rates.cache_write_1h),
        (output - reasoning - audio_output, rates.output),
        (reasoning, rates.reasoning),
        (audio_output, rates.audio_output),
    ]
    .into_iter()
    .fold(0, |sum: i128, (tokens, rate)| {
        sum.saturating_add(i128::from(tokens.max(0)).saturating_mul(i128::from(rate.max(0))))
    })
}

fn to_nanos(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Where the figure we count comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostSource {
    /// The client stated it.
    Reported,
    /// We computed it from tokens and a known price.
    Computed,
    /// Nobody knows; the figure is 0 and must not be shown as "free".
    #[default]
    Unknown,
}

impl CostSource {
    /// The name in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CostSource::Reported => "reported",
            CostSource::Computed => "computed",
            CostSource::Unknown => "unknown",
        }
    }

    /// Reads [`CostSource::as_str`]'s names.
    pub fn parse(text: &str) -> Option<CostSource> {
        [CostSource::Reported, CostSource::Computed, CostSource::Unknown]
            .into_iter()
            .find(|source| source.as_str() == text)
    }
}

/// A cost with its origin. Amounts are nano-dollars.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// The figure we count; 0 if the source is unknown.
    pub nanos: i64,
    /// Where that figure comes from.
    pub source: CostSource,
    /// What the client stated, if it was a possible amount.
    pub reported_nanos: Option<i64>,
    /// What tokens and price give, if both are known.
    pub computed_nanos: Option<i64>,
}

/// Decides which figure counts. `computed` must be `None` unless both the tokens and the price are known.
///
/// A stated cost above 0 counts, with the computed one beside it for comparison. A stated 0 yields to a
/// computed one, because many clients send 0 for models they have no price for. What a client states goes
/// through [`usd_to_nanos`] first, so that no amount (negative, NaN) is as if nothing had been stated.
///
/// A computed cost above [`MAX_COST_NANOS`] comes from a mistaken token count. As for a stated one of that size, it is as if there
/// were none.
pub fn resolve(reported: Option<i64>, computed: Option<i64>) -> Cost {
    let computed = computed.filter(|nanos| *nanos <= MAX_COST_NANOS);
    let (nanos, source) = match (reported, computed) {
        (Some(nanos), _) if nanos > 0 => (nanos, CostSource::Reported),
        (_, Some(nanos)) => (nanos, CostSource::Computed),
        _ => (0, CostSource::Unknown),
    };
    Cost { nanos, source, reported_nanos: reported, computed_nanos: computed }
}

/// The cost of an event, priced at its own time. `None` for events that cost nothing by their kind. A model's answer that says neither
/// tokens nor a cost has an unknown cost, unless the call failed. So has one with an impossible number of tokens, unless it says a cost.
pub fn of_event(event: &NewEvent, prices: &PriceTable) -> Option<Cost> {
    let facts = &event.facts;
    let is_billed = matches!(event.event_type, EventType::LlmResponse | EventType::CostTracked);
    let says_nothing = facts.usage.is_none() && !facts.lacks_tokens && facts.reported_cost_nanos.is_none();
    let is_answer = event.event_type == EventType::LlmResponse && !event.is_error();
    if !is_billed || (says_nothing && !is_answer) {
        return None;
    }
    let model = facts.model.as_deref();
    let price = model.and_then(|model| prices.find(facts.provider.as_deref(), model, event.ts_us));
    let tier = facts.service_tier.unwrap_or_default();
    let usage = facts.usage.as_ref().filter(|_| !facts.lacks_tokens);
    let computed = price.zip(usage).and_then(|(price, usage)| compute_at(price, usage, tier));
    Some(resolve(facts.reported_cost_nanos, computed))
}
