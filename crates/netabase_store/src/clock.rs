//! Time, and the hybrid logical clock that orders versions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bits of a [`Timestamp`] that count events within a millisecond.
const COUNTER_BITS: u32 = 16;

/// How many timestamps after the same one differ, for those who write the same record at the same time: a 64th of
/// a millisecond.
const TURNS: u64 = 1024;

/// A hybrid logical clock timestamp: 48 bits of Unix milliseconds, 16 bits of counter.
///
/// Follows Kulkarni et al., "Logical Physical Clocks" (2014): it is close to wall-clock time, and
/// always larger than the timestamp of the version that it replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp of its 64 bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the first timestamp of a millisecond.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis << COUNTER_BITS)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// Returns the time as the standard library's type.
    pub fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.unix_millis())
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({}.{})", self.unix_millis(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// A source of wall-clock time and of timestamps that never go back.
///
/// Cloning is cheap; clones share their state. The default reads the system's clock.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The largest timestamp of our own.
    last: Arc<AtomicU64>,
    /// How many timestamps followed one that was ahead of us.
    turn: Arc<AtomicU64>,
}

impl Clock {
    /// Reads the time from `now`, in milliseconds since the Unix epoch.
    pub fn from_fn(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), last: Arc::default(), turn: Arc::default() }
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> u64 {
        (self.now)()
    }

    /// Returns a timestamp larger than `after`, and than every one that this clock has returned of its own.
    ///
    /// A record that is dated ahead of this clock is followed for itself: what comes next for others is not later for
    /// it. Two timestamps after the same one differ, up to a thousand of them.
    pub fn tick(&self, after: Option<Timestamp>) -> Timestamp {
        let now = Timestamp::from_unix_millis(self.unix_millis());
        let advance = |last| Some(now.max(Timestamp(last).next()).0);
        let last =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance).unwrap_or_else(|last| last);
        let own = now.max(Timestamp(last).next());
        match after {
            Some(after) if after >= own => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % TURNS;
                Timestamp(after.0.saturating_add(1 + turn))
            }
            _ => own,
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::from_fn(|| {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("last", &Timestamp(self.last.load(Ordering::Relaxed)))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_advance_while_time_stands_still_or_goes_back() {
        let time = Arc::new(AtomicU64::new(1_000));
        let clock = Clock::from_fn({
            let time = Arc::clone(&time);
            move || time.load(Ordering::Relaxed)
        });
        let first = clock.tick(None);
        assert_eq!(first, Timestamp::from_unix_millis(1_000));
        let second = clock.tick(None);
        time.store(500, Ordering::Relaxed);
        let third = clock.tick(None);
        assert!(first < second && second < third);
        assert_eq!(third.unix_millis(), 1_000);
    }

    #[test]
    fn a_timestamp_is_larger_than_the_one_it_follows() {
        let clock = Clock::from_fn(|| 10);
        let ahead = Timestamp::from_unix_millis(99);
        assert!(clock.tick(Some(ahead)) > ahead);
    }

    #[test]
    fn a_record_that_is_ahead_takes_no_other_with_it() {
        let clock = Clock::from_fn(|| 10);
        let before = clock.tick(None);
        let ahead = Timestamp::from_unix_millis(99);
        let mut last = ahead;
        for _ in 0..10_000 {
            let next = clock.tick(Some(last));
            assert!(next > last && next.0 - last.0 <= TURNS);
            last = next;
        }
        let other = clock.tick(Some(before));
        assert!(other > before && other.unix_millis() == 10, "{other:?}");
        // Those who write at the same time have different ones.
        let same: std::collections::BTreeSet<_> = (0..TURNS).map(|_| clock.tick(Some(last))).collect();
        assert_eq!(same.len(), usize::try_from(TURNS).unwrap());
    }
}
