//! Signing in through providers: what is kept of a browser until its provider sends it back, and where it goes then.
//!
//! What is kept is encrypted, lasts ten minutes, is used once, and belongs to the browser that holds the flow's cookie. The state in
//! the provider's answer alone would not prove that it is the same browser.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use agentlens_domain::ids::{UserId, random_bytes};
use agentlens_domain::people::redirects::local_target;
use agentlens_domain::people::tokens::{Secret, TokenPurpose};
use agentlens_identity::{Callback, FlowSecrets, Identity, Provider, SignInError};

use super::People;
use super::steps::{FLOW_US, new_token};
use crate::auth::Form;
use crate::auth::cookies::CookieKind;
use crate::error::ApiError;
use crate::state::AppState;

/// The page for signing in. Why a sign-in failed stands behind `#`.
const SIGN_IN_PAGE: &str = "/login";

/// A provider, with the path that it sends browsers back to.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    /// The provider.
    pub(crate) provider: Provider,
    /// The part of the path between `/v1/sign-in/` and `/callback`. Each provider has its own.
    pub(crate) path: String,
}

impl Way {
    /// A provider that this server is registered with.
    pub(crate) fn named(people: &People, name: &str) -> Result<Self, ApiError> {
        let provider = match name {
            "google" => people.settings.google.clone(),
            "github" => people.settings.github.clone(),
            _ => None,
        };
        let provider = provider.ok_or_else(|| ApiError::not_found("Provider"))?;
        Ok(Self { provider, path: name.to_owned() })
    }

    fn redirect_uri(&self, people: &People) -> String {
        format!("{}/v1/sign-in/{}/callback", people.public_origin(), self.path)
    }

    fn kind(&self) -> String {
        format!("provider {}", self.path)
    }
}

/// What a sign-in is begun with.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begin {
    /// The page of this server to go to afterwards; `/` unless given, and instead of every other address.
    pub(crate) return_to: Option<String>,
    /// The version of the terms that are accepted, in case an account is made, if this server has terms.
    pub(crate) terms_version: Option<String>,
}

/// Where the browser is to be sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SendBrowser {
    /// The provider's page.
    pub(crate) url: String,
}

/// What is kept until the browser comes back.
#[derive(Serialize, Deserialize)]
pub(crate) struct Flow {
    secrets: FlowSecrets,
    /// The page to go to.
    pub(crate) return_to: String,
    /// The version of the terms that are accepted.
    pub(crate) terms_version: Option<String>,
    /// The session of the person who adds this way to sign in; none for a sign-in.
    pub(crate) linking_session: Option<String>,
}

/// Keeps a flow and says where to send the browser. `linking` is the person, with the session, who adds this way to sign in.
pub(crate) async fn begin(
    state: &AppState,
    way: &Way,
    begin: Begin,
    linking: Option<(&UserId, &str)>,
) -> Result<Response, ApiError> {
    let people = &state.people;
    let redirect_uri = way.redirect_uri(people);
    let started = people.sign_in.begin(&way.provider, &redirect_uri, &random_bytes(), state.now_us()).await;
    let started = started.map_err(|error| {
        note_failure(way, &error);
        ApiError::unavailable(error.to_string())
    })?;
    let flow = Flow {
        secrets: started.flow,
        return_to: local_target(&origin(people)?, begin.return_to.as_deref().unwrap_or("/")),
        terms_version: begin.terms_version,
        linking_session: linking.map(|(_, session)| session.to_owned()),
    };
    let (token, digest) = new_token(state, TokenPurpose::Flow);
    let flow = serde_json::to_vec(&flow).map_err(|_| ApiError::internal())?;
    let sealed = BASE64.encode(&people.secrets.seal(&context(&digest), &flow));
    let until_us = state.now_us() + FLOW_US;
    let user = linking.map(|(user, _)| user);
    state.store.control().insert_login_flow(&digest, &way.kind(), user, &sealed, until_us).await?;
    let mut headers = HeaderMap::new();
    people.cookies().set(&mut headers, CookieKind::Flow, &token);
    Ok((headers, Json(SendBrowser { url: started.url.into() })).into_response())
}

/// Takes the flow of a browser that has come back: it can't be taken again. With it comes the person who adds a way to sign in.
pub(crate) async fn take_flow(
    state: &AppState,
    way: &Way,
    form: &Form,
) -> Result<Option<(Flow, Option<UserId>)>, ApiError> {
    let token = form.flow.as_deref().and_then(|text| Secret::parse(TokenPurpose::Flow, text));
    let Some(token) = token else { return Ok(None) };
    let digest = *state.people.tokens.digest(&token).as_bytes();
    let control = state.store.control();
    let Some((sealed, user)) = control.try_login_flow(&digest, &way.kind(), 1).await? else {
        return Ok(None);
    };
    control.end_login_flow(&digest).await?;
    let sealed = BASE64.decode(sealed.as_bytes()).map_err(|_| ApiError::internal())?;
    let opened = state.people.secrets.open(&context(&digest), &sealed).map_err(|_| ApiError::internal())?;
    let flow = serde_json::from_slice(&opened).map_err(|_| ApiError::internal())?;
    Ok(Some((flow, user)))
}

/// Who the provider says the person is; or the code of why that is not known.
pub(crate) async fn identify(
    state: &AppState,
    way: &Way,
    flow: &Flow,
    callback: Callback,
) -> Result<Identity, &'static str> {
    let people = &state.people;
    let redirect_uri = way.redirect_uri(people);
    let found =
        people.sign_in.finish(&way.provider, &flow.secrets, callback, &redirect_uri, state.now_us()).await;
    found.map_err(|error| {
        note_failure(way, &error);
        error.code()
    })
}

fn note_failure(way: &Way, error: &SignInError) {
    let detail = error.detail().map(|detail| detail.as_str());
    tracing::warn!(provider = way.path, code = error.code(), detail, "a sign-in through a provider failed");
}

/// Sends the browser to a page of this server, and takes the cookie of the flow away unless `headers` sets another.
pub(crate) fn go_to(state: &AppState, page: &str, mut headers: HeaderMap) -> Result<Response, ApiError> {
    if !sets_flow(state, &headers) {
        state.people.cookies().clear(&mut headers, CookieKind::Flow);
    }
    let url = format!("{}{page}", state.people.public_origin());
    headers.insert(header::LOCATION, HeaderValue::try_from(url).map_err(|_| ApiError::internal())?);
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// Sends the browser to the page for signing in, which says why that failed, or what is still needed.
pub(crate) fn go_to_sign_in(state: &AppState, code: &str, headers: HeaderMap) -> Result<Response, ApiError> {
    go_to(state, &with_fragment(SIGN_IN_PAGE, code), headers)
}

/// A page with a code behind `#`, instead of what stands there.
pub(crate) fn with_fragment(page: &str, code: &str) -> String {
    format!("{}#{code}", page.split('#').next().unwrap_or_default())
}

fn sets_flow(state: &AppState, headers: &HeaderMap) -> bool {
    let cookies = state.people.cookies();
    headers.get_all(header::SET_COOKIE).iter().any(|value| cookies.is_of(value, CookieKind::Flow))
}

fn origin(people: &People) -> Result<Url, ApiError> {
    Url::parse(people.public_origin()).map_err(|_| ApiError::internal())
}

/// What a flow is sealed for.
fn context(digest: &[u8; 32]) -> String {
    format!("sign-in flow {}", HEXLOWER.encode(digest))
}
