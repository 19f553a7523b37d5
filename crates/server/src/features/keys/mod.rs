//! API keys: made, listed, renamed, rotated and revoked. A key is shown once, when it is made.

mod leaked;
mod settings;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::entitlements::CountLimit;
use agentlens_domain::ids::KeyId;
use agentlens_domain::keys::{ApiKey, KeyKind};
use agentlens_domain::page::Cursor;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::time::{HOUR_US, format_rfc3339};
use agentlens_store::{KeyRow, NewKey, NewSecret, StoreError};

use self::settings::KeySettings;
use crate::auth::{KeysManage, OrgScope};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::query::{self, Params};
use crate::state::AppState;

/// Keys of a page.
const DEFAULT_PAGE: u32 = 100;
/// Keys of a page, at most.
const MAX_PAGE: u32 = 1_000;
/// How long a rotated key works on unless the request says it.
const DEFAULT_GRACE_HOURS: i64 = 24;
/// How long it may work on.
const MAX_GRACE_HOURS: i64 = 7 * 24;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(rename_key, revoke_key))
        .routes(routes!(rotate_key))
        .merge(leaked::routes())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Keys of a page, 100 unless given; 1,000 at most.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
struct Keys {
    /// The newest first, revoked ones too.
    keys: Vec<KeyView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// Its id.
    key_id: String,
    /// How it begins.
    prefix: String,
    /// Its name.
    name: String,
    /// `active`, `expired`, `revoked`, or `archived` if its workspace is.
    state: &'static str,
    /// The workspace that it writes to and reads from.
    workspace_id: String,
    /// The environment of events that name none.
    environment: String,
    /// Whether events that name another environment are refused.
    is_environment_bound: bool,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// How many requests a minute it may make; null for any number.
    rate_per_minute: Option<i64>,
    /// The networks that it may be used from; all if there are none.
    allowed_networks: Vec<String>,
    /// When it was made.
    created_at: String,
    /// When it stops working.
    expires_at: Option<String>,
    /// When it was revoked.
    revoked_at: Option<String>,
    /// When it was last used, about.
    last_used_at: Option<String>,
}

impl KeyView {
    fn of(row: KeyRow, now_us: i64) -> Self {
        let state = match &row {
            row if row.revoked_us.is_some() => "revoked",
            row if !row.is_active(now_us) => "expired",
            row if row.is_workspace_archived => "archived",
            _ => "active",
        };
        Self {
            state,
            scopes: row.scopes().into_iter().map(|scope| scope.as_str()).collect(),
            allowed_networks: row.allowed_networks.split_whitespace().map(str::to_owned).collect(),
            created_at: format_rfc3339(row.created_us),
            expires_at: row.expires_us.map(format_rfc3339),
            revoked_at: row.revoked_us.map(format_rfc3339),
            last_used_at: row.last_used_us.map(format_rfc3339),
            key_id: row.key_id,
            prefix: row.shown_prefix,
            name: row.name,
            workspace_id: row.workspace_id,
            environment: row.environment,
            is_environment_bound: row.is_environment_bound,
            rate_per_minute: row.rate_per_minute,
        }
    }
}

/// List the org's API keys.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(ListQuery), responses((status = 200, body = Keys)))]
async fn list_keys(
    State(state): State<AppState>,
    scope: OrgScope<KeysManage>,
    Params(params): Params<ListQuery>,
) -> Result<Json<Keys>, ApiError> {
    let limit = query::limit_of(params.limit.as_ref(), DEFAULT_PAGE, MAX_PAGE)?;
    let after = query::cursor(params.cursor.as_ref())?;
    let after = after.unwrap_or(Cursor { value: i64::MAX, id: String::new() });
    let control = state.store.control();
    let mut rows = control.list_keys_after(scope.org_id(), after.value, &after.id, limit + 1).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > most;
    rows.truncate(most);
    let last = rows.last().filter(|_| has_more);
    let next_cursor = last.map(|row| Cursor { value: row.created_us, id: row.key_id.clone() }.encode());
    let now_us = state.now_us();
    Ok(Json(Keys { keys: rows.into_iter().map(|row| KeyView::of(row, now_us)).collect(), next_cursor }))
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
struct MadeKey {
    /// Its id.
    key_id: String,
    /// The whole key. It is shown this once.
    api_key: String,
}

/// Make an API key. It can do no more than whoever makes it, and is shown this once.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = KeySettings,
    responses((status = 201, body = MadeKey), (status = 403, description = "A scope is beyond your own rights, or the org has as many keys as it may", body = ErrorBody)))]
async fn create_key(
    State(state): State<AppState>,
    scope: OrgScope<KeysManage>,
    JsonBody(sent): JsonBody<KeySettings>,
) -> Result<(StatusCode, Json<MadeKey>), ApiError> {
    let options = sent.read(&scope.workspace, state.now_us())?;
    let key = ApiKey::generate(kind_of(&options.environment));
    let row = NewKey::of(state.keys.secret(), &key, &options);
    let key_id = row.key_id.to_string();
    let limit = state.entitlements.limit(CountLimit::ApiKeys);
    state.store.control().insert_key(&scope.caller, row, limit).await?;
    Ok((StatusCode::CREATED, Json(MadeKey { key_id, api_key: key.reveal().to_owned() })))
}

fn kind_of(environment: &str) -> KeyKind {
    if environment == "production" { KeyKind::Live } else { KeyKind::Test }
}

/// A name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenameKey {
    /// 1 to 100 characters on one line.
    name: String,
}

/// Give an API key another name.
#[utoipa::path(patch, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "The key's id")), request_body = RenameKey,
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn rename_key(
    State(state): State<AppState>,
    scope: OrgScope<KeysManage>,
    Path(id): Path<String>,
    JsonBody(sent): JsonBody<RenameKey>,
) -> Result<StatusCode, ApiError> {
    let name = read_name(&sent.name)?;
    state.store.control().rename_key(&scope.caller, &read_id(&id)?, &name).await.map_err(no_key)?;
    Ok(StatusCode::NO_CONTENT)
}

/// How to rotate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// For how many hours the old key works on: 24 unless given, from 0 to 168.
    grace_hours: Option<i64>,
}

/// The key that took the place of another.
#[derive(Serialize, ToSchema)]
struct RotatedKey {
    /// The id of the new key.
    key_id: String,
    /// The whole new key. It is shown this once.
    api_key: String,
    /// When the old key stops working.
    old_key_expires_at: String,
}

/// Put a new key with the same settings in the place of an active one, which works on for a while. Both count against the limit
/// until then.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", tag = "keys", params(("id" = String, Path, description = "The key's id")), request_body = Rotate,
    responses((status = 201, body = RotatedKey), (status = 403, description = "The key can do more than you", body = ErrorBody), (status = 404, description = "There is no such active key", body = ErrorBody)))]
async fn rotate_key(
    State(state): State<AppState>,
    scope: OrgScope<KeysManage>,
    Path(id): Path<String>,
    JsonBody(sent): JsonBody<Rotate>,
) -> Result<(StatusCode, Json<RotatedKey>), ApiError> {
    let grace_hours = sent.grace_hours.unwrap_or(DEFAULT_GRACE_HOURS);
    if !(0..=MAX_GRACE_HOURS).contains(&grace_hours) {
        let message = format!("must be from 0 to {MAX_GRACE_HOURS}");
        return Err(ApiError::invalid_field("grace_hours", message));
    }
    let old = read_id(&id)?;
    let control = state.store.control();
    let row = control.find_key(scope.org_id(), &old).await?.ok_or_else(|| ApiError::not_found("Key"))?;
    let key = ApiKey::generate(kind_of(&row.environment));
    let secret = NewSecret::of(state.keys.secret(), &key);
    let key_id = secret.key_id.to_string();
    let limit = state.entitlements.limit(CountLimit::ApiKeys);
    let rotated = control.rotate_key(&scope.caller, &old, secret, grace_hours * HOUR_US, limit).await;
    let ends_us = rotated.map_err(no_key)?;
    let answer =
        RotatedKey { key_id, api_key: key.reveal().to_owned(), old_key_expires_at: format_rfc3339(ends_us) };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Revoke an API key. Every node stops taking it within a second.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "The key's id")),
    responses((status = 204), (status = 404, description = "There is no such key, or it is revoked already", body = ErrorBody)))]
async fn revoke_key(
    State(state): State<AppState>,
    scope: OrgScope<KeysManage>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.control().revoke_key(&scope.caller, &read_id(&id)?).await.map_err(no_key)?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_id(id: &str) -> Result<KeyId, ApiError> {
    KeyId::parse(id).map_err(|_| ApiError::not_found("Key"))
}

fn no_key(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::not_found("Key"),
        other => other.into(),
    }
}

fn read_name(text: &str) -> Result<String, ApiError> {
    let name = Name::parse(NameOf::Key, text);
    Ok(name.map_err(|error| ApiError::invalid_field("name", error.to_string()))?.as_str().to_owned())
}
