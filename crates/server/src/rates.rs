//! What one client may ask for how often, counted in this process.

use std::hash::Hash;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use agentlens_domain::rates::{Rate, Refused};

/// Holders whose counts are kept; beyond, those that were not seen for longest begin anew.
const MAX_HOLDERS: usize = 100_000;

/// Counts of holders, each with a rate of its own.
pub(crate) struct Counts<K>(Mutex<Cache<K, i64>>);

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// How many may come at once.
    pub(crate) limit: i64,
    /// How many could come now.
    pub(crate) remaining: i64,
    /// After how many seconds the whole limit is there again.
    pub(crate) reset_s: i64,
}

impl Left {
    fn of(rate: Rate, next_us: i64, now_us: i64) -> Self {
        let remaining = rate.remaining(next_us, now_us);
        let used_us = (rate.burst() - remaining).saturating_mul(rate.interval_us());
        Self {
            limit: rate.burst(),
            remaining,
            reset_s: used_us.saturating_add(999_999).div_euclid(1_000_000),
        }
    }
}

impl<K: Eq + Hash + Copy> Counts<K> {
    /// Nobody has come yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Cache::new(MAX_HOLDERS)))
    }

    /// Counts one for a holder, or refuses it; says what is left either way.
    pub(crate) fn count(&self, rate: Rate, holder: K, now_us: i64) -> (Left, Result<(), Refused>) {
        let mut holders = self.0.lock();
        let next_us = holders.get(&holder).copied().unwrap_or(0);
        match rate.admit(next_us, now_us, 1) {
            Ok(next_us) => {
                holders.insert(holder, next_us);
                (Left::of(rate, next_us, now_us), Ok(()))
            }
            Err(refused) => (Left::of(rate, next_us, now_us), Err(refused)),
        }
    }
}

/// One rate, counted for each holder on its own.
pub(crate) struct RateLimit<K> {
    rate: Rate,
    counts: Counts<K>,
}

impl<K: Eq + Hash + Copy> RateLimit<K> {
    /// Every holder has this rate.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, counts: Counts::new() }
    }

    /// Counts one for a holder, or refuses it.
    pub(crate) fn count(&self, holder: K, now_us: i64) -> Result<(), Refused> {
        self.counts.count(self.rate, holder, now_us).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let (counts, rate) = (Counts::new(), Rate::per_minute(3));
        let left = |remaining, reset_s| Left { limit: 3, remaining, reset_s };
        assert_eq!(counts.count(rate, "a", 0), (left(2, 20), Ok(())));
        counts.count(rate, "a", 0).1.unwrap();
        assert_eq!(counts.count(rate, "a", 0), (left(0, 60), Ok(())));
        let (now, refused) = counts.count(rate, "a", 1_000_000);
        assert_eq!((now, refused.unwrap_err().retry_after_s()), (left(0, 60), Some(19)));
        assert_eq!(counts.count(rate, "a", 20_000_000), (left(0, 60), Ok(())));
    }

    #[test]
    fn each_holder_has_a_rate_of_its_own() {
        let limit = RateLimit::new(Rate::per_second(1).with_burst(2));
        assert!(limit.count("a", 0).is_ok() && limit.count("a", 0).is_ok());
        assert_eq!(limit.count("a", 0).unwrap_err().retry_after_us, Some(1_000_000));
        assert!(limit.count("b", 0).is_ok());
        assert!(limit.count("a", 1_000_000).is_ok());
    }
}
