//! Reads what a model and a provider are called through the spellings of many clients.
//!
//! One model travels as `gpt-4o`, `openai/gpt-4o`, `azure/gpt-4o`; one Claude as `claude-sonnet-4.5`,
//! `us.anthropic.claude-sonnet-4-5-20250929-v1:0`, `claude-sonnet-4-5@20250929`. Everything here works
//! on the stack: a name is read for every call that is priced.

use super::table::Scope;

/// A model name longer than this is not priced.
const MAX_NAME_BYTES: usize = 120;

/// A provider name longer than this is no provider we know.
const MAX_PROVIDER_BYTES: usize = 40;

/// Key prefix of the rows for Amazon Bedrock's regional endpoints, which cost more than the global one.
const REGIONAL: &str = "regional:";

/// The key of the row for every model that a gateway marks with the suffix `:free`.
const FREE: &str = "free";

/// Geography prefixes of Bedrock's inference profiles.
const BEDROCK_GEOGRAPHIES: [&str; 9] = ["us", "eu", "apac", "jp", "au", "ca", "sa", "us-gov", "global"];

/// Vendor prefixes of Bedrock's model ids.
const BEDROCK_VENDORS: [&str; 12] = [
    "anthropic",
    "amazon",
    "meta",
    "mistral",
    "cohere",
    "deepseek",
    "openai",
    "qwen",
    "google",
    "ai21",
    "nvidia",
    "moonshot",
];

/// Words that name a different model with a different price: `x-mini` is never priced as `x`.
const VARIANT_WORDS: [&str; 25] = [
    "mini",
    "nano",
    "micro",
    "lite",
    "light",
    "small",
    "medium",
    "large",
    "plus",
    "pro",
    "max",
    "ultra",
    "turbo",
    "fast",
    "flash",
    "premier",
    "vision",
    "image",
    "audio",
    "realtime",
    "live",
    "transcribe",
    "tts",
    "search",
    "embed",
];

/// Providers that run models on the caller's own machines: a vendor's list price says nothing there.
const LOCAL_PROVIDERS: [&str; 9] =
    ["ollama", "vllm", "lmstudio", "lm_studio", "llamacpp", "llama_cpp", "sglang", "local", "localai"];

/// Programs and gateways that pass calls on: the path in the model's name says to whom.
const GATEWAYS: [&str; 12] = [
    "litellm",
    "litellm_proxy",
    "langchain",
    "langgraph",
    "llamaindex",
    "llama_index",
    "portkey",
    "helicone",
    "vercel",
    "gateway",
    "bifrost",
    "kong",
];

/// Amazon Bedrock's name in the price table.
pub(super) const BEDROCK: &str = "bedrock";

/// The beginnings of the models for which Bedrock's regional endpoints ask what the global ones do; later ones cost more there.
const WITHOUT_REGIONAL_PREMIUM: [&str; 6] = [
    "claude-instant",
    "claude-2",
    "claude-3",
    "claude-opus-4-1",
    "claude-sonnet-4-2025",
    "claude-opus-4-2025",
];

/// A model name in the form the price table is keyed by.
pub(super) struct ModelName {
    /// [`REGIONAL`] followed by the key, so that both lookups read from one buffer.
    bytes: [u8; REGIONAL.len() + MAX_NAME_BYTES],
    length: usize,
    is_regional: bool,
}

impl ModelName {
    /// Reads a client's model name, and the provider it names on the way (`groq/…`), if any.
    pub(super) fn parse(model: &str) -> Option<(ModelName, Option<&str>)> {
        let model = model.trim();
        let (path_provider, last) = match model.rsplit_once('/') {
            Some((path, last)) => (path.split('/').next(), last),
            None => (None, model),
        };
        let (name, geography) = match strip_bedrock(last) {
            Some((name, geography)) => (name, Some(geography)),
            None => (last, None),
        };
        let is_free = name.rsplit_once(':').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case(FREE));
        let name = if is_free { FREE } else { name };
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return None;
        }
        let mut bytes = [0; REGIONAL.len() + MAX_NAME_BYTES];
        bytes[..REGIONAL.len()].copy_from_slice(REGIONAL.as_bytes());
        write_key(name.as_bytes(), &mut bytes[REGIONAL.len()..]);
        let is_regional = geography.is_some_and(|geography| !geography.eq_ignore_ascii_case("global"));
        let provider = path_provider.filter(|path| !path.starts_with("arn:"));
        let provider = provider.or(geography.map(|_| BEDROCK));
        Some((ModelName { bytes, length: REGIONAL.len() + name.len(), is_regional }, provider))
    }

    /// The key to look up.
    pub(super) fn key(&self) -> &str {
        self.text(REGIONAL.len())
    }

    /// The key to look up first, where the name says that a regional endpoint served the call.
    pub(super) fn regional_key(&self) -> Option<&str> {
        self.is_regional.then(|| self.text(0))
    }

    fn text(&self, start: usize) -> &str {
        // Only ASCII bytes of a valid string were replaced, each by one ASCII byte.
        std::str::from_utf8(&self.bytes[start..self.length]).unwrap_or("")
    }
}

/// Lower case, and `claude-3.5` spelled like `claude-3-5`: clients write versions both ways.
fn write_key(name: &[u8], key: &mut [u8]) {
    for (position, &byte) in name.iter().enumerate() {
        let digit_at = |at: usize| name.get(at).is_some_and(u8::is_ascii_digit);
        let is_version_dot = byte == b'.' && position > 0 && digit_at(position - 1) && digit_at(position + 1);
        key[position] = if is_version_dot { b'-' } else { byte.to_ascii_lowercase() };
    }
}

/// `us.anthropic.claude-…` as `claude-…` and `us`; a Bedrock id without a geography gives `""`.
fn strip_bedrock(name: &str) -> Option<(&str, &str)> {
    let (head, tail) = name.split_once('.')?;
    if is_one_of(head, &BEDROCK_VENDORS) {
        return Some((tail, ""));
    }
    let (vendor, model) = tail.split_once('.')?;
    (is_one_of(head, &BEDROCK_GEOGRAPHIES) && is_one_of(vendor, &BEDROCK_VENDORS)).then_some((model, head))
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Shorter keys that the key begins with, longest first, each with the rest of the key: it ends where a
/// separator begins.
pub(super) fn shorter_keys(key: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = (1..key.len()).rev().filter(|&end| is_separator(key.as_bytes()[end]));
    ends.map(|end| key.split_at(end))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b':' | b'@' | b'_' | b'[' | b' ')
}

/// Whether the rest of a name (`-mini-2024-07-18`) makes it a different model from the one before it.
/// Dates, releases and words like `latest` do not; sizes and short version numbers do.
pub(super) fn names_another_model(rest: &str) -> bool {
    // After these, customers write their own words: `ft:gpt-4o:acme-pro`.
    let vendor_part = rest.split([':', '@', '[']).next().unwrap_or("");
    let mut segments = vendor_part.split(['-', '_', ' ']).filter(|segment| !segment.is_empty()).peekable();
    if let Some(&first) = segments.peek() {
        let is_short_number = first.len() <= 2 && is_number(first);
        let is_month =
            is_short_number && segments.clone().nth(1).is_some_and(|year| year.len() == 4 && is_number(year));
        if is_short_number && !is_month {
            return true;
        }
    }
    segments.any(|segment| VARIANT_WORDS.contains(&segment) || is_size(segment))
}

fn is_number(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_digit())
}

/// `70b` parameters or a `32k` context.
fn is_size(segment: &str) -> bool {
    segment.strip_suffix(['b', 'k']).is_some_and(|digits| !digits.is_empty() && is_number(digits))
}

/// The provider's one name in the price table, for the spellings that are known to differ; `None` for a
/// provider with no other spelling known. `Some("")` for a blank name.
pub fn canonical_provider(provider: &str) -> Option<&'static str> {
    let provider = provider.trim();
    if provider.is_empty() {
        return Some("");
    }
    if provider.len() > MAX_PROVIDER_BYTES {
        return None;
    }
    let mut buffer = [0; MAX_PROVIDER_BYTES];
    let lower = &mut buffer[..provider.len()];
    lower.copy_from_slice(provider.as_bytes());
    lower.make_ascii_lowercase();
    // `openai.chat`, `aws.bedrock`, `gcp.vertex_ai`: the part before the dot decides.
    let head = lower.split(|&byte| byte == b'.').next()?;
    Some(match std::str::from_utf8(head).ok()? {
        "openai" | "open_ai" => "openai",
        "azure" | "azure_openai" | "azure-openai" | "az" | "azure_ai" => "azure",
        "anthropic" | "claude" => "anthropic",
        "aws" | "bedrock" | "aws_bedrock" | "aws-bedrock" | "amazon-bedrock" | "amazon_bedrock"
        | "bedrock_converse" | "amazon" => "bedrock",
        "gcp" | "google" | "gemini" | "vertex" | "vertexai" | "vertex_ai" | "google_genai"
        | "google-genai" | "google_vertexai" | "google-vertex" | "google_ai" => "google",
        "mistral" | "mistralai" | "mistral_ai" => "mistral",
        "xai" | "x_ai" | "x-ai" => "xai",
        "deepseek" => "deepseek",
        "cohere" => "cohere",
        "groq" => "groq",
        "together" | "togetherai" | "together_ai" | "together-ai" => "together",
        "cerebras" => "cerebras",
        "fireworks" | "fireworks_ai" | "fireworks-ai" | "fireworksai" => "fireworks",
        "moonshot" | "moonshotai" | "moonshot_ai" => "moonshot",
        "openrouter" => "openrouter",
        local if LOCAL_PROVIDERS.contains(&local) => "local",
        _ => return None,
    })
}

/// The providers a call names, against which the provider of a price is held.
pub(super) struct Callers<'a> {
    stated: Option<&'a str>,
    in_path: Option<&'a str>,
    is_local: bool,
}

impl<'a> Callers<'a> {
    pub(super) fn new(stated: Option<&'a str>, in_path: Option<&'a str>) -> Callers<'a> {
        let [stated, in_path] =
            [stated, in_path].map(|name| name.map(one_spelling).filter(|name| !name.is_empty()));
        Callers { stated, in_path, is_local: stated == Some("local") || in_path == Some("local") }
    }

    /// Whether the path of the model's name may say who served the call: not if the caller names a provider, who calls the
    /// models of others by their makers' names (`deepseek/deepseek-chat` at OpenRouter).
    fn is_path_telling(&self) -> bool {
        self.stated.is_none_or(|stated| is_one_of(stated, &GATEWAYS))
    }

    /// How well a price of that provider fits the call, more is better; `None` if it does not apply.
    pub(super) fn fit(&self, provider: Option<&str>, scope: Scope) -> Option<u8> {
        let Some(provider) = provider else { return (!self.is_local).then_some(0) };
        let is_same = |name: Option<&str>| name.is_some_and(|name| name.eq_ignore_ascii_case(provider));
        if is_same(self.stated) {
            return Some(3);
        }
        if !self.is_path_telling() {
            return None;
        }
        if is_same(self.in_path) {
            return Some(2);
        }
        (scope == Scope::Maker && self.in_path.is_none()).then_some(1)
    }
}

/// Whether Bedrock's regional endpoints ask no premium for the model.
pub(super) fn has_no_regional_premium(key: &str) -> bool {
    WITHOUT_REGIONAL_PREMIUM.iter().any(|beginning| key.starts_with(beginning))
}

/// The canonical spelling of a provider, or the name itself if no other spelling is known.
pub(super) fn one_spelling(provider: &str) -> &str {
    canonical_provider(provider).unwrap_or_else(|| provider.trim())
}
