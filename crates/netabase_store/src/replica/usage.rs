//! The space that the records of each author take.
//!
//! The sums are kept in a table and follow from the records: each group of writes adds its changes,
//! and `check` compares the sums with the records.

use std::collections::BTreeMap;

use crate::engine::{Snapshot, WriteTables, unless_damaged};
use crate::error::StoreError;
use crate::tables;
use crate::version::envelope::{Author, Envelope};
use crate::version::record_key::RecordKey;

/// The key of the sum of all authors; theirs are longer.
pub(crate) const TOTAL: &[u8] = b"";
/// The author under which records of several authors count.
const SEVERAL: Author = Author::from_bytes([0; 32]);

/// The number of signed records and tombstones, and the bytes of their keys and envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Live records.
    pub records: u64,
    /// Their size in bytes.
    pub record_bytes: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Their size in bytes.
    pub tombstone_bytes: u64,
}

impl Usage {
    /// Returns the size of records and tombstones.
    pub fn bytes(&self) -> u64 {
        self.record_bytes.saturating_add(self.tombstone_bytes)
    }

    pub(crate) fn of(key: &RecordKey, envelope: &Envelope) -> Self {
        let bytes = size_of(key, envelope);
        if envelope.is_tombstone() {
            Self { tombstones: 1, tombstone_bytes: bytes, ..Self::default() }
        } else {
            Self { records: 1, record_bytes: bytes, ..Self::default() }
        }
    }

    pub(crate) fn parse(row: &[u8]) -> Option<Self> {
        let (numbers, rest) = row.as_chunks::<8>();
        let [records, record_bytes, tombstones, tombstone_bytes] = numbers else { return None };
        rest.is_empty().then(|| Self {
            records: u64::from_be_bytes(*records),
            record_bytes: u64::from_be_bytes(*record_bytes),
            tombstones: u64::from_be_bytes(*tombstones),
            tombstone_bytes: u64::from_be_bytes(*tombstone_bytes),
        })
    }

    fn numbers(self) -> [u64; 4] {
        [self.records, self.record_bytes, self.tombstones, self.tombstone_bytes]
    }

    fn to_row(self) -> Vec<u8> {
        self.numbers().iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    fn zip(self, other: Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            records: operation(self.records, other.records),
            record_bytes: operation(self.record_bytes, other.record_bytes),
            tombstones: operation(self.tombstones, other.tombstones),
            tombstone_bytes: operation(self.tombstone_bytes, other.tombstone_bytes),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// Returns a number that is the same for two lists of authors' usages if they add up author by
    /// author.
    pub(crate) fn weigh(self, author: Author) -> u64 {
        let weight = author.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        let [records, record_bytes, tombstones, tombstone_bytes] = self.numbers();
        let mixed = [(3, record_bytes), (5, tombstones), (7, tombstone_bytes)]
            .into_iter()
            .fold(records, |sum, (factor, number)| sum.wrapping_add(number.wrapping_mul(factor)));
        mixed.wrapping_mul(weight | 1)
    }
}

/// Returns whose record it is.
pub(crate) fn author_of(envelope: &Envelope) -> Author {
    envelope.author().filter(|_| !envelope.is_bundle()).unwrap_or(SEVERAL)
}

/// Returns the bytes that count for a record: those of a bundle without its merged payload, which
/// is not its authors' and changes with the program.
pub(crate) fn size_of(key: &RecordKey, envelope: &Envelope) -> u64 {
    let merged = if envelope.is_bundle() { envelope.payload().len() } else { 0 };
    let bytes = (key.as_bytes().len() + envelope.as_bytes().len()).saturating_sub(merged);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Reads the usage of an author, or with [`TOTAL`] that of all.
pub(crate) fn read(snapshot: &Snapshot, author: &[u8]) -> Result<Usage, StoreError> {
    let row = unless_damaged(snapshot.get_with(&tables::AUTHORS, author, Usage::parse))?;
    Ok(row.flatten().unwrap_or_default())
}

/// The changes since the sums were last written.
#[derive(Default)]
pub(crate) struct UsageChanges(Vec<UsageChange>);

struct UsageChange {
    author: Author,
    usage: Usage,
    is_added: bool,
}

impl UsageChanges {
    pub(crate) fn add(&mut self, key: &RecordKey, envelope: &Envelope) {
        self.push(key, envelope, true);
    }

    pub(crate) fn remove(&mut self, key: &RecordKey, envelope: &Envelope) {
        self.push(key, envelope, false);
    }

    fn push(&mut self, key: &RecordKey, envelope: &Envelope, is_added: bool) {
        let (author, usage) = (author_of(envelope), Usage::of(key, envelope));
        self.0.push(UsageChange { author, usage, is_added });
    }

    /// A point to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Drops the changes after `mark`.
    pub(crate) fn forget_since(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// Writes the changed sums; returns the sum of all authors if there were changes.
    pub(crate) fn flush(&mut self, tables: &mut dyn WriteTables) -> Result<Option<Usage>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut sums = BTreeMap::<Author, (Usage, Usage)>::new();
        let mut all = (Usage::default(), Usage::default());
        for UsageChange { author, usage, is_added } in self.0.drain(..) {
            for (added, removed) in [sums.entry(author).or_default(), &mut all] {
                let sum = if is_added { added } else { removed };
                *sum = sum.plus(usage);
            }
        }
        for (author, change) in sums {
            add_to_row(tables, author.as_bytes(), change)?;
        }
        add_to_row(tables, TOTAL, all).map(Some)
    }
}

fn add_to_row(
    tables: &mut dyn WriteTables,
    key: &[u8],
    (added, removed): (Usage, Usage),
) -> Result<Usage, StoreError> {
    let row = unless_damaged(tables.get(&tables::AUTHORS, key))?;
    let row = row.and_then(|row| Usage::parse(&row)).unwrap_or_default();
    let sum = row.plus(added).minus(removed);
    if sum == Usage::default() {
        tables.remove(&tables::AUTHORS, key)?;
    } else if sum != row {
        tables.insert(&tables::AUTHORS, key, &sum.to_row())?;
    }
    Ok(sum)
}
