//! Who is in an org, and in which role.

use serde_json::json;

use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, UserId};
use agentlens_domain::people::roles;
use agentlens_domain::permissions::{Caller, Role};

use super::Control;
use crate::error::StoreError;
use crate::transaction::Tx;
use crate::write::Record;
use crate::{args, row_type};

row_type! {
    /// A member.
    pub struct MemberRow {
        /// The person.
        pub user_id: String,
        /// The address.
        pub email: String,
        /// The name for people.
        pub name: String,
        /// The role.
        pub role: String,
        /// Since when, microseconds UTC.
        pub created_us: i64,
        /// When the account was disabled.
        pub disabled_us: Option<i64>,
        /// Whether a second factor is asked for.
        pub has_second_factor: bool,
        /// When the person was seen last, by any session that there still is.
        pub seen_us: Option<i64>,
    }
}

const MEMBERS: &str = "select m.user_id, u.email, u.name, m.role, m.created_us, u.disabled_us,
       exists (select 1 from user_totp t where t.user_id = m.user_id and t.confirmed_us is not null),
       (select max(s.seen_us) from browser_sessions s where s.user_id = m.user_id)
     from org_members m join users u on u.user_id = m.user_id
     where m.org_id = $1 and u.email_key > $2
     order by u.email_key limit $3";

/// Adds a person to the transaction's org.
pub(super) async fn insert_member(
    tx: &Tx<'_>,
    user: &str,
    role: Role,
    now_us: i64,
) -> Result<(), StoreError> {
    let insert = "insert into org_members (org_id, user_id, role, created_us) values ($1, $2, $3, $4) on conflict do nothing";
    if tx.execute(insert, args![user, role.as_str(), now_us]).await? == 0 {
        return Err(StoreError::Exists("member"));
    }
    Ok(())
}

/// Locks the org, so that what is counted next stays true until the transaction ends.
pub(super) async fn lock_org(tx: &Tx<'_>) -> Result<(), StoreError> {
    let lock = "update orgs set name = name where org_id = $1 and deleted_us is null";
    if tx.execute(lock, args![]).await? == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// The role of a member, while the org is locked.
async fn role_of(tx: &Tx<'_>, user: &UserId) -> Result<Role, StoreError> {
    let find = "select role from org_members where org_id = $1 and user_id = $2";
    let role: String = tx.find(find, args![user.as_str()]).await?.ok_or(StoreError::NotFound)?;
    Role::parse(&role).ok_or(StoreError::NotFound)
}

/// Refuses to leave an org without an owner who can sign in.
async fn keep_an_owner(tx: &Tx<'_>, leaving: &UserId) -> Result<(), StoreError> {
    let others =
        "select count(*) from org_members m join users u on u.user_id = m.user_id and u.disabled_us is null
         where m.org_id = $1 and m.role = 'owner' and m.user_id <> $2";
    let left: i64 = tx.find(others, args![leaving.as_str()]).await?.unwrap_or(0);
    if left == 0 { Err(StoreError::LastOwner) } else { Ok(()) }
}

impl Control {
    /// The role of a person in an org; `None` for someone who is no member.
    pub async fn role_of(&self, org: &OrgId, user: &UserId) -> Result<Option<Role>, StoreError> {
        // By the person's own list: whoever is no member must not take turns to read of the org.
        let orgs = self.orgs_of(user).await?;
        let row = orgs.iter().find(|row| row.org_id == org.as_str());
        Ok(row.and_then(|row| Role::parse(&row.role)))
    }

    /// The members of an org in the order of their addresses, after one.
    pub async fn list_members(
        &self,
        org: &OrgId,
        after_email: &str,
        limit: u32,
    ) -> Result<Vec<MemberRow>, StoreError> {
        self.fetch_of(org, MEMBERS, args![after_email, limit]).await
    }

    /// Gives a member of the caller's org another role. Refused beyond the caller's own rights, and for the last owner.
    pub async fn set_role(&self, caller: &Caller, user: &UserId, role: Role) -> Result<(), StoreError> {
        let (user, by) = (user.clone(), caller.clone());
        self.write(caller, "members.set_role", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let before = role_of(tx, &user).await?;
                if !roles::may_change_role(&by, Some(before), Some(role)) {
                    return Err(StoreError::NotAllowed);
                }
                if before == Role::Owner && role != Role::Owner {
                    keep_an_owner(tx, &user).await?;
                }
                let update = "update org_members set role = $3 where org_id = $1 and user_id = $2";
                tx.execute(update, args![user.as_str(), role.as_str()]).await?;
                let record = Record::of(user.as_str())
                    .before(json!({ "role": before.as_str() }))
                    .after(json!({ "role": role.as_str() }));
                Ok(record.changing(Topic::Members).returning(()))
            })
        })
        .await
    }

    /// Removes a member from the caller's org, who may be the caller. Refused beyond the caller's own rights, and for the last
    /// owner. Keys that the person made are the org's and stay.
    pub async fn remove_member(&self, caller: &Caller, user: &UserId) -> Result<(), StoreError> {
        let (user, by) = (user.clone(), caller.clone());
        let act = if caller.is_person(&user) { "members.leave" } else { "members.remove" };
        self.write(caller, act, move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let before = role_of(tx, &user).await?;
                if !by.is_person(&user) && !roles::may_change_role(&by, Some(before), None) {
                    return Err(StoreError::NotAllowed);
                }
                if before == Role::Owner {
                    keep_an_owner(tx, &user).await?;
                }
                let delete = "delete from org_members where org_id = $1 and user_id = $2";
                tx.execute(delete, args![user.as_str()]).await?;
                let record = Record::of(user.as_str()).before(json!({ "role": before.as_str() }));
                Ok(record.changing(Topic::Members).returning(()))
            })
        })
        .await
    }

    /// Makes another member an owner, and the caller, who is one, an admin.
    pub async fn transfer_org(&self, caller: &Caller, to: &UserId) -> Result<(), StoreError> {
        let (to, by) = (to.clone(), caller.clone());
        self.write(caller, "orgs.transfer", move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let from = by.person().ok_or(StoreError::NotAllowed)?;
                if role_of(tx, from).await? != Role::Owner {
                    return Err(StoreError::NotAllowed);
                }
                role_of(tx, &to).await?;
                let update = "update org_members set role = $3 where org_id = $1 and user_id = $2";
                tx.execute(update, args![to.as_str(), Role::Owner.as_str()]).await?;
                tx.execute(update, args![from.as_str(), Role::Admin.as_str()]).await?;
                keep_an_owner(tx, from).await?;
                let record = Record::of(to.as_str()).before(json!({ "owner": from.as_str() }));
                Ok(record.after(json!({ "owner": to.as_str() })).changing(Topic::Members).returning(()))
            })
        })
        .await
    }
}
