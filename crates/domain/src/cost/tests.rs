//! The rules of cost as properties and refusals; the worked examples are in [`golden`].

mod golden;

use proptest::prelude::*;

use super::*;

/// 2026-08-01T00:00:00Z.
const AUGUST_2026_US: i64 = 1_785_542_400_000_000;

fn spec(model: &str, input: &str, output: &str) -> PriceSpec {
    let rates = RatesSpec { input: input.into(), output: output.into(), ..RatesSpec::default() };
    PriceSpec { model: model.into(), rates, ..PriceSpec::default() }
}

fn price(model: &str, input: &str, output: &str) -> Price {
    Price::from_spec(&spec(model, input, output)).unwrap()
}

fn listed(provider: Option<&str>, model: &str) -> Option<String> {
    PriceTable::embedded().find(provider, model, AUGUST_2026_US).map(|price| price.model.clone())
}

#[test]
fn the_embedded_list_is_whole() {
    let prices: Vec<&Price> = PriceTable::embedded().prices().collect();
    let models: std::collections::BTreeSet<&str> = prices.iter().map(|price| price.model.as_str()).collect();
    assert!(models.len() >= 200, "{} models", models.len());
    let mut seen = std::collections::BTreeSet::new();
    for price in prices {
        assert!(price.source.starts_with("https://"), "{}", price.model);
        assert!(price.checked.parse::<jiff::civil::Date>().is_ok(), "{}", price.model);
        assert!(price.rates.cache_read <= price.rates.input, "{}", price.model);
        if let Some(tier) = price.tier {
            assert!(tier.rates.input > price.rates.input && tier.rates.output > price.rates.output);
        }
        for name in std::iter::once(&price.model).chain(&price.aliases) {
            let (key, _) = names::ModelName::parse(name).unwrap();
            let row = (key.key().to_owned(), price.provider.clone(), price.effective_from_us);
            assert!(seen.insert(row), "{name} is listed twice");
        }
    }
}

#[test]
fn the_embedded_list_has_no_unknown_fields() {
    let list: serde_json::Value = serde_json::from_str(include_str!("prices.json")).unwrap();
    let rates = [
        "input",
        "output",
        "cache_read",
        "cache_write_5m",
        "cache_write_1h",
        "audio_input",
        "audio_output",
        "reasoning",
    ];
    let row = [
        "model",
        "aliases",
        "provider",
        "effective_from",
        "tier",
        "batch",
        "flex",
        "priority",
        "priority_up_to",
        "limit",
    ];
    for price in
        list["groups"].as_array().unwrap().iter().flat_map(|group| group["prices"].as_array().unwrap())
    {
        for field in price.as_object().unwrap().keys() {
            assert!(rates.contains(&field.as_str()) || row.contains(&field.as_str()), "{field} in {price}");
        }
        for field in price["tier"].as_object().into_iter().flatten().map(|(field, _)| field) {
            assert!(field == "above" || rates.contains(&field.as_str()), "{field} in {price}");
        }
    }
}

#[test]
fn spellings_find_their_model() {
    for (name, model) in [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        (" gpt-4o ", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openrouter/openai/gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-11-20", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("azure/gpt-35-turbo", "gpt-3.5-turbo"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4-1106-preview", "gpt-4-turbo"),
        ("gpt-4-1", "gpt-4.1"),
        ("ft:gpt-4o-mini-2024-07-18:acme-pro::abc", "ft:gpt-4o-mini"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("vertex_ai/gemini-2.5-flash", "gemini-2.5-flash"),
        ("projects/p/locations/l/publishers/google/models/gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet"),
        ("anthropic/claude-3.5-sonnet", "claude-3-5-sonnet"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", "claude-3-5-haiku"),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "regional:claude-haiku-4-5"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.anthropic.claude-opus-4-5-20251101-v1:0",
            "regional:claude-opus-4-5",
        ),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
        ("claude-4-sonnet-20250514", "claude-sonnet-4"),
        ("mistral-large-latest", "mistral-large"),
        ("mistral/mistral-large-2411", "mistral-large-2407"),
        ("command-r-08-2024", "command-r-08-2024"),
        ("grok-4-0709", "grok-4"),
        ("meta.llama3-1-8b-instruct-v1:0", "llama3-1-8b-instruct"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss-120b-1"),
        ("groq/openai/gpt-oss-120b", "gpt-oss-120b"),
        ("together_ai/meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "meta-llama-3.1-8b-instruct-turbo"),
        ("cohere/embed-english-v3", "embed-english-v3"),
        ("amazon.titan-embed-text-v2:0", "titan-embed-text-v2"),
        ("meta-llama/llama-3.3-70b-instruct:free", "free"),
    ] {
        assert_eq!(listed(None, name).as_deref(), Some(model), "{name}");
    }
}

#[test]
fn other_models_are_not_mistaken_for_known_ones() {
    let long = "gpt-4o-".repeat(40);
    for name in [
        "gpt-45",
        "gpt-4.7",
        "gpt-4-7",
        "gpt-5.5-nano",
        "gpt-5.5-2026-mini",
        "gpt-4o2",
        "gpt",
        "claude-opus-4-9",
        "claude-opus-4-9-20270101",
        "gemini-2.5-pro-image",
        "mistral-small-24b-instruct-2501",
        "gpt-oss-120b",
        // Bedrock asks its own price for other makers' models.
        "cohere.embed-english-v3",
        "my-model",
        "",
        "/",
        "-",
        "🦀",
        "éfree",
        &long,
    ] {
        assert_eq!(listed(None, name), None, "{name}");
    }
}

#[test]
fn shorter_names_need_a_separator_and_the_longer_row_wins() {
    let table =
        PriceTable::default().with_overrides(vec![price("gpt-4", "1", "1"), price("gpt-4o", "2", "2")]);
    let model = |name| table.find(None, name, 0).map(|price| price.model.as_str());
    assert_eq!(model("gpt-4o-2024-08-06"), Some("gpt-4o"));
    assert_eq!(model("gpt-4-0613"), Some("gpt-4"));
    assert_eq!(model("gpt-45"), None);
    // Without a row of its own, the small model is unknown rather than billed as the large one.
    assert_eq!(model("gpt-4o-mini"), None);
}

#[test]
fn a_provider_has_its_own_price() {
    let input = |provider, model| {
        PriceTable::embedded().find(provider, model, AUGUST_2026_US).map(|price| price.rates.input)
    };
    assert_eq!(input(Some("groq"), "openai/gpt-oss-120b"), Some(150_000_000));
    assert_eq!(input(Some("cerebras"), "gpt-oss-120b"), Some(350_000_000));
    assert_eq!(input(Some("aws.bedrock"), "gpt-oss-120b"), Some(150_000_000));
    assert_eq!(input(Some("someone-else"), "gpt-oss-120b"), None);
    assert_eq!(
        input(Some("litellm"), "together_ai/meta-llama/Llama-4-Scout-17B-16E-Instruct"),
        Some(180_000_000)
    );
    assert_eq!(input(Some("azure"), "gpt-4o"), Some(2_500_000_000));
    // The caller's own machine costs nobody's list price.
    assert_eq!(input(Some("ollama"), "mistral-small"), None);
    assert_eq!(input(None, "ollama/mistral-small"), None);
}

#[test]
fn overrides_replace_listed_prices_while_in_force() {
    let own = Price::from_spec(&PriceSpec {
        effective_from: Some("2026-07-01".into()),
        ..spec("gpt-4o", "2", "8")
    });
    let local =
        Price::from_spec(&PriceSpec { provider: Some("Ollama".into()), ..spec("llama3", "0.01", "0.01") });
    let table = PriceTable::embedded().with_overrides(vec![own.unwrap(), local.unwrap()]);
    let june_us = AUGUST_2026_US - 61 * 86_400_000_000;
    let input = |provider, model, at_us| table.find(provider, model, at_us).map(|price| price.rates.input);
    assert_eq!(input(None, "gpt-4o", AUGUST_2026_US), Some(2_000_000_000));
    assert_eq!(input(Some("openai"), "gpt-4o-2024-11-20", AUGUST_2026_US), Some(2_000_000_000));
    assert_eq!(input(None, "gpt-4o", june_us), Some(2_500_000_000));
    assert_eq!(input(None, "gpt-4o-mini", AUGUST_2026_US), Some(150_000_000));
    assert_eq!(input(Some("vllm"), "llama3", AUGUST_2026_US), Some(10_000_000));
    assert_eq!(input(None, "llama3", AUGUST_2026_US), None);
    assert_eq!(listed(None, "gpt-4o").as_deref(), Some("gpt-4o"));
}

#[test]
fn written_prices_are_refused_with_a_reason() {
    let refused = |spec: PriceSpec| Price::from_spec(&spec).unwrap_err();
    assert_eq!(refused(spec(" ", "1", "1")), PriceError::NoModel);
    for text in ["-1", "1e3", "NaN", "", "1000001", "0.0000000001"] {
        assert_eq!(refused(spec("m", text, "1")), PriceError::Rate(text.into()));
    }
    let dated = PriceSpec { effective_from: Some("soon".into()), ..spec("m", "1", "1") };
    assert_eq!(refused(dated), PriceError::EffectiveFrom("soon".into()));
    let batch = PriceSpec { batch: Some("1.5".into()), ..spec("m", "1", "1") };
    assert_eq!(refused(batch), PriceError::Batch("1.5".into()));
    let tier = TierSpec { above: -1, rates: spec("m", "1", "1").rates };
    assert_eq!(refused(PriceSpec { tier: Some(tier), ..spec("m", "1", "1") }), PriceError::Tier(-1));
}

#[test]
fn a_stated_cost_counts_unless_it_is_nothing() {
    use CostSource::{Computed, Reported, Unknown};
    let dear = MAX_COST_NANOS + 1;
    for (reported_usd, computed, nanos, source) in [
        (None, Some(MAX_COST_NANOS), MAX_COST_NANOS, Computed),
        (None, Some(dear), 0, Unknown),
        (Some(0.25), Some(dear), 250_000_000, Reported),
        (Some(0.25), Some(9), 250_000_000, Reported),
        (Some(0.25), None, 250_000_000, Reported),
        (Some(0.0), Some(9), 9, Computed),
        (Some(0.0), Some(0), 0, Computed),
        (Some(0.0), None, 0, Unknown),
        (Some(-1.0), Some(9), 9, Computed),
        (Some(f64::NAN), Some(9), 9, Computed),
        (Some(f64::NAN), None, 0, Unknown),
        (Some(2e9), None, 0, Unknown),
        (None, Some(9), 9, Computed),
        (None, None, 0, Unknown),
    ] {
        let cost = resolve(reported_usd.and_then(usd_to_nanos), computed);
        assert_eq!((cost.nanos, cost.source), (nanos, source), "{reported_usd:?} {computed:?}");
        assert_eq!(cost.computed_nanos, computed.filter(|nanos| *nanos <= MAX_COST_NANOS));
        assert_eq!(cost.reported_nanos, reported_usd.and_then(usd_to_nanos));
    }
}

#[test]
fn sources_have_stable_names() {
    for source in [CostSource::Reported, CostSource::Computed, CostSource::Unknown] {
        assert_eq!(CostSource::parse(source.as_str()), Some(source));
        assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
    }
    assert_eq!(CostSource::parse("Reported"), None);
}

#[test]
fn impossible_usage_neither_panics_nor_pays() {
    let dear = price("m", "1000000", "1000000");
    let full = Usage { input: i64::MAX, output: i64::MAX, reasoning: i64::MAX, ..Usage::default() };
    assert_eq!(compute(&dear, &full), Some(i64::MAX));
    assert_eq!(compute_at(&dear, &full, ServiceTier::Batch), None);
    let negative = Usage { input: -5, output: -5, cache_read: -1, reasoning: i64::MIN, ..Usage::default() };
    assert_eq!(compute(&dear, &negative), Some(0));
    let half_negative = Usage { input: 5, cache_read: -1, ..Usage::default() };
    assert_eq!(compute(&dear, &half_negative), Some(5_000_000_000));
}

/// Usage as [`Usage::from_reported`] makes it: the parts fit into their totals.
fn usage() -> impl Strategy<Value = Usage> {
    prop::array::uniform8(0_i64..300_000).prop_map(|parts| {
        let [plain, cache_read, cache_write_5m, cache_write_1h, audio_input, text, reasoning, audio_output] =
            parts;
        let input = plain + cache_read + cache_write_5m + cache_write_1h + audio_input;
        let output = text + reasoning + audio_output;
        Usage {
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            reasoning,
            audio_input,
            audio_output,
        }
    })
}

fn any_listed_price() -> impl Strategy<Value = Price> {
    any::<prop::sample::Index>().prop_map(|index| {
        let mut prices: Vec<&Price> = PriceTable::embedded().prices().collect();
        prices.sort_by_key(|price| (&price.model, &price.provider, price.effective_from_us));
        index.get(&prices).to_owned().clone()
    })
}

proptest! {
    #[test]
    fn more_tokens_never_cost_less(price in any_listed_price(), before in usage(), more in usage()) {
        let price = Price { limit: None, ..price };
        prop_assert!(compute(&price, &before.saturating_add(more)) >= compute(&price, &before));
        let (flex, batch) = (ServiceTier::Flex, ServiceTier::Batch);
        prop_assert!(compute_at(&price, &before, batch) <= compute(&price, &before));
        prop_assert!(compute_at(&price, &before, flex) <= compute(&price, &before));
    }

    #[test]
    fn costs_add_up_to_rounding(price in any_listed_price(), left in usage(), right in usage()) {
        let flat = Price { tier: None, limit: None, ..price };
        let apart = compute(&flat, &left).unwrap() + compute(&flat, &right).unwrap();
        let together = compute(&flat, &left.saturating_add(right)).unwrap();
        prop_assert!((apart - together).abs() <= 1, "{} and {}", apart, together);
    }

    #[test]
    fn no_name_breaks_the_lookup(provider in ".{0,50}", model in "[a-z0-9./:@\\-é ]{0,140}") {
        let _ = PriceTable::embedded().find(Some(&provider), &model, 0);
    }
}
