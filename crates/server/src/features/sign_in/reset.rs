//! A new password for one that is forgotten, by a link in a mail.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::UserId;
use agentlens_domain::passwords::PasswordOwner;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::tokens::{Secret, TokenPurpose};
use agentlens_domain::permissions::Caller;
use agentlens_mail::{LinkToken, Message};
use agentlens_store::{MailPurpose, NewMailToken, StoreError};

use super::sign_up::MailSent;
use crate::auth::Form;
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::{know_browser, mail_to, new_token};
use crate::state::AppState;

/// How long a link to set a new password works.
const LINK_US: i64 = 30 * 60 * 1_000_000;

/// The routes of setting a new password.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(ask_for_reset)).routes(routes!(reset))
}

/// Whose password is forgotten.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Forgotten {
    /// The e-mail address.
    email: String,
}

/// Ask for a link to set a new password. The answer is the same whether the address has an account or not.
#[utoipa::path(post, path = "/v1/password/forgotten", tag = "people", request_body = Forgotten, security(()),
    responses((status = 202, body = MailSent)))]
async fn ask_for_reset(
    State(state): State<AppState>,
    _form: Form,
    JsonBody(sent): JsonBody<Forgotten>,
) -> Result<(StatusCode, Json<MailSent>), ApiError> {
    let email = EmailAddress::parse(&sent.email)
        .map_err(|error| ApiError::invalid_field("email", error.to_string()))?;
    if state.people.may_mail("reset", email.key(), state.now_us()) {
        // Beside the answer, so that its time tells nothing.
        let state = state.clone();
        tokio::spawn(async move {
            if let Err(error) = mail_link(&state, &email).await {
                tracing::error!(error = error.text(), "a link to set a new password can't be mailed");
            }
        });
    }
    let message = "If this address has an account, a mail with a link was sent to it";
    let link_is_in_log = !state.people.settings.has_mail_server;
    Ok((StatusCode::ACCEPTED, Json(MailSent { message, link_is_in_log })))
}

async fn mail_link(state: &AppState, email: &EmailAddress) -> Result<(), ApiError> {
    let control = state.store.control();
    let person = control.find_person_by_email(email.key()).await?;
    let Some(person) = person.filter(|person| person.disabled_us.is_none()) else { return Ok(()) };
    let (token, digest) = new_token(state, TokenPurpose::Reset);
    let expires_us = state.now_us() + LINK_US;
    let message = Message::ResetPassword {
        token: LinkToken::new(token).map_err(|_| ApiError::internal())?,
        expires_us,
    };
    let token = NewMailToken {
        digest,
        purpose: MailPurpose::Reset,
        email_key: email.key().to_owned(),
        user_id: UserId::parse(&person.user_id).ok(),
        state: "{}".to_owned(),
        expires_us,
    };
    Ok(control.insert_mail_token(Some(token), mail_to(&person.email, &message)).await?)
}

/// The token of a link, with the new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reset {
    /// What stands behind `#` in the link.
    token: String,
    /// The new password: 8 to 128 characters that are hard to guess.
    password: String,
}

/// Set a new password with the link that was mailed. All sessions of the person end; signing in is the next step.
#[utoipa::path(post, path = "/v1/password/reset", tag = "people", request_body = Reset, security(()),
    responses((status = 204), (status = 401, description = "The link doesn't work (any more)", body = ErrorBody)))]
async fn reset(
    State(state): State<AppState>,
    form: Form,
    JsonBody(sent): JsonBody<Reset>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let control = state.store.control();
    let void = || {
        ApiError::unauthorized("invalid_link", "This link doesn't work: it was used, is too old, or was cut")
            .with_hint("ask for a new one; only the newest link works")
    };
    let token = Secret::parse(TokenPurpose::Reset, &sent.token).ok_or_else(void)?;
    let digest = *state.people.tokens.digest(&token).as_bytes();
    let row = control.find_mail_token(&digest, MailPurpose::Reset).await?.ok_or_else(void)?;
    let user = row.user_id.and_then(|id| UserId::parse(&id).ok()).ok_or_else(void)?;
    let person = control.find_person(&user).await?.ok_or_else(void)?;
    let owner = PasswordOwner { name: &person.name, address: &person.email, org: "" };
    let hash = state.people.hash_new("password", sent.password, owner).await?;
    let caller = Caller::alone(&user, form.origin.clone());
    match control.set_password(&caller, hash, None, Some(digest)).await {
        Ok(()) => {}
        Err(StoreError::NotFound) => return Err(void()),
        Err(error) => return Err(error.into()),
    }
    let from = Some(form.client.0);
    let message = Message::PasswordChanged { at_us: state.now_us(), from };
    control.insert_mail(mail_to(&person.email, &message)).await?;
    // Whoever reads the mail of the address may sign in from this browser, also while strangers use up the guesses of the account.
    let (email, mut headers) = (EmailAddress::parse(&person.email), HeaderMap::new());
    if let Ok(email) = email {
        know_browser(&state, &form, &email, &mut headers);
    }
    Ok((StatusCode::NO_CONTENT, headers))
}
