//! Guesses of passwords: how many are free, how long the next one has to wait, and why that can't be used to lock someone out.
//!
//! A browser that has signed in to an account keeps a signed cookie of that account, and its guesses are counted for itself. All browsers
//! without one share a counter of the account. So strangers may use up what strangers have, and the known browser still signs in.
//! Accounts that don't exist have counters too; otherwise waits would show which ones exist.
//!
//! A guess is counted before the password is looked at ([`Guesses::begin`], in one transaction), so that guesses sent at the same time
//! are no more than guesses sent one after the other, and a right one during a wait is refused like a wrong one.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::email::EmailAddress;
use super::tokens::{Secret, TokenDigest, TokenKeys, TokenPurpose};
use crate::keys::ServerSecret;

/// Guesses before the first wait.
pub const FREE_GUESSES: u32 = 5;
/// The first wait; each further guess doubles it.
pub const FIRST_WAIT_US: i64 = 1_000_000;
/// The longest wait: 15 minutes.
pub const MAX_WAIT_US: i64 = 15 * 60 * 1_000_000;
/// After this time without a guess all is forgotten: 24 hours. Counters that are older may be deleted.
pub const FORGET_AFTER_US: i64 = 24 * 3600 * 1_000_000;

/// How far the clocks of two servers may differ: 10 seconds.
const MAX_CLOCK_SKEW_US: i64 = 10_000_000;

/// What one counter knows. A counter that isn't stored is the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guesses {
    /// Guesses since the last success.
    pub count: u32,
    /// When the last of them was admitted, microseconds UTC.
    pub last_us: i64,
}

/// A guess has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts; try again in {} s", self.retry_after_s())]
pub struct MustWait {
    /// After how many microseconds the next guess is admitted; at least 1.
    pub retry_after_us: i64,
}

impl MustWait {
    /// The same in whole seconds, rounded up, for `Retry-After`.
    pub fn retry_after_s(&self) -> i64 {
        (self.retry_after_us + 999_999).div_euclid(1_000_000)
    }
}

impl Guesses {
    /// Counts a guess at `now_us`, before it is known whether it is right. What is returned is to be stored; after a success, the counter
    /// is to be deleted.
    ///
    /// # Errors
    /// When guesses have to wait. What is stored stays as it is, so that trying during a wait doesn't make it longer.
    pub fn begin(self, now_us: i64) -> Result<Self, MustWait> {
        // A clock that was set back must not make anyone wait for longer; that of another server is only a little behind.
        let is_set_back = now_us.saturating_add(MAX_CLOCK_SKEW_US) < self.last_us;
        let since_us = now_us.saturating_sub(self.last_us).max(0);
        if since_us >= FORGET_AFTER_US {
            return Ok(Self { count: 1, last_us: now_us });
        }
        let wait_us = self.wait_us();
        if since_us < wait_us && !is_set_back {
            return Err(MustWait { retry_after_us: wait_us - since_us });
        }
        let last_us = if is_set_back { now_us } else { now_us.max(self.last_us) };
        Ok(Self { count: self.count.saturating_add(1), last_us })
    }

    /// How long after its last guess this counter admits the next one.
    fn wait_us(&self) -> i64 {
        match self.count.checked_sub(FREE_GUESSES) {
            None => 0,
            // 2^10 seconds are more than 15 minutes.
            Some(doublings) => (FIRST_WAIT_US << doublings.min(10)).min(MAX_WAIT_US),
        }
    }
}

/// Whose guesses are counted together, as a key to store the counter under. It names no one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuessCounter {
    /// Those of one browser that has signed in to the account before.
    Device(TokenDigest),
    /// Those of all other browsers, for one account.
    Strangers(TokenDigest),
}

impl GuessCounter {
    /// The key to store it under; one table may hold both kinds.
    pub fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Device(digest) | Self::Strangers(digest) => digest.as_bytes(),
        }
    }
}

/// The cookie of a browser that has signed in. It proves nothing but that, so it signs no one in.
#[derive(Clone)]
pub struct DeviceCookie {
    device: Secret,
    signature: [u8; 32],
}

impl DeviceCookie {
    /// The value of the cookie.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.device.reveal(), BASE64URL_NOPAD.encode(&self.signature))
    }
}

impl fmt::Debug for DeviceCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceCookie(..)")
    }
}

/// Signs cookies of devices, and finds the counter of a guess.
#[derive(Clone)]
pub struct DeviceKeys {
    cookies: Hmac<Sha256>,
    strangers: Hmac<Sha256>,
    tokens: TokenKeys,
}

impl DeviceKeys {
    /// The keys that follow from a server's secret.
    pub fn of(secret: &ServerSecret) -> Self {
        Self {
            cookies: secret.mac_for("device cookie"),
            strangers: secret.mac_for("guesses of strangers"),
            tokens: TokenKeys::of(secret),
        }
    }

    /// The cookie for a browser that has just signed in with this address, and had no valid one. It is made of a new token of the
    /// purpose [`TokenPurpose::Device`].
    pub fn sign(&self, account: &EmailAddress, device: Secret) -> DeviceCookie {
        let signature = self.signature(account, &device).finalize().into_bytes().into();
        DeviceCookie { device, signature }
    }

    /// The cookie that a browser sent, if it was made for this account.
    pub fn recognise(&self, account: &EmailAddress, text: &str) -> Option<DeviceCookie> {
        let (device, signature) = text.split_once('.')?;
        let device = Secret::parse(TokenPurpose::Device, device)?;
        if signature.len() != BASE64URL_NOPAD.encode_len(32) {
            return None;
        }
        let signature: [u8; 32] = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?.try_into().ok()?;
        // This comparison takes the same time wherever they differ.
        self.signature(account, &device).verify_slice(&signature).ok()?;
        Some(DeviceCookie { device, signature })
    }

    /// The counter of a guess at this account's password, by the cookie that came with it, if any.
    pub fn counter(&self, account: &EmailAddress, cookie: Option<&str>) -> GuessCounter {
        match cookie.and_then(|text| self.recognise(account, text)) {
            Some(known) => GuessCounter::Device(self.tokens.digest(&known.device)),
            None => {
                let mut mac = self.strangers.clone();
                mac.update(account.key().as_bytes());
                GuessCounter::Strangers(TokenDigest::from_bytes(mac.finalize().into_bytes().into()))
            }
        }
    }

    fn signature(&self, account: &EmailAddress, device: &Secret) -> Hmac<Sha256> {
        let mut mac = self.cookies.clone();
        // The device goes first: its length is fixed, so nothing can be shifted from one into the other.
        mac.update(device.reveal().as_bytes());
        mac.update(account.key().as_bytes());
        mac
    }
}

impl fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const START_US: i64 = 1_790_000_000_000_000;

    fn account(name: &str) -> EmailAddress {
        EmailAddress::parse(&format!("{name}@example.com")).unwrap()
    }

    fn keys() -> DeviceKeys {
        DeviceKeys::of(&ServerSecret::parse(&"5a".repeat(32)).unwrap())
    }

    /// Guesses at one account, as a server keeps them.
    #[derive(Default)]
    struct Book(HashMap<[u8; 32], Guesses>);

    impl Book {
        /// Whether a guess signs in.
        fn guess(&mut self, counter: GuessCounter, now_us: i64, is_right: bool) -> Result<bool, MustWait> {
            let counted = self.0.get(counter.as_bytes()).copied().unwrap_or_default().begin(now_us)?;
            if is_right {
                self.0.remove(counter.as_bytes());
            } else {
                self.0.insert(*counter.as_bytes(), counted);
            }
            Ok(is_right)
        }
    }

    #[test]
    fn five_guesses_are_free_and_then_waits_double_up_to_15_minutes() {
        let (mut guesses, mut now_us, mut waits) = (Guesses::default(), START_US, Vec::new());
        for _ in 0..20 {
            if let Err(wait) = guesses.begin(now_us) {
                assert_eq!(
                    guesses.begin(now_us + wait.retry_after_us - 1),
                    Err(MustWait { retry_after_us: 1 })
                );
                waits.push(wait.retry_after_s());
                now_us += wait.retry_after_us;
            } else {
                waits.push(0);
            }
            guesses = guesses.begin(now_us).unwrap();
        }
        let expected = [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900, 900];
        assert_eq!(waits, expected);
        assert_eq!(guesses.begin(now_us + FORGET_AFTER_US).unwrap().count, 1);
        assert_eq!(guesses.begin(now_us).unwrap_err().to_string(), "too many attempts; try again in 900 s");
    }

    #[test]
    fn a_right_guess_during_a_wait_is_refused_like_a_wrong_one() {
        let (mut book, counter) = (Book::default(), keys().counter(&account("jane"), None));
        for _ in 0..FREE_GUESSES {
            assert_eq!(book.guess(counter, START_US, false), Ok(false));
        }
        let refused = Err(MustWait { retry_after_us: FIRST_WAIT_US });
        assert_eq!(book.guess(counter, START_US, true), refused);
        assert_eq!(book.guess(counter, START_US, false), refused);
        // A success begins anew.
        assert_eq!(book.guess(counter, START_US + FIRST_WAIT_US, true), Ok(true));
        for _ in 0..FREE_GUESSES {
            assert_eq!(book.guess(counter, START_US + FIRST_WAIT_US, false), Ok(false));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_wait() {
        let guesses = Guesses { count: 1_000, last_us: START_US };
        let set_back_us = START_US - MAX_CLOCK_SKEW_US - 1;
        assert_eq!(guesses.begin(set_back_us), Ok(Guesses { count: 1_001, last_us: set_back_us }));
        assert!(Guesses { count: u32::MAX, last_us: i64::MIN }.begin(i64::MAX).is_ok());
        assert!(Guesses { count: u32::MAX, last_us: i64::MAX }.begin(i64::MIN).is_ok());
    }

    #[test]
    fn a_server_whose_clock_is_behind_admits_no_more() {
        let guesses = Guesses { count: 1_000, last_us: START_US };
        let refused = Err(MustWait { retry_after_us: MAX_WAIT_US });
        assert_eq!(guesses.begin(START_US - MAX_CLOCK_SKEW_US), refused);
        assert_eq!(guesses.begin(START_US), refused);
        let free = Guesses { count: 1, last_us: START_US };
        assert_eq!(free.begin(START_US - 1), Ok(Guesses { count: 2, last_us: START_US }));
    }

    #[test]
    fn a_cookie_is_known_to_its_account_only() {
        let keys = keys();
        let (jane, other) = (account("jane"), account("other"));
        let cookie = keys.sign(&jane, Secret::generate(TokenPurpose::Device)).reveal();
        assert_eq!(keys.recognise(&jane, &cookie).unwrap().reveal(), cookie);
        let spelling = EmailAddress::parse("JANE@Example.com").unwrap();
        assert_eq!(keys.counter(&spelling, Some(&cookie)), keys.counter(&jane, Some(&cookie)));
        assert!(matches!(keys.counter(&jane, Some(&cookie)), GuessCounter::Device(_)));
        assert_eq!(keys.counter(&other, Some(&cookie)), keys.counter(&other, None));
        assert_ne!(keys.counter(&jane, None).as_bytes(), keys.counter(&other, None).as_bytes());
        assert!(DeviceKeys::of(&ServerSecret::generate()).recognise(&jane, &cookie).is_none());
        // A cookie put together from parts of two.
        let second = keys.sign(&jane, Secret::generate(TokenPurpose::Device)).reveal();
        let mixed = format!("{}.{}", cookie.split_once('.').unwrap().0, second.split_once('.').unwrap().1);
        for bad in [
            mixed.as_str(),
            "",
            ".",
            &cookie[1..],
            &cookie[..cookie.len() - 1],
            &format!("{cookie}A"),
            &cookie.replace('.', ""),
        ] {
            assert!(keys.recognise(&jane, bad).is_none(), "{bad}");
            assert!(matches!(keys.counter(&jane, Some(bad)), GuessCounter::Strangers(_)));
        }
        assert_eq!(
            format!("{keys:?} {:?}", keys.recognise(&jane, &cookie).unwrap()),
            "DeviceKeys(..) DeviceCookie(..)"
        );
    }

    proptest! {
        /// What a known browser gets is what it would get if there were no strangers, whatever they do.
        #[test]
        fn a_known_browser_is_never_delayed_by_strangers(
            steps in prop::collection::vec((0i64..40_000_000, 0usize..5, any::<bool>()), 1..200),
        ) {
            let (keys, jane) = (keys(), account("jane"));
            let cookies: Vec<String> =
                [1, 2].map(|byte| keys.sign(&jane, Secret::of(TokenPurpose::Device, [byte; 32])).reveal()).to_vec();
            let foreign = keys.sign(&account("eve"), Secret::of(TokenPurpose::Device, [3; 32])).reveal();
            let (mut shared, mut alone, mut now_us) = (Book::default(), Book::default(), START_US);
            for (pause_us, who, is_right) in steps {
                now_us += pause_us;
                let counter = match who {
                    0 | 1 => keys.counter(&jane, Some(&cookies[who])),
                    2 => keys.counter(&jane, Some(&foreign)),
                    _ => keys.counter(&jane, None),
                };
                let answer = shared.guess(counter, now_us, is_right);
                if who < 2 {
                    prop_assert_eq!(answer, alone.guess(counter, now_us, is_right));
                }
            }
        }

        /// No wait exceeds the bound, a wait is over when it said so, and in a day no more guesses are admitted than waits allow.
        #[test]
        fn waits_are_bounded_and_kept(pauses in prop::collection::vec(0i64..2_000_000_000, 1..300)) {
            let (mut guesses, mut now_us, mut admitted) = (Guesses::default(), START_US, 0i64);
            for pause_us in pauses {
                now_us += pause_us;
                match guesses.begin(now_us) {
                    Ok(counted) => {
                        prop_assert_eq!(counted, Guesses { count: guesses.count + 1, last_us: now_us });
                        (guesses, admitted) = (counted, admitted + 1);
                    }
                    Err(wait) => {
                        prop_assert!((1..=MAX_WAIT_US).contains(&wait.retry_after_us));
                        prop_assert!(guesses.begin(now_us + wait.retry_after_us).is_ok());
                        prop_assert!(guesses.begin(now_us + wait.retry_after_us - 1).is_err());
                    }
                }
            }
            // 15 until waits are longest, and one in each of the longest waits.
            prop_assert!(admitted <= 16 + (now_us - START_US) / MAX_WAIT_US);
        }

        #[test]
        fn no_cookie_panics(text in any::<String>()) {
            prop_assert!(keys().recognise(&account("jane"), &text).is_none());
        }
    }
}
