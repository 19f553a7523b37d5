//! Verifies chains from the stored bytes and returns a signed report.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::time::{DAY_US, format_rfc3339};
use agentlens_store::{BrokenChain, ChainReport, Workspace};

use crate::api::{READ_TIMEOUT, hex};
use crate::auth::{AuditRead, Scope};
use crate::error::{ApiError, ErrorBody};
use crate::query::{self, Params, Times};
use crate::state::AppState;

/// The longest range of one verification.
const MAX_RANGE_US: i64 = 366 * DAY_US;

/// The routes of this feature.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(verify))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase", parameter_in = Query)]
struct VerifyQuery {
    /// Verify this session.
    session_id: Option<String>,
    /// The start of a range. All sessions with an event in it are verified.
    from: Option<String>,
    /// The end of the range, which can be a year long at most. A date alone includes the whole day.
    to: Option<String>,
    /// The length of the range before `to` (before now if `to` is absent), instead of `from`: `1h`, `3h`, `6h`, `12h`, `24h`, `3d`,
    /// `7d`, `30d` or `90d`.
    range: Option<String>,
    /// The IANA name of the time zone for dates; defaults to UTC.
    time_zone: Option<String>,
}

/// A verification report.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VerifyReport {
    /// Whether every chain is intact.
    verified: bool,
    verified_at: String,
    range: Option<VerifiedRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    sessions_verified: i64,
    total_events: i64,
    first_hash: Option<String>,
    last_hash: Option<String>,
    /// Sessions with a broken chain, each with its first broken event.
    broken_chains: Vec<BrokenView>,
    /// HMAC-SHA-256 of this report without `signature`, under the server's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct VerifiedRange {
    from: String,
    to: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BrokenView {
    session_id: String,
    failed_at_index: i64,
    failed_event_id: String,
    reason: String,
}

impl From<BrokenChain> for BrokenView {
    fn from(broken: BrokenChain) -> Self {
        Self {
            session_id: broken.session_id,
            failed_at_index: broken.failed_at_index,
            failed_event_id: broken.failed_event_id,
            reason: broken.reason,
        }
    }
}

/// Verify the chain of one session, or of all sessions in a range, from the stored bytes.
#[utoipa::path(get, path = "/api/audit/verify", tag = "audit", params(VerifyQuery),
    responses((status = 200, description = "The report", body = VerifyReport), (status = 404, description = "Not found", body = ErrorBody)))]
async fn verify(
    scope: Scope<AuditRead>,
    State(state): State<AppState>,
    Params(params): Params<VerifyQuery>,
) -> Result<Json<VerifyReport>, ApiError> {
    let session_id = query::text(params.session_id.as_ref());
    let times = Times {
        from: params.from.as_ref(),
        to: params.to.as_ref(),
        range: params.range.as_ref(),
        time_zone: params.time_zone.as_ref(),
    };
    let window = times.read(scope.now_us())?;
    let range = match (window.from_us, window.to_us) {
        (Some(from_us), Some(to_us)) if to_us - from_us > MAX_RANGE_US => {
            return Err(ApiError::invalid_parameter("to", "must be at most one year after `from`"));
        }
        (Some(from_us), Some(to_us)) => Some((from_us, to_us)),
        (None, None) if session_id.is_some() => None,
        _ => {
            return Err(ApiError::bad_request(
                "missing_parameter",
                "Either sessionId, range, or both from and to are required",
            ));
        }
    };
    let verifying = async {
        match &session_id {
            Some(id) => verify_session(&scope.workspace, id).await,
            None => Ok::<_, ApiError>(scope.workspace.chains().verify_all(range).await?),
        }
    };
    let report = tokio::time::timeout(READ_TIMEOUT, verifying).await.map_err(|_| {
        ApiError::timed_out("verifying took too long; choose a shorter range, or run `agentlens verify`")
    })??;
    let mut view = VerifyReport {
        verified: report.broken.is_empty(),
        verified_at: format_rfc3339(state.now_us()),
        // A session is always verified as a whole, so a range does not apply.
        range: range.filter(|_| session_id.is_none()).map(|(from_us, to_us)| VerifiedRange {
            from: format_rfc3339(from_us),
            to: format_rfc3339(to_us),
        }),
        session_id,
        sessions_verified: report.sessions_verified,
        total_events: report.total_events,
        first_hash: report.first_hash.map(|hash| hex(&hash)),
        last_hash: report.last_hash.map(|hash| hex(&hash)),
        broken_chains: report.broken.into_iter().map(BrokenView::from).collect(),
        signature: None,
    };
    let text = serde_json::to_string(&view).map_err(|_| ApiError::internal())?;
    // The signature includes org and workspace, so that a report can't be presented as that of another workspace.
    let signed = format!("{}\n{}\n{text}", scope.workspace.org_id(), scope.workspace.id());
    view.signature = Some(format!("hmac-sha256:{}", hex(&state.keys.secret().sign("audit report", &signed))));
    Ok(Json(view))
}

/// Verifies a session and the chains that moved to it, because its events may be in those.
async fn verify_session(workspace: &Workspace, id: &str) -> Result<ChainReport, ApiError> {
    let session = workspace.sessions().find(id).await?.ok_or_else(|| ApiError::not_found("Session"))?;
    let chain = workspace.chains().verify_session(&session).await?;
    let mut report = ChainReport {
        sessions_verified: 1,
        total_events: chain.event_count,
        first_hash: chain.first_hash,
        last_hash: chain.last_hash,
        broken: chain.broken.into_iter().collect(),
        notes: Vec::new(),
    };
    for other in workspace.sessions().chains_moved_to(id).await? {
        let Some(other) = workspace.sessions().find(&other).await? else { continue };
        let chain = workspace.chains().verify_session(&other).await?;
        report.total_events += chain.event_count;
        report.broken.extend(chain.broken);
    }
    Ok(report)
}
