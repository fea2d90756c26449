//! Whether a session is worth its time: while one goes on, no other peer is asked for the same
//! scope.

use std::time::Duration;

use crate::platform::Instant;
use crate::replication::sync::report::SyncFailure;

/// How long a session may take without anything new.
const PATIENCE: Duration = Duration::from_secs(120);
/// Over how long it is counted how much is new.
const WINDOW: Duration = Duration::from_secs(120);
/// How many records, or bytes of them, must come or be given in each.
const MIN_RECORDS: u64 = 512;
const MIN_BYTES: u64 = 1024 * 1024;

/// How much has come and was given lately.
#[derive(Debug)]
pub(super) struct Pace {
    news_at: Instant,
    window_at: Instant,
    records: u64,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { news_at: now, window_at: now, records: 0, bytes: 0 }
    }

    /// Counts what was new, here or at the peer.
    pub(super) fn add(&mut self, records: u64, bytes: u64, now: Instant) {
        self.news_at = now;
        self.records = self.records.saturating_add(records);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether it may go on.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), SyncFailure> {
        if now.saturating_duration_since(self.news_at) >= PATIENCE {
            return Err(SyncFailure::Endless);
        }
        if now.saturating_duration_since(self.window_at) < WINDOW {
            return Ok(());
        }
        if self.records < MIN_RECORDS && self.bytes < MIN_BYTES {
            return Err(SyncFailure::TooSlow);
        }
        (self.window_at, self.records, self.bytes) = (now, 0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns after how many seconds a session ends whose peer brings so many records of so many
    /// bytes in each ten seconds, and why.
    fn ends(records: u64, bytes: u64) -> Option<(u64, SyncFailure)> {
        let begun = platform::now();
        let mut pace = Pace::new(begun);
        for seconds in (10..=3600).step_by(10) {
            let now = begun + SECOND * seconds;
            if let Err(failure) = pace.check(now) {
                return Some((seconds.into(), failure));
            }
            if records > 0 {
                pace.add(records, records * bytes, now);
            }
        }
        None
    }

    #[test]
    fn a_peer_that_brings_something_now_and_then_holds_a_session_no_longer_than_one_window() {
        assert_eq!(ends(0, 0), Some((PATIENCE.as_secs(), SyncFailure::Endless)));
        for (records, bytes) in [(1, 1), (1, 1000), (40, 100)] {
            assert_eq!(ends(records, bytes), Some((WINDOW.as_secs(), SyncFailure::TooSlow)));
        }
        // Few large records, and many small ones.
        assert_eq!((ends(1, 200_000), ends(50, 1)), (None, None));
    }

    #[test]
    fn what_came_early_does_not_pay_for_what_comes_late() {
        let begun = platform::now();
        let mut pace = Pace::new(begun);
        pace.add(1_000_000, 1 << 30, begun);
        assert_eq!(pace.check(begun + PATIENCE - SECOND), Ok(()));
        pace.add(1, 1, begun + PATIENCE - SECOND);
        assert_eq!(pace.check(begun + WINDOW), Ok(()));
        pace.add(1, 1, begun + WINDOW * 2 - SECOND);
        assert_eq!(pace.check(begun + WINDOW * 2), Err(SyncFailure::TooSlow));
    }
}
