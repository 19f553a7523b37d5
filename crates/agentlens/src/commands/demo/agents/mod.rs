//! The agents of the demo: who they are, when they work, which models they use. Each tells its sessions in its own file.

mod operations;
mod pipeline;
mod research;
mod review;
mod support;
mod travel;

use super::random::Random;
use super::script::{Model, Script};

/// Sessions that end in an error when nothing is the matter, in a hundred.
pub(super) const USUAL_ERROR_PERCENT: i64 = 4;

/// When an agent has work.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rhythm {
    /// People's working hours in Europe and America.
    Office,
    /// Evenings in East Asia.
    AsianEvening,
    /// Mostly at night.
    Night,
    /// Always.
    Steady,
}

impl Rhythm {
    /// How much of the most that happens in an hour happens in this one, in a hundred. Hours are UTC.
    pub(super) fn share_of(self, hour: i64, is_weekend: bool) -> i64 {
        let share = match self {
            Self::Office => {
                [8, 5, 4, 4, 6, 12, 30, 60, 85, 95, 90, 75, 80, 100, 100, 95, 85, 75, 60, 45, 35, 25, 18, 12]
            }
            Self::AsianEvening => [
                40, 35, 30, 45, 40, 35, 35, 40, 55, 75, 95, 100, 100, 90, 70, 40, 20, 10, 6, 5, 8, 15, 25, 35,
            ],
            Self::Night => [
                100, 100, 95, 90, 60, 30, 15, 10, 10, 10, 10, 10, 20, 10, 10, 10, 10, 10, 15, 20, 30, 45, 70,
                90,
            ],
            Self::Steady => [70; 24],
        }[usize::try_from(hour).unwrap_or(0) % 24];
        match self {
            Self::Office if is_weekend => share / 4,
            _ => share,
        }
    }
}

/// One agent.
pub(super) struct Agent {
    pub(super) id: &'static str,
    pub(super) rhythm: Rhythm,
    /// Its part of all sessions, in a hundred.
    pub(super) share: i64,
    /// Sessions of the last day that end in an error, in a hundred.
    pub(super) recent_error_percent: i64,
    /// Writes a session and returns its summary.
    pub(super) tell: fn(&mut Script) -> String,
}

/// All agents; the pipeline is the one that has been failing since yesterday.
pub(super) static AGENTS: [Agent; 6] = [
    Agent {
        id: "support-triage",
        rhythm: Rhythm::Office,
        share: 32,
        recent_error_percent: 5,
        tell: support::tell,
    },
    Agent {
        id: "code-reviewer",
        rhythm: Rhythm::Office,
        share: 18,
        recent_error_percent: 4,
        tell: review::tell,
    },
    Agent {
        id: "research-assistant",
        rhythm: Rhythm::Office,
        share: 13,
        recent_error_percent: 4,
        tell: research::tell,
    },
    Agent {
        id: "orders-pipeline",
        rhythm: Rhythm::Night,
        share: 13,
        recent_error_percent: 65,
        tell: pipeline::tell,
    },
    Agent {
        id: "travel-concierge",
        rhythm: Rhythm::AsianEvening,
        share: 14,
        recent_error_percent: 4,
        tell: travel::tell,
    },
    Agent {
        id: "ops-bot",
        rhythm: Rhythm::Steady,
        share: 10,
        recent_error_percent: 6,
        tell: operations::tell,
    },
];

/// One agent, by its share.
pub(super) fn choose(random: &mut Random) -> &'static Agent {
    let mut dice = random.range(1, AGENTS.iter().map(|agent| agent.share).sum());
    for agent in &AGENTS {
        dice -= agent.share;
        if dice <= 0 {
            return agent;
        }
    }
    &AGENTS[0]
}

const GPT_5_1: Model = Model { provider: "openai", name: "gpt-5.1", speed: 95, is_reasoning: true };
const GPT_5_MINI: Model = Model { provider: "openai", name: "gpt-5-mini", speed: 150, is_reasoning: true };
const GPT_4O_MINI: Model =
    Model { provider: "openai", name: "gpt-4o-mini-2024-07-18", speed: 110, is_reasoning: false };
const CLAUDE_SONNET: Model =
    Model { provider: "anthropic", name: "claude-sonnet-4-5-20250929", speed: 70, is_reasoning: false };
const CLAUDE_OPUS: Model =
    Model { provider: "anthropic", name: "claude-opus-4-5", speed: 55, is_reasoning: true };
const CLAUDE_HAIKU: Model =
    Model { provider: "anthropic", name: "claude-haiku-4-5", speed: 160, is_reasoning: false };
const GEMINI_PRO: Model = Model { provider: "google", name: "gemini-2.5-pro", speed: 85, is_reasoning: true };
const GEMINI_FLASH: Model =
    Model { provider: "google", name: "gemini-2.5-flash", speed: 210, is_reasoning: false };
const MISTRAL_LARGE: Model =
    Model { provider: "mistral", name: "mistral-large-2512", speed: 75, is_reasoning: false };
const DEEPSEEK_CHAT: Model =
    Model { provider: "deepseek", name: "deepseek-chat", speed: 60, is_reasoning: false };
/// Served by the team itself, so no price is known and the cost is shown as unknown.
const HOUSE_MODEL: Model =
    Model { provider: "internal", name: "house-summarizer-7b", speed: 40, is_reasoning: false };
