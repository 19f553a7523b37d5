//! An org's own prices of models, which come before the program's price table.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::cost::{Price, PriceSpec, RatesSpec};
use agentlens_domain::time::parse_rfc3339;

use crate::auth::{OrgScope, PricesManage};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::query::Params;
use crate::state::AppState;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_prices, set_price, delete_price))
}

/// A price of a model, in US dollars per million tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OwnPrice {
    /// The model; its dated releases have the same price.
    model: String,
    /// The only provider that it is for; all unless given.
    #[serde(default)]
    provider: Option<String>,
    /// A date or an RFC 3339 instant from which it applies; always unless given.
    #[serde(default)]
    from: Option<String>,
    /// Input, as a decimal such as `"2.50"`.
    input: String,
    /// Output.
    output: String,
    /// Input read from a cache; by the provider's rule unless given.
    #[serde(default)]
    cache_read: Option<String>,
    /// Input written to a cache; by the provider's rule unless given.
    #[serde(default)]
    cache_write: Option<String>,
}

impl From<PriceSpec> for OwnPrice {
    fn from(spec: PriceSpec) -> Self {
        Self {
            model: spec.model,
            provider: spec.provider,
            from: spec.effective_from,
            input: spec.rates.input,
            output: spec.rates.output,
            cache_read: spec.rates.cache_read,
            cache_write: spec.rates.cache_write_5m,
        }
    }
}

impl From<OwnPrice> for PriceSpec {
    fn from(price: OwnPrice) -> Self {
        let rates = RatesSpec {
            input: price.input,
            output: price.output,
            cache_read: price.cache_read,
            cache_write_5m: price.cache_write,
            ..RatesSpec::default()
        };
        let OwnPrice { model, provider, from: effective_from, .. } = price;
        Self { model, provider, effective_from, rates, ..Self::default() }
    }
}

/// An org's own prices.
#[derive(Debug, Serialize, ToSchema)]
struct OwnPrices {
    /// By model and start.
    prices: Vec<OwnPrice>,
}

/// List the org's own prices.
#[utoipa::path(get, path = "/v1/prices", tag = "prices", responses((status = 200, body = OwnPrices)))]
async fn list_prices(
    State(state): State<AppState>,
    scope: OrgScope<PricesManage>,
) -> Result<Json<OwnPrices>, ApiError> {
    let rows = state.store.org(scope.org_id()).await?.prices().list().await?;
    Ok(Json(OwnPrices { prices: rows.into_iter().map(OwnPrice::from).collect() }))
}

/// Set the org's own price of a model from an instant on. Costs that are already computed do not change.
#[utoipa::path(put, path = "/v1/prices", tag = "prices", request_body = OwnPrice, responses((status = 204)))]
async fn set_price(
    State(state): State<AppState>,
    scope: OrgScope<PricesManage>,
    JsonBody(sent): JsonBody<OwnPrice>,
) -> Result<StatusCode, ApiError> {
    let effective_us = read_start(sent.from.as_deref())
        .ok_or_else(|| ApiError::invalid_field("from", "must be a date or an RFC 3339 instant"))?;
    let spec = PriceSpec::from(sent);
    Price::from_spec(&spec).map_err(|error| ApiError::bad_request("invalid_price", error.to_string()))?;
    let org = state.store.org(scope.org_id()).await?;
    org.prices().set(&scope.caller, &spec, effective_us).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhichPrice {
    /// The model.
    model: Option<String>,
    /// `from` of the price, if it has one.
    from: Option<String>,
}

/// Remove the org's own price of a model. Costs that are already computed do not change.
#[utoipa::path(delete, path = "/v1/prices", tag = "prices", params(WhichPrice),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete_price(
    State(state): State<AppState>,
    scope: OrgScope<PricesManage>,
    Params(which): Params<WhichPrice>,
) -> Result<StatusCode, ApiError> {
    let model = which.model.ok_or_else(|| ApiError::invalid_parameter("model", "is needed"))?;
    let effective_us = read_start(which.from.as_deref())
        .ok_or_else(|| ApiError::invalid_parameter("from", "must be a date or an RFC 3339 instant"))?;
    let org = state.store.org(scope.org_id()).await?;
    org.prices().delete(&scope.caller, &model, effective_us).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The instant from which a price applies; `None` for a text that is none.
fn read_start(text: Option<&str>) -> Option<i64> {
    let Some(text) = text else { return Some(0) };
    parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
}
