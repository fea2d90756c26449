//! Absences of a store that were longer than tombstones are kept.
//!
//! Tombstones are kept for [`StoreOptions::tombstone_floor`](crate::StoreOptions::tombstone_floor).
//! A node that was offline for longer may hold records whose deletion all others have forgotten. It
//! discards its copies of other authors' records, and fetches those that still exist from its
//! peers.
//!
//! A wall clock that is ahead makes a short absence look long. So peers' clocks count where they
//! are behind this store's: then less is forgotten and discarded, and never more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Replica;
use crate::core::Core;
use crate::engine::{Engine, Span, unless_damaged};
use crate::error::StoreError;
use crate::replica::keyspace::Placed;
use crate::replica::limits::{DISCARD_RECORDS, ONLINE_INTERVAL};
use crate::tables;
use crate::version::admit::Refusal;
use crate::version::clock::Clock;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;
use crate::write::writer::{Batch, millis};

/// The time when a store was last online, in milliseconds since the Unix epoch; 0 if it never was.
#[derive(Debug, Default)]
pub(crate) struct Online {
    last: AtomicU64,
    /// The time on the disk.
    written: AtomicU64,
    compared: Mutex<Option<Compared>>,
}

/// A comparison of the wall clock with those of peers.
#[derive(Debug, Clone, Copy)]
struct Compared {
    /// By how many milliseconds it was ahead of theirs; 0 if it was behind.
    ahead: u64,
    /// The wall clock's time at the comparison.
    wall: u64,
    /// The time of the comparison, by the monotonic clock.
    at: Duration,
}

impl Compared {
    /// Returns the time that the wall clock would show at `now` if it had not been set.
    fn expected(&self, now: Duration) -> u64 {
        self.wall.saturating_add(millis(now.saturating_sub(self.at)))
    }
}

impl Online {
    pub(crate) fn load(engine: &Engine) -> Result<Self, StoreError> {
        let time = unless_damaged(engine.snapshot()?.get(&tables::META, tables::META_ONLINE))?;
        let time = time.and_then(|time| time.as_slice().try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Self { last: AtomicU64::new(time), written: AtomicU64::new(time), compared: Mutex::default() })
    }

    fn last(&self) -> Option<u64> {
        Some(self.last.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    /// Sets the time; returns whether it has to be written to the disk.
    fn set(&self, time: u64) -> bool {
        self.last.store(time, Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        let is_due = written == 0 || written > time || is_older(written, time, ONLINE_INTERVAL);
        if is_due {
            self.written.store(time, Ordering::Relaxed);
        }
        is_due
    }

    /// Returns by how much the wall clock, which shows `wall`, is ahead of peers' or `None` if no
    /// peer has told its clock, or if the clock was set since.
    fn ahead(&self, clock: &Clock, wall: u64) -> Option<u64> {
        let compared = (*self.compared.lock())?;
        let is_set = compared.expected(clock.monotonic()).abs_diff(wall) > millis(Clock::MAX_DRIFT);
        Some(compared.ahead).filter(|_| !is_set)
    }

    /// Returns the write that notes it.
    fn write(now: u64) -> Op {
        let (key, value) = (tables::META_ONLINE.to_vec(), Some(now.to_be_bytes().to_vec()));
        Op::Set { table: &tables::META, key, value }
    }
}

/// The result of [`Replica::discard_unvouched`] and [`Replica::remove_author`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Discarded {
    /// Live records.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
}

impl Core {
    /// Returns the time by which tombstones and expired records are removed: the wall clock's, less
    /// the time by which it is ahead of peers' clocks. A clock that was set ahead since the last
    /// comparison does not count until the next one.
    pub(crate) fn careful_millis(&self) -> u64 {
        let wall = self.options().clock.unix_millis();
        self.online().compared.lock().map_or(wall, |compared| {
            wall.min(compared.expected(self.options().clock.monotonic())).saturating_sub(compared.ahead)
        })
    }

    /// Refuses a tombstone older than the floor, unless it deletes a stored record.
    ///
    /// A tombstone that deletes nothing would be removed by the next sweep and come again. A
    /// tombstone of an older version that is still here must not be refused: nothing else tells
    /// that the version was deleted.
    pub(crate) fn check_floor(&self, envelope: &Envelope, current: Option<&Envelope>) -> Result<(), Refusal> {
        let Some(written) = envelope.timestamp().filter(|_| envelope.is_tombstone()) else { return Ok(()) };
        let options = self.options();
        let is_old = is_older(written.unix_millis(), self.careful_millis(), options.tombstone_floor);
        if is_old && current.is_none_or(Envelope::is_tombstone) { Err(Refusal::Expired) } else { Ok(()) }
    }
}

fn is_older(time: u64, now: u64, age: Duration) -> bool {
    now.saturating_sub(time) >= millis(age)
}

impl Replica<'_> {
    /// Returns when the store was last [online](Replica::note_online), or `None` if it never
    /// was.
    pub fn last_online(self) -> Option<SystemTime> {
        self.core().online().last().map(|time| UNIX_EPOCH + Duration::from_millis(time))
    }

    /// Returns whether the store was not online for longer than tombstones are kept, so that it may
    /// hold records whose deletion others have forgotten.
    ///
    /// A store without an identity, or that never was online, has no absence. The time by which the
    /// clock is ahead of [peers' clocks](Replica::note_clock_ahead) is subtracted.
    pub fn was_away(self) -> bool {
        let (options, now) = (self.core().options(), self.peers_millis());
        let is_long = |last| is_older(last, now, options.tombstone_floor);
        options.identity.is_some() && self.core().online().last().is_some_and(is_long)
    }

    /// Sets the milliseconds by which this store's clock is ahead of its peers' clocks; a negative
    /// number is behind. `None` means that no connected peer has told its clock.
    ///
    /// A clock that is ahead makes neither an absence nor a tombstone older than it is by the
    /// peers' clocks; one that is behind is not corrected. The comparison holds until the clock is
    /// set; call this method again then, and whenever the difference changes.
    pub fn note_clock_ahead(self, ahead_millis: Option<i64>) {
        let (wall, at) = (self.clock().unix_millis(), self.clock().monotonic());
        let compared = ahead_millis.map(|ahead| Compared { ahead: ahead.max(0).unsigned_abs(), wall, at });
        *self.core().online().compared.lock() = compared;
    }

    /// Returns whether peers have [said](Replica::note_clock_ahead) how this store's clock
    /// compares with theirs, and it was not set since.
    ///
    /// Before they have, a wrong clock cannot be told from a long absence. A node whose peers tell
    /// their clocks waits for the comparison before it [discards](Replica::discard_unvouched).
    pub fn is_clock_compared(self) -> bool {
        self.core().online().ahead(self.clock(), self.clock().unix_millis()).is_some()
    }

    /// Returns the time of this store's clock, less the time by which it is ahead of peers' clocks.
    fn peers_millis(self) -> u64 {
        let wall = self.clock().unix_millis();
        wall.saturating_sub(self.core().online().ahead(self.clock(), wall).unwrap_or(0))
    }

    /// Records that the store has all changes of its peers, as of now.
    ///
    /// See [`Replica::note_online_at`].
    pub fn note_online(self) -> bool {
        self.note_online_at(self.clock().unix_millis())
    }

    /// Records that the store has all changes that its peers had made by `time`, in milliseconds
    /// since the Unix epoch by this store's clock.
    ///
    /// A connection alone does not suffice: call this method after all records were compared with
    /// their other holders, with the time at which the comparison began. The time is written every
    /// 5 minutes at most, without waiting for the disk. A time before the last one changes nothing.
    /// Returns `false` if the time does not count: a store that [was away](Replica::was_away) must
    /// [discard](Replica::discard_unvouched) first.
    pub fn note_online_at(self, time: u64) -> bool {
        if self.was_away() {
            return false;
        }
        let (online, wall) = (self.core().online(), self.clock().unix_millis());
        let ahead = online.ahead(self.clock(), wall).unwrap_or(0);
        let (time, now) = (time.min(wall).saturating_sub(ahead), wall.saturating_sub(ahead));
        if online.last().is_none_or(|last| last > now || last < time) && online.set(time) {
            self.core().queue().push_lazy(Online::write(time));
        }
        true
    }

    /// Discards the records and tombstones of other authors, if the store [was
    /// away](Replica::was_away) for so long that no peer can tell any more which of them were
    /// deleted.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// Records of this store's own author and of the network's root stay. Followers of changes see
    /// [evictions](crate::ChangeKind::Evicted); no other node deletes anything. Call this method
    /// before the store serves peers. The call blocks on the disk, works in batches, and continues
    /// if it is called again after an error or a crash.
    ///
    /// A store with an identity that never was online counts as online from this call on, so that
    /// its first absence is noticed.
    pub fn discard_unvouched(self) -> Result<Discarded, StoreError> {
        if !self.was_away() {
            if self.core().options().identity.is_some() && self.core().online().last().is_none() {
                self.note_online();
            }
            return Ok(Discarded::default());
        }
        let mut now = 0;
        let discarded = self.discard_where(
            |key, stored| self.core().is_replica(key, stored).then(|| Op::Evict { key: key.clone() }),
            || {
                now = self.peers_millis();
                vec![Online::write(now)]
            },
        )?;
        self.core().online().set(now);
        Ok(discarded)
    }

    /// Carries out the write that `choose` returns for a stored version, for all of them in
    /// batches, and the writes of `finish` with the last batch. Returns how many were chosen.
    pub(super) fn discard_where(
        self,
        choose: impl Fn(&RecordKey, &Envelope) -> Option<Op>,
        finish: impl FnOnce() -> Vec<Op>,
    ) -> Result<Discarded, StoreError> {
        let mut discarded = Discarded::default();
        // Queued writes come first.
        self.store.flush()?;
        let core = self.core();
        let mut start = Vec::new();
        loop {
            let snapshot = core.engine().snapshot()?;
            let span = Span { start: &start, end: None };
            let (mut ops, mut last, mut seen) = (Vec::new(), None, 0);
            for entry in snapshot.range(&tables::POSITIONS, span)?.readable().take(DISCARD_RECORDS) {
                let entry = entry?;
                seen += 1;
                last = Some(entry.key().to_vec());
                let Some(Placed { key, .. }) = Placed::parse(entry.key(), entry.value()) else { continue };
                let stored = match core.stored(&snapshot, &key) {
                    Err(error) if error.is_of_entry() => None,
                    stored => stored?,
                };
                let Some(stored) = stored else { continue };
                let Some(op) = choose(&key, &stored) else { continue };
                let count =
                    if stored.is_tombstone() { &mut discarded.tombstones } else { &mut discarded.records };
                *count += 1;
                ops.push(op);
            }
            drop(snapshot);
            match last {
                Some(last) if seen == DISCARD_RECORDS => {
                    self.store.commit(Batch { ops, ..Batch::default() })?;
                    start = [last.as_slice(), &[0]].concat();
                }
                _ => {
                    ops.extend(finish());
                    self.store.commit(Batch { ops, flush: true, ..Batch::default() })?;
                    return Ok(discarded);
                }
            }
        }
    }
}
