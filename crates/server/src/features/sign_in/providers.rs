//! Signing in through Google and GitHub.
//!
//! A provider's word is taken for who somebody is there, by a subject that never changes hands. An address, even a verified one, never
//! opens an account that exists: whoever has it proves it by signing in the old way, and adds the provider there
//! (`POST /v1/me/identities/{provider}`).

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use rustc_hash::FxHashMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::UserId;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::permissions::Caller;
use agentlens_identity::{Callback, Identity};
use agentlens_store::{NewIdentity, NewPerson, PersonRow, StoreError};

use crate::auth::{Form, Returned};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::providers::{
    Begin, Flow, SendBrowser, Way, begin, go_to, go_to_sign_in, identify, take_flow, with_fragment,
};
use crate::people::steps::{FirstFactor, ask_for_code, counter_of, note_refusal, session_cookies};
use crate::state::AppState;

/// The routes of signing in through providers.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(begin_with_provider)).routes(routes!(come_back))
}

/// Begin to sign in through a provider. The answer says where to send the browser.
#[utoipa::path(post, path = "/v1/sign-in/{provider}", tag = "people", request_body = Begin, security(()),
    params(("provider" = String, Path, description = "`google` or `github`")),
    responses((status = 200, body = SendBrowser), (status = 404, description = "This server is not registered with the provider", body = ErrorBody),
        (status = 403, description = "The form does not come from a page of this server", body = ErrorBody),
        (status = 429, description = "Too many forms come from this network", body = ErrorBody)))]
async fn begin_with_provider(
    State(state): State<AppState>,
    _form: Form,
    Path(provider): Path<String>,
    JsonBody(sent): JsonBody<Begin>,
) -> Result<Response, ApiError> {
    let way = Way::named(&state.people, &provider)?;
    begin(&state, &way, sent, None).await
}

/// The provider's answer, as the browser brings it. Whatever a provider adds is ignored; what is there twice is refused (RFC 6749,
/// section 3.1).
pub(super) struct Answer(pub(super) Callback);

impl FromRequestParts<AppState> for Answer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::bad_request("invalid_query", "The query can't be read"))?;
        let mut sent = FxHashMap::default();
        for (name, value) in pairs {
            if sent.insert(name, value).is_some() {
                return Err(ApiError::bad_request("invalid_query", "A parameter is given more than once"));
            }
        }
        let mut take = |name| sent.remove(name);
        Ok(Self(Callback {
            code: take("code"),
            state: take("state"),
            iss: take("iss"),
            error: take("error"),
        }))
    }
}

/// Come back from a provider. The browser is sent on to a page of this server: the one that was asked for, or `/login` with the reason
/// behind `#`.
#[utoipa::path(get, path = "/v1/sign-in/{provider}/callback", tag = "people", security(()),
    params(
        ("provider" = String, Path, description = "`google` or `github`"),
        ("code" = Option<String>, Query, description = "What the provider gives"),
        ("state" = Option<String>, Query, description = "What was sent to the provider"),
        ("iss" = Option<String>, Query, description = "Who the provider is"),
        ("error" = Option<String>, Query, description = "Why the provider gives nothing")),
    responses((status = 303, description = "Go to a page of this server"), (status = 404, description = "This server is not registered with the provider", body = ErrorBody),
        (status = 429, description = "Too many browsers of this network come back", body = ErrorBody)))]
async fn come_back(
    State(state): State<AppState>,
    Returned(form): Returned,
    Path(provider): Path<String>,
    Answer(callback): Answer,
) -> Result<Response, ApiError> {
    let way = Way::named(&state.people, &provider)?;
    let Some((flow, person)) = take_flow(&state, &way, &form).await? else {
        return go_to_sign_in(&state, "sign_in_wrong_flow", HeaderMap::new());
    };
    let found = identify(&state, &way, &flow, callback).await;
    if let Some(session) = &flow.linking_session {
        let person = &person.ok_or_else(ApiError::internal)?;
        let linked = match found {
            Ok(identity) => link(&state, &form, person, session, identity).await?,
            Err(code) => Err(code),
        };
        let page =
            linked.map_or_else(|code| with_fragment(&flow.return_to, code), |()| flow.return_to.clone());
        return go_to(&state, &page, HeaderMap::new());
    }
    match found {
        Ok(identity) => sign_in(&state, &form, &flow, identity).await,
        Err(code) => go_to_sign_in(&state, code, HeaderMap::new()),
    }
}

/// Adds a way to sign in to the account of the person who asked for it, if it is still the same session of the same browser.
async fn link(
    state: &AppState,
    form: &Form,
    person: &UserId,
    session_id: &str,
    identity: Identity,
) -> Result<Result<(), &'static str>, ApiError> {
    let session = match &form.session {
        Some(cookie) => state.sessions.authenticate(cookie, state.now_us()).await?,
        None => None,
    };
    let is_same =
        |it: &crate::auth::sessions::ValidSession| it.user_id == *person && *it.session_id == *session_id;
    let Some(session) = session.filter(is_same) else { return Ok(Err("session_ended")) };
    let mut origin = form.origin.clone();
    origin.session_id = Some(session.session_id.to_string());
    let caller = Caller::alone(person, origin);
    match state.store.control().link_identity(&caller, new_identity(&identity)).await {
        Ok(()) => Ok(Ok(())),
        Err(StoreError::Exists(_)) => Ok(Err("identity_taken")),
        Err(error) => Err(error.into()),
    }
}

/// Signs in whom the provider names, or makes the account.
async fn sign_in(
    state: &AppState,
    form: &Form,
    flow: &Flow,
    identity: Identity,
) -> Result<Response, ApiError> {
    let control = state.store.control();
    let known = control.find_identity(&identity.provider_key, &identity.subject).await?;
    let user = match known {
        Some(user) => user,
        None => match sign_up(state, form, flow, &identity).await? {
            Ok(user) => user,
            Err(code) => return go_to_sign_in(state, code, HeaderMap::new()),
        },
    };
    let person = control.find_person(&user).await?.filter(|person| person.disabled_us.is_none());
    let Some(person) = person else {
        note_refusal(state, &user, &form.origin, "disabled");
        return go_to_sign_in(state, "sign_in_refused", HeaderMap::new());
    };
    enter(state, form, flow, &person, &identity.provider_key).await
}

/// Opens the session, or asks for the code of the second factor first.
async fn enter(
    state: &AppState,
    form: &Form,
    flow: &Flow,
    person: &PersonRow,
    method: &str,
) -> Result<Response, ApiError> {
    let control = state.store.control();
    let user = UserId::parse(&person.user_id).map_err(|_| ApiError::internal())?;
    let email = EmailAddress::parse(&person.email).map_err(|_| ApiError::internal())?;
    let first = FirstFactor::of(&email, method);
    if person.has_second_factor {
        // As with a password: of sign-ins in which codes are guessed, only so many can be begun.
        let counter = counter_of(state, &email, form.device.as_deref());
        if control.count_guess(&counter).await?.is_err() {
            return go_to_sign_in(state, "too_many_attempts", HeaderMap::new());
        }
        let headers = ask_for_code(state, &user, &first).await?;
        return go_to_sign_in(state, "code_required", headers);
    }
    let headers = session_cookies(state, form, &user, &first, None).await?;
    go_to(state, &flow.return_to, headers)
}

/// Makes the account of a person whom the provider knows and this server doesn't, where people may come by themselves; or says why not.
async fn sign_up(
    state: &AppState,
    form: &Form,
    flow: &Flow,
    identity: &Identity,
) -> Result<Result<UserId, &'static str>, ApiError> {
    let (control, settings) = (state.store.control(), &state.people.settings);
    let email = identity.verified_email().and_then(|text| EmailAddress::parse(text).ok());
    let Some(email) = email else { return Ok(Err("address_unverified")) };
    if let Some(person) = control.find_person_by_email(email.key()).await? {
        let user = UserId::parse(&person.user_id).map_err(|_| ApiError::internal())?;
        note_refusal(state, &user, &form.origin, "the provider was not added to the account");
        return Ok(Err("link_required"));
    }
    if let Err(refused) = settings.check_sign_up(&email) {
        return Ok(Err(refused.code()));
    }
    if settings.check_terms(flow.terms_version.as_deref()).is_err() {
        return Ok(Err("terms_required"));
    }
    let user = UserId::random();
    let person = NewPerson {
        user_id: user.clone(),
        email: email.as_str().to_owned(),
        email_key: email.key().to_owned(),
        name: name_of(identity, &email),
        password_hash: None,
        terms_version: flow.terms_version.clone().filter(|_| settings.terms_version.is_some()),
    };
    let caller = Caller::alone(&user, form.origin.clone());
    match control.create_person_of_provider(&caller, person, new_identity(identity)).await {
        Ok(()) => {
            super::sign_up::count(state).await?;
            Ok(Ok(user))
        }
        // Somebody was faster.
        Err(StoreError::Exists(_)) => Ok(Err("link_required")),
        Err(error) => Err(error.into()),
    }
}

/// The name that the provider gives, or what stands before the @.
fn name_of(identity: &Identity, email: &EmailAddress) -> String {
    let local = email.as_str().split('@').next().unwrap_or_default();
    let named = identity.name.as_deref().and_then(|name| Name::parse(NameOf::Person, name).ok());
    named.map_or_else(|| local.to_owned(), |name| name.as_str().to_owned())
}

fn new_identity(identity: &Identity) -> NewIdentity {
    NewIdentity {
        provider: identity.provider_key.clone(),
        subject: identity.subject.clone(),
        email: identity.email.clone(),
    }
}
