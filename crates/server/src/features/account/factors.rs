//! The second factor: one-time codes of an app, and recovery codes for when the app is lost.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::totp::{RecoveryCode, TotpSeed};
use agentlens_mail::{FactorChange, Message};

use super::{person_of, proved, renew};
use crate::auth::{Account, ProvedAccount};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::{mail_to, open_seed, seed_context};
use crate::state::AppState;

/// What apps show as the issuer.
const ISSUER: &str = "AgentLens";

/// The routes of the second factor.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(offer_totp, remove_totp))
        .routes(routes!(confirm_totp))
        .routes(routes!(new_recovery_codes))
}

/// What an app needs.
#[derive(Serialize, ToSchema)]
struct Offer {
    /// The secret in base 32, for who types it.
    secret: String,
    /// The same as an address, for a QR code.
    otpauth_url: String,
}

/// Codes that are shown this once.
#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// Each can be used once instead of a code of the app.
    recovery_codes: Vec<String>,
}

/// The first code of an app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Confirm {
    /// Six digits.
    code: String,
}

/// Begin to set up an app for one-time codes. Nothing changes until a code of it is confirmed.
#[utoipa::path(post, path = "/v1/me/totp", tag = "people",
    responses((status = 200, body = Offer), (status = 409, description = "There is a second factor; remove it first", body = ErrorBody)))]
async fn offer_totp(State(state): State<AppState>, account: ProvedAccount) -> Result<Json<Offer>, ApiError> {
    let account = proved(account);
    let person = person_of(&state, &account).await?;
    let email = EmailAddress::parse(&person.email).map_err(|_| ApiError::internal())?;
    let seed = TotpSeed::generate();
    let sealed = state.people.secrets.seal(&seed_context(account.user_id()), seed.as_bytes());
    state.store.control().offer_totp(&account.caller, sealed).await?;
    Ok(Json(Offer { secret: seed.to_base32(), otpauth_url: seed.otpauth_url(ISSUER, &email) }))
}

/// Confirm the app by its first code. From now on sign-in asks for one; all other sessions end.
#[utoipa::path(post, path = "/v1/me/totp/confirm", tag = "people", request_body = Confirm,
    responses((status = 200, body = RecoveryCodes), (status = 401, description = "The code is wrong", body = ErrorBody)))]
async fn confirm_totp(
    State(state): State<AppState>,
    account: ProvedAccount,
    JsonBody(sent): JsonBody<Confirm>,
) -> Result<Response, ApiError> {
    let account = proved(account);
    let control = state.store.control();
    let row = control.find_totp(account.user_id()).await?.filter(|row| row.confirmed_us.is_none());
    let row = row.ok_or_else(|| ApiError::not_found("App to confirm"))?;
    let seed = open_seed(&state, account.user_id(), &row.sealed_secret)?;
    let step = seed.accepts(&sent.code, state.now_us(), None).ok_or_else(|| {
        ApiError::unauthorized("wrong_code", "The code is wrong: check the clock of the phone")
    })?;
    let codes = RecoveryCode::generate();
    let kept = account.session.session_id.to_string();
    control.confirm_totp(&account.caller, step, digests(&codes), Some(kept)).await?;
    let headers = renew(&state, &account, "totp", true).await?;
    tell(&state, &account, FactorChange::AppAdded).await?;
    Ok((headers, Json(shown(&codes))).into_response())
}

/// Remove the second factor. All recovery codes are void.
#[utoipa::path(delete, path = "/v1/me/totp", tag = "people", responses((status = 204), (status = 404, body = ErrorBody)))]
async fn remove_totp(State(state): State<AppState>, account: ProvedAccount) -> Result<StatusCode, ApiError> {
    let account = proved(account);
    state.store.control().remove_totp(&account.caller).await?;
    tell(&state, &account, FactorChange::AppRemoved).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make new recovery codes; the old ones are void.
#[utoipa::path(post, path = "/v1/me/recovery-codes", tag = "people",
    responses((status = 200, body = RecoveryCodes), (status = 404, description = "There is no second factor", body = ErrorBody)))]
async fn new_recovery_codes(
    State(state): State<AppState>,
    account: ProvedAccount,
) -> Result<(HeaderMap, Json<RecoveryCodes>), ApiError> {
    let account = proved(account);
    if !person_of(&state, &account).await?.has_second_factor {
        return Err(ApiError::not_found("Second factor"));
    }
    let codes = RecoveryCode::generate();
    state.store.control().set_recovery_codes(&account.caller, digests(&codes)).await?;
    tell(&state, &account, FactorChange::RecoveryCodesReplaced).await?;
    Ok((HeaderMap::new(), Json(shown(&codes))))
}

fn digests(codes: &[RecoveryCode]) -> Vec<[u8; 32]> {
    codes.iter().map(|code| *code.digest().as_bytes()).collect()
}

fn shown(codes: &[RecoveryCode]) -> RecoveryCodes {
    RecoveryCodes { recovery_codes: codes.iter().map(RecoveryCode::reveal).collect() }
}

/// Mails the person what changed, in case it was someone else.
async fn tell(state: &AppState, account: &Account, change: FactorChange) -> Result<(), ApiError> {
    let person = person_of(state, account).await?;
    let from = account.caller.origin.address.as_deref().and_then(|address| address.parse().ok());
    let message = Message::SecondFactorChanged { change, at_us: state.now_us(), from };
    Ok(state.store.control().insert_mail(mail_to(&person.email, &message)).await?)
}
