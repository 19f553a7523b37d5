//! How fast a call was to be answered, which vendors price differently.

use serde::{Deserialize, Serialize};

/// The service tier of a call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// The provider's batch API.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer.
    Priority,
    /// A tier whose price depends on a contract, or that is not known here.
    Other,
}

impl ServiceTier {
    /// Reads a client's or a provider's word. `None` if the word names no tier.
    pub fn parse(word: &str) -> Option<ServiceTier> {
        let word = word.trim().to_ascii_lowercase();
        Some(match word.as_str() {
            "" | "none" | "null" => return None,
            // `auto` asks for the standard tier unless the project was set up otherwise.
            "default" | "standard" | "standard_only" | "auto" | "on_demand" | "on-demand" => {
                ServiceTier::Standard
            }
            "batch" => ServiceTier::Batch,
            "flex" | "on_demand_flex" => ServiceTier::Flex,
            "priority" | "fast" | "on_demand_priority" => ServiceTier::Priority,
            _ => ServiceTier::Other,
        })
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceTier::Standard => "standard",
            ServiceTier::Batch => "batch",
            ServiceTier::Flex => "flex",
            ServiceTier::Priority => "priority",
            ServiceTier::Other => "other",
        }
    }
}
