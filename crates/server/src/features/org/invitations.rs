//! Invitations: bound to an address, expiring, used once.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use agentlens_domain::entitlements::CountLimit;
use agentlens_domain::ids::{OrgId, UserId, ulid_at};
use agentlens_domain::passwords::PasswordOwner;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::names::NameOf;
use agentlens_domain::people::tokens::{Secret, TokenPurpose};
use agentlens_domain::permissions::{Actor, Caller, Role};
use agentlens_domain::time::{DAY_US, format_rfc3339};
use agentlens_mail::{LinkToken, Message, Name};
use agentlens_store::{Accepting, InvitationRow, NewInvitation, NewPerson, StoreError};

use super::members::read_role;
use super::read_name;
use crate::auth::{Account, Form, MembersManage, OrgScope};
use crate::error::{ApiError, ErrorBody};
use crate::json_body::JsonBody;
use crate::people::steps::{FirstFactor, mail_to, new_token, start_session};
use crate::state::AppState;

/// How long an invitation can be accepted.
const INVITATION_US: i64 = 7 * DAY_US;

/// The routes of invitations.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_invitations, invite))
        .routes(routes!(revoke))
        .routes(routes!(resend))
        .routes(routes!(look))
        .routes(routes!(accept))
        .routes(routes!(join))
}

/// Open invitations.
#[derive(Debug, Serialize, ToSchema)]
struct Invitations {
    /// The newest first.
    invitations: Vec<InvitationView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct InvitationView {
    /// Its id.
    invitation_id: String,
    /// The address that was invited.
    email: String,
    /// The role that it gives.
    role: String,
    /// Who invited.
    invited_by: String,
    /// When it was mailed last.
    sent_at: String,
    /// Until when it can be accepted.
    expires_at: String,
    /// Whether it is too old; it can be sent again.
    has_expired: bool,
}

/// List the invitations that were neither accepted nor revoked.
#[utoipa::path(get, path = "/v1/invitations", tag = "orgs", responses((status = 200, body = Invitations)))]
async fn list_invitations(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
) -> Result<Json<Invitations>, ApiError> {
    let rows = state.store.control().list_invitations(scope.org_id()).await?;
    let now_us = state.now_us();
    let invitations = rows.into_iter().map(|row| InvitationView {
        sent_at: format_rfc3339(row.sent_us),
        expires_at: format_rfc3339(row.expires_us),
        has_expired: row.expires_us <= now_us,
        invitation_id: row.invitation_id,
        email: row.email,
        role: row.role,
        invited_by: row.invited_by,
    });
    Ok(Json(Invitations { invitations: invitations.collect() }))
}

/// Whom to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    /// The e-mail address.
    email: String,
    /// `owner`, `admin`, `auditor`, `member` or `viewer`; not beyond your own.
    role: String,
}

/// An invitation that was mailed.
#[derive(Debug, Serialize, ToSchema)]
struct Invited {
    /// Its id.
    invitation_id: String,
    /// Without a mail server the link is in the server's log; an operator can hand it over.
    link_is_in_log: bool,
}

/// Invite an address. An open invitation of the same address is replaced.
#[utoipa::path(post, path = "/v1/invitations", tag = "orgs", request_body = Invite,
    responses((status = 201, body = Invited), (status = 403, description = "The role is beyond your own, or the org has as many members as it may", body = ErrorBody), (status = 409, description = "The address is a member's", body = ErrorBody)))]
async fn invite(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
    JsonBody(sent): JsonBody<Invite>,
) -> Result<(StatusCode, Json<Invited>), ApiError> {
    let email = EmailAddress::parse(&sent.email)
        .map_err(|error| ApiError::invalid_field("email", error.to_string()))?;
    let role = read_role(&sent.role)?;
    refuse_flood(&state, scope.org_id(), email.key())?;
    let (token, digest) = new_token(&state, TokenPurpose::Invite);
    let invitation = NewInvitation {
        invitation_id: format!("inv_{}", ulid_at(state.now_us())),
        email: email.as_str().to_owned(),
        email_key: email.key().to_owned(),
        role,
        digest,
        expires_us: state.now_us() + INVITATION_US,
    };
    let invitation_id = invitation.invitation_id.clone();
    let letter = Letter::of(&state, &scope.caller).await?;
    let mail = mail_to(email.as_str(), &letter.message(&token, role, invitation.expires_us)?);
    let limit = state.entitlements.limit(CountLimit::Members);
    state.store.control().invite(&scope.caller, invitation, mail, limit).await?;
    let link_is_in_log = !state.people.settings.has_mail_server;
    Ok((StatusCode::CREATED, Json(Invited { invitation_id, link_is_in_log })))
}

/// An org mails one address only so often, whoever lives there.
fn refuse_flood(state: &AppState, org: &OrgId, email_key: &str) -> Result<(), ApiError> {
    if state.people.may_mail(org.as_str(), email_key, state.now_us()) {
        return Ok(());
    }
    let message = "This address got several invitations to this org within the last hour";
    Err(ApiError::too_many_requests("too_many_invitations", message, 720))
}

/// What the mail says beside the link.
struct Letter {
    org: String,
    inviter: String,
}

impl Letter {
    async fn of(state: &AppState, caller: &Caller) -> Result<Self, ApiError> {
        let control = state.store.control();
        let org = control.find_org(&caller.org).await?.ok_or_else(|| ApiError::not_found("Org"))?;
        let inviter = match caller.person() {
            Some(user) => control
                .find_person(user)
                .await?
                .map(|person| if person.name.is_empty() { person.email } else { person.name }),
            None => None,
        };
        Ok(Self { inviter: inviter.unwrap_or_else(|| org.name.clone()), org: org.name })
    }

    fn message(&self, token: &str, role: Role, expires_us: i64) -> Result<Message, ApiError> {
        Ok(Message::Invitation {
            token: LinkToken::new(token).map_err(|_| ApiError::internal())?,
            org: Name::new(&self.org),
            inviter: Name::new(&self.inviter),
            role,
            expires_us,
        })
    }
}

/// Mail an open invitation again. The link of the mail before is void.
#[utoipa::path(post, path = "/v1/invitations/{id}/resend", tag = "orgs", params(("id" = String, Path, description = "The invitation's id")),
    responses((status = 200, body = Invited), (status = 404, body = ErrorBody)))]
async fn resend(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
    Path(id): Path<String>,
) -> Result<Json<Invited>, ApiError> {
    let control = state.store.control();
    let rows = control.list_invitations(scope.org_id()).await?;
    let row = rows.into_iter().find(|row| row.invitation_id == id);
    let row = row.ok_or_else(|| ApiError::not_found("Invitation"))?;
    let role = read_role(&row.role)?;
    refuse_flood(&state, scope.org_id(), &row.email_key)?;
    let (token, digest) = new_token(&state, TokenPurpose::Invite);
    let expires_us = state.now_us() + INVITATION_US;
    let message = Letter::of(&state, &scope.caller).await?.message(&token, role, expires_us)?;
    let mail = mail_to(&row.email, &message);
    control.resend_invitation(&scope.caller, &id, digest, expires_us, mail).await?;
    let link_is_in_log = !state.people.settings.has_mail_server;
    Ok(Json(Invited { invitation_id: id, link_is_in_log }))
}

/// Revoke an open invitation.
#[utoipa::path(delete, path = "/v1/invitations/{id}", tag = "orgs", params(("id" = String, Path, description = "The invitation's id")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn revoke(
    State(state): State<AppState>,
    scope: OrgScope<MembersManage>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.control().revoke_invitation(&scope.caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The token of an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Token {
    /// What stands behind `#` in the link.
    token: String,
}

/// What an invitation is to.
#[derive(Debug, Serialize, ToSchema)]
struct Invitation {
    /// The name of the org.
    org: String,
    /// The role that it gives.
    role: String,
    /// The address that was invited, most of it hidden.
    email: String,
    /// Until when it can be accepted.
    expires_at: String,
}

fn void() -> ApiError {
    ApiError::unauthorized(
        "invalid_link",
        "This invitation can't be accepted: it was used, revoked or replaced, or is too old",
    )
    .with_hint("ask whoever invited you to send it again")
}

fn account_exists() -> ApiError {
    ApiError::conflict("account_exists", "This address has an account")
        .with_hint("sign in, then accept the invitation")
}

/// What it means that an invitation couldn't be accepted although it was open a moment ago: another request was faster.
fn too_late(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => void(),
        error => error.into(),
    }
}

/// The invitation of a token that can still be accepted.
async fn open_invitation(
    state: &AppState,
    token: &str,
) -> Result<(OrgId, InvitationRow, [u8; 32]), ApiError> {
    let token = Secret::parse(TokenPurpose::Invite, token).ok_or_else(void)?;
    let digest = *state.people.tokens.digest(&token).as_bytes();
    let (org, row) = state.store.control().find_invitation(&digest).await?.ok_or_else(void)?;
    let is_open = row.accepted_us.is_none() && row.revoked_us.is_none() && row.expires_us > state.now_us();
    if is_open { Ok((org, row, digest)) } else { Err(void()) }
}

/// See what an invitation is to. It stays open.
#[utoipa::path(post, path = "/v1/invitations/look", tag = "orgs", request_body = Token, security(()),
    responses((status = 200, body = Invitation), (status = 401, description = "The link doesn't work (any more)", body = ErrorBody)))]
async fn look(
    State(state): State<AppState>,
    _form: Form,
    JsonBody(sent): JsonBody<Token>,
) -> Result<Json<Invitation>, ApiError> {
    let (org, row, _) = open_invitation(&state, &sent.token).await?;
    let org = state.store.control().find_org(&org).await?.ok_or_else(|| ApiError::not_found("Org"))?;
    let email = EmailAddress::parse(&row.email).map_err(|_| ApiError::internal())?;
    Ok(Json(Invitation {
        org: org.name,
        role: row.role,
        email: email.masked(),
        expires_at: format_rfc3339(row.expires_us),
    }))
}

/// Accept an invitation with the account that you are signed in with; its address must be the one that was invited.
#[utoipa::path(post, path = "/v1/invitations/accept", tag = "orgs", request_body = Token,
    responses((status = 204), (status = 403, description = "Another address was invited", body = ErrorBody)))]
async fn accept(
    State(state): State<AppState>,
    account: Account,
    JsonBody(sent): JsonBody<Token>,
) -> Result<StatusCode, ApiError> {
    let (org, row, digest) = open_invitation(&state, &sent.token).await?;
    let control = state.store.control();
    let user = account.user_id();
    let person = control.find_person(user).await?.ok_or_else(ApiError::internal)?;
    refuse_other_address(&row, &person.email_key)?;
    let actor = Actor::Person { user_id: user.clone(), role: Role::Viewer };
    let caller = Caller { org, workspace: None, actor, origin: account.caller.origin.clone() };
    let accepting = Accepting::Person { user_id: user.to_string(), email_key: person.email_key };
    let limit = state.entitlements.limit(CountLimit::Members);
    control.accept_invitation(&caller, digest, accepting, limit).await.map_err(too_late)?;
    Ok(StatusCode::NO_CONTENT)
}

fn refuse_other_address(row: &InvitationRow, email_key: &str) -> Result<(), ApiError> {
    if row.email_key == email_key {
        return Ok(());
    }
    let invited = EmailAddress::parse(&row.email).map(|email| email.masked()).unwrap_or_default();
    Err(ApiError::forbidden_because("other_address", format!("This invitation is for {invited}"))
        .with_hint("sign in with the account of that address, or ask for an invitation of yours"))
}

/// A new person who accepts an invitation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Join {
    /// What stands behind `#` in the link.
    token: String,
    /// The name for people.
    name: String,
    /// The password: 8 to 128 characters that are hard to guess.
    password: String,
    /// The version of the terms that are accepted, if this server has terms.
    terms_version: Option<String>,
}

/// Make an account with an invitation, accept it and sign in. The link proves the address.
#[utoipa::path(post, path = "/v1/invitations/join", tag = "orgs", request_body = Join, security(()),
    responses((status = 200, description = "Signed in"), (status = 401, description = "The link doesn't work (any more)", body = ErrorBody), (status = 409, description = "The address has an account: sign in and accept", body = ErrorBody)))]
async fn join(
    State(state): State<AppState>,
    form: Form,
    JsonBody(sent): JsonBody<Join>,
) -> Result<Response, ApiError> {
    let (org, row, digest) = open_invitation(&state, &sent.token).await?;
    let control = state.store.control();
    let email = EmailAddress::parse(&row.email).map_err(|_| ApiError::internal())?;
    // Whoever holds the link reads the mail of this address, and may know it.
    if control.find_person_by_email(email.key()).await?.is_some() {
        return Err(account_exists());
    }
    state.people.settings.check_terms(sent.terms_version.as_deref())?;
    let name = read_name(NameOf::Person, &sent.name)?;
    let owner = PasswordOwner { name: &name, address: email.as_str(), org: "" };
    let password_hash = state.people.hash_new("password", sent.password, owner).await?;
    let user = UserId::random();
    let person = NewPerson {
        user_id: user.clone(),
        email: email.as_str().to_owned(),
        email_key: email.key().to_owned(),
        name,
        password_hash: Some(password_hash),
        terms_version: state.people.settings.terms_version.clone(),
    };
    let actor = Actor::Person { user_id: user.clone(), role: Role::Viewer };
    let caller = Caller { org, workspace: None, actor, origin: form.origin.clone() };
    let limit = state.entitlements.limit(CountLimit::Members);
    let accepted = control.accept_invitation(&caller, digest, Accepting::New(person), limit).await;
    accepted.map_err(too_late)?;
    Ok(start_session(&state, &form, &user, &FirstFactor::of(&email, "password"), None).await?.into_response())
}
