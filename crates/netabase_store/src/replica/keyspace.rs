//! The records in the order of Kademlia's keyspace, in which stores are compared.
//!
//! A record's position is the SHA-256 of its key, by which Kademlia says which peers are close to
//! it. The table of positions follows from the records and changes in the same transaction.

use super::Replica;
use crate::engine::{Snapshot, Span, unless_damaged};
use crate::error::{DamageError, StoreError};
use crate::model::key_range::KeySpan;
use crate::tables::{self, Place};
use crate::version::clock::Timestamp;
use crate::version::envelope::{Envelope, EnvelopeRef, FINGERPRINT_BYTES};
use crate::version::record_key::{POSITION_BYTES, RecordKey};
use crate::write::apply::{Expected, Op};
use crate::write::writer::Batch;

/// A signed record or tombstone, and where it is in the keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The SHA-256 of the key.
    pub position: [u8; POSITION_BYTES],
    /// The record.
    pub key: RecordKey,
    /// The fingerprint of its version, see [`Envelope::fingerprint`](crate::Envelope::fingerprint).
    pub fingerprint: [u8; FINGERPRINT_BYTES],
}

impl Placed {
    /// Reads an entry of the table of positions.
    pub(crate) fn parse(entry: &[u8], value: &[u8]) -> Option<Self> {
        let (position, key) = entry.split_first_chunk()?;
        let (key, fingerprint) = (RecordKey::parse(key).ok()?, value.try_into().ok()?);
        Some(Self { position: *position, key, fingerprint })
    }
}

impl Replica<'_> {
    /// Returns up to `limit` signed records and tombstones in the order of the keyspace, the first
    /// one at `from` or behind it.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The walk reads committed records: a version that waits for the disk is not in it yet.
    /// Expired records that were not swept yet are. A store without signed records has none.
    ///
    /// ```
    /// # use netabase_store::{NetabaseDefinition, NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String }
    /// # }
    /// # use library::*;
    /// use netabase_store::{SigningKey, StorageBackend, StoreOptions};
    ///
    /// let identity = Some(SigningKey::from_bytes(&[7; 32]));
    /// let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
    /// let store = NetabaseStore::open_with("", Some(LibraryDefinition::SCHEMA), options)?;
    /// store.open_tree()?.put(&Book { isbn: "978-0-13-110362-7".into() })?;
    /// let placed = store.replica().positions(&[0; 32], 10)?;
    /// assert_eq!(placed.len(), 1);
    /// assert_eq!(placed[0].position, placed[0].key.position());
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn positions(self, from: &[u8; POSITION_BYTES], limit: usize) -> Result<Vec<Placed>, StoreError> {
        let snapshot = self.core().engine().snapshot()?;
        let mut placed = Vec::new();
        for entry in snapshot.range(&tables::POSITIONS, Span { start: from, end: None })?.readable() {
            if placed.len() == limit {
                break;
            }
            let entry = entry?;
            // `check` reports and repairs damaged entries.
            placed.extend(Placed::parse(entry.key(), entry.value()));
        }
        Ok(placed)
    }

    /// Returns the timestamp and the [fingerprint](crate::Envelope::fingerprint) of the version
    /// under a key, tombstones included, or `None` if there is none or it is unsigned or has
    /// expired.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// The call neither copies nor hashes the stored bytes. A version that waits for the disk is
    /// seen.
    pub fn version_of(
        self,
        key: &RecordKey,
    ) -> Result<Option<(Timestamp, [u8; FINGERPRINT_BYTES])>, StoreError> {
        let (core, now) = (self.core(), self.clock().unix_millis());
        let version = |envelope: Envelope| Some((envelope.timestamp()?, envelope.fingerprint()));
        if core.pending(key).is_some() {
            return Ok(self.store.envelope(key)?.and_then(version));
        }
        let snapshot = core.engine().snapshot()?;
        let Place { table, key: place, .. } = core.layout().place(key);
        let read = |bytes: &[u8]| {
            let envelope = EnvelopeRef::parse(bytes).map_err(DamageError::Record)?;
            Ok::<_, StoreError>(envelope.timestamp().filter(|_| !envelope.is_expired(now)))
        };
        let found = match snapshot.get_with(table, place, read)? {
            Some(found) => Some(found),
            None => snapshot.get_with(&tables::TOMBSTONES, key.as_bytes(), read)?,
        };
        let Some(timestamp) = found.transpose()?.flatten() else { return Ok(None) };
        let fingerprint = unless_damaged(snapshot.get(&tables::POSITIONS, &tables::position_key(key)))?;
        match fingerprint.and_then(|fingerprint| fingerprint.as_slice().try_into().ok()) {
            Some(fingerprint) => Ok(Some((timestamp, fingerprint))),
            // `check` reports and repairs it.
            None => Ok(core.stored(&snapshot, key)?.and_then(version)),
        }
    }

    /// Returns whether the version under a key, if there is one, is another author's, so that this
    /// store keeps it for others only.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn is_replica(self, key: &RecordKey) -> Result<bool, StoreError> {
        let current = self.core().replaceable(key)?;
        Ok(current.is_some_and(|current| self.core().is_replica(key, &current)))
    }

    /// Evicts a version of another author, unless it was replaced or its scope is
    /// [pinned](Self::pin).
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// The release is no deletion: other nodes are not told, and a peer may send the record again.
    /// The write is queued without waiting; returns `false` if the queue is full.
    pub fn release(self, placed: &Placed) -> Result<bool, StoreError> {
        let current = self.core().replaceable(&placed.key)?;
        let current = current.filter(|current| current.fingerprint() == placed.fingerprint);
        let may_go = |current: &Envelope| {
            self.core().is_replica(&placed.key, current) && !self.core().is_pinned(&placed.key, current)
        };
        let Some(current) = current.filter(may_go) else {
            return Ok(false);
        };
        let expected = vec![(placed.key.clone(), Expected::Content(Some(current.content_hash())))];
        let ops = vec![Op::Evict { key: placed.key.clone() }];
        Ok(self.core().queue().try_push(Batch { ops, expected, ..Batch::default() }).is_ok())
    }

    /// Returns how many signed records and tombstones there are, without reading them.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn positions_len(self) -> Result<u64, StoreError> {
        self.core().engine().snapshot()?.len(&tables::POSITIONS)
    }
}

/// The records in the order of their distance from a place, the farthest first.
///
/// The farthest place of a span is in the half whose first differing bit is not that of `from`, so
/// a record is found with two lookups for each bit that the places around it have in common.
pub(crate) struct FarthestFirst<'a> {
    snapshot: &'a Snapshot,
    from: [u8; POSITION_BYTES],
    /// The spans that are still to be walked, from the back. Each has fewer differing bits than
    /// those before it, so there are at most as many as a place has bits.
    spans: Vec<KeySpan>,
}

/// The key of an entry, and its content unless it is damaged.
type End = (Vec<u8>, Option<Placed>);

impl<'a> FarthestFirst<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, from: [u8; POSITION_BYTES]) -> Self {
        Self { snapshot, from, spans: vec![KeySpan { start: Vec::new(), end: None }] }
    }

    /// Leaves out records that are farther than `distance`.
    pub(crate) fn within(
        snapshot: &'a Snapshot,
        from: [u8; POSITION_BYTES],
        distance: &[u8; POSITION_BYTES],
    ) -> Self {
        let mut farthest = from;
        farthest.iter_mut().zip(distance).for_each(|(byte, distance)| *byte ^= distance);
        let bits = (0..POSITION_BYTES).flat_map(|byte| (0..8).map(move |bit| (byte, 0x80_u8 >> bit)));
        let is_set =
            |(byte, bit): &(usize, u8)| distance.get(*byte).is_some_and(|distance| distance & bit != 0);
        // Each span has the bits of the farthest place up to a bit by which that place is farther;
        // the earlier the bit, the closer the span. The farthest place itself comes last, and is
        // walked first.
        let mut spans: Vec<_> =
            bits.filter(is_set).map(|(byte, bit)| other_half(&farthest, byte, bit)).collect();
        spans.push(KeySpan { start: farthest.to_vec(), end: after(farthest, POSITION_BYTES - 1, 1) });
        Self { snapshot, from, spans }
    }

    /// Returns the entry at one end of a span.
    fn end_of(&self, span: &KeySpan, first: bool) -> Result<Option<End>, StoreError> {
        let mut entries = self.snapshot.range(&tables::POSITIONS, span.into())?;
        let read = |key: &[u8], value: &[u8]| (key.to_vec(), Placed::parse(key, value));
        entries.visit(first, read).transpose()
    }

    /// Takes the farthest record out of a span; the rest is walked later.
    fn step(&mut self, mut span: KeySpan) -> Result<Option<Placed>, StoreError> {
        let Some((first_key, first)) = self.end_of(&span, true)? else { return Ok(None) };
        let Some((last_key, last)) = self.end_of(&span, false)? else { return Ok(None) };
        match (first, last) {
            // Damaged entries are skipped; `check` reports them.
            (None, _) => span.start = [first_key.as_slice(), &[0]].concat(),
            (_, None) => span.end = Some(last_key),
            (Some(first), Some(last)) => {
                let Some((middle, bit_of_from)) = self.middle(&first.position, &last.position) else {
                    if first_key != last_key {
                        span.start = [first_key.as_slice(), &[0]].concat();
                        self.spans.push(span);
                    }
                    return Ok(Some(first));
                };
                let lower = KeySpan { start: span.start, end: Some(middle.clone()) };
                let upper = KeySpan { start: middle, end: span.end };
                let halves = if bit_of_from { [upper, lower] } else { [lower, upper] };
                self.spans.extend(halves);
                return Ok(None);
            }
        }
        self.spans.push(span);
        Ok(None)
    }

    /// Returns the place from which on the first bit is set that differs between two places, and
    /// whether it is set in `from`; `None` if they are the same.
    fn middle(&self, first: &[u8; POSITION_BYTES], last: &[u8; POSITION_BYTES]) -> Option<(Vec<u8>, bool)> {
        let at = first.iter().zip(last).position(|(first, last)| first != last)?;
        let common = last.get(..at)?;
        let (first, last, from) = (first.get(at)?, last.get(at)?, self.from.get(at)?);
        let bit = 0x80_u8 >> (first ^ last).leading_zeros();
        // The places agree before the bit, and the later one has it.
        let mut middle = common.to_vec();
        middle.push(last & !(bit - 1));
        middle.resize(POSITION_BYTES, 0);
        Some((middle, from & bit != 0))
    }
}

/// Returns the span of the places that have the bits of `place` before a bit, and not that one.
fn other_half(place: &[u8; POSITION_BYTES], byte: usize, bit: u8) -> KeySpan {
    let mut start = *place;
    let mut bytes = start.iter_mut().skip(byte);
    if let Some(first) = bytes.next() {
        *first = (*first ^ bit) & !(bit - 1);
    }
    bytes.for_each(|rest| *rest = 0);
    KeySpan { start: start.to_vec(), end: after(start, byte, bit) }
}

/// Adds a bit to a place; `None` if that is behind all places.
fn after(mut place: [u8; POSITION_BYTES], byte: usize, bit: u8) -> Option<Vec<u8>> {
    let mut carry = bit;
    for byte in place.iter_mut().take(byte + 1).rev() {
        let (sum, overflows) = byte.overflowing_add(carry);
        *byte = sum;
        if !overflows {
            return Some(place.to_vec());
        }
        carry = 1;
    }
    None
}

impl Iterator for FarthestFirst<'_> {
    type Item = Result<Placed, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(span) = self.spans.pop() {
            if let Some(found) = self.step(span).transpose() {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{Engine, Sync};
    use crate::options::StorageBackend;

    fn distance(from: &[u8; 32], position: &[u8; 32]) -> Vec<u8> {
        from.iter().zip(position).map(|(left, right)| left ^ right).collect()
    }

    /// Places of which many have much in common.
    fn place() -> impl Strategy<Value = [u8; 32]> {
        let bytes = prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(0xff), any::<u8>()];
        (prop::collection::vec(bytes, 0..4), any::<bool>(), 0..32_usize).prop_map(|(bytes, ones, at)| {
            let mut place = [if ones { 0xff } else { 0 }; 32];
            let at = at.min(32 - bytes.len());
            place[at..at + bytes.len()].copy_from_slice(&bytes);
            place
        })
    }

    proptest! {
        #[test]
        fn the_walk_is_a_sort_by_distance(
            places in prop::collection::btree_set(place(), 0..60),
            from in place(),
            damaged in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let engine = Engine::open(StorageBackend::Memory, "".as_ref(), 1 << 20, 20).unwrap();
            let key = RecordKey::new("Def", "Model", b"1").unwrap();
            engine.write(Sync::Now, |tables| {
                for entry in &damaged {
                    tables.insert(&tables::POSITIONS, entry, b"damaged")?;
                }
                for place in &places {
                    let entry = [place.as_slice(), key.as_bytes()].concat();
                    tables.insert(&tables::POSITIONS, &entry, &[0; FINGERPRINT_BYTES])?;
                }
                Ok(())
            }).unwrap();
            let snapshot = engine.snapshot().unwrap();
            let found: Vec<_> =
                FarthestFirst::new(&snapshot, from).map(|placed| placed.unwrap().position).collect();
            let mut sorted: Vec<_> = places.into_iter().collect();
            sorted.sort_by_key(|place| std::cmp::Reverse(distance(&from, place)));
            for farthest in &sorted {
                let mut limit = [0; 32];
                limit.copy_from_slice(&distance(&from, farthest));
                let near: Vec<_> = FarthestFirst::within(&snapshot, from, &limit)
                    .map(|placed| placed.unwrap().position)
                    .collect();
                let at = sorted.iter().position(|place| place == farthest).unwrap();
                prop_assert_eq!(&near, &sorted[at..]);
            }
            prop_assert_eq!(FarthestFirst::within(&snapshot, from, &[0xff; 32]).count(), sorted.len());
            prop_assert_eq!(found, sorted);
        }
    }
}
