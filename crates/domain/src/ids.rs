//! Typed identifiers. An id is text everywhere: in SQL, JSON, logs and URLs.
//!
//! Ids that we assign are short and made of characters that need no escaping in any of these places;
//! that is also what lets an org id be written as a literal in `SET LOCAL` (see the PostgreSQL engine).

use std::fmt;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

/// Why a text is not an id of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{kind}` ids have 1 to 64 characters of a-z, A-Z, 0-9, `_` and `-`")]
pub struct InvalidId {
    kind: &'static str,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(String);

        impl $name {
            /// Accepts 1 to 64 characters of `a-z A-Z 0-9 _ -`.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if is_plain_id(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId { kind: $kind }) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// The tenant: billing, members and plan hang on it.
    OrgId, "org"
);
id_type!(
    /// A project inside an org; `default` always exists.
    WorkspaceId, "workspace"
);
id_type!(
    /// An API key's public id (never the secret).
    KeyId, "key"
);
id_type!(
    /// A person.
    UserId, "user"
);
id_type!(
    /// One accepted request on its way through the queue; applying it twice has the effect of once.
    BatchId, "batch"
);

impl OrgId {
    /// The org that a self-hosted server starts with.
    pub fn default_org() -> Self {
        Self("default".to_owned())
    }

    /// The id under which is kept what a person does to the own account, in the places where things are kept by org. No org has it: those
    /// of orgs begin otherwise.
    pub fn of_person(user: &UserId) -> Self {
        Self(user.as_str().to_owned())
    }

    /// A new org's id: 60 random bits, so that ids can't be guessed and collisions are the insert's business.
    pub fn random() -> Self {
        Self(format!("o{}", random_text::<8>().get(..12).unwrap_or_default()))
    }
}

impl WorkspaceId {
    /// The workspace that every org has.
    pub fn default_workspace() -> Self {
        Self("default".to_owned())
    }
}

impl KeyId {
    /// A new key's id.
    pub fn random() -> Self {
        Self(format!("key_{}", random_text::<10>()))
    }
}

impl UserId {
    /// A new person's id.
    pub fn random() -> Self {
        Self(format!("user_{}", random_text::<10>()))
    }
}

impl BatchId {
    /// A new batch's id: a ULID, so that batches sort by the time they came in.
    pub fn at(now_us: i64) -> Self {
        Self(ulid_at(now_us))
    }
}

/// A ULID for the given instant (microseconds UTC): 26 characters, sortable by time, 80 random bits.
pub fn ulid_at(now_us: i64) -> String {
    ulid_of(now_us, random_u128())
}

/// The ULID of an instant (microseconds UTC) and the low 80 bits of `bits`: the same for the same.
pub fn ulid_of(instant_us: i64, bits: u128) -> String {
    let millis = u64::try_from(instant_us / 1000).unwrap_or(0);
    ulid::Ulid::from_parts(millis, bits).to_string()
}

/// A run of ULIDs for one request: they sort in the order in which they were taken.
#[derive(Debug)]
pub struct UlidSequence {
    next: ulid::Ulid,
}

impl UlidSequence {
    /// Starts at a random point of the given instant (microseconds UTC).
    pub fn at(now_us: i64) -> Self {
        let millis = u64::try_from(now_us / 1000).unwrap_or(0);
        // The top random bit stays clear, so that counting up cannot overflow into the time.
        Self { next: ulid::Ulid::from_parts(millis, random_u128() >> 49) }
    }

    /// The next id.
    pub fn take(&mut self) -> String {
        let id = self.next.to_string();
        self.next = self.next.increment().unwrap_or(self.next);
        id
    }
}

fn is_plain_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn random_u128() -> u128 {
    let mut bytes = [0u8; 16];
    fill_random(&mut bytes);
    u128::from_le_bytes(bytes)
}

fn random_text<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    fill_random(&mut bytes);
    BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

/// Bytes of the operating system's generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    fill_random(&mut bytes);
    bytes
}

/// Fills with bytes of the operating system's generator.
#[expect(
    clippy::expect_used,
    reason = "without randomness no secret and no id may be made; stopping is the only safe answer"
)]
pub(crate) fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_needs_escaping() {
        for bad in ["", "a b", "a'b", "é", "a\0", &"x".repeat(65)] {
            assert!(OrgId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(OrgId::parse("o1_A-z").unwrap().as_str(), "o1_A-z");
    }

    #[test]
    fn a_sequence_of_ulids_sorts_and_carries_its_time() {
        let mut sequence = UlidSequence::at(1_767_323_045_678_000);
        let ids: Vec<String> = (0..1000).map(|_| sequence.take()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 26 && id[..10] == ids[0][..10]));
        assert_eq!(ulid::Ulid::from_string(&ids[0]).unwrap().timestamp_ms(), 1_767_323_045_678);
    }

    #[test]
    fn random_org_ids_are_plain_and_differ() {
        let (a, b) = (OrgId::random(), OrgId::random());
        assert_ne!(a, b);
        assert!(OrgId::parse(a.as_str()).is_ok());
        assert_eq!(a.as_str().len(), 13);
    }
}
