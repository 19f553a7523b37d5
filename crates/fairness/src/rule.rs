//! How much one holder may take of what all share.

/// What all share, and how much of it one holder may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    capacity: u64,
    greed: u64,
    floor: u64,
}

/// Why a holder gets no more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The holder has its share; it must give something back first.
    OwnShare {
        /// What it holds.
        held: u64,
    },
    /// Others hold so much that there is no room.
    Full,
    /// More than one holder can ever get.
    TooLarge {
        /// The most that it could get.
        most: u64,
    },
    /// The holder has too many requests waiting already.
    TooManyWaiting,
    /// It waited as long as it was willing to.
    TimedOut,
}

impl Rule {
    /// One holder gets at most half of the capacity.
    pub const fn new(capacity: u64) -> Self {
        Self { capacity, greed: 1, floor: 0 }
    }

    /// One holder may have `greed` times what it leaves free for others; at least 1.
    #[must_use]
    pub const fn with_greed(self, greed: u64) -> Self {
        Self { greed: if greed == 0 { 1 } else { greed }, ..self }
    }

    /// Lets every holder have this much as long as there is room at all, whatever it leaves to others. Without it the last
    /// unit is never given out.
    #[must_use]
    pub const fn with_floor(self, floor: u64) -> Self {
        Self { floor, ..self }
    }

    /// All there is.
    pub const fn capacity(self) -> u64 {
        self.capacity
    }

    /// The most that one holder can have when nobody else holds anything.
    pub const fn most(self) -> u64 {
        // The largest `n` with `n <= greed * (capacity - n)`. The product stays below 2^128.
        let share = (self.capacity as u128 * self.greed as u128 / (self.greed as u128 + 1)) as u64;
        let floor = if self.floor < self.capacity { self.floor } else { self.capacity };
        if share > floor { share } else { floor }
    }

    /// Whether a holder of `held` may take `amount` more while all together hold `used`. For what is counted elsewhere, as
    /// by several processes in Redis.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self, used: u64, held: u64, amount: u64) -> Result<(), Shortage> {
        let Some(wanted) = held.checked_add(amount).filter(|wanted| *wanted <= self.most()) else {
            return Err(if amount > self.most() {
                Shortage::TooLarge { most: self.most() }
            } else {
                Shortage::OwnShare { held }
            });
        };
        let free = self.capacity.saturating_sub(used);
        let Some(left) = free.checked_sub(amount) else {
            return Err(Shortage::Full);
        };
        if wanted <= self.floor || wanted <= left.saturating_mul(self.greed) {
            return Ok(());
        }
        Err(if held > 0 { Shortage::OwnShare { held } } else { Shortage::Full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_what_its_greed_allows() {
        assert_eq!(Rule::new(100).most(), 50);
        assert_eq!(Rule::new(100).with_greed(3).most(), 75);
        assert_eq!(Rule::new(100).with_greed(0).most(), 50);
        assert_eq!(Rule::new(1).most(), 0);
        assert_eq!(Rule::new(1).with_floor(1).most(), 1);
        assert_eq!(Rule::new(1).with_floor(5).most(), 1);
        assert_eq!(Rule::new(u64::MAX).with_greed(u64::MAX).most(), u64::MAX - 1);
    }

    #[test]
    fn a_refusal_says_whose_fault_it_is() {
        let rule = Rule::new(100);
        assert_eq!(rule.check(0, 0, 50), Ok(()));
        assert_eq!(rule.check(0, 0, 51), Err(Shortage::TooLarge { most: 50 }));
        assert_eq!(rule.check(50, 50, 1), Err(Shortage::OwnShare { held: 50 }));
        assert_eq!(rule.check(90, 0, 6), Err(Shortage::Full));
        assert_eq!(rule.check(90, 0, 5), Ok(()));
        assert_eq!(rule.check(100, 0, 1), Err(Shortage::Full));
        assert_eq!(rule.check(0, 1, u64::MAX), Err(Shortage::TooLarge { most: 50 }));
        assert_eq!(rule.check(99, 0, 1), Err(Shortage::Full));
        assert_eq!(rule.with_floor(1).check(99, 0, 1), Ok(()));
    }
}
