//! The time of day, as a value that is handed in. Everything that asks for the time asks a [`Clock`], so a test moves time
//! instead of waiting for it. Timeouts and intervals are not its business: they use tokio's monotonic timers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock; cheap to clone, and all clones show the same time. The default is the system's.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
    Custom(Arc<dyn Fn() -> i64 + Send + Sync>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at an instant until [`ManualClock::set`] or [`ManualClock::advance`] moves it.
    pub fn manual(start_us: i64) -> ManualClock {
        ManualClock(Arc::new(AtomicI64::new(start_us)))
    }

    /// A clock whose time a function gives, in microseconds UTC.
    pub fn custom(now_us: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Source::Custom(Arc::new(now_us)))
    }

    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        match &self.0 {
            Source::System => system_now_us(),
            Source::Manual(now_us) => now_us.load(Ordering::Acquire),
            Source::Custom(now_us) => now_us(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::System => f.write_str("Clock::system"),
            Source::Manual(now_us) => write!(f, "Clock::manual({})", now_us.load(Ordering::Acquire)),
            Source::Custom(_) => f.write_str("Clock::custom"),
        }
    }
}

fn system_now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A clock that its owner moves.
#[derive(Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// The clock to hand in.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// The time, in microseconds UTC.
    pub fn now_us(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the time, in microseconds UTC.
    pub fn set(&self, now_us: i64) {
        self.0.store(now_us, Ordering::Release);
    }

    /// Moves the time forward by so many microseconds.
    pub fn advance(&self, by_us: i64) {
        self.0.fetch_add(by_us, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_all_its_clones() {
        let manual = Clock::manual(5);
        let (one, other) = (manual.clock(), manual.clock());
        manual.advance(10);
        assert_eq!((one.now_us(), other.now_us()), (15, 15));
        manual.set(3);
        assert_eq!((one.now_us(), manual.now_us()), (3, 3));
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let (clock, century_us) = (Clock::default(), 1_700_000_000_000_000..4_102_444_800_000_000);
        assert!(century_us.contains(&clock.now_us()));
    }

    #[test]
    fn a_custom_clock_asks_its_function() {
        assert_eq!(Clock::custom(|| 7).now_us(), 7);
    }
}
