//! Finds the price of a call: which row applies to this provider, this model and this instant.

use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::names::{BEDROCK, Callers, ModelName, has_no_regional_premium, names_another_model, shorter_keys};
use super::prices::{Price, PriceSpec};

/// Prices by model. Cheap to clone and to share; an organisation's own prices make a new table.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    rows_by_key: FxHashMap<Box<str>, Vec<Row>>,
}

#[derive(Clone, Debug)]
struct Row {
    price: Arc<Price>,
    is_override: bool,
    scope: Scope,
}

/// Whose calls a price is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Whoever names the provider of the price; without one, every provider.
    Stated,
    /// A model's maker: also calls that name no provider at all.
    Maker,
}

impl PriceTable {
    /// The list prices that ship with this version, read once per process.
    pub fn embedded() -> &'static PriceTable {
        static TABLE: OnceLock<PriceTable> = OnceLock::new();
        #[expect(clippy::expect_used, reason = "the text is compiled in, and a test reads every row of it")]
        TABLE.get_or_init(|| {
            let prices = embedded_prices().expect("the embedded price list is well formed");
            let mut table = PriceTable::default();
            prices.into_iter().for_each(|(price, scope)| table.insert(price, scope, false));
            table
        })
    }

    /// This table with an organisation's own prices over it.
    ///
    /// While an own price is in force it replaces the listed ones under the same name; a listed price
    /// under a longer name still wins, because it is another model's (own `gpt-4o` leaves
    /// `gpt-4o-realtime-preview` alone). Of two own prices alike, the later in the list wins.
    pub fn with_overrides(&self, prices: Vec<Price>) -> PriceTable {
        let mut table = self.clone();
        prices.into_iter().for_each(|price| table.insert(price, Scope::Stated, true));
        table
    }

    /// The price of a call to `model` at `at_us` (microseconds UTC), or `None` if it is not known.
    ///
    /// The exact name comes first, else the longest listed name that the given one begins with and that
    /// ends where a separator begins. A call from before the first price in force takes that first one:
    /// nobody calls a model before it exists, but clocks go wrong. Models that a provider on the caller's
    /// own machine serves (`ollama`) only have the prices an organisation sets for that provider.
    pub fn find(&self, provider: Option<&str>, model: &str, at_us: i64) -> Option<&Price> {
        let (name, path_provider) = ModelName::parse(model)?;
        let callers = Callers::new(provider, path_provider);
        let Some(regional_key) = name.regional_key() else { return self.search(name.key(), &callers, at_us) };
        // Regional endpoints ask a premium for newer models. Without a row for it, the global price would be a guess.
        let is_regional_too = |price: &&Price| {
            price.provider.as_deref() == Some(BEDROCK) || has_no_regional_premium(name.key())
        };
        let regional = self.search(regional_key, &callers, at_us);
        regional.or_else(|| self.search(name.key(), &callers, at_us).filter(is_regional_too))
    }

    /// Every price with its own name, in no particular order; aliases are not repeated.
    pub fn prices(&self) -> impl Iterator<Item = &Price> {
        self.rows_by_key.iter().flat_map(|(key, rows)| rows.iter().map(move |row| (key, row))).filter_map(
            |(key, row)| {
                let (own, _) = ModelName::parse(&row.price.model)?;
                (own.key() == key.as_ref()).then_some(row.price.as_ref())
            },
        )
    }

    fn search(&self, key: &str, callers: &Callers<'_>, at_us: i64) -> Option<&Price> {
        let best = |key: &str| self.rows_by_key.get(key).and_then(|rows| best_row(rows, callers, at_us));
        // Most shorter keys are in no table, so the dear question what the rest means comes second.
        let shorter = |(key, rest): (&str, &str)| best(key).filter(|_| !names_another_model(rest));
        best(key).or_else(|| shorter_keys(key).find_map(shorter))
    }

    fn insert(&mut self, price: Price, scope: Scope, is_override: bool) {
        let price = Arc::new(price);
        for name in std::iter::once(&price.model).chain(&price.aliases) {
            let Some((name, _)) = ModelName::parse(name) else { continue };
            let rows = self.rows_by_key.entry(name.key().into()).or_default();
            rows.push(Row { price: Arc::clone(&price), is_override, scope });
        }
    }
}

fn best_row<'a>(rows: &'a [Row], callers: &Callers<'_>, at_us: i64) -> Option<&'a Price> {
    let ranked = rows.iter().filter_map(|row| {
        let fit = callers.fit(row.price.provider.as_deref(), row.scope)?;
        let since_us = row.price.effective_from_us;
        let is_in_force = since_us <= at_us;
        // In force: the latest. Not yet in force: the earliest.
        let recency = if is_in_force { since_us } else { !since_us };
        Some(((is_in_force, row.is_override, fit, recency), row.price.as_ref()))
    });
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, price)| price)
}

#[derive(Deserialize)]
struct PriceList {
    groups: Vec<PriceGroup>,
}

/// Rows that share where they were published, when that was checked, and the batch factor.
#[derive(Deserialize)]
struct PriceGroup {
    source: String,
    checked: String,
    #[serde(default)]
    batch: Option<String>,
    /// The maker of the models, which asks these prices itself; others that serve the models ask their own.
    #[serde(default)]
    maker: Option<String>,
    /// The only provider that asks these prices, for models that others serve too.
    #[serde(default)]
    host: Option<String>,
    prices: Vec<PriceSpec>,
}

fn embedded_prices() -> Option<Vec<(Price, Scope)>> {
    let list: PriceList = serde_json::from_str(include_str!("prices.json")).ok()?;
    let mut prices = Vec::new();
    for group in list.groups {
        for mut spec in group.prices {
            spec.batch = spec.batch.or_else(|| group.batch.clone());
            spec.provider = spec.provider.or_else(|| group.maker.clone()).or_else(|| group.host.clone());
            spec.source.clone_from(&group.source);
            spec.checked.clone_from(&group.checked);
            let scope = if group.maker.is_some() { Scope::Maker } else { Scope::Stated };
            prices.push((Price::from_spec(&spec).ok()?, scope));
        }
    }
    Some(prices)
}
