//! Request bodies: room in memory before they are read, limits before and after decompression.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use agentlens_domain::limits::{MAX_BODIES_IN_MEMORY_BYTES, MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
use agentlens_ingest::QueueError;
use agentlens_ingest::body::{BodyError, decompress, is_compressed};

use crate::error::ApiError;

/// Bytes of a body beyond the limit that are still read before the connection is closed.
const MAX_DROPPED_BYTES: usize = 4 * MAX_BODY_BYTES;
/// How much larger a compressed body is taken to become: more than JSON of events usually does.
const USUAL_RATIO: usize = 20;

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

/// What a compressed body of so many bytes is expected to become.
pub(crate) fn expected_bytes(compressed: usize) -> usize {
    compressed.saturating_mul(USUAL_RATIO).min(MAX_DECOMPRESSED_BYTES)
}

/// The plain bytes of a request, bounded before and after decompression. Room is taken before any of it is read for what
/// it declares, and as it comes for one that does not say.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<(Bytes, Room), ApiError> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_owned());
    let is_compressed = is_compressed(encoding.as_deref());
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let declared = declared.map(|length| length.min(MAX_BODY_BYTES));
    let mut room = Room::empty()?;
    if let Some(length) = declared {
        room.grow_to(if is_compressed { expected_bytes(length) } else { length })?;
    }
    let body = collect(declared.unwrap_or(0), body, &mut room).await?;
    if is_compressed {
        room.grow_to(expected_bytes(body.len()))?;
    }
    Ok((plain(body, encoding).await?, room))
}

/// The body as it was sent. A body beyond the limit is read on for a while and dropped: a client that is still sending
/// when the connection closes sees a broken pipe instead of the answer.
pub(crate) async fn collect(expected: usize, body: Body, room: &mut Room) -> Result<Bytes, ApiError> {
    let (mut whole, mut length) = (Vec::with_capacity(expected), 0usize);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| ApiError::bad_request("incomplete_body", "The request body broke off"))?;
        length += chunk.len();
        if length <= MAX_BODY_BYTES {
            room.grow_to(length)?;
            whole.extend_from_slice(&chunk);
        } else if length > MAX_DROPPED_BYTES {
            break;
        } else {
            whole = Vec::new();
        }
    }
    if length > MAX_BODY_BYTES {
        let message = format!("The request body is larger than {MAX_BODY_BYTES} bytes");
        return Err(ApiError::too_large(message).with_hint("send several smaller batches, or compress them"));
    }
    Ok(whole.into())
}

/// Decompresses what is compressed, on the pool that is there for it.
pub(crate) async fn plain(body: Bytes, encoding: Option<String>) -> Result<Bytes, ApiError> {
    let plain = if is_compressed(encoding.as_deref()) {
        let task = tokio::task::spawn_blocking(move || decompress(body, encoding.as_deref()));
        task.await.map_err(|_| ApiError::internal())?
    } else {
        decompress(body, encoding.as_deref())
    };
    plain.map_err(|error| match error {
        BodyError::TooLarge => ApiError::too_large(error.to_string()),
        BodyError::UnknownEncoding | BodyError::Broken(_) => {
            ApiError::bad_request("invalid_encoding", error.to_string())
        }
    })
}
