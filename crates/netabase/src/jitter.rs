//! Jitter of waiting times, so that nodes that started together do not stay in step.

use std::time::Duration;

use crate::platform;

/// Returns `duration`, plus or minus a random part of up to `percent` percent, at most 100.
pub(crate) fn around(duration: Duration, percent: u32) -> Duration {
    duration / 100 * platform::random(100_u32.saturating_sub(percent)..=100 + percent)
}

/// Returns `duration`, plus a random part of up to `percent` percent, at most 100.
pub(crate) fn above(duration: Duration, percent: u32) -> Duration {
    duration / 100 * platform::random(100..=100 + percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_differ_and_stay_in_their_bounds() {
        const SECOND: Duration = Duration::from_secs(1);
        fastrand::seed(7);
        let (near, more): (Vec<_>, Vec<_>) =
            (0..1000).map(|_| (around(SECOND, 20), above(SECOND, 25))).unzip();
        let ends = |times: &[Duration]| (times.iter().min().copied(), times.iter().max().copied());
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(ends(&near), (millis(800), millis(1200)));
        assert_eq!(ends(&more), (millis(1000), millis(1250)));
        assert!(around(Duration::from_millis(u64::MAX), 100).as_millis() <= 2 * u128::from(u64::MAX));
    }
}
