//! What is left of a request's body when the request was refused before its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::timeout;

use agentlens_domain::limits::MAX_BODY_BYTES;

/// Bytes of a refused body that are still read before the connection is closed, and for how long.
const MAX_DROPPED_BYTES: usize = 4 * MAX_BODY_BYTES;
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's body. What its reader leaves of it can be read on.
pub(super) struct Leaving {
    body: Option<Incoming>,
    rest: Arc<Mutex<Option<Incoming>>>,
}

/// Where the rest of a body goes.
pub(super) struct Rest(Arc<Mutex<Option<Incoming>>>);

impl Leaving {
    pub(super) fn new(body: Incoming) -> (Self, Rest) {
        let rest = Arc::default();
        (Self { body: Some(body), rest: Arc::clone(&rest) }, Rest(rest))
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        *self.rest.lock() = self.body.take().filter(|body| !body.is_end_stream());
    }
}

impl Rest {
    /// Reads on for a while if the request was refused, and drops what comes: a client that is still sending when the
    /// connection closes sees a broken pipe instead of the answer.
    pub(super) fn discard_after(self, status: StatusCode) {
        let Some(mut rest) = self.0.lock().take().filter(|_| status.as_u16() >= 400) else { return };
        let reading = async move {
            let mut dropped = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                dropped += frame.data_ref().map_or(0, Bytes::len);
                if dropped > MAX_DROPPED_BYTES {
                    return;
                }
            }
        };
        // Whoever sends no more doesn't get to wait for ever.
        tokio::spawn(timeout(DROP_TIMEOUT, reading));
    }
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}
