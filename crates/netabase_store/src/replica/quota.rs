//! Quotas for the records of other authors.
//!
//! Each author has a quota, and all authors other than this store's have one together. Over an
//! author's quota its new records are refused. Over the common quota the records that are farthest
//! from this node in Kademlia's keyspace are evicted first, since closer nodes keep those; pinned
//! records are evicted last. Records of this store's own author are counted and never limited.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::admin::counters::SharedUsage;
use crate::changes::change::Origin;
use crate::core::Core;
use crate::engine::Snapshot;
use crate::error::StoreError;
use crate::replica::keyspace::{FarthestFirst, Placed};
use crate::replica::limits::{MAX_EVICTION_LOOKUPS, MAX_IDLE_TOMBSTONES};
use crate::replica::usage::{self, TOTAL, Usage, author_of, size_of};
use crate::version::admit::Refusal;
use crate::version::envelope::{Author, Envelope};
use crate::version::record_key::{POSITION_BYTES, RecordKey, WritePolicy};
use crate::write::apply::Op;

type Distance = [u8; POSITION_BYTES];

/// The usage of other authors' records.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    /// The committed bytes.
    committed: AtomicU64,
    /// The usage of all signed records and tombstones, this store's own included.
    total: SharedUsage,
    /// The bytes that were admitted and wait for the disk.
    waiting: Mutex<Waiting>,
    /// No committed record that may be evicted is farther than that; `None` until the first search.
    /// Locked during a search, and when another record is committed.
    horizons: Mutex<Horizons>,
    /// The number of records that were looked up.
    lookups: AtomicU64,
}

/// The farthest distances of unpinned and of pinned records.
#[derive(Debug, Default)]
struct Horizons {
    distances: [Option<Distance>; 2],
    /// The generation of pins that they belong to.
    generation: u64,
}

impl Horizons {
    fn of(&mut self, pinned: bool, generation: u64) -> &mut Option<Distance> {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        let [unpinned, is_pinned] = &mut self.distances;
        if pinned { is_pinned } else { unpinned }
    }
}

/// What waits for the disk.
#[derive(Debug, Default)]
struct Waiting {
    by_author: HashMap<Author, Usage>,
    /// The bytes of all authors.
    all: u64,
}

impl Quotas {
    /// Returns how many bytes of others' records are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Returns what all signed records and tombstones take.
    pub(crate) fn total(&self) -> &SharedUsage {
        &self.total
    }

    fn waiting(&self, author: Author) -> (Usage, u64) {
        let waiting = self.waiting.lock();
        (waiting.by_author.get(&author).copied().unwrap_or_default(), waiting.all)
    }

    fn reserve(&self, author: Author, usage: Usage) {
        let mut waiting = self.waiting.lock();
        let sum = waiting.by_author.entry(author).or_default();
        *sum = sum.plus(usage);
        waiting.all += usage.bytes();
    }

    fn release(&self, author: Author, usage: Usage) {
        let mut waiting = self.waiting.lock();
        if let Some(sum) = waiting.by_author.get_mut(&author) {
            *sum = sum.minus(usage);
            if *sum == Usage::default() {
                waiting.by_author.remove(&author);
            }
        }
        waiting.all = waiting.all.saturating_sub(usage.bytes());
    }
}

impl Core {
    /// Returns whether a version is a copy of another author's record that this store may evict.
    ///
    /// The records of a network's root are kept by all of its nodes.
    pub(crate) fn is_replica(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        envelope.is_signed() && self.is_limited(key, envelope)
    }

    /// Returns whether a version is of other authors, whose records are limited.
    pub(crate) fn is_limited(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        let is_own = |own| author_of(envelope) == own || envelope.contribution_of(own).is_some();
        key.policy() != WritePolicy::Root && !self.author().is_some_and(is_own)
    }

    /// Takes over how much all signed records take, as a commit has left it.
    pub(crate) fn note_usage(&self, snapshot: &Snapshot, total: Usage) -> Result<(), StoreError> {
        let own = self.author().map(|own| usage::read(snapshot, own.as_bytes())).transpose()?;
        let others = total.minus(own.unwrap_or_default());
        self.quotas().committed.store(others.bytes(), Ordering::Relaxed);
        self.quotas().total.set(total);
        Ok(())
    }

    /// Does so when the store is opened or was repaired.
    pub(crate) fn load_usage(&self) -> Result<(), StoreError> {
        *self.quotas().horizons.lock() = Horizons::default();
        let snapshot = self.engine().snapshot()?;
        let total = usage::read(&snapshot, TOTAL)?;
        self.note_usage(&snapshot, total)
    }

    /// Refuses a peer's version that exceeds a quota. `current` is the version that it replaces.
    pub(crate) fn check_quota(
        &self,
        key: &RecordKey,
        envelope: &Envelope,
        current: Option<&Envelope>,
    ) -> Result<(), Refusal> {
        // The deletion of a stored record frees space.
        let deletes = envelope.is_tombstone() && current.is_some_and(|current| !current.is_tombstone());
        if deletes || !self.is_limited(key, envelope) {
            return Ok(());
        }
        // A record that was just committed may count twice for a moment: a peer is refused too
        // early rather than too late. A peer's contribution to a merged record adds to the stored
        // one.
        let joined = current.filter(|current| current.is_bundle()).map(|current| current.join(envelope));
        let envelope = joined.as_ref().unwrap_or(envelope);
        let (author, size) = (author_of(envelope), size_of(key, envelope));
        let replaced = current.filter(|current| self.is_replica(key, current));
        let bytes_of = |replaced: Option<&Envelope>| replaced.map_or(0, |replaced| size_of(key, replaced));
        let snapshot = self.engine().snapshot().map_err(|_| Refusal::StoreFailed)?;
        let (waiting, all_waiting) = self.quotas().waiting(author);

        let growth = size.saturating_sub(bytes_of(replaced.filter(|replaced| author_of(replaced) == author)));
        let stored = usage::read(&snapshot, author.as_bytes()).map_err(|_| Refusal::StoreFailed)?;
        let used = stored.plus(waiting);
        // A tombstone that deletes nothing here keeps a key from everybody until it is older than a
        // write. Those that delete something are bounded by the records that they delete.
        let is_idle = envelope.is_tombstone() && !envelope.is_bundle() && current.is_none();
        if is_idle && used.tombstones >= MAX_IDLE_TOMBSTONES.saturating_add(used.records) {
            return Err(Refusal::OverQuota);
        }
        let used = used.bytes();
        // Nobody in particular is the author of a merged record, and it has a size of its own.
        if growth > 0
            && !envelope.is_bundle()
            && used.saturating_add(growth) > self.options().max_author_bytes
        {
            return Err(Refusal::OverQuota);
        }
        let growth = size.saturating_sub(bytes_of(replaced));
        let used = self.quotas().committed().saturating_add(all_waiting);
        if growth > 0 && used.saturating_add(growth) > self.options().max_replica_bytes {
            self.check_closeness(key, envelope)?;
        }
        Ok(())
    }

    /// Refuses a record that is farther from this node than all that could go instead. One that is
    /// pinned takes the place of any that is not.
    fn check_closeness(&self, key: &RecordKey, envelope: &Envelope) -> Result<(), Refusal> {
        let from = self.options().position.ok_or(Refusal::Full)?;
        let farthest = |pinned| {
            let mut farthest = None;
            let found = self.visit_replicas(from, pinned, |placed, _| {
                farthest = Some(placed.position);
                false
            });
            found.map(|_| farthest).map_err(|_| Refusal::StoreFailed)
        };
        let (unpinned, is_pinned) = (farthest(false)?, self.is_pinned(key, envelope));
        if is_pinned && unpinned.is_some() {
            return Ok(());
        }
        let farthest = if is_pinned { farthest(true)? } else { unpinned };
        let is_farther =
            farthest.is_none_or(|farthest| distance(&from, &key.position()) > distance(&from, &farthest));
        if is_farther { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Visits the pinned or unpinned records that may be evicted, the farthest first, with their
    /// sizes, as long as `visit` wants more. Returns whether the walk has stopped before the end
    /// because of too many other records: the next one continues behind them.
    fn visit_replicas(
        &self,
        from: [u8; POSITION_BYTES],
        pinned: bool,
        mut visit: impl FnMut(Placed, u64) -> bool,
    ) -> Result<bool, StoreError> {
        let mut horizons = self.quotas().horizons.lock();
        let horizon = horizons.of(pinned, self.pins().generation());
        // The snapshot is taken now: it has earlier commits, and later ones are noted.
        let snapshot = self.engine().snapshot()?;
        let walk = match &*horizon {
            Some(distance) => FarthestFirst::within(&snapshot, from, distance),
            None => FarthestFirst::new(&snapshot, from),
        };
        let mut any_found = false;
        for (placed, lookups) in walk.zip(0..) {
            let placed = placed?;
            if lookups == MAX_EVICTION_LOOKUPS {
                if !any_found {
                    *horizon = Some(distance(&from, &placed.position));
                }
                return Ok(true);
            }
            self.quotas().lookups.fetch_add(1, Ordering::Relaxed);
            let stored = match self.stored(&snapshot, &placed.key) {
                Err(error) if error.is_of_entry() => None,
                stored => stored?,
            };
            let may_go = |stored: &Envelope| {
                self.is_replica(&placed.key, stored) && self.is_pinned(&placed.key, stored) == pinned
            };
            let Some(stored) = stored.filter(may_go) else { continue };
            if !any_found {
                (any_found, *horizon) = (true, Some(distance(&from, &placed.position)));
            }
            let size = size_of(&placed.key, &stored);
            if !visit(placed, size) {
                return Ok(false);
            }
        }
        if !any_found {
            *horizon = Some([0; POSITION_BYTES]);
        }
        Ok(false)
    }

    /// Returns the evictions that the quota needs, at most `limit` at a time, and whether to look
    /// for more at once.
    pub(crate) fn evictions(&self, limit: usize) -> Result<(Vec<Op>, bool), StoreError> {
        let mut excess = self.quotas().committed().saturating_sub(self.options().max_replica_bytes);
        let mut ops = Vec::new();
        let (Some(from), true) = (self.options().position, excess > 0) else { return Ok((ops, false)) };
        // Pinned records are evicted when no others are left.
        for pinned in [false, true] {
            let is_unfinished = self.visit_replicas(from, pinned, |Placed { key, .. }, size| {
                ops.push(Op::Evict { key });
                excess = excess.saturating_sub(size);
                excess > 0 && ops.len() < limit
            })?;
            if is_unfinished || !ops.is_empty() || self.pins().is_empty() {
                return Ok((ops, is_unfinished));
            }
        }
        Ok((ops, false))
    }

    /// Counts a version that was let in, until it is on the disk.
    pub(crate) fn reserve_quota(&self, key: &RecordKey, envelope: &Envelope) {
        if self.is_limited(key, envelope) {
            self.quotas().reserve(author_of(envelope), Usage::of(key, envelope));
        }
    }

    /// Ends what [`Core::reserve_quota`] began, when the version is on the disk or was given up.
    pub(crate) fn release_quota(&self, op: &Op) {
        match op {
            Op::Put { key, envelope, origin: Origin::Network, .. } if self.is_limited(key, envelope) => {
                self.quotas().release(author_of(envelope), Usage::of(key, envelope));
                let is_pinned = self.is_pinned(key, envelope);
                let mut horizons = self.quotas().horizons.lock();
                if let Some(from) = self.options().position {
                    let here = distance(&from, &key.position());
                    // A merged record may become pinned by another author's contribution.
                    for (pinned, horizon) in [false, true].into_iter().zip(&mut horizons.distances) {
                        if let Some(horizon) =
                            horizon.as_mut().filter(|_| pinned == is_pinned || envelope.is_bundle())
                        {
                            *horizon = here.max(*horizon);
                        }
                    }
                }
            }
            // This store's own contribution may be removed.
            Op::Exclude { .. } => *self.quotas().horizons.lock() = Horizons::default(),
            _ => {}
        }
    }
}

/// Returns the distance of two places in Kademlia's metric.
fn distance(left: &[u8; POSITION_BYTES], right: &[u8; POSITION_BYTES]) -> Distance {
    let mut distance = *left;
    distance.iter_mut().zip(right).for_each(|(byte, other)| *byte ^= other);
    distance
}

#[cfg(test)]
mod tests {
    use crate::options::{StorageBackend, StoreOptions};
    use crate::store::NetabaseStore;
    use crate::version::clock::Timestamp;
    use crate::version::envelope::Envelope;

    use super::*;

    const FROM: [u8; 32] = [0x5a; 32];
    /// The number of this store's own records, which are farther than all others: more than are
    /// looked up at a time.
    const OWN: usize = MAX_EVICTION_LOOKUPS + 100;

    fn key(id: u32) -> RecordKey {
        RecordKey::new("Def", "Model", &id.to_be_bytes()).unwrap()
    }

    fn admit(
        store: &NetabaseStore,
        seed: u8,
        id: u32,
        after: u64,
        value: Option<&[u8]>,
    ) -> Result<bool, Refusal> {
        let identity = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        let time = Timestamp::from_unix_millis(1_700_000_000_000 + after);
        let envelope = Envelope::sign(&identity, &key(id), time, 0, value);
        let admitted = store.replica().admit(key(id).as_bytes(), envelope.as_bytes());
        if admitted == Err(Refusal::Busy) {
            store.flush().unwrap();
            return admit(store, seed, id, after, value);
        }
        admitted
    }

    /// Numbers of records, the farthest first.
    fn farthest_first(count: u32) -> Vec<u32> {
        let mut ids: Vec<_> = (0..count).collect();
        ids.sort_by_key(|id| std::cmp::Reverse(distance(&FROM, &key(*id).position())));
        ids
    }

    #[test]
    fn our_own_records_are_passed_over_once() {
        let identity = Some(ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
        let options = StoreOptions {
            backend: StorageBackend::Memory,
            identity,
            max_replica_bytes: 2000,
            position: Some(FROM),
            ..StoreOptions::default()
        };
        let store = NetabaseStore::open_with("", None, options).unwrap();
        let ids = farthest_first(u32::try_from(OWN).unwrap() + 200);
        let (own, others) = ids.split_at(OWN);
        for id in own {
            assert_eq!(admit(&store, 1, *id, 0, Some(b"own")), Ok(true));
        }
        let settle = || (0..6).for_each(|_| store.flush().unwrap());
        let held = |id: &u32| store.envelope(&key(*id)).unwrap().is_some();
        let fill = |ids: &[u32], after| {
            for id in ids {
                // A few calls skip all of this store's own.
                for _ in 0..4 {
                    let _ = admit(&store, 2, *id, after, Some(b"theirs"));
                    settle();
                }
                assert!(held(id), "closer than all before");
            }
        };
        fill(&others[..100], 0);
        let lookups = store.core().quotas().lookups.load(Ordering::Relaxed);
        assert!(lookups < 2 * OWN as u64 + 2000, "{lookups}");
        assert!(own.iter().all(held));
        let there: Vec<_> = others.iter().filter(|id| held(id)).copied().collect();
        assert_eq!(there, others[100 - there.len()..100], "the closest");

        // The quota has space again, for a record that is farther than all that were found.
        for id in &there[..2] {
            assert_eq!(admit(&store, 2, *id, 1, None), Ok(true));
        }
        settle();
        let far = others[0];
        let _ = admit(&store, 2, far, 2, Some(b""));
        settle();
        fill(&others[100..102], 2);
        assert!(!held(&far) && held(&others[101]), "it was the first to go");
    }
}
