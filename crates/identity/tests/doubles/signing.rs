//! Keys, made when the tests run, and tokens signed with them.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384};

/// Making one takes a second or two without optimization, so all tests of a run share it.
static RSA: LazyLock<RsaPrivateKey> = LazyLock::new(|| rsa(2048));
static WEAK_RSA: LazyLock<RsaPrivateKey> = LazyLock::new(|| rsa(1024));

fn rsa(bits: usize) -> RsaPrivateKey {
    RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap()
}

/// A private key with its id.
pub struct Key {
    pub kid: String,
    secret: Secret,
}

enum Secret {
    Rsa(&'static RsaPrivateKey),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

impl Key {
    pub fn rsa(kid: &str) -> Self {
        Self { kid: kid.to_owned(), secret: Secret::Rsa(&RSA) }
    }

    pub fn weak_rsa(kid: &str) -> Self {
        Self { kid: kid.to_owned(), secret: Secret::Rsa(&WEAK_RSA) }
    }

    pub fn ec(kid: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self { kid: kid.to_owned(), secret: Secret::Ec(Box::new(pair.unwrap())) }
    }

    pub fn ed(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        Self { kid: kid.to_owned(), secret: Secret::Ed(Box::new(pair)) }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.secret {
            Secret::Rsa(_) => "RS256",
            Secret::Ec(_) => "ES256",
            Secret::Ed(_) => "EdDSA",
        }
    }

    /// The public half, as it is published.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let mut jwk = match &self.secret {
            Secret::Rsa(key) => {
                json!({"kty": "RSA", "n": text(&key.n().to_bytes_be()), "e": text(&key.e().to_bytes_be())})
            }
            Secret::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Secret::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    /// A token, signed as this key signs, whatever its header says (but for SHA-384 with RSA, which is done as asked).
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let input = input(header, claims);
        let signature = match &self.secret {
            Secret::Rsa(key) if header["alg"] == "RS384" => {
                key.sign(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(&input)).unwrap()
            }
            Secret::Rsa(key) => key.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(&input)).unwrap(),
            Secret::Ec(pair) => pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(input.as_bytes()).as_ref().to_vec(),
        };
        format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    /// The public half as bytes that everybody knows: what a confused verifier would take for a shared secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Rsa(key) => key.n().to_bytes_be(),
            Secret::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Secret::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

/// A token with an HMAC.
pub fn sign_hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let input = input(header, claims);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(input.as_bytes());
    format!("{input}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
}

/// A token without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.", input(header, claims))
}

/// `at_hash` of an access token, for algorithms with SHA-256.
pub fn access_token_hash(access_token: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(access_token)[..16])
}

fn input(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", encode(header), encode(claims))
}
