//! An org's own prices.

use std::sync::Arc;

use agentlens_domain::changes::Topic;
use agentlens_domain::cost::{Price, PriceSpec, PriceTable};
use agentlens_domain::permissions::Caller;

use super::Org;
use crate::args;
use crate::error::StoreError;
use crate::write::Record;

/// Own prices of one org: each of its requests reads them all.
const MAX_PRICES: i64 = 1_000;

/// An org's own prices.
#[derive(Clone, Copy)]
pub struct Prices<'o>(&'o Org);

impl Org {
    /// Its own prices.
    pub fn prices(&self) -> Prices<'_> {
        Prices(self)
    }
}

impl Prices<'_> {
    /// The price table of the org: the program's, with the org's own prices before it. A price that can't be read is left
    /// out and logged: every request of the org needs this table.
    pub(crate) async fn table(self) -> Result<Arc<PriceTable>, StoreError> {
        let own = self.list().await?;
        if own.is_empty() {
            return Ok(embedded());
        }
        let read = |spec: &PriceSpec| {
            let price = Price::from_spec(spec);
            price.map_err(|error| self.report_unreadable(&error)).ok()
        };
        Ok(Arc::new(PriceTable::embedded().with_overrides(own.iter().filter_map(read).collect())))
    }

    /// The org's own prices, by model and start.
    pub async fn list(self) -> Result<Vec<PriceSpec>, StoreError> {
        let texts: Vec<String> = self
            .0
            .fetch(
                "select price from price_overrides where org_id = $1 order by model, effective_us",
                args![],
            )
            .await?;
        let read = |text: &String| {
            let spec = serde_json::from_str(text);
            spec.map_err(|error| self.report_unreadable(&error)).ok()
        };
        Ok(texts.iter().filter_map(read).collect())
    }

    fn report_unreadable(self, error: &dyn std::fmt::Display) {
        tracing::error!(org.id = %self.0.id(), %error, "a price of the org can't be read and is not used; set it again");
    }

    /// Sets the org's own price of a model from an instant on (microseconds UTC). Costs that were computed before stay.
    pub async fn set(self, caller: &Caller, spec: &PriceSpec, effective_us: i64) -> Result<(), StoreError> {
        let refused = |error: serde_json::Error| StoreError::Refused(error.to_string());
        let (text, after) =
            (serde_json::to_string(spec).map_err(refused)?, serde_json::to_value(spec).map_err(refused)?);
        let (model, now_us) = (spec.model.clone(), self.0.clock.now_us());
        self.0.write(caller, "prices.set", move |tx| {
            Box::pin(async move {
                let find = "select price from price_overrides where org_id = $1 and model = $2 and effective_us = $3";
                let before: Option<String> = tx.find(find, args![&model, effective_us]).await?;
                let before = before.and_then(|before| serde_json::from_str(&before).ok());
                let count = "select count(*) from price_overrides where org_id = $1";
                let is_full = tx.find(count, args![]).await?.is_some_and(|count: i64| count >= MAX_PRICES);
                if is_full && before.is_none() {
                    let message = format!("the org has {MAX_PRICES} own prices, which is the limit");
                    return Err(StoreError::LimitReached(message));
                }
                let sql = "insert into price_overrides (org_id, model, effective_us, price, created_us) values ($1, $2, $3, $4, $5)
                     on conflict (org_id, model, effective_us) do update set price = excluded.price, created_us = excluded.created_us";
                tx.execute(sql, args![&model, effective_us, text, now_us]).await?;
                let record = Record::of(model).after(after);
                let record = match before {
                    Some(before) => record.before(before),
                    None => record,
                };
                Ok(record.changing(Topic::Prices).returning(()))
            })
        })
        .await
    }
}

impl Prices<'_> {
    /// Removes the org's own price of a model that applies from an instant on. Costs that were computed before stay.
    pub async fn delete(self, caller: &Caller, model: &str, effective_us: i64) -> Result<(), StoreError> {
        let model = model.to_owned();
        self.0
            .write(caller, "prices.delete", move |tx| {
                Box::pin(async move {
                    let delete = "delete from price_overrides where org_id = $1 and model = $2 and effective_us = $3 returning price";
                    let before: String =
                        tx.find(delete, args![&model, effective_us]).await?.ok_or(StoreError::NotFound)?;
                    let before = serde_json::from_str(&before).unwrap_or_default();
                    Ok(Record::of(model).before(before).changing(Topic::Prices).returning(()))
                })
            })
            .await
    }
}

/// The program's own table, shared by all orgs that have no prices of their own.
static EMBEDDED: std::sync::LazyLock<Arc<PriceTable>> =
    std::sync::LazyLock::new(|| Arc::new(PriceTable::embedded().clone()));

/// The program's own price table.
pub(crate) fn embedded() -> Arc<PriceTable> {
    Arc::clone(&EMBEDDED)
}
