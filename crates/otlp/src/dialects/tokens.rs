//! Tokens as inclusive totals, from whichever attributes hold them.
//!
//! Inclusive input contains cached tokens. OpenTelemetry and OpenInference report it, and clients that don't are listed in
//! `attributes.toml`. Objects of a provider use the provider's convention; if there is a total, it shows which one that is.

use agentlens_domain::spans::SpanKind;
use agentlens_domain::usage::{ReasoningConvention, Reported, TokenConvention, Usage};
use serde_json::Value as Json;

use super::field::Field;
use super::python;
use super::raw::RawValue;
use super::reading::Reading;

/// The operation that reads a stored answer again. Its tokens were paid for when the answer was made.
const FETCHES_AN_ANSWER: &str = "fetch_response";

/// Figures, and what is known about how they were counted.
#[derive(Default, Clone, Copy)]
struct Figures {
    reported: Reported,
    total: Option<f64>,
    /// The convention, if the shape shows it; otherwise it is inclusive.
    input: Option<TokenConvention>,
}

/// The tokens that a span names; `None` if it names none.
pub(super) fn usage<'a, V: RawValue + 'a>(
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
    provider: Option<&str>,
    model: Option<&str>,
) -> Option<Usage> {
    if reading.text(Field::Operation).is_some_and(|operation| operation == FETCHES_AN_ANSWER) {
        return None;
    }
    let (provider, model) = (provider.unwrap_or(""), model.unwrap_or(""));
    let mut figures = of_attributes(reading);
    add_details(&mut figures.reported, reading);
    if figures.reported.input.is_none() && figures.reported.output.is_none() {
        let objects =
            || reading.get(Field::UsageObject).map(object_of).and_then(|object| usage_in(object, 0));
        let in_answer =
            || if figures.total.is_none() { usage_in_answer(reading, kind, "oken") } else { None };
        if let Some(object) = objects().or_else(in_answer) {
            figures = of_object(&object, provider, model);
        }
        add_reasoning_of_answer(&mut figures.reported, reading, kind, provider, model);
        complete(&mut figures, kind)?;
        return Some(choose_convention(figures));
    }
    if let Some(object) = reading.get(Field::UsageObject) {
        add_parts(&mut figures.reported, &of_object(&object_of(object), provider, model).reported);
    }
    add_reasoning_of_answer(&mut figures.reported, reading, kind, provider, model);
    add_parts_of_replies(&mut figures.reported, reading, kind);
    if reading.has_exclusive_input(provider) {
        figures.input = Some(TokenConvention::Exclusive);
        // A total that such a client adds up itself excludes cached tokens too.
        figures.total = None;
    } else if reading.get(Field::ProviderConvention).is_some() {
        use_provider_counts(&mut figures, reading, provider, model);
    }
    complete(&mut figures, kind)?;
    Some(choose_convention(figures))
}

/// Names of the member with the tokens, in an answer of a provider's API or in a framework's form of it.
const USAGE_MEMBERS: [&str; 8] = [
    "usage",
    "usage_metadata",
    "usageMetadata",
    "token_usage",
    "tokenUsage",
    "usage_details",
    "token_count",
    "tokens",
];

/// Members that contain answers, such as those of LangChain's results.
const ANSWER_MEMBERS: [&str; 17] = [
    "llm_output",
    "response_metadata",
    "generations",
    "generation_info",
    "message",
    "kwargs",
    "response",
    "result",
    "raw",
    "output",
    "data",
    "metadata",
    "additional_kwargs",
    "messages",
    "replies",
    "_meta",
    "meta",
];

/// The beginning of the output of Haystack's generators.
const REPLIES: &str = "{\"replies\"";

/// How deeply usage may be nested inside an answer.
const MAX_USAGE_DEPTH: usize = 8;

/// The usage in a whole answer, if `word` occurs in it.
fn usage_in_answer<'a, V: RawValue + 'a>(
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
    word: &str,
) -> Option<Json> {
    if !kind.is_some_and(SpanKind::calls_a_model) {
        return None;
    }
    [Field::ResponseObject, Field::OutputMessages, Field::Output].into_iter().find_map(|field| {
        let answer = reading.get(field)?;
        // Most answers don't hold it, and a search for the word is cheaper than parsing.
        if answer.string().is_some_and(|text| !text.contains(word)) {
            return None;
        }
        usage_within(&object_of(answer), 0)
    })
}

/// The object with the figures: the given one or one of its members.
fn usage_in(object: Json, depth: usize) -> Option<Json> {
    if has_figures(&object) { Some(object) } else { usage_within(&object, depth) }
}

fn usage_within(value: &Json, depth: usize) -> Option<Json> {
    if depth > MAX_USAGE_DEPTH {
        return None;
    }
    match value {
        Json::Array(items) => items.first().and_then(|item| usage_within(&object_of(item), depth + 1)),
        Json::Object(object) => {
            let stated = USAGE_MEMBERS.iter().filter_map(|key| object.get(*key)).map(object_of);
            let mut stated = stated.filter(has_figures);
            let within = || {
                ANSWER_MEMBERS.iter().find_map(|key| usage_within(&object_of(object.get(*key)?), depth + 1))
            };
            stated.next().or_else(within)
        }
        _ => None,
    }
}

/// Whether an object holds tokens in a known shape.
fn has_figures(object: &Json) -> bool {
    let Figures { reported, total, .. } = of_object(object, "", "");
    reported.input.is_some() || reported.output.is_some() || total.is_some()
}

fn of_attributes<'a, V: RawValue + 'a>(reading: &Reading<'a, V>) -> Figures {
    let number = |field| reading.number(field);
    Figures {
        reported: Reported {
            input: number(Field::InputTokens),
            output: number(Field::OutputTokens),
            cache_read: number(Field::CacheReadTokens),
            cache_write: number(Field::CacheWriteTokens),
            cache_write_1h: number(Field::CacheWriteLongTokens),
            reasoning: number(Field::ReasoningTokens),
            audio_input: number(Field::AudioInputTokens),
            audio_output: number(Field::AudioOutputTokens),
            ..Reported::default()
        },
        total: number(Field::TotalTokens),
        input: None,
    }
}

/// Reasoning tokens that only the provider's own answer holds, as with MLflow.
fn add_reasoning_of_answer<'a, V: RawValue + 'a>(
    reported: &mut Reported,
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
    provider: &str,
    model: &str,
) {
    if reported.reasoning.is_none()
        && let Some(object) = usage_in_answer(reading, kind, "\"reasoning_tokens\"")
    {
        add_parts(reported, &of_object(&object, provider, model).reported);
    }
}

/// Parts of the totals that only the answer holds: of Haystack's calls, OpenInference names the totals alone. Objects without details are
/// skipped, because their input may exclude the cached tokens.
fn add_parts_of_replies<'a, V: RawValue + 'a>(
    reported: &mut Reported,
    reading: &Reading<'a, V>,
    kind: Option<SpanKind>,
) {
    let is_named = reported.cache_read.is_some() && reported.reasoning.is_some();
    if is_named || !kind.is_some_and(SpanKind::calls_a_model) {
        return;
    }
    let Some(output) = reading.get(Field::Output) else { return };
    // Other answers are not searched: they may be long, and their parts are named.
    let holds_usage = |text: &str| text.starts_with(REPLIES) && text.contains("_tokens_details");
    if output.string().is_some_and(holds_usage)
        && let Some(object) = usage_within(&object_of(output), 0).filter(object_has_details)
    {
        add_parts(reported, &of_object(&object, "", "").reported);
    }
}

/// Parts of the totals that only the provider's object holds.
fn add_parts(reported: &mut Reported, object: &Reported) {
    reported.cache_read = reported.cache_read.or(object.cache_read);
    reported.cache_write = reported.cache_write.or(object.cache_write);
    reported.cache_write_1h = reported.cache_write_1h.or(object.cache_write_1h);
    reported.audio_input = reported.audio_input.or(object.audio_input);
    reported.audio_output = reported.audio_output.or(object.audio_output);
    if object.reasoning_in == ReasoningConvention::Included {
        reported.reasoning = reported.reasoning.or(object.reasoning);
    }
}

/// Adds the parts of LangChain's totals, which are inclusive.
fn add_details<'a, V: RawValue + 'a>(reported: &mut Reported, reading: &Reading<'a, V>) {
    if let Some(details) = reading.get(Field::InputTokenDetails).map(object_of) {
        let number = |name: &str| number_in(&details, &[name]);
        let (short, long) = (number("ephemeral_5m_input_tokens"), number("ephemeral_1h_input_tokens"));
        reported.cache_read = reported.cache_read.or_else(|| number("cache_read"));
        reported.cache_write =
            reported.cache_write.or_else(|| written(number("cache_creation"), short, long));
        reported.cache_write_1h = reported.cache_write_1h.or(long);
        reported.audio_input = reported.audio_input.or_else(|| number("audio"));
    }
    if let Some(details) = reading.get(Field::OutputTokenDetails).map(object_of) {
        reported.reasoning = reported.reasoning.or_else(|| number_in(&details, &["reasoning"]));
        reported.audio_output = reported.audio_output.or_else(|| number_in(&details, &["audio"]));
    }
}

/// All tokens written to a cache. LangChain's newer versions send the two lifetimes without their sum.
fn written(sum: Option<f64>, short: Option<f64>, long: Option<f64>) -> Option<f64> {
    let lifetimes = match (short, long) {
        (None, None) => None,
        _ => Some(short.unwrap_or(0.0) + long.unwrap_or(0.0)),
    };
    match (sum, lifetimes) {
        (Some(sum), Some(lifetimes)) => Some(sum.max(lifetimes)),
        _ => sum.or(lifetimes),
    }
}

/// An object, also in the form that Python prints: `Usage(input_tokens=12)`.
fn object_of<V: RawValue>(value: &V) -> Json {
    match value.structure() {
        Json::String(text) => python::read(&text).unwrap_or(Json::String(text)),
        structure => structure,
    }
}

/// Computes a missing part from the total; `None` if there are no figures.
fn complete(figures: &mut Figures, kind: Option<SpanKind>) -> Option<()> {
    let Figures { reported, total, .. } = figures;
    match (reported.input, reported.output, *total) {
        (Some(input), None, Some(total)) if total > input => reported.output = Some(total - input),
        (None, Some(output), Some(total)) if total >= output => reported.input = Some(total - output),
        // Embedding and ranking have input tokens only.
        (None, None, Some(total)) if matches!(kind, Some(SpanKind::Embedding | SpanKind::Rerank)) => {
            reported.input = Some(total);
        }
        (None, None, _) => return None,
        _ => {}
    }
    Some(())
}

/// Decides between the conventions. The total decides if it is the sum under only one of them.
fn choose_convention(figures: Figures) -> Usage {
    let mut reported = figures.reported;
    let input = reported.input.unwrap_or(0.0);
    let output = reported.output.unwrap_or(0.0);
    let cached = reported.cache_read.unwrap_or(0.0)
        + reported.cache_write.unwrap_or(0.0).max(reported.cache_write_1h.unwrap_or(0.0));
    let reasoning = reported.reasoning.unwrap_or(0.0);
    let mut convention = figures.input.unwrap_or(TokenConvention::Inclusive);
    if let Some(total) = figures.total.filter(|total| *total > 0.0) {
        let is_sum = |more: f64| (total - input - output - more).abs() < 0.5;
        if cached > 0.0
            && (is_sum(cached) || is_sum(cached + reasoning))
            && !is_sum(0.0)
            && !is_sum(reasoning)
        {
            convention = TokenConvention::Exclusive;
        } else if figures.input.is_some() && is_sum(0.0) {
            convention = TokenConvention::Inclusive;
        }
        if reasoning > 0.0 && is_sum(0.0) {
            reported.reasoning_in = ReasoningConvention::Included;
        } else if reasoning > 0.0 && (is_sum(reasoning) || is_sum(cached + reasoning)) {
            reported.reasoning_in = ReasoningConvention::Separate;
        }
    }
    Usage::from_reported(reported, convention)
}

/// Uses the provider's convention and metadata, for a client that passes on the counts of the provider's API.
fn use_provider_counts<'a, V: RawValue + 'a>(
    figures: &mut Figures,
    reading: &Reading<'a, V>,
    provider: &str,
    model: &str,
) {
    if reading.get(Field::InclusiveInput).is_none() {
        figures.input = Some(TokenConvention::for_provider(provider, model));
        figures.reported.reasoning_in = ReasoningConvention::for_provider(provider);
        // These clients' totals exclude cached tokens under both conventions, so they don't show the convention.
        let sum = figures.reported.input.unwrap_or(0.0) + figures.reported.output.unwrap_or(0.0);
        if figures.total.is_some_and(|total| (total - sum).abs() < 0.5) {
            figures.total = None;
            if figures.reported.reasoning.is_some() {
                figures.reported.reasoning_in = ReasoningConvention::Included;
            }
        }
    }
    let Some(metadata) = reading.get(Field::ProviderMetadata).map(RawValue::structure) else { return };
    // A gateway has a member beside the provider's, possibly before it.
    let Some(providers) = metadata.as_object() else { return };
    let number = |paths: &[&str]| providers.values().find_map(|own| number_in(own, paths));
    let reported = &mut figures.reported;
    reported.cache_read = reported.cache_read.or_else(|| number(&METADATA_CACHE_READ));
    reported.cache_write = reported.cache_write.or_else(|| number(&METADATA_CACHE_WRITE));
    reported.reasoning = reported.reasoning.or_else(|| number(&METADATA_REASONING));
    reported.cache_write_1h =
        reported.cache_write_1h.or_else(|| number(&["usage.cache_creation.ephemeral_1h_input_tokens"]));
    if let (Some(fresh), Some(input)) = (number(&["usage.input_tokens"]), reported.input) {
        let is_fresh_only = (fresh - input).abs() < 0.5;
        figures.input =
            Some(if is_fresh_only { TokenConvention::Exclusive } else { TokenConvention::Inclusive });
    }
}

const METADATA_CACHE_READ: [&str; 5] = [
    "cacheReadInputTokens",
    "usage.cacheReadInputTokens",
    "usage.cache_read_input_tokens",
    "cachedPromptTokens",
    "usageMetadata.cachedContentTokenCount",
];
const METADATA_CACHE_WRITE: [&str; 4] = [
    "cacheCreationInputTokens",
    "cacheWriteInputTokens",
    "usage.cacheWriteInputTokens",
    "usage.cache_creation_input_tokens",
];
const METADATA_REASONING: [&str; 2] = ["reasoningTokens", "usageMetadata.thoughtsTokenCount"];

/// An object from a provider's API or from Langfuse; its keys show which.
fn of_object(object: &Json, provider: &str, model: &str) -> Figures {
    let number = |keys: &[&str]| number_in(object, keys);
    let own_cached = number(&["cache_read_input_tokens", "cacheReadInputTokens"]);
    let own_written =
        number(&["cache_creation_input_tokens", "cacheWriteInputTokens", "cache_write_input_tokens"]);
    let openai_input = number(&["prompt_tokens", "promptTokens", "promptTokenCount", "prompt_token_count"]);
    let plain_input = number(&["input_tokens", "inputTokens"]);
    let langfuse_input = number(&["input"]);
    let mut figures = Figures {
        reported: Reported {
            input: openai_input.or(plain_input).or(langfuse_input),
            output: number(&OBJECT_OUTPUT),
            cache_read: number(&OBJECT_CACHE_READ).or(own_cached),
            cache_write: written(
                number(&["input_tokens_details.cache_write_tokens", "input_cache_creation"]).or(own_written),
                number(&["input_ephemeral_5m_input_tokens"]),
                number(&["input_ephemeral_1h_input_tokens"]),
            ),
            cache_write_1h: number(&[
                "cache_creation.ephemeral_1h_input_tokens",
                "input_cache_creation_1h",
                "input_ephemeral_1h_input_tokens",
            ]),
            reasoning: number(&OBJECT_REASONING),
            audio_input: number(&["prompt_tokens_details.audio_tokens", "input_audio_tokens", "input_audio"]),
            audio_output: number(&[
                "completion_tokens_details.audio_tokens",
                "output_audio_tokens",
                "output_audio",
            ]),
            ..Reported::default()
        },
        total: number(&["total_tokens", "totalTokens", "totalTokenCount", "total_token_count", "total"]),
        input: None,
    };
    let is_gemini = number(&["candidatesTokenCount", "candidates_token_count"]).is_some();
    let is_langfuse = openai_input.is_none() && plain_input.is_none();
    if is_langfuse && !is_gemini {
        add_langfuse_parts(&mut figures, object);
        return figures;
    }
    if is_gemini {
        // The two kinds of output do not overlap.
        figures.reported.reasoning_in = ReasoningConvention::Separate;
    }
    if is_langfuse || (plain_input.is_some() && (own_cached.is_some() || own_written.is_some())) {
        figures.input = Some(TokenConvention::Exclusive);
    } else if openai_input.is_none() && !object_has_details(object) {
        figures.input = Some(TokenConvention::for_provider(provider, model));
    }
    figures
}

/// Langfuse's parts do not overlap: each part, whatever its name, is not in the input or output, and a missing total is the
/// sum of all. If the given total is input plus output, the input and output are inclusive.
fn add_langfuse_parts(figures: &mut Figures, object: &Json) {
    let Figures { reported, total, .. } = figures;
    let (input, output) = (reported.input.unwrap_or(0.0), reported.output.unwrap_or(0.0));
    let (input_parts, output_parts) =
        (sum_of_parts(object, is_input_part), sum_of_parts(object, is_output_part));
    let (whole_input, whole_output) = (input + input_parts, output + output_parts);
    let is_total = |sum: f64| total.is_none_or(|total| (total - sum).abs() < 0.5);
    let sums = [(whole_input, whole_output), (whole_input, output), (input, whole_output), (input, output)];
    let (input, output) =
        sums.into_iter().find(|(input, output)| is_total(input + output)).unwrap_or_else(|| {
            // Some parts come twice: cache writes come in total and by lifetime.
            let rest = total.unwrap_or(0.0) - whole_output;
            (whole_input.min(rest.max(input)), whole_output)
        });
    if reported.input.is_some() || input_parts > 0.0 {
        reported.input = Some(input);
    }
    if reported.output.is_some() || output_parts > 0.0 {
        reported.output = Some(output);
    }
    figures.input = Some(TokenConvention::Inclusive);
}

/// The sum of the selected parts. A provider's own name for the whole output is not a part.
fn sum_of_parts(object: &Json, is_part: impl Fn(&str) -> bool) -> f64 {
    let members = object.as_object().into_iter().flatten();
    let parts = members.filter(|(key, _)| is_part(key) && !OBJECT_OUTPUT.contains(&key.as_str()));
    parts.filter_map(|(_, value)| value.number()).map(|tokens| tokens.max(0.0)).sum()
}

/// Langfuse's own names begin with `input` or `output`; names that were passed on are recognised by their subject.
fn is_input_part(key: &str) -> bool {
    key.starts_with("input_") || (!key.starts_with("output_") && key.contains("cache"))
}

fn is_output_part(key: &str) -> bool {
    key.starts_with("output_") || (!key.starts_with("input_") && key.contains("reasoning"))
}

const OBJECT_OUTPUT: [&str; 7] = [
    "completion_tokens",
    "completionTokens",
    "candidatesTokenCount",
    "candidates_token_count",
    "output_tokens",
    "outputTokens",
    "output",
];
const OBJECT_CACHE_READ: [&str; 9] = [
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    "cachedInputTokens",
    "cachedContentTokenCount",
    "cached_content_token_count",
    "input_cached_tokens",
    "input_cache_read",
    "input_cached",
    "cached_tokens",
];
const OBJECT_REASONING: [&str; 8] = [
    "completion_tokens_details.reasoning_tokens",
    "output_tokens_details.reasoning_tokens",
    "reasoningTokens",
    "thoughtsTokenCount",
    "thoughts_token_count",
    "output_reasoning_tokens",
    "output_reasoning",
    "reasoning_tokens",
];

fn object_has_details(object: &Json) -> bool {
    object.get("input_tokens_details").is_some() || object.get("prompt_tokens_details").is_some()
}

/// The first of these members that is a number. In a path, a point separates an object from its member.
pub(super) fn number_in(object: &Json, paths: &[&str]) -> Option<f64> {
    paths.iter().find_map(|path| {
        let mut value = object;
        for step in path.split('.') {
            value = value.get(step)?;
        }
        value.number()
    })
}
