//! The model's provider under one canonical name, whatever name a client uses.

use agentlens_domain::cost::canonical_provider;

use super::names::clean;
use super::table::table;

/// The provider's canonical name, found by the client's name for it or by the model's name.
pub(super) fn provider(stated: Option<&str>, model: Option<&str>) -> Option<String> {
    stated.and_then(canonical).or_else(|| of_model(model?))
}

/// The canonical name. An unknown provider keeps its own name in lower case; `None` for a name that is not a provider's.
fn canonical(stated: &str) -> Option<String> {
    let lower = stated.trim().to_ascii_lowercase();
    let head = lower.split('.').next().unwrap_or(&lower);
    let known = table().provider(&lower).or_else(|| table().provider(head));
    match known.or_else(|| canonical_provider(&lower)) {
        Some("") => None,
        Some(name) => Some(name.to_owned()),
        None => clean(&lower),
    }
}

/// The provider by the model's name: `openai/gpt-4o` contains it, and `claude-…` has only one.
fn of_model(model: &str) -> Option<String> {
    if let Some((path, name)) = model.rsplit_once('/') {
        let head = path.split('/').next().unwrap_or(path);
        let known = canonical_provider(head).filter(|name| !name.is_empty());
        return known.map(str::to_owned).or_else(|| of_model(name));
    }
    table().provider_of_model(model.trim()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_and_models_lead_to_one_name() {
        for (stated, model, expected) in [
            (Some("openai"), None, Some("openai")),
            (Some("openai.chat"), None, Some("openai")),
            (Some("OpenAI"), None, Some("openai")),
            (Some("azure.ai.openai"), None, Some("azure")),
            (Some("az.ai.inference"), None, Some("azure")),
            (Some("aws.bedrock"), Some("claude-3"), Some("bedrock")),
            (Some("gcp.vertex_ai"), None, Some("google")),
            (Some("mistralai"), None, Some("mistral")),
            (Some("x_ai"), None, Some("xai")),
            (Some("ibm.watsonx.ai"), None, Some("ibm")),
            (Some("moonshot_ai"), None, Some("moonshot")),
            (Some("Langchain"), Some("gpt-4o"), Some("openai")),
            (Some("gateway"), Some("anthropic/claude-sonnet-4"), Some("anthropic")),
            (Some("my-own"), Some("gpt-4o"), Some("my-own")),
            (None, Some("claude-sonnet-4-5"), Some("anthropic")),
            (None, Some("us.anthropic.claude-sonnet-4-5-v1:0"), Some("bedrock")),
            (None, Some("o3-mini"), Some("openai")),
            (None, Some("models/gemini-2.5-pro"), Some("google")),
            (None, Some("llama-3"), None),
            (None, None, None),
        ] {
            assert_eq!(provider(stated, model).as_deref(), expected, "{stated:?} {model:?}");
        }
    }
}
