//! How often something may happen, by the generic cell rate algorithm (ITU-T I.371, annex A; ATM Forum TM 4.0): one instant per
//! holder is all that has to be kept.
//!
//! A rate of 10 a second with a burst of 100 admits 100 at once, and then one every 100 ms. In no time span are more admitted
//! than the burst and what the rate gives in that span.
//!
//! The same rule runs as a script on Redis, on the numbers of [`Rate::interval_us`] and [`Rate::burst`]. All numbers are whole
//! microseconds below 2^53, which a script can count exactly. The time between two is rounded down to a whole microsecond, so a
//! rate is exact up to one in `interval_us`.

/// A sustained rate, and how much may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds between two at the sustained rate.
    interval_us: i64,
    /// How many may come at once.
    burst: i64,
}

impl Rate {
    /// So many a second, sustained, and as many at once. At least 1 and at most 1,000,000.
    pub const fn per_second(count: u32) -> Self {
        Self::per(count, 1_000_000)
    }

    /// So many a minute, sustained, and as many at once. At least 1 and at most 60,000,000.
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, 60_000_000)
    }

    /// So many an hour, sustained, and as many at once. At least 1.
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, 3_600_000_000)
    }

    /// The same rate with another burst; at least 1.
    #[must_use]
    pub const fn with_burst(self, burst: u32) -> Self {
        Self { burst: if burst == 0 { 1 } else { burst as i64 }, ..self }
    }

    /// So many in a period, and as many at once.
    const fn per(count: u32, period_us: i64) -> Self {
        let count = if count == 0 { 1 } else { count as i64 };
        let interval_us = if period_us / count == 0 { 1 } else { period_us / count };
        Self { interval_us, burst: count }
    }

    /// How many may come at once.
    pub const fn burst(&self) -> i64 {
        self.burst
    }

    /// Microseconds between two at the sustained rate.
    pub const fn interval_us(&self) -> i64 {
        self.interval_us
    }

    /// How many could come at once now.
    pub fn remaining(&self, next_us: i64, now_us: i64) -> i64 {
        let used_us = self.begin_us(next_us, now_us).saturating_sub(now_us);
        (self.room_us() - used_us).div_euclid(self.interval_us)
    }

    /// Admits `cost` at `now_us`, or says when to come back. `next_us` is what was returned the last time, or 0. Where two rates are to
    /// hold, ask both before either result is stored.
    ///
    /// # Errors
    /// [`Refused`] if the cost can't be admitted now. What is kept stays as it is: a refusal costs nothing.
    pub fn admit(&self, next_us: i64, now_us: i64, cost: i64) -> Result<i64, Refused> {
        let cost_us = self.interval_us.saturating_mul(cost.max(0));
        if cost_us > self.room_us() {
            return Err(Refused { retry_after_us: None });
        }
        let after_us = self.begin_us(next_us, now_us).saturating_add(cost_us);
        let too_early_us = after_us.saturating_sub(now_us).saturating_sub(self.room_us());
        if too_early_us > 0 {
            return Err(Refused { retry_after_us: Some(too_early_us) });
        }
        Ok(after_us)
    }

    /// From when on the next cost counts. A clock that was set back, or a rate that was lowered, leaves an instant further ahead than
    /// the whole burst; it counts as a used-up burst and not as a longer wait.
    fn begin_us(&self, next_us: i64, now_us: i64) -> i64 {
        next_us.clamp(now_us, now_us.saturating_add(self.room_us()))
    }

    /// The time in which the sustained rate gives a whole burst.
    fn room_us(&self) -> i64 {
        self.interval_us.saturating_mul(self.burst)
    }
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// After how many microseconds the same is admitted if nothing else is; `None` if it costs more than the burst.
    pub retry_after_us: Option<i64>,
}

impl Refused {
    /// The same in whole seconds, rounded up, for `Retry-After`.
    pub fn retry_after_s(&self) -> Option<u32> {
        let rounded_up = |us: i64| us.saturating_add(999_999).div_euclid(1_000_000);
        self.retry_after_us.map(|us| u32::try_from(rounded_up(us)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_admitted_at_once_and_then_the_sustained_rate() {
        let rate = Rate::per_second(10).with_burst(3);
        let mut next = 0;
        for _ in 0..3 {
            next = rate.admit(next, 1_000_000, 1).unwrap();
        }
        assert_eq!(rate.admit(next, 1_000_000, 1), Err(Refused { retry_after_us: Some(100_000) }));
        assert_eq!(rate.admit(next, 1_099_999, 1), Err(Refused { retry_after_us: Some(1) }));
        next = rate.admit(next, 1_100_000, 1).unwrap();
        assert!(rate.admit(next, 1_100_000, 1).is_err());
        // After a pause the whole burst is there again, and not more.
        assert!(rate.admit(next, 9_000_000, 3).is_ok());
        assert_eq!(rate.admit(next, 9_000_000, 4), Err(Refused { retry_after_us: None }));
    }

    #[test]
    fn a_refusal_says_when_to_come_back_in_whole_seconds() {
        assert_eq!(Refused { retry_after_us: Some(1) }.retry_after_s(), Some(1));
        assert_eq!(Refused { retry_after_us: Some(1_000_000) }.retry_after_s(), Some(1));
        assert_eq!(Refused { retry_after_us: Some(i64::MAX) }.retry_after_s(), Some(u32::MAX));
        assert_eq!(Refused { retry_after_us: Some(2_500_000) }.retry_after_s(), Some(3));
        assert_eq!(Refused { retry_after_us: None }.retry_after_s(), None);
    }

    #[test]
    fn rates_are_spaced_by_whole_microseconds() {
        let of = |rate: Rate| (rate.interval_us(), rate.burst());
        assert_eq!(of(Rate::per_second(10)), (100_000, 10));
        assert_eq!(of(Rate::per_minute(500_000).with_burst(100_000)), (120, 100_000));
        assert_eq!(of(Rate::per_hour(7)), (514_285_714, 7));
        assert_eq!(of(Rate::per_second(0).with_burst(0)), (1_000_000, 1));
        assert_eq!(of(Rate::per_second(u32::MAX)), (1, i64::from(u32::MAX)));
    }

    #[test]
    fn what_remains_is_what_is_admitted() {
        let rate = Rate::per_second(10).with_burst(5);
        assert_eq!(rate.remaining(0, 1_000_000), 5);
        let next = rate.admit(0, 1_000_000, 3).unwrap();
        assert_eq!(rate.remaining(next, 1_000_000), 2);
        assert_eq!(rate.remaining(next, 1_099_999), 2);
        assert_eq!(rate.remaining(next, 1_100_000), 3);
        assert_eq!(rate.remaining(next, 9_000_000), 5);
    }

    #[test]
    fn a_clock_set_back_or_a_lowered_rate_holds_no_one_up() {
        let rate = Rate::per_second(1).with_burst(2);
        let next = rate.admit(0, 5_000_000_000, 2).unwrap();
        assert_eq!(rate.admit(next, 1_000_000, 1), Err(Refused { retry_after_us: Some(1_000_000) }));
        assert_eq!(rate.remaining(next, 1_000_000), 0);
        let far = Rate::per_hour(1).admit(0, 0, 1).unwrap();
        assert_eq!(rate.admit(far, 0, 1), Err(Refused { retry_after_us: Some(1_000_000) }));
        for (next, now) in
            [(i64::MAX, i64::MIN), (i64::MIN, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)]
        {
            let _ = rate.admit(next, now, i64::MAX);
            let _ = rate.admit(next, now, 1);
            assert!((0..=2).contains(&rate.remaining(next, now)));
        }
    }

    proptest! {
        /// In every span of time, no more than the burst and what the rate gives are admitted; what is refused is admitted at
        /// the time that the refusal names.
        #[test]
        fn no_span_admits_more_than_the_rate(
            per_second in 1u32..2_000,
            burst in 1u32..50,
            steps in prop::collection::vec((0i64..400_000, 0i64..60), 1..200),
        ) {
            let rate = Rate::per_second(per_second).with_burst(burst);
            let (mut now, mut next, mut admitted) = (5_000_000, 0, Vec::new());
            for (pause, cost) in steps {
                now += pause;
                let remaining = rate.remaining(next, now);
                prop_assert_eq!(rate.admit(next, now, cost).is_ok(), cost <= remaining);
                match rate.admit(next, now, cost) {
                    Ok(after) => {
                        next = after;
                        admitted.push((now, cost));
                    }
                    Err(Refused { retry_after_us: Some(wait) }) => {
                        prop_assert!(rate.admit(next, now + wait, cost).is_ok());
                        prop_assert!(rate.admit(next, now + wait - 1, cost).is_err());
                    }
                    Err(Refused { retry_after_us: None }) => prop_assert!(cost > i64::from(burst)),
                }
            }
            for first in 0..admitted.len() {
                let mut sum = 0;
                for (at, cost) in &admitted[first..] {
                    sum += cost;
                    let span = at - admitted[first].0;
                    prop_assert!(sum <= i64::from(burst) + span / rate.interval_us + 1);
                }
            }
        }
    }
}
