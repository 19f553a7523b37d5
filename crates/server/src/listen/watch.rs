//! What a connection is waiting for, and since when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Timeouts;

/// What an HTTP/2 connection begins with; no method of HTTP/1.1 does.
const HTTP2_START: &[u8; 3] = b"PRI";

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
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(super) fn verdict(&self, timeouts: &Timeouts) -> Verdict {
        let now = self.now();
        let is_over = |since: &AtomicU64, limit: std::time::Duration| {
            let since = since.load(Ordering::Relaxed);
            since > 0 && u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        if is_over(&self.blocked_since, timeouts.write) {
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

    /// The same body; the request counts as being answered as long as it lives.
    pub(super) fn until_sent(self, body: Body) -> Sending {
        Sending { body, _answering: self }
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
    _answering: Answering,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
