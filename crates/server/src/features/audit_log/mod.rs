//! The org's audit log: who did what, from where, through what.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::ids::OrgId;
use agentlens_domain::page::Cursor;
use agentlens_domain::time::format_rfc3339;
use agentlens_fairness::Share;
use agentlens_store::{AuditFilter, AuditPage, AuditPlace, LoggedEntry, Org, StoreError};

use crate::api::hex;
use crate::auth::{AuditRead, OrgScope};
use crate::error::ApiError;
use crate::query::{self, Params, Times};
use crate::state::AppState;

/// Entries of a page.
const DEFAULT_PAGE: u32 = 100;
/// Entries of a page, at most.
const MAX_PAGE: u32 = 500;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_audit)).routes(routes!(export_audit))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Who, such as `key:key_...` or `person:user_...`, or a kind of them: `key`, `person` or `service`.
    actor: Option<String>,
    /// What was done, such as `keys.revoke`, or what it was done to, such as `keys`.
    act: Option<String>,
    /// The id of what it was done to.
    target: Option<String>,
    /// From when on: an RFC 3339 instant or a date.
    from: Option<String>,
    /// Until when. A date alone includes the whole day.
    to: Option<String>,
    /// Entries of a page, 100 unless given; 500 at most. Not for the export.
    limit: Option<String>,
    /// `next_cursor` of the page before. Not for the export.
    cursor: Option<String>,
}

impl Filters {
    fn read(&self, now_us: i64) -> Result<AuditFilter, ApiError> {
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        let window = Times { from, to, range: None, time_zone: None }.read(now_us)?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Ok(AuditFilter {
            actor: text(&self.actor),
            act: text(&self.act),
            target: text(&self.target),
            from_us: window.from_us.unwrap_or(i64::MIN),
            to_us: window.to_us.unwrap_or(i64::MAX),
        })
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEntries {
    /// The newest first.
    entries: Vec<AuditEntryView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEntryView {
    /// `org` for acts on the org's own data, `control` for those on people, keys, workspaces and the org itself. Each is a chain.
    chain: &'static str,
    /// Its number in its chain.
    seq: i64,
    /// When.
    at: String,
    /// Who: `key:...`, `person:...` or `service:...`.
    actor: String,
    /// In which workspace.
    workspace_id: Option<String>,
    /// From where: `address`, `user_agent`, `request_id` and `session_id`, as far as they are known.
    #[schema(value_type = Object)]
    origin: Value,
    /// What was done, such as `keys.revoke`.
    act: String,
    /// The id of what it was done to.
    target: String,
    /// What was there before.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What is there now.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// Its seal, which `agentlens verify` checks.
    seal: String,
}

impl From<LoggedEntry> for AuditEntryView {
    fn from(LoggedEntry { chain, row }: LoggedEntry) -> Self {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let mut details = read(&row.details);
        let mut part = |name: &str| details.get_mut(name).map(Value::take);
        Self {
            chain,
            seq: row.seq,
            at: format_rfc3339(row.at_us),
            origin: read(&row.origin),
            before: part("before"),
            after: part("after"),
            seal: hex(&row.seal),
            actor: row.actor,
            workspace_id: row.workspace,
            act: row.act,
            target: row.target,
        }
    }
}

/// Read the org's audit log.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(Filters), responses((status = 200, body = AuditEntries)))]
async fn list_audit(
    State(state): State<AppState>,
    scope: OrgScope<AuditRead>,
    Params(params): Params<Filters>,
) -> Result<Json<AuditEntries>, ApiError> {
    let filter = params.read(state.now_us())?;
    let limit = query::limit_of(params.limit.as_ref(), DEFAULT_PAGE, MAX_PAGE)?;
    let after = place_of(query::cursor(params.cursor.as_ref())?)?;
    let _turn = state.shares.turn_to_read(scope.org_id()).await?;
    let org = state.store.org(scope.org_id()).await?;
    let AuditPage { entries, next } = org.audit().page(&filter, after, limit).await?;
    let next_cursor =
        next.map(|place| Cursor { value: place.tenant_seq, id: place.control_seq.to_string() }.encode());
    Ok(Json(AuditEntries { entries: entries.into_iter().map(AuditEntryView::from).collect(), next_cursor }))
}

fn place_of(cursor: Option<Cursor>) -> Result<AuditPlace, ApiError> {
    let Some(cursor) = cursor else { return Ok(AuditPlace::START) };
    let control_seq = cursor
        .id
        .parse()
        .map_err(|_| ApiError::invalid_parameter("cursor", "must be a `next_cursor` of an earlier answer"))?;
    Ok(AuditPlace { tenant_seq: cursor.value, control_seq })
}

/// Take the org's audit log away as JSON lines, the newest first. That is noted in the log too.
#[utoipa::path(get, path = "/v1/audit/export", tag = "audit", params(Filters),
    responses((status = 200, description = "An entry a line", body = AuditEntryView, content_type = "application/jsonl")))]
async fn export_audit(
    State(state): State<AppState>,
    scope: OrgScope<AuditRead>,
    Params(params): Params<Filters>,
) -> Result<Response, ApiError> {
    let filter = params.read(state.now_us())?;
    if query::text(params.cursor.as_ref()).is_some() || query::text(params.limit.as_ref()).is_some() {
        return Err(ApiError::invalid_parameter(
            "cursor",
            "an export is whole: give neither cursor nor limit",
        ));
    }
    let turn = state.shares.turn_to_read(scope.org_id()).await?;
    let org = state.store.org(scope.org_id()).await?;
    org.audit().note_export(&scope.caller).await?;
    // The first page is read before the answer begins, so that what fails at once is answered as an error.
    let first = lines(&org, &filter, AuditPlace::START).await?;
    let export = Export { page: Some(Ok(first)), org, filter, _turn: turn };
    let pages = futures_util::stream::unfold(export, |mut export| async move {
        match export.page.take()? {
            Ok((text, next)) => {
                if let Some(place) = next {
                    export.page = Some(lines(&export.org, &export.filter, place).await);
                }
                Some((Ok(text), export))
            }
            // The connection is cut, so that nobody takes a part for the whole.
            Err(error) => {
                tracing::warn!(org.id = %export.org.id(), error = %error, "an export of the audit log broke off");
                Some((Err(std::io::Error::other("the export broke off")), export))
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"audit.jsonl\""),
    ];
    Ok((headers, Body::from_stream(pages)).into_response())
}

/// An export that is being sent.
struct Export {
    /// What is sent next; none at the end.
    page: Option<Result<(Bytes, Option<AuditPlace>), StoreError>>,
    org: Org,
    filter: AuditFilter,
    /// The org's turn to read, held until the client has taken it all.
    _turn: Share<OrgId>,
}

/// A page as JSON lines, and where the next one begins.
async fn lines(
    org: &Org,
    filter: &AuditFilter,
    after: AuditPlace,
) -> Result<(Bytes, Option<AuditPlace>), StoreError> {
    let page = org.audit().page(filter, after, MAX_PAGE).await?;
    let mut text = String::new();
    for entry in page.entries {
        let line = serde_json::to_string(&AuditEntryView::from(entry));
        text.push_str(&line.map_err(|error| StoreError::Corrupt(error.to_string()))?);
        text.push('\n');
    }
    Ok((text.into(), page.next))
}
