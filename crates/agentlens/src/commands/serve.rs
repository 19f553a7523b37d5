//! `agentlens serve`: wires store, queue, workers, jobs and HTTP together, and takes them down in order.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_identity::SignIn;
use agentlens_ingest::queue::memory::MemoryQueue;
use agentlens_ingest::queue::redis::{ChangeRelay, RedisQueue};
use agentlens_ingest::worker::Worker;
use agentlens_ingest::{Gateway, Live, Queue};
use agentlens_outbound::{AllowList, Bounds, Outbound};
use agentlens_server::auth::sessions::SessionCache;
use agentlens_server::feed::ChangeFeed;
use agentlens_server::ingest_requests::Recorder;
use agentlens_server::jobs::Runner;
use agentlens_server::keys::KeyCache;
use agentlens_server::metrics::Metrics;
use agentlens_server::people::People;
use agentlens_server::proxies::TrustedProxies;
use agentlens_server::reading::Reading;
use agentlens_server::shares::Shares;
use agentlens_server::{AppState, positions, post, serve_api, serve_probes};
use agentlens_store::{DataDirectory, DirectoryLock, Store};

use super::greeting;
use crate::boot::{FirstSteps, at, first_steps, make_store, read_bootstrap_key, read_secret};
use crate::config::{Common, ListenAddress, Role, ServeOptions, StoreSettings, Switch};
use crate::{clock, logging, open_files};

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(options: ServeOptions, common: &Common) -> Result<(), String> {
    logging::start(&options.log)?;
    let settings = &common.store;
    check(&options, settings)?;
    let bootstrap_key = options.bootstrap_key()?.as_deref().map(read_bootstrap_key).transpose()?;
    // What can fail comes before the first steps, whose key and password are shown once: a taken port must not lose them.
    let listeners = Listeners::bind(&options).await?;
    let _lock = lock(settings)?;
    migrate(settings).await?;
    clock::warn_if_moved();
    let store = make_store(settings).await?;
    let secret = read_secret(settings)?;

    // Two stages: first no new work comes in, then what is under way ends.
    let (closing, draining, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let live = Live::default();
    let (queue, relay) = open_queue(&options, settings, &store, &live, &tasks, &draining).await?;
    report_lost_orgs(&store).await?;
    let metrics = Arc::new(Metrics::default());
    let keys = Arc::new(KeyCache::new(store.clone(), secret.clone()).with_relay(relay.is_some()));
    let allowed = AllowList::new(options.outbound.outbound_allow.clone());
    let sign_in = SignIn::new(allowed).map_err(|error| error.to_string())?;
    let people = People::new(options.people.settings(listeners.address)?, &secret, sign_in)
        .map_err(|error| format!("AGENTLENS_BREACHED_PASSWORDS: {error}"))?;
    let sessions = Arc::new(SessionCache::new(store.clone(), people.tokens.clone()));
    let feed =
        ChangeFeed::new(store.clone(), relay, vec![Arc::clone(&keys) as _, Arc::clone(&sessions) as _]);
    let mailer = options.people.mailer(listeners.address)?;
    let state = AppState {
        store: store.clone(),
        gateway: Gateway::new(Arc::clone(&queue)),
        live: live.clone(),
        keys: Arc::clone(&keys),
        sessions: Arc::clone(&sessions),
        people: Arc::new(people),
        entitlements: Arc::new(options.people.entitlements()),
        ingest_requests: Arc::new(Recorder::new(tasks.clone())),
        metrics: Arc::clone(&metrics),
        shares: Arc::new(Shares::new(open_files::max_connections(options.http.max_connections))),
        reading: Arc::new(Reading::start().map_err(|error| format!("no threads to read with: {error}"))?),
        outbound: outbound(&options)?,
        proxies: Arc::new(TrustedProxies::new(options.http.trusted_proxies.clone())),
        shutdown: closing.clone(),
    };
    // Before anything can see an address: whoever sees one may ask this process to stop.
    let stop = Stop::on_signals().map_err(|error| format!("can't listen for signals: {error}"))?;
    let steps = if options.role.takes_requests() {
        first_steps(&store, &secret, bootstrap_key.as_ref()).await?
    } else {
        FirstSteps::default()
    };
    keep_caches_right(&tasks, &draining, feed, keys, sessions);
    if matches!(options.role, Role::All | Role::Scheduler) {
        Runner::new(store.clone(), metrics).with_queue(queue).start(&tasks, &closing);
        tasks.spawn(post::send_mail(store.clone(), mailer, closing.clone()));
    }
    if settings.database_url.is_some() && options.role.takes_requests() {
        tasks.spawn(positions::follow(store.clone(), live, closing.clone()));
    }

    listeners.announce(&options);
    greeting::print(listeners.address, &options, common, &steps);
    let serving_and_ending = async {
        let deadline = listeners.serve(&options, state, &closing, stop.asked.cancelled()).await;
        end(&store, &tasks, &draining, deadline).await
    };
    tokio::select! {
        ended = serving_and_ending => ended?,
        () = stop.at_once.cancelled() => return Err(STOPPED_AT_ONCE.to_owned()),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Follows the change feed for the caches of this node, and keeps them up.
fn keep_caches_right(
    tasks: &TaskTracker,
    draining: &CancellationToken,
    feed: ChangeFeed,
    keys: Arc<KeyCache>,
    sessions: Arc<SessionCache>,
) {
    let (until, also_until) = (draining.clone(), draining.clone());
    tasks.spawn(async move { feed.follow(until).await });
    tasks.spawn(async move { tokio::join!(keys.keep_up(also_until.clone()), sessions.keep_up(also_until)) });
}

/// Lets what is under way end, until the deadline.
async fn end(
    store: &Store,
    tasks: &TaskTracker,
    draining: &CancellationToken,
    deadline: Instant,
) -> Result<(), String> {
    draining.cancel();
    tasks.close();
    if timeout_at(deadline, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not finish in time; what they held stays in the queue");
    }
    store.close().await.map_err(|error| error.to_string())
}

/// What a second signal says. What was accepted is durable in any case.
const STOPPED_AT_ONCE: &str = "stopped at once by a second signal";

/// Of the time for stopping, the part that running requests have; the rest is for what they left in memory.
const REQUESTS_SHARE: f64 = 0.8;

fn outbound(options: &ServeOptions) -> Result<Outbound, String> {
    let allowed = AllowList::new(options.outbound.outbound_allow.clone());
    Outbound::new(allowed, Bounds::default()).map_err(|error| error.to_string())
}

/// Brings the schema up to date if the URL of its owner is given.
async fn migrate(settings: &StoreSettings) -> Result<(), String> {
    let Some(owner_url) = &settings.database_owner_url else { return Ok(()) };
    Store::migrate_postgres(owner_url, settings.database_url.as_deref())
        .await
        .map(|_| ())
        .map_err(|error| at("PostgreSQL", owner_url, error))
}

/// The embedded store is for one server at a time.
fn lock(settings: &StoreSettings) -> Result<Option<DirectoryLock>, String> {
    match &settings.database_url {
        Some(_) => Ok(None),
        None => DataDirectory::new(&settings.data_dir).lock().map(Some).map_err(|error| error.to_string()),
    }
}

/// The server goes on for the other orgs; requests of these are refused.
async fn report_lost_orgs(store: &Store) -> Result<(), String> {
    for org in store.orgs_without_file().await.map_err(|error| error.to_string())? {
        tracing::error!(%org, "the org's file is missing or empty; restore it from a backup");
    }
    Ok(())
}

/// The bound addresses of a server.
struct Listeners {
    listener: TcpListener,
    address: SocketAddr,
    otlp: Option<(TcpListener, SocketAddr)>,
}

impl Listeners {
    async fn bind(options: &ServeOptions) -> Result<Self, String> {
        let (listener, address) = bind(&options.http.listen, "--listen or AGENTLENS_LISTEN").await?;
        let otlp = match &options.http.otlp_listen {
            Some(wanted) if options.role.takes_requests() => {
                Some(bind(wanted, "--otlp-listen or AGENTLENS_OTLP_LISTEN").await?)
            }
            _ => None,
        };
        Ok(Self { listener, address, otlp })
    }

    fn announce(&self, options: &ServeOptions) {
        let otlp = self.otlp.as_ref().map(|(_, address)| *address);
        if let Some(address) = otlp {
            tracing::info!(%address, "listening for OTLP too");
        }
        tracing::info!(address = %self.address, role = options.role.as_str(), version = env!("CARGO_PKG_VERSION"), "listening");
        for address in [Some(self.address), otlp].into_iter().flatten() {
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "other machines reach this address over plain HTTP, so that keys and prompts can be read on the way; put a proxy with TLS in front");
            }
        }
    }

    /// Answers requests until a signal comes, then gives those under way their time. Returns when the server must have stopped.
    async fn serve(
        self,
        options: &ServeOptions,
        state: AppState,
        closing: &CancellationToken,
        asked_to_stop: impl Future<Output = ()>,
    ) -> Instant {
        let (listener, otlp) = (self.listener, self.otlp);
        let serving = async {
            if !options.role.takes_requests() {
                return serve_probes(listener, state, closing.clone()).await;
            }
            let otlp = async {
                if let Some((listener, _)) = otlp {
                    serve_api(listener, state.clone(), closing.clone()).await;
                }
            };
            tokio::join!(serve_api(listener, state.clone(), closing.clone()), otlp);
        };
        let mut serving = pin!(serving);
        tokio::select! {
            () = serving.as_mut() => {}
            () = asked_to_stop => tracing::info!("stopping: no new requests, what is under way is finished"),
            () = closing.cancelled() => {}
        }
        closing.cancel();
        let patience = Duration::from_secs(options.http.shutdown_seconds);
        let now = Instant::now();
        if timeout_at(now + patience.mul_f64(REQUESTS_SHARE), serving).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        now + patience
    }
}

async fn bind(wanted: &ListenAddress, options: &str) -> Result<(TcpListener, SocketAddr), String> {
    let addresses = wanted.resolve().await?;
    let listener = TcpListener::bind(addresses.as_slice()).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("can't listen on {wanted}: another program uses this port; choose another one with {options}")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("can't listen on {wanted}: this machine has no such address; choose another one with {options}")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("can't listen on {wanted}: {error}; ports below 1024 need a privilege, so choose another one with {options}")
        }
        _ => format!("can't listen on {wanted}: {error}"),
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, address))
}

fn check(options: &ServeOptions, settings: &StoreSettings) -> Result<(), String> {
    let needs_redis = matches!(options.role, Role::Gateway | Role::Worker);
    if needs_redis && settings.redis_url.is_none() {
        return Err("--role gateway and --role worker need --redis-url: the queue between them".to_owned());
    }
    if settings.redis_url.is_some() && settings.database_url.is_none() {
        return Err(
            "--redis-url needs --database-url: workers on other machines can't share an embedded store"
                .to_owned(),
        );
    }
    Ok(())
}

async fn open_queue(
    options: &ServeOptions,
    settings: &StoreSettings,
    store: &Store,
    live: &Live,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<(Arc<dyn Queue>, Option<ChangeRelay>), String> {
    let index_text = options.search == Switch::On;
    let Some(url) = &settings.redis_url else {
        return Ok((Arc::new(MemoryQueue::new(tasks.clone(), live.clone(), index_text)), None));
    };
    let prefix = &settings.redis_prefix;
    let queue = RedisQueue::open(url, prefix, tasks, shutdown.clone())
        .await
        .map_err(|error| at("Redis", url, error))?;
    if matches!(options.role, Role::All | Role::Worker) {
        let name =
            format!("{}-{}", std::process::id(), agentlens_domain::ids::ulid_at(store.clock().now_us()));
        let worker = Worker::new(&queue, &name, store.clone(), live.clone(), tasks, index_text);
        worker.start(tasks, shutdown);
    }
    let relay = options.role.takes_requests().then(|| queue.change_relay());
    Ok((Arc::new(queue), relay))
}

/// What signals have asked for.
struct Stop {
    /// By the first.
    asked: CancellationToken,
    /// By the second.
    at_once: CancellationToken,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM. The handlers stand from this call on, so no signal is missed.
    fn on_signals() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = Self { asked: CancellationToken::new(), at_once: CancellationToken::new() };
        let tokens = [stop.asked.clone(), stop.at_once.clone()];
        tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(stop)
    }
}
