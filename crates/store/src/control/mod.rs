//! Orgs, workspaces, people, keys and settings: everything that is not tenant data.

mod changes;
mod deletions;
mod first_start;
mod intents;
mod invitations;
mod jobs;
mod keys;
mod members;
mod orgs;
mod people;
mod settings;
mod signing_keys;
mod workspaces;

use std::sync::Arc;

pub use changes::Change;
pub(crate) use changes::{append_change, append_change_of_person};
pub use deletions::{DeletedOrgRow, DeletionRow, NewDeletion};
pub use first_start::FirstStart;
pub use invitations::{Accepting, InvitationRow, NewInvitation};
pub(crate) use jobs::OrgBehind;
pub use jobs::{DueRun, JobSummary, RunResult};
pub use keys::{KeyRow, NewKey, NewSecret};
pub use members::MemberRow;
pub use orgs::{NewOrg, OrgRow};
pub use people::{
    BrowserSessionRow, IdentityRow, MailPurpose, MailRow, MailTokenRow, NewBrowserSession, NewIdentity,
    NewMail, NewMailToken, NewPerson, PersonRow, PersonsOrgRow, TotpRow, org_ids,
};
pub use workspaces::WorkspaceRow;

use agentlens_domain::audit::AuditKey;
use agentlens_domain::chain::SealKey;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::OrgId;
use agentlens_domain::sealed_box::SecretBox;

use crate::engine::postgres::PostgresEngine;
use crate::engine::sqlite::{self, SqliteEngine};
use crate::error::StoreError;
use crate::row_scope::RowScope;
use crate::statement::{FromRow, Value};
use crate::tenant::blocking;

#[derive(Clone)]
pub(crate) enum ControlPlace {
    Sqlite(Arc<SqliteEngine>),
    Postgres(Arc<PostgresEngine>),
}

/// The handle of the control tables.
#[derive(Clone)]
pub struct Control {
    pub(crate) place: ControlPlace,
    pub(crate) clock: Clock,
    /// Seals entries of audit logs.
    pub(crate) audit: Arc<AuditKey>,
    /// Seals rows and events of orgs.
    pub(crate) seals: SealKey,
    /// Encrypts what waits to be mailed.
    pub(crate) secrets: SecretBox,
}

impl Control {
    /// Whether the data of all orgs lie in the database of the control tables.
    fn is_shared(&self) -> bool {
        matches!(self.place, ControlPlace::Postgres(_))
    }

    /// Runs a reading statement on what belongs to no org, or to all.
    async fn fetch<T: FromRow>(&self, sql: &'static str, args: Vec<Value>) -> Result<Vec<T>, StoreError> {
        self.query(None, sql, args).await
    }

    /// Runs a reading statement on what belongs to one org, which is `$1`; `args` begin at `$2`.
    pub(crate) async fn fetch_of<T: FromRow>(
        &self,
        org: &OrgId,
        sql: &'static str,
        mut args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        args.insert(0, Value::from(org.as_str()));
        self.query(Some(RowScope::Control(org)), sql, args).await
    }

    async fn query<T: FromRow>(
        &self,
        scope: Option<RowScope<'_>>,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = match &self.place {
            ControlPlace::Sqlite(engine) => {
                let file = Arc::clone(engine.control());
                blocking(move || file.read(|connection| sqlite::query(connection, sql, &args))).await?
            }
            ControlPlace::Postgres(engine) => engine.query(scope, sql, &args).await?,
        };
        rows.iter().map(T::from_row).collect()
    }

    async fn find<T: FromRow>(&self, sql: &'static str, args: Vec<Value>) -> Result<Option<T>, StoreError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    async fn execute_all(&self, statements: Vec<(&'static str, Vec<Value>)>) -> Result<Vec<u64>, StoreError> {
        let statements: Vec<_> = statements.into_iter().map(|(sql, args)| (sql.to_owned(), args)).collect();
        match &self.place {
            ControlPlace::Sqlite(engine) => {
                let file = Arc::clone(engine.control());
                blocking(move || file.write(|connection| sqlite::execute_all(connection, &statements))).await
            }
            ControlPlace::Postgres(engine) => engine.execute_all(None, &statements).await,
        }
    }

    /// Whether the control tables answer, and the files of the embedded store are where they were.
    pub async fn ping(&self) -> Result<(), StoreError> {
        if let ControlPlace::Sqlite(engine) = &self.place {
            let engine = Arc::clone(engine);
            blocking(move || engine.check_places()).await?;
        }
        self.fetch::<i64>("select count(*) from settings", vec![]).await.map(|_| ())
    }
}
