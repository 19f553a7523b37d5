//! Secrets that the server must be able to read again: seeds of one-time codes, client secrets of identity providers. They are
//! encrypted at rest with XChaCha20-Poly1305 under a key that follows from the server's secret.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::ids::fill_random;
use crate::keys::ServerSecret;

/// The first byte of what is sealed: how, and under which key.
const FORM: u8 = 1;
/// Bytes of a nonce. With 24 random bytes, no two are ever the same.
const NONCE_BYTES: usize = 24;

/// What is stored is not what was sealed under this key for this purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret can't be decrypted")]
pub struct NotReadable;

/// Seals and opens secrets.
#[derive(Clone)]
pub struct SecretBox(XChaCha20Poly1305);

impl SecretBox {
    /// The box of a server's secret.
    pub fn of(secret: &ServerSecret) -> Self {
        Self(XChaCha20Poly1305::new(&secret.digest("agentlens derived key: secrets at rest").into()))
    }

    /// Encrypts a secret. `context` says what it is for and whose it is; it must be the same on opening.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_BYTES];
        fill_random(&mut nonce);
        #[expect(clippy::expect_used, reason = "it fails for texts of 256 GiB only")]
        let sealed = self
            .0
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: secret, aad: context.as_bytes() })
            .expect("it fails for texts of 256 GiB only");
        [&[FORM][..], &nonce, &sealed].concat()
    }

    /// Decrypts what `seal` made.
    ///
    /// # Errors
    /// When it was changed, moved to another place, or sealed under another secret.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, NotReadable> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(NotReadable)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or(NotReadable)?;
        let payload = Payload { msg: text, aad: context.as_bytes() };
        self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| NotReadable)
    }
}

impl std::fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBox(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_and_place_open_it() {
        let secret = ServerSecret::generate();
        let sealed = SecretBox::of(&secret).seal("totp user_1", b"seed");
        assert_ne!(sealed, SecretBox::of(&secret).seal("totp user_1", b"seed"));
        assert!(!sealed.windows(4).any(|bytes| bytes == b"seed"));
        let open =
            |secret: &ServerSecret, context: &str, sealed: &[u8]| SecretBox::of(secret).open(context, sealed);
        assert_eq!(open(&secret, "totp user_1", &sealed).unwrap(), b"seed");
        assert!(open(&secret, "totp user_2", &sealed).is_err());
        assert!(open(&ServerSecret::generate(), "totp user_1", &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(open(&secret, "totp user_1", &sealed[..cut]).is_err());
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert!(open(&secret, "totp user_1", &changed).is_err());
        }
    }
}
