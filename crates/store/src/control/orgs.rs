//! Orgs and their workspaces.

use std::sync::Arc;

use serde_json::json;

use agentlens_domain::apply::OrgState;
use agentlens_domain::changes::Topic;
use agentlens_domain::ids::{OrgId, UserId};
use agentlens_domain::permissions::{Caller, Role};

use super::keys::{INSERT_KEY, NewKey};
use super::members::insert_member;
use super::{Control, ControlPlace};
use crate::error::StoreError;
use crate::tenant::{INSERT_STATE, blocking};
use crate::transaction::Tx;
use crate::write::{Audited, Record};
use crate::{args, row_type};

row_type! {
    /// An org.
    pub struct OrgRow {
        /// Its id.
        pub org_id: String,
        /// Its name for people.
        pub name: String,
        /// `pool` (shared database) or `silo` (one of its own).
        pub placement: String,
        /// How long events are kept; null for ever.
        pub retention_days: Option<i32>,
        /// When it was made, microseconds UTC.
        pub created_us: i64,
    }
}

row_type! {
    struct Position {
        pub org_id: String,
        pub last_position: i64,
    }
}

/// An org about to be stored. Its id is that of the caller.
#[derive(Debug)]
pub struct NewOrg {
    /// Its name for people.
    pub name: String,
    /// How long its events are kept; `None` for ever.
    pub retention_days: Option<i32>,
}

/// The owner of an org that is made.
struct Owner {
    user_id: String,
    /// How many orgs the person may own.
    limit: Option<i64>,
    /// The statement that counts them.
    count: &'static str,
}

impl Owner {
    async fn join(&self, tx: &Tx<'_>, now_us: i64) -> Result<(), StoreError> {
        if let Some(limit) = self.limit {
            // Two orgs that are made at once would both see room for one more: the person's row is locked first.
            let lock = "update users set name = name where user_id = $2 and $1 <> ''";
            tx.execute(lock, args![&self.user_id]).await?;
            let owned: i64 = tx.find(self.count, args![&self.user_id]).await?.unwrap_or(0);
            if owned >= limit {
                return Err(StoreError::LimitReached(format!(
                    "you own {owned} orgs, which is the limit ({limit})"
                )));
            }
        }
        insert_member(tx, &self.user_id, Role::Owner, now_us).await
    }
}

impl Control {
    /// Makes the caller's org, with its default workspace and, if given, its first key: all of it or nothing.
    pub async fn create_org(
        &self,
        caller: &Caller,
        org: NewOrg,
        first_key: Option<NewKey>,
    ) -> Result<(), StoreError> {
        if self.make_org(caller, org, first_key, None).await? {
            Ok(())
        } else {
            Err(StoreError::Exists("org"))
        }
    }

    /// Makes the caller's org, which a person owns; refused where the person owns `limit` orgs.
    pub async fn create_org_of(
        &self,
        caller: &Caller,
        name: &str,
        owner: &UserId,
        limit: Option<i64>,
    ) -> Result<(), StoreError> {
        let org = NewOrg { name: name.to_owned(), retention_days: None };
        // Row security shows the application's role members of one org only, so this is asked of the function of the owner.
        let count = match self.place {
            ControlPlace::Sqlite(_) => {
                "select count(*) from org_members m join orgs o on o.org_id = m.org_id and o.deleted_us is null
                 where m.user_id = $2 and m.role = 'owner' and $1 <> ''"
            }
            ControlPlace::Postgres(_) => "select count(*) from orgs_of_user($2) where role = 'owner' and $1 <> ''",
        };
        // Looked at before, too: what is made of an org before its transaction would be left behind by a refusal.
        if let Some(limit) = limit {
            let owned =
                self.orgs_of(owner).await?.iter().filter(|org| org.role == Role::Owner.as_str()).count();
            if i64::try_from(owned).unwrap_or(i64::MAX) >= limit {
                return Err(StoreError::LimitReached(format!(
                    "you own {owned} orgs, which is the limit ({limit})"
                )));
            }
        }
        let owner = Some(Owner { user_id: owner.to_string(), limit, count });
        if self.make_org(caller, org, None, owner).await? { Ok(()) } else { Err(StoreError::Exists("org")) }
    }

    /// Gives the caller's org another name.
    pub async fn rename_org(&self, caller: &Caller, name: &str) -> Result<(), StoreError> {
        let (org, name) = (caller.org.to_string(), name.to_owned());
        self.write(caller, "orgs.rename", move |tx| {
            Box::pin(async move {
                let find = "select name from orgs where org_id = $1 and deleted_us is null";
                let before: String = tx.find(find, args![]).await?.ok_or(StoreError::NotFound)?;
                tx.execute("update orgs set name = $2 where org_id = $1", args![&name]).await?;
                let record = Record::of(org).before(json!({ "name": before })).after(json!({ "name": name }));
                Ok(record.changing(Topic::Org).returning(()))
            })
        })
        .await
    }

    /// Makes the caller's org unless it is there.
    pub async fn ensure_org(&self, caller: &Caller, name: &str) -> Result<(), StoreError> {
        if self.find_org(&caller.org).await?.is_some() {
            return Ok(());
        }
        let org = NewOrg { name: name.to_owned(), retention_days: None };
        self.make_org(caller, org, None, None).await.map(|_| ())
    }

    /// Returns whether the org was made.
    async fn make_org(
        &self,
        caller: &Caller,
        org: NewOrg,
        first_key: Option<NewKey>,
        owner: Option<Owner>,
    ) -> Result<bool, StoreError> {
        let state_seal = OrgState::default().seal(&caller.org, &self.seals);
        // The file comes first: an org without its file has lost its data, and must never look like that when it is new.
        if let ControlPlace::Sqlite(engine) = &self.place
            && self.find_org(&caller.org).await?.is_none()
        {
            let (engine, org, seal) = (Arc::clone(engine), caller.org.clone(), state_seal);
            blocking(move || engine.create_org(&org, &seal)).await?;
        }
        let (id, now_us, is_shared) = (caller.org.to_string(), self.clock.now_us(), self.is_shared());
        self.write(caller, "orgs.create", move |tx| {
            Box::pin(async move {
                let insert = "insert into orgs (org_id, name, retention_days, created_us) values ($1, $2, $3, $4) on conflict do nothing";
                if tx.execute(insert, args![&org.name, org.retention_days, now_us]).await? == 0 {
                    return Ok(Audited::unchanged(false));
                }
                if is_shared {
                    tx.execute(INSERT_STATE, args![state_seal]).await?;
                }
                let workspace = "insert into workspaces (org_id, workspace_id, name, created_us) values ($1, 'default', 'Default', $2)";
                tx.execute(workspace, args![now_us]).await?;
                if let Some(key) = &first_key {
                    tx.execute(INSERT_KEY, key.args(now_us)).await?;
                }
                let owner_id = owner.as_ref().map(|owner| owner.user_id.clone());
                if let Some(owner) = owner {
                    owner.join(tx, now_us).await?;
                }
                let key_id = first_key.map(|key| key.key_id);
                let after = json!({ "name": org.name, "retention_days": org.retention_days, "key_id": key_id, "owner": owner_id });
                Ok(Record::of(id).after(after).changing(Topic::Members).returning(true))
            })
        })
        .await
    }

    /// Orgs that bear a name.
    pub async fn find_orgs_named(&self, name: &str) -> Result<Vec<OrgRow>, StoreError> {
        self.fetch("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null and name = $1 order by org_id", args![name]).await
    }

    /// The positions of the last stored events of orgs. The function belongs to the owner: row security shows the
    /// application's role the state of one org at a time, and positions say nothing but that something was stored.
    pub(crate) async fn last_positions(&self, orgs: &[OrgId]) -> Result<Vec<(OrgId, i64)>, StoreError> {
        let names: Vec<String> = orgs.iter().map(ToString::to_string).collect();
        let rows: Vec<Position> =
            self.fetch("select org_id, last_position from last_positions($1)", args![names]).await?;
        let read = |row: Position| Some((OrgId::parse(&row.org_id).ok()?, row.last_position));
        Ok(rows.into_iter().filter_map(read).collect())
    }

    /// One org.
    pub async fn find_org(&self, org: &OrgId) -> Result<Option<OrgRow>, StoreError> {
        self.find("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null and org_id = $1", args![org.as_str()]).await
    }

    /// All orgs, in the order of their ids.
    pub async fn list_orgs(&self) -> Result<Vec<OrgRow>, StoreError> {
        self.fetch("select org_id, name, placement, retention_days, created_us from orgs where deleted_us is null order by org_id", args![]).await
    }

    /// Ids of the orgs that are marked as deleted.
    pub(crate) async fn deleted_orgs(&self) -> Result<Vec<String>, StoreError> {
        self.fetch("select org_id from orgs where deleted_us is not null order by org_id", args![]).await
    }

    /// How much of an org was deleted so far, by place.
    pub(crate) async fn purge_counts(&self, receipt_id: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select place, row_count from org_deletion_counts where receipt_id = $1 order by place";
        let rows: Vec<crate::statement::Row> = self.fetch(sql, args![receipt_id]).await?;
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }

    /// Ids of all orgs that have a row of counters in the shared database.
    pub(crate) async fn stored_orgs(&self) -> Result<Vec<String>, StoreError> {
        self.fetch("select org_id from stored_orgs() order by org_id", args![]).await
    }

    /// Sets how long the caller's org keeps events; `None` for ever. Events that are stored already keep their day of expiry.
    pub async fn set_retention(&self, caller: &Caller, days: Option<i32>) -> Result<(), StoreError> {
        let org = caller.org.to_string();
        self.write(caller, "orgs.set_retention", move |tx| {
            Box::pin(async move {
                let find =
                    "select coalesce(retention_days, 0) from orgs where org_id = $1 and deleted_us is null";
                let before = tx.find::<i64>(find, args![]).await?.ok_or(StoreError::NotFound)?;
                tx.execute("update orgs set retention_days = $2 where org_id = $1", args![days]).await?;
                let record = Record::of(org)
                    .before(json!({ "retention_days": (before != 0).then_some(before) }))
                    .after(json!({ "retention_days": days }));
                Ok(record.changing(Topic::Org).returning(()))
            })
        })
        .await
    }
}
