//! The pace of a session, which ends without enough progress: while it runs, no other peer is asked
//! for the same scope.

use crate::platform::Instant;
use crate::replication::sync::limits::{PACE_MIN_BYTES, PACE_MIN_RECORDS, PACE_PATIENCE, PACE_WINDOW};
use crate::replication::sync::report::SyncFailure;

/// The recent progress of a session.
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

    /// Counts new records, here or at the peer.
    pub(super) fn add(&mut self, records: u64, bytes: u64, now: Instant) {
        self.news_at = now;
        self.records = self.records.saturating_add(records);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Fails if the progress is too slow.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), SyncFailure> {
        if now.saturating_duration_since(self.news_at) >= PACE_PATIENCE {
            return Err(SyncFailure::Endless);
        }
        if now.saturating_duration_since(self.window_at) < PACE_WINDOW {
            return Ok(());
        }
        if self.records < PACE_MIN_RECORDS && self.bytes < PACE_MIN_BYTES {
            return Err(SyncFailure::TooSlow);
        }
        (self.window_at, self.records, self.bytes) = (now, 0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::platform;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the number of seconds after which a session ends if its peer brings so many records
    /// of so many bytes every ten seconds, and the reason.
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
        assert_eq!(ends(0, 0), Some((PACE_PATIENCE.as_secs(), SyncFailure::Endless)));
        for (records, bytes) in [(1, 1), (1, 1000), (40, 100)] {
            assert_eq!(ends(records, bytes), Some((PACE_WINDOW.as_secs(), SyncFailure::TooSlow)));
        }
        // Few large records, and many small ones.
        assert_eq!((ends(1, 200_000), ends(50, 1)), (None, None));
    }

    #[test]
    fn what_came_early_does_not_pay_for_what_comes_late() {
        let begun = platform::now();
        let mut pace = Pace::new(begun);
        pace.add(1_000_000, 1 << 30, begun);
        assert_eq!(pace.check(begun + PACE_PATIENCE - SECOND), Ok(()));
        pace.add(1, 1, begun + PACE_PATIENCE - SECOND);
        assert_eq!(pace.check(begun + PACE_WINDOW), Ok(()));
        pace.add(1, 1, begun + PACE_WINDOW * 2 - SECOND);
        assert_eq!(pace.check(begun + PACE_WINDOW * 2), Err(SyncFailure::TooSlow));
    }
}
