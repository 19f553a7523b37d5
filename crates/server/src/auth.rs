//! The extractor that is the permission. A handler that takes `Scope<EventsRead>` can only run for a credential that
//! may read events, and gets the tenant's handle from it; there is no other way to a tenant in this room.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use data_encoding::{BASE64, BASE64_NOPAD};

use agentlens_domain::permissions;
use agentlens_store::Tenant;

use crate::error::{ApiError, note_caller};
use crate::keys::{KeyError, Principal};
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

/// An authenticated request that has the permission `P`, with the handle of its org.
pub struct Scope<P> {
    /// The org's data.
    pub tenant: Tenant,
    /// Who asks.
    pub principal: Principal,
    permission: PhantomData<P>,
}

impl<P> Scope<P> {
    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        self.tenant.clock().now_us()
    }

    /// The workspace of the credential.
    pub fn workspace(&self) -> &str {
        self.principal.workspace_id.as_str()
    }
}

impl<P: Permission> FromRequestParts<AppState> for Scope<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let key = bearer(parts)
            .ok_or_else(|| ApiError::unauthorized("missing_credential", "Authentication required"))?;
        let principal = state.keys.authenticate(&key, state.now_us()).await.map_err(|error| match error {
            KeyError::Invalid => ApiError::unauthorized("invalid_key", "Invalid or revoked API key"),
            KeyError::Expired => ApiError::unauthorized("expired_key", "API key expired"),
            KeyError::Store(error) => error.into(),
        })?;
        note_caller(&principal.org, &principal.key_id);
        if !principal.caller.may(P::PERMISSION) {
            return Err(ApiError::forbidden(P::PERMISSION.as_str()));
        }
        let tenant = state.store.tenant(&principal.org).await?;
        Ok(Self { tenant, principal, permission: PhantomData })
    }
}

/// The key of a request: `Authorization: Bearer`, `Authorization: Basic` with the key as the password (as Langfuse's
/// clients send it), `X-API-Key`, or (for streams, which browsers open without headers) the parameter `token`.
fn bearer(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
        let credential = credential.trim();
        return if scheme.eq_ignore_ascii_case("bearer") {
            Some(credential.to_owned())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(credential)
        } else {
            None
        };
    }
    if let Some(value) = parts.headers.get("x-api-key") {
        return value.to_str().ok().map(str::to_owned);
    }
    if parts.uri.path() != "/api/stream" {
        return None;
    }
    let query = parts.uri.query()?;
    query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned)
}

/// What stands behind the first colon of a Basic credential.
fn password(credential: &str) -> Option<String> {
    let encoding = if credential.ends_with('=') { BASE64 } else { BASE64_NOPAD };
    let plain = String::from_utf8(encoding.decode(credential.as_bytes()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}
