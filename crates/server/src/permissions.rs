//! The permission that each operation of the API needs, written into `openapi.json` as `x-permission`.
//!
//! The extractor [`crate::auth::Scope`] enforces the permission, and this table describes it. A test calls each
//! operation with a key of each scope to check that both agree. It fails if an operation is missing here.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};

use agentlens_domain::permissions::Permission;

/// Operations that anyone may ask for, by method and path.
const OPEN: &[(&str, &str)] = &[
    ("get", "/.well-known/jwks.json"),
    ("get", "/api/health"),
    ("get", "/api/server-info"),
    ("get", "/api/version"),
    ("get", "/v1/deletions/{id}"),
    ("post", "/v1/sign-up"),
    ("post", "/v1/verify"),
    ("post", "/v1/sign-in"),
    ("post", "/v1/sign-in/code"),
    ("post", "/v1/sign-in/{provider}"),
    ("get", "/v1/sign-in/{provider}/callback"),
    ("post", "/v1/password/forgotten"),
    ("post", "/v1/password/reset"),
    ("post", "/v1/invitations/look"),
    ("post", "/v1/invitations/join"),
    ("post", "/v1/keys/revoke-leaked"),
];

/// Operations on the account of whoever is signed in, which take the session of a browser and no API key. A path covers what lies below
/// it.
const ACCOUNT: &[&str] = &["/v1/me", "/v1/orgs", "/v1/sign-out", "/v1/invitations/accept"];

/// The permission of all other operations. A path includes all paths below it; the longest match applies.
const NEEDS: &[(&str, &str, Permission)] = &[
    ("get", "/api/agents", Permission::EventsRead),
    ("get", "/api/analytics", Permission::EventsRead),
    ("get", "/api/audit/verify", Permission::AuditRead),
    ("get", "/api/events", Permission::EventsRead),
    ("post", "/api/events", Permission::EventsWrite),
    ("get", "/api/sessions", Permission::EventsRead),
    ("get", "/api/stats", Permission::EventsRead),
    ("get", "/api/stream", Permission::EventsRead),
    ("get", "/v1/ingest/ledger", Permission::EventsRead),
    ("get", "/v1/ingest/requests", Permission::EventsRead),
    ("get", "/v1/ingest/unmapped", Permission::EventsRead),
    ("get", "/v1/audit", Permission::AuditRead),
    ("get", "/v1/dead-letters", Permission::DeadLettersManage),
    ("post", "/v1/dead-letters", Permission::DeadLettersManage),
    ("get", "/v1/environments", Permission::OrgRead),
    ("post", "/v1/environments", Permission::WorkspacesManage),
    ("delete", "/v1/environments", Permission::WorkspacesManage),
    ("get", "/v1/invitations", Permission::MembersManage),
    ("post", "/v1/invitations", Permission::MembersManage),
    ("delete", "/v1/invitations", Permission::MembersManage),
    ("get", "/v1/keys", Permission::KeysManage),
    ("post", "/v1/keys", Permission::KeysManage),
    ("patch", "/v1/keys", Permission::KeysManage),
    ("delete", "/v1/keys", Permission::KeysManage),
    ("get", "/v1/members", Permission::OrgRead),
    ("patch", "/v1/members", Permission::MembersManage),
    ("delete", "/v1/members", Permission::MembersManage),
    ("post", "/v1/members/leave", Permission::OrgRead),
    ("get", "/v1/org", Permission::OrgRead),
    ("patch", "/v1/org", Permission::OrgManage),
    ("post", "/v1/org/transfer", Permission::OwnersManage),
    ("get", "/v1/prices", Permission::PricesManage),
    ("put", "/v1/prices", Permission::PricesManage),
    ("delete", "/v1/prices", Permission::PricesManage),
    ("delete", "/v1/org", Permission::OrgDelete),
    ("post", "/v1/org/undelete", Permission::OrgDelete),
    ("get", "/v1/workspaces", Permission::OrgRead),
    ("post", "/v1/workspaces", Permission::WorkspacesManage),
    ("patch", "/v1/workspaces", Permission::WorkspacesManage),
    ("post", "/v1/logs", Permission::EventsWrite),
    ("post", "/v1/metrics", Permission::EventsWrite),
    ("post", "/v1/traces", Permission::EventsWrite),
];

/// The permission that an operation needs, as text; `none` if anyone may ask, `account` if whoever is signed in may.
fn needed(method: &str, path: &str) -> Option<&'static str> {
    if OPEN.contains(&(method, path)) {
        return Some("none");
    }
    if is_of_account(path) {
        return Some("account");
    }
    NEEDS
        .iter()
        .filter(|(its_method, base, _)| {
            *its_method == method
                && path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|(_, base, _)| base.len())
        .map(|(_, _, permission)| permission.as_str())
}

fn is_of_account(path: &str) -> bool {
    ACCOUNT
        .iter()
        .any(|base| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether an operation needs a key, or a session.
pub(crate) fn needs_key(method: &str, path: &str) -> bool {
    !OPEN.contains(&(method, path))
}

/// Writes `x-permission` into every operation of the description.
pub(crate) fn describe(openapi: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut openapi.paths.paths {
        for (method, operation) in operations(item) {
            if let Some(permission) = needed(method, path) {
                let extension = Extensions::builder().add("x-permission", permission).build();
                operation.extensions.get_or_insert_default().merge(extension);
            }
        }
    }
}

/// The operations of a path with their methods.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
