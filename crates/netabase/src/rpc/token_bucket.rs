//! A token bucket: a rate per second and a burst. Callers pass the time.

use std::time::Duration;

use crate::platform::Instant;

/// A token bucket, which its owner tells the time.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl TokenBucket {
    /// Makes a full bucket.
    pub fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, left: burst, filled: now }
    }

    /// Refills the bucket up to `now` and returns the amount in it.
    pub fn left(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.filled = now;
        self.left
    }

    /// Returns whether the bucket has `amount`.
    pub fn has(&mut self, amount: f64, now: Instant) -> bool {
        self.left(now) >= amount
    }

    /// Takes `amount` and returns true, or takes nothing if the bucket has less.
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        let enough = self.has(amount, now);
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes `amount`, or all that the bucket has if that is less.
    pub fn spend(&mut self, amount: f64, now: Instant) {
        if !self.take(amount, now) {
            self.left = 0.0;
        }
    }

    /// Returns how long the bucket takes to have `amount`.
    pub fn time_until(&mut self, amount: f64, now: Instant) -> Duration {
        let missing = (amount - self.left(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }
}

/// Converts a count into an amount.
pub(crate) fn amount(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_bucket_has_an_amount_when_the_time_until_it_has_passed() {
        let now = platform::now();
        let mut bucket = TokenBucket::new(4.0, 3.0, now);
        assert_eq!(bucket.time_until(3.0, now), Duration::ZERO);
        bucket.spend(3.0, now);
        let wait = bucket.time_until(1.0, now);
        assert_eq!(wait, Duration::from_millis(250));
        assert!(bucket.take(1.0, now + wait));
    }
}
