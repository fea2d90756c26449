//! The embedded databases, seen as named tables of ordered bytes.
//!
//! Everything above this module works on [`Snapshot`], [`WriteTables`] and table names, so an
//! engine is a way to read, a way to write one group atomically, and nothing else.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;
use crate::options::StorageBackend;

mod redb;
mod sled;

pub(crate) use self::redb::NO_PATH;
pub use self::redb::RedbStore;
pub use self::sled::SledStore;
pub use ::redb::StorageBackend as RedbStorage;

/// One of the embedded databases.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Engine {
    /// redb, on a file or in memory.
    Redb(RedbStore),
    /// sled, in a directory.
    Sled(SledStore),
}

/// The bounds of a range scan.
pub(crate) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);
/// A key and its value, as a scan yields them.
pub(crate) type Entry = Result<(Vec<u8>, Vec<u8>), StoreError>;
/// A scan in key order, or from the back.
pub(crate) type EntryIter = Box<dyn DoubleEndedIterator<Item = Entry> + Send>;

impl Engine {
    /// Opens or creates the database at `path`.
    pub(crate) fn open(backend: StorageBackend, path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let open = || match backend {
            StorageBackend::Redb => RedbStore::open(path, cache_bytes).map(Self::Redb),
            StorageBackend::Sled => SledStore::open(path, cache_bytes).map(Self::Sled),
            StorageBackend::Memory => RedbStore::in_memory(cache_bytes).map(Self::Redb),
        };
        catch(open).map_err(|error| at_open(error, path, backend))
    }

    /// Opens or creates the redb database in `storage`.
    pub(crate) fn open_storage(storage: impl RedbStorage, cache_bytes: usize) -> Result<Self, StoreError> {
        let opened = catch(|| RedbStore::with_storage(storage, cache_bytes));
        opened.map(Self::Redb).map_err(|error| at_open(error, Path::new(NO_PATH), StorageBackend::Redb))
    }

    /// Returns a consistent view of everything committed, on sled as far as sled can.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.snapshot().map(Snapshot::Redb),
            Self::Sled(sled) => Ok(Snapshot::Sled(sled.clone())),
        })
    }

    /// Runs `write` and commits what it did, durably and all or nothing.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.write(write),
            Self::Sled(sled) => sled.write(write),
        })
    }
}

/// Calls an engine. redb trusts a file that was closed in order, and panics where it was damaged
/// afterwards.
fn catch<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Panicked::error(panic.as_ref())))
}

/// Makes sure that the files in a directory are found again after the power fails; the backends only
/// sync what is in a file.
fn sync_directory(directory: &Path) {
    // What `Path::parent` makes of a bare name.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        tracing::debug!(%error, "this system does not sync directories");
    }
}

/// What a backend said when it panicked.
#[derive(Debug)]
struct Panicked(String);

impl Panicked {
    fn error(panic: &(dyn Any + Send)) -> StoreError {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        StoreError::Corrupt(Arc::new(Self(text.unwrap_or_else(|| "no reason given".to_owned()))))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backend panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// Says which database could not be opened.
fn at_open(error: StoreError, path: &Path, backend: StorageBackend) -> StoreError {
    match error {
        StoreError::Corrupt(source) => StoreError::NotADatabase { path: path.to_owned(), backend, source },
        error => error,
    }
}

/// A consistent view of the tables.
#[derive(Debug)]
pub(crate) enum Snapshot {
    Redb(redb::RedbSnapshot),
    Sled(SledStore),
}

impl Snapshot {
    /// Returns the value under `key`.
    pub(crate) fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.get(table, key),
            Self::Sled(sled) => sled.get(table, key),
        })
    }

    /// Returns the entries of a range in key order.
    pub(crate) fn range(&self, table: &str, range: KeyRange) -> Result<EntryIter, StoreError> {
        let entries = catch(|| match self {
            Self::Redb(redb) => redb.range(table, range),
            Self::Sled(sled) => Ok(sled.range(table, range)),
        });
        Ok(Box::new(Caught(Some(entries?))))
    }

    /// Returns every entry of a table in key order.
    pub(crate) fn all(&self, table: &str) -> Result<EntryIter, StoreError> {
        self.range(table, (Bound::Unbounded, Bound::Unbounded))
    }

    /// Returns every entry whose key starts with `prefix`.
    pub(crate) fn prefix(&self, table: &str, prefix: &[u8]) -> Result<EntryIter, StoreError> {
        self.range(table, prefix_range(prefix))
    }

    /// Returns whether there is nothing in the database, not even of another program.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.is_empty(),
            Self::Sled(sled) => Ok(sled.is_empty()),
        })
    }

    /// Returns the number of entries, without reading them.
    pub(crate) fn len(&self, table: &str) -> Result<u64, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.len(table),
            Self::Sled(sled) => sled.len(table),
        })
    }
}

/// A scan that ends with an error where the engine panics.
struct Caught(Option<EntryIter>);

impl Caught {
    fn step(&mut self, step: impl FnOnce(&mut EntryIter) -> Option<Entry>) -> Option<Entry> {
        let mut entries = self.0.take()?;
        let entry = catch(|| Ok(step(&mut entries))).unwrap_or_else(|error| Some(Err(error)));
        // After an error there is no saying where a scan goes on.
        self.0 = Some(entries).filter(|_| !matches!(entry, Some(Err(_))));
        entry
    }
}

impl Iterator for Caught {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.step(Iterator::next)
    }
}

impl DoubleEndedIterator for Caught {
    fn next_back(&mut self) -> Option<Entry> {
        self.step(DoubleEndedIterator::next_back)
    }
}

/// The tables inside one write, which sees its own changes.
pub(crate) trait WriteTables {
    /// Returns the value under `key`.
    fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Adds or replaces an entry.
    fn insert(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes an entry, if it is there.
    fn remove(&mut self, table: &str, key: &[u8]) -> Result<(), StoreError>;
}

/// Returns the range of all keys that start with `prefix`.
pub(crate) fn prefix_range(prefix: &[u8]) -> KeyRange {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_ends_before_the_next_prefix() {
        let included = |bytes: &[u8]| Bound::Included(bytes.to_vec());
        let excluded = |bytes: &[u8]| Bound::Excluded(bytes.to_vec());
        assert_eq!(prefix_range(b"ab"), (included(b"ab"), excluded(b"ac")));
        assert_eq!(prefix_range(b"a\xff"), (included(b"a\xff"), excluded(b"b")));
        assert_eq!(prefix_range(b"\xff"), (included(b"\xff"), Bound::Unbounded));
        assert_eq!(prefix_range(b""), (included(b""), Bound::Unbounded));
    }
}
