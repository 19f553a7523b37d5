//! Signing up: the account is made when the link in the mail is used, by who knows the password that was chosen. So an address that
//! someone else signed up with is nobody's account.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::UserId;
use agentlens_domain::passwords::PasswordOwner;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::guessing::GuessCounter;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::people::tokens::{Secret, TokenDigest, TokenPurpose};
use agentlens_domain::permissions::Caller;
use agentlens_domain::time::DAY_US;
use agentlens_mail::{LinkToken, Message};
use agentlens_store::{MailPurpose, NewMailToken, NewPerson, StoreError};

use crate::auth::Form;
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::Burst;
use crate::people::steps::{FirstFactor, SignedIn, mail_to, must_wait, new_token, start_session};
use crate::state::AppState;

/// How long the link of a sign-up works.
const LINK_US: i64 = DAY_US;

/// The routes of signing up.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(sign_up)).routes(routes!(verify))
}

/// A sign-up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignUp {
    /// The e-mail address.
    email: String,
    /// The password: 8 to 128 characters that are hard to guess.
    password: String,
    /// The name for people.
    name: String,
    /// The version of the terms that are accepted, if this server has terms.
    terms_version: Option<String>,
}

/// What a sign-up holds until the address is proved.
#[derive(Serialize, Deserialize)]
struct Waiting {
    email: String,
    name: String,
    password_hash: String,
    terms_version: Option<String>,
}

/// The same answer for every address.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MailSent {
    /// What happens next.
    pub(super) message: &'static str,
    /// Without a mail server the link is in the server's log; an operator can hand it over.
    pub(super) link_is_in_log: bool,
}

/// Sign up. A mail with a link proves the address; the account is made with it.
#[utoipa::path(post, path = "/v1/sign-up", tag = "people", request_body = SignUp, security(()),
    responses((status = 202, body = MailSent), (status = 403, description = "This server takes no sign-ups, or not with this address", body = ErrorBody)))]
async fn sign_up(
    State(state): State<AppState>,
    _form: Form,
    JsonBody(sent): JsonBody<SignUp>,
) -> Result<(StatusCode, Json<MailSent>), ApiError> {
    let settings = &state.people.settings;
    settings.check_is_open()?;
    let email = EmailAddress::parse(&sent.email)
        .map_err(|error| ApiError::invalid_field("email", error.to_string()))?;
    settings.check_sign_up(&email)?;
    settings.check_terms(sent.terms_version.as_deref())?;
    let name = Name::parse(NameOf::Person, &sent.name)
        .map_err(|error| ApiError::invalid_field("name", error.to_string()))?;
    let owner = PasswordOwner { name: name.as_str(), address: email.as_str(), org: "" };
    let password_hash = state.people.hash_new("password", sent.password, owner).await?;
    count(&state).await?;
    if state.people.may_mail("sign-up", email.key(), state.now_us()) {
        let waiting = Waiting {
            email: email.as_str().to_owned(),
            name: name.as_str().to_owned(),
            password_hash,
            terms_version: settings.terms_version.clone(),
        };
        mail_link(&state, &email, waiting).await?;
    }
    let message = "Open the link in the mail that was sent to this address";
    Ok((StatusCode::ACCEPTED, Json(MailSent { message, link_is_in_log: !settings.has_mail_server })))
}

/// Counts a sign-up; where there are unusually many, the operators are told.
pub(super) async fn count(state: &AppState) -> Result<(), ApiError> {
    let Some(burst) = state.people.count_sign_up(state.now_us()) else { return Ok(()) };
    let Some(operator) = &state.people.settings.operator_mail else { return Ok(()) };
    let Burst { sign_ups, minutes, limit } = burst;
    let mail = mail_to(operator.as_str(), &Message::SignUpAlarm { sign_ups, minutes, limit });
    Ok(state.store.control().insert_mail(mail).await?)
}

/// Mails the link, or, to an address with an account, that it has one.
async fn mail_link(state: &AppState, email: &EmailAddress, waiting: Waiting) -> Result<(), ApiError> {
    let control = state.store.control();
    let is_taken = control.find_person_by_email(email.key()).await?.is_some();
    let (token, digest) = new_token(state, TokenPurpose::Verify);
    let expires_us = state.now_us() + LINK_US;
    let message = if is_taken {
        Message::AddressTaken
    } else {
        let token = LinkToken::new(token).map_err(|_| ApiError::internal())?;
        Message::VerifyAddress { token, expires_us }
    };
    let token = (!is_taken).then(|| NewMailToken {
        digest,
        purpose: MailPurpose::SignUp,
        email_key: email.key().to_owned(),
        user_id: None,
        state: serde_json::to_string(&waiting).unwrap_or_default(),
        expires_us,
    });
    Ok(control.insert_mail_token(token, mail_to(email.as_str(), &message)).await?)
}

/// The token of a link, with the password that was chosen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Verify {
    /// What stands behind `#` in the link.
    token: String,
    /// The password that was chosen at sign-up. Whoever has the link without having signed up doesn't know it.
    password: String,
}

/// Prove an address with the link that was mailed, and sign in.
#[utoipa::path(post, path = "/v1/verify", tag = "people", request_body = Verify, security(()),
    responses((status = 200, body = SignedIn), (status = 401, description = "The link doesn't work (any more), or the password is wrong", body = ErrorBody)))]
async fn verify(
    State(state): State<AppState>,
    form: Form,
    JsonBody(sent): JsonBody<Verify>,
) -> Result<Response, ApiError> {
    let control = state.store.control();
    let void = || {
        ApiError::unauthorized("invalid_link", "This link doesn't work: it was used, is too old, or was cut")
            .with_hint("sign up again for a new one, or sign in if you have used it")
    };
    let token = Secret::parse(TokenPurpose::Verify, &sent.token).ok_or_else(void)?;
    let digest = *state.people.tokens.digest(&token).as_bytes();
    let row = control.find_mail_token(&digest, MailPurpose::SignUp).await?.ok_or_else(void)?;
    let waiting: Waiting = serde_json::from_str(&row.state).map_err(|_| ApiError::internal())?;
    let email = EmailAddress::parse(&waiting.email).map_err(|_| ApiError::internal())?;
    // Of this link alone: who guesses at sign-in must not keep the owner of the link out.
    let counter = GuessCounter::Strangers(TokenDigest::from_bytes(digest));
    control.count_guess(&counter).await?.map_err(must_wait)?;
    if !state.people.verify(sent.password, Some(waiting.password_hash.clone())).await? {
        return Err(ApiError::unauthorized(
            "wrong_password",
            "This is not the password that was chosen at sign-up",
        ));
    }
    let user = UserId::random();
    let person = NewPerson {
        user_id: user.clone(),
        email: waiting.email,
        email_key: row.email_key,
        name: waiting.name,
        password_hash: Some(waiting.password_hash),
        terms_version: waiting.terms_version,
    };
    let caller = Caller::alone(&user, form.origin.clone());
    match control.finish_sign_up(&caller, digest, person).await {
        Ok(()) => {}
        Err(StoreError::NotFound | StoreError::Exists(_)) => return Err(void()),
        Err(error) => return Err(error.into()),
    }
    control.forget_guesses(&counter).await?;
    start_session(&state, &form, &user, &FirstFactor::of(&email, "password"), None).await
}
