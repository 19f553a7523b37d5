//! What the server signs for anyone to check: receipts of deletions, and later exports. Ed25519 signatures in the compact form of JWS,
//! so that any library of JOSE checks them with the public keys that the server publishes.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ids::fill_random;

/// Bytes of a secret key, and of a public one.
const KEY_BYTES: usize = 32;

/// A key that signs. Its secret is kept encrypted.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    key_id: String,
}

impl SigningKey {
    /// A new secret.
    pub fn new_secret() -> [u8; KEY_BYTES] {
        let mut secret = [0u8; KEY_BYTES];
        fill_random(&mut secret);
        secret
    }

    /// The key of a secret; `None` if it has not the right length.
    pub fn of(secret: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(secret).ok()?;
        let key_id = key_id_of(pair.public_key().as_ref());
        Some(Self { pair, key_id })
    }

    /// Its id, which follows from the public key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key.
    pub fn public_key(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// Signs a text: header, text and signature, each as base64url, with points between.
    pub fn sign(&self, text: &str) -> String {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"JOSE"}}"#, self.key_id);
        let signed = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(text.as_bytes())
        );
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.key_id)
    }
}

/// The id of a public key: the beginning of its digest.
fn key_id_of(public_key: &[u8]) -> String {
    let mut text = BASE64URL_NOPAD.encode(&Sha256::digest(public_key));
    text.truncate(16);
    text
}

/// A public key in the form of RFC 8037.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicJwk {
    /// The kind of key.
    pub kty: &'static str,
    /// The curve.
    pub crv: &'static str,
    /// What it is for.
    #[serde(rename = "use")]
    pub used_for: &'static str,
    /// How it signs.
    pub alg: &'static str,
    /// Its id.
    pub kid: String,
    /// The key.
    pub x: String,
}

impl PublicJwk {
    /// The form of a public key.
    pub fn of(public_key: &[u8]) -> Self {
        Self {
            kty: "OKP",
            crv: "Ed25519",
            used_for: "sig",
            alg: "EdDSA",
            kid: key_id_of(public_key),
            x: BASE64URL_NOPAD.encode(public_key),
        }
    }
}

/// The SHA-256 of a text, as hexadecimal digits: that of a receipt, or what a receipt says instead of an org's id.
pub fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

/// The text of a signed one; `None` if this key did not sign it.
pub fn verify(public_key: &[u8], jws: &str) -> Option<String> {
    let (signed, signature) = jws.rsplit_once('.')?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    UnparsedPublicKey::new(&ED25519, public_key).verify(signed.as_bytes(), &signature).ok()?;
    let (_, text) = signed.split_once('.')?;
    String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_verified() {
        let (key, other) = (SigningKey::new_secret(), SigningKey::new_secret());
        let (key, other) = (SigningKey::of(&key).unwrap(), SigningKey::of(&other).unwrap());
        let jws = key.sign(r#"{"a":1}"#);
        assert_eq!(verify(&key.public_key(), &jws).unwrap(), r#"{"a":1}"#);
        assert!(verify(&other.public_key(), &jws).is_none());
        assert!(verify(&key.public_key(), &jws.replacen("eyJh", "eyJi", 2)).is_none());
        assert!(verify(&key.public_key(), &jws[..jws.len() - 2]).is_none());
        assert!(verify(&key.public_key(), "a.b").is_none());
        assert_ne!(key.key_id(), other.key_id());
        assert_eq!(PublicJwk::of(&key.public_key()).kid, key.key_id());
        assert!(SigningKey::of(b"short").is_none());
    }
}
