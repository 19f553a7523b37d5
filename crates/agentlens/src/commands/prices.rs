//! `agentlens price`: an org's own prices of models.

use serde_json::json;

use agentlens_domain::cost::{Price, PriceSpec, RatesSpec};
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::parse_rfc3339;

use crate::boot::open_org;
use crate::config::{Common, PriceCommand};
use crate::output;

/// Runs a command on prices.
pub(crate) async fn run(command: PriceCommand, common: &Common) -> Result<(), String> {
    match command {
        PriceCommand::Set { model, input, output, cache_read, cache_write, provider, from, org } => {
            let rates =
                RatesSpec { input, output, cache_read, cache_write_5m: cache_write, ..RatesSpec::default() };
            let spec = PriceSpec { model, provider, effective_from: from, rates, ..PriceSpec::default() };
            set(&spec, &org, common).await
        }
        PriceCommand::List { org } => list(&org, common).await,
    }
}

async fn set(spec: &PriceSpec, org: &str, common: &Common) -> Result<(), String> {
    let effective_us = spec.effective_from.as_deref().map_or(Ok(0), read_instant)?;
    Price::from_spec(spec).map_err(|error| error.to_string())?;
    let org = open_org(&common.store, org).await?;
    let stored = org.prices().set(&Caller::service("cli", org.id()), spec, effective_us).await;
    stored.map_err(|error| error.to_string())?;
    if common.json {
        output::json(&json!(spec));
    } else {
        output::line(&format!(
            "{} has its own price in org {}; servers use it within a second",
            output::plain(&spec.model),
            org.id()
        ));
    }
    Ok(())
}

async fn list(org: &str, common: &Common) -> Result<(), String> {
    let org = open_org(&common.store, org).await?;
    let prices = org.prices().list().await.map_err(|error| error.to_string())?;
    if common.json {
        output::json(&json!({ "prices": prices }));
        return Ok(());
    }
    let mut table = output::Table::new(&["MODEL", "PROVIDER", "INPUT", "OUTPUT", "FROM"]);
    for price in prices {
        table.row([
            price.model,
            price.provider.unwrap_or_else(|| "any".to_owned()),
            price.rates.input,
            price.rates.output,
            price.effective_from.unwrap_or_else(|| "always".to_owned()),
        ]);
    }
    table.print();
    Ok(())
}

fn read_instant(text: &str) -> Result<i64, String> {
    parse_rfc3339(text)
        .or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
        .ok_or_else(|| format!("--from `{text}` must be a date or an RFC 3339 instant"))
}
