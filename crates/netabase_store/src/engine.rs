//! The embedded databases, seen as named tables of ordered bytes.
//!
//! Everything above this module works on [`Snapshot`], [`WriteTables`] and [`TableName`]s, so an
//! engine is a way to read, a way to write one group atomically, and nothing else.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::error::StoreError;
use crate::key_range::{KeySpan, after_prefix};
use crate::options::StorageBackend;

mod redb;
mod sled;

pub(crate) use self::redb::NO_PATH;
pub use self::redb::RedbStore;
pub(crate) use self::redb::is_intact;
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

/// The name of a table, and where an engine keeps it at hand while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    name: Cow<'static, str>,
    slot: Option<usize>,
}

impl TableName {
    /// Names a table that every store has.
    pub(crate) const fn fixed(name: &'static str, slot: usize) -> Self {
        Self { name: Cow::Borrowed(name), slot: Some(slot) }
    }

    /// Names a table of the schema. Each slot has one name.
    pub(crate) fn in_slot(name: String, slot: usize) -> Self {
        Self { name: Cow::Owned(name), slot: Some(slot) }
    }

    /// Names a table that is used once, such as one of a model that has gone.
    pub(crate) fn once(name: String) -> Self {
        Self { name: Cow::Owned(name), slot: None }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

/// The keys from `start` up to but not including `end`; without an end, all that follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span<'a> {
    pub(crate) start: &'a [u8],
    pub(crate) end: Option<&'a [u8]>,
}

impl<'a> From<&'a KeySpan> for Span<'a> {
    fn from(span: &'a KeySpan) -> Self {
        Self { start: &span.start, end: span.end.as_deref() }
    }
}

impl Span<'_> {
    /// All keys.
    pub(crate) const ALL: Span<'static> = Span { start: &[], end: None };

    /// Whether there can be no key inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

/// How long writes of a group may be lost after they were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Not at all: they are on the disk.
    Now,
    /// Until the next group that is written with [`Sync::Now`].
    Later,
}

impl Engine {
    /// Opens or creates the database at `path`, with tables at hand in slots below `slots`.
    pub(crate) fn open(
        backend: StorageBackend,
        path: &Path,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let open = || match backend {
            StorageBackend::Redb => RedbStore::open(path, cache_bytes, slots).map(Self::Redb),
            StorageBackend::Sled => SledStore::open(path, cache_bytes).map(Self::Sled),
            StorageBackend::Memory => RedbStore::in_memory(cache_bytes, slots).map(Self::Redb),
        };
        catch(open).map_err(|error| at_open(error, path, backend))
    }

    /// Opens or creates the redb database in `storage`.
    pub(crate) fn open_storage(
        storage: impl RedbStorage,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let opened = catch(|| RedbStore::with_storage(storage, cache_bytes, slots));
        opened.map(Self::Redb).map_err(|error| at_open(error, Path::new(NO_PATH), StorageBackend::Redb))
    }

    /// Returns a view of everything committed: a consistent one on redb, a live one on sled.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.snapshot().map(Snapshot::Redb),
            Self::Sled(sled) => Ok(Snapshot::Sled(sled.clone())),
        })
    }

    /// Whether a [`Snapshot`] stays as it was while others write.
    pub(crate) fn has_snapshots(&self) -> bool {
        match self {
            Self::Redb(_) => true,
            Self::Sled(_) => false,
        }
    }

    /// Runs `write` and commits what it did, all or nothing.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.write(sync, write),
            Self::Sled(sled) => sled.write(sync, write),
        })
    }
}

/// Calls an engine. redb trusts a file that was closed in order, and panics where it was damaged
/// afterwards.
fn catch<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Panicked::error(panic.as_ref())))
}

/// Calls an engine, which calls a reader with bytes where they lie, and says while it does. The reader's
/// panics are its own.
fn catch_reading<T>(call: impl FnOnce(&Cell<bool>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let reading = Cell::new(false);
    catch_unwind(AssertUnwindSafe(|| call(&reading))).unwrap_or_else(|panic| {
        if reading.get() { resume_unwind(panic) } else { Err(Panicked::error(panic.as_ref())) }
    })
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

impl Engine {
    /// Gives space that is not used back to the file system. Nobody may be writing.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        match self {
            Self::Redb(redb) => redb.compact(),
            Self::Sled(_) => {
                Err(StoreError::Unsupported { backend: StorageBackend::Sled, what: "compaction" })
            }
        }
    }

    /// Returns how much space the database takes on disk; in memory it takes none.
    pub(crate) fn disk_bytes(&self) -> Result<Option<u64>, StoreError> {
        match self {
            Self::Redb(redb) => redb.disk_bytes(),
            Self::Sled(sled) => sled.disk_bytes().map(Some),
        }
    }

    /// Counts the entries of every table again, where counts are kept. Nobody may be writing.
    pub(crate) fn recount(&self) -> Result<(), StoreError> {
        match self {
            Self::Redb(_) => Ok(()),
            Self::Sled(sled) => sled.recount(),
        }
    }
}

/// A view of the tables. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) enum Snapshot {
    Redb(Arc<redb::RedbSnapshot>),
    Sled(SledStore),
}

impl Snapshot {
    /// Opens a redb file that is only read.
    pub(crate) fn of_file(path: &Path) -> Result<Self, StoreError> {
        redb::RedbSnapshot::of_file(path).map(|snapshot| Self::Redb(Arc::new(snapshot)))
    }

    /// Returns every table that has entries, whoever made it; there may be empty ones, too.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        let names = match self {
            Self::Redb(redb) => redb.tables(),
            Self::Sled(sled) => sled.tables(),
        };
        Ok(names?.into_iter().map(TableName::once).collect())
    }

    /// Calls `read` with the value under `key`, if there is one.
    pub(crate) fn get_with<T>(
        &self,
        table: &TableName,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        catch_reading(|reading| match self {
            Self::Redb(redb) => {
                let value = redb.get(table, key)?;
                Ok(value.map(|value| {
                    let bytes = value.value();
                    reading.set(true);
                    let read = read(bytes);
                    reading.set(false);
                    read
                }))
            }
            Self::Sled(sled) => Ok(sled.get(table, key)?.map(|value| {
                reading.set(true);
                read(&value)
            })),
        })
    }

    /// Returns the value under `key`.
    pub(crate) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_with(table, key, <[u8]>::to_vec)
    }

    /// Returns the entries of a span, from either end.
    pub(crate) fn range(&self, table: &TableName, span: Span<'_>) -> Result<Entries, StoreError> {
        if span.is_empty() {
            return Ok(Entries::Empty);
        }
        catch(|| match self {
            Self::Redb(redb) => redb.range(table, span),
            Self::Sled(sled) => Ok(sled.range(table, span)),
        })
    }

    /// Returns every entry of a table in key order.
    pub(crate) fn all(&self, table: &TableName) -> Result<Entries, StoreError> {
        self.range(table, Span::ALL)
    }

    /// Returns every entry whose key starts with `prefix`.
    pub(crate) fn prefix(&self, table: &TableName, prefix: &[u8]) -> Result<Entries, StoreError> {
        self.range(table, Span { start: prefix, end: after_prefix(prefix).as_deref() })
    }

    /// Returns whether there is nothing in the database, not even of another program.
    pub(crate) fn is_empty(&self) -> Result<bool, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.is_empty(),
            Self::Sled(sled) => Ok(sled.is_empty()),
        })
    }

    /// Returns the number of entries, without reading them.
    pub(crate) fn len(&self, table: &TableName) -> Result<u64, StoreError> {
        catch(|| match self {
            Self::Redb(redb) => redb.len(table),
            Self::Sled(sled) => sled.len(table),
        })
    }
}

/// The entries of a span in key order, or from the back. It ends after an error.
pub(crate) enum Entries {
    Empty,
    Redb(redb::RedbRange),
    Sled(sled::SledRange),
}

impl Entries {
    /// Calls `read` with the next key and value, from the front or from the back.
    pub(crate) fn visit<T>(
        &mut self,
        ascending: bool,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Option<Result<T, StoreError>> {
        let read = catch_reading(|reading| match self {
            Self::Empty => Ok(None),
            Self::Redb(range) => match if ascending { range.next() } else { range.next_back() } {
                Some(Ok((key, value))) => {
                    let (key_bytes, value_bytes) = (key.value(), value.value());
                    reading.set(true);
                    let read = read(key_bytes, value_bytes);
                    reading.set(false);
                    Ok(Some(read))
                }
                Some(Err(error)) => Err(StoreError::backend(error)),
                None => Ok(None),
            },
            Self::Sled(range) => Ok(range.step(ascending)?.map(|entry| {
                reading.set(true);
                read(entry.key(), entry.value())
            })),
        });
        if read.is_err() {
            // There is no saying where it goes on, and some engines would return the error for ever.
            *self = Self::Empty;
        }
        read.transpose()
    }

    fn step(&mut self, ascending: bool) -> Option<Result<Entry, StoreError>> {
        let entry = catch(|| match self {
            Self::Empty => Ok(None),
            Self::Redb(range) => {
                redb::step(range, ascending).map(|entry| entry.map(|(key, value)| Entry::Redb(key, value)))
            }
            Self::Sled(range) => range.step(ascending).map(|entry| entry.map(Entry::Sled)),
        });
        if entry.is_err() {
            *self = Self::Empty;
        }
        entry.transpose()
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

/// A key and its value, where the engine keeps them.
pub(crate) enum Entry {
    Redb(redb::Guard, redb::Guard),
    Sled(sled::SledEntry),
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Redb(key, _) => key.value(),
            Self::Sled(entry) => entry.key(),
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Redb(_, value) => value.value(),
            Self::Sled(entry) => entry.value(),
        }
    }
}

/// The tables inside one write, which sees its own changes.
pub(crate) trait WriteTables {
    /// Returns the value under `key`.
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Adds or replaces an entry.
    fn insert(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Adds or replaces an entry; returns the value that was there.
    fn replace(&mut self, table: &TableName, key: &[u8], value: &[u8])
    -> Result<Option<Vec<u8>>, StoreError>;
    /// Removes an entry, if it is there.
    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<(), StoreError>;
    /// Returns the first keys of a span, up to `limit`.
    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Returns the number of entries.
    fn len(&mut self, table: &TableName) -> Result<u64, StoreError>;
}
