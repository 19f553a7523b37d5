//! Where requests that read are answered: on threads of their own, with a lower priority than those that take events.
//!
//! A search spends milliseconds at a time on looking through rows and on writing JSON. On the threads that take events, a few
//! dozen searches would make everybody's events wait for each of these pieces.

use std::convert::Infallible;
use std::io;

use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::error::ApiError;

/// How much lower the priority is; a third of the processor when both want all of it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// The threads that answer reading requests.
pub struct Reading(Option<Runtime>);

impl Reading {
    /// Starts them.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name("reading");
        #[cfg(target_os = "linux")]
        builder.on_thread_start(|| {
            // Without it reads only compete with writers as equals.
            let _ = rustix::process::nice(NICENESS);
        });
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    /// Whether a request is answered here. Probes and metrics are not: they must be answered whatever reads do.
    pub(crate) fn takes<B>(request: &Request<B>) -> bool {
        let path = request.uri().path();
        matches!(*request.method(), Method::GET | Method::HEAD)
            && (path.starts_with("/api/") || path.starts_with("/v1/"))
    }

    /// Answers a request; given up when its client goes away.
    pub(crate) async fn answer(
        &self,
        answer: impl Future<Output = Result<Response, Infallible>> + Send + 'static,
    ) -> Result<Response, Infallible> {
        let Some(runtime) = &self.0 else { return Ok(ApiError::internal().into_response()) };
        let reading = AbortOnDropHandle::new(runtime.spawn(answer));
        // It ends early only when the server does: a panic is caught and answered inside.
        reading.await.unwrap_or_else(|_| Ok(ApiError::internal().into_response()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Requests have been answered, or given up, by then; and nobody may wait for threads here.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_told_from_writes_and_probes() {
        let takes = |method: Method, path: &str| {
            Reading::takes(&Request::builder().method(method).uri(path).body(()).unwrap())
        };
        assert!(takes(Method::GET, "/api/events?search=x") && takes(Method::HEAD, "/v1/ingest/ledger"));
        for (method, path) in [
            (Method::POST, "/api/events"),
            (Method::POST, "/v1/traces"),
            (Method::GET, "/healthz"),
            (Method::GET, "/readyz"),
            (Method::GET, "/metrics"),
        ] {
            assert!(!takes(method, path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_read_whose_client_went_away_is_given_up() {
        let reading = Reading::start().unwrap();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let read = reading.answer(async move {
            let _ended = ended;
            std::future::pending().await
        });
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(20), read).await;
        assert!(given_up.is_err() && end.await.is_err());
    }
}
