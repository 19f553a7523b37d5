//! The published hash chain of a session, and the verification of what is stored of it.
//!
//! An event's hash is the SHA-256 of ten fields printed as ECMAScript's `JSON.stringify` prints them,
//! the last being the hash of the event before. It does not cover the columns that the server adds, so every
//! event also carries a [`Seal`] over those, which continues the seal of the event before it.

mod sealed;
mod seals;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::json::{escape, plain_length};

pub use sealed::{SealedColumns, SealedSpan, SealedTrace};
pub use seals::{NO_SEAL, RowFields, SEAL_BYTES, Seal, SealKey};

/// The hash of an event. Printed and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

/// A text is not the printed form of a [`struct@Hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("A hash is written as 64 lower-case hexadecimal digits.")]
pub struct HashParseError;

impl Hash {
    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash held by exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn write_hex<'buffer>(&self, buffer: &'buffer mut [u8; 64]) -> &'buffer [u8] {
        data_encoding::HEXLOWER.encode_mut(&self.0, buffer);
        buffer
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Self, HashParseError> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(HashParseError);
        }
        data_encoding::HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| HashParseError)?;
        Ok(Self(bytes))
    }
}

/// What the hash of an event covers.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The event's id.
    pub id: &'a str,
    /// When it happened, as stored.
    pub timestamp: &'a str,
    /// The session it belongs to.
    pub session_id: &'a str,
    /// The agent it is about.
    pub agent_id: &'a str,
    /// Its published type, such as `tool_call`.
    pub event_type: &'a str,
    /// Its published severity, such as `info`.
    pub severity: &'a str,
    /// Its payload in canonical form.
    pub payload: &'a str,
    /// Its metadata in canonical form.
    pub metadata: &'a str,
    /// The hash of the event before it in the session.
    pub prev_hash: Option<&'a Hash>,
}

/// The published hash of an event.
pub fn hash(record: &Record<'_>) -> Hash {
    let mut sha = Sha256::new();
    sha.update(b"{\"v\":2,\"id\":\"");
    update_escaped(&mut sha, record.id);
    sha.update(b"\",\"timestamp\":\"");
    update_escaped(&mut sha, record.timestamp);
    sha.update(b"\",\"sessionId\":\"");
    update_escaped(&mut sha, record.session_id);
    sha.update(b"\",\"agentId\":\"");
    update_escaped(&mut sha, record.agent_id);
    sha.update(b"\",\"eventType\":\"");
    update_escaped(&mut sha, record.event_type);
    sha.update(b"\",\"severity\":\"");
    update_escaped(&mut sha, record.severity);
    sha.update(b"\",\"payload\":");
    sha.update(record.payload);
    sha.update(b",\"metadata\":");
    sha.update(record.metadata);
    match record.prev_hash {
        None => sha.update(b",\"prevHash\":null}"),
        Some(previous) => {
            sha.update(b",\"prevHash\":\"");
            sha.update(previous.write_hex(&mut [0; 64]));
            sha.update(b"\"}");
        }
    }
    Hash(sha.finalize().into())
}

/// Feeds the inside of a JSON string; most have nothing to escape and go in at once.
fn update_escaped(sha: &mut Sha256, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_length(rest));
        sha.update(plain);
        let Some((&byte, after)) = special.split_first() else { return };
        sha.update(escape(byte));
        rest = after;
    }
}

/// One stored event as a link of its session's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its place in the session: 1 for the first, then without gaps.
    pub seq: i64,
    /// The hash of the event before it, as stored.
    pub prev_hash: Option<Hash>,
    /// Its own hash, as stored.
    pub hash: Hash,
    /// Its own hash, computed from what is stored.
    pub recomputed: Hash,
}

/// Why a session's chain does not hold. Every `index` counts the session's events from zero, as published clients expect; the
/// texts also name the sequence number, which counts from one as everything else does.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Break {
    /// The first event claims a predecessor.
    #[error("First event must have prevHash = null")]
    FirstHasPrevious,
    /// An event is not what was hashed.
    #[error("Event {index} hash mismatch: expected {expected}, got {got} (seq {seq})", seq = .index + 1)]
    HashMismatch {
        /// The event.
        index: i64,
        /// The hash computed from what is stored.
        expected: Hash,
        /// The hash that is stored.
        got: Hash,
    },
    /// An event does not continue the one before it.
    #[error("Event {index} prevHash does not match previous event's hash (seq {seq})", seq = .index + 1)]
    PreviousMismatch {
        /// The event.
        index: i64,
    },
    /// An event is missing, repeated or out of order.
    #[error("Event {index} is missing: expected sequence {expected}, got {got}")]
    SequenceGap {
        /// The event that should have come.
        index: i64,
        /// Its place in the session.
        expected: i64,
        /// The place of the event that came instead.
        got: i64,
    },
    /// A stored column that the hash does not cover was changed.
    #[error("Event {index} seal does not match its stored columns (seq {seq})", seq = .index + 1)]
    SealMismatch {
        /// The event.
        index: i64,
    },
}

/// Walks one session's stored links in order of sequence.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// The place of the last event that held; 0 before the first.
    seq: i64,
    /// Its hash.
    head: Option<Hash>,
    /// Its seal.
    seal: Seal,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Starts at the first event of a session.
    pub fn new() -> Self {
        Self { seq: 0, head: None, seal: NO_SEAL }
    }

    /// Starts after an event that is known to hold: the last one of a recorded removal, or a checkpoint.
    pub fn starting_after(seq: i64, hash: Hash, seal: Seal) -> Self {
        Self { seq, head: Some(hash), seal }
    }

    /// The place and hash of the last event that held: where a later walk may start.
    pub fn head(&self) -> Option<(i64, Hash)> {
        self.head.map(|hash| (self.seq, hash))
    }

    /// The place of the last event that held; 0 before the first.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// The seal of the last event that held.
    pub fn seal(&self) -> Seal {
        self.seal
    }

    /// Checks the next link and the seal over its columns that the hash does not cover. After a break the verifier still
    /// expects the link that broke.
    ///
    /// # Errors
    /// When the link does not continue the chain or its seal is not the stored one.
    pub fn push(
        &mut self,
        link: &Link,
        key: &SealKey,
        stored_seal: &[u8],
        covered: &[u8],
    ) -> Result<(), Break> {
        self.check(link)?;
        let seal = key.seal_event(&self.seal, &link.hash, covered);
        if seal.as_slice() != stored_seal {
            return Err(Break::SealMismatch { index: self.seq });
        }
        (self.seq, self.head, self.seal) = (link.seq, Some(link.hash), seal);
        Ok(())
    }

    fn check(&self, link: &Link) -> Result<(), Break> {
        let index = self.seq;
        let expected = self.seq.saturating_add(1);
        if link.seq != expected {
            return Err(Break::SequenceGap { index, expected, got: link.seq });
        }
        if self.head.is_none() && link.prev_hash.is_some() {
            return Err(Break::FirstHasPrevious);
        }
        if link.hash != link.recomputed {
            return Err(Break::HashMismatch { index, expected: link.recomputed, got: link.hash });
        }
        if link.prev_hash != self.head {
            return Err(Break::PreviousMismatch { index });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
