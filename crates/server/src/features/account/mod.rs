//! The account of the person who is signed in: who they are, where they are signed in, and what guards the account.

mod factors;
mod identities;
mod sessions;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::passwords::PasswordOwner;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::people::tokens::TokenPurpose;
use agentlens_domain::permissions::{Permission, PermissionSet, Role};
use agentlens_mail::Message;
use agentlens_store::{PersonRow, PersonsOrgRow};

use crate::auth::cookies::CookieKind;
use crate::auth::{Account, Form, ProvedAccount};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::{counter_of, mail_to, must_wait, new_token, take_code};
use crate::state::AppState;
use agentlens_domain::time::format_rfc3339;

/// Bytes of what the dashboard keeps for a person.
const MAX_PREFERENCES_BYTES: usize = 16 * 1024;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_me, update_me))
        .routes(routes!(set_password))
        .routes(routes!(prove))
        .merge(sessions::routes())
        .merge(factors::routes())
        .merge(identities::routes())
}

/// The person who is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// The id.
    user_id: String,
    /// The e-mail address.
    email: String,
    /// The name for people.
    name: String,
    /// Whether a code is asked for at sign-in.
    has_second_factor: bool,
    /// Recovery codes that can still be used.
    recovery_codes_left: i64,
    /// Whether there is a password.
    has_password: bool,
    /// What the dashboard keeps for this person.
    preferences: Value,
    /// The orgs that this person is a member of.
    orgs: Vec<OrgOfMe>,
    /// The id of this browser's session.
    session_id: String,
    /// Until when changes of what guards the account need no new proof.
    proved_until: String,
}

/// An org of a person.
#[derive(Debug, Serialize, ToSchema)]
struct OrgOfMe {
    /// Its id, for the header `AgentLens-Org`.
    org_id: String,
    /// Its name.
    name: String,
    /// The person's role.
    role: String,
    /// What the role allows, as in `x-permission`.
    permissions: Vec<&'static str>,
}

impl OrgOfMe {
    fn of(row: PersonsOrgRow) -> Self {
        let permissions = Role::parse(&row.role)
            .map(|role| PermissionSet::of_role(role).iter().map(Permission::as_str).collect())
            .unwrap_or_default();
        Self { org_id: row.org_id, name: row.name, role: row.role, permissions }
    }
}

/// The person's row. A session without one can't be: people are only removed with their sessions.
pub(super) async fn person_of(state: &AppState, account: &Account) -> Result<PersonRow, ApiError> {
    let person = state.store.control().find_person(account.user_id()).await?;
    person.ok_or_else(|| ApiError::unauthorized("session_ended", "The session has ended: sign in again"))
}

/// Who is signed in, and in which orgs.
#[utoipa::path(get, path = "/v1/me", tag = "people", responses((status = 200, body = Me)))]
async fn get_me(State(state): State<AppState>, account: Account) -> Result<Json<Me>, ApiError> {
    let control = state.store.control();
    let person = person_of(&state, &account).await?;
    let orgs = state.sessions.orgs_of(account.user_id()).await?;
    Ok(Json(Me {
        user_id: person.user_id,
        email: person.email,
        name: person.name,
        has_second_factor: person.has_second_factor,
        recovery_codes_left: control.count_recovery_codes(account.user_id()).await?,
        has_password: person.password_hash.is_some(),
        preferences: serde_json::from_str(&person.preferences).unwrap_or_default(),
        orgs: orgs.into_iter().map(OrgOfMe::of).collect(),
        session_id: account.session.session_id.to_string(),
        proved_until: format_rfc3339(account.session.proved_us + crate::auth::PROOF_US),
    }))
}

/// What a person changes of the own account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateMe {
    /// The name for people.
    name: Option<String>,
    /// What the dashboard keeps: any JSON object of up to 16 KiB.
    preferences: Option<serde_json::Map<String, Value>>,
}

/// Change the own name, or what the dashboard keeps.
#[utoipa::path(patch, path = "/v1/me", tag = "people", request_body = UpdateMe, responses((status = 204)))]
async fn update_me(
    State(state): State<AppState>,
    account: Account,
    JsonBody(sent): JsonBody<UpdateMe>,
) -> Result<StatusCode, ApiError> {
    let name = sent.name.map(|name| {
        Name::parse(NameOf::Person, &name)
            .map(|name| name.as_str().to_owned())
            .map_err(|error| ApiError::invalid_field("name", error.to_string()))
    });
    let preferences = sent.preferences.map(|preferences| Value::Object(preferences).to_string());
    if preferences.as_ref().is_some_and(|text| text.len() > MAX_PREFERENCES_BYTES) {
        return Err(ApiError::invalid_field(
            "preferences",
            format!("must be at most {MAX_PREFERENCES_BYTES} bytes of JSON"),
        ));
    }
    state.store.control().update_person(&account.caller, name.transpose()?, preferences).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new password, with the present one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetPassword {
    /// The present password.
    current: String,
    /// The new password: 8 to 128 characters that are hard to guess.
    password: String,
}

/// Set a new password. All other sessions end.
#[utoipa::path(post, path = "/v1/me/password", tag = "people", request_body = SetPassword,
    responses((status = 204), (status = 401, description = "The present password is wrong", body = ErrorBody)))]
async fn set_password(
    State(state): State<AppState>,
    account: Account,
    form: Form,
    JsonBody(sent): JsonBody<SetPassword>,
) -> Result<Response, ApiError> {
    let control = state.store.control();
    let person = person_of(&state, &account).await?;
    // Where there is a second factor, the password alone proves too little.
    if person.has_second_factor {
        account.is_proved(&state)?;
    }
    check_password(&state, &person, &form, sent.current).await?;
    let owner = PasswordOwner { name: &person.name, address: &person.email, org: "" };
    let hash = state.people.hash_new("password", sent.password, owner).await?;
    let kept = account.session.session_id.to_string();
    control.set_password(&account.caller, hash, Some(kept), None).await?;
    let headers = renew(&state, &account, "password", !person.has_second_factor).await?;
    let message = Message::PasswordChanged { at_us: state.now_us(), from: Some(form.client.0) };
    control.insert_mail(mail_to(&person.email, &message)).await?;
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// A proof that it is still the same person: one of both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Proof {
    /// The password.
    password: Option<String>,
    /// A code of the second factor, or a recovery code.
    code: Option<String>,
}

/// Prove again who you are, for the next ten minutes. With a second factor, its code is needed.
#[utoipa::path(post, path = "/v1/me/prove", tag = "people", request_body = Proof,
    responses((status = 204), (status = 401, description = "The password or the code is wrong", body = ErrorBody)))]
async fn prove(
    State(state): State<AppState>,
    account: Account,
    form: Form,
    JsonBody(sent): JsonBody<Proof>,
) -> Result<Response, ApiError> {
    let person = person_of(&state, &account).await?;
    let method = match (sent.password, sent.code) {
        (_, Some(code)) if person.has_second_factor => {
            let email = EmailAddress::parse(&person.email).map_err(|_| ApiError::internal())?;
            let counter = counter_of(&state, &email, form.device.as_deref());
            state.store.control().count_guess(&counter).await?.map_err(must_wait)?;
            let method = take_code(&state, account.user_id(), &code).await?;
            let wrong = ApiError::unauthorized("wrong_code", "The code is wrong or was used already");
            let method = method.ok_or(wrong)?;
            state.store.control().forget_guesses(&counter).await?;
            method
        }
        (Some(password), _) if !person.has_second_factor => {
            check_password(&state, &person, &form, password).await?;
            "password"
        }
        _ if person.has_second_factor => {
            return Err(ApiError::invalid_field("code", "is needed: a code of the app, or a recovery code"));
        }
        _ => return Err(ApiError::invalid_field("password", "is needed")),
    };
    let headers = renew(&state, &account, method, true).await?;
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Checks the password of someone who is signed in; guesses count as at sign-in.
async fn check_password(
    state: &AppState,
    person: &PersonRow,
    form: &Form,
    password: String,
) -> Result<(), ApiError> {
    let control = state.store.control();
    let email = EmailAddress::parse(&person.email).map_err(|_| ApiError::internal())?;
    let counter = counter_of(state, &email, form.device.as_deref());
    control.count_guess(&counter).await?.map_err(must_wait)?;
    if !state.people.verify(password, person.password_hash.clone()).await? {
        return Err(ApiError::unauthorized("wrong_password", "The password is wrong"));
    }
    Ok(control.forget_guesses(&counter).await?)
}

/// Gives the session a new cookie, because what it may do has grown. `is_proof`: the person has proved who they are.
pub(super) async fn renew(
    state: &AppState,
    account: &Account,
    method: &str,
    is_proof: bool,
) -> Result<HeaderMap, ApiError> {
    let (token, digest) = new_token(state, TokenPurpose::Session);
    let old: Vec<&str> = account.session.methods.split(' ').filter(|word| *word != method).collect();
    let methods = [&old[..], &[method]].concat().join(" ");
    let id = &account.session.session_id;
    state.store.control().renew_session(&account.caller, id, digest, &methods, is_proof).await?;
    let mut headers = HeaderMap::new();
    state.people.cookies().set(&mut headers, CookieKind::Session, &token);
    Ok(headers)
}

/// Whoever changes what guards the account must have proved it lately.
pub(super) fn proved(account: ProvedAccount) -> Account {
    account.0
}
