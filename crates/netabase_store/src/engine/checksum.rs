//! A checksum at the end of every stored value, and the tally of each table.
//!
//! Neither engine verifies what it reads: redb trusts a file that was closed in order, and sled
//! drops bytes that it cannot read. So a value is verified here whenever it is read, and the number
//! of entries of each table and the sum of their checksums are kept in the transaction that changes
//! them.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

use super::guard::{inside, reading};
use super::{Replaced, Span, TableName, WriteTables};
use crate::error::StoreError;

/// The length of a checksum.
pub(crate) const CHECKSUM_BYTES: usize = 4;
/// The name of the table of tallies, which has none of its own.
pub(crate) const TALLIES: TableName = TableName::fixed("counts", 13);

/// The key in it of the number of the last commit, where an engine numbers its commits.
pub(super) const COMMIT: &[u8] = b"";

/// The checksum of an entry.
pub(crate) type Checksum = [u8; CHECKSUM_BYTES];

/// Returns the seed of a table's checksums.
pub(super) const fn seed_of(name: &str) -> u64 {
    hash(name.as_bytes(), 0)
}

#[inline]
const fn hash(bytes: &[u8], seed: u64) -> u64 {
    rapidhash_v3_micro_inline::<true, false>(bytes, &RapidSecrets::seed_cpp(seed))
}

/// Returns the checksum of an entry of the table that `seed` belongs to.
#[inline]
pub(super) fn checksum(seed: u64, key: &[u8], value: &[u8]) -> Checksum {
    let [.., a, b, c, d] = hash(value, hash(key, seed)).to_be_bytes();
    [a, b, c, d]
}

/// Takes the checksum off a stored value; `None` if it is not that of the entry.
#[inline]
pub(super) fn verify<'a>(seed: Option<u64>, key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let Some(seed) = seed else { return Some(stored) };
    let (value, found) = stored.split_last_chunk()?;
    (checksum(seed, key, value) == *found).then_some(value)
}

/// Returns a stored value without its checksum.
pub(super) fn strip(seed: Option<u64>, stored: &[u8]) -> &[u8] {
    match (seed, stored.split_last_chunk::<CHECKSUM_BYTES>()) {
        (Some(_), Some((value, _))) => value,
        _ => stored,
    }
}

/// Returns the checksum that a stored value has.
#[inline]
pub(super) fn checksum_in(stored: &[u8]) -> Checksum {
    stored.last_chunk().copied().unwrap_or_default()
}

/// The number of entries of a table, and the sum of their checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) entries: u64,
    pub(crate) sum: u64,
}

impl Tally {
    /// Reads a row of the table of tallies.
    pub(super) fn parse(row: &[u8]) -> Option<Self> {
        let (entries, sum) = row.split_first_chunk()?;
        Some(Self { entries: u64::from_be_bytes(*entries), sum: u64::from_be_bytes(sum.try_into().ok()?) })
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.entries) << 64 | u128::from(self.sum)).to_be_bytes()
    }

    pub(crate) fn add(&mut self, checksum: Checksum) {
        self.entries = self.entries.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u32::from_be_bytes(checksum).into());
    }

    fn remove(&mut self, checksum: Checksum) {
        self.entries = self.entries.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u32::from_be_bytes(checksum).into());
    }

    fn plus(self, change: Self) -> Self {
        Self { entries: self.entries.wrapping_add(change.entries), sum: self.sum.wrapping_add(change.sum) }
    }
}

/// The tables inside one write as an engine has them: values end with their checksums.
pub(super) trait StoredTables {
    /// Returns the stored value of `key`.
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Adds or replaces an entry; returns the checksum of the one that was there.
    fn insert(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Checksum>, StoreError>;
    /// Adds or replaces an entry; returns the former one.
    fn replace(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError>;
    /// Removes an entry; returns the checksum of the one that was there.
    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Checksum>, StoreError>;
    /// Returns the first keys of a span, up to `limit`.
    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Returns the number of entries if the engine counts them.
    fn len(&mut self, table: &TableName) -> Result<Option<u64>, StoreError>;
}

/// The tables inside one write, with checksums and tallies.
struct Checked<'a, S> {
    stored: &'a mut S,
    damaged: &'a dyn Fn(&TableName, &[u8]) -> StoreError,
    /// By how much each table has changed.
    changes: Vec<(TableName, Tally)>,
    /// By slot, one more than the place in `changes`, or 0.
    places: Vec<usize>,
    /// A value with its checksum.
    buffer: Vec<u8>,
}

/// Runs `write` on the tables, and writes their tallies.
pub(super) fn checked<S: StoredTables, T>(
    stored: &mut S,
    damaged: &dyn Fn(&TableName, &[u8]) -> StoreError,
    write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (changes, places, buffer) = (Vec::new(), Vec::new(), Vec::new());
    let mut tables = Checked { stored, damaged, changes, places, buffer };
    let value = reading(|| write(&mut tables))?;
    tables.write_tallies()?;
    Ok(value)
}

impl<S: StoredTables> Checked<'_, S> {
    /// Notes a write's change to a table.
    fn note(&mut self, table: &TableName, removed: Option<Checksum>, added: Option<Checksum>) {
        if table.slot == TALLIES.slot {
            return;
        }
        let place = self.place(table);
        let Some((_, change)) = self.changes.get_mut(place) else { return };
        if let Some(removed) = removed {
            change.remove(removed);
        }
        if let Some(added) = added {
            change.add(added);
        }
    }

    fn place(&mut self, table: &TableName) -> usize {
        if let Some(slot) = table.slot {
            if self.places.len() <= slot {
                self.places.resize(slot + 1, 0);
            }
            if let Some(place) = self.places.get_mut(slot) {
                if *place == 0 {
                    self.changes.push((table.clone(), Tally::default()));
                    *place = self.changes.len();
                }
                return *place - 1;
            }
        }
        let known = self.changes.iter().position(|(known, _)| known.slot.is_none() && known == table);
        known.unwrap_or_else(|| {
            self.changes.push((table.clone(), Tally::default()));
            self.changes.len() - 1
        })
    }

    /// Puts a value with its checksum into the buffer; returns the checksum.
    fn seal(&mut self, seed: u64, key: &[u8], value: &[u8]) -> Checksum {
        let checksum = checksum(seed, key, value);
        self.buffer.clear();
        self.buffer.extend_from_slice(value);
        self.buffer.extend_from_slice(&checksum);
        checksum
    }

    fn write_tallies(&mut self) -> Result<(), StoreError> {
        for (table, change) in std::mem::take(&mut self.changes) {
            if change != Tally::default() {
                let key = table.as_str().as_bytes();
                let tally = self.tally(key)?.plus(change);
                if let Some(seed) = TALLIES.seed {
                    self.seal(seed, key, &tally.to_bytes());
                }
                inside(|| self.stored.insert(&TALLIES, key, &self.buffer))?;
            }
        }
        Ok(())
    }

    fn tally(&mut self, key: &[u8]) -> Result<Tally, StoreError> {
        let stored = inside(|| self.stored.get(&TALLIES, key))?;
        // One that is damaged is noticed by a check, and hinders no write.
        let row = stored.as_deref().and_then(|stored| verify(TALLIES.seed, key, stored));
        Ok(row.and_then(Tally::parse).unwrap_or_default())
    }
}

impl<S: StoredTables> WriteTables for Checked<'_, S> {
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut stored) = inside(|| self.stored.get(table, key))? else { return Ok(None) };
        let Some(len) = verify(table.seed, key, &stored).map(<[u8]>::len) else {
            return Err((self.damaged)(table, key));
        };
        stored.truncate(len);
        Ok(Some(stored))
    }

    fn insert(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let Some(seed) = table.seed else {
            return inside(|| self.stored.insert(table, key, value)).map(drop);
        };
        let added = self.seal(seed, key, value);
        let removed = inside(|| self.stored.insert(table, key, &self.buffer))?;
        self.note(table, removed, Some(added));
        Ok(())
    }

    fn replace(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<Replaced, StoreError> {
        let Some(seed) = table.seed else {
            let replaced = inside(|| self.stored.replace(table, key, value))?;
            return Ok(replaced.map_or(Replaced::Nothing, Replaced::Value));
        };
        let added = self.seal(seed, key, value);
        let replaced = inside(|| self.stored.replace(table, key, &self.buffer))?;
        self.note(table, replaced.as_deref().map(checksum_in), Some(added));
        let Some(mut stored) = replaced else { return Ok(Replaced::Nothing) };
        let Some(len) = verify(table.seed, key, &stored).map(<[u8]>::len) else {
            return Ok(Replaced::Damaged);
        };
        stored.truncate(len);
        Ok(Replaced::Value(stored))
    }

    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<(), StoreError> {
        let removed = inside(|| self.stored.remove(table, key))?;
        if table.seed.is_some() && removed.is_some() {
            self.note(table, removed, None);
        }
        Ok(())
    }

    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        inside(|| self.stored.keys(table, span, limit))
    }

    fn len(&mut self, table: &TableName) -> Result<u64, StoreError> {
        if let Some(len) = inside(|| self.stored.len(table))? {
            return Ok(len);
        }
        let place = self.place(table);
        let change = self.changes.get(place).map_or(Tally::default(), |(_, change)| *change);
        Ok(self.tally(table.as_str().as_bytes())?.plus(change).entries)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_covers_table_key_and_value() {
        let seed = seed_of("records/Note");
        let stored = [&b"value"[..], &checksum(seed, b"key", b"value")].concat();
        assert_eq!(verify(Some(seed), b"key", &stored), Some(&b"value"[..]));
        assert_eq!(verify(Some(seed), b"kex", &stored), None);
        assert_eq!(verify(Some(seed_of("records/Nota")), b"key", &stored), None);
        for (byte, bit) in (0..stored.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut flipped = stored.clone();
            *flipped.get_mut(byte).unwrap() ^= 1 << bit;
            assert_eq!(verify(Some(seed), b"key", &flipped), None, "byte {byte}, bit {bit}");
        }
        assert_eq!(verify(Some(seed), b"key", b"abc"), None);
    }
}
