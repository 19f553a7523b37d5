//! How many tokens a call used, in one canonical shape.
//!
//! Clients disagree about what "input tokens" means: Anthropic's API leaves cached tokens out of it,
//! OpenAI's puts them in. [`Usage`] is always inclusive (totals contain their parts), so every reader
//! can add `input + output` without counting a cached token twice, and [`Usage::from_reported`] is the
//! only door through which a client's figures come in.

use serde::{Deserialize, Serialize};

use crate::cost::canonical_provider;

/// A single reported part above this many tokens is a client's mistake and counts as 0.
pub const MAX_REPORTED_TOKENS: f64 = 1e10;

/// Tokens used by one call, or the sum over many calls. Every field is in tokens.
///
/// `input` and `output` are inclusive totals; the other fields say how much of a total was special.
/// The difference of two usages may have negative fields: a correction to a sum is a legal value.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All input tokens: fresh, read from a cache, written to a cache, text and audio.
    pub input: i64,
    /// All output tokens: visible text, reasoning and audio.
    pub output: i64,
    /// Part of `input` that was served from the provider's prompt cache.
    pub cache_read: i64,
    /// Part of `input` that was written to a prompt cache kept for five minutes (or for as long as the
    /// provider keeps it, where it offers no choice).
    pub cache_write_5m: i64,
    /// Part of `input` that was written to a prompt cache kept for one hour.
    pub cache_write_1h: i64,
    /// Part of `output` spent on thinking that the caller may not see.
    pub reasoning: i64,
    /// Part of `input` that was audio.
    pub audio_input: i64,
    /// Part of `output` that was audio.
    pub audio_output: i64,
}

impl Usage {
    /// Reads what a client reported. Absent, negative, non-finite or absurd parts count as 0, fractions
    /// are rounded, and a part never exceeds the total that contains it.
    pub fn from_reported(reported: Reported, convention: TokenConvention) -> Usage {
        let cache_read = tokens(reported.cache_read);
        let cache_write_1h = tokens(reported.cache_write_1h);
        let cache_write = tokens(reported.cache_write).max(cache_write_1h);
        let cached = cache_read + cache_write;
        let stated_input = tokens(reported.input);
        // More cached tokens than input tokens is impossible if input includes them, so the claim is wrong.
        let inclusive = convention == TokenConvention::Inclusive && cached <= stated_input;
        let input = if inclusive { stated_input } else { stated_input + cached };

        let reasoning = tokens(reported.reasoning);
        let stated_output = tokens(reported.output);
        let included = reported.reasoning_in == ReasoningConvention::Included && reasoning <= stated_output;
        let output = if included { stated_output } else { stated_output + reasoning };
        Usage {
            input,
            output,
            cache_read,
            cache_write_5m: cache_write - cache_write_1h,
            cache_write_1h,
            reasoning,
            audio_input: tokens(reported.audio_input).min(input),
            audio_output: tokens(reported.audio_output).min(output),
        }
    }

    /// Input tokens that neither came from a cache nor were written to one; never negative.
    pub fn uncached_input(&self) -> i64 {
        let cached = [self.cache_read, self.cache_write_5m, self.cache_write_1h];
        cached.iter().fold(self.input, |left, part| left.saturating_sub((*part).max(0))).max(0)
    }

    /// All tokens of the call: input plus output.
    pub fn total(&self) -> i64 {
        self.input.saturating_add(self.output)
    }

    /// Whether every field is 0.
    pub fn is_zero(&self) -> bool {
        *self == Usage::default()
    }

    /// Sum field by field, stopping at the ends of `i64`.
    pub fn saturating_add(self, other: Usage) -> Usage {
        self.zip(other, i64::saturating_add)
    }

    /// Difference field by field, stopping at the ends of `i64`. Fields may become negative.
    pub fn saturating_sub(self, other: Usage) -> Usage {
        self.zip(other, i64::saturating_sub)
    }

    fn zip(self, other: Usage, join: impl Fn(i64, i64) -> i64) -> Usage {
        Usage {
            input: join(self.input, other.input),
            output: join(self.output, other.output),
            cache_read: join(self.cache_read, other.cache_read),
            cache_write_5m: join(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: join(self.cache_write_1h, other.cache_write_1h),
            reasoning: join(self.reasoning, other.reasoning),
            audio_input: join(self.audio_input, other.audio_input),
            audio_output: join(self.audio_output, other.audio_output),
        }
    }
}

/// Token figures as a client sent them, before they are trusted. Every number is in tokens.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
pub struct Reported {
    /// Input tokens; whether cached ones are inside is what [`TokenConvention`] says.
    pub input: Option<f64>,
    /// Output tokens; whether reasoning ones are inside is what `reasoning_in` says.
    pub output: Option<f64>,
    /// Tokens read from the prompt cache.
    pub cache_read: Option<f64>,
    /// Tokens written to the prompt cache, of every lifetime together.
    pub cache_write: Option<f64>,
    /// The part of `cache_write` kept for one hour. Larger than `cache_write` means that the client
    /// named only this one, and then it is the whole.
    pub cache_write_1h: Option<f64>,
    /// Tokens spent on reasoning ("thinking", "thoughts").
    pub reasoning: Option<f64>,
    /// Audio tokens in the input; inside `input` under both conventions.
    pub audio_input: Option<f64>,
    /// Audio tokens in the output; inside `output`.
    pub audio_output: Option<f64>,
    /// Whether `output` already contains `reasoning`.
    pub reasoning_in: ReasoningConvention,
}

impl Reported {
    /// Whether a part can't be a number of tokens: it is negative, not finite or absurd. [`Usage::from_reported`] leaves it out.
    pub fn has_impossible_part(&self) -> bool {
        let parts = [
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.cache_write_1h,
            self.reasoning,
            self.audio_input,
            self.audio_output,
        ];
        parts.into_iter().flatten().any(|count| !is_possible(count))
    }
}

/// Whether a reported input count already contains the cached tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenConvention {
    /// `input` contains cache reads and writes (OpenAI, Azure, Gemini, Mistral, DeepSeek, and the
    /// OpenTelemetry GenAI attribute `gen_ai.usage.input_tokens`).
    Inclusive,
    /// `input` leaves cache reads and writes out (Anthropic's Messages API, Bedrock's Converse API).
    Exclusive,
}

impl TokenConvention {
    /// The convention of the provider's own API, for a client that passes its usage object through.
    ///
    /// An emitter that documents its own convention (OpenTelemetry's is inclusive) overrides this: ask
    /// for the provider's only where nothing better is known.
    pub fn for_provider(provider: &str, model: &str) -> TokenConvention {
        let is_claude = contains_ignore_case(model, "claude");
        let exclusive = match canonical_provider(provider) {
            Some("anthropic" | "bedrock") => true,
            Some("google" | "") => is_claude,
            _ => contains_ignore_case(provider, "anthropic"),
        };
        if exclusive { TokenConvention::Exclusive } else { TokenConvention::Inclusive }
    }
}

/// Whether a reported output count already contains the reasoning tokens.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasoningConvention {
    /// `output` contains them: OpenAI's `completion_tokens`, Anthropic's `output_tokens`, OpenTelemetry.
    #[default]
    Included,
    /// `output` leaves them out: Gemini's `candidatesTokenCount` (beside `thoughtsTokenCount`) and xAI's
    /// `completion_tokens`.
    Separate,
}

impl ReasoningConvention {
    /// The convention of the provider's own API; see [`TokenConvention::for_provider`] for when to ask.
    pub fn for_provider(provider: &str) -> ReasoningConvention {
        match canonical_provider(provider) {
            Some("google" | "xai") => ReasoningConvention::Separate,
            _ => ReasoningConvention::Included,
        }
    }
}

/// One reported part as whole tokens; 0 for anything that cannot be a count.
fn tokens(reported: Option<f64>) -> i64 {
    match reported {
        // In range, so the cast below is exact: 1e10 is far under 2^53.
        Some(count) if is_possible(count) => count.round() as i64,
        _ => 0,
    }
}

fn is_possible(count: f64) -> bool {
    (0.0..=MAX_REPORTED_TOKENS).contains(&count)
}

fn contains_ignore_case(haystack: &str, needle: &str) -> bool {
    haystack.as_bytes().windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anthropic() -> Reported {
        Reported {
            input: Some(7.0),
            output: Some(50.0),
            cache_read: Some(100.0),
            cache_write: Some(200.0),
            cache_write_1h: Some(80.0),
            ..Reported::default()
        }
    }

    #[test]
    fn exclusive_input_gains_its_cached_tokens() {
        let usage = Usage::from_reported(anthropic(), TokenConvention::Exclusive);
        assert_eq!(usage.input, 307);
        assert_eq!((usage.cache_read, usage.cache_write_5m, usage.cache_write_1h), (100, 120, 80));
        assert_eq!(usage.uncached_input(), 7);
        assert_eq!(usage.total(), 357);
    }

    #[test]
    fn inclusive_input_is_kept() {
        let reported = Reported { input: Some(307.0), ..anthropic() };
        let usage = Usage::from_reported(reported, TokenConvention::Inclusive);
        assert_eq!(usage, Usage::from_reported(anthropic(), TokenConvention::Exclusive));
    }

    #[test]
    fn an_impossible_inclusive_claim_is_read_as_exclusive() {
        let usage = Usage::from_reported(anthropic(), TokenConvention::Inclusive);
        assert_eq!(usage.input, 307);
    }

    #[test]
    fn one_hour_writes_alone_are_the_whole_write() {
        let reported = Reported {
            input: Some(1.0),
            cache_write_1h: Some(9.0),
            cache_write: None,
            ..Reported::default()
        };
        let usage = Usage::from_reported(reported, TokenConvention::Exclusive);
        assert_eq!((usage.input, usage.cache_write_5m, usage.cache_write_1h), (10, 0, 9));
    }

    #[test]
    fn reasoning_is_counted_once() {
        let openai = Reported { output: Some(100.0), reasoning: Some(60.0), ..Reported::default() };
        let usage = Usage::from_reported(openai, TokenConvention::Inclusive);
        assert_eq!((usage.output, usage.reasoning), (100, 60));
        let gemini = Reported { output: Some(40.0), reasoning_in: ReasoningConvention::Separate, ..openai };
        assert_eq!(Usage::from_reported(gemini, TokenConvention::Inclusive), usage);
        // 60 reasoning tokens cannot be inside 40 output tokens, whatever the emitter claims.
        let mislabelled = Reported { output: Some(40.0), ..openai };
        assert_eq!(Usage::from_reported(mislabelled, TokenConvention::Inclusive), usage);
    }

    #[test]
    fn figures_that_cannot_be_counts_are_zero() {
        for bad in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.1e12] {
            let reported = Reported {
                input: Some(bad),
                output: Some(bad),
                cache_read: Some(bad),
                cache_write: Some(bad),
                cache_write_1h: Some(bad),
                reasoning: Some(bad),
                audio_input: Some(bad),
                audio_output: Some(bad),
                reasoning_in: ReasoningConvention::Separate,
            };
            assert!(Usage::from_reported(reported, TokenConvention::Exclusive).is_zero(), "{bad}");
        }
        assert!(Usage::from_reported(Reported::default(), TokenConvention::Inclusive).is_zero());
    }

    #[test]
    fn audio_never_exceeds_its_total() {
        let reported = Reported {
            input: Some(10.0),
            output: Some(5.0),
            audio_input: Some(99.0),
            audio_output: Some(99.0),
            ..Reported::default()
        };
        let usage = Usage::from_reported(reported, TokenConvention::Inclusive);
        assert_eq!((usage.audio_input, usage.audio_output), (10, 5));
    }

    #[test]
    fn providers_have_their_convention() {
        use TokenConvention::{Exclusive, Inclusive};
        for (provider, model, convention) in [
            ("anthropic", "claude-sonnet-4-5", Exclusive),
            ("Anthropic.messages", "claude-sonnet-4-5", Exclusive),
            ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", Exclusive),
            ("amazon-bedrock", "amazon.nova-lite-v1:0", Exclusive),
            ("vertex_ai", "claude-sonnet-4@20250514", Exclusive),
            ("", "claude-3-opus", Exclusive),
            ("gcp.gemini", "gemini-2.5-pro", Inclusive),
            ("openai", "gpt-4o", Inclusive),
            ("azure", "gpt-4o", Inclusive),
            ("mistral_ai", "mistral-large", Inclusive),
            ("deepseek", "deepseek-chat", Inclusive),
            ("openrouter", "anthropic/claude-sonnet-4", Inclusive),
            ("", "gpt-4o", Inclusive),
        ] {
            assert_eq!(TokenConvention::for_provider(provider, model), convention, "{provider} {model}");
        }
        assert_eq!(ReasoningConvention::for_provider("gcp.gemini"), ReasoningConvention::Separate);
        assert_eq!(ReasoningConvention::for_provider("xai"), ReasoningConvention::Separate);
        assert_eq!(ReasoningConvention::for_provider("openai"), ReasoningConvention::Included);
    }

    #[test]
    fn sums_and_corrections() {
        let one = Usage { input: 3, output: 2, cache_read: 1, ..Usage::default() };
        let two = one.saturating_add(one);
        assert_eq!(two.saturating_sub(one), one);
        assert_eq!(one.saturating_sub(two).input, -3);
        let full = Usage { input: i64::MAX, ..Usage::default() };
        assert_eq!(full.saturating_add(one).input, i64::MAX);
    }
}
