//! Connections: how many there may be, how long each may wait for what, and how they end.
//!
//! hyper is given no timer for heads, because its one timer can't tell a client that pauses between requests, which is
//! normal, from one that sends a request byte by byte. A [`Watch`] on each connection can.

mod unread;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use agentlens_fairness::{FairShare, Share, Shortage};

use self::unread::Leaving;
use self::watch::{Answering, Sending, Verdict, Watch, Watched};
use crate::proxies::TrustedProxies;
use crate::reading::Reading;
use crate::shares::{ClientNetwork, HeldTurn};

/// Bytes of a request's head over HTTP/1.1, and of what is read at once of a body.
const MAX_HEAD_BYTES: usize = 128 * 1024;
/// Bytes of a request's head over HTTP/2.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Requests of one HTTP/2 connection at the same time.
const MAX_STREAMS: u32 = 200;
/// Bytes that one HTTP/2 connection may send ahead of what is read.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// How often an HTTP/2 client is asked whether it is still there, and how long it has to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long accepting pauses when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Refused connections are logged this often at most.
const LOG_REFUSALS_EVERY_S: u64 = 10;

/// How long a connection may wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For the rest of a request's head, from its first byte on.
    pub(crate) head: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
    /// For the client to take more of an answer.
    pub(crate) write: Duration,
    /// How often this is looked at.
    pub(crate) check_every: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            idle: Duration::from_secs(90),
            write: Duration::from_secs(60),
            check_every: Duration::from_secs(5),
        }
    }
}

/// What answers the requests of a listener's connections.
#[derive(Clone)]
pub(crate) struct Service {
    /// The routes.
    pub(crate) router: Router,
    /// How long a connection may wait for what.
    pub(crate) timeouts: Timeouts,
    /// The threads for requests that read, if they have threads of their own.
    pub(crate) reading: Option<Arc<Reading>>,
    /// The proxies whose word on the client's address is taken.
    pub(crate) proxies: Arc<TrustedProxies>,
}

/// Answers requests until `closing`, then finishes those under way. HTTP/1.1 and HTTP/2 (prior knowledge) alike.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Service,
    connections: &FairShare<ClientNetwork>,
    closing: CancellationToken,
) {
    let builder = Arc::new(builder());
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        match connections.try_take(&ClientNetwork::of(address.ip()), 1) {
            Ok(share) => {
                let connection = Connection { stream, address, service: service.clone(), share };
                tasks.spawn(connection.run(Arc::clone(&builder), closing.clone()));
            }
            Err(shortage) => refuse(&stream, address, shortage),
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A client that went away before it was accepted is no reason to wait; the lack of descriptors is.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(error = %error, "a connection can't be accepted; raise the limit of open files");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Tells a client why its connection is closed, as far as that can be said without waiting for it.
fn refuse(stream: &TcpStream, address: SocketAddr, shortage: Shortage) {
    let text = match shortage {
        Shortage::OwnShare { .. } => "Too many connections from this address; reuse them, or close some.",
        _ => "The server has as many connections as it can keep; try again in a second.",
    };
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{text}",
        text.len()
    );
    let _ = stream.try_write(answer.as_bytes());
    log_refusal(address, text);
}

/// Logs a refused connection, unless one was just logged: a flood of connections must not become one of lines.
fn log_refusal(address: SocketAddr, reason: &str) {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    static NEXT_S: AtomicU64 = AtomicU64::new(0);
    let now_s = STARTED.elapsed().as_secs();
    let next_s = NEXT_S.load(Ordering::Relaxed);
    if now_s >= next_s
        && NEXT_S
            .compare_exchange(next_s, now_s + LOG_REFUSALS_EVERY_S, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    {
        tracing::warn!(client = %address.ip(), reason, "connections are refused");
    }
}

struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    service: Service,
    share: Share<ClientNetwork>,
}

impl Connection {
    async fn run(self, builder: Arc<Builder<TokioExecutor>>, closing: CancellationToken) {
        let Self { stream, address, service, share } = self;
        // Without this, answers in several writes wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let watch = Arc::new(Watch::new());
        let timeouts = service.timeouts;
        let service = service_fn(|request: Request<Incoming>| {
            let answering = Answering::begin(Arc::clone(&watch));
            service.answer(request, address, answering)
        });
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&watch)));
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let mut is_ending = false;
        let mut next_check = Instant::now() + timeouts.check_every;
        loop {
            tokio::select! {
                // An error here is the client's: it broke the protocol, or went away.
                _ = connection.as_mut() => break,
                () = closing.cancelled(), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = sleep_until(next_check) => {
                    next_check = Instant::now() + timeouts.check_every;
                    match watch.verdict(&timeouts) {
                        Verdict::Fine => {}
                        // A second check without an end: the client doesn't take part in ending it.
                        Verdict::Idle if is_ending => break,
                        Verdict::Idle => {
                            is_ending = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        Verdict::Stuck => break,
                    }
                }
            }
        }
        drop(share);
    }
}

impl Service {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        answering: Answering,
    ) -> impl Future<Output = Result<Response<Sending>, Infallible>> + use<> {
        let client = self.proxies.client(peer.ip(), request.headers());
        let (parts, body) = request.into_parts();
        // Most requests that read have no body.
        let (body, rest) = if body.is_end_stream() {
            (Body::empty(), None)
        } else {
            let (body, rest) = Leaving::new(body);
            (Body::new(body), Some(rest))
        };
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(client);
        let reading = self.reading.clone().filter(|_| Reading::takes(&request));
        let turn = reading.is_some().then(HeldTurn::default);
        if let Some(turn) = &turn {
            request.extensions_mut().insert(turn.clone());
        }
        let answer = self.router.clone().oneshot(request);
        async move {
            let response = match reading {
                Some(reading) => reading.answer(answer).await?,
                None => answer.await?,
            };
            if let Some(rest) = rest {
                rest.discard_after(response.status());
            }
            Ok(answering.until_taken(response, turn))
        }
    }
}

#[cfg(test)]
mod tests;
