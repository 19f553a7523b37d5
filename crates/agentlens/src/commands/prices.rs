//! `agentlens price`: an org's own prices of models.

use serde_json::json;

use agentlens_domain::cost::{Price, PriceSpec, RatesSpec};
use agentlens_domain::ids::OrgId;
use agentlens_domain::time::parse_rfc3339;
use agentlens_store::Tenant;

use crate::boot::open_store;
use crate::config::{PriceCommand, StoreOptions};
use crate::output;

/// Runs a command on prices.
pub(crate) async fn run(command: PriceCommand) -> Result<(), String> {
    match command {
        PriceCommand::Set {
            model,
            input,
            output: answers,
            cache_read,
            cache_write,
            provider,
            from,
            org,
            store,
            json,
        } => {
            let rates = RatesSpec {
                input,
                output: answers,
                cache_read,
                cache_write_5m: cache_write,
                ..RatesSpec::default()
            };
            let effective_us = from.as_deref().map_or(Ok(0), read_instant)?;
            let spec = PriceSpec { model, provider, effective_from: from, rates, ..PriceSpec::default() };
            Price::from_spec(&spec).map_err(|error| error.to_string())?;
            let tenant = open(&org, &store).await?;
            tenant
                .set_price(&spec, effective_us, tenant.clock().now_us())
                .await
                .map_err(|error| error.to_string())?;
            if json {
                output::json(&json!(spec));
            } else {
                output::line(&format!(
                    "{} has its own price in org {org}; servers follow within 10 seconds",
                    spec.model
                ));
            }
            Ok(())
        }
        PriceCommand::List { org, store, json } => {
            let prices = open(&org, &store).await?.list_prices().await.map_err(|error| error.to_string())?;
            if json {
                output::json(&json!({ "prices": prices }));
            } else {
                for price in prices {
                    let since = price.effective_from.as_deref().unwrap_or("always");
                    output::line(&format!(
                        "{}\tin {}\tout {}\tfrom {since}",
                        price.model, price.rates.input, price.rates.output
                    ));
                }
            }
            Ok(())
        }
    }
}

async fn open(org: &str, options: &StoreOptions) -> Result<Tenant, String> {
    let org = OrgId::parse(org).map_err(|error| error.to_string())?;
    open_store(options).await?.tenant(&org).await.map_err(|error| format!("org {org}: {error}"))
}

fn read_instant(text: &str) -> Result<i64, String> {
    parse_rfc3339(text)
        .or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
        .ok_or_else(|| format!("--from `{text}` must be a date or an RFC 3339 instant"))
}
