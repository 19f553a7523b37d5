//! API keys: their format, their digest at rest and what they may do.
//!
//! A key is `al_live_` or `al_test_`, 43 base64url characters that carry 256 random bits, and a checksum
//! of 6 characters. The checksum finds typing and cutting errors without a look-up, and lets secret scanners
//! recognise a leaked key with few false alarms. At rest a key is HMAC-SHA-256 under a server secret: with
//! 256 random bits a slow hash would add nothing but latency to every request.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::fill_random;

/// Length of the random part in characters (32 bytes as base64url without padding).
const SECRET_CHARS: usize = 43;
/// Length of the checksum in characters.
const CHECKSUM_CHARS: usize = 6;
/// Characters of a key that are stored and shown so that people can tell keys apart.
const SHOWN_CHARS: usize = 12;

/// Whether a key is for live data or for tests; it is readable in the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// `al_live_...`
    Live,
    /// `al_test_...`
    Test,
}

impl KeyKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Live => "al_live_",
            Self::Test => "al_test_",
        }
    }
}

/// A whole API key in clear text. It exists when it is made and when it is presented, never at rest.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Makes a new key of 256 random bits.
    pub fn generate(kind: KeyKind) -> Self {
        let mut secret = [0u8; 32];
        fill_random(&mut secret);
        let body = format!("{}{}", kind.prefix(), BASE64URL_NOPAD.encode(&secret));
        let checksum = checksum(&body);
        Self(format!("{body}{checksum}"))
    }

    /// Recognises a well-formed key; `None` for everything else, a mistyped key included.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("al_live_").or_else(|| text.strip_prefix("al_test_"))?;
        if rest.len() != SECRET_CHARS + CHECKSUM_CHARS || !rest.bytes().all(is_base64url) {
            return None;
        }
        let (body, given) = text.split_at(text.len() - CHECKSUM_CHARS);
        (checksum(body) == given).then(|| Self(text.to_owned()))
    }

    /// The whole key, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The start of the key, which is stored and shown: `al_live_` and four characters of the secret.
    pub fn shown_prefix(&self) -> &str {
        self.0.get(..SHOWN_CHARS).unwrap_or_default()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({}...)", self.shown_prefix())
    }
}

/// What a new key is for. The same values for `agentlens key create` and for a request that makes a key.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// Its name for people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// The workspace that it writes to and reads from.
    pub workspace: String,
    /// The environment of events that name none.
    pub environment: String,
    /// Whether events that name another environment are refused.
    pub is_environment_bound: bool,
    /// When it stops working, microseconds UTC; `None` for never.
    pub expires_us: Option<i64>,
    /// How many requests a minute it may make; `None` for any number.
    pub rate_per_minute: Option<u32>,
    /// The networks that it may be used from, such as `192.0.2.0/24`; all if there are none.
    pub allowed_networks: Vec<String>,
}

impl KeyOptions {
    /// A key of the default workspace that may do everything.
    pub fn everything(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scopes: vec![KeyScope::All],
            workspace: "default".to_owned(),
            environment: "production".to_owned(),
            is_environment_bound: false,
            expires_us: None,
            rate_per_minute: None,
            allowed_networks: Vec::new(),
        }
    }
}

/// The server's secret that digests keys; 32 bytes.
#[derive(Clone)]
pub struct ServerSecret([u8; 32]);

impl ServerSecret {
    /// A new random secret.
    pub fn generate() -> Self {
        let mut bytes = [0u8; 32];
        fill_random(&mut bytes);
        Self(bytes)
    }

    /// Reads the form that `to_text` writes: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The secret as 64 hexadecimal digits, for its file.
    pub fn to_text(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// HMAC-SHA-256 of an API key under this secret.
    pub fn digest(&self, text: &str) -> [u8; 32] {
        let mut mac = keyed(&self.0);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Signs a text for one purpose, such as an audit report. Only a holder of this secret can check the signature.
    pub fn sign(&self, purpose: &str, text: &str) -> [u8; 32] {
        let mut mac = self.mac_for(purpose);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// An HMAC-SHA-256 for one purpose. Its key is derived from this secret, so that a digest made for one purpose means
    /// nothing for another, nor for API keys.
    pub fn mac_for(&self, purpose: &str) -> Hmac<Sha256> {
        keyed(&self.digest(&format!("agentlens derived key: {purpose}")))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl std::fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSecret(..)")
    }
}

/// What a key may do. Names on the wire are `events:write` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyScope {
    /// Everything that a key can do, now and later. Only owners make such keys.
    #[serde(rename = "*")]
    All,
    /// Send events.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Read events, sessions, agents and analytics.
    #[serde(rename = "events:read")]
    EventsRead,
    /// Verify chains and read audit data.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// Make, list and revoke keys.
    #[serde(rename = "keys:manage")]
    KeysManage,
    /// Read what the org is: its name, workspaces, members and use.
    #[serde(rename = "org:read")]
    OrgRead,
    /// Change the org's name and settings.
    #[serde(rename = "org:manage")]
    OrgManage,
    /// Invite and remove members, and change their roles.
    #[serde(rename = "members:manage")]
    MembersManage,
    /// Make, rename and archive workspaces and environments.
    #[serde(rename = "workspaces:manage")]
    WorkspacesManage,
    /// Set prices of models.
    #[serde(rename = "prices:manage")]
    PricesManage,
    /// See, replay and drop batches that could not be applied.
    #[serde(rename = "dead_letters:manage")]
    DeadLettersManage,
}

impl KeyScope {
    /// Every scope, in the order in which they are documented.
    pub const EVERY: [Self; 11] = [
        Self::All,
        Self::EventsWrite,
        Self::EventsRead,
        Self::AuditRead,
        Self::KeysManage,
        Self::OrgRead,
        Self::OrgManage,
        Self::MembersManage,
        Self::WorkspacesManage,
        Self::PricesManage,
        Self::DeadLettersManage,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::AuditRead => "audit:read",
            Self::KeysManage => "keys:manage",
            Self::OrgRead => "org:read",
            Self::OrgManage => "org:manage",
            Self::MembersManage => "members:manage",
            Self::WorkspacesManage => "workspaces:manage",
            Self::PricesManage => "prices:manage",
            Self::DeadLettersManage => "dead_letters:manage",
        }
    }

    /// Reads a name; the names of the published protocol (`ingest`, `query`, `write`, `read`, `audit`, `manage`) too.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ingest" | "write" => Some(Self::EventsWrite),
            "query" | "read" => Some(Self::EventsRead),
            "audit" => Some(Self::AuditRead),
            "manage" => Some(Self::KeysManage),
            name => Self::EVERY.into_iter().find(|scope| scope.as_str() == name),
        }
    }
}

fn checksum(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    let mut text = BASE64URL_NOPAD.encode(digest.get(..5).unwrap_or_default());
    text.truncate(CHECKSUM_CHARS);
    text
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_parse_and_differ() {
        let (a, b) = (ApiKey::generate(KeyKind::Live), ApiKey::generate(KeyKind::Test));
        assert!(ApiKey::parse(a.reveal()).is_some());
        assert!(b.reveal().starts_with("al_test_"));
        assert_ne!(a.reveal(), b.reveal());
    }

    #[test]
    fn one_wrong_character_is_found() {
        let key = ApiKey::generate(KeyKind::Live).reveal().to_owned();
        for index in 8..key.len() {
            let mut bytes = key.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(ApiKey::parse(&changed).is_none(), "{index}");
        }
        assert!(ApiKey::parse(&key[..key.len() - 1]).is_none());
        assert!(ApiKey::parse("als_0123").is_none());
    }

    #[test]
    fn neither_key_nor_secret_is_printed() {
        let key = ApiKey::generate(KeyKind::Live);
        assert!(!format!("{key:?}").contains(&key.reveal()[12..]));
        assert_eq!(format!("{:?}", ServerSecret::generate()), "ServerSecret(..)");
    }

    #[test]
    fn digests_depend_on_the_secret() {
        let (a, b) = (ServerSecret::generate(), ServerSecret::generate());
        assert_ne!(a.digest("k"), b.digest("k"));
        assert_eq!(ServerSecret::parse(&a.to_text()).unwrap().digest("k"), a.digest("k"));
    }

    #[test]
    fn published_scope_names_are_read() {
        assert_eq!(KeyScope::parse("ingest"), Some(KeyScope::EventsWrite));
        assert_eq!(KeyScope::parse("events"), None);
        let as_json = |scope| serde_json::to_value(scope).unwrap();
        assert!(KeyScope::EVERY.iter().all(|scope| as_json(scope) == scope.as_str()));
        assert!(KeyScope::EVERY.iter().all(|scope| KeyScope::parse(scope.as_str()) == Some(*scope)));
    }
}
