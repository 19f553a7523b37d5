//! Request bodies: room in memory before they are read, limits before and after decompression.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use agentlens_domain::limits::{MAX_BODIES_IN_MEMORY_BYTES, MAX_BODY_BYTES};
use agentlens_ingest::QueueError;
use agentlens_ingest::body::{BodyError, decompress, is_compressed};

use crate::error::ApiError;

/// Bytes of a refused body that are still read before the connection is closed, and for how long.
const MAX_DROPPED_BYTES: usize = 4 * MAX_BODY_BYTES;
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

static ROOM_KIB: Semaphore = Semaphore::const_new(MAX_BODIES_IN_MEMORY_BYTES / 1024);

/// Room in memory for one body. It is given back when this is dropped, which is when the request is answered.
pub(crate) struct Room(SemaphorePermit<'static>);

impl Room {
    /// None yet.
    pub(crate) fn empty() -> Result<Self, ApiError> {
        ROOM_KIB.try_acquire_many(0).map(Self).map_err(|_| full())
    }

    /// Makes sure that there is room for so many bytes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let missing = (bytes / 1024 + 1).saturating_sub(self.0.num_permits());
        if missing > 0 {
            let kib = u32::try_from(missing).unwrap_or(u32::MAX);
            self.0.merge(ROOM_KIB.try_acquire_many(kib).map_err(|_| full())?);
        }
        Ok(())
    }
}

fn full() -> ApiError {
    QueueError::Full { retry_after_s: 1 }.into()
}

/// The plain bytes of a request, bounded before and after decompression. Room is taken before any of it is read for what
/// it declares, as it comes for one that does not say, and for what comes out of it as it does.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<(Bytes, Room), ApiError> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_owned());
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let declared = declared.map(|length| length.min(MAX_BODY_BYTES));
    let mut room = Room::empty()?;
    if let Err(error) = room.grow_to(declared.unwrap_or(0)) {
        discard(body).await;
        return Err(error);
    }
    let body = collect(declared.unwrap_or(0), body, &mut room).await?;
    plain(body, encoding, room).await
}

/// The body as it was sent.
pub(crate) async fn collect(expected: usize, body: Body, room: &mut Room) -> Result<Bytes, ApiError> {
    let mut whole = Vec::with_capacity(expected);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| ApiError::bad_request("incomplete_body", "The request body broke off"))?;
        let length = whole.len() + chunk.len();
        let refusal = if length > MAX_BODY_BYTES { Err(too_large()) } else { room.grow_to(length) };
        if let Err(error) = refusal {
            drop(whole);
            discard_rest(chunks).await;
            return Err(error);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

fn too_large() -> ApiError {
    ApiError::too_large(format!("The request body is larger than {MAX_BODY_BYTES} bytes"))
        .with_hint("send several smaller batches, or compress them")
}

/// Reads a refused body on for a while and drops it: a client that is still sending when the connection closes sees a
/// broken pipe instead of the answer.
pub(crate) async fn discard(body: Body) {
    discard_rest(body.into_data_stream()).await;
}

async fn discard_rest(mut chunks: BodyDataStream) {
    let reading = async {
        let mut dropped = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            dropped += chunk.len();
            if dropped > MAX_DROPPED_BYTES {
                return;
            }
        }
    };
    // Whoever sends no more doesn't get to wait for ever.
    let _ = tokio::time::timeout(DROP_TIMEOUT, reading).await;
}

/// Decompresses what is compressed, on the pool that is there for it; takes room for what comes out beside the body's own.
pub(crate) async fn plain(
    body: Bytes,
    encoding: Option<String>,
    mut room: Room,
) -> Result<(Bytes, Room), ApiError> {
    if !is_compressed(encoding.as_deref()) {
        return Ok((body, room));
    }
    let task = tokio::task::spawn_blocking(move || {
        let sent = body.len();
        let plain = decompress(body, encoding.as_deref(), |bytes| room.grow_to(sent + bytes).is_ok())?;
        Ok((plain, room))
    });
    task.await.map_err(|_| ApiError::internal())?.map_err(|error: BodyError| match error {
        BodyError::NoRoom => full(),
        BodyError::TooLarge => ApiError::too_large(error.to_string()),
        BodyError::UnknownEncoding | BodyError::Broken(_) => {
            ApiError::bad_request("invalid_encoding", error.to_string())
        }
    })
}
