//! A token bucket: a rate per second and a burst. Callers pass the time.

use crate::platform::Instant;

/// A token bucket.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, left: burst, filled: now }
    }

    /// Returns whether the bucket has `amount`.
    pub(crate) fn has(&mut self, amount: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.filled = now;
        self.left >= amount
    }

    /// Takes `amount` if the bucket has it; returns whether it did.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) -> bool {
        let enough = self.has(amount, now);
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes `amount`, or all if the bucket has less.
    pub(crate) fn spend(&mut self, amount: f64, now: Instant) {
        if !self.take(amount, now) {
            self.left = 0.0;
        }
    }
}

/// Converts a count into an amount.
pub(crate) fn amount(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform;

    #[test]
    fn a_bucket_has_its_burst_and_then_its_rate() {
        let now = platform::now();
        let mut bucket = TokenBucket::new(10.0, 3.0, now);
        let mut takes = |after| {
            let now = now + Duration::from_millis(after);
            (0..100).take_while(|_| bucket.take(1.0, now)).count()
        };
        assert_eq!([takes(0), takes(50), takes(100), takes(99), takes(10_000)], [3, 0, 1, 0, 3]);
        bucket.spend(9.0, now + Duration::from_secs(20));
        assert!(!bucket.has(0.1, now + Duration::from_secs(20)));
    }
}
