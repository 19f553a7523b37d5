//! The second factor: codes of an authenticator app (RFC 6238: SHA-1, 6 digits, 30 seconds, which all apps know), and recovery
//! codes for whoever loses it.
//!
//! A code is accepted once: the step that [`accepts`](TotpSeed::accepts) returns is to be stored where it is higher than the stored
//! one, in one statement, so that of two concurrent requests with the same code one fails.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use totp_rs::{Algorithm, Builder, Totp};

use super::email::EmailAddress;
use super::tokens::TokenDigest;
use crate::ids::fill_random;

/// Bytes of a seed (RFC 4226 recommends 160 bits).
pub const SEED_BYTES: usize = 20;
/// Recovery codes of a person.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of a recovery code: 120 bits, so that a plain digest of it can't be guessed.
const RECOVERY_BYTES: usize = 15;
/// Characters of a recovery code.
const RECOVERY_CHARS: usize = 24;
/// Characters between two hyphens of a recovery code as it is shown.
const RECOVERY_GROUP_CHARS: usize = 4;
/// Seconds for which an app shows a code.
const STEP_S: u64 = 30;
/// How many steps the clock of a phone may be ahead or behind.
const SKEW_STEPS: u16 = 1;
/// Bytes of what someone enters that are looked at.
const MAX_ENTRY_BYTES: usize = 64;

/// What the server and the app share. It is encrypted at rest.
#[derive(Clone)]
pub struct TotpSeed([u8; SEED_BYTES]);

impl TotpSeed {
    /// A new random seed.
    pub fn generate() -> Self {
        let mut bytes = [0u8; SEED_BYTES];
        fill_random(&mut bytes);
        Self(bytes)
    }

    /// A seed as it was stored, or of given random bytes.
    pub fn from_bytes(bytes: [u8; SEED_BYTES]) -> Self {
        Self(bytes)
    }

    /// The seed, to be encrypted and stored.
    pub fn as_bytes(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// The seed for who types it into an app.
    pub fn to_base32(&self) -> String {
        BASE32_NOPAD.encode(&self.0)
    }

    /// The address that apps read from a QR code. `issuer` is what an app shows, such as the name of the server.
    pub fn otpauth_url(&self, issuer: &str, account: &EmailAddress) -> String {
        // A colon separates the issuer from the account.
        let issuer = issuer.replace(':', " ");
        let totp =
            self.builder().with_issuer(Some(issuer)).with_account_name(account.as_str()).build_noncompliant();
        #[expect(clippy::expect_used, reason = "an address is never empty and has no colon")]
        totp.to_url().expect("an address is never empty and has no colon")
    }

    /// The step of a code, if it is the app's code at `now_us`, or within 30 seconds of it, and of a later step than the last one that
    /// was accepted.
    pub fn accepts(&self, code: &str, now_us: i64, last_step: Option<i64>) -> Option<i64> {
        if code.len() > MAX_ENTRY_BYTES {
            return None;
        }
        // Apps show two groups of three.
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let now_s = u64::try_from(now_us.div_euclid(1_000_000)).ok()?;
        let step = i64::try_from(self.totp().check(&code, now_s)?).ok()?;
        last_step.is_none_or(|last| step > last).then_some(step)
    }

    fn builder(&self) -> Builder {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(STEP_S)
            .with_skew(SKEW_STEPS)
            .with_secret(self.0.to_vec())
    }

    fn totp(&self) -> Totp {
        self.builder().build_noncompliant()
    }
}

impl fmt::Debug for TotpSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSeed(..)")
    }
}

/// A code that signs in once instead of the app.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(String);

impl RecoveryCode {
    /// New codes for a person; they replace all older ones.
    pub fn generate() -> [Self; RECOVERY_CODES] {
        std::array::from_fn(|_| {
            let mut bytes = [0u8; RECOVERY_BYTES];
            fill_random(&mut bytes);
            Self::of(bytes)
        })
    }

    /// The code of given random bytes.
    pub fn of(bytes: [u8; RECOVERY_BYTES]) -> Self {
        Self(BASE32_NOPAD.encode(&bytes))
    }

    /// Reads what someone typed: in any case, with or without spaces and hyphens. `None` if it can't be a code.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 2 * MAX_ENTRY_BYTES {
            return None;
        }
        let code: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_ascii_uppercase())
            // The alphabet has neither of these digits, so they are misread letters.
            .map(|c| {
                if c == '0' {
                    'O'
                } else if c == '8' {
                    'B'
                } else {
                    c
                }
            })
            .collect();
        let is_code = code.len() == RECOVERY_CHARS && BASE32_NOPAD.decode(code.as_bytes()).is_ok();
        is_code.then_some(Self(code))
    }

    /// The code as it is shown once: `abcd-efgh-...`, six groups of four.
    pub fn reveal(&self) -> String {
        let mut shown = String::with_capacity(RECOVERY_CHARS + RECOVERY_CHARS / RECOVERY_GROUP_CHARS);
        for (index, c) in self.0.chars().enumerate() {
            if index > 0 && index.is_multiple_of(RECOVERY_GROUP_CHARS) {
                shown.push('-');
            }
            shown.push(c.to_ascii_lowercase());
        }
        shown
    }

    /// What is kept of it. It doesn't depend on the server's secret: codes outlive a change of that.
    pub fn digest(&self) -> TokenDigest {
        let digest = Sha256::new().chain_update(b"agentlens recovery code: ").chain_update(self.0.as_bytes());
        TokenDigest::from_bytes(digest.finalize().into())
    }
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The seed of the test vectors of RFC 6238, appendix B.
    const RFC: TotpSeed = TotpSeed(*b"12345678901234567890");

    fn code_at(seed: &TotpSeed, now_s: u64) -> String {
        seed.totp().generate(now_s).to_string()
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        let vectors = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (now_s, code) in vectors {
            assert_eq!(RFC.accepts(code, now_s * 1_000_000, None), Some(now_s / 30), "{now_s}");
        }
        assert_eq!(RFC.accepts(" 287 082\n", 59_000_000, None), Some(1));
        for bad in ["", "28708", "2870820", "94287082", "+87082", "２８７０８２", &"1".repeat(1000)] {
            assert_eq!(RFC.accepts(bad, 59_000_000, None), None, "{bad}");
        }
    }

    #[test]
    fn a_code_is_accepted_once_and_within_a_step() {
        let (step, now_us) = (1_000i64, 1_000 * 30_000_000);
        let code = code_at(&RFC, 30_000);
        assert_eq!(RFC.accepts(&code, now_us, None), Some(step));
        assert_eq!(RFC.accepts(&code, now_us - 1, None), Some(step));
        assert_eq!(RFC.accepts(&code, now_us - 30_000_001, None), None);
        assert_eq!(RFC.accepts(&code, now_us + 59_999_999, None), Some(step));
        assert_eq!(RFC.accepts(&code, now_us + 60_000_000, None), None);
        assert_eq!(RFC.accepts(&code, now_us, Some(step - 1)), Some(step));
        assert_eq!(RFC.accepts(&code, now_us, Some(step)), None);
        assert_eq!(RFC.accepts(&code, now_us, Some(step + 1)), None);
        assert_eq!(RFC.accepts(&code, -1, None), None);
    }

    #[test]
    fn an_app_is_told_the_seed() {
        let account = EmailAddress::parse("jane+x@example.com").unwrap();
        let url = url::Url::parse(&RFC.otpauth_url("Agent: Lens", &account)).unwrap();
        assert_eq!((url.scheme(), url.host_str()), ("otpauth", Some("totp")));
        let label = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
        assert_eq!(label, "/Agent  Lens:jane+x@example.com");
        let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        assert!(parameters.contains(&("secret".to_owned(), RFC.to_base32())));
        assert!(parameters.contains(&("issuer".to_owned(), "Agent  Lens".to_owned())));
        assert_eq!(RFC.to_base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_ne!(TotpSeed::generate().as_bytes(), TotpSeed::generate().as_bytes());
        assert_eq!(format!("{RFC:?} {:?}", RecoveryCode::of([1; 15])), "TotpSeed(..) RecoveryCode(..)");
    }

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let codes = RecoveryCode::generate();
        let distinct: std::collections::BTreeSet<String> = codes.iter().map(RecoveryCode::reveal).collect();
        assert_eq!(distinct.len(), RECOVERY_CODES);
        let code = RecoveryCode::of(*b"fifteen letters");
        assert_eq!(code.reveal(), "mzuw-m5df-mvxc-a3df-or2g-k4tt");
        let code = RecoveryCode::of(std::array::from_fn(|index| index as u8 * 17));
        let shown = code.reveal();
        assert_eq!((shown.len(), shown.matches('-').count()), (29, 5));
        for typed in [
            shown.clone(),
            shown.to_uppercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            format!("\n {shown} "),
            shown.replace('o', "0").replace('b', "8"),
        ] {
            let read = RecoveryCode::parse(&typed).unwrap();
            assert_eq!((&read, read.digest()), (&code, code.digest()), "{typed}");
        }
        assert_ne!(codes[0].digest(), codes[1].digest());
        for bad in
            ["", "abcd", &shown[1..], &format!("{shown}a"), &shown.replace('a', "1"), &"a".repeat(10_000)]
        {
            assert_eq!(RecoveryCode::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        /// However often codes are tried, and in whatever order, no step is accepted twice.
        #[test]
        fn no_step_is_accepted_twice(tries in prop::collection::vec((0i64..400, -3i64..4), 1..60)) {
            let seed = TotpSeed::from_bytes([9; 20]);
            let (mut last, mut accepted) = (None, std::collections::BTreeSet::new());
            for (now_s, ahead) in tries {
                let now_s = 1_000_000 + now_s;
                let code = code_at(&seed, u64::try_from(now_s + ahead * 30).unwrap());
                if let Some(step) = seed.accepts(&code, now_s * 1_000_000, last) {
                    prop_assert!(accepted.insert(step));
                    prop_assert!((step - now_s / 30).abs() <= 1);
                    last = Some(step);
                }
            }
        }

        #[test]
        fn nothing_that_is_typed_panics(text in any::<String>()) {
            let _ = RFC.accepts(&text, 59_000_000, None);
            if let Some(code) = RecoveryCode::parse(&text) {
                prop_assert_eq!(RecoveryCode::parse(&code.reveal()), Some(code));
            }
        }
    }
}
