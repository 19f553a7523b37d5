//! Passwords of people: argon2id at rest, and random ones for accounts that the program makes.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, SaltString};

use crate::ids::fill_random;

/// Random bytes of a password that the program makes.
const RANDOM_PASSWORD_BYTES: usize = 15;
/// Random bytes of a salt.
const SALT_BYTES: usize = 16;

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
    Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).map_err(fault)
}

/// A new random password of 24 lower-case characters.
pub fn random() -> String {
    let mut bytes = [0u8; RANDOM_PASSWORD_BYTES];
    fill_random(&mut bytes);
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHash;
    use argon2::password_hash::PasswordVerifier;

    use super::*;

    #[test]
    fn a_hash_fits_its_password_only() {
        let stored = hash("correct horse").unwrap();
        let parsed = PasswordHash::new(&stored).unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct hors", &parsed).is_err());
        assert_ne!(hash("correct horse").unwrap(), stored);
    }

    #[test]
    fn random_passwords_differ() {
        assert_eq!(random().len(), 24);
        assert_ne!(random(), random());
    }
}
