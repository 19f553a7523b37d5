//! Steps of signing in that several features share.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use agentlens_domain::ids::{OrgId, UserId, ulid_at};
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::guessing::{GuessCounter, MustWait};
use agentlens_domain::people::tokens::{Secret, TokenPurpose};
use agentlens_domain::people::totp::{RecoveryCode, SEED_BYTES, TotpSeed};
use agentlens_domain::permissions::{Actor, Caller, Origin, Role};
use agentlens_domain::time::DAY_US;
use agentlens_mail::Message;
use agentlens_store::{NewBrowserSession, NewMail, org_ids};

use crate::auth::Form;
use crate::auth::cookies::CookieKind;
use crate::error::ApiError;
use crate::state::AppState;

/// How long a session may stay unused.
const IDLE_US: i64 = 7 * DAY_US;
/// How long a session lasts in any case.
const SESSION_US: i64 = 30 * DAY_US;

/// What comes after a password or a code.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// A code is needed too: send it to `POST /v1/sign-in/code`. The session begins then.
    pub(crate) needs_code: bool,
    /// The id of the person, once signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
}

/// How long a sign-in may wait for its second factor, or for a provider.
pub(crate) const FLOW_US: i64 = 10 * 60 * 1_000_000;
/// The kind of flow that waits for a code.
pub(crate) const SECOND_FACTOR: &str = "second_factor";

/// Who has proved a first factor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FirstFactor {
    /// The address of the account.
    pub(crate) email: String,
    /// How, as one word.
    pub(crate) method: String,
    /// The org's identity provider that vouched for the person.
    pub(crate) connection_id: Option<String>,
}

impl FirstFactor {
    /// A proof that no org's identity provider gave.
    pub(crate) fn of(email: &EmailAddress, method: &str) -> Self {
        Self { email: email.as_str().to_owned(), method: method.to_owned(), connection_id: None }
    }
}

/// Begins to wait for a code of the second factor; the answer's headers set the cookie of that.
pub(crate) async fn ask_for_code(
    state: &AppState,
    user: &UserId,
    first: &FirstFactor,
) -> Result<HeaderMap, ApiError> {
    let (flow, digest) = new_token(state, TokenPurpose::Flow);
    let until_us = state.now_us() + FLOW_US;
    let first = serde_json::to_string(first).unwrap_or_default();
    let control = state.store.control();
    control.insert_login_flow(&digest, SECOND_FACTOR, Some(user), &first, until_us).await?;
    let mut headers = HeaderMap::new();
    state.people.cookies().set(&mut headers, CookieKind::Flow, &flow);
    Ok(headers)
}

/// Begins the session of a person who has proved who they are.
pub(crate) async fn start_session(
    state: &AppState,
    form: &Form,
    user: &UserId,
    first: &FirstFactor,
    code: Option<&str>,
) -> Result<Response, ApiError> {
    let headers = session_cookies(state, form, user, first, code).await?;
    let answer = SignedIn { needs_code: false, user_id: Some(user.to_string()) };
    Ok((headers, Json(answer)).into_response())
}

/// Begins the session: its cookie, and the one by which this browser is known later. `code` is how a second factor was proved.
pub(crate) async fn session_cookies(
    state: &AppState,
    form: &Form,
    user: &UserId,
    first: &FirstFactor,
    code: Option<&str>,
) -> Result<HeaderMap, ApiError> {
    let email = EmailAddress::parse(&first.email).map_err(|_| ApiError::internal())?;
    let methods = [Some(first.method.as_str()), code].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let control = state.store.control();
    let (token, digest) = new_token(state, TokenPurpose::Session);
    let now_us = state.now_us();
    let session = NewBrowserSession {
        session_id: format!("ses_{}", ulid_at(now_us)),
        digest,
        idle_us: IDLE_US,
        expires_us: now_us + SESSION_US,
        methods: methods.clone(),
        connection_id: first.connection_id.clone(),
    };
    let origin = Origin { session_id: Some(session.session_id.clone()), ..form.origin.clone() };
    // The orgs first: where a session is, their logs tell of it.
    for org in org_ids(&control.orgs_of(user).await?) {
        let actor = Actor::Person { user_id: user.clone(), role: Role::Viewer };
        let caller = Caller { org, workspace: None, actor, origin: origin.clone() };
        control.note_sign_in(&caller, user, &methods).await?;
    }
    let replaced = form.session.as_deref().and_then(|text| Secret::parse(TokenPurpose::Session, text));
    let replaced = replaced.map(|token| *state.people.tokens.digest(&token).as_bytes());
    control.start_session(&Caller::alone(user, origin), session, replaced).await?;
    let (cookies, mut headers) = (state.people.cookies(), HeaderMap::new());
    cookies.set(&mut headers, CookieKind::Session, &token);
    cookies.clear(&mut headers, CookieKind::Flow);
    know_browser(state, form, &email, &mut headers);
    Ok(headers)
}

/// Gives a browser the cookie by which its guesses at this account are counted apart from those of strangers.
pub(crate) fn know_browser(state: &AppState, form: &Form, email: &EmailAddress, headers: &mut HeaderMap) {
    let devices = &state.people.devices;
    if form.device.as_deref().and_then(|text| devices.recognise(email, text)).is_none() {
        let device = devices.sign(email, Secret::generate(TokenPurpose::Device));
        state.people.cookies().set(headers, CookieKind::Device, &device.reveal());
    }
}

/// Writes a refused sign-in into the logs of the person and the person's orgs, beside the answer, so that its time tells nothing.
pub(crate) fn note_refusal(state: &AppState, user: &UserId, origin: &Origin, why: &'static str) {
    let (state, user, origin) = (state.clone(), user.clone(), origin.clone());
    tokio::spawn(async move {
        let control = state.store.control();
        let noted = async {
            let mut orgs = org_ids(&control.orgs_of(&user).await?);
            orgs.push(OrgId::of_person(&user));
            for org in orgs {
                let caller = Caller { origin: origin.clone(), ..Caller::service("sign-in", &org) };
                control.note_refused_sign_in(&caller, &user, why).await?;
            }
            Ok::<_, agentlens_store::StoreError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(error = %error, "a refused sign-in can't be written into the log");
        }
    });
}

/// A new token and its digest.
pub(crate) fn new_token(state: &AppState, purpose: TokenPurpose) -> (String, [u8; 32]) {
    let token = Secret::generate(purpose);
    let digest = *state.people.tokens.digest(&token).as_bytes();
    (token.reveal(), digest)
}

/// The counter of guesses at one account from one browser.
pub(crate) fn counter_of(state: &AppState, email: &EmailAddress, device: Option<&str>) -> GuessCounter {
    state.people.devices.counter(email, device)
}

/// 429 for who guesses.
pub(crate) fn must_wait(wait: MustWait) -> ApiError {
    let seconds = u32::try_from(wait.retry_after_s()).unwrap_or(u32::MAX);
    ApiError::too_many_requests("too_many_attempts", "Too many attempts", seconds)
        .with_hint("wait for the seconds in Retry-After; a new password can be set by mail")
}
/// Takes a code of a person's second factor: the word for how, or `None` if it is wrong or was taken before.
pub(crate) async fn take_code(
    state: &AppState,
    user: &UserId,
    code: &str,
) -> Result<Option<&'static str>, ApiError> {
    let control = state.store.control();
    let Some(row) = control.find_totp(user).await?.filter(|row| row.confirmed_us.is_some()) else {
        return Ok(None);
    };
    let seed = open_seed(state, user, &row.sealed_secret)?;
    if let Some(step) = seed.accepts(code, state.now_us(), Some(row.last_step)) {
        return Ok(control.take_totp_step(user, step).await?.then_some("totp"));
    }
    let Some(code) = RecoveryCode::parse(code) else { return Ok(None) };
    let is_taken = control.take_recovery_code(user, code.digest().as_bytes()).await?;
    Ok(is_taken.then_some("recovery_code"))
}

/// The seed of a person's codes.
pub(crate) fn open_seed(state: &AppState, user: &UserId, sealed: &[u8]) -> Result<TotpSeed, ApiError> {
    let opened = state.people.secrets.open(&seed_context(user), sealed);
    let bytes: Option<[u8; SEED_BYTES]> = opened.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(TotpSeed::from_bytes).ok_or_else(|| {
        tracing::error!(user.id = user.as_str(), "the seed of a second factor can't be decrypted");
        ApiError::internal()
    })
}

/// What a seed is sealed for.
pub(crate) fn seed_context(user: &UserId) -> String {
    format!("totp {user}")
}

/// A mail for the outbox.
pub(crate) fn mail_to(address: &str, message: &Message) -> NewMail {
    NewMail { address: address.to_owned(), message: serde_json::to_string(message).unwrap_or_default() }
}
