//! The messages of negentropy, version 1, by which two sets are compared.
//!
//! Each message covers ranges of items, one after the other and to the end: the sender skips a
//! range, tells its fingerprint, or lists its items. The receiver of a fingerprint that differs
//! from its own splits the range into sixteen, or lists it if it is small. The bytes are those of
//! the crate `negentropy`, with which the tests compare them.

use std::collections::BTreeSet;
use std::ops::Range;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::SyncSet;
use super::item::{SYNC_ID_BYTES, Sum, SyncItem};
use crate::error::StoreError;
use crate::replica::limits::MIN_SYNC_MESSAGE_BYTES;

/// The length of the fingerprint of a range.
pub(crate) const SYNC_FINGERPRINT_BYTES: usize = 16;
/// Into how many ranges a range is split.
const BUCKETS: usize = 16;
/// From how many items on a range is split and not listed.
const SPLIT_AT: usize = 2 * BUCKETS;
/// The numbers of items for which it is uncertain whether the other side, which has a few more or
/// less, splits or lists them.
const UNCERTAIN: Range<usize> = 24..42;
/// The first byte of a message.
const VERSION: u8 = 0x61;
/// The bytes of a message that are kept free for its end.
const RESERVE: usize = 200;
// The shortest message has place for the ids of one range, or for one split: a bound takes 43 bytes
// at most, and its mode one.
const _: () = assert!(RESERVE + SPLIT_AT * SYNC_ID_BYTES < MIN_SYNC_MESSAGE_BYTES);
const _: () = assert!(RESERVE + BUCKETS * (44 + SYNC_FINGERPRINT_BYTES) < MIN_SYNC_MESSAGE_BYTES);

const SKIP: u64 = 0;
const FINGERPRINT: u64 = 1;
const LIST: u64 = 2;

/// A place between items: before the first item at or after a time and an id prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncBound {
    /// The first item at or behind it; the id ends in zeros.
    item: SyncItem,
    /// The number of bytes of the id that are given.
    id_len: usize,
}

impl SyncBound {
    /// Before everything.
    pub const BEGIN: Self = Self { item: SyncItem::FIRST, id_len: 0 };
    /// Behind everything.
    pub const END: Self = Self { item: SyncItem { timestamp: u64::MAX, id: [0; SYNC_ID_BYTES] }, id_len: 0 };

    /// Returns the place before an item.
    pub fn before(item: SyncItem) -> Self {
        Self { item, id_len: SYNC_ID_BYTES }
    }

    /// Returns the place before the items of a time whose ids begin with `id` or come after it;
    /// `None` if that is longer than an id.
    pub fn new(timestamp: u64, id: &[u8]) -> Option<Self> {
        let mut item = SyncItem { timestamp, ..SyncItem::FIRST };
        item.id.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { item, id_len: id.len() })
    }

    /// Returns the first item that may be at the place or behind it.
    pub fn item(&self) -> &SyncItem {
        &self.item
    }

    /// Returns the bytes of the id that say where in its time the place is.
    pub fn id(&self) -> &[u8] {
        self.item.id.get(..self.id_len).unwrap_or_default()
    }

    /// Returns the shortest place between two items that follow each other.
    fn between(before: &SyncItem, after: &SyncItem) -> Self {
        if before.timestamp != after.timestamp {
            return Self::new(after.timestamp, &[]).unwrap_or_default();
        }
        let common = before.id.iter().zip(&after.id).take_while(|(before, after)| before == after).count();
        let id = after.id.get(..common + 1).unwrap_or(&after.id);
        Self::new(after.timestamp, id).unwrap_or_default()
    }
}

/// The reason why a message of a comparison could not be answered.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The bytes are not a message.
    #[error("the bytes are no message of a comparison of sets")]
    Malformed,
    /// The message is of a version that this program does not know.
    #[error("the message is of a version that this program does not know")]
    Version,
    /// The set cannot be read.
    #[error("the set cannot be read")]
    Store(#[from] StoreError),
}

/// A range in which the other has items that this set has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncNeed {
    /// The start of the range.
    pub from: SyncBound,
    /// The end of the range.
    pub to: SyncBound,
    /// The ids of the items, in order.
    pub ids: Vec<[u8; SYNC_ID_BYTES]>,
}

/// The differences that were found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncDifference {
    /// The items that only this set has.
    pub have: Vec<SyncItem>,
    /// The items that only the other side has.
    pub need: Vec<SyncNeed>,
    /// The most items of `have`, without bound by default. If an answer leads to more, the
    /// comparison continues from there: take the found items out before the next answer. Some items
    /// of `need` may be found twice then.
    pub have_limit: Option<usize>,
    /// Whether `have` stays empty, since the caller does not need it.
    pub ignores_have: bool,
}

impl SyncDifference {
    /// Returns the number of items that only the other side has.
    pub fn needed(&self) -> usize {
        self.need.iter().map(|need| need.ids.len()).sum()
    }
}

/// The result of an answer of the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncStep {
    /// The next message, or `None` when the comparison is complete.
    pub message: Option<Vec<u8>>,
    /// The place of the first difference that may not be known yet.
    pub first_difference: Option<SyncBound>,
}

impl SyncSet {
    /// Returns the first message of a comparison.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The message has the fingerprint of the whole set, or of its sixteen parts, whichever takes
    /// fewer messages: the other side should be the one that is asked for a small range, since it
    /// then answers with its items. A small set is listed.
    pub fn initiate(&mut self) -> Result<Vec<u8>, SyncError> {
        let (mut size, mut splits, mut may_split) = (self.len(), 0, false);
        while size >= SPLIT_AT {
            may_split |= UNCERTAIN.contains(&size);
            (size, splits) = (size / BUCKETS, splits + 1);
        }
        may_split |= UNCERTAIN.contains(&size);
        if splits == 0 || splits % 2 == 1 || may_split {
            return self.initiate_split();
        }
        let all = self.fingerprint()?;
        let mut writer = Writer::new();
        writer.fingerprint(&SyncBound::END, &all);
        Ok(writer.bytes)
    }

    /// Returns the first message as every implementation of negentropy begins: with a fingerprint
    /// of each sixteenth of the set, or with a list.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn initiate_split(&mut self) -> Result<Vec<u8>, SyncError> {
        let mut writer = Writer::new();
        self.split(&mut writer, 0, self.len(), &SyncBound::END)?;
        Ok(writer.bytes)
    }

    /// Answers a message of the other side in at most `limit` bytes, which should be no fewer than
    /// [`SyncSet::MIN_MESSAGE_BYTES`].
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn respond(&mut self, message: &[u8], limit: usize) -> Result<Vec<u8>, SyncError> {
        let version = *message.first().ok_or(SyncError::Malformed)?;
        if (0x60..=0x6f).contains(&version) && version != VERSION {
            // The answer names the version of this side.
            return Ok(vec![VERSION]);
        }
        self.compare(message, limit, None).map(|(message, _)| message)
    }

    /// Takes the answer to a message, and adds the differences that follow from it to `difference`.
    /// The next message has at most `limit` bytes.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn reconcile(
        &mut self,
        answer: &[u8],
        limit: usize,
        difference: &mut SyncDifference,
    ) -> Result<SyncStep, SyncError> {
        let (message, first_difference) = self.compare(answer, limit, Some(difference))?;
        let message = Some(message).filter(|message| message.len() > 1);
        Ok(SyncStep { first_difference: first_difference.filter(|_| message.is_some()), message })
    }

    /// Returns the fingerprint of the whole set: two sets with the same fingerprint have the same
    /// items, unless an attacker has constructed a collision.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn fingerprint(&mut self) -> Result<[u8; SYNC_FINGERPRINT_BYTES], StoreError> {
        self.fingerprint_of(0, self.len())
    }

    pub(super) fn fingerprint_of(
        &mut self,
        from: usize,
        to: usize,
    ) -> Result<[u8; SYNC_FINGERPRINT_BYTES], StoreError> {
        Ok(fingerprint(self.sum(from, to)?, to.saturating_sub(from)))
    }

    /// Goes through the ranges of a message; with a difference as the one who began.
    fn compare(
        &mut self,
        message: &[u8],
        limit: usize,
        mut difference: Option<&mut SyncDifference>,
    ) -> Result<(Vec<u8>, Option<SyncBound>), SyncError> {
        let limit = limit.max(MIN_SYNC_MESSAGE_BYTES) - RESERVE;
        let mut reader = Reader { bytes: message, timestamp: 0 };
        match reader.u8()? {
            VERSION => {}
            0x60..=0x6f => return Err(SyncError::Version),
            _ => return Err(SyncError::Malformed),
        }
        let mut writer = Writer::new();
        let (mut begin, mut lower) = (SyncBound::BEGIN, 0);
        // The end of the written ranges, and the places that were left out since.
        let (mut written, mut skipped, mut first) = (0, false, None);
        while !reader.bytes.is_empty() {
            let end = reader.bound()?;
            let mut upper = self.lower_bound(lower, &end)?;
            let before = writer.bytes.len();
            let mut part = writer.part();
            match reader.varint()? {
                SKIP => skipped = true,
                FINGERPRINT => {
                    let theirs: [u8; SYNC_FINGERPRINT_BYTES] = reader.array()?;
                    if theirs == self.fingerprint_of(lower, upper)? {
                        skipped = true;
                    } else {
                        first.get_or_insert(begin);
                        part.skip_to(&begin, &mut skipped);
                        self.split(&mut part, lower, upper, &end)?;
                    }
                }
                LIST => {
                    let mut theirs = reader.ids()?;
                    if let Some(difference) = difference.as_deref_mut() {
                        let mut cut = None;
                        self.visit(lower, upper, &mut |item, index| {
                            if !theirs.remove(&item.id) && !difference.ignores_have {
                                if difference.have_limit.is_some_and(|limit| difference.have.len() >= limit) {
                                    cut.get_or_insert((item, index));
                                } else {
                                    difference.have.push(item);
                                }
                            }
                            true
                        })?;
                        if !theirs.is_empty() {
                            let ids = theirs.into_iter().collect();
                            difference.need.push(SyncNeed { from: begin, to: end, ids });
                        }
                        skipped = true;
                        if let Some((item, index)) = cut {
                            let until = SyncBound::before(item);
                            first.get_or_insert(until);
                            writer.skip_to(&until, &mut skipped);
                            let rest = self.fingerprint_of(index, self.len())?;
                            writer.fingerprint(&SyncBound::END, &rest);
                            break;
                        }
                    } else {
                        first.get_or_insert(begin);
                        part.skip_to(&begin, &mut skipped);
                        let (mut ids, mut count, mut until) = (Vec::new(), 0, end);
                        self.visit(lower, upper, &mut |item, index| {
                            if before + ids.len() > limit {
                                (until, upper) = (SyncBound::before(item), index);
                                return false;
                            }
                            ids.extend(item.id);
                            count += 1;
                            true
                        })?;
                        part.list(&until, count, &ids);
                        writer.take(part);
                        written = upper;
                        part = writer.part();
                    }
                }
                _ => return Err(SyncError::Malformed),
            }
            if writer.bytes.len() + part.bytes.len() > limit {
                // The rest is one range, which begins at the end of the written ranges.
                let rest = self.fingerprint_of(written, self.len())?;
                writer.fingerprint(&SyncBound::END, &rest);
                break;
            }
            if !part.bytes.is_empty() {
                written = upper;
            }
            writer.take(part);
            (lower, begin) = (upper, end);
        }
        Ok((writer.bytes, first))
    }

    /// Writes a fingerprint of each sixteenth of a range, or its items if they are few.
    fn split(
        &mut self,
        writer: &mut Writer,
        lower: usize,
        upper: usize,
        end: &SyncBound,
    ) -> Result<(), StoreError> {
        let count = upper.saturating_sub(lower);
        if count < SPLIT_AT {
            let mut ids = Vec::with_capacity(count * SYNC_ID_BYTES);
            self.visit(lower, upper, &mut |item, _| {
                ids.extend(item.id);
                true
            })?;
            writer.list(end, ids.len() / SYNC_ID_BYTES, &ids);
            return Ok(());
        }
        let mut from = lower;
        for bucket in 0..BUCKETS {
            let to = from + count / BUCKETS + usize::from(bucket < count % BUCKETS);
            let fingerprint = self.fingerprint_of(from, to)?;
            let bound = if to >= upper { *end } else { self.bound_at(to)? };
            writer.fingerprint(&bound, &fingerprint);
            from = to;
        }
        Ok(())
    }

    /// Returns the shortest place before the item at `index`.
    fn bound_at(&mut self, index: usize) -> Result<SyncBound, StoreError> {
        let (mut before, mut after) = (SyncItem::FIRST, SyncItem::FIRST);
        self.visit(index.saturating_sub(1), index + 1, &mut |item, at| {
            *(if at == index { &mut after } else { &mut before }) = item;
            true
        })?;
        Ok(SyncBound::between(&before, &after))
    }
}

fn fingerprint(sum: Sum, count: usize) -> [u8; SYNC_FINGERPRINT_BYTES] {
    let mut input = sum.to_bytes().to_vec();
    write_varint(&mut input, u64::try_from(count).unwrap_or(u64::MAX));
    let hash: [u8; 32] = Sha256::digest(&input).into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// A message that is being written. Each time is written as its difference from the one before.
#[derive(Clone)]
struct Writer {
    bytes: Vec<u8>,
    timestamp: u64,
}

impl Writer {
    fn new() -> Self {
        Self { bytes: vec![VERSION], timestamp: 0 }
    }

    /// Begins what may be added, or left out.
    fn part(&self) -> Self {
        Self { bytes: Vec::new(), timestamp: self.timestamp }
    }

    fn take(&mut self, part: Self) {
        self.bytes.extend(part.bytes);
        self.timestamp = part.timestamp;
    }

    fn bound(&mut self, bound: &SyncBound) {
        let timestamp = bound.item.timestamp;
        let told = if timestamp == u64::MAX {
            0
        } else {
            timestamp.saturating_sub(self.timestamp).saturating_add(1)
        };
        self.timestamp = timestamp;
        write_varint(&mut self.bytes, told);
        write_varint(&mut self.bytes, u64::try_from(bound.id_len).unwrap_or_default());
        self.bytes.extend(bound.id());
    }

    /// Skips the ranges before `bound`, if some were left out.
    fn skip_to(&mut self, bound: &SyncBound, skipped: &mut bool) {
        if std::mem::take(skipped) {
            self.bound(bound);
            write_varint(&mut self.bytes, SKIP);
        }
    }

    fn fingerprint(&mut self, end: &SyncBound, fingerprint: &[u8; SYNC_FINGERPRINT_BYTES]) {
        self.bound(end);
        write_varint(&mut self.bytes, FINGERPRINT);
        self.bytes.extend(fingerprint);
    }

    fn list(&mut self, end: &SyncBound, count: usize, ids: &[u8]) {
        self.bound(end);
        write_varint(&mut self.bytes, LIST);
        write_varint(&mut self.bytes, u64::try_from(count).unwrap_or_default());
        self.bytes.extend(ids);
    }
}

/// Writes a number, seven bits to a byte, the highest ones first.
fn write_varint(out: &mut Vec<u8>, number: u64) {
    let septets = u64::BITS.saturating_sub(number.leading_zeros()).div_ceil(7).max(1);
    for septet in (0..septets).rev() {
        let bits = u8::try_from(number >> (7 * septet) & 0x7f).unwrap_or_default();
        out.push(if septet > 0 { bits | 0x80 } else { bits });
    }
}

/// A message that is read.
struct Reader<'a> {
    bytes: &'a [u8],
    timestamp: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SyncError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(SyncError::Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SyncError> {
        self.take(N)?.try_into().map_err(|_| SyncError::Malformed)
    }

    fn u8(&mut self) -> Result<u8, SyncError> {
        self.array().map(|[byte]| byte)
    }

    /// A number that is cut off is no number: as zero it would say that the sets are equal.
    fn varint(&mut self) -> Result<u64, SyncError> {
        let mut number: u64 = 0;
        loop {
            let byte = self.u8()?;
            if number > u64::MAX >> 7 {
                return Err(SyncError::Malformed);
            }
            number = number << 7 | u64::from(byte & 0x7f);
            if byte < 0x80 {
                return Ok(number);
            }
        }
    }

    fn bound(&mut self) -> Result<SyncBound, SyncError> {
        let told = self.varint()?;
        let timestamp = if told == 0 { u64::MAX } else { (told - 1).saturating_add(self.timestamp) };
        self.timestamp = timestamp;
        let len = usize::try_from(self.varint()?).map_err(|_| SyncError::Malformed)?;
        SyncBound::new(timestamp, self.take(len)?).ok_or(SyncError::Malformed)
    }

    fn ids(&mut self) -> Result<BTreeSet<[u8; SYNC_ID_BYTES]>, SyncError> {
        let count = usize::try_from(self.varint()?).map_err(|_| SyncError::Malformed)?;
        let bytes = self.take(count.checked_mul(SYNC_ID_BYTES).ok_or(SyncError::Malformed)?)?;
        Ok(bytes.as_chunks::<SYNC_ID_BYTES>().0.iter().copied().collect())
    }
}
