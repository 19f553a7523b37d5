//! Signing in and out, and what comes before: signing up, and a new password for one that is forgotten.
//!
//! No answer and no time that it takes tells whether an address has an account: where there is none, a password is checked all the
//! same, and mail goes out in any case.

mod providers;
mod reset;
mod sign_up;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::UserId;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::tokens::{Secret, TokenPurpose};

use crate::auth::cookies::CookieKind;
use crate::auth::{Account, Form};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::{
    FirstFactor, SECOND_FACTOR, SignedIn, ask_for_code, must_wait, note_refusal, start_session, take_code,
};
use crate::state::AppState;

/// Codes that may be tried for one sign-in.
const MAX_CODE_TRIES: i64 = 5;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(sign_in))
        .routes(routes!(send_code))
        .routes(routes!(sign_out))
        .merge(providers::routes())
        .merge(sign_up::routes())
        .merge(reset::routes())
}

/// An address and its password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    /// The e-mail address.
    email: String,
    /// The password.
    password: String,
}

/// Sign in with an address and its password. The answer sets the cookie of the session.
#[utoipa::path(post, path = "/v1/sign-in", tag = "people", request_body = SignIn, security(()),
    responses((status = 200, body = SignedIn), (status = 401, description = "The address or the password is wrong", body = ErrorBody)))]
async fn sign_in(
    State(state): State<AppState>,
    form: Form,
    JsonBody(sent): JsonBody<SignIn>,
) -> Result<Response, ApiError> {
    let email = EmailAddress::parse(&sent.email)
        .map_err(|error| ApiError::invalid_field("email", error.to_string()))?;
    let control = state.store.control();
    let counter = state.people.devices.counter(&email, form.device.as_deref());
    control.count_guess(&counter).await?.map_err(must_wait)?;
    let person = control.find_person_by_email(email.key()).await?;
    let stored = person.as_ref().and_then(|person| person.password_hash.clone());
    let is_right = state.people.verify(sent.password, stored).await?;
    let known = person.as_ref().and_then(|person| UserId::parse(&person.user_id).ok());
    let Some(person) = person.filter(|person| is_right && person.disabled_us.is_none()) else {
        if let Some(user) = known {
            let why = if is_right { "disabled" } else { "wrong password" };
            note_refusal(&state, &user, &form.origin, why);
        }
        return Err(ApiError::unauthorized("wrong_login", "The address or the password is wrong"));
    };
    let user = UserId::parse(&person.user_id).map_err(|_| ApiError::internal())?;
    let first = FirstFactor::of(&email, "password");
    if person.has_second_factor {
        // The guesses are forgotten once the code is right too.
        let headers = ask_for_code(&state, &user, &first).await?;
        return Ok((headers, Json(SignedIn { needs_code: true, user_id: None })).into_response());
    }
    control.forget_guesses(&counter).await?;
    start_session(&state, &form, &user, &first, None).await
}

/// A code for a sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Code {
    /// Six digits of the app, or a recovery code.
    code: String,
}

/// Finish a sign-in with a code of the second factor, or with a recovery code.
#[utoipa::path(post, path = "/v1/sign-in/code", tag = "people", request_body = Code, security(()),
    responses((status = 200, body = SignedIn), (status = 401, description = "The code is wrong, or the sign-in took too long", body = ErrorBody)))]
async fn send_code(
    State(state): State<AppState>,
    form: Form,
    JsonBody(sent): JsonBody<Code>,
) -> Result<Response, ApiError> {
    let control = state.store.control();
    let begun = ApiError::unauthorized("sign_in_expired", "Begin to sign in again");
    let flow = form.flow.as_deref().and_then(|text| Secret::parse(TokenPurpose::Flow, text));
    let digest =
        flow.map(|flow| *state.people.tokens.digest(&flow).as_bytes()).ok_or_else(|| begun.clone())?;
    let found = control.try_login_flow(&digest, SECOND_FACTOR, MAX_CODE_TRIES).await?;
    let Some((first, Some(user))) = found else { return Err(begun) };
    let first: FirstFactor = serde_json::from_str(&first).map_err(|_| ApiError::internal())?;
    let email = EmailAddress::parse(&first.email).map_err(|_| ApiError::internal())?;
    let counter = state.people.devices.counter(&email, form.device.as_deref());
    // Who knows the password may go on guessing codes: these count like passwords, before they are looked at.
    control.count_guess(&counter).await?.map_err(must_wait)?;
    let Some(method) = take_code(&state, &user, &sent.code).await? else {
        note_refusal(&state, &user, &form.origin, "wrong code");
        return Err(ApiError::unauthorized("wrong_code", "The code is wrong or was used already"));
    };
    // Of two that send a right code at once, one signs in.
    if !control.end_login_flow(&digest).await? {
        return Err(begun);
    }
    control.forget_guesses(&counter).await?;
    start_session(&state, &form, &user, &first, Some(method)).await
}

/// Sign out: the session of this browser ends.
#[utoipa::path(post, path = "/v1/sign-out", tag = "people", responses((status = 204)))]
async fn sign_out(State(state): State<AppState>, account: Account) -> Result<Response, ApiError> {
    state.store.control().end_session(&account.caller, &account.session.session_id).await?;
    let mut headers = HeaderMap::new();
    state.people.cookies().clear(&mut headers, CookieKind::Session);
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}
