//! The person who is signed in, and forms that anyone may send.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::{Caller, Origin};
use agentlens_domain::rates::Refused;

use super::client_of;
use super::cookies::CookieKind;
use super::origin::{is_safe, origin_of, refuse_other_sites};
use super::sessions::ValidSession;
use crate::error::ApiError;
use crate::proxies::ClientAddress;
use crate::state::AppState;

/// How long after proving who they are a person may change what guards the account.
pub(crate) const PROOF_US: i64 = 10 * 60 * 1_000_000;

/// The session of a request's cookie, from a page of the server itself; `missing` where there is no cookie.
pub(super) async fn session_of(
    parts: &Parts,
    state: &AppState,
    missing: ApiError,
) -> Result<ValidSession, ApiError> {
    let cookies = state.people.cookies();
    let Some(cookie) = cookies.read(&parts.headers, CookieKind::Session) else { return Err(missing) };
    let session = state.sessions.authenticate(cookie, state.now_us()).await?;
    let session = session
        .ok_or_else(|| ApiError::unauthorized("session_ended", "The session has ended: sign in again"))?;
    if !is_safe(&parts.method) {
        refuse_other_sites(&parts.headers, state.people.public_origin())?;
    }
    Ok(session)
}

/// The person who is signed in, for the own account. API keys are not taken here.
pub struct Account {
    /// The session.
    pub session: ValidSession,
    /// The person, as the log of the account says it.
    pub caller: Caller,
}

impl Account {
    /// The person.
    pub fn user_id(&self) -> &UserId {
        &self.session.user_id
    }

    /// Refuses a person who has not proved who they are within the last ten minutes.
    pub(crate) fn is_proved(&self, state: &AppState) -> Result<(), ApiError> {
        if state.now_us() - self.session.proved_us <= PROOF_US {
            return Ok(());
        }
        Err(ApiError::forbidden_because("proof_required", "Prove first that it is you")
            .with_hint("send your password or a code to POST /v1/me/prove; that holds for ten minutes"))
    }
}

impl FromRequestParts<AppState> for Account {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let missing = ApiError::unauthorized("sign_in_required", "Sign in first")
            .with_hint("this endpoint is for people who are signed in; API keys are not taken");
        if parts.headers.contains_key("authorization") || parts.headers.contains_key("x-api-key") {
            return Err(missing);
        }
        let session = session_of(parts, state, missing).await?;
        let caller = Caller::alone(&session.user_id, origin_of(parts, Some(&session.session_id)));
        Ok(Self { session, caller })
    }
}

/// The same for what guards the account: the person proved who they are within the last ten minutes.
pub struct ProvedAccount(pub Account);

impl FromRequestParts<AppState> for ProvedAccount {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let account = Account::from_request_parts(parts, state).await?;
        account.is_proved(state)?;
        Ok(Self(account))
    }
}

/// A form that anyone may send: it comes from a page of the server itself, and each network sends a limited number of them.
pub struct Form {
    /// From where, for the audit log.
    pub origin: Origin,
    /// The client.
    pub client: ClientAddress,
    /// The value of the cookie that a sign-in under way has.
    pub flow: Option<String>,
    /// The value of the cookie of a browser that has signed in before.
    pub device: Option<String>,
    /// The value of the cookie of a session.
    pub session: Option<String>,
}

impl FromRequestParts<AppState> for Form {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        refuse_other_sites(&parts.headers, state.people.public_origin())?;
        Self::read(parts, state)
    }
}

/// A browser that a provider has sent back. It comes from another site, so it proves nothing by itself: the flow's cookie does.
pub struct Returned(pub Form);

impl FromRequestParts<AppState> for Returned {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Form::read(parts, state).map(Self)
    }
}

impl Form {
    /// Reads the cookies, and counts the request among those of its network.
    fn read(parts: &Parts, state: &AppState) -> Result<Self, ApiError> {
        let client = client_of(parts)?;
        state.people.forms().count(client.network(), state.now_us()).map_err(too_many_forms)?;
        let cookies = state.people.cookies();
        let cookie = |kind| cookies.read(&parts.headers, kind).map(str::to_owned);
        Ok(Self {
            origin: origin_of(parts, None),
            client,
            flow: cookie(CookieKind::Flow),
            device: cookie(CookieKind::Device),
            session: cookie(CookieKind::Session),
        })
    }
}

/// Anyone who sends something without any credential, from a program or a page; each network sends a limited number.
pub struct Stranger {
    /// From where, for the audit log.
    pub origin: Origin,
}

impl FromRequestParts<AppState> for Stranger {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let network = client_of(parts)?.network();
        state.people.forms().count(network, state.now_us()).map_err(too_many_forms)?;
        Ok(Self { origin: origin_of(parts, None) })
    }
}

fn too_many_forms(refused: Refused) -> ApiError {
    let message = "Too many forms were sent from this network";
    ApiError::too_many_requests("too_many_forms", message, refused.retry_after_s().unwrap_or(60))
}
