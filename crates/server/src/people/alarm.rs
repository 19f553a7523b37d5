//! An alarm when unusually many people sign up at once.

use parking_lot::Mutex;

/// What is counted together.
const WINDOW_MINUTES: u64 = 10;
const WINDOW_US: i64 = 10 * 60 * 1_000_000;

/// Counts sign-ups on this node, in windows of ten minutes.
#[derive(Debug)]
pub(crate) struct SignUpAlarm {
    limit: u64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    since_us: i64,
    count: u64,
}

/// More people sign up than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Burst {
    /// How many signed up.
    pub(crate) sign_ups: u64,
    /// Within how many minutes.
    pub(crate) minutes: u64,
    /// From how many on there is an alarm.
    pub(crate) limit: u64,
}

impl SignUpAlarm {
    /// An alarm from so many sign-ups on.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, window: Mutex::default() }
    }

    /// Counts one; the one that reaches the limit raises the alarm, once in a window.
    pub(crate) fn count(&self, now_us: i64) -> Option<Burst> {
        let mut window = self.window.lock();
        if !(0..WINDOW_US).contains(&(now_us - window.since_us)) {
            *window = Window { since_us: now_us, count: 0 };
        }
        window.count += 1;
        let burst = Burst { sign_ups: window.count, minutes: WINDOW_MINUTES, limit: self.limit };
        (window.count == self.limit).then_some(burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_raises_one_alarm_and_a_trickle_none() {
        let alarm = SignUpAlarm::new(3);
        let raised = |at_us: &[i64]| at_us.iter().filter(|at| alarm.count(**at).is_some()).count();
        assert_eq!(raised(&[1, 2, 3, 4, 5, 6]), 1);
        assert_eq!(raised(&[WINDOW_US + 1, WINDOW_US + 2]), 0);
        assert_eq!(raised(&[WINDOW_US + 3, WINDOW_US + 4]), 1);
        assert_eq!(raised(&[3 * WINDOW_US, 5 * WINDOW_US, 7 * WINDOW_US]), 0);
    }
}
