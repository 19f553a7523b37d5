//! Worked examples, exact to the nano-dollar. One dollar per million tokens is 1000 nanos per token, so
//! every line can be checked by hand.

use super::*;

/// Provider, model, day, usage, nanos, working.
type Case = (&'static str, &'static str, &'static str, Usage, i64, &'static str);

const NONE: Usage = Usage {
    input: 0,
    output: 0,
    cache_read: 0,
    cache_write_5m: 0,
    cache_write_1h: 0,
    reasoning: 0,
    audio_input: 0,
    audio_output: 0,
};

const fn text(input: i64, output: i64) -> Usage {
    Usage { input, output, ..NONE }
}

const fn cached(input: i64, cache_read: i64, output: i64) -> Usage {
    Usage { input, cache_read, output, ..NONE }
}

const fn written(input: i64, cache_write_5m: i64, cache_write_1h: i64, output: i64) -> Usage {
    Usage { input, cache_write_5m, cache_write_1h, output, ..NONE }
}

const fn reasoned(input: i64, output: i64, reasoning: i64) -> Usage {
    Usage { input, output, reasoning, ..NONE }
}

const fn spoken(input: i64, audio_input: i64, output: i64, audio_output: i64) -> Usage {
    Usage { input, audio_input, output, audio_output, ..NONE }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Plain text.
    ("openai", "gpt-4o", "2025-06-01", text(1000, 500), 7_500_000, "1000·2500 + 500·10000"),
    ("openai", "gpt-4o-mini", "2025-06-01", text(1000, 500), 450_000, "1000·150 + 500·600"),
    ("openai", "gpt-4.1-nano", "2025-06-01", text(1, 1), 500, "100 + 400"),
    ("openai", "gpt-4", "2025-06-01", text(100, 10), 3_600_000, "100·30000 + 10·60000"),
    ("openai", "gpt-5-nano", "2026-01-01", text(3, 1), 550, "3·50 + 400"),
    ("anthropic", "claude-opus-4-1-20250805", "2025-09-01", text(10, 10), 900_000, "10·15000 + 10·75000"),
    ("mistral", "mistral-nemo", "2025-06-01", text(7, 3), 1_500, "10·150"),
    ("xai", "grok-3-mini", "2025-08-01", text(1000, 1000), 800_000, "1000·300 + 1000·500"),
    ("cohere", "command-r7b-12-2024", "2025-08-01", text(2, 0), 75, "2·37.5"),
    ("bedrock", "amazon.nova-micro-v1:0", "2025-08-01", text(1000, 1000), 175_000, "1000·35 + 1000·140"),
    // Halves go to the even nano, once per call.
    ("cohere", "command-r7b", "2025-08-01", text(1, 0), 38, "37.5 -> 38"),
    ("cohere", "command-r7b", "2025-08-01", text(3, 0), 112, "112.5 -> 112"),
    ("google", "gemini-1.5-flash-8b", "2025-01-01", text(1, 0), 38, "37.5 -> 38"),
    ("deepseek", "deepseek-v4-flash", "2026-08-01", cached(3, 3, 0), 8, "3·2.8 = 8.4"),
    ("deepseek", "deepseek-v4-pro", "2026-08-01", cached(5, 5, 0), 18, "5·3.625 = 18.125"),
    // Cache reads.
    ("openai", "gpt-4o", "2025-06-01", cached(1000, 600, 0), 1_750_000, "400·2500 + 600·1250"),
    ("openai", "gpt-4.1", "2025-06-01", cached(1000, 1000, 0), 500_000, "1000·500"),
    ("openai", "gpt-5", "2026-01-01", cached(1000, 800, 100), 1_350_000, "200·1250 + 800·125 + 100·10000"),
    ("anthropic", "claude-sonnet-4-5", "2026-01-01", cached(1000, 900, 0), 570_000, "100·3000 + 900·300"),
    ("google", "gemini-2.5-flash", "2026-01-01", cached(1000, 500, 0), 165_000, "500·300 + 500·30"),
    ("anthropic", "claude-3-haiku-20240307", "2025-01-01", cached(100, 100, 0), 3_000, "100·30"),
    // A vendor without a listed cache rate bills input.
    ("mistral", "pixtral-large-latest", "2025-06-01", cached(10, 4, 0), 20_000, "10·2000"),
    // A cached read that OpenAI does not list follows its habit: half of input.
    ("openai", "gpt-4-turbo", "2025-06-01", cached(10, 4, 0), 80_000, "6·10000 + 4·5000"),
    // Cache writes, five minutes and one hour.
    ("anthropic", "claude-sonnet-4-5", "2026-01-01", written(1000, 600, 0, 0), 3_450_000, "400·3000 + 600·3750"),
    ("anthropic", "claude-sonnet-4-5", "2026-01-01", written(1000, 0, 600, 0), 4_800_000, "400·3000 + 600·6000"),
    ("anthropic", "claude-haiku-4-5", "2026-01-01", written(300, 100, 200, 1), 530_000, "100·1250 + 200·2000 + 5000"),
    ("anthropic", "claude-3-haiku", "2025-01-01", written(10, 10, 0, 0), 3_000, "10·300, not 10·312.5"),
    ("openai", "gpt-5.6-sol", "2026-08-05", written(100, 40, 0, 0), 550_000, "60·5000 + 40·6250"),
    ("openai", "gpt-5.6-sol", "2026-08-05", written(100, 0, 40, 0), 550_000, "one kind of write, whatever its label"),
    ("openai", "gpt-4o", "2025-06-01", written(100, 40, 0, 0), 250_000, "100·2500"),
    (
        "anthropic", "claude-opus-4-5", "2026-01-01",
        Usage { input: 10_000, cache_read: 8_000, cache_write_5m: 1_000, cache_write_1h: 500, output: 200, ..NONE },
        22_750_000, "500·5000 + 8000·500 + 1000·6250 + 500·10000 + 200·25000",
    ),
    // Reasoning is output.
    ("openai", "o3", "2025-07-01", reasoned(100, 1000, 800), 8_200_000, "100·2000 + 1000·8000"),
    ("google", "gemini-2.5-pro", "2026-01-01", reasoned(100, 1000, 900), 10_125_000, "100·1250 + 1000·10000"),
    // Audio.
    ("openai", "gpt-4o-audio-preview", "2025-06-01", spoken(100, 80, 50, 40), 6_550_000, "20·2500 + 80·40000 + 10·10000 + 40·80000"),
    ("openai", "gpt-4o-audio-preview", "2024-11-01", spoken(10, 10, 10, 10), 3_000_000, "10·100000 + 10·200000"),
    ("google", "gemini-2.5-flash", "2026-01-01", spoken(100, 60, 0, 0), 72_000, "40·300 + 60·1000"),
    ("openai", "gpt-4o", "2025-06-01", spoken(100, 60, 10, 5), 350_000, "no audio rate: 100·2500 + 10·10000"),
    // Tiers take the whole call once the inclusive input passes the limit.
    ("google", "gemini-2.5-pro", "2026-01-01", text(200_000, 1), 250_010_000, "200000·1250 + 10000"),
    ("google", "gemini-2.5-pro", "2026-01-01", text(200_001, 1), 500_017_500, "200001·2500 + 15000"),
    ("google", "gemini-2.5-pro", "2026-01-01", cached(300_000, 200_000, 0), 300_000_000, "100000·2500 + 200000·250"),
    ("anthropic", "claude-sonnet-4-20250514", "2025-09-01", text(250_000, 100), 1_502_250_000, "250000·6000 + 100·22500"),
    ("openai", "gpt-5.4", "2026-04-01", text(272_001, 0), 1_360_005_000, "272001·5000"),
    ("anthropic", "claude-opus-4-6", "2026-03-12", text(200_001, 0), 2_000_010_000, "200001·10000"),
    ("anthropic", "claude-opus-4-6", "2026-03-13", text(200_001, 0), 1_000_005_000, "200001·5000, surcharge gone"),
    // Prices change.
    ("openai", "gpt-4o", "2024-10-01", text(1000, 1000), 20_000_000, "1000·5000 + 1000·15000"),
    ("openai", "gpt-4o", "2024-10-02", text(1000, 1000), 12_500_000, "1000·2500 + 1000·10000"),
    ("openai", "gpt-4o-2024-05-13", "2026-01-01", text(1000, 1000), 20_000_000, "a snapshot keeps its price"),
    ("openai", "o3-2025-04-16", "2025-06-09", text(100, 100), 5_000_000, "100·10000 + 100·40000"),
    ("openai", "o3-2025-04-16", "2025-06-10", text(100, 100), 1_000_000, "100·2000 + 100·8000"),
    ("openai", "o1-mini", "2025-01-30", text(10, 10), 150_000, "10·3000 + 10·12000"),
    ("openai", "o1-mini", "2025-01-31", text(10, 10), 55_000, "10·1100 + 10·4400"),
    ("anthropic", "claude-3-5-haiku-20241022", "2024-12-02", text(100, 100), 600_000, "100·1000 + 100·5000"),
    ("anthropic", "claude-3-5-haiku-20241022", "2024-12-03", text(100, 100), 480_000, "100·800 + 100·4000"),
    ("google", "gemini-1.5-pro", "2024-09-30", text(100, 100), 1_400_000, "100·3500 + 100·10500"),
    ("google", "gemini-1.5-pro-002", "2024-10-01", text(100, 100), 625_000, "100·1250 + 100·5000"),
    ("deepseek", "deepseek-chat", "2025-09-05", text(100, 100), 137_000, "the change came at 16:00: 100·270 + 100·1100"),
    ("deepseek", "deepseek-chat", "2025-09-06", text(100, 100), 224_000, "100·560 + 100·1680"),
    ("openai", "gpt-5.6-luna", "2026-07-29", text(10, 10), 70_000, "10·1000 + 10·6000"),
    ("openai", "gpt-5.6-luna", "2026-07-30", text(10, 10), 14_000, "10·200 + 10·1200"),
    ("anthropic", "claude-sonnet-5", "2026-08-31", text(10, 10), 120_000, "10·2000 + 10·10000"),
    ("anthropic", "claude-sonnet-5", "2026-09-01", text(10, 10), 180_000, "10·3000 + 10·15000"),
    // A call from before the first price takes it.
    ("anthropic", "claude-sonnet-5", "2019-01-01", text(10, 10), 120_000, "10·2000 + 10·10000"),
    // Who serves the model.
    ("groq", "llama-3.3-70b-versatile", "2026-01-01", text(100, 100), 138_000, "100·590 + 100·790"),
    ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "2026-01-01", text(100, 100), 176_000, "200·880"),
    ("aws.bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "2026-01-01", text(10, 10), 180_000, "10·3000 + 10·15000"),
    ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "2026-01-01", text(10, 10), 198_000, "regional, a tenth more"),
    ("vertex_ai", "claude-sonnet-4-5@20250929", "2026-01-01", text(10, 10), 180_000, "10·3000 + 10·15000"),
    ("openrouter", "meta-llama/llama-3.3-70b-instruct:free", "2026-01-01", text(10, 10), 0, "free"),
    // Embeddings have no output.
    ("openai", "text-embedding-3-small", "2026-01-01", text(1_000_000, 0), 20_000_000, "0.02 dollars"),
    ("cohere", "embed-v4.0", "2026-01-01", text(25, 0), 3_000, "25·120"),
    ("voyage", "voyage-3.5-lite", "2026-01-01", text(50, 0), 1_000, "50·20"),
    ("google", "models/gemini-embedding-001", "2026-01-01", text(100, 0), 15_000, "100·150"),
    ("openai", "gpt-4o", "2025-06-01", NONE, 0, "nothing"),
];

fn day_us(day: &str) -> i64 {
    format!("{day}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[test]
fn listed_prices_give_the_worked_costs() {
    for (provider, model, day, usage, nanos, working) in CASES {
        let price = PriceTable::embedded().find(Some(provider), model, day_us(day));
        let price = price.unwrap_or_else(|| panic!("{model} has no price"));
        assert_eq!(compute(price, usage), Some(*nanos), "{model} on {day}: {working}");
    }
}

#[test]
fn unknown_models_have_no_cost_rather_than_a_guess() {
    let found = PriceTable::embedded().find(Some("openai"), "gpt-9-ultra", AUGUST_2026_US);
    let cost = resolve(Some(0), found.and_then(|price| compute(price, &text(1000, 1000))));
    assert_eq!((cost.nanos, cost.source), (0, CostSource::Unknown));
}

#[test]
fn batch_calls_cost_the_vendors_fraction() {
    let batch = |model, usage| {
        let price = PriceTable::embedded().find(None, model, AUGUST_2026_US).unwrap();
        compute_at(price, &usage, ServiceTier::Batch)
    };
    assert_eq!(batch("gpt-4o", text(1000, 500)), Some(3_750_000), "half of 7 500 000");
    assert_eq!(batch("claude-haiku-4-5", text(1, 0)), Some(500), "half of 1000");
    assert_eq!(batch("command-r7b", text(1, 0)), None, "no batch price is known");
    assert_eq!(batch("gemini-1.5-flash-8b", text(1, 0)), Some(19), "18.75, rounded once");
    assert_eq!(batch("voyage-4", text(100, 0)), Some(4_020), "100·60·0.67");
}

#[test]
fn service_tiers_have_their_own_price_or_none() {
    use ServiceTier::{Flex, Other, Priority, Standard};
    let cost = |model, input, tier| {
        let price = PriceTable::embedded().find(Some("openai"), model, AUGUST_2026_US).unwrap();
        compute_at(price, &text(input, 1000), tier)
    };
    assert_eq!(cost("gpt-5-mini", 2000, Standard), Some(2_500_000), "2000·250 + 1000·2000");
    assert_eq!(cost("gpt-5-mini", 2000, Flex), Some(1_250_000), "half");
    assert_eq!(cost("gpt-5-mini", 2000, Priority), Some(4_500_000), "2000·450 + 1000·3600");
    assert_eq!(cost("gpt-5-mini", 2000, Other), None);
    assert_eq!(cost("gpt-4o", 2000, Flex), None, "not offered");
    assert_eq!(cost("gpt-5-nano", 2000, Priority), None, "not offered");
    assert_eq!(cost("gpt-5.5", 300_000, Standard), Some(3_045_000_000), "300000·10000 + 1000·45000");
    assert_eq!(cost("gpt-5.5", 300_000, Flex), Some(1_522_500_000), "half");
    assert_eq!(cost("gpt-5.5", 272_000, Priority), Some(3_475_000_000), "272000·12500 + 1000·75000");
    assert_eq!(cost("gpt-5.5", 272_001, Priority), None, "long inputs have no priority price");
    assert_eq!(cost("gpt-5.5-pro", 300_000, Standard), Some(18_270_000_000), "300000·60000 + 1000·270000");
}

#[test]
fn a_price_that_is_not_known_for_a_size_or_region_is_none() {
    let cost = |model, input| {
        PriceTable::embedded()
            .find(Some("aws.bedrock"), model, AUGUST_2026_US)
            .and_then(|price| compute(price, &text(input, 0)))
    };
    assert_eq!(cost("us.openai.gpt-5.5", 272_000), Some(1_496_000_000), "272000·5500");
    assert_eq!(cost("us.openai.gpt-5.5", 272_001), None);
    assert_eq!(cost("us.openai.gpt-5.4", 300_000), None);
    assert_eq!(cost("us.openai.gpt-5.4-mini", 1000), None, "the premium isn't known");
    assert_eq!(cost("us.anthropic.claude-sonnet-5-v1:0", 1000), Some(2_200_000));
    assert_eq!(cost("us.anthropic.claude-sonnet-4-20250514-v1:0", 1000), Some(3_000_000), "no premium");
    assert_eq!(cost("us.anthropic.claude-3-5-haiku-20241022-v1:0", 1000), Some(800_000), "no premium");
    assert_eq!(cost("us.amazon.nova-micro-v1:0", 1000), Some(35_000));
}

#[test]
fn open_models_cost_what_their_host_asks() {
    let cost = |provider, model| {
        PriceTable::embedded()
            .find(provider, model, AUGUST_2026_US)
            .and_then(|price| compute(price, &text(1000, 1000)))
    };
    let path = "accounts/fireworks/models/deepseek-v4-pro";
    assert_eq!(cost(Some("fireworks"), path), Some(5_220_000), "1000·1740 + 1000·3480");
    assert_eq!(cost(Some("fireworks_ai"), "deepseek-v4-pro"), Some(5_220_000));
    assert_eq!(cost(Some("deepseek"), "deepseek-v4-pro"), Some(1_305_000), "1000·435 + 1000·870");
    assert_eq!(cost(None, "deepseek-v4-pro"), Some(1_305_000), "the name that the maker's own API uses");
    assert_eq!(cost(None, "deepseek/deepseek-v4-pro"), Some(1_305_000));
    assert_eq!(cost(Some("litellm"), "deepseek/deepseek-v4-pro"), Some(1_305_000));
    for (provider, model) in [
        (None, path),
        (None, "deepseek-ai/deepseek-v4-pro"),
        (Some("novita"), "deepseek-v4-pro"),
        (Some("openrouter"), "deepseek/deepseek-v4-pro"),
        (Some("my-gateway"), "deepseek-v4-pro"),
        (Some("fireworks"), "mixtral-8x7b"),
        (Some("azure"), "mistral-large-2411"),
        (Some("deepinfra"), "kimi-k2.5"),
        (Some("bedrock"), "command-r-plus"),
        (Some("fireworks"), "llama-3.3-70b-versatile"),
        (Some("groq"), "llama3-8b-instruct"),
        (None, "llama-3.3-70b-instruct-turbo"),
    ] {
        assert_eq!(cost(provider, model), None, "{provider:?} {model}");
    }
    // Nobody but their makers and the makers' partners serves closed models, and those ask the list price.
    assert_eq!(cost(Some("my-gateway"), "gpt-4o"), Some(12_500_000));
}

#[test]
fn own_prices_give_the_worked_costs() {
    let own = PriceSpec {
        tier: Some(TierSpec { above: 1000, rates: spec("", "4", "12").rates }),
        rates: RatesSpec { reasoning: Some("7".into()), ..spec("", "2", "6").rates },
        ..spec("gpt-4o", "", "")
    };
    let claude = price("claude-mine", "3.0000001", "15");
    let table = PriceTable::embedded().with_overrides(vec![Price::from_spec(&own).unwrap(), claude]);
    let cost =
        |model, usage: Usage| compute(table.find(None, model, AUGUST_2026_US).unwrap(), &usage).unwrap();
    assert_eq!(cost("gpt-4o", text(1000, 100)), 2_600_000, "1000·2000 + 100·6000");
    assert_eq!(cost("gpt-4o", reasoned(0, 100, 60)), 660_000, "40·6000 + 60·7000");
    assert_eq!(cost("gpt-4o", cached(100, 50, 0)), 150_000, "50·2000 + 50·1000");
    assert_eq!(cost("gpt-4o", text(1001, 0)), 4_004_000, "1001·4000");
    assert_eq!(cost("claude-mine", text(10_000, 0)), 30_000_001, "10000·3000.0001");
    assert_eq!(cost("claude-mine", cached(10, 10, 0)), 3_000, "a tenth of input");
    assert_eq!(cost("claude-mine", written(20, 10, 10, 0)), 97_500, "10·3750 + 10·6000");
    // A model that is only in another table is still listed.
    assert_eq!(cost("gpt-4o-mini", text(1, 0)), 150);
}
