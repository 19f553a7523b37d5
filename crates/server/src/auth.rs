//! The extractor that is the permission. A handler that takes `Scope<EventsRead>` can only run for a credential that
//! may read events, and gets the handle of its workspace from it; there is no other way to an org's data in this room.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use data_encoding::{BASE64, BASE64_NOPAD};

use agentlens_domain::permissions;
use agentlens_store::{Org, Workspace};

use crate::error::{ApiError, note_caller};
use crate::keys::{KeyError, Principal};
use crate::proxies::ClientAddress;
use crate::shares::HeldTurn;
use crate::state::AppState;

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
    KeysManage
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

/// An authenticated request that has the permission `P`, with the handle of its workspace.
pub struct Scope<P> {
    /// The workspace's data.
    pub workspace: Workspace,
    org: Org,
    /// Who asks.
    pub principal: Principal,
    permission: PhantomData<P>,
    /// The org's turn to read; held until the answer is made, and until a large one is taken.
    _turn: Option<HeldTurn>,
}

impl<P> Scope<P> {
    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        self.workspace.clock().now_us()
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
        let key = credential(parts)?;
        let client = client_of(parts)?;
        let found = state.keys.authenticate(&key, client.network(), state.now_us()).await;
        let principal = found.map_err(|error| match error {
            KeyError::Malformed => ApiError::unauthorized("invalid_key", MALFORMED_KEY),
            KeyError::Invalid => {
                ApiError::unauthorized("invalid_key", "Invalid or revoked API key").with_hint(UNKNOWN_KEY)
            }
            KeyError::Guessing => ApiError::too_many_requests("too_many_unknown_keys", GUESSING, 5),
            KeyError::Expired => ApiError::unauthorized("expired_key", "API key expired"),
            KeyError::Store(error) => error.into(),
        })?;
        note_caller(&principal.org, &principal.key_id);
        if !principal.caller.may(P::PERMISSION) {
            return Err(ApiError::forbidden(P::PERMISSION.as_str()));
        }
        let turn = if P::PERMISSION.is_reading() {
            let held: HeldTurn = parts.extensions.get().cloned().unwrap_or_default();
            held.keep(state.shares.turn_to_read(&principal.org).await?);
            Some(held)
        } else {
            None
        };
        let org = state.store.org(&principal.org).await?;
        let workspace = org.workspace(&principal.workspace_id);
        Ok(Self { workspace, org, principal, permission: PhantomData, _turn: turn })
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

/// The key of a request: `Authorization: Bearer`, `Authorization: Basic` with the key as the password (as Langfuse's
/// clients send it), `X-API-Key`, or (for streams, which browsers open without headers) the parameter `token`.
fn credential(parts: &Parts) -> Result<String, ApiError> {
    let missing = |hint: &'static str| {
        ApiError::unauthorized("missing_credential", "Authentication required").with_hint(hint)
    };
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let value = value.to_str().unwrap_or_default().trim();
        let Some((scheme, credential)) = value.split_once(' ') else {
            return Err(missing("write `Bearer` before the key: `Authorization: Bearer al_live_...`"));
        };
        let credential = credential.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(credential.to_owned());
        }
        if scheme.eq_ignore_ascii_case("basic") {
            return password(credential)
                .ok_or_else(|| missing("with Basic authentication the API key must be the password"));
        }
        return Err(missing(
            "the scheme of `Authorization` must be Bearer (or Basic, with the key as the password)",
        ));
    }
    if let Some(value) = parts.headers.get("x-api-key") {
        return value
            .to_str()
            .map(str::to_owned)
            .map_err(|_| ApiError::unauthorized("invalid_key", MALFORMED_KEY));
    }
    let query = parts.uri.query().unwrap_or_default();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
    match token {
        Some(token) if parts.uri.path() == "/api/stream" => Ok(token.to_owned()),
        Some(_) => Err(missing(
            "the parameter `token` is read by /api/stream only; send the header `Authorization: Bearer al_live_...`",
        )),
        None => Err(missing("send the API key in the header `Authorization: Bearer al_live_...`")),
    }
}

/// What stands behind the first colon of a Basic credential.
fn password(credential: &str) -> Option<String> {
    let encoding = if credential.ends_with('=') { BASE64 } else { BASE64_NOPAD };
    let plain = String::from_utf8(encoding.decode(credential.as_bytes()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}
