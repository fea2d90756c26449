//! The redb engine: one table per name, one transaction per group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, Range, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageError, Table, TableDefinition, TableError, WriteTransaction,
};

use super::{EntryIter, KeyRange, WriteTables, sync_directory};
use crate::error::StoreError;
use crate::options::StorageBackend;

mod unfinished;

/// What an error calls a storage that has no path.
pub(crate) const NO_PATH: &str = "(the given storage)";

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type BytesTable<'name> = TableDefinition<'name, &'static [u8], &'static [u8]>;

/// The redb database under a store. Cloning is cheap.
#[derive(Clone)]
pub struct RedbStore(Arc<Closing>);

/// A database whose closing, which writes, may panic on a damaged file as every other call.
struct Closing(Option<Database>);

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
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let create = || Builder::new().set_cache_size(cache_bytes).create(path);
        let opened = match create() {
            Err(error) if lacks_magic(&error) && unfinished::clear_file(path) => create(),
            opened => opened,
        };
        if let (Ok(_), Some(directory)) = (&opened, path.parent()) {
            sync_directory(directory);
        }
        Self::opened(path, opened)
    }

    /// Opens or creates the database in `storage`, with a cache of `cache_bytes`.
    pub fn with_storage(storage: impl redb::StorageBackend, cache_bytes: usize) -> Result<Self, StoreError> {
        unfinished::clear(&storage).map_err(StoreError::backend)?;
        let opened = Builder::new().set_cache_size(cache_bytes).create_with_backend(storage);
        Self::opened(Path::new(NO_PATH), opened)
    }

    /// Creates a database that is gone when it is dropped.
    pub fn in_memory(cache_bytes: usize) -> Result<Self, StoreError> {
        let opened = Builder::new().set_cache_size(cache_bytes).create_with_backend(InMemoryBackend::new());
        opened.map(Self::of).map_err(StoreError::backend)
    }

    fn of(database: Database) -> Self {
        Self(Arc::new(Closing(Some(database))))
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.0.0.as_ref().ok_or_else(|| StoreError::backend(StorageError::DatabaseClosed))
    }

    fn opened(path: &Path, opened: Result<Database, DatabaseError>) -> Result<Self, StoreError> {
        opened.map(Self::of).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::Locked { path: path.to_owned() }
            }
            error => StoreError::NotADatabase {
                path: path.to_owned(),
                backend: StorageBackend::Redb,
                source: Arc::new(error),
            },
        })
    }

    pub(super) fn snapshot(&self) -> Result<RedbSnapshot, StoreError> {
        self.database()?.begin_read().map(RedbSnapshot).map_err(StoreError::backend)
    }

    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.database()?.begin_write().map_err(StoreError::backend)?;
        let mut tables = OpenTables { transaction: &transaction, open: HashMap::new() };
        let outcome = write(&mut tables);
        drop(tables);
        match outcome {
            Ok(value) => transaction.commit().map_err(StoreError::backend).map(|()| value),
            Err(error) => {
                transaction.abort().map_err(StoreError::backend)?;
                Err(error)
            }
        }
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
    open: HashMap<String, Table<'txn, &'static [u8], &'static [u8]>>,
}

impl<'txn> OpenTables<'txn> {
    fn table(&mut self, name: &str) -> Result<&mut Table<'txn, &'static [u8], &'static [u8]>, StoreError> {
        Ok(match self.open.entry(name.to_owned()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(closed) => closed
                .insert(self.transaction.open_table(BytesTable::new(name)).map_err(StoreError::backend)?),
        })
    }
}

impl WriteTables for OpenTables<'_> {
    fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.table(table)?.get(key).map_err(StoreError::backend)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn insert(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.insert(key, value).map(drop).map_err(StoreError::backend)
    }

    fn remove(&mut self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.remove(key).map(drop).map_err(StoreError::backend)
    }
}

/// A redb read transaction.
pub(crate) struct RedbSnapshot(ReadTransaction);

impl std::fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedbSnapshot").finish_non_exhaustive()
    }
}

impl RedbSnapshot {
    pub(super) fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        let value = table.get(key).map_err(StoreError::backend)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    pub(super) fn range(&self, table: &str, range: KeyRange) -> Result<EntryIter, StoreError> {
        let Some(table) = self.table(table)? else { return Ok(Box::new(std::iter::empty())) };
        let range = (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice));
        let range: Range<'static, _, _> = table.range::<&[u8]>(range).map_err(StoreError::backend)?;
        Ok(Box::new(range.map(owned_entry)))
    }

    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let tables = self.0.list_tables().map_err(StoreError::backend)?.next().is_none();
        Ok(tables && self.0.list_multimap_tables().map_err(StoreError::backend)?.next().is_none())
    }

    pub(super) fn len(&self, table: &str) -> Result<u64, StoreError> {
        self.table(table)?.map_or(Ok(0), |table| table.len().map_err(StoreError::backend))
    }

    /// A table comes to exist with its first write.
    fn table(&self, name: &str) -> Result<Option<ReadTable>, StoreError> {
        match self.0.open_table(BytesTable::new(name)) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::backend(error)),
        }
    }
}

type Guards = (redb::AccessGuard<'static, &'static [u8]>, redb::AccessGuard<'static, &'static [u8]>);

fn owned_entry(entry: Result<Guards, StorageError>) -> super::Entry {
    let (key, value) = entry.map_err(StoreError::backend)?;
    Ok((key.value().to_vec(), value.value().to_vec()))
}
