//! The door for every change that isn't ingest.
//!
//! [`Org::write`] and [`Control::write`] run work in one transaction and add to it, in the same database, the entry of the
//! audit log and the news of what changed. A change of an org's own data lies in another database than the change feed
//! (a file of its own, on SQLite), so its news goes through the org's outbox. An intent that is noted before shows the job
//! that delivers outboxes where to look if the process dies between the two commits.

use std::sync::Arc;

use serde_json::Value as Json;

use agentlens_domain::apply::OrgState;
use agentlens_domain::audit::{AuditEntry, AuditSeal};
use agentlens_domain::changes::Topic;
use agentlens_domain::ids::UserId;
use agentlens_domain::permissions::{Actor, Caller, Role};

use crate::args;
use crate::audit::{AuditTables, CONTROL_AUDIT, TENANT_AUDIT, append};
use crate::control::{Control, append_change};
use crate::error::StoreError;
use crate::outbox;
use crate::tenant::{Org, lock_state, put_state};
use crate::transaction::{Tx, Work};

/// The act of signing in, by which a session begins.
const SIGN_IN: &str = "sessions.create";

/// The result of a change, with what the audit log says about it. There is no other way out of a write, so none can be
/// forgotten.
pub(crate) struct Audited<T> {
    value: T,
    record: Option<Record>,
}

/// What the audit log says about a change.
#[derive(Debug)]
pub(crate) struct Record {
    target: String,
    before: Option<Json>,
    after: Option<Json>,
    topic: Option<Topic>,
}

impl Record {
    /// Begins with the id of what changed.
    pub(crate) fn of(target: impl Into<String>) -> Self {
        Self { target: target.into(), before: None, after: None, topic: None }
    }

    /// What was there before. It is made for the log, never a whole row.
    pub(crate) fn before(self, before: Json) -> Self {
        Self { before: Some(before), ..self }
    }

    /// What is there now.
    pub(crate) fn after(self, after: Json) -> Self {
        Self { after: Some(after), ..self }
    }

    /// Says to every node what it must read again.
    pub(crate) fn changing(self, topic: Topic) -> Self {
        Self { topic: Some(topic), ..self }
    }

    /// The record with the value that the write returns.
    pub(crate) fn returning<T>(self, value: T) -> Audited<T> {
        Audited { value, record: Some(self) }
    }

    fn details(&self) -> String {
        let mut details = serde_json::Map::new();
        details.extend(self.before.clone().map(|before| ("before".to_owned(), before)));
        details.extend(self.after.clone().map(|after| ("after".to_owned(), after)));
        Json::Object(details).to_string()
    }
}

impl<T> Audited<T> {
    /// Nothing changed, so nothing is logged.
    pub(crate) fn unchanged(value: T) -> Self {
        Self { value, record: None }
    }
}

impl Control {
    /// Changes control tables on behalf of a caller, in the caller's org. `act` is a noun and a verb, such as `keys.revoke`.
    pub(crate) async fn write<T, F>(
        &self,
        caller: &Caller,
        act: &'static str,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, Audited<T>> + Send + 'static,
    {
        let stamp = Stamp::of(self, caller, act, &CONTROL_AUDIT);
        let by = caller.clone();
        self.transact(&caller.org, move |tx| {
            Box::pin(async move {
                if act != SIGN_IN {
                    confirm(tx, &by).await?;
                }
                let Audited { value, record } = work(tx).await?;
                let Some(record) = record else { return Ok(value) };
                stamp.append(tx, &record).await?;
                if let Some(topic) = record.topic {
                    append_change(tx, topic, stamp.at_us).await?;
                }
                Ok(value)
            })
        })
        .await
    }
}

/// Refuses a caller who was let in and has lost the right since: a request may be long under way. Whoever has no session yet, and
/// the server itself, is taken as given.
async fn confirm(tx: &Tx<'_>, caller: &Caller) -> Result<(), StoreError> {
    let is_still = match &caller.actor {
        Actor::Person { user_id, role } => {
            is_signed_in(tx, user_id, caller.origin.session_id.as_deref()).await?
                && (caller.workspace.is_none() || has_role(tx, user_id, *role).await?)
        }
        Actor::Key { key_id, .. } => {
            let valid =
                "select count(*) from api_keys where org_id = $1 and key_id = $2 and revoked_us is null";
            tx.find(valid, args![key_id.as_str()]).await? == Some(1_i64)
        }
        Actor::Service { .. } => true,
    };
    if is_still { Ok(()) } else { Err(StoreError::NotAllowed) }
}

/// Whether a session has not ended. Sign-in notes its session's id before there is one; `sessions.create` is not confirmed.
async fn is_signed_in(tx: &Tx<'_>, user: &UserId, session: Option<&str>) -> Result<bool, StoreError> {
    let Some(session) = session else { return Ok(true) };
    let find = "select count(*) from browser_sessions where session_id = $2 and user_id = $3 and $1 <> ''";
    Ok(tx.find(find, args![session, user.as_str()]).await? == Some(1_i64))
}

/// Whether a member still has the role that the caller came with. A caller who names a workspace acts as a member.
async fn has_role(tx: &Tx<'_>, user: &UserId, role: Role) -> Result<bool, StoreError> {
    let find = "select count(*) from org_members where org_id = $1 and user_id = $2 and role = $3";
    Ok(tx.find(find, args![user.as_str(), role.as_str()]).await? == Some(1_i64))
}

impl Org {
    /// Changes the org's own data on behalf of a caller of this org. `act` is a noun and a verb, such as `prices.set`.
    pub(crate) async fn write<T, F>(
        &self,
        caller: &Caller,
        act: &'static str,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Tx<'_>) -> Work<'t, Audited<T>> + Send + 'static,
    {
        if caller.org != *self.id() {
            return Err(StoreError::NotFound);
        }
        let stamp = Stamp::of(&self.control, caller, act, &TENANT_AUDIT);
        let (at_us, context) = (stamp.at_us, self.context());
        let intent = self.control.note_intent(self.id(), at_us).await?;
        let value = self
            .transact(move |tx| {
                Box::pin(async move {
                    let Audited { value, record } = work(tx).await?;
                    let Some(record) = record else { return Ok(value) };
                    // The number of entries is sealed with the org's counters, so that a log that is emptied is missed. Everyone
                    // locks those before the log.
                    let state = lock_state(tx, &context).await?;
                    stamp.append(tx, &record).await?;
                    put_state(tx, &context, OrgState { audit_seq: state.audit_seq + 1, ..state }).await?;
                    if let Some(topic) = record.topic {
                        outbox::append(tx, outbox::CHANGE, topic.as_str(), at_us).await?;
                    }
                    Ok(value)
                })
            })
            .await;
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                // Unless the commit may have been made nevertheless, there is nothing to deliver.
                if !error.is_transient() {
                    let _ = self.control.delete_intent(&intent).await;
                }
                return Err(error);
            }
        };
        // The change is made. If its news can't be delivered now, the intent stays and the job tries again.
        let is_delivered = self.outbox().deliver(&outbox::Targets::of(&self.control), at_us).await;
        if is_delivered.is_ok_and(|delivery| delivery.waiting == 0) {
            let _ = self.control.delete_intent(&intent).await;
        }
        Ok(value)
    }
}

/// What is known of an entry before the work is done.
struct Stamp {
    at_us: i64,
    actor: String,
    workspace: Option<String>,
    origin: String,
    act: &'static str,
    key: Arc<agentlens_domain::audit::AuditKey>,
    chain: String,
    tables: &'static AuditTables,
}

impl Stamp {
    fn of(control: &Control, caller: &Caller, act: &'static str, tables: &'static AuditTables) -> Self {
        Self {
            at_us: control.clock.now_us(),
            actor: caller.actor_name(),
            workspace: caller.workspace.as_ref().map(ToString::to_string),
            origin: serde_json::to_string(&caller.origin).unwrap_or_default(),
            act,
            key: Arc::clone(&control.audit),
            chain: tables.chain(&caller.org),
            tables,
        }
    }

    async fn append(&self, tx: &Tx<'_>, record: &Record) -> Result<AuditSeal, StoreError> {
        let entry = AuditEntry {
            seq: 0,
            at_us: self.at_us,
            actor: self.actor.clone(),
            workspace: self.workspace.clone(),
            origin: self.origin.clone(),
            act: self.act.to_owned(),
            target: record.target.clone(),
            details: record.details(),
        };
        append(tx, &self.key, self.tables, &self.chain, entry).await
    }
}
