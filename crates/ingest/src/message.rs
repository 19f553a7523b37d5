//! A batch as bytes: a version, then zstd over postcard. Workers of the next version must still read this one.

use agentlens_domain::batches::Batch;
use agentlens_domain::limits::MAX_DECOMPRESSED_BYTES;

const VERSION: u8 = 2;
/// Level 1: the best bytes per CPU for batches of JSON.
const ZSTD_LEVEL: i32 = 1;
/// A batch before compression; what the gateway accepts grows by its canonical form, hardly ever to twice its size.
const MAX_PLAIN_BYTES: usize = 2 * MAX_DECOMPRESSED_BYTES;

/// Why a message is no batch.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Written by a newer program.
    #[error("the message has version {0}, which this program does not know")]
    UnknownVersion(u8),
    /// Broken bytes.
    #[error("the message can't be read")]
    Broken,
    /// More than a worker would read.
    #[error("the batch has more than {MAX_PLAIN_BYTES} bytes as it is queued; send smaller ones")]
    TooLarge,
}

/// The bytes of a batch.
pub fn encode(batch: &Batch) -> Result<Vec<u8>, MessageError> {
    let plain = postcard::to_stdvec(batch).map_err(|_| MessageError::Broken)?;
    if plain.len() > MAX_PLAIN_BYTES {
        return Err(MessageError::TooLarge);
    }
    let mut message = vec![VERSION];
    zstd::stream::copy_encode(plain.as_slice(), &mut message, ZSTD_LEVEL)
        .map_err(|_| MessageError::Broken)?;
    Ok(message)
}

/// The batch in a message.
pub fn decode(message: &[u8]) -> Result<Batch, MessageError> {
    let (version, compressed) = message.split_first().ok_or(MessageError::Broken)?;
    if *version != VERSION {
        return Err(MessageError::UnknownVersion(*version));
    }
    let plain = zstd::stream::read::Decoder::new(compressed).map_err(|_| MessageError::Broken)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(plain, MAX_PLAIN_BYTES as u64), &mut bytes)
        .map_err(|_| MessageError::Broken)?;
    postcard::from_bytes(&bytes).map_err(|_| MessageError::Broken)
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
        assert!(matches!(decode(&[9, 1, 2]), Err(MessageError::UnknownVersion(9))));
    }
}
