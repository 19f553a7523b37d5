//! What a model costs: one row of the price table, read from decimal strings without floats.

use serde::{Deserialize, Serialize};

use super::ServiceTier;
use super::money::{parse_nanos, parse_scaled};

/// No vendor asks a million dollars per million tokens; a higher figure is a typing error.
const MAX_RATE_NANOS: i64 = 1_000_000 * super::NANOS_PER_USD;

/// No vendor asks more than this many times the standard price for a service tier.
const MAX_FACTOR_MILLIONTHS: i64 = 100 * ONE_MILLIONTHS;

/// One as a number of millionths, the unit of [`Price::batch_millionths`].
pub const ONE_MILLIONTHS: i64 = 1_000_000;

/// A price as people write it down: US dollars per million tokens, as decimal strings. Rates that are
/// left out follow [`Rates`]' rules.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PriceSpec {
    /// The model's name; dated releases of it are priced alike unless they have their own row.
    pub model: String,
    /// Other names of the same model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The only provider this price is for; absent means whoever serves the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// First instant the price is in force: a date (midnight UTC) or an RFC 3339 instant; absent means
    /// since the model exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_from: Option<String>,
    /// The rates up to the tier, if there is one.
    #[serde(flatten)]
    pub rates: RatesSpec,
    /// Dearer rates for calls with a long input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierSpec>,
    /// What the batch API asks as a fraction of these rates (`"0.5"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// What the flex tier asks as a fraction of these rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flex: Option<String>,
    /// What the priority tier asks as a multiple of these rates (`"2"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Input tokens (inclusive total) up to which the priority tier has a price; absent means any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_up_to: Option<i64>,
    /// Input tokens (inclusive total) above which the price isn't known; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Where the price was published.
    #[serde(default)]
    pub source: String,
    /// The day the price was last seen there.
    #[serde(default)]
    pub checked: String,
}

/// Rates as decimal strings in US dollars per million tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RatesSpec {
    /// Fresh text input.
    pub input: String,
    /// Visible text output.
    pub output: String,
    /// Input read from a prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<String>,
    /// Input written to a five-minute (or only) prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<String>,
    /// Input written to a one-hour prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<String>,
    /// Audio input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<String>,
    /// Audio output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<String>,
    /// Reasoning output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

/// Rates of a whole call once its input is longer than `above` tokens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TierSpec {
    /// Input tokens (inclusive total) up to which the ordinary rates hold.
    pub above: i64,
    /// The rates beyond.
    #[serde(flatten)]
    pub rates: RatesSpec,
}

/// Why a written price was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PriceError {
    /// The model's name is blank.
    #[error("a price needs the name of a model")]
    NoModel,
    /// A rate is not a plain decimal from 0 to 1 000 000 dollars with at most nine decimals.
    #[error("{0:?} is not a price in dollars per million tokens")]
    Rate(String),
    /// `effective_from` is neither a date nor an instant.
    #[error("{0:?} is neither a date nor an RFC 3339 instant")]
    EffectiveFrom(String),
    /// The batch factor is not a decimal from 0 to 1 with at most six decimals.
    #[error("{0:?} is not a batch factor between 0 and 1")]
    Batch(String),
    /// The factor of a service tier is not a decimal from 0 to 100 with at most six decimals.
    #[error("{0:?} is not a factor between 0 and 100")]
    Factor(String),
    /// The tier begins at a negative number of tokens.
    #[error("a tier cannot begin above {0} tokens")]
    Tier(i64),
}

/// A price in force from one instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Price {
    /// The model's name as the price's author wrote it.
    pub model: String,
    /// Other names of the same model.
    pub aliases: Vec<String>,
    /// The only provider this price is for, in its canonical spelling.
    pub provider: Option<String>,
    /// First instant the price is in force, microseconds UTC; `i64::MIN` for "always".
    pub effective_from_us: i64,
    /// The rates of a call up to the tier.
    pub rates: Rates,
    /// Dearer rates for calls with a long input.
    pub tier: Option<Tier>,
    /// What the batch API asks, in millionths of the rates.
    pub batch_millionths: Option<i64>,
    /// What the flex tier asks, in millionths of the rates.
    pub flex_millionths: Option<i64>,
    /// What the priority tier asks, in millionths of the rates.
    pub priority_millionths: Option<i64>,
    /// Input tokens up to which the priority tier has a price.
    pub priority_up_to: Option<i64>,
    /// Input tokens above which the price isn't known.
    pub limit: Option<i64>,
    /// Where the price was published.
    pub source: String,
    /// The day the price was last seen there (ISO date).
    pub checked: String,
}

/// What each kind of token costs, in nano-dollars per million tokens.
///
/// A rate that the vendor does not name follows from the others: audio costs what text costs, reasoning
/// what output costs. Cache rates follow the vendor's habit: Claude reads at a tenth of input and writes
/// at 5/4 (five minutes) or twice (one hour); OpenAI reads at half and writes at input; everyone else
/// charges input for both (the published AgentLens pricing rules; one-hour writes from Anthropic's
/// prompt-caching page).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Fresh text input.
    pub input: i64,
    /// Visible text output.
    pub output: i64,
    /// Input read from a prompt cache.
    pub cache_read: i64,
    /// Input written to a five-minute (or only) prompt cache.
    pub cache_write_5m: i64,
    /// Input written to a one-hour prompt cache.
    pub cache_write_1h: i64,
    /// Audio input.
    pub audio_input: i64,
    /// Audio output.
    pub audio_output: i64,
    /// Reasoning output.
    pub reasoning: i64,
}

/// Rates that replace the ordinary ones for the whole call, not just for the tokens beyond, once its
/// input is longer than `above`: so Anthropic, Google and OpenAI bill long context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tier {
    /// Input tokens (inclusive total) up to which the ordinary rates hold.
    pub above: i64,
    /// The rates beyond.
    pub rates: Rates,
}

impl Price {
    /// Reads a written price.
    pub fn from_spec(spec: &PriceSpec) -> Result<Price, PriceError> {
        if spec.model.trim().is_empty() {
            return Err(PriceError::NoModel);
        }
        let habit = CacheHabit::of(&spec.model);
        let tier = match &spec.tier {
            None => None,
            Some(tier) if tier.above < 0 => return Err(PriceError::Tier(tier.above)),
            Some(tier) => Some(Tier { above: tier.above, rates: Rates::from_spec(&tier.rates, habit)? }),
        };
        let provider =
            spec.provider.as_deref().map(super::names::one_spelling).filter(|name| !name.is_empty());
        Ok(Price {
            model: spec.model.trim().to_owned(),
            aliases: spec.aliases.clone(),
            provider: provider.map(str::to_owned),
            effective_from_us: spec.effective_from.as_deref().map_or(Ok(i64::MIN), instant_us)?,
            rates: Rates::from_spec(&spec.rates, habit)?,
            tier,
            batch_millionths: spec.batch.as_deref().map(batch_millionths).transpose()?,
            flex_millionths: spec.flex.as_deref().map(factor_millionths).transpose()?,
            priority_millionths: spec.priority.as_deref().map(factor_millionths).transpose()?,
            priority_up_to: spec.priority_up_to,
            limit: spec.limit,
            source: spec.source.clone(),
            checked: spec.checked.clone(),
        })
    }

    /// The rates for a call with that many input tokens (inclusive total); `None` if they aren't known.
    pub fn rates_for(&self, input_tokens: i64) -> Option<&Rates> {
        if self.limit.is_some_and(|limit| input_tokens > limit) {
            return None;
        }
        match &self.tier {
            Some(tier) if input_tokens > tier.above => Some(&tier.rates),
            _ => Some(&self.rates),
        }
    }

    /// What a service tier asks for a call with that many input tokens, in millionths of the rates; `None` if it isn't known.
    pub fn factor_millionths(&self, tier: ServiceTier, input_tokens: i64) -> Option<i64> {
        match tier {
            ServiceTier::Standard => Some(ONE_MILLIONTHS),
            ServiceTier::Batch => self.batch_millionths,
            ServiceTier::Flex => self.flex_millionths,
            ServiceTier::Priority if self.priority_up_to.is_some_and(|limit| input_tokens > limit) => None,
            ServiceTier::Priority => self.priority_millionths,
            ServiceTier::Other => None,
        }
    }
}

impl Rates {
    fn from_spec(spec: &RatesSpec, habit: CacheHabit) -> Result<Rates, PriceError> {
        let input = rate(&spec.input)?;
        let output = rate(&spec.output)?;
        let (read, write_5m, write_1h) = match habit {
            CacheHabit::Claude => (input / 10, input * 5 / 4, input * 2),
            CacheHabit::OpenAi => (input / 2, input, input),
            CacheHabit::None => (input, input, input),
        };
        let cache_write_5m = rate_or(spec.cache_write_5m.as_deref(), write_5m)?;
        // Where lifetimes are not Claude's, there is one kind of write, however the client labels it.
        let write_1h = if habit == CacheHabit::Claude { write_1h } else { cache_write_5m };
        Ok(Rates {
            input,
            output,
            cache_read: rate_or(spec.cache_read.as_deref(), read)?,
            cache_write_5m,
            cache_write_1h: rate_or(spec.cache_write_1h.as_deref(), write_1h)?,
            audio_input: rate_or(spec.audio_input.as_deref(), input)?,
            audio_output: rate_or(spec.audio_output.as_deref(), output)?,
            reasoning: rate_or(spec.reasoning.as_deref(), output)?,
        })
    }
}

/// How a family of models prices its prompt cache where a row does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CacheHabit {
    Claude,
    OpenAi,
    None,
}

impl CacheHabit {
    fn of(model: &str) -> CacheHabit {
        let Some((name, _)) = super::names::ModelName::parse(model) else { return CacheHabit::None };
        let family = name.key();
        let family = family.strip_prefix("ft:").or(family.strip_prefix("regional:")).unwrap_or(family);
        if family.starts_with("claude") {
            return CacheHabit::Claude;
        }
        let is_openai = ["gpt-", "o1", "o3", "o4", "chatgpt"].iter().any(|prefix| family.starts_with(prefix));
        if is_openai { CacheHabit::OpenAi } else { CacheHabit::None }
    }
}

fn rate(text: &str) -> Result<i64, PriceError> {
    let nanos = parse_nanos(text.trim()).filter(|&nanos| nanos <= MAX_RATE_NANOS);
    nanos.ok_or_else(|| PriceError::Rate(text.to_owned()))
}

fn rate_or(text: Option<&str>, otherwise: i64) -> Result<i64, PriceError> {
    text.map_or(Ok(otherwise), rate)
}

fn batch_millionths(text: &str) -> Result<i64, PriceError> {
    let millionths = parse_scaled(text.trim(), 6).filter(|&millionths| millionths <= ONE_MILLIONTHS);
    millionths.ok_or_else(|| PriceError::Batch(text.to_owned()))
}

fn factor_millionths(text: &str) -> Result<i64, PriceError> {
    let millionths = parse_scaled(text.trim(), 6).filter(|&millionths| millionths <= MAX_FACTOR_MILLIONTHS);
    millionths.ok_or_else(|| PriceError::Factor(text.to_owned()))
}

fn instant_us(text: &str) -> Result<i64, PriceError> {
    let refused = |_| PriceError::EffectiveFrom(text.to_owned());
    let instant: jiff::Timestamp = if text.contains('T') {
        text.parse().map_err(refused)?
    } else {
        let date: jiff::civil::Date = text.parse().map_err(refused)?;
        date.to_zoned(jiff::tz::TimeZone::UTC).map_err(refused)?.timestamp()
    };
    Ok(instant.as_microsecond())
}
