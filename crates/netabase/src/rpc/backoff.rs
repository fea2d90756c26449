//! Back-off: each consecutive failure doubles the time until the next attempt.

use std::time::Duration;

/// The parameters of a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The time after the first failure.
    pub(crate) first: Duration,
    /// The longest time.
    pub(crate) max: Duration,
}

impl Backoff {
    /// Returns the time to wait after `failures` consecutive failures.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_double_up_to_a_bound() {
        let backoff = Backoff { first: Duration::from_secs(30), max: Duration::from_secs(100) };
        let seconds = [0, 1, 2, 3, 4, 33, u32::MAX].map(|failures| backoff.after(failures).as_secs());
        assert_eq!(seconds, [30, 30, 60, 100, 100, 100, 100]);
    }
}
