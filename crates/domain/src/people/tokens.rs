//! Secrets that we hand out: of browser sessions, of links in mails, of identity providers, of known browsers.
//!
//! Each carries 256 random bits and begins with what it is for, so that a leaked one is recognised. At rest only its digest is kept:
//! an HMAC under a key that is derived from the server's secret for this purpose alone. A token of one purpose is therefore unknown
//! for every other, even if someone changes its prefix.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::ids::fill_random;
use crate::keys::ServerSecret;

/// Random bytes of a token.
pub const SECRET_BYTES: usize = 32;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenPurpose {
    /// A browser session.
    Session,
    /// The link that proves an address.
    Verify,
    /// The link that sets a new password.
    Reset,
    /// An invitation to an org.
    Invite,
    /// An identity provider that manages an org's people by SCIM.
    Scim,
    /// A browser that someone has signed in with before.
    Device,
    /// A sign-in that is half done.
    Flow,
}

impl TokenPurpose {
    /// Every purpose.
    pub const EVERY: [Self; 7] =
        [Self::Session, Self::Verify, Self::Reset, Self::Invite, Self::Scim, Self::Device, Self::Flow];

    /// What its tokens begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Session => "al_session_",
            Self::Verify => "al_verify_",
            Self::Reset => "al_reset_",
            Self::Invite => "al_invite_",
            Self::Scim => "al_scim_",
            Self::Device => "al_device_",
            Self::Flow => "al_flow_",
        }
    }

    /// The purpose of the derived key. Changing one voids all tokens that were handed out.
    fn key_purpose(self) -> &'static str {
        match self {
            Self::Session => "token: session",
            Self::Verify => "token: verify",
            Self::Reset => "token: reset",
            Self::Invite => "token: invite",
            Self::Scim => "token: scim",
            Self::Device => "token: device",
            Self::Flow => "token: flow",
        }
    }
}

/// A whole token. It exists when it is made and when it is presented, never at rest.
#[derive(Clone)]
pub struct Secret {
    purpose: TokenPurpose,
    bytes: [u8; SECRET_BYTES],
}

impl Secret {
    /// A new token.
    pub fn generate(purpose: TokenPurpose) -> Self {
        let mut bytes = [0u8; SECRET_BYTES];
        fill_random(&mut bytes);
        Self::of(purpose, bytes)
    }

    /// The token of given random bytes.
    pub fn of(purpose: TokenPurpose, bytes: [u8; SECRET_BYTES]) -> Self {
        Self { purpose, bytes }
    }

    /// Recognises a token of one purpose; `None` for everything else.
    pub fn parse(purpose: TokenPurpose, text: &str) -> Option<Self> {
        let body = text.strip_prefix(purpose.prefix())?;
        let mut bytes = [0u8; SECRET_BYTES];
        if body.len() != BASE64URL_NOPAD.encode_len(SECRET_BYTES) {
            return None;
        }
        // It refuses other spellings of the same bytes too.
        BASE64URL_NOPAD.decode_mut(body.as_bytes(), &mut bytes).ok()?;
        Some(Self { purpose, bytes })
    }

    /// The whole token, to be handed out once.
    pub fn reveal(&self) -> String {
        format!("{}{}", self.purpose.prefix(), BASE64URL_NOPAD.encode(&self.bytes))
    }

    /// What it is for.
    pub fn purpose(&self) -> TokenPurpose {
        self.purpose
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}..)", self.purpose.prefix())
    }
}

/// What is kept of a token. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// A digest as it was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest, to be stored or looked up.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// The keys of all digests of tokens, derived once from the server's secret.
#[derive(Clone)]
pub struct TokenKeys {
    macs: [Hmac<Sha256>; TokenPurpose::EVERY.len()],
}

impl TokenKeys {
    /// The keys that follow from a server's secret.
    pub fn of(secret: &ServerSecret) -> Self {
        Self { macs: TokenPurpose::EVERY.map(|purpose| secret.mac_for(purpose.key_purpose())) }
    }

    /// What is kept of a token.
    pub fn digest(&self, token: &Secret) -> TokenDigest {
        let [session, verify, reset, invite, scim, device, flow] = &self.macs;
        let mac = match token.purpose {
            TokenPurpose::Session => session,
            TokenPurpose::Verify => verify,
            TokenPurpose::Reset => reset,
            TokenPurpose::Invite => invite,
            TokenPurpose::Scim => scim,
            TokenPurpose::Device => device,
            TokenPurpose::Flow => flow,
        };
        let mut mac = mac.clone();
        mac.update(&token.bytes);
        TokenDigest(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_recognised_for_its_purpose_only() {
        for purpose in TokenPurpose::EVERY {
            let token = Secret::generate(purpose);
            let text = token.reveal();
            assert!(text.starts_with(purpose.prefix()) && text.len() == purpose.prefix().len() + 43);
            assert_eq!(Secret::parse(purpose, &text).unwrap().reveal(), text);
            let others = TokenPurpose::EVERY.into_iter().filter(|other| *other != purpose);
            assert!(others.clone().all(|other| Secret::parse(other, &text).is_none()));
            for other in others {
                assert!(!text.starts_with(other.prefix()));
            }
            assert_ne!(Secret::generate(purpose).reveal(), text);
        }
    }

    #[test]
    fn a_damaged_token_is_none() {
        let text = Secret::of(TokenPurpose::Reset, [7; 32]).reveal();
        let parse = |text: &str| Secret::parse(TokenPurpose::Reset, text);
        for bad in [
            "",
            "al_reset_",
            &text[..text.len() - 1],
            &format!("{text}A"),
            &format!(" {text}"),
            &format!("{text}="),
            &text.replace("al_reset_", "al_RESET_"),
            &text.replace("al_reset_", ""),
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
        // The last character carries four bits; other spellings of the same bytes are no tokens.
        let ending = text.len() - 1;
        let spellings =
            (b'!'..=b'~').filter(|c| parse(&format!("{}{}", &text[..ending], char::from(*c))).is_some());
        assert_eq!(spellings.count(), 16);
    }

    #[test]
    fn a_digest_depends_on_purpose_and_secret() {
        let (one, other) = (ServerSecret::generate(), ServerSecret::generate());
        let (keys, others) = (TokenKeys::of(&one), TokenKeys::of(&other));
        let digests: Vec<[u8; 32]> = TokenPurpose::EVERY
            .map(|purpose| *keys.digest(&Secret::of(purpose, [7; 32])).as_bytes())
            .to_vec();
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), TokenPurpose::EVERY.len());
        let token = Secret::of(TokenPurpose::Session, [7; 32]);
        assert_eq!(keys.digest(&token), TokenDigest::from_bytes(digests[0]));
        assert_eq!(TokenKeys::of(&one).digest(&token), keys.digest(&token));
        assert_ne!(others.digest(&token), keys.digest(&token));
        // Nor does a digest of the bare secret, as of API keys, mean anything here.
        assert_ne!(one.digest(&token.reveal()), *keys.digest(&token).as_bytes());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = ServerSecret::generate();
        let token = Secret::of(TokenPurpose::Session, [0xAB; 32]);
        assert_eq!(format!("{token:?}"), "Secret(al_session_..)");
        let keys = TokenKeys::of(&secret);
        assert_eq!(format!("{keys:?} {:?}", keys.digest(&token)), "TokenKeys(..) TokenDigest(..)");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_is_exact(text in any::<String>(), bytes in any::<[u8; 32]>()) {
            prop_assert!(Secret::parse(TokenPurpose::Verify, &text).is_none());
            let prefixed = Secret::parse(TokenPurpose::Verify, &format!("al_verify_{text}"));
            prop_assert!(prefixed.is_none_or(|it| it.reveal().ends_with(&text)));
            let token = Secret::of(TokenPurpose::Verify, bytes);
            prop_assert_eq!(Secret::parse(TokenPurpose::Verify, &token.reveal()).map(|it| it.bytes), Some(bytes));
        }
    }
}
