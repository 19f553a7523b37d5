//! What a connection is waiting for, and since when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Timeouts;
use crate::shares::HeldTurn;

/// What an HTTP/2 connection begins with; no method of HTTP/1.1 does.
const HTTP2_START: &[u8; 3] = b"PRI";

/// Answers above this many bytes, and those whose length isn't known, must be taken at a minimum rate, and hold the org's turn to
/// read until then. Smaller ones are soon out of memory.
const LARGE_BYTES: u64 = 64 * 1024;
/// Bytes of an answer that are handed over at a time, so that what is handed over is what the client takes.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes per second at which a client must take a large answer, after the time that it has to take any of it.
const MIN_BYTES_PER_S: u64 = 64 * 1024;

/// Whether a connection may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Fine,
    /// It has had no request for too long.
    Idle,
    /// The client neither finishes its request's head nor takes its answer.
    Stuck,
}

/// Notes of one connection. Times are in milliseconds since it began, plus one; zero means "not".
pub(super) struct Watch {
    began: Instant,
    requests: AtomicUsize,
    is_http2: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// Large answers that are being sent.
    large: Mutex<Vec<Arc<Progress>>>,
}

/// How far a large answer has been taken, and how long the client took for it. What the server needs to make the next piece
/// doesn't count.
#[derive(Default)]
struct Progress {
    sent_bytes: AtomicU64,
    waited_ms: AtomicU64,
    /// Since when the client has had a piece and hasn't asked for the next; zero while one is made.
    given_since: AtomicU64,
}

impl Progress {
    fn note_asked(&self, now: u64) {
        let since = self.given_since.swap(0, Ordering::Relaxed);
        if since > 0 {
            self.waited_ms.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }

    fn note_given(&self, now: u64, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.given_since.store(now, Ordering::Relaxed);
    }

    /// Whether the client takes it too slowly.
    fn is_slow(&self, now: u64, grace: Duration) -> bool {
        let since = self.given_since.load(Ordering::Relaxed);
        let waits_ms = if since > 0 { now.saturating_sub(since) } else { 0 };
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Relaxed) + waits_ms);
        let allowed = Duration::from_millis(self.sent_bytes.load(Ordering::Relaxed) * 1000 / MIN_BYTES_PER_S);
        waited > grace + allowed
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicUsize::new(0),
            is_http2: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            large: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn verdict(&self, timeouts: &Timeouts) -> Verdict {
        let now = self.now();
        let is_over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Ordering::Relaxed);
            since > 0 && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        if is_over(&self.blocked_since, timeouts.write) {
            return Verdict::Stuck;
        }
        if self.large.lock().iter().any(|answer| answer.is_slow(now, timeouts.write)) {
            return Verdict::Stuck;
        }
        if self.requests.load(Ordering::Relaxed) > 0 {
            return Verdict::Fine;
        }
        // Over HTTP/2 pings and settings come without any request, so only idleness counts there.
        if !self.is_http2.load(Ordering::Relaxed) && is_over(&self.head_since, timeouts.head) {
            return Verdict::Stuck;
        }
        if is_over(&self.idle_since, timeouts.idle) { Verdict::Idle } else { Verdict::Fine }
    }

    fn note_read(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn note_write(&self, is_blocked: bool) {
        if !is_blocked {
            self.blocked_since.store(0, Ordering::Relaxed);
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

/// A request that is being answered, until the last byte of its answer was handed over.
pub(super) struct Answering(Arc<Watch>);

impl Answering {
    pub(super) fn begin(watch: Arc<Watch>) -> Self {
        watch.requests.fetch_add(1, Ordering::Relaxed);
        watch.head_since.store(0, Ordering::Relaxed);
        Self(watch)
    }

    /// The same answer, which the client has to take in time. The request counts as being answered as long as its body lives.
    pub(super) fn until_taken(self, answer: Response<Body>, turn: Option<HeldTurn>) -> Response<Sending> {
        let length = answer.body().size_hint().exact();
        let is_stream = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|content_type| content_type.as_bytes().starts_with(b"text/event-stream"));
        let is_large = !is_stream && length.is_none_or(|length| length > LARGE_BYTES);
        let large = is_large.then(|| {
            let progress = Arc::new(Progress::default());
            self.0.large.lock().push(Arc::clone(&progress));
            progress
        });
        let turn = turn.filter(|_| is_large);
        answer.map(|body| Sending { body, rest: Bytes::new(), large, answering: self, _turn: turn })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer.
pub(super) struct Sending {
    body: Body,
    /// What the body has given and the connection has not taken.
    rest: Bytes,
    /// How far a large one has been taken.
    large: Option<Arc<Progress>>,
    answering: Answering,
    /// The org's turn to read, while a large answer is in memory.
    _turn: Option<HeldTurn>,
}

impl Sending {
    /// The next piece of what the body has given.
    fn piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(PIECE_BYTES.min(self.rest.len()));
        if let Some(progress) = &self.large {
            progress.note_given(self.answering.0.now(), piece.len());
        }
        piece
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(progress) = &self.large {
            self.answering.0.large.lock().retain(|other| !Arc::ptr_eq(other, progress));
        }
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(progress) = &self.large {
            progress.note_asked(self.answering.0.now());
        }
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.piece()))));
        }
        let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                Frame::data(self.piece())
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, mut hint) = (self.rest.len() as u64, self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// The bytes of a connection, under watch.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Arc<Watch>,
    /// How many of the first bytes were those of HTTP/2; `None` once that is decided.
    start: Option<usize>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch, start: Some(0) }
    }

    fn look_at_start(&mut self, bytes: &[u8]) {
        let Some(seen) = self.start else { return };
        let expected = &HTTP2_START[seen..];
        let common = expected.len().min(bytes.len());
        if bytes[..common] != expected[..common] {
            self.start = None;
        } else if common == expected.len() {
            self.start = None;
            self.watch.is_http2.store(true, Ordering::Relaxed);
        } else {
            self.start = Some(seen + common);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.look_at_start(&buffer.filled()[before..]);
            self.watch.note_read();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch.note_write(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch.note_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
