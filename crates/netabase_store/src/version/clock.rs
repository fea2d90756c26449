//! Time, and the hybrid logical clock that orders versions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::platform;
use crate::version::limits::{MAX_CLOCK_SKEW, MAX_DRIFT, MAX_SHOWN_MILLIS, MAX_SUCCESSORS};
use crate::write::writer::millis;

/// Bits of a [`Timestamp`] that count events within a millisecond.
const COUNTER_BITS: u32 = 16;
// Timestamps that follow the same one differ by a 64th of a millisecond at most.
const _: () = assert!(MAX_SUCCESSORS * 64 == 1 << COUNTER_BITS);

/// A hybrid logical clock timestamp: 48 bits of Unix milliseconds, 16 bits of counter.
///
/// Follows Kulkarni et al., "Logical Physical Clocks" (2014): it is close to wall-clock time, and
/// always larger than the timestamp of the version that it replaces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the first timestamp of the current millisecond, by the system's clock.
    ///
    /// [`MemberList::revoke`](crate::members::MemberList::revoke) takes it to revoke from now on.
    /// Versions are stamped by [`Clock::tick`], which never goes back.
    ///
    /// ```
    /// use netabase_store::Timestamp;
    ///
    /// let before = Timestamp::now();
    /// assert!(before <= Timestamp::now());
    /// ```
    pub fn now() -> Self {
        Self::from_unix_millis(millis(platform::unix_time()))
    }

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

    /// Returns the last timestamp of a millisecond.
    pub(crate) const fn last_of_millis(millis: u64) -> Self {
        Self(millis << COUNTER_BITS | ((1 << COUNTER_BITS) - 1))
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The first timestamp of the time's millisecond; a time before 1970 is [`Timestamp::default`].
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::from_unix_millis(unix_millis(time))
    }
}

/// The time to milliseconds in UTC, as RFC 3339 has it: `2024-12-31T23:59:59.999Z`. A time after
/// the year 9999 is shown as the last millisecond of that year.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.unix_millis().min(MAX_SHOWN_MILLIS);
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Returns year, month and day of a day since the Unix epoch, by the algorithm of Howard Hinnant:
/// years begin in March, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({}.{})", self.unix_millis(), self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// A source of wall-clock time, of monotonic time, and of timestamps that never go back.
///
/// Cloning is cheap; clones share their state. The default reads the system's clocks.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> u64 + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The largest timestamp that this clock has returned.
    last: Arc<AtomicU64>,
    /// The number of timestamps that followed one ahead of this clock.
    turn: Arc<AtomicU64>,
}

impl Clock {
    /// The most by which a peer's version may be ahead of a store's clock. The clocks of a network
    /// must agree within this time.
    pub const MAX_SKEW: Duration = MAX_CLOCK_SKEW;
    /// The most by which the wall clock may stray from the monotonic one between two looks. After
    /// more it counts as set.
    pub const MAX_DRIFT: Duration = MAX_DRIFT;

    /// Reads the wall-clock time from `now`, in milliseconds since the Unix epoch, and the
    /// monotonic time from the system.
    pub fn from_fn(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let begin = platform::now();
        let monotonic = move || platform::since(begin);
        Self {
            now: Arc::new(now),
            monotonic: Arc::new(monotonic),
            last: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Reads the monotonic time from `monotonic`, as the time since any moment. That time must not
    /// go back.
    ///
    /// The store measures with this time how long writes wait to share a commit, when they are
    /// flushed, and whether the wall clock was set. A test or a simulation that sets both clocks
    /// [drives the writer](crate::WriterMode::Driven), since a writer's thread waits by the
    /// system's clock.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::time::Duration;
    ///
    /// use netabase_store::Clock;
    ///
    /// let time = Arc::new(AtomicU64::new(1_700_000_000_000));
    /// let (wall, passed) = (Arc::clone(&time), Arc::clone(&time));
    /// let clock = Clock::from_fn(move || wall.load(Ordering::Relaxed))
    ///     .with_monotonic(move || Duration::from_millis(passed.load(Ordering::Relaxed)));
    /// time.fetch_add(5, Ordering::Relaxed);
    /// assert_eq!(clock.unix_millis(), 1_700_000_000_005);
    /// ```
    #[must_use]
    pub fn with_monotonic(self, monotonic: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { monotonic: Arc::new(monotonic), ..self }
    }

    /// Returns the milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> u64 {
        (self.now)()
    }

    /// Returns the monotonic time, since a fixed moment.
    pub(crate) fn monotonic(&self) -> Duration {
        (self.monotonic)()
    }

    /// Returns the latest timestamp that a peer with the same clock accepts.
    pub(crate) fn latest_taken(&self) -> Timestamp {
        latest_taken(self.unix_millis())
    }

    /// Returns whether a timestamp is further ahead than peers accept.
    pub(crate) fn is_beyond_skew(&self, timestamp: Timestamp) -> bool {
        timestamp > self.latest_taken()
    }

    /// Returns a timestamp larger than `after`, and than each of this clock's own earlier
    /// timestamps.
    ///
    /// When the wall clock is set back by more than peers tolerate ([`Clock::MAX_SKEW`]), this
    /// clock follows it and forgets its own earlier timestamps, since peers would refuse any
    /// timestamp after those. A version ahead of this clock affects the next timestamp of its own
    /// record alone. Two timestamps after the same one differ, up to a thousand of them.
    pub fn tick(&self, after: Option<Timestamp>) -> Timestamp {
        let millis = self.unix_millis();
        let (now, latest) = (Timestamp::from_unix_millis(millis), latest_taken(millis));
        let next = |last| if Timestamp(last) > latest { now } else { now.max(Timestamp(last).next()) };
        let advance = |last| Some(next(last).0);
        let last =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance).unwrap_or_else(|last| last);
        let own = next(last);
        match after {
            Some(after) if after >= own => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % MAX_SUCCESSORS;
                Timestamp(after.0.saturating_add(1 + turn))
            }
            _ => own,
        }
    }
}

/// Returns the latest timestamp that a peer accepts at `millis`, in milliseconds since the Unix
/// epoch.
fn latest_taken(millis: u64) -> Timestamp {
    let skew = u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
    Timestamp::last_of_millis(millis.saturating_add(skew).min(u64::MAX >> COUNTER_BITS))
}

impl Default for Clock {
    fn default() -> Self {
        Self::from_fn(|| millis(platform::unix_time()))
    }
}

fn unix_millis(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
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
    fn a_timestamp_is_shown_as_everybody_writes_times() {
        let shown = |millis| Timestamp::from_unix_millis(millis).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(shown(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_bits(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn now_is_the_time_of_the_system() {
        let before = SystemTime::now() - Duration::from_millis(1);
        let now = Timestamp::now();
        assert!(before <= now.system_time() && now.system_time() <= SystemTime::now());
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)), Timestamp::default());
    }

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
    fn timestamps_come_back_from_a_future_that_nobody_believes() {
        let minute = 60 * 1000;
        let time = Arc::new(AtomicU64::new(100 * minute));
        let clock = Clock::from_fn({
            let time = Arc::clone(&time);
            move || time.load(Ordering::Relaxed)
        });
        let first = clock.tick(None);
        // Within what peers tolerate, none comes before another one.
        time.store(90 * minute, Ordering::Relaxed);
        assert_eq!(clock.tick(None), first.next());
        time.store(90 * minute - 1, Ordering::Relaxed);
        let back = clock.tick(None);
        assert_eq!(back, Timestamp::from_unix_millis(90 * minute - 1));
        assert_eq!(clock.tick(None), back.next());
        // A stored version is followed all the same.
        assert!(clock.tick(Some(first)) > first);
        // Which took one of the clock's own as well.
        assert_eq!(clock.tick(None), back.next().next().next());
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
            assert!(next > last && next.0 - last.0 <= MAX_SUCCESSORS);
            last = next;
        }
        let other = clock.tick(Some(before));
        assert!(other > before && other.unix_millis() == 10, "{other:?}");
        // Concurrent writers get different timestamps.
        let same: std::collections::BTreeSet<_> =
            (0..MAX_SUCCESSORS).map(|_| clock.tick(Some(last))).collect();
        assert_eq!(same.len(), usize::try_from(MAX_SUCCESSORS).unwrap());
    }
}
