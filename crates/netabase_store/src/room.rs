//! How much room there is for the records of others.
//!
//! Each author has a quota, and all others together have a share of the disk. Over a quota, nothing new of the
//! author is taken; over the share, what is farthest from this node in Kademlia's keyspace goes first, since
//! it is the least this node's to keep; what is pinned goes last. What this store's own author has written is counted, never limited.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::admit::Refusal;
use crate::apply::Op;
use crate::change::Origin;
use crate::core::Core;
use crate::engine::Snapshot;
use crate::envelope::{Author, Envelope};
use crate::error::StoreError;
use crate::keyspace::{FarthestFirst, Placed};
use crate::record_key::{POSITION_BYTES, RecordKey, WritePolicy};
use crate::usage::{self, TOTAL, Usage, author_of, size_of};

/// How many of the farthest records are looked up for one that may go; others are our own.
const MAX_LOOKUPS: usize = 16_384;

/// What others' records take.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// How many bytes are committed.
    committed: AtomicU64,
    /// What was let in and waits for the disk.
    waiting: Mutex<Waiting>,
}

/// Sizes in bytes.
#[derive(Debug, Default)]
struct Waiting {
    by_author: HashMap<Author, u64>,
    all: u64,
}

impl Room {
    /// Returns how many bytes of others' records are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    fn waiting(&self, author: Author) -> (u64, u64) {
        let waiting = self.waiting.lock();
        (waiting.by_author.get(&author).copied().unwrap_or_default(), waiting.all)
    }

    fn reserve(&self, author: Author, size: u64) {
        let mut waiting = self.waiting.lock();
        *waiting.by_author.entry(author).or_default() += size;
        waiting.all += size;
    }

    fn release(&self, author: Author, size: u64) {
        let mut waiting = self.waiting.lock();
        if let Some(bytes) = waiting.by_author.get_mut(&author) {
            *bytes = bytes.saturating_sub(size);
            if *bytes == 0 {
                waiting.by_author.remove(&author);
            }
        }
        waiting.all = waiting.all.saturating_sub(size);
    }
}

impl Core {
    /// Whether a version is a copy of somebody else's that this store may give up.
    ///
    /// The records of a network's root are kept by all of its nodes.
    pub(crate) fn is_replica(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        envelope.is_signed() && self.is_limited(key, envelope)
    }

    fn is_limited(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        let is_own = |own| author_of(envelope) == own || envelope.contribution_of(own).is_some();
        key.policy() != WritePolicy::Root && !self.author().is_some_and(is_own)
    }

    /// Takes over how much all signed records take, as a commit has left it.
    pub(crate) fn note_usage(&self, snapshot: &Snapshot, total: Usage) -> Result<(), StoreError> {
        let own = self.author().map(|own| usage::read(snapshot, own.as_bytes())).transpose()?;
        let others = total.minus(own.unwrap_or_default());
        self.room().committed.store(others.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Does so when the store is opened or was repaired.
    pub(crate) fn load_usage(&self) -> Result<(), StoreError> {
        let snapshot = self.engine().snapshot()?;
        let total = usage::read(&snapshot, TOTAL)?;
        self.note_usage(&snapshot, total)
    }

    /// Refuses a peer's version for which there is no room. `current` is the one that it replaces.
    pub(crate) fn check_room(
        &self,
        key: &RecordKey,
        envelope: &Envelope,
        current: Option<&Envelope>,
    ) -> Result<(), Refusal> {
        // The deletion of what is here makes room.
        let deletes = envelope.is_tombstone() && current.is_some_and(|current| !current.is_tombstone());
        if deletes || !self.is_limited(key, envelope) {
            return Ok(());
        }
        // What was just committed may count twice for a moment: a peer is refused too early rather than too late.
        // What peers contribute to a merged record comes on top of what is there.
        let joined = current.filter(|current| current.is_bundle()).map(|current| current.join(envelope));
        let envelope = joined.as_ref().unwrap_or(envelope);
        let (author, size) = (author_of(envelope), size_of(key, envelope));
        let replaced = current.filter(|current| self.is_replica(key, current));
        let bytes_of = |replaced: Option<&Envelope>| replaced.map_or(0, |replaced| size_of(key, replaced));
        let snapshot = self.engine().snapshot().map_err(|_| Refusal::StoreFailed)?;
        let (waiting, all_waiting) = self.room().waiting(author);

        let growth = size.saturating_sub(bytes_of(replaced.filter(|replaced| author_of(replaced) == author)));
        let used = usage::read(&snapshot, author.as_bytes()).map_err(|_| Refusal::StoreFailed)?.bytes();
        // Nobody in particular is the author of a merged record, and it has a size of its own.
        if growth > 0
            && !envelope.is_bundle()
            && used.saturating_add(waiting).saturating_add(growth) > self.options().max_author_bytes
        {
            return Err(Refusal::OverQuota);
        }
        let growth = size.saturating_sub(bytes_of(replaced));
        let used = self.room().committed().saturating_add(all_waiting);
        if growth > 0 && used.saturating_add(growth) > self.options().max_replica_bytes {
            self.check_closeness(&snapshot, key, envelope)?;
        }
        Ok(())
    }

    /// Refuses a record that is farther from this node than all that could go instead. One that is pinned takes
    /// the place of any that is not.
    fn check_closeness(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
        envelope: &Envelope,
    ) -> Result<(), Refusal> {
        let from = self.options().position.ok_or(Refusal::Full)?;
        let farthest = |pinned| {
            let farthest = self.replicas(snapshot, from, pinned).next();
            farthest.transpose().map_err(|_| Refusal::StoreFailed)
        };
        let (unpinned, is_pinned) = (farthest(false)?, self.is_pinned(key, envelope));
        if is_pinned && unpinned.is_some() {
            return Ok(());
        }
        let farthest = if is_pinned { farthest(true)? } else { unpinned };
        let (farthest, _) = farthest.ok_or(Refusal::Full)?;
        let is_farther = distance(&from, &key.position()) > distance(&from, &farthest.position);
        if is_farther { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Returns what may go and is pinned, or is not, the farthest first, and how large it is.
    fn replicas<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        from: [u8; POSITION_BYTES],
        pinned: bool,
    ) -> impl Iterator<Item = Result<(Placed, u64), StoreError>> + 'a {
        FarthestFirst::new(snapshot, from).take(MAX_LOOKUPS).filter_map(move |placed| {
            let placed = match placed {
                Ok(placed) => placed,
                Err(error) => return Some(Err(error)),
            };
            match self.stored(snapshot, &placed.key) {
                Ok(Some(stored))
                    if self.is_replica(&placed.key, &stored)
                        && self.is_pinned(&placed.key, &stored) == pinned =>
                {
                    let size = size_of(&placed.key, &stored);
                    Some(Ok((placed, size)))
                }
                Ok(_) | Err(StoreError::Damaged(_)) => None,
                Err(error) => Some(Err(error)),
            }
        })
    }

    /// Returns what has to go for lack of room, at most `limit` at a time.
    pub(crate) fn evictions(&self, limit: usize) -> Result<Vec<Op>, StoreError> {
        let mut excess = self.room().committed().saturating_sub(self.options().max_replica_bytes);
        let (Some(from), true) = (self.options().position, excess > 0) else { return Ok(Vec::new()) };
        let snapshot = self.engine().snapshot()?;
        let mut ops = Vec::new();
        // What is pinned goes when there is nothing else.
        for pinned in [false, true] {
            for replica in self.replicas(&snapshot, from, pinned).take(limit) {
                let (Placed { key, .. }, size) = replica?;
                ops.push(Op::Evict { key });
                excess = excess.saturating_sub(size);
                if excess == 0 {
                    break;
                }
            }
            if !ops.is_empty() || self.pins().is_empty() {
                break;
            }
        }
        Ok(ops)
    }

    /// Counts a version that was let in, until it is on the disk.
    pub(crate) fn reserve_room(&self, key: &RecordKey, envelope: &Envelope) {
        if self.is_limited(key, envelope) {
            self.room().reserve(author_of(envelope), size_of(key, envelope));
        }
    }

    /// Ends what [`Core::reserve_room`] began.
    pub(crate) fn release_room(&self, op: &Op) {
        if let Op::Put { key, envelope, origin: Origin::Network, .. } = op
            && self.is_limited(key, envelope)
        {
            self.room().release(author_of(envelope), size_of(key, envelope));
        }
    }
}

/// Returns how far two places are from each other, as Kademlia says.
fn distance(left: &[u8; POSITION_BYTES], right: &[u8; POSITION_BYTES]) -> [u8; POSITION_BYTES] {
    let mut distance = *left;
    distance.iter_mut().zip(right).for_each(|(byte, other)| *byte ^= other);
    distance
}
