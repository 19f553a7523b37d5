//! Data at rest: [`Control`] (orgs, people, keys), [`Org`] (everything that belongs to one org) and [`Workspace`] (to one of its
//! workspaces), on SQLite and PostgreSQL. One SQL text serves both engines; what truly differs lies in `engine/`.

mod audit;
mod control;
mod directory;
mod engine;
mod error;
mod feed;
mod outbox;
mod purge;
mod row_scope;
mod schema;
pub mod statement;
mod table;
mod tenant;
mod transaction;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use quick_cache::sync::Cache;

use agentlens_domain::apply::OrgContext;
use agentlens_domain::audit::AuditKey;
use agentlens_domain::chain::SealKey;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::OrgId;
use agentlens_domain::keys::ServerSecret;
use agentlens_domain::sealed_box::SecretBox;

pub use audit::{Audit, AuditFilter, AuditPage, AuditPlace, AuditReport, AuditRow, LoggedEntry};
pub use control::{
    Accepting, BrowserSessionRow, Change, Control, DeletedOrgRow, DeletionRow, DueRun, FirstStart,
    IdentityRow, InvitationRow, JobSummary, KeyRow, MailPurpose, MailRow, MailTokenRow, MemberRow,
    NewBrowserSession, NewDeletion, NewIdentity, NewInvitation, NewKey, NewMail, NewMailToken, NewOrg,
    NewPerson, NewSecret, OrgRow, PersonRow, PersonsOrgRow, RunResult, TotpRow, WorkspaceRow, org_ids,
};
pub use directory::{DataDirectory, DirectoryLock};
pub use error::{StoreError, names_a_full_disk};
pub use feed::{News, TRUST_WHILE_AWAY};
pub use outbox::{Delivery, Outbox, OutboxMessage, Target, Targets};
pub use purge::{CONTROL_PLACES, DuePurge, LAST_TENANT_PLACE, OTHER_PLACES, TENANT_PLACES};
pub use tenant::*;

use control::ControlPlace;
use engine::postgres::PostgresEngine;
use engine::sqlite::SqliteEngine;
use feed::Feed;
use tenant::Place;

/// Contexts of orgs (retention, prices) that are kept, about; of more, those that are used seldom are read each time.
const MAX_CONTEXTS: usize = 100_000;

/// The store of one server.
#[derive(Clone)]
pub struct Store {
    control: Control,
    contexts: Arc<Cache<OrgId, Arc<OrgContext>>>,
    feed: Arc<Feed>,
}

impl Store {
    /// Opens the embedded store in a directory, creating what is missing. A secret other than the one that the store was
    /// made with is refused.
    pub async fn open_sqlite(directory: &Path, secret: &ServerSecret) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        let engine = tenant::blocking(move || SqliteEngine::open(&directory)).await?;
        Self::over(ControlPlace::Sqlite(Arc::new(engine)), secret).await
    }

    /// Connects to PostgreSQL under the application's role; refused if that role could read across orgs, and with a secret
    /// other than the one that the store was made with.
    pub async fn open_postgres(
        url: &str,
        max_connections: usize,
        secret: &ServerSecret,
    ) -> Result<Self, StoreError> {
        let engine = PostgresEngine::open(url, max_connections).await?;
        Self::over(ControlPlace::Postgres(Arc::new(engine)), secret).await
    }

    /// Brings a PostgreSQL database to the newest schema under the owner's role, and grants the application's role what
    /// it needs. Returns how many steps were run.
    pub async fn migrate_postgres(owner_url: &str, app_url: Option<&str>) -> Result<usize, StoreError> {
        engine::postgres::migrate::migrate(owner_url, app_url).await
    }

    async fn over(place: ControlPlace, secret: &ServerSecret) -> Result<Self, StoreError> {
        let (audit, seals) = (Arc::new(AuditKey::of(secret)), SealKey::of(secret));
        let control =
            Control { place, clock: Clock::default(), audit, seals, secrets: SecretBox::of(secret) };
        // Keys are digested and chains are sealed under the secret: with another one no key would be known and every seal broken.
        let check = data_encoding::HEXLOWER.encode(&secret.digest("agentlens secret check"));
        if control.ensure_setting("secret_check", &check).await? != check {
            return Err(StoreError::Misconfigured("the server's secret is not the one that this store was made with; give the same AGENTLENS_SECRET_KEY, or the same secret.key in the data directory".to_owned()));
        }
        Ok(Self { control, contexts: Arc::new(Cache::new(MAX_CONTEXTS)), feed: Arc::default() })
    }

    /// The same store under another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.control.clock = clock;
        self
    }

    /// The clock of everything that uses this store.
    pub fn clock(&self) -> &Clock {
        &self.control.clock
    }

    /// Orgs, people and keys.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Orgs whose file is not there, or empty: whatever they had is gone. Always none on PostgreSQL.
    pub async fn orgs_without_file(&self) -> Result<Vec<OrgId>, StoreError> {
        let ControlPlace::Sqlite(engine) = &self.control.place else { return Ok(Vec::new()) };
        let orgs = self.control.list_orgs().await?;
        let orgs = orgs.iter().filter_map(|row| OrgId::parse(&row.org_id).ok());
        Ok(orgs.filter(|org| !engine.has_file(org)).collect())
    }

    /// Orgs that have data but are not listed, or are marked as deleted though no owner asked for it, each with what is wrong: someone hid
    /// them by hand.
    pub async fn hidden_orgs(&self) -> Result<Vec<(String, &'static str)>, StoreError> {
        let stored = match &self.control.place {
            ControlPlace::Sqlite(engine) => {
                let engine = Arc::clone(engine);
                tenant::blocking(move || engine.stored_orgs()).await?
            }
            ControlPlace::Postgres(_) => self.control.stored_orgs().await?,
        };
        let deleted = self.control.deleted_orgs().await?;
        let listed: BTreeSet<String> =
            self.control.list_orgs().await?.into_iter().map(|row| row.org_id).collect();
        let unlisted = stored.into_iter().filter(|org| !listed.contains(org) && !deleted.contains(org));
        let is_open = |row: &&DeletionRow| row.undone_us.is_none() && row.purged_us.is_none();
        let deletions = self.control.list_deletions().await?;
        let lawful: BTreeSet<&str> = deletions
            .iter()
            .filter(is_open)
            .filter(|row| row.is_lawful(&self.control.audit))
            .filter_map(|row| row.org_id.as_deref())
            .collect();
        let unlisted = unlisted.map(|org| (org, "it has data but is not in the list of orgs"));
        let marked = deleted.iter().filter(|org| !lawful.contains(org.as_str()));
        let marked = marked.map(|org| (org.clone(), "it is marked as deleted, but no one deleted it"));
        Ok(unlisted.chain(marked).collect())
    }

    /// To be called when nothing is written any more: leaves the files of the embedded store whole without their logs.
    pub async fn close(&self) -> Result<(), StoreError> {
        let ControlPlace::Sqlite(engine) = &self.control.place else { return Ok(()) };
        let engine = Arc::clone(engine);
        tenant::blocking(move || {
            engine.checkpoint();
            Ok(())
        })
        .await
    }

    /// Whether this is the embedded store.
    pub fn is_embedded(&self) -> bool {
        matches!(self.control.place, ControlPlace::Sqlite(_))
    }

    /// The handle of one org; [`StoreError::NotFound`] if there is no such org.
    pub async fn org(&self, org: &OrgId) -> Result<Org, StoreError> {
        let known = if self.feed.is_trusted() { self.contexts.get(org) } else { None };
        if let Some(context) = known {
            return self.open(context).await;
        }
        // The position is read first: a change after it drops the context again.
        let position = self.feed.position();
        let row = self.control.find_org(org).await?.ok_or(StoreError::NotFound)?;
        let context = OrgContext {
            org: org.clone(),
            retention_days: row.retention_days,
            prices: tenant::embedded_prices(),
            seals: self.control.seals.clone(),
        };
        let org = self.open(Arc::new(context.clone())).await?;
        let prices = org.prices().table().await?;
        let context = Arc::new(OrgContext { prices, ..context });
        self.remember(&context, position);
        self.open(context).await
    }

    /// The positions of the last stored events of orgs, in one statement (PostgreSQL only: an embedded store has one process).
    pub async fn last_positions(&self, orgs: &[OrgId]) -> Result<Vec<(OrgId, i64)>, StoreError> {
        if self.is_embedded() {
            return Ok(Vec::new());
        }
        self.control.last_positions(orgs).await
    }

    /// Delivers what was left in the outboxes of orgs; returns how many messages were delivered.
    pub async fn deliver_outboxes(&self, now_us: i64) -> Result<u64, StoreError> {
        let targets = Targets::of(&self.control);
        let mut delivered = 0;
        let mut page = self.control.orgs_with_intents(now_us, None).await?;
        while let Some(last) = page.last().cloned() {
            delivered += self.deliver_outboxes_of(page, &targets, now_us).await?;
            page = self.control.orgs_with_intents(now_us, Some(&last)).await?;
        }
        Ok(delivered)
    }

    async fn deliver_outboxes_of(
        &self,
        orgs: Vec<OrgId>,
        targets: &Targets,
        now_us: i64,
    ) -> Result<u64, StoreError> {
        let mut delivered = 0;
        for org in orgs {
            let delivery = match self.org(&org).await {
                Ok(org) => org.outbox().deliver(targets, now_us).await,
                // The org is gone, and its outbox with it.
                Err(StoreError::NotFound) => Ok(Delivery::default()),
                Err(error) => Err(error),
            };
            match delivery {
                Ok(delivery) => {
                    delivered += delivery.delivered;
                    if delivery.waiting == 0 {
                        self.control.delete_old_intents(&org, now_us).await?;
                    }
                }
                // An org that can't be opened must not keep the others from theirs.
                Err(error) => tracing::warn!(org.id = %org, error = %error, "an outbox can't be delivered"),
            }
        }
        Ok(delivered)
    }

    /// Makes the partitions of the coming days (PostgreSQL only).
    pub async fn make_partitions(&self, now_us: i64) -> Result<(), StoreError> {
        let ControlPlace::Postgres(engine) = &self.control.place else { return Ok(()) };
        let longest = self.control.list_orgs().await?.iter().filter_map(|org| org.retention_days).max();
        tenant::make_partitions(engine, longest, now_us).await
    }

    /// Drops the partitions whose last day is over (PostgreSQL only), as soon as every org has recorded what it loses, by
    /// [`Retention::delete_expired`]. An org whose retention has failed for three days is no longer waited for. What it
    /// loses is then noted in its audit log.
    pub async fn drop_partitions(&self, now_us: i64) -> Result<DroppedPartitions, StoreError> {
        let ControlPlace::Postgres(engine) = &self.control.place else {
            return Ok(DroppedPartitions::default());
        };
        tenant::drop_partitions(self, engine, now_us).await
    }

    /// Keeps a context that was looked up, unless something changed meanwhile. Whoever reads of a change moves the position before
    /// it drops contexts: one of the two sees the other.
    fn remember(&self, context: &Arc<OrgContext>, position: i64) {
        self.contexts.insert(context.org.clone(), Arc::clone(context));
        if self.feed.position() != position {
            self.contexts.remove(&context.org);
        }
    }

    async fn open(&self, context: Arc<OrgContext>) -> Result<Org, StoreError> {
        let place = match &self.control.place {
            ControlPlace::Sqlite(engine) => match engine.opened(&context.org) {
                Some(file) => Place::Sqlite(file),
                None => {
                    let (engine, org) = (Arc::clone(engine), context.org.clone());
                    Place::Sqlite(tenant::blocking(move || engine.org(&org)).await?)
                }
            },
            ControlPlace::Postgres(engine) => Place::Postgres(Arc::clone(engine)),
        };
        Ok(Org { place, context, clock: self.clock().clone(), control: self.control.clone() })
    }
}
