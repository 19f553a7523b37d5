//! What one client may ask for how often, counted in this process.

use std::hash::Hash;

use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use agentlens_domain::rates::{Rate, Refused};

/// Holders whose counts are kept; beyond, those that were not seen for longest begin anew.
const MAX_HOLDERS: usize = 100_000;

/// One rate, counted for each holder on its own.
pub(crate) struct RateLimit<K> {
    rate: Rate,
    holders: Mutex<Cache<K, i64>>,
}

impl<K: Eq + Hash + Copy> RateLimit<K> {
    /// Every holder has this rate.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, holders: Mutex::new(Cache::new(MAX_HOLDERS)) }
    }

    /// Counts one for a holder, or refuses it.
    pub(crate) fn count(&self, holder: K, now_us: i64) -> Result<(), Refused> {
        let mut holders = self.holders.lock();
        let next_us = self.rate.admit(holders.get(&holder).copied().unwrap_or(0), now_us, 1)?;
        holders.insert(holder, next_us);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_a_rate_of_its_own() {
        let limit = RateLimit::new(Rate::per_second(1).with_burst(2));
        assert!(limit.count("a", 0).is_ok() && limit.count("a", 0).is_ok());
        assert_eq!(limit.count("a", 0).unwrap_err().retry_after_us, Some(1_000_000));
        assert!(limit.count("b", 0).is_ok());
        assert!(limit.count("a", 1_000_000).is_ok());
    }
}
