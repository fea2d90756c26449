//! A token bucket: so much a second, and so much at once. It asks nobody for the time.

use crate::platform::Instant;

/// What may still be used.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl TokenBucket {
    /// Makes a full bucket.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, left: burst, filled: now }
    }

    /// Whether there is so much.
    pub(crate) fn has(&mut self, amount: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.filled = now;
        self.left >= amount
    }

    /// Takes so much, if it is there.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) -> bool {
        let enough = self.has(amount, now);
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes so much, or what there is.
    pub(crate) fn spend(&mut self, amount: f64, now: Instant) {
        if !self.take(amount, now) {
            self.left = 0.0;
        }
    }
}

/// Returns a count as an amount.
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
