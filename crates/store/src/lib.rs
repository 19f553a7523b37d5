//! Data at rest: [`Control`] (orgs, people, keys) and [`Tenant`] (everything that belongs to one org), on SQLite and
//! PostgreSQL. One SQL text serves both engines; what truly differs lies in `engine/`.

mod control;
mod directory;
mod engine;
mod error;
mod schema;
pub mod statement;
mod tenant;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use agentlens_domain::chain::SealKey;
use agentlens_domain::clock::Clock;
use agentlens_domain::ids::OrgId;
use agentlens_domain::keys::ServerSecret;

pub use control::{Control, FirstStart, KeyRow, NewKey, NewLogin, NewOrg, OrgRow};
pub use directory::{DataDirectory, DirectoryLock};
pub use error::{StoreError, names_a_full_disk};
pub use tenant::*;

use control::ControlPlace;
use engine::postgres::PostgresEngine;
use engine::sqlite::SqliteEngine;
use tenant::{Place, TenantContext};

/// How long a tenant's context (retention, prices) is used before it is looked up again.
const CONTEXT_TTL: Duration = Duration::from_secs(10);

/// Contexts of orgs with the time they were read.
type Contexts = FxHashMap<OrgId, (Instant, Arc<TenantContext>)>;

/// The store of one server.
#[derive(Clone)]
pub struct Store {
    control: Control,
    contexts: Arc<Mutex<Contexts>>,
    clock: Clock,
    seals: SealKey,
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
        let control = Control { place };
        // Keys are digested and chains are sealed under the secret: with another one no key would be known and every seal broken.
        let check = data_encoding::HEXLOWER.encode(&secret.digest("agentlens secret check"));
        if control.ensure_setting("secret_check", &check).await? != check {
            return Err(StoreError::Misconfigured("the server's secret is not the one that this store was made with; give the same AGENTLENS_SECRET_KEY, or the same secret.key in the data directory".to_owned()));
        }
        let (contexts, clock) = (Arc::default(), Clock::default());
        Ok(Self { control, contexts, clock, seals: SealKey::of(secret) })
    }
    /// The same store under another clock than the system's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The clock of everything that uses this store.
    pub fn clock(&self) -> &Clock {
        &self.clock
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
    pub async fn tenant(&self, org: &OrgId) -> Result<Tenant, StoreError> {
        let known = self
            .contexts
            .lock()
            .get(org)
            .filter(|(at, _)| at.elapsed() < CONTEXT_TTL)
            .map(|(_, context)| Arc::clone(context));
        if let Some(context) = known {
            return self.open(context).await;
        }
        let row = self.control.find_org(org).await?.ok_or(StoreError::NotFound)?;
        let context = TenantContext {
            org: org.clone(),
            retention_days: row.retention_days,
            prices: tenant::embedded_prices(),
            seals: self.seals.clone(),
        };
        let tenant = self.open(Arc::new(context.clone())).await?;
        let prices = tenant.prices().await?;
        let context = Arc::new(TenantContext { prices, ..context });
        self.contexts.lock().insert(org.clone(), (Instant::now(), Arc::clone(&context)));
        self.open(context).await
    }

    /// Makes the partitions of the coming days (PostgreSQL only).
    pub async fn make_partitions(&self, now_us: i64) -> Result<(), StoreError> {
        let ControlPlace::Postgres(engine) = &self.control.place else { return Ok(()) };
        let longest = self.control.list_orgs().await?.iter().filter_map(|org| org.retention_days).max();
        tenant::make_partitions(engine, longest, now_us).await
    }

    /// Drops the partitions whose last day is over (PostgreSQL only); returns how many. Every org must have recorded before,
    /// by [`Tenant::delete_expired`], what it loses.
    pub async fn drop_partitions(&self, now_us: i64) -> Result<i64, StoreError> {
        let ControlPlace::Postgres(engine) = &self.control.place else { return Ok(0) };
        tenant::drop_partitions(engine, now_us).await
    }

    async fn open(&self, context: Arc<TenantContext>) -> Result<Tenant, StoreError> {
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
        Ok(Tenant { place, context, clock: self.clock.clone() })
    }
}
