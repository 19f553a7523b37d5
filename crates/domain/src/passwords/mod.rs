//! Passwords of people: argon2id at rest, what a new one must be like, and random ones for accounts that the program makes.
//!
//! Hashing and verifying take tens of milliseconds and 19 MiB, and judging a long new password several milliseconds: all three belong on a
//! thread for blocking work, one per core at a time.

mod breached;
mod policy;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

pub use self::breached::BreachedPasswords;
pub use self::policy::{
    MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, PasswordOwner, RefusedPassword, check_length, check_new,
};
use crate::ids::fill_random;

/// Random bytes of a password that the program makes.
const RANDOM_PASSWORD_BYTES: usize = 15;
/// Random bytes of a salt.
const SALT_BYTES: usize = 16;
/// Memory of a hash, in KiB (OWASP's minimum for argon2id, with the two below).
const MEMORY_KIB: u32 = 19_456;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes of that memory.
const LANES: u32 = 1;

/// What the password of an account that doesn't exist is verified against: no password is known to have this hash. It has the
/// parameters of new hashes, so that verifying takes as long.
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$YWdlbnRsZW5zIG5vYm9keQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("the password can't be hashed: {0}")]
pub struct UnusablePassword(String);

/// The argon2id hash of a password, with its salt and parameters, as it is stored. It takes tens of milliseconds.
pub fn hash(password: &str) -> Result<String, UnusablePassword> {
    let mut salt = [0u8; SALT_BYTES];
    fill_random(&mut salt);
    let fault = |error: argon2::password_hash::Error| UnusablePassword(error.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(fault)?;
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| UnusablePassword(error.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).map_err(fault)
}

/// Whether a password fits the stored hash. `None` for an account that doesn't exist or has no password: that takes as long, and
/// nothing fits.
pub fn verify(password: &str, stored: Option<&str>) -> bool {
    let fits = |stored: &str| {
        PasswordHash::new(stored)
            .map(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    };
    // A hash that can't be read is as good as none.
    match stored.map(fits) {
        Some(Ok(fits)) => fits,
        _ => {
            let _ = fits(NOBODYS_HASH);
            false
        }
    }
}

/// Whether a stored hash was made with other parameters than new ones are, so that it is to be replaced when the password is
/// known the next time.
pub fn needs_rehash(stored: &str) -> bool {
    let has_todays_parameters = PasswordHash::new(stored).is_ok_and(|hash| {
        let params = Params::try_from(&hash);
        hash.algorithm == Algorithm::Argon2id.ident()
            && hash.version == Some(Version::V0x13.into())
            && params.is_ok_and(|it| (it.m_cost(), it.t_cost(), it.p_cost()) == (MEMORY_KIB, PASSES, LANES))
    });
    !has_todays_parameters
}

/// A new random password of 24 lower-case characters.
pub fn random() -> String {
    let mut bytes = [0u8; RANDOM_PASSWORD_BYTES];
    fill_random(&mut bytes);
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_password_only() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("correct hors", Some(&stored)));
        assert!(!verify("Correct horse", Some(&stored)));
        assert!(!verify("correct horse ", Some(&stored)));
        assert_ne!(hash("correct horse").unwrap(), stored);
    }

    #[test]
    fn nothing_fits_an_account_without_a_password() {
        for password in ["", "correct horse", NOBODYS_HASH] {
            assert!(!verify(password, None));
            assert!(!verify(password, Some("")) && !verify(password, Some("$argon2id$")));
        }
        // It takes the same work as the hash of an account.
        let parameters = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(NOBODYS_HASH), parameters(&hash("x").unwrap()));
        assert_eq!(NOBODYS_HASH.len(), hash("x").unwrap().len());
        assert!(PasswordHash::new(NOBODYS_HASH).is_ok());
    }

    #[test]
    fn hashes_of_other_parameters_are_replaced() {
        assert!(!needs_rehash(&hash("correct horse").unwrap()));
        assert!(!needs_rehash(NOBODYS_HASH));
        let weaker = [
            NOBODYS_HASH.replace("m=19456", "m=8192"),
            NOBODYS_HASH.replace("t=2", "t=1"),
            NOBODYS_HASH.replace("p=1", "p=2"),
            NOBODYS_HASH.replace("argon2id", "argon2i"),
            NOBODYS_HASH.replace("v=19", "v=16"),
            NOBODYS_HASH.replace("$v=19", ""),
            String::new(),
            "0123:4567".to_owned(),
        ];
        assert!(weaker.iter().all(|stored| needs_rehash(stored)));
    }

    #[test]
    fn random_passwords_differ_and_are_good_ones() {
        assert_eq!(random().len(), 24);
        assert_ne!(random(), random());
        assert_eq!(check_new(&random(), &PasswordOwner::default()), Ok(()));
    }
}
