//! The redb engine: one table per name, one transaction per group.
//!
//! Opening a read transaction and its tables costs more than a lookup, so readers share one until
//! the next commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{fs, thread};

use parking_lot::RwLock;
use redb::backends::InMemoryBackend;
use redb::{
    AccessGuard, Builder, CompactionError, Database, DatabaseError, Durability, Range, ReadTransaction,
    ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError, Table, TableDefinition, TableError,
    TableHandle, WriteTransaction,
};

use super::{Entries, Span, Sync, TableName, WriteTables, sync_directory};
use crate::error::StoreError;
use crate::options::StorageBackend;

mod unfinished;

/// What an error calls a storage that has no path.
pub(crate) const NO_PATH: &str = "(the given storage)";

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type BytesTable<'name> = TableDefinition<'name, &'static [u8], &'static [u8]>;
type WriteTable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A key or a value in redb's cache.
pub(crate) type Guard = AccessGuard<'static, &'static [u8]>;
/// The entries of a span.
pub(crate) type RedbRange = Range<'static, &'static [u8], &'static [u8]>;

/// How long compacting waits for reads that are going on.
const READERS_PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks.
const READERS_PAUSE: Duration = Duration::from_millis(5);

/// The redb database under a store. Cloning is cheap.
#[derive(Clone)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

struct Shared {
    /// Locked for writing only while the file is compacted; after `latest`, where both are locked.
    database: RwLock<Closing>,
    /// Where the file is, unless there is none.
    path: Option<PathBuf>,
    /// What readers share: the last commit, if one of them has asked since.
    latest: RwLock<Option<Arc<RedbSnapshot>>>,
    /// How many tables a snapshot keeps open.
    slots: usize,
}

/// A database whose closing, which writes, may panic on a damaged file as every other call.
struct Closing(Option<Database>);

impl Closing {
    fn open(&self) -> Result<&Database, StoreError> {
        self.0.as_ref().ok_or_else(closed)
    }
}

fn closed() -> StoreError {
    StoreError::backend(StorageError::DatabaseClosed)
}

impl Drop for Closing {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("redb panicked while it closed a database, which is likely damaged");
        }
    }
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedbStore").finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens or creates the file at `path`, with a cache of `cache_bytes`.
    pub(super) fn open(path: &Path, cache_bytes: usize, slots: usize) -> Result<Self, StoreError> {
        let create = || Builder::new().set_cache_size(cache_bytes).create(path);
        let opened = match create() {
            Err(error) if lacks_magic(&error) && unfinished::clear_file(path) => create(),
            opened => opened,
        };
        let opened = opened.map_err(|error| open_error(path, error))?;
        if let Some(directory) = path.parent() {
            sync_directory(directory);
        }
        Ok(Self::new(opened, Some(path.to_owned()), slots))
    }

    /// Opens or creates the database in `storage`, with a cache of `cache_bytes`.
    pub(super) fn with_storage(
        storage: impl redb::StorageBackend,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        unfinished::clear(&storage).map_err(StoreError::backend)?;
        let opened = Builder::new().set_cache_size(cache_bytes).create_with_backend(storage);
        let opened = opened.map_err(|error| open_error(Path::new(NO_PATH), error))?;
        Ok(Self::new(opened, None, slots))
    }

    /// Creates a database that is gone when it is dropped.
    pub(super) fn in_memory(cache_bytes: usize, slots: usize) -> Result<Self, StoreError> {
        let opened = Builder::new().set_cache_size(cache_bytes).create_with_backend(InMemoryBackend::new());
        opened.map(|database| Self::new(database, None, slots)).map_err(StoreError::backend)
    }

    fn new(database: Database, path: Option<PathBuf>, slots: usize) -> Self {
        let database = RwLock::new(Closing(Some(database)));
        Self { shared: Arc::new(Shared { database, path, latest: RwLock::default(), slots }) }
    }

    pub(super) fn snapshot(&self) -> Result<Arc<RedbSnapshot>, StoreError> {
        if let Some(latest) = &*self.shared.latest.read() {
            return Ok(Arc::clone(latest));
        }
        // The transaction begins under the lock, so that it cannot be older than a commit that has
        // just taken the last snapshot away.
        let mut latest = self.shared.latest.write();
        if let Some(latest) = &*latest {
            return Ok(Arc::clone(latest));
        }
        let transaction = self.shared.database.read().open()?.begin_read().map_err(StoreError::backend)?;
        let tables = (0..self.shared.slots).map(|_| OnceLock::new()).collect();
        let snapshot = Arc::new(RedbSnapshot { transaction, tables });
        *latest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    pub(super) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // What nobody reads any more must not keep its pages from being used again.
        *self.shared.latest.write() = None;
        let mut transaction =
            self.shared.database.read().open()?.begin_write().map_err(StoreError::backend)?;
        if sync == Sync::Later {
            transaction.set_durability(Durability::None).map_err(StoreError::backend)?;
        }
        let mut tables = OpenTables::new(&transaction, self.shared.slots);
        let outcome = write(&mut tables);
        drop(tables);
        match outcome {
            Ok(value) => {
                transaction.commit().map_err(StoreError::backend)?;
                *self.shared.latest.write() = None;
                Ok(value)
            }
            Err(error) => {
                transaction.abort().map_err(StoreError::backend)?;
                Err(error)
            }
        }
    }
}

impl RedbStore {
    /// Moves what is in the file to its front and cuts off the rest.
    ///
    /// Nobody may be writing. Reads that begin meanwhile wait; if some that began before do not end
    /// soon, it fails.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let mut latest = self.shared.latest.write();
        *latest = None;
        let mut closing = self.shared.database.write();
        let database = closing.0.as_mut().ok_or_else(closed)?;
        let begin = Instant::now();
        loop {
            match database.compact() {
                Ok(_) => return Ok(()),
                Err(CompactionError::TransactionInProgress) if begin.elapsed() < READERS_PATIENCE => {
                    thread::sleep(READERS_PAUSE);
                }
                Err(CompactionError::TransactionInProgress) => return Err(StoreError::InUse),
                Err(error) => return Err(StoreError::backend(error)),
            }
        }
    }

    /// Returns the size of the file; in memory there is none.
    pub(super) fn disk_bytes(&self) -> Result<Option<u64>, StoreError> {
        let Some(path) = &self.shared.path else { return Ok(None) };
        let file = fs::metadata(path).map_err(|error| StoreError::file(path, error))?;
        Ok(Some(file.len()))
    }
}

/// Returns whether every page of the file at `path` has its checksum; the file may be changed.
pub(crate) fn is_intact(path: &Path) -> Result<bool, StoreError> {
    let mut database = Builder::new().open(path).map_err(|error| open_error(path, error))?;
    database.check_integrity().map_err(|error| open_error(path, error))
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { path: path.to_owned() }
        }
        error => StoreError::NotADatabase {
            path: path.to_owned(),
            backend: StorageBackend::Redb,
            source: Arc::new(error),
        },
    }
}

/// Whether redb has refused a file for want of its magic number.
fn lacks_magic(error: &DatabaseError) -> bool {
    let DatabaseError::Storage(StorageError::Io(error)) = error else { return false };
    error.kind() == std::io::ErrorKind::InvalidData
}

/// The tables that a write has touched, each opened once.
struct OpenTables<'txn> {
    transaction: &'txn WriteTransaction,
    slots: Vec<Option<WriteTable<'txn>>>,
    others: HashMap<String, WriteTable<'txn>>,
}

impl<'txn> OpenTables<'txn> {
    fn new(transaction: &'txn WriteTransaction, slots: usize) -> Self {
        Self { transaction, slots: (0..slots).map(|_| None).collect(), others: HashMap::new() }
    }

    fn table(&mut self, table: &TableName) -> Result<&mut WriteTable<'txn>, StoreError> {
        let open =
            || self.transaction.open_table(BytesTable::new(table.as_str())).map_err(StoreError::backend);
        let slot = table.slot.and_then(|slot| self.slots.get_mut(slot));
        match slot {
            Some(Some(table)) => Ok(table),
            Some(slot) => Ok(slot.insert(open()?)),
            None => match self.others.entry(table.as_str().to_owned()) {
                Entry::Occupied(open) => Ok(open.into_mut()),
                Entry::Vacant(closed) => Ok(closed.insert(open()?)),
            },
        }
    }
}

impl WriteTables for OpenTables<'_> {
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.table(table)?.get(key).map_err(StoreError::backend)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn insert(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.insert(key, value).map(drop).map_err(StoreError::backend)
    }

    fn replace(
        &mut self,
        table: &TableName,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let previous = self.table(table)?.insert(key, value).map_err(StoreError::backend)?;
        Ok(previous.map(|previous| previous.value().to_vec()))
    }

    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.remove(key).map(drop).map_err(StoreError::backend)
    }

    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let entries = self.table(table)?.range::<&[u8]>(bounds(span)).map_err(StoreError::backend)?;
        let key = |entry: Result<(AccessGuard<'_, &[u8]>, _), StorageError>| {
            entry.map(|(key, _)| key.value().to_vec()).map_err(StoreError::backend)
        };
        entries.take(limit).map(key).collect()
    }

    fn len(&mut self, table: &TableName) -> Result<u64, StoreError> {
        self.table(table)?.len().map_err(StoreError::backend)
    }
}

/// A redb read transaction and the tables that were opened in it.
pub(crate) struct RedbSnapshot {
    transaction: ReadTransaction,
    /// `None` inside for a table that does not exist.
    tables: Box<[OnceLock<Option<ReadTable>>]>,
}

impl std::fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedbSnapshot").finish_non_exhaustive()
    }
}

impl RedbSnapshot {
    /// Opens the file at `path`, which is not changed and must have been closed properly.
    pub(super) fn of_file(path: &Path) -> Result<Self, StoreError> {
        let database = Builder::new().open_read_only(path).map_err(|error| open_error(path, error))?;
        let transaction = database.begin_read().map_err(StoreError::backend)?;
        Ok(Self { transaction, tables: Box::default() })
    }

    /// Returns the names of all tables.
    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        let tables = self.transaction.list_tables().map_err(StoreError::backend)?;
        Ok(tables.map(|table| table.name().to_owned()).collect())
    }

    pub(super) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Guard>, StoreError> {
        self.with_table(table, None, |table| table.get(key).map_err(StoreError::backend))
    }

    pub(super) fn range(&self, table: &TableName, span: Span<'_>) -> Result<Entries, StoreError> {
        self.with_table(table, Entries::Empty, |table| {
            table.range::<&[u8]>(bounds(span)).map(Entries::Redb).map_err(StoreError::backend)
        })
    }

    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let tables = self.transaction.list_tables().map_err(StoreError::backend)?.next().is_none();
        Ok(tables && self.transaction.list_multimap_tables().map_err(StoreError::backend)?.next().is_none())
    }

    pub(super) fn len(&self, table: &TableName) -> Result<u64, StoreError> {
        self.with_table(table, 0, |table| table.len().map_err(StoreError::backend))
    }

    /// Calls `read` with a table, or returns `absent` where there is none: a table comes to exist with
    /// its first write.
    fn with_table<T>(
        &self,
        table: &TableName,
        absent: T,
        read: impl FnOnce(&ReadTable) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(slot) = table.slot.and_then(|slot| self.tables.get(slot)) else {
            return self.open(table)?.as_ref().map_or(Ok(absent), read);
        };
        if let Some(open) = slot.get() {
            return open.as_ref().map_or(Ok(absent), read);
        }
        // Two threads may both open it; one of the two is kept.
        let open = self.open(table)?;
        slot.get_or_init(|| open).as_ref().map_or(Ok(absent), read)
    }

    fn open(&self, table: &TableName) -> Result<Option<ReadTable>, StoreError> {
        match self.transaction.open_table(BytesTable::new(table.as_str())) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::backend(error)),
        }
    }
}

fn bounds(span: Span<'_>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(span.start), span.end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// Returns the next key and value of a range, from the front or from the back.
pub(super) fn step(range: &mut RedbRange, ascending: bool) -> Result<Option<(Guard, Guard)>, StoreError> {
    let entry = if ascending { range.next() } else { range.next_back() };
    let entry = entry.transpose().map_err(StoreError::backend)?;
    // Where the page is damaged this is where redb panics, and not when the entry is read later.
    if let Some((key, value)) = &entry {
        let (_, _) = (key.value(), value.value());
    }
    Ok(entry)
}
