//! The audit log: who changed what, chained so that nothing in it can be altered, removed or moved unnoticed.
//!
//! Each entry is sealed with an HMAC under a key that follows from the server's secret, over the seal before it and all its
//! fields. The head (number and seal of the last entry) is sealed too, so that entries missing at the end are found.
//! An org has two such chains, one for acts on its own data and one for acts on the control tables.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::keys::ServerSecret;

/// A seal: the whole HMAC.
pub type AuditSeal = [u8; 32];

/// What precedes the first seal of a chain.
pub const NO_AUDIT_SEAL: AuditSeal = [0; 32];

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number in the chain: 1, 2, 3, ...
    pub seq: i64,
    /// When, microseconds UTC.
    pub at_us: i64,
    /// Who, such as `key:key_...`, `person:user_...` or `service:cli`.
    pub actor: String,
    /// In which workspace; none for what concerns the org as a whole.
    pub workspace: Option<String>,
    /// From where, as JSON: see [`Origin`](crate::permissions::Origin).
    pub origin: String,
    /// What was done, such as `keys.revoke`.
    pub act: String,
    /// To what, such as the id of a key.
    pub target: String,
    /// What changed, as JSON. It holds what is made for it, never a whole row, so that no secret gets in.
    pub details: String,
}

/// The key of all audit seals of a server.
#[derive(Clone)]
pub struct AuditKey {
    mac: Hmac<Sha256>,
}

impl AuditKey {
    /// The key that follows from a server's secret.
    pub fn of(secret: &ServerSecret) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mac = Hmac::new_from_slice(&secret.digest("agentlens derived key: audit"))
            .expect("HMAC takes keys of any length");
        Self { mac }
    }

    /// The seal of an entry of a chain.
    pub fn seal_entry(&self, chain: &str, previous: &AuditSeal, entry: &AuditEntry) -> AuditSeal {
        let (seq, at_us) = (entry.seq.to_le_bytes(), entry.at_us.to_le_bytes());
        let texts = [&entry.actor, &entry.origin, &entry.act, &entry.target, &entry.details];
        let [actor, origin, act, target, details] = texts.map(String::as_bytes);
        // A workspace's id is never empty.
        let workspace = entry.workspace.as_deref().unwrap_or_default().as_bytes();
        let begin: [&[u8]; 5] = [b"entry", chain.as_bytes(), previous, &seq, &at_us];
        self.seal(&[&begin[..], &[actor, workspace, origin, act, target, details]].concat())
    }

    /// The seal of the head of a chain.
    pub fn seal_head(&self, chain: &str, seq: i64, last: &AuditSeal) -> AuditSeal {
        self.seal(&[b"head", chain.as_bytes(), &seq.to_le_bytes(), last])
    }

    /// Each part goes in with its length, so that nothing can be shifted from one into another.
    fn seal(&self, parts: &[&[u8]]) -> AuditSeal {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

/// Why a chain of audit entries does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditBreak {
    /// An entry is missing, repeated or out of order.
    #[error("entry {expected} is missing")]
    Missing {
        /// The number of the entry.
        expected: i64,
    },
    /// An entry is not what was sealed.
    #[error("entry {seq} was altered")]
    Altered {
        /// The number of the entry.
        seq: i64,
    },
    /// The head is not what was sealed, or is missing.
    #[error("the head of the chain was altered")]
    Head,
}

/// Walks a chain from its first entry.
#[derive(Debug)]
pub struct AuditVerifier<'a> {
    key: &'a AuditKey,
    chain: &'a str,
    seq: i64,
    seal: AuditSeal,
}

impl<'a> AuditVerifier<'a> {
    /// Begins before the first entry of a chain.
    pub fn new(key: &'a AuditKey, chain: &'a str) -> Self {
        Self { key, chain, seq: 0, seal: NO_AUDIT_SEAL }
    }

    /// Checks the next entry and its stored seal.
    ///
    /// # Errors
    /// When it does not continue the chain.
    pub fn push(&mut self, entry: &AuditEntry, stored: &AuditSeal) -> Result<(), AuditBreak> {
        let expected = self.seq + 1;
        if entry.seq != expected {
            return Err(AuditBreak::Missing { expected });
        }
        let seal = self.key.seal_entry(self.chain, &self.seal, entry);
        if seal != *stored {
            return Err(AuditBreak::Altered { seq: entry.seq });
        }
        (self.seq, self.seal) = (entry.seq, seal);
        Ok(())
    }

    /// Checks the stored head after the last entry; `None` if none is stored.
    ///
    /// # Errors
    /// When entries are missing at the end, or the head is not what was sealed.
    pub fn finish(self, head: Option<(i64, AuditSeal)>) -> Result<(), AuditBreak> {
        let Some((seq, stored)) = head else {
            return if self.seq == 0 { Ok(()) } else { Err(AuditBreak::Head) };
        };
        if seq > self.seq {
            return Err(AuditBreak::Missing { expected: self.seq + 1 });
        }
        let is_right = seq == self.seq && self.key.seal_head(self.chain, seq, &self.seal) == stored;
        if is_right { Ok(()) } else { Err(AuditBreak::Head) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(key: &AuditKey, count: i64) -> Vec<(AuditEntry, AuditSeal)> {
        let mut previous = NO_AUDIT_SEAL;
        (1..=count)
            .map(|seq| {
                let entry = AuditEntry {
                    seq,
                    at_us: seq * 10,
                    actor: "service:cli".to_owned(),
                    workspace: Some("default".to_owned()),
                    origin: "{}".to_owned(),
                    act: "keys.revoke".to_owned(),
                    target: format!("key_{seq}"),
                    details: "{}".to_owned(),
                };
                previous = key.seal_entry("org", &previous, &entry);
                (entry, previous)
            })
            .collect()
    }

    fn verify(
        key: &AuditKey,
        entries: &[(AuditEntry, AuditSeal)],
        head: Option<(i64, AuditSeal)>,
    ) -> Result<(), AuditBreak> {
        let mut verifier = AuditVerifier::new(key, "org");
        entries.iter().try_for_each(|(entry, seal)| verifier.push(entry, seal))?;
        verifier.finish(head)
    }

    #[test]
    fn a_whole_chain_holds_and_every_change_of_it_is_found() {
        let key = AuditKey::of(&ServerSecret::generate());
        let good = chain(&key, 3);
        let head = Some((3, key.seal_head("org", 3, &good[2].1)));
        assert_eq!(verify(&key, &good, head), Ok(()));
        assert_eq!(verify(&key, &[], None), Ok(()));

        assert_eq!(verify(&key, &good[..2], head), Err(AuditBreak::Missing { expected: 3 }));
        assert_eq!(verify(&key, &good[1..], head), Err(AuditBreak::Missing { expected: 1 }));
        assert_eq!(verify(&key, &good, None), Err(AuditBreak::Head));
        // Cut, with a head that someone without the secret made to fit.
        assert_eq!(verify(&key, &good[..2], Some((2, good[1].1))), Err(AuditBreak::Head));
        let changes: [fn(&mut AuditEntry); 7] = [
            |entry| entry.at_us += 1,
            |entry| entry.workspace = None,
            |entry| entry.origin.push('x'),
            |entry| entry.actor.push('x'),
            |entry| entry.act.push('x'),
            |entry| entry.target.push('x'),
            |entry| entry.details.push('x'),
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad[1].0);
            assert_eq!(verify(&key, &bad, head), Err(AuditBreak::Altered { seq: 2 }));
        }
        // Resealed by another secret, or moved from the chain of another org.
        let other = AuditKey::of(&ServerSecret::generate());
        assert_eq!(verify(&key, &chain(&other, 3), head), Err(AuditBreak::Altered { seq: 1 }));
        let mut moved = AuditVerifier::new(&key, "elsewhere");
        assert_eq!(moved.push(&good[0].0, &good[0].1), Err(AuditBreak::Altered { seq: 1 }));
    }
}
