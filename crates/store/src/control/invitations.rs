//! Invitations to an org: bound to an address, expiring, used once. An invitation makes no account.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::OrgId;
use agentlens_domain::people::roles;
use agentlens_domain::permissions::{Caller, Role};

use super::members::{insert_member, lock_org};
use super::people::{NewMail, NewPerson};
use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// An invitation.
    pub struct InvitationRow {
        /// Its id.
        pub invitation_id: String,
        /// The address, as it was typed.
        pub email: String,
        /// The address by which mailboxes are compared.
        pub email_key: String,
        /// The role that it gives.
        pub role: String,
        /// Who invited, such as `person:user_...`.
        pub invited_by: String,
        /// When, microseconds UTC.
        pub created_us: i64,
        /// When it was mailed last.
        pub sent_us: i64,
        /// Until when it can be accepted.
        pub expires_us: i64,
        /// When it was accepted.
        pub accepted_us: Option<i64>,
        /// When it was revoked.
        pub revoked_us: Option<i64>,
    }
}

row_type! {
    struct InvitationPlace {
        pub org_id: String,
        pub invitation_id: String,
    }
}

macro_rules! invitation_columns {
    () => {
        "invitation_id, email, email_key, role, invited_by, created_us, sent_us, expires_us, accepted_us, revoked_us"
    };
}

/// An invitation about to be stored.
#[derive(Debug)]
pub struct NewInvitation {
    /// Its id.
    pub invitation_id: String,
    /// The address, as it was typed.
    pub email: String,
    /// The address by which mailboxes are compared.
    pub email_key: String,
    /// The role that it gives.
    pub role: Role,
    /// The digest of its secret.
    pub digest: [u8; 32],
    /// Until when it can be accepted, microseconds UTC.
    pub expires_us: i64,
}

/// Who accepts an invitation.
#[derive(Debug)]
pub enum Accepting {
    /// A person with an account, with the address by which it is found.
    Person {
        /// The person's id.
        user_id: String,
        /// The address by which mailboxes are compared.
        email_key: String,
    },
    /// Someone who has none yet. The invitation proves the address.
    New(NewPerson),
}

/// Open invitations and members together, against what the org may have.
async fn check_room(tx: &Tx<'_>, limit: Option<i64>, now_us: i64) -> Result<(), StoreError> {
    let Some(limit) = limit else { return Ok(()) };
    let count = "select (select count(*) from org_members where org_id = $1)
         + (select count(*) from org_invitations where org_id = $1 and accepted_us is null and revoked_us is null and expires_us > $2)";
    let count: i64 = tx.find(count, args![now_us]).await?.unwrap_or(0);
    if count >= limit {
        let message = format!(
            "the org has {count} members and open invitations, which is the limit of its plan ({limit})"
        );
        return Err(StoreError::LimitReached(message));
    }
    Ok(())
}

/// Refuses to touch an open invitation to a role beyond the caller's own rights. The condition names `$2`.
async fn refuse_higher(tx: &Tx<'_>, by: &Caller, condition: &str, value: &str) -> Result<(), StoreError> {
    let open = format!(
        "select role from org_invitations where org_id = $1 and {condition} and accepted_us is null and revoked_us is null"
    );
    let roles: Vec<String> = tx.fetch(open, args![value]).await?;
    let may_touch =
        |role: &String| Role::parse(role).is_some_and(|role| roles::may_change_role(by, Some(role), None));
    if roles.iter().all(may_touch) { Ok(()) } else { Err(StoreError::NotAllowed) }
}

/// Whether whoever invited could still do so: a person is still a member with enough rights, a key is not revoked.
async fn is_inviter_still_allowed(tx: &Tx<'_>, row: &InvitationRow, role: Role) -> Result<bool, StoreError> {
    let Some((kind, id)) = row.invited_by.split_once(':') else { return Ok(false) };
    match kind {
        "person" => {
            let find = "select role from org_members where org_id = $1 and user_id = $2";
            let now: Option<String> = tx.find(find, args![id]).await?;
            Ok(now.and_then(|now| Role::parse(&now)).is_some_and(|now| roles::can_grant(now, None, role)))
        }
        "key" => {
            let find =
                "select count(*) from api_keys where org_id = $1 and key_id = $2 and revoked_us is null";
            Ok(tx.find(find, args![id]).await? == Some(1_i64))
        }
        _ => Ok(true),
    }
}

impl Control {
    /// Invites an address to the caller's org. An open invitation of the same address is replaced. Refused beyond the caller's own
    /// rights, for members, and where the org has `limit` members and open invitations.
    pub async fn invite(
        &self,
        caller: &Caller,
        invitation: NewInvitation,
        mail: NewMail,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let (by, now_us, mail) = (caller.clone(), self.clock.now_us(), self.sealed(mail));
        self.write(caller, "invitations.create", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                if !roles::may_change_role(&by, None, Some(invitation.role)) {
                    return Err(StoreError::NotAllowed);
                }
                let member = "select count(*) from org_members m join users u on u.user_id = m.user_id where m.org_id = $1 and u.email_key = $2";
                if tx.find(member, args![&invitation.email_key]).await? != Some(0_i64) {
                    return Err(StoreError::Exists("member"));
                }
                refuse_higher(tx, &by, "email_key = $2", &invitation.email_key).await?;
                let replace = "update org_invitations set revoked_us = $3 where org_id = $1 and email_key = $2 and accepted_us is null and revoked_us is null";
                tx.execute(replace, args![&invitation.email_key, now_us]).await?;
                check_room(tx, limit, now_us).await?;
                let insert = "insert into org_invitations (org_id, invitation_id, email, email_key, role, digest, invited_by, created_us, sent_us, expires_us)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)";
                let args = args![
                    &invitation.invitation_id,
                    &invitation.email,
                    &invitation.email_key,
                    invitation.role.as_str(),
                    &invitation.digest,
                    by.actor_name(),
                    now_us,
                    invitation.expires_us,
                ];
                tx.execute(insert, args).await?;
                mail.insert(tx, now_us).await?;
                let after = json!({ "email": invitation.email, "role": invitation.role.as_str(), "expires_us": invitation.expires_us });
                Ok(Record::of(invitation.invitation_id).after(after).returning(()))
            })
        })
        .await
    }

    /// The invitations of an org that were neither accepted nor revoked, newest first.
    pub async fn list_invitations(&self, org: &OrgId) -> Result<Vec<InvitationRow>, StoreError> {
        let sql = concat!(
            "select ",
            invitation_columns!(),
            " from org_invitations where org_id = $1 and accepted_us is null and revoked_us is null order by created_us desc, invitation_id"
        );
        self.fetch_of(org, sql, args![]).await
    }

    /// The invitation of a secret, and its org. Whether it can still be accepted is for the caller to see.
    pub async fn find_invitation(
        &self,
        digest: &[u8; 32],
    ) -> Result<Option<(OrgId, InvitationRow)>, StoreError> {
        let sql = match self.place {
            ControlPlace::Sqlite(_) => {
                "select i.org_id, i.invitation_id from org_invitations i join orgs o on o.org_id = i.org_id and o.deleted_us is null where i.digest = $1"
            }
            ControlPlace::Postgres(_) => "select org_id, invitation_id from invitation_by_digest($1)",
        };
        let Some(place): Option<InvitationPlace> = self.find(sql, args![digest]).await? else {
            return Ok(None);
        };
        let org = OrgId::parse(&place.org_id).map_err(|_| StoreError::NotFound)?;
        let sql = concat!(
            "select ",
            invitation_columns!(),
            " from org_invitations where org_id = $1 and invitation_id = $2"
        );
        let rows: Vec<InvitationRow> = self.fetch_of(&org, sql, args![place.invitation_id]).await?;
        Ok(rows.into_iter().next().map(|row| (org, row)))
    }

    /// Mails an open invitation again, with a new secret and a new day of expiry; the old secret is void.
    pub async fn resend_invitation(
        &self,
        caller: &Caller,
        invitation_id: &str,
        digest: [u8; 32],
        expires_us: i64,
        mail: NewMail,
    ) -> Result<(), StoreError> {
        let (invitation_id, now_us, by) = (invitation_id.to_owned(), self.clock.now_us(), caller.clone());
        let mail = self.sealed(mail);
        self.write(caller, "invitations.resend", move |tx| {
            Box::pin(async move {
                let find = concat!(
                    "select ",
                    invitation_columns!(),
                    " from org_invitations where org_id = $1 and invitation_id = $2 and accepted_us is null and revoked_us is null"
                );
                let row: InvitationRow =
                    tx.find(find, args![&invitation_id]).await?.ok_or(StoreError::NotFound)?;
                let role = Role::parse(&row.role).ok_or(StoreError::NotFound)?;
                if !roles::may_change_role(&by, None, Some(role)) {
                    return Err(StoreError::NotAllowed);
                }
                let update = "update org_invitations set digest = $3, sent_us = $4, expires_us = $5 where org_id = $1 and invitation_id = $2";
                tx.execute(update, args![&invitation_id, &digest, now_us, expires_us]).await?;
                mail.insert(tx, now_us).await?;
                Ok(Record::of(invitation_id).after(json!({ "expires_us": expires_us })).returning(()))
            })
        })
        .await
    }

    /// Revokes an open invitation of the caller's org.
    pub async fn revoke_invitation(&self, caller: &Caller, invitation_id: &str) -> Result<(), StoreError> {
        let (invitation_id, now_us, by) = (invitation_id.to_owned(), self.clock.now_us(), caller.clone());
        self.write(caller, "invitations.revoke", move |tx| {
            Box::pin(async move {
                refuse_higher(tx, &by, "invitation_id = $2", &invitation_id).await?;
                let revoke = "update org_invitations set revoked_us = $3 where org_id = $1 and invitation_id = $2 and accepted_us is null and revoked_us is null";
                if tx.execute(revoke, args![&invitation_id, now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                Ok(Record::of(invitation_id).returning(()))
            })
        })
        .await
    }

    /// Accepts the invitation with this secret into the caller's org. It is used once, by its address only, and while `limit` leaves room.
    pub async fn accept_invitation(
        &self,
        caller: &Caller,
        digest: [u8; 32],
        accepting: Accepting,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let now_us = self.clock.now_us();
        self.write(caller, "invitations.accept", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let take = "update org_invitations set accepted_us = $3
                     where org_id = $1 and digest = $2 and accepted_us is null and revoked_us is null and expires_us > $3";
                if tx.execute(take, args![&digest, now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let find = concat!(
                    "select ",
                    invitation_columns!(),
                    " from org_invitations where org_id = $1 and digest = $2"
                );
                let row: InvitationRow = tx.find(find, args![&digest]).await?.ok_or(StoreError::NotFound)?;
                let role = Role::parse(&row.role).ok_or(StoreError::NotFound)?;
                if !is_inviter_still_allowed(tx, &row, role).await? {
                    return Err(StoreError::NotFound);
                }
                let (user_id, email_key) = match &accepting {
                    Accepting::Person { user_id, email_key } => (user_id.as_str(), email_key),
                    Accepting::New(person) => (person.user_id.as_str(), &person.email_key),
                };
                if *email_key != row.email_key {
                    return Err(StoreError::NotAllowed);
                }
                // This invitation is no longer open, so what is counted is everyone else.
                check_room(tx, limit, now_us).await?;
                if let Accepting::New(person) = &accepting {
                    person.insert(tx, now_us).await?;
                }
                insert_member(tx, user_id, role, now_us).await?;
                let after = json!({ "user_id": user_id, "role": row.role, "email": row.email });
                Ok(Record::of(row.invitation_id).after(after).changing(Topic::Members).returning(()))
            })
        })
        .await
    }
}
