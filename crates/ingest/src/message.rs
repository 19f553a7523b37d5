//! The bytes of a batch in the queue: a version, then postcard compressed with zstd. The next version of the program must be able
//! to read this one, because messages stay in the queue during an upgrade.

use std::cell::RefCell;

use agentlens_domain::batches::Batch;
use agentlens_domain::limits::MAX_DECOMPRESSED_BYTES;
use zstd::zstd_safe::{CCtx, DCtx, compress_bound, get_frame_content_size};

const VERSION: u8 = 5;
/// Level 1 gives the best ratio of compression to CPU for batches of JSON.
const ZSTD_LEVEL: i32 = 1;
/// The largest batch before compression. Canonical JSON is larger than what the gateway accepts, but rarely twice as large.
const MAX_PLAIN_BYTES: usize = 2 * MAX_DECOMPRESSED_BYTES;

thread_local! {
    // One per thread; creating one per message is slow.
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Why a message can't be read as a batch.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// A newer program wrote it.
    #[error("the message has version {0}, which this program does not know")]
    UnknownVersion(u8),
    /// Its bytes are damaged.
    #[error("the message can't be read")]
    Broken,
    /// It is larger than the limit.
    #[error("the batch has more than {MAX_PLAIN_BYTES} bytes as it is queued; send smaller ones")]
    TooLarge,
}

/// Whether a message of this version was written by a newer program, which will be able to read it.
pub(crate) fn is_newer(version: u8) -> bool {
    version > VERSION
}

/// Encodes a batch.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, MessageError> {
    let plain = postcard::to_stdvec(batch).map_err(|_| MessageError::Broken)?;
    if plain.len() > MAX_PLAIN_BYTES {
        return Err(MessageError::TooLarge);
    }
    let mut message = vec![0; 1 + compress_bound(plain.len())];
    message[0] = VERSION;
    let length = COMPRESSOR
        .with_borrow_mut(|context| context.compress(&mut message[1..], &plain, ZSTD_LEVEL))
        .map_err(|_| MessageError::Broken)?;
    message.truncate(1 + length);
    Ok(message)
}

/// Decodes a message.
pub fn decode(message: &[u8]) -> Result<Batch, MessageError> {
    let (version, compressed) = message.split_first().ok_or(MessageError::Broken)?;
    if *version != VERSION {
        return Err(MessageError::UnknownVersion(*version));
    }
    let stated = get_frame_content_size(compressed).map_err(|_| MessageError::Broken)?;
    // A frame that doesn't state its length (from a streaming encoder) gets the maximum. Memory that is not touched costs nothing.
    let length = stated.map_or(Ok(MAX_PLAIN_BYTES), usize::try_from).map_err(|_| MessageError::Broken)?;
    if length > MAX_PLAIN_BYTES {
        return Err(MessageError::Broken);
    }
    let mut plain = Vec::with_capacity(length);
    DECOMPRESSOR
        .with_borrow_mut(|context| context.decompress(&mut plain, compressed))
        .map_err(|_| MessageError::Broken)?;
    postcard::from_bytes(&plain).map_err(|_| MessageError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentlens_domain::ids::{BatchId, KeyId, WorkspaceId};
    use agentlens_domain::ledger::Refusals;

    #[test]
    fn a_batch_survives_and_garbage_does_not_panic() {
        let batch = Batch {
            batch_id: BatchId::at(1_767_323_045_678_000),
            workspace_id: WorkspaceId::default_workspace(),
            environment: "production".to_owned(),
            key_id: KeyId::random(),
            received_us: 5,
            received_count: 0,
            refused: Refusals::default(),
            events: Vec::new(),
        };
        let message = encode(&batch).unwrap();
        assert_eq!(decode(&message).unwrap(), batch);
        for end in 0..message.len() {
            assert!(decode(&message[..end]).is_err());
        }
        assert_eq!(decode(&message).unwrap(), batch);
        assert!(matches!(decode(&[9, 1, 2]), Err(MessageError::UnknownVersion(9))));

        // A streaming encoder doesn't state the length.
        let plain = postcard::to_stdvec(&batch).unwrap();
        let mut streamed = vec![VERSION];
        zstd::stream::copy_encode(plain.as_slice(), &mut streamed, ZSTD_LEVEL).unwrap();
        assert_eq!(decode(&streamed).unwrap(), batch);
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_unpacked() {
        let plain = vec![0; MAX_PLAIN_BYTES + 1];
        let mut stated = vec![VERSION];
        stated.extend(zstd::bulk::compress(&plain, ZSTD_LEVEL).unwrap());
        let mut streamed = vec![VERSION];
        zstd::stream::copy_encode(plain.as_slice(), &mut streamed, ZSTD_LEVEL).unwrap();
        for message in [stated, streamed] {
            assert!(matches!(decode(&message), Err(MessageError::Broken)));
        }
    }
}
