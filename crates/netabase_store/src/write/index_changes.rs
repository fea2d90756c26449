//! Entries of indexes and of the keyspace that wait for the end of a group.
//!
//! A B-tree takes entries faster in the order of its keys than in the order of the records, so the
//! entries of a group are sorted before they are written.

use std::mem;

use crate::engine::{TableName, WriteTables};
use crate::error::StoreError;
use crate::tables::{self, entry_value};
use crate::version::envelope::FINGERPRINT_BYTES;
use crate::version::record_key::RecordKey;
use crate::write::limits::MAX_INDEX_ENTRIES;

/// Entries to add and to remove; of several changes to one entry the last one counts.
#[derive(Default)]
pub(crate) struct IndexChanges<'a> {
    entries: Vec<IndexEntry<'a>>,
    /// The keys of the entries, one after the other.
    keys: Vec<u8>,
}

/// A point to go back to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    entries: usize,
    keys: usize,
}

#[derive(Clone, Copy)]
struct IndexEntry<'a> {
    table: &'a TableName,
    start: usize,
    end: usize,
    value: Value,
}

/// The value of an entry.
#[derive(Clone, Copy)]
enum Value {
    /// The entry is removed.
    Gone,
    /// The length of the index key in the entry.
    KeyLen(usize),
    /// No value: the key has the whole content.
    Empty,
    /// The fingerprint of the version in this place.
    Fingerprint([u8; FINGERPRINT_BYTES]),
}

impl<'a> IndexChanges<'a> {
    /// Adds or removes the entry of an index key and a primary key.
    pub(crate) fn push(&mut self, table: &'a TableName, key: &[u8], primary: &[u8], there: bool) {
        self.add(table, key, primary, if there { Value::KeyLen(key.len()) } else { Value::Gone });
    }

    /// Sets which version of a record is in its place in the keyspace; `None` takes it out.
    pub(crate) fn push_position(&mut self, key: &RecordKey, fingerprint: Option<[u8; FINGERPRINT_BYTES]>) {
        let value = fingerprint.map_or(Value::Gone, Value::Fingerprint);
        self.add(&tables::POSITIONS, &key.position(), key.as_bytes(), value);
    }

    /// Adds or removes the age of a tombstone.
    pub(crate) fn push_tombstone_time(&mut self, unix_millis: u64, key: &RecordKey, there: bool) {
        let value = if there { Value::Empty } else { Value::Gone };
        self.add(&tables::TOMBSTONE_TIMES, &unix_millis.to_be_bytes(), key.as_bytes(), value);
    }

    fn add(&mut self, table: &'a TableName, key: &[u8], primary: &[u8], value: Value) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.keys.extend_from_slice(primary);
        self.entries.push(IndexEntry { table, start, end: self.keys.len(), value });
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { entries: self.entries.len(), keys: self.keys.len() }
    }

    /// Drops what came after `mark` and was not written yet.
    pub(crate) fn forget_since(&mut self, mark: Mark) {
        self.entries.truncate(mark.entries);
        self.keys.truncate(mark.keys);
    }

    /// Writes the entries if there are many, unless they may have to be forgotten.
    pub(crate) fn flush_if_full(
        &mut self,
        tables: &mut dyn WriteTables,
        hold: bool,
    ) -> Result<(), StoreError> {
        if self.entries.len() < MAX_INDEX_ENTRIES || hold { Ok(()) } else { self.flush(tables) }
    }

    /// Writes the entries in the order of their tables and keys.
    pub(crate) fn flush(&mut self, tables: &mut dyn WriteTables) -> Result<(), StoreError> {
        let (mut entries, keys) = (mem::take(&mut self.entries), mem::take(&mut self.keys));
        let key = |entry: &IndexEntry<'_>| keys.get(entry.start..entry.end).unwrap_or_default();
        // The sort is stable, so changes to one entry keep their order.
        entries.sort_by(|left, right| {
            left.table.as_str().cmp(right.table.as_str()).then_with(|| key(left).cmp(key(right)))
        });
        let mut entries = entries.into_iter().peekable();
        while let Some(entry) = entries.next() {
            let overruled =
                entries.peek().is_some_and(|next| next.table == entry.table && key(next) == key(&entry));
            match entry.value {
                _ if overruled => {}
                Value::Gone => tables.remove(entry.table, key(&entry))?,
                Value::KeyLen(len) => tables.insert(entry.table, key(&entry), &entry_value(len))?,
                Value::Empty => tables.insert(entry.table, key(&entry), &[])?,
                Value::Fingerprint(bytes) => tables.insert(entry.table, key(&entry), &bytes)?,
            }
        }
        Ok(())
    }
}
