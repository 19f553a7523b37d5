//! Seals: keyed digests over what the published hash does not cover.
//!
//! The published hash covers ten fields of an event, and anyone can compute it. A seal is an HMAC under a key that is
//! derived from the server's secret, so that nobody who can only write to the store can make one. The seal of an event covers
//! the seal before it in the session, the event's hash and its typed columns. Seals of rows cover the heads of sessions, the state
//! of an org, and records of removals.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Hash;
use crate::keys::ServerSecret;

/// Bytes of the HMAC that a seal keeps.
const MAC_BYTES: usize = 16;

/// How long a seal is: the number of its key, and the beginning of the HMAC.
pub const SEAL_BYTES: usize = 1 + MAC_BYTES;

/// A seal as it is stored.
pub type Seal = [u8; SEAL_BYTES];

/// What precedes the first seal of a session.
pub const NO_SEAL: Seal = [0; SEAL_BYTES];

/// The number of the key. It stands in each seal, so that a later key can be told from this one.
const KEY_NUMBER: u8 = 1;

/// The key that seals are made with.
#[derive(Clone)]
pub struct SealKey {
    mac: Hmac<Sha256>,
}

impl SealKey {
    /// The key that follows from a server's secret.
    pub fn of(secret: &ServerSecret) -> Self {
        Self { mac: secret.mac_for("seals") }
    }

    /// The seal of an event: over the seal before it, its hash, and its columns that the hash does not cover.
    pub fn seal_event(&self, previous: &Seal, hash: &Hash, covered: &[u8]) -> Seal {
        self.seal(b'e', &[previous, hash.as_bytes(), covered])
    }

    /// The seal of a row: over what it is and its fields, each with its length.
    pub fn seal_row(&self, fields: &RowFields) -> Seal {
        self.seal(b'r', &[&fields.0])
    }

    fn seal(&self, kind: u8, parts: &[&[u8]]) -> Seal {
        let mut mac = self.mac.clone();
        mac.update(&[KEY_NUMBER, kind]);
        for part in parts {
            mac.update(part);
        }
        let mut seal = [KEY_NUMBER; SEAL_BYTES];
        seal[1..].copy_from_slice(&mac.finalize().into_bytes()[..MAC_BYTES]);
        seal
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SealKey(..)")
    }
}

/// The fields of a row that is sealed, as an unambiguous run of bytes.
#[derive(Debug, Clone)]
pub struct RowFields(Vec<u8>);

impl RowFields {
    /// Begins with the kind of row, such as `session`.
    pub fn of(kind: &str) -> Self {
        Self(Vec::with_capacity(512)).text(kind)
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds bytes that may be absent.
    #[must_use]
    pub fn optional(mut self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => {
                self.0.extend_from_slice(&u64::MAX.to_le_bytes());
                self
            }
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{NO_SEAL, RowFields, SealKey};
    use crate::chain::Hash;
    use crate::keys::ServerSecret;

    #[test]
    fn a_seal_depends_on_everything_that_it_covers_and_on_the_secret() {
        let secret = ServerSecret::generate();
        let (key, other) = (SealKey::of(&secret), SealKey::of(&ServerSecret::generate()));
        let hash = Hash::from([7; 32]);
        let seal = key.seal_event(&NO_SEAL, &hash, b"columns");
        assert_eq!(seal, SealKey::of(&secret).seal_event(&NO_SEAL, &hash, b"columns"));
        assert_ne!(seal, key.seal_event(&NO_SEAL, &hash, b"Columns"));
        assert_ne!(seal, key.seal_event(&NO_SEAL, &Hash::from([8; 32]), b"columns"));
        assert_ne!(seal, key.seal_event(&seal, &hash, b"columns"));
        assert_ne!(seal, other.seal_event(&NO_SEAL, &hash, b"columns"));
    }

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        let key = SealKey::of(&ServerSecret::generate());
        let seal = |fields: RowFields| key.seal_row(&fields);
        assert_ne!(seal(RowFields::of("a").text("bc")), seal(RowFields::of("ab").text("c")));
        assert_ne!(seal(RowFields::of("a").text("")), seal(RowFields::of("a").optional(None)));
        assert_eq!(seal(RowFields::of("a").optional(Some(b"x"))), seal(RowFields::of("a").bytes(b"x")));
    }
}
