//! Deletions of orgs as owners ask for them and undo them, and orgs that operators suspend. What is deleted, and in which order,
//! is in [`crate::purge`].

use serde_json::json;

use agentlens_domain::audit::{AuditKey, AuditSeal, NO_AUDIT_SEAL};
use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, UserId};
use agentlens_domain::permissions::{Caller, Role};
use agentlens_domain::signing;

use super::members::lock_org;
use super::people::NewMail;
use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::write::{Audited, Record};
use crate::{args, row_type};

row_type! {
    /// A deletion of an org.
    pub struct DeletionRow {
        /// The id of its receipt.
        pub receipt_id: String,
        /// The org, as long as anything of it is there.
        pub org_id: Option<String>,
        /// What stays of the org's id.
        pub org_digest: String,
        /// When an owner asked for it, microseconds UTC.
        pub requested_us: i64,
        /// Until when it can be undone.
        pub undo_until_us: i64,
        /// When it was undone.
        pub undone_us: Option<i64>,
        /// When the purge began.
        pub purging_us: Option<i64>,
        /// When everything was deleted.
        pub purged_us: Option<i64>,
        /// The receipt, as JSON.
        pub receipt: Option<String>,
        /// The receipt as it was signed.
        pub jws: Option<String>,
        /// The seal of the request.
        pub seal: AuditSeal,
    }
}

macro_rules! deletion_columns {
    () => {
        "receipt_id, org_id, org_digest, requested_us, undo_until_us, undone_us, purging_us, purged_us, receipt, jws, seal"
    };
}

row_type! {
    /// An org that is being deleted, as one of its members sees it.
    pub struct DeletedOrgRow {
        /// The org.
        pub org_id: String,
        /// Its name.
        pub name: String,
        /// The person's role in it.
        pub role: String,
        /// Since when the person is a member, microseconds UTC.
        pub created_us: i64,
        /// Until when the deletion can be undone.
        pub undo_until_us: i64,
    }
}

/// A deletion about to be asked for.
#[derive(Debug)]
pub struct NewDeletion {
    /// The id of its receipt.
    pub receipt_id: String,
    /// Until when it can be undone, microseconds UTC.
    pub undo_until_us: i64,
    /// What the owners are told.
    pub mails: Vec<NewMail>,
}

/// What a receipt says instead of an org's id: who knows the id can compare it.
pub(crate) fn org_digest(org: &OrgId) -> String {
    signing::digest(&format!("agentlens org {org}"))
}

impl DeletionRow {
    /// Whether the request is as it was made through the server.
    pub(crate) fn is_lawful(&self, key: &AuditKey) -> bool {
        let digest =
            self.org_id.as_deref().and_then(|org| OrgId::parse(org).ok()).map(|org| org_digest(&org));
        digest.is_none_or(|digest| digest == self.org_digest)
            && seal(key, &self.receipt_id, &self.org_digest, (self.requested_us, self.undo_until_us))
                == self.seal
    }
}

fn seal(
    key: &AuditKey,
    receipt_id: &str,
    org_digest: &str,
    (requested_us, undo_until_us): (i64, i64),
) -> AuditSeal {
    key.seal_head(
        &format!("org deletion/{receipt_id}/{org_digest}/{undo_until_us}"),
        requested_us,
        &NO_AUDIT_SEAL,
    )
}

impl Control {
    /// Deletes the caller's org, if that is its name: from now on it counts as not there, until this is undone or everything is purged.
    pub async fn delete_org(
        &self,
        caller: &Caller,
        name: &str,
        deletion: NewDeletion,
    ) -> Result<(), StoreError> {
        let (org, name, now_us) = (caller.org.clone(), name.to_owned(), self.clock.now_us());
        let mails: Vec<NewMail> = deletion.mails.iter().map(|mail| self.sealed(mail.clone())).collect();
        let digest = org_digest(&org);
        let times = (now_us, deletion.undo_until_us);
        let seal = seal(&self.audit, &deletion.receipt_id, &digest, times);
        self.write(caller, "orgs.delete", move |tx| {
            Box::pin(async move {
                let mark = "update orgs set deleted_us = $2 where org_id = $1 and deleted_us is null and name = $3";
                if tx.execute(mark, args![now_us, &name]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                let insert = "insert into org_deletions (org_id, receipt_id, org_digest, requested_us, undo_until_us, seal) values ($1, $2, $3, $4, $5, $6)";
                let NewDeletion { receipt_id, undo_until_us, .. } = deletion;
                tx.execute(insert, args![&receipt_id, digest, now_us, undo_until_us, &seal]).await?;
                for mail in mails {
                    mail.insert(tx, now_us).await?;
                }
                let after = json!({ "receipt_id": receipt_id, "undo_until_us": undo_until_us });
                Ok(Record::of(org.as_str()).after(after).changing(Topic::Org).returning(()))
            })
        })
        .await
    }

    /// Undoes the deletion of the caller's org; [`StoreError::NotFound`] if none can be undone.
    pub async fn undelete_org(&self, caller: &Caller, mails: Vec<NewMail>) -> Result<(), StoreError> {
        let (org, now_us) = (caller.org.clone(), self.clock.now_us());
        let mails: Vec<NewMail> = mails.into_iter().map(|mail| self.sealed(mail)).collect();
        self.write(caller, "orgs.undelete", move |tx| {
            Box::pin(async move {
                let undo = "update org_deletions set undone_us = $2 where org_id = $1 and undone_us is null and purging_us is null and undo_until_us > $2";
                if tx.execute(undo, args![now_us]).await? == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.execute("update orgs set deleted_us = null where org_id = $1", args![]).await?;
                for mail in mails {
                    mail.insert(tx, now_us).await?;
                }
                Ok(Record::of(org.as_str()).changing(Topic::Org).returning(()))
            })
        })
        .await
    }

    /// The orgs of a person that are being deleted, by name.
    pub async fn deleted_orgs_of(&self, user: &UserId) -> Result<Vec<DeletedOrgRow>, StoreError> {
        let sql = match self.place {
            ControlPlace::Sqlite(_) => {
                "select m.org_id, o.name, m.role, m.created_us, d.undo_until_us
                 from org_members m
                 join orgs o on o.org_id = m.org_id and o.deleted_us is not null
                 join org_deletions d on d.org_id = m.org_id and d.undone_us is null
                 where m.user_id = $1 order by o.name, m.org_id"
            }
            ControlPlace::Postgres(_) => {
                "select org_id, name, role, created_us, undo_until_us from deleted_orgs_of_user($1)"
            }
        };
        self.fetch(sql, args![user.as_str()]).await
    }

    /// The name of an org, and the role of a person in it, whether it is being deleted or not.
    pub async fn role_in_any_org(
        &self,
        org: &OrgId,
        user: &UserId,
    ) -> Result<Option<(String, Role)>, StoreError> {
        let sql = "select o.name, m.role from org_members m join orgs o on o.org_id = m.org_id where m.org_id = $1 and m.user_id = $2";
        let rows: Vec<crate::statement::Row> = self.fetch_of(org, sql, args![user.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (name, role): (String, String) = (row.get(0)?, row.get(1)?);
        Ok(Role::parse(&role).map(|role| (name, role)))
    }

    /// Whether an owner asked to delete this org and it is not purged: that may be undone, so what waits for it is kept, and only the
    /// purge removes it.
    pub async fn is_being_deleted(&self, org: &OrgId) -> Result<bool, StoreError> {
        let sql = "select count(*) from org_deletions where org_id = $1 and undone_us is null";
        Ok(self.find::<i64>(sql, args![org.as_str()]).await?.unwrap_or(0) > 0)
    }

    /// Whether this org is being deleted, or was.
    pub async fn was_deleted(&self, org: &OrgId) -> Result<bool, StoreError> {
        let sql = "select count(*) from org_deletions where org_digest = $1 and undone_us is null";
        Ok(self.find::<i64>(sql, args![org_digest(org)]).await?.unwrap_or(0) > 0)
    }

    /// All deletions, the newest first.
    pub async fn list_deletions(&self) -> Result<Vec<DeletionRow>, StoreError> {
        self.fetch(
            concat!(
                "select ",
                deletion_columns!(),
                " from org_deletions order by requested_us desc, receipt_id"
            ),
            args![],
        )
        .await
    }

    /// One deletion.
    pub async fn find_deletion(&self, receipt_id: &str) -> Result<Option<DeletionRow>, StoreError> {
        self.find(
            concat!("select ", deletion_columns!(), " from org_deletions where receipt_id = $1"),
            args![receipt_id],
        )
        .await
    }

    /// Deletions that can no longer be undone and are not done.
    pub(crate) async fn due_deletions(&self, now_us: i64) -> Result<Vec<DeletionRow>, StoreError> {
        self.fetch(
            concat!(
                "select ",
                deletion_columns!(),
                " from org_deletions where undone_us is null and purged_us is null and undo_until_us <= $1 order by requested_us, receipt_id"
            ),
            args![now_us],
        )
        .await
    }

    /// Forgets the id of an org of which everything is deleted.
    pub(crate) async fn forget_deleted_org(&self, receipt_id: &str) -> Result<(), StoreError> {
        let forget =
            "update org_deletions set org_id = null where receipt_id = $1 and purging_us is not null";
        self.execute_all(vec![(forget, args![receipt_id])]).await.map(|_| ())
    }

    /// Keeps a signed receipt.
    pub(crate) async fn keep_receipt(
        &self,
        receipt_id: &str,
        purged_us: i64,
        receipt: String,
        jws: String,
    ) -> Result<(), StoreError> {
        let keep = "update org_deletions set purged_us = $2, receipt = $3, jws = $4 where receipt_id = $1 and purged_us is null";
        self.execute_all(vec![(keep, args![receipt_id, purged_us, receipt, jws])]).await.map(|_| ())
    }

    /// Suspends the caller's org, or lets it go on. Its data are kept; its keys and members are refused.
    pub async fn set_suspended(&self, caller: &Caller, is_suspended: bool) -> Result<(), StoreError> {
        let (org, now_us) = (caller.org.to_string(), self.clock.now_us());
        let act = if is_suspended { "orgs.suspend" } else { "orgs.resume" };
        self.write(caller, act, move |tx| {
            Box::pin(async move {
                lock_org(tx).await?;
                let set = "update orgs set suspended_us = $2 where org_id = $1 and (suspended_us is null) = (cast($2 as bigint) is not null)";
                if tx.execute(set, args![is_suspended.then_some(now_us)]).await? == 0 {
                    return Ok(Audited::unchanged(()));
                }
                Ok(Record::of(org).changing(Topic::Org).returning(()))
            })
        })
        .await
    }

    /// Whether an org is suspended.
    pub async fn is_suspended(&self, org: &OrgId) -> Result<bool, StoreError> {
        let sql = "select count(*) from orgs where org_id = $1 and suspended_us is not null";
        Ok(self.find::<i64>(sql, args![org.as_str()]).await?.unwrap_or(0) > 0)
    }
}
