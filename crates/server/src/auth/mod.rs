//! The extractors that are the permission. A handler that takes `Scope<EventsRead>` can only run for a credential that may read
//! events, and gets the handle of its workspace from it; there is no other way to an org's data in this room. A handler that takes
//! [`OrgScope`] acts on what the org itself is, one that takes [`Account`] on the account of the person who is signed in.
//!
//! A credential is an API key, or the session of a browser. A key names its org and workspace; a session is one person's, who names
//! them by the headers `AgentLens-Org` and `AgentLens-Workspace` and must be a member. What a browser sends by itself proves nothing about
//! what the person wants, so a session acts only from pages of the server itself (see [`origin`]).

mod account;
pub mod cookies;
mod deleted_org;
pub mod origin;
pub mod sessions;

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use data_encoding::{BASE64, BASE64_NOPAD};

use agentlens_domain::ids::{OrgId, WorkspaceId};
use agentlens_domain::permissions::{self, Actor, Caller, Origin};
use agentlens_store::{Org, Workspace};

pub(crate) use account::PROOF_US;
pub use account::{Account, Form, ProvedAccount, Returned, Stranger};
pub use deleted_org::DeletedOrg;

use crate::error::{ApiError, note_caller};
use crate::keys::{KeyError, Principal};
use crate::proxies::ClientAddress;
use crate::shares::HeldTurn;
use crate::state::AppState;

use self::sessions::ValidSession;

/// A permission as a type.
pub trait Permission: Send + Sync + 'static {
    /// What the caller must be allowed to do.
    const PERMISSION: permissions::Permission;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident),+) => {
        $($(#[$doc])* #[derive(Debug, Clone, Copy)] pub struct $name;
        impl Permission for $name { const PERMISSION: permissions::Permission = permissions::Permission::$name; })+
    };
}
permissions!(
    /// Sending events.
    EventsWrite,
    /// Reading events, sessions, agents and analytics.
    EventsRead,
    /// Verifying chains and reading audit data.
    AuditRead,
    /// Making, listing and revoking keys.
    KeysManage,
    /// Reading what the org is: its name, workspaces, members and use.
    OrgRead,
    /// Changing the org's name and settings.
    OrgManage,
    /// Inviting and removing members, and changing their roles.
    MembersManage,
    /// Making, renaming and archiving workspaces and environments.
    WorkspacesManage,
    /// Setting prices of models.
    PricesManage,
    /// Seeing, replaying and dropping batches that could not be applied.
    DeadLettersManage,
    /// Making, changing and removing owners.
    OwnersManage,
    /// Deleting the org.
    OrgDelete
);

/// Reading what became of all events that keys sent. The ledger is the org's; its handler shows the rows of the workspace's keys.
#[derive(Debug, Clone, Copy)]
pub struct LedgerRead;

impl Permission for LedgerRead {
    const PERMISSION: permissions::Permission = permissions::Permission::EventsRead;
}

/// A permission whose operations need what all workspaces of an org share.
pub trait OrgWide: Permission {}

// The queue is the org's: its batches are stored in groups, whichever workspace sent them.
impl OrgWide for EventsWrite {}
impl OrgWide for LedgerRead {}

/// Who sent a request.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A program with an API key.
    Key(Principal),
    /// A person in a browser.
    Session(ValidSession),
}

impl Credential {
    /// Whether it still gives access to an org's data, for answers that go on for long.
    pub(crate) async fn is_still_valid(
        &self,
        state: &AppState,
        org: &OrgId,
        workspace: &WorkspaceId,
    ) -> bool {
        let now_us = state.now_us();
        if !state.sessions.is_suspended(org).await.is_ok_and(|is_suspended| !is_suspended) {
            return false;
        }
        match self {
            Self::Key(principal) => state.keys.is_still_valid(principal, now_us).await,
            Self::Session(session) => {
                let role = state.sessions.role_of(&session.user_id, org).await;
                let may_read = |role: permissions::Role| {
                    permissions::PermissionSet::of_role(role).contains(permissions::Permission::EventsRead)
                };
                role.is_ok_and(|role| role.is_some_and(may_read))
                    && state.sessions.has_workspace(org, workspace).await.is_ok_and(|has_it| has_it)
                    && state.sessions.is_still_valid(session, now_us).await
            }
        }
    }
}

/// An authenticated request that has a permission in one org and workspace.
struct Authorized {
    credential: Credential,
    caller: Arc<Caller>,
    org: OrgId,
    workspace: WorkspaceId,
}

impl Authorized {
    /// Finds out who asks, and whether they may do what `permission` says.
    async fn of(
        parts: &Parts,
        state: &AppState,
        permission: permissions::Permission,
    ) -> Result<Self, ApiError> {
        let authorized = match credential(parts)? {
            Some(key) => Self::by_key(parts, state, &key).await?,
            None => {
                Self::by_session(
                    parts,
                    state,
                    missing("send the API key in the header `Authorization: Bearer al_live_...`"),
                )
                .await?
            }
        };
        if state.sessions.is_suspended(&authorized.org).await? {
            return Err(ApiError::forbidden_because("org_suspended", "This org is suspended")
                .with_hint("its data are kept; ask the operator of this server"));
        }
        if !authorized.caller.may(permission) {
            return Err(match authorized.credential {
                Credential::Key(_) => ApiError::forbidden(permission.as_str()),
                Credential::Session(_) => ApiError::forbidden_because(
                    "insufficient_role",
                    format!("Your role in this org does not include {}", permission.as_str()),
                ),
            });
        }
        Ok(authorized)
    }

    async fn by_key(parts: &Parts, state: &AppState, key: &str) -> Result<Self, ApiError> {
        let client = client_of(parts)?;
        let found = state.keys.authenticate(key, client, state.now_us()).await;
        let principal = found.map_err(|error| match error {
            KeyError::Malformed => ApiError::unauthorized("invalid_key", MALFORMED_KEY),
            KeyError::Invalid => {
                ApiError::unauthorized("invalid_key", "Invalid or revoked API key").with_hint(UNKNOWN_KEY)
            }
            KeyError::Guessing => ApiError::too_many_requests("too_many_unknown_keys", GUESSING, 5),
            KeyError::Expired => ApiError::unauthorized("expired_key", "API key expired"),
            KeyError::Archived => {
                ApiError::forbidden_because("workspace_archived", "The workspace of this API key is archived")
            }
            KeyError::Elsewhere => ApiError::forbidden_because(
                "address_not_allowed",
                format!("This API key may not be used from the address {}", client.0),
            ),
            KeyError::TooOften(refused) => {
                let message = "This API key was used more often than its own rate allows";
                ApiError::too_many_requests(
                    "key_rate_exceeded",
                    message,
                    refused.retry_after_s().unwrap_or(60),
                )
            }
            KeyError::Store(error) => error.into(),
        })?;
        note_caller(&principal.org, principal.key_id.as_str());
        Ok(Self {
            caller: Arc::clone(&principal.caller),
            org: principal.org.clone(),
            workspace: principal.workspace_id.clone(),
            credential: Credential::Key(principal),
        })
    }

    /// By the cookie of a browser, if it sent one; else `missing`.
    async fn by_session(parts: &Parts, state: &AppState, missing: ApiError) -> Result<Self, ApiError> {
        let session = account::session_of(parts, state, missing).await?;
        let user = &session.user_id;
        let org = match named(parts, "org", "agentlens-org")? {
            Some(text) => OrgId::parse(text).map_err(|_| ApiError::not_found("Org"))?,
            None => only_org(&state.sessions.orgs_of(user).await?)?,
        };
        let role = state.sessions.role_of(user, &org).await?.ok_or_else(|| ApiError::not_found("Org"))?;
        let workspace = match named(parts, "workspace", "agentlens-workspace")? {
            Some(text) => WorkspaceId::parse(text).map_err(|_| ApiError::not_found("Workspace"))?,
            None => WorkspaceId::default_workspace(),
        };
        if !state.sessions.has_workspace(&org, &workspace).await? {
            return Err(ApiError::not_found("Workspace"));
        }
        note_caller(&org, user.as_str());
        let caller = Caller {
            org: org.clone(),
            workspace: Some(workspace.clone()),
            actor: Actor::Person { user_id: user.clone(), role },
            origin: Origin::default(),
        };
        Ok(Self { credential: Credential::Session(session), caller: Arc::new(caller), org, workspace })
    }
}

/// The org of someone who names none: there must be only one.
fn only_org(orgs: &[agentlens_store::PersonsOrgRow]) -> Result<OrgId, ApiError> {
    match orgs {
        [] => Err(ApiError::forbidden_because("no_org", "You are not a member of any org")
            .with_hint("make one, or accept an invitation")),
        [one] => OrgId::parse(&one.org_id).map_err(|_| ApiError::internal()),
        _ => Err(ApiError::bad_request("org_required", "You are a member of several orgs: name one")
            .with_hint("send its id in the header AgentLens-Org")),
    }
}

/// What a browser names by a header, or for streams, which it opens without headers, by a parameter.
fn named<'p>(parts: &'p Parts, parameter: &str, header: &str) -> Result<Option<&'p str>, ApiError> {
    if let Some(value) = parts.headers.get(header) {
        let text = value.to_str().ok().filter(|text| !text.is_empty());
        return text
            .map(Some)
            .ok_or_else(|| ApiError::bad_request("invalid_header", format!("{header} is not an id")));
    }
    if parts.uri.path() != STREAM {
        return Ok(None);
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    // Ids need no escaping.
    Ok(pairs.find(|(name, value)| *name == parameter && !value.is_empty()).map(|(_, value)| value))
}

/// The one endpoint that browsers open without headers.
const STREAM: &str = "/api/stream";

/// An authenticated request that has the permission `P`, with the handle of its workspace.
pub struct Scope<P> {
    /// The workspace's data.
    pub workspace: Workspace,
    org: Org,
    /// Who asks.
    pub credential: Credential,
    permission: PhantomData<P>,
    /// The org's turn to read; held until the answer is made, and until a large one is taken.
    _turn: Option<HeldTurn>,
}

impl<P> Scope<P> {
    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        self.workspace.clock().now_us()
    }

    /// The org's id.
    pub fn org_id(&self) -> &OrgId {
        self.org.id()
    }

    /// The API key that asks, for what is counted by key.
    ///
    /// # Errors
    /// When a person asks.
    pub fn key(&self) -> Result<&Principal, ApiError> {
        match &self.credential {
            Credential::Key(principal) => Ok(principal),
            Credential::Session(_) => Err(ApiError::forbidden_because(
                "api_key_required",
                "Events are sent with an API key, not with the session of a browser",
            )),
        }
    }
}

impl<P: OrgWide> Scope<P> {
    /// The org's data.
    pub fn org(&self) -> &Org {
        &self.org
    }
}

impl<P: Permission> FromRequestParts<AppState> for Scope<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let authorized = Authorized::of(parts, state, P::PERMISSION).await?;
        let turn = if P::PERMISSION.is_reading() {
            let held: HeldTurn = parts.extensions.get().cloned().unwrap_or_default();
            held.keep(state.shares.turn_to_read(&authorized.org).await?);
            Some(held)
        } else {
            None
        };
        let org = state.store.org(&authorized.org).await?;
        let workspace = org.workspace(&authorized.workspace);
        Ok(Self { workspace, org, credential: authorized.credential, permission: PhantomData, _turn: turn })
    }
}

/// An authenticated request that has the permission `P` on what the org itself is: its members, keys, workspaces.
pub struct OrgScope<P> {
    /// Who acts, and from where, as the audit log says it.
    pub caller: Caller,
    /// Who sent the request.
    pub credential: Credential,
    /// The workspace that the request names, or that of its key.
    pub workspace: WorkspaceId,
    permission: PhantomData<P>,
}

impl<P> OrgScope<P> {
    /// The org's id.
    pub fn org_id(&self) -> &OrgId {
        &self.caller.org
    }
}

impl<P: Permission> FromRequestParts<AppState> for OrgScope<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let authorized = Authorized::of(parts, state, P::PERMISSION).await?;
        let session = match &authorized.credential {
            Credential::Session(session) => Some(&*session.session_id),
            Credential::Key(_) => None,
        };
        let caller = Caller { origin: origin::origin_of(parts, session), ..(*authorized.caller).clone() };
        Ok(Self {
            caller,
            credential: authorized.credential,
            workspace: authorized.workspace,
            permission: PhantomData,
        })
    }
}

const MALFORMED_KEY: &str = "Not a well-formed AgentLens API key (al_live_... or al_test_...): it was mistyped or cut, or it belongs to another product";
const UNKNOWN_KEY: &str = "the key is well-formed, but this server does not know it or it was revoked; `agentlens key list` shows the keys of an org";

const GUESSING: &str =
    "Too many unknown API keys come from this network, so keys not used before on this server have to wait";

/// The address that a request came from.
fn client_of(parts: &Parts) -> Result<ClientAddress, ApiError> {
    // Every connection notes it, so a request without one is a mistake of ours.
    parts.extensions.get().copied().ok_or_else(ApiError::internal)
}

fn missing(hint: &'static str) -> ApiError {
    ApiError::unauthorized("missing_credential", "Authentication required").with_hint(hint)
}

/// The key of a request: `Authorization: Bearer`, `Authorization: Basic` with the key as the password (as Langfuse's
/// clients send it), `X-API-Key`, or (for streams, which browsers open without headers) the parameter `token`. `None` if it
/// has nothing of that kind, so that a cookie may count.
fn credential(parts: &Parts) -> Result<Option<String>, ApiError> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let value = value.to_str().unwrap_or_default().trim();
        let Some((scheme, credential)) = value.split_once(' ') else {
            return Err(missing("write `Bearer` before the key: `Authorization: Bearer al_live_...`"));
        };
        let credential = credential.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(credential.to_owned()));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return password(credential)
                .map(Some)
                .ok_or_else(|| missing("with Basic authentication the API key must be the password"));
        }
        return Err(missing(
            "the scheme of `Authorization` must be Bearer (or Basic, with the key as the password)",
        ));
    }
    if let Some(value) = parts.headers.get("x-api-key") {
        return value
            .to_str()
            .map(|key| Some(key.to_owned()))
            .map_err(|_| ApiError::unauthorized("invalid_key", MALFORMED_KEY));
    }
    let query = parts.uri.query().unwrap_or_default();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
    match token {
        Some(token) if parts.uri.path() == STREAM => Ok(Some(token.to_owned())),
        Some(_) => Err(missing(
            "the parameter `token` is read by /api/stream only; send the header `Authorization: Bearer al_live_...`",
        )),
        None => Ok(None),
    }
}

/// What stands behind the first colon of a Basic credential.
fn password(credential: &str) -> Option<String> {
    let encoding = if credential.ends_with('=') { BASE64 } else { BASE64_NOPAD };
    let plain = String::from_utf8(encoding.decode(credential.as_bytes()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}
