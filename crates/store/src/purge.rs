//! Deleting everything of an org whose deletion can no longer be undone: on PostgreSQL rows in bounded steps, on SQLite the org's file;
//! then people who have no other org, then the control tables; last the receipt is signed.
//!
//! Each step is its own transaction and counts what it deleted in it, so a purge that was cut short is continued by whoever comes next,
//! and its receipt counts every row once. What lies in queues is purged by the caller, who notes it with [`Store::note_purged`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};

use agentlens_domain::ids::OrgId;
use agentlens_domain::time::format_rfc3339;

use crate::control::{ControlPlace, DeletionRow};
use crate::engine::sqlite::SqliteEngine;
use crate::error::StoreError;
use crate::tenant::blocking;
use crate::transaction::Tx;
use crate::{Store, args};

/// Rows of one step.
const ROWS_AT_A_TIME: i64 = 2_000;
/// After this long every node has read of a change, or trusts nothing that it knew.
const UNTIL_EVERY_NODE_KNOWS: Duration = Duration::from_secs(2);

/// The tables of an org's own data. On SQLite they lie in its file.
pub const TENANT_PLACES: [&str; 22] = [
    "events",
    "event_keys",
    "applied_batches",
    "sessions",
    "removals",
    "agents",
    "rollup_hour",
    "rollup_day",
    "rollup_changes",
    "environments",
    "usage_days",
    "ingest_ledger",
    "search_segments",
    "search_shards",
    "dead_letters",
    "price_overrides",
    "spans",
    "traces",
    "ingest_requests",
    "outbox",
    "audit_heads",
    "audit_log",
];

/// The row of an org's counters, which says that it has data: it goes after all others.
pub const LAST_TENANT_PLACE: &str = "org_state";

/// The control tables with rows of one org, each before those that it refers to.
pub const CONTROL_PLACES: [&str; 11] = [
    "api_keys",
    "org_invitations",
    "org_environments",
    "org_plans",
    "org_members",
    "workspaces",
    "outbox_intents",
    "job_runs",
    "control_audit_heads",
    "control_audit_log",
    "orgs",
];

/// Control tables that name orgs and are treated apart: the record of the deletion itself, and news for all nodes, which go last.
pub const OTHER_PLACES: [&str; 2] = ["org_deletions", "changes"];

/// Audit logs, which the application's role can't delete from.
const AUDIT_LOGS: [&str; 2] = ["audit_log", "control_audit_log"];

/// An org that is being purged.
#[derive(Debug, Clone)]
pub struct DuePurge {
    /// The id of the receipt.
    pub receipt_id: String,
    /// The org.
    pub org: OrgId,
}

impl Store {
    /// Orgs to purge now. They can't be undeleted from here on.
    pub async fn begin_purges(&self) -> Result<Vec<DuePurge>, StoreError> {
        let now_us = self.clock().now_us();
        let mut due = Vec::new();
        for row in self.control.due_deletions(now_us).await? {
            let Some(org) = row.org_id.as_deref().and_then(|org| OrgId::parse(org).ok()) else {
                // Everything is deleted; only the receipt is missing.
                if row.purging_us.is_some() {
                    self.finish(&row.receipt_id).await?;
                }
                continue;
            };
            if !row.is_lawful(&self.control.audit) {
                tracing::error!(
                    receipt.id = row.receipt_id,
                    "a deletion of an org was not asked for through the server; nothing is purged"
                );
                continue;
            }
            let receipt = row.receipt_id.clone();
            let begun = self
                .control
                .transact_purge(&org, move |tx| Box::pin(async move { begin(tx, &receipt, now_us).await }));
            if begun.await? {
                due.push(DuePurge { receipt_id: row.receipt_id, org });
            }
        }
        Ok(due)
    }

    /// Notes how much was deleted of an org in a place outside the store.
    pub async fn note_purged(
        &self,
        due: &DuePurge,
        place: &'static str,
        count: i64,
    ) -> Result<(), StoreError> {
        let receipt = due.receipt_id.clone();
        self.control
            .transact_purge(&due.org, move |tx| {
                Box::pin(async move { add_count(tx, &receipt, place, count).await })
            })
            .await
    }

    /// Deletes everything of the org that is in the store, and signs the receipt; returns how many rows that were.
    pub async fn purge(&self, due: &DuePurge) -> Result<u64, StoreError> {
        self.contexts.remove(&due.org);
        let mut deleted = match &self.control.place {
            ControlPlace::Sqlite(engine) => self.purge_file(due, Arc::clone(engine)).await?,
            ControlPlace::Postgres(_) => {
                let mut deleted = 0;
                for place in TENANT_PLACES.into_iter().chain([LAST_TENANT_PLACE]) {
                    deleted += self.purge_place(due, place).await?;
                }
                deleted
            }
        };
        self.purge_people(due).await?;
        deleted += self.purge_mail(due).await?;
        for place in CONTROL_PLACES {
            deleted += self.purge_place(due, place).await?;
        }
        // The news that these people are gone must reach every node before it is deleted too.
        tokio::time::sleep(UNTIL_EVERY_NODE_KNOWS).await;
        self.purge_news(due).await?;
        self.control.forget_deleted_org(&due.receipt_id).await?;
        self.finish(&due.receipt_id).await?;
        Ok(deleted)
    }

    async fn purge_file(&self, due: &DuePurge, engine: Arc<SqliteEngine>) -> Result<u64, StoreError> {
        let (counting, org) = (Arc::clone(&engine), due.org.clone());
        let counts = blocking(move || Ok(counting.count_rows(&org))).await?;
        let deleted = counts.iter().map(|(_, rows)| u64::try_from(*rows).unwrap_or(0)).sum();
        let receipt = due.receipt_id.clone();
        // Counted anew if the file is still there after a crash, so these are set and not added.
        let note = self.control.transact_purge(&due.org, move |tx| {
            Box::pin(async move {
                for (place, rows) in counts {
                    set_count(tx, &receipt, &place, rows).await?;
                }
                Ok(())
            })
        });
        note.await?;
        let org = due.org.clone();
        let files = blocking(move || engine.remove_org(&org)).await?;
        self.note_purged(due, "files", files).await?;
        Ok(deleted)
    }

    /// Deletes the org's rows of a table, in steps.
    async fn purge_place(&self, due: &DuePurge, place: &'static str) -> Result<u64, StoreError> {
        let (mut deleted, is_postgres) = (0, !self.is_embedded());
        loop {
            let receipt = due.receipt_id.clone();
            let step = self.control.transact_purge(&due.org, move |tx| {
                Box::pin(async move {
                    let rows = delete_rows(tx, place, is_postgres).await?;
                    add_count(tx, &receipt, place, rows).await?;
                    Ok(rows)
                })
            });
            let rows = step.await?;
            deleted += u64::try_from(rows).unwrap_or(0);
            if rows == 0 || !is_postgres && !AUDIT_LOGS.contains(&place) {
                return Ok(deleted);
            }
        }
    }

    /// Deletes the people who have no other org, with everything by which they sign in.
    async fn purge_people(&self, due: &DuePurge) -> Result<(), StoreError> {
        let members = "select user_id from org_members where org_id = $1 order by user_id";
        let members: Vec<String> = self.control.fetch_of(&due.org, members, args![]).await?;
        let (is_postgres, now_us) = (!self.is_embedded(), self.clock().now_us());
        for user in members {
            let (receipt, person) = (due.receipt_id.clone(), user);
            let purge = self.control.transact_purge(&due.org, move |tx| {
                Box::pin(async move { purge_person(tx, &receipt, &person, is_postgres, now_us).await })
            });
            purge.await?;
        }
        Ok(())
    }

    /// Deletes what is kept of mail to people whom the org invited, and who are not told more.
    async fn purge_mail(&self, due: &DuePurge) -> Result<u64, StoreError> {
        let receipt = due.receipt_id.clone();
        let purge = self.control.transact_purge(&due.org, move |tx| {
            Box::pin(async move {
                let delete = "delete from mail_outbox where given_up_us is not null and address in (select email from org_invitations where org_id = $1)";
                let rows = tx.execute(delete, args![]).await?;
                add_count(tx, &receipt, "mail_outbox", i64::try_from(rows).unwrap_or(i64::MAX)).await?;
                Ok(rows)
            })
        });
        purge.await
    }

    /// Deletes the news of the org, and of people who are no longer there: also of those whom a run deleted that broke off.
    async fn purge_news(&self, due: &DuePurge) -> Result<(), StoreError> {
        let purge = self.control.transact_purge(&due.org, |tx| {
            Box::pin(async move {
                let of_people = "delete from changes where $1 <> '' and substr(org_id, 1, 5) = 'user_'
                     and not exists (select 1 from users u where u.user_id = changes.org_id)";
                tx.execute(of_people, args![]).await?;
                tx.execute("delete from changes where org_id = $1", args![]).await.map(|_| ())
            })
        });
        purge.await
    }

    /// Leaves nothing in the control file, and signs the receipt. The org's id is forgotten already.
    async fn finish(&self, receipt_id: &str) -> Result<(), StoreError> {
        let control = &self.control;
        if let ControlPlace::Sqlite(engine) = &control.place {
            let engine = Arc::clone(engine);
            blocking(move || engine.scrub_control()).await?;
        }
        let row = control.find_deletion(receipt_id).await?.ok_or(StoreError::NotFound)?;
        let purged_us = self.clock().now_us();
        let counts = control.purge_counts(receipt_id).await?;
        let receipt = receipt_of(&row, &counts, purged_us);
        let jws = control.signing_key().await?.sign(&receipt);
        control.keep_receipt(receipt_id, purged_us, receipt, jws).await
    }
}

/// The text that is signed.
fn receipt_of(row: &DeletionRow, counts: &[(String, i64)], purged_us: i64) -> String {
    let places: Map<String, serde_json::Value> =
        counts.iter().map(|(place, count)| (place.clone(), json!(count))).collect();
    json!({
        "type": "agentlens.org_deletion", "version": 1, "receipt_id": row.receipt_id, "org_sha256": row.org_digest,
        "requested_at": format_rfc3339(row.requested_us),
        "purge_began_at": row.purging_us.map(format_rfc3339), "purged_at": format_rfc3339(purged_us),
        "deleted": places,
    })
    .to_string()
}

/// Returns whether the deletion may go on.
async fn begin(tx: &Tx<'_>, receipt: &str, now_us: i64) -> Result<bool, StoreError> {
    let begin = "update org_deletions set purging_us = coalesce(purging_us, $3)
         where org_id = $1 and receipt_id = $2 and undone_us is null and purged_us is null and undo_until_us <= $3";
    Ok(tx.execute(begin, args![receipt, now_us]).await? > 0)
}

async fn add_count(tx: &Tx<'_>, receipt: &str, place: &str, count: i64) -> Result<(), StoreError> {
    if count == 0 {
        return Ok(());
    }
    let add = "insert into org_deletion_counts (receipt_id, place, row_count) select $2, $3, $4 where $1 <> ''
         on conflict (receipt_id, place) do update set row_count = org_deletion_counts.row_count + excluded.row_count";
    tx.execute(add, args![receipt, place, count]).await.map(|_| ())
}

async fn set_count(tx: &Tx<'_>, receipt: &str, place: &str, count: i64) -> Result<(), StoreError> {
    if count == 0 {
        return Ok(());
    }
    let set =
        "insert into org_deletion_counts (receipt_id, place, row_count) select $2, $3, $4 where $1 <> ''
         on conflict (receipt_id, place) do update set row_count = excluded.row_count";
    tx.execute(set, args![receipt, place, count]).await.map(|_| ())
}

/// Deletes some rows of the transaction's org; returns how many. Names of tables are constants of this module.
async fn delete_rows(tx: &Tx<'_>, place: &str, is_postgres: bool) -> Result<i64, StoreError> {
    if is_postgres && AUDIT_LOGS.contains(&place) {
        let purge = "select purge_audit_log($2, $3) where $1 <> ''";
        return Ok(tx.find::<i64>(purge, args![place, ROWS_AT_A_TIME]).await?.unwrap_or(0));
    }
    let sql = if is_postgres {
        // Places of rows are unique within a partition only, but all rows at them that are the org's are to go anyway.
        format!(
            "delete from {place} where org_id = $1 and ctid = any(array(select ctid from {place} where org_id = $1 limit $2))"
        )
    } else if AUDIT_LOGS.contains(&place) {
        format!(
            "delete from {place} where org_id = $1 and seq in (select seq from {place} where org_id = $1 order by seq limit $2)"
        )
    } else {
        format!("delete from {place} where org_id = $1 and $2 > 0")
    };
    let rows = tx.execute(sql, args![ROWS_AT_A_TIME]).await?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// What belongs to a person, with the place that is counted. `$2` is the person.
const OF_PERSON: [(&str, &str); 8] = [
    ("browser_sessions", "delete from browser_sessions where user_id = $2 and $1 <> ''"),
    ("login_flows", "delete from login_flows where user_id = $2 and $1 <> ''"),
    (
        "mail_tokens",
        "delete from mail_tokens where $1 <> '' and (user_id = $2 or email_key = (select email_key from users where user_id = $2))",
    ),
    ("user_totp", "delete from user_totp where user_id = $2 and $1 <> ''"),
    ("recovery_codes", "delete from recovery_codes where user_id = $2 and $1 <> ''"),
    ("user_identities", "delete from user_identities where user_id = $2 and $1 <> ''"),
    (
        "mail_outbox",
        "delete from mail_outbox where $1 <> '' and address = (select email from users where user_id = $2)",
    ),
    ("org_members", "delete from org_members where org_id = $1 and user_id = $2"),
];

/// Deletes a person who has no other org; returns whether that was so.
async fn purge_person(
    tx: &Tx<'_>,
    receipt: &str,
    user: &str,
    is_postgres: bool,
    now_us: i64,
) -> Result<bool, StoreError> {
    // Someone who is joining another org refers to this row: one of the two fails, or sees the other.
    tx.execute("update users set name = name where user_id = $2 and $1 <> ''", args![user]).await?;
    let others = if is_postgres {
        "select other_orgs_of_user($2, $1)"
    } else {
        "select count(*) from org_members where user_id = $2 and org_id <> $1"
    };
    if tx.find::<i64>(others, args![user]).await?.unwrap_or(0) > 0 {
        return Ok(false);
    }
    for (place, delete) in OF_PERSON {
        let rows = tx.execute(delete, args![user]).await?;
        add_count(tx, receipt, place, i64::try_from(rows).unwrap_or(i64::MAX)).await?;
    }
    let rows = tx.execute("delete from users where user_id = $2 and $1 <> ''", args![user]).await?;
    add_count(tx, receipt, "users", i64::try_from(rows).unwrap_or(i64::MAX)).await?;
    if is_postgres {
        // Row security shows the log of the person's own acts under the person's id.
        let scope = "select set_config('app.current_org', $2, true) where $1 <> ''";
        tx.fetch::<String>(scope, args![user]).await?;
    }
    loop {
        let rows = if is_postgres {
            let purge = "select purge_audit_log('control_audit_log', $2) where $1 <> ''";
            tx.find::<i64>(purge, args![ROWS_AT_A_TIME]).await?.unwrap_or(0)
        } else {
            let delete = "delete from control_audit_log where org_id = $2 and $1 <> ''";
            i64::try_from(tx.execute(delete, args![user]).await?).unwrap_or(i64::MAX)
        };
        if rows == 0 {
            break;
        }
        add_count(tx, receipt, "control_audit_log", rows).await?;
    }
    tx.execute("delete from control_audit_heads where org_id = $2 and $1 <> ''", args![user]).await?;
    crate::control::append_change_of_person(tx, user, now_us).await?;
    Ok(true)
}
