//! Detection of a suspension of the machine or this program.
//!
//! A suspended node loses its connections, and its peers continue without it. The only sign is that
//! more time has passed between two ticks than a tick takes.

use std::time::{Duration, SystemTime};

use crate::event_loop::limits::MIN_SLEEP;
use crate::platform::Instant;

/// A detector that compares the times of successive ticks.
#[derive(Debug)]
pub(crate) struct WakeDetector {
    interval: Duration,
    last: (Instant, SystemTime),
}

impl WakeDetector {
    /// Creates a detector for ticks that are `interval` apart.
    pub(crate) fn new(interval: Duration, now: Instant, wall: SystemTime) -> Self {
        Self { interval, last: (now, wall) }
    }

    /// Records a tick. Returns the duration of a suspension before it, or `None` if there was none.
    ///
    /// The monotonic clock stands still while a machine sleeps, but not while a process is stopped,
    /// so the wall clock is compared as well. Setting the wall clock forward looks like a
    /// suspension, after which the node's reaction is harmless. Setting it back has no effect.
    pub(crate) fn tick(&mut self, now: Instant, wall: SystemTime) -> Option<Duration> {
        let (last, last_wall) = std::mem::replace(&mut self.last, (now, wall));
        let passed = now.saturating_duration_since(last);
        let passed = passed.max(wall.duration_since(last_wall).unwrap_or(Duration::ZERO));
        let slept = passed.saturating_sub(self.interval);
        (slept >= MIN_SLEEP).then_some(slept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_stopped_process_and_a_sleeping_machine_are_noticed_once() {
        let (now, wall) = (platform::now(), SystemTime::UNIX_EPOCH + 1000 * SECOND);
        let mut detector = WakeDetector::new(SECOND, now, wall);
        assert_eq!(detector.tick(now + SECOND, wall + SECOND), None);
        // The process was stopped: both clocks went on.
        assert_eq!(detector.tick(now + 102 * SECOND, wall + 102 * SECOND), Some(100 * SECOND));
        assert_eq!(detector.tick(now + 103 * SECOND, wall + 103 * SECOND), None);
        // The machine slept: only the wall clock went on.
        assert_eq!(detector.tick(now + 104 * SECOND, wall + 3704 * SECOND), Some(3600 * SECOND));
        assert_eq!(detector.tick(now + 105 * SECOND, wall + 3705 * SECOND), None);
    }

    #[test]
    fn a_busy_moment_and_a_clock_that_is_set_back_are_no_suspension() {
        let (now, wall) = (platform::now(), SystemTime::UNIX_EPOCH + 1000 * SECOND);
        let mut detector = WakeDetector::new(SECOND, now, wall);
        assert_eq!(detector.tick(now + 5 * SECOND, wall + 5 * SECOND), None);
        assert_eq!(detector.tick(now + 6 * SECOND, wall - 900 * SECOND), None);
        assert_eq!(detector.tick(now + 7 * SECOND, wall - 899 * SECOND), None);
    }
}
