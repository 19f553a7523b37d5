//! Request bodies: memory is taken from the org's share as bytes arrive, and they must arrive in time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use agentlens_domain::ids::OrgId;
use agentlens_domain::limits::MAX_BODY_BYTES;
use agentlens_fairness::{FairShare, Share, Shortage};
use agentlens_ingest::body::{BodyError, decompress, is_compressed};

use crate::error::ApiError;

/// Bytes that are reserved for a body when its first bytes arrive.
const FIRST_BYTES: usize = 64 * 1024;
/// A body may pause for this long at its start; after that it must keep the minimum rate.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes per second at which a body must arrive.
const MIN_BYTES_PER_S: usize = 8 * 1024;
/// How long a body may take in all.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Memory for one body, out of its org's share. It is given back when this is dropped, which is when the request is answered.
pub(crate) struct Room(Share<OrgId>);

impl Room {
    /// None yet.
    pub(crate) fn empty(bodies: &FairShare<OrgId>, org: &OrgId) -> Result<Self, ApiError> {
        bodies.try_take(org, 0).map(Self).map_err(full)
    }

    /// Makes sure that there is room for so many bytes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.0.grow_to(bytes as u64).map_err(full)
    }
}

fn full(shortage: Shortage) -> ApiError {
    let (message, hint) = match shortage {
        Shortage::OwnShare { .. } | Shortage::TooLarge { .. } => (
            "The requests that this org is sending now fill its share of the server's memory",
            "retry after the seconds in Retry-After, and send fewer or smaller requests at a time",
        ),
        Shortage::Full | Shortage::TooManyWaiting | Shortage::TimedOut => (
            "The requests that are being received now fill the server's memory for them",
            "retry after the seconds in Retry-After",
        ),
    };
    ApiError::too_many_requests("bodies_full", message, 1).with_hint(hint)
}

/// The plain bytes of a request, bounded before and after decompression.
pub(crate) async fn read(
    bodies: &FairShare<OrgId>,
    org: &OrgId,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Room), ApiError> {
    let encoding =
        headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").to_owned());
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let mut room = Room::empty(bodies, org)?;
    let body = collect(declared, body, &mut room).await?;
    plain(body, encoding, room).await
}

/// The body as it was sent. What it declares is believed only to refuse it early, and to reserve no more than that.
pub(crate) async fn collect(declared: Option<usize>, body: Body, room: &mut Room) -> Result<Bytes, ApiError> {
    if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let most = declared.unwrap_or(MAX_BODY_BYTES);
    let started = Instant::now();
    let mut whole = Vec::new();
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = match timeout_at(started + time_for(whole.len()), chunks.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(whole.into()),
            Err(_) => return Err(too_slow(whole.len(), started.elapsed())),
        };
        let chunk =
            chunk.map_err(|_| ApiError::bad_request("incomplete_body", "The request body broke off"))?;
        let length = whole.len() + chunk.len();
        if length > MAX_BODY_BYTES {
            return Err(too_large());
        }
        reserve(&mut whole, length, most, room)?;
        whole.extend_from_slice(&chunk);
    }
}

/// Makes the buffer large enough for `length` bytes, in steps that double, and counts what it takes.
fn reserve(whole: &mut Vec<u8>, length: usize, most: usize, room: &mut Room) -> Result<(), ApiError> {
    if length > whole.capacity() {
        let capacity = (2 * whole.capacity()).max(FIRST_BYTES).min(most).max(length);
        room.grow_to(capacity)?;
        whole.reserve_exact(capacity - whole.len());
    }
    Ok(())
}

/// How long a body of which so many bytes have arrived may have taken for them.
fn time_for(bytes: usize) -> Duration {
    (GRACE + Duration::from_secs((bytes / MIN_BYTES_PER_S) as u64)).min(BODY_TIMEOUT)
}

fn too_slow(bytes: usize, elapsed: Duration) -> ApiError {
    ApiError::request_timeout(format!(
        "The request body arrived too slowly: {bytes} bytes in {} seconds; it must keep {MIN_BYTES_PER_S} bytes per second, \
         and {} seconds in all",
        elapsed.as_secs(),
        BODY_TIMEOUT.as_secs()
    ))
    .with_hint("send smaller batches, or compress them")
}

fn too_large() -> ApiError {
    ApiError::too_large(format!("The request body is larger than {MAX_BODY_BYTES} bytes"))
        .with_hint("send several smaller batches, or compress them")
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
        let mut refusal = None;
        let plain = decompress(body, encoding.as_deref(), |bytes| {
            room.grow_to(sent + bytes).map_err(|error| refusal = Some(error)).is_ok()
        });
        match (plain, refusal) {
            (_, Some(refusal)) => Err(refusal),
            (Ok(plain), None) => {
                room.0.shrink_to(plain.len() as u64);
                Ok((plain, room))
            }
            (Err(error @ BodyError::TooLarge), None) => Err(ApiError::too_large(error.to_string())),
            (Err(error), None) => Err(ApiError::bad_request("invalid_encoding", error.to_string())),
        }
    });
    task.await.map_err(|_| ApiError::internal())?
}

#[cfg(test)]
mod tests {
    use agentlens_fairness::Rule;

    use super::*;

    #[test]
    fn a_body_must_keep_its_rate() {
        assert_eq!(time_for(0), GRACE);
        assert_eq!(time_for(MIN_BYTES_PER_S - 1), GRACE);
        assert_eq!(time_for(10 * MIN_BYTES_PER_S), GRACE + Duration::from_secs(10));
        assert_eq!(time_for(MAX_BODY_BYTES), BODY_TIMEOUT);
    }

    #[test]
    fn memory_is_taken_as_bytes_arrive() {
        let bodies = FairShare::new(Rule::new(1 << 20));
        let org = OrgId::parse("acme").unwrap();
        let mut room = Room::empty(&bodies, &org).unwrap();
        assert_eq!(bodies.used(), 0);
        let mut whole = Vec::new();
        reserve(&mut whole, 1, MAX_BODY_BYTES, &mut room).unwrap();
        assert_eq!(bodies.used(), FIRST_BYTES as u64);
        // A small body takes what it declares, and a chunk larger than the step what it needs.
        let mut small = Vec::new();
        let mut small_room = Room::empty(&bodies, &org).unwrap();
        reserve(&mut small, 10, 100, &mut small_room).unwrap();
        assert_eq!((small.capacity(), small_room.0.amount()), (100, 100));
        reserve(&mut whole, 300_000, MAX_BODY_BYTES, &mut room).unwrap();
        assert_eq!(room.0.amount(), 300_000);
        let error = reserve(&mut whole, 600_000, MAX_BODY_BYTES, &mut room).unwrap_err();
        assert_eq!((error.status().as_u16(), error.retry_after_s()), (429, Some(1)));
        assert!(error.text().contains("this org"), "{}", error.text());
        drop((room, small_room));
        assert_eq!(bodies.used(), 0);
    }

    #[tokio::test]
    async fn nothing_is_taken_for_a_body_that_only_declares_itself() {
        let bodies = FairShare::new(Rule::new(1 << 30));
        let org = OrgId::parse("acme").unwrap();
        let mut room = Room::empty(&bodies, &org).unwrap();
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let reading = collect(Some(MAX_BODY_BYTES), silent, &mut room);
        assert!(tokio::time::timeout(Duration::from_millis(20), reading).await.is_err());
        assert_eq!(bodies.used(), 0);
        let large = Body::from(vec![0; 10]);
        let error = collect(Some(MAX_BODY_BYTES + 1), large, &mut room).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 413);
    }
}
