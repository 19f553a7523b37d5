//! `agentlens serve`: wires store, queue, workers, jobs and HTTP together, and takes them down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use agentlens_ingest::queue::memory::MemoryQueue;
use agentlens_ingest::queue::redis::RedisQueue;
use agentlens_ingest::worker::Worker;
use agentlens_ingest::{Gateway, Live, Queue};
use agentlens_server::ingest_requests::Recorder;
use agentlens_server::keys::KeyCache;
use agentlens_server::metrics::Metrics;
use agentlens_server::{AppState, jobs, serve_api, serve_probes};
use agentlens_store::Store;

use crate::boot::{FirstSteps, first_steps, open_secret, open_store};
use crate::config::{Role, ServeOptions, Switch};
use crate::{clock, logging, output};

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(options: ServeOptions) -> Result<(), String> {
    logging::start(&options)?;
    check(&options)?;
    if let Some(owner_url) = &options.store.database_owner_url {
        Store::migrate_postgres(owner_url, options.store.database_url.as_deref())
            .await
            .map_err(|error| error.to_string())?;
    }
    clock::warn_if_moved();
    let store = open_store(&options.store).await?;
    let secret = open_secret(&options.store, &store).await?;
    let steps = match options.role {
        Role::All | Role::Gateway => {
            first_steps(&store, &secret, options.bootstrap_api_key.as_deref()).await?
        }
        Role::Worker | Role::Scheduler => FirstSteps::default(),
    };

    // Two stages: first no new work comes in, then what is under way ends.
    let (closing, draining, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let live = Live::default();
    let metrics = Arc::new(Metrics::default());
    let keys = Arc::new(KeyCache::new(store.control().clone(), secret));
    let queue = open_queue(&options, &store, &live, &tasks, &draining).await?;
    let state = AppState {
        store: store.clone(),
        gateway: Gateway::new(queue),
        live: live.clone(),
        keys: Arc::clone(&keys),
        ingest_requests: Arc::new(Recorder::new(tasks.clone())),
        metrics: Arc::clone(&metrics),
        shutdown: closing.clone(),
    };
    {
        let draining = draining.clone();
        tasks.spawn(async move { keys.watch(draining).await });
    }
    if matches!(options.role, Role::All | Role::Scheduler) {
        tasks.spawn(jobs::retention(store.clone(), metrics, closing.clone()));
    }
    if options.store.database_url.is_some() && matches!(options.role, Role::All | Role::Gateway) {
        tasks.spawn(jobs::follow_positions(store, live, closing.clone()));
    }

    listen(&options, state, &steps, &closing).await?;
    draining.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(options.shutdown_seconds), tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not finish in time; what they held stays in the queue");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Answers requests until a signal comes, then gives those under way their time.
async fn listen(
    options: &ServeOptions,
    state: AppState,
    steps: &FirstSteps,
    closing: &CancellationToken,
) -> Result<(), String> {
    // Before anything can see an address: whoever sees one may ask this process to stop.
    let asked_to_stop = stop_signal().map_err(|error| format!("can't listen for signals: {error}"))?;
    let (listener, address) = bind(options.listen).await?;
    let otlp_listener = match options.otlp_listen {
        Some(wanted) if matches!(options.role, Role::All | Role::Gateway) => {
            let (listener, address) = bind(wanted).await?;
            tracing::info!(%address, "listening for OTLP too");
            Some(listener)
        }
        _ => None,
    };
    tracing::info!(%address, role = ?options.role, version = env!("CARGO_PKG_VERSION"), "listening");
    greet(&address.to_string(), steps);
    let deadline = async {
        tokio::select! {
            () = asked_to_stop => tracing::info!("stopping: no new requests, what is under way is finished"),
            () = closing.cancelled() => {}
        }
        closing.cancel();
        tokio::time::sleep(Duration::from_secs(options.shutdown_seconds)).await;
    };
    let serving = async {
        match options.role {
            Role::All | Role::Gateway => {
                let otlp = async {
                    match otlp_listener {
                        Some(listener) => serve_api(listener, state.clone(), closing.clone()).await,
                        None => Ok(()),
                    }
                };
                tokio::try_join!(serve_api(listener, state.clone(), closing.clone()), otlp).map(|_| ())
            }
            Role::Worker | Role::Scheduler => serve_probes(listener, state, closing.clone()).await,
        }
    };
    tokio::select! {
        result = serving => result.map_err(|error| error.to_string()),
        () = deadline => {
            tracing::warn!("some requests did not finish in time");
            Ok(())
        }
    }
}

async fn bind(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let listener =
        TcpListener::bind(wanted).await.map_err(|error| format!("can't listen on {wanted}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, address))
}

fn check(options: &ServeOptions) -> Result<(), String> {
    let needs_redis = matches!(options.role, Role::Gateway | Role::Worker);
    if needs_redis && options.store.redis_url.is_none() {
        return Err("--role gateway and --role worker need --redis-url: the queue between them".to_owned());
    }
    if options.store.redis_url.is_some() && options.store.database_url.is_none() {
        return Err(
            "--redis-url needs --database-url: workers on other machines can't share an embedded store"
                .to_owned(),
        );
    }
    Ok(())
}

async fn open_queue(
    options: &ServeOptions,
    store: &Store,
    live: &Live,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Arc<dyn Queue>, String> {
    let index_text = options.search == Switch::On;
    let Some(url) = &options.store.redis_url else {
        return Ok(Arc::new(MemoryQueue::new(tasks.clone(), live.clone(), index_text)));
    };
    let prefix = &options.store.redis_prefix;
    let queue =
        RedisQueue::open(url, prefix, tasks, shutdown.clone()).await.map_err(|error| error.to_string())?;
    if matches!(options.role, Role::All | Role::Worker) {
        let name =
            format!("{}-{}", std::process::id(), agentlens_domain::ids::ulid_at(store.clock().now_us()));
        let worker = Worker::new(url, prefix, &name, store.clone(), live.clone(), tasks, index_text)
            .map_err(|error| error.to_string())?;
        worker.start(tasks, shutdown);
    }
    Ok(Arc::new(queue))
}

/// What a person needs to begin; secrets are shown this once.
fn greet(address: &str, steps: &FirstSteps) {
    output::line(&format!("\n  AgentLens is running at http://{address}\n"));
    if let Some((email, password)) = &steps.login {
        output::line(&format!("  Login     {email} / {password}"));
    }
    if let Some(key) = &steps.api_key {
        output::line(&format!("  API key   {}", key.reveal()));
        output::line("\n  Both are shown this once. To see the product with data:");
        output::line(&format!("  agentlens demo --url http://{address} --api-key {}\n", key.reveal()));
    }
}

/// Ends when the process is asked to stop. The handlers stand from this call on, not from the first poll.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
