//! The redb engine: one table per name, one transaction per group.
//!
//! Opening a read transaction and its tables costs more than a lookup, so readers share one until
//! the next commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    AccessGuard, Builder, CompactionError, Database, DatabaseError, Durability, Range, ReadTransaction,
    ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend as _, StorageError, Table,
    TableDefinition, TableError, TableHandle, WriteTransaction,
};

use super::checksum::{Checksum, StoredTables, checksum_in};
use super::{EngineRange, Guarded, Health, Span, Sync, TableName, sync_directory};
use crate::engine::limits::MIN_FREE_BYTES;
use crate::error::{AdminError, OpenError, StoreError};
use crate::options::StorageBackend;
use crate::platform::{self, files};

mod held;
mod overlay;
mod unfinished;

use held::HeldStorage;
use overlay::Overlay;
use unfinished::MAGIC_BYTES;

/// The name of a storage without a path, in errors.
pub(crate) const NO_PATH: &str = "(the given storage)";

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type BytesTable<'name> = TableDefinition<'name, &'static [u8], &'static [u8]>;
type WriteTable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A key or a value in redb's cache.
pub(crate) type Guard = AccessGuard<'static, &'static [u8]>;
/// The entries of a span.
pub(crate) type RedbRange = Range<'static, &'static [u8], &'static [u8]>;

/// The suffix of a database that is being created.
const NEW: &str = ".new";

/// The redb database under a store. Cloning is cheap.
#[derive(Clone)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

struct Shared {
    /// Locked for writing only while the file is compacted, or is opened anew after a failure;
    /// after `latest`, where both are locked.
    database: RwLock<Closing>,
    storage: HeldStorage,
    cache_bytes: usize,
    /// The path of the file, or `None` without one.
    path: Option<PathBuf>,
    /// Whether it was created when it was opened.
    is_new: bool,
    /// The snapshot of the last commit that readers share, if one of them has read since.
    latest: RwLock<Option<Arc<RedbSnapshot>>>,
    /// The number of tables that a snapshot keeps open.
    slots: usize,
    health: Arc<Health>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let closed = self.database.get_mut().close();
        // After a failure it has been told why.
        if let Err(error) = closed
            && self.storage.failure().is_none()
        {
            tracing::error!(%error, path = %self.health.path().display(), "the database could not be closed");
        }
        self.storage.close_base();
    }
}

/// A database whose closing, which writes, may panic on a damaged file as every other call.
struct Closing(Option<Database>, Arc<Health>);

impl Closing {
    fn open(&self) -> Result<&Database, StoreError> {
        self.0.as_ref().ok_or_else(closed)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let Some(database) = self.0.take() else { return Ok(()) };
        self.1.call(|| database.close().map_err(StoreError::backend))
    }
}

fn closed() -> StoreError {
    StoreError::backend(StorageError::DatabaseClosed)
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedbStore").finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens or creates the file at `path`, with a cache of `cache_bytes`; one that was there is
    /// not changed before [`RedbStore::accept`].
    pub(super) fn open(
        path: &Path,
        cache_bytes: usize,
        slots: usize,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let is_new = match files::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_file(path)?,
            Err(error) => return Err(StoreError::file(path, error)),
            Ok(_) => false,
        };
        check_is_no_blank(path)?;
        let opened = Self::begin_file(path, cache_bytes)?;
        Ok(Self::new(opened, cache_bytes, Some((path, is_new)), slots, health))
    }

    /// Opens the database in a file of the caller's own, or creates one in it where it is empty.
    pub(super) fn open_own(path: &Path, cache_bytes: usize, health: Arc<Health>) -> Result<Self, StoreError> {
        let opened = Self::begin_file(path, cache_bytes)?;
        Ok(Self::new(opened, cache_bytes, Some((path, false)), 0, health))
    }

    /// Opens the file at `path`, which is not changed: writes are discarded when it is closed.
    pub(super) fn open_unchanged(
        path: &Path,
        cache_bytes: usize,
        slots: usize,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        check_is_no_blank(path)?;
        let overlay = Overlay::open(path, true).map_err(|error| StoreError::file(path, error))?;
        let opened = Self::begin(overlay, cache_bytes).map_err(|error| open_error(path, error))?;
        Ok(Self::new(opened, cache_bytes, Some((path, false)), slots, health))
    }

    /// Opens or creates the database in `storage`, with a cache of `cache_bytes`; it is not changed
    /// before [`RedbStore::accept`], unless a crash had left it unfinished.
    pub(super) fn with_storage(
        storage: impl redb::StorageBackend,
        cache_bytes: usize,
        slots: usize,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        unfinished::clear(&storage).map_err(StoreError::backend)?;
        let opened = Self::begin(storage, cache_bytes);
        let opened = opened.map_err(|error| open_error(Path::new(NO_PATH), error))?;
        Ok(Self::new(opened, cache_bytes, None, slots, health))
    }

    /// Creates a database in memory.
    pub(super) fn in_memory(
        cache_bytes: usize,
        slots: usize,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let opened = Self::begin(InMemoryBackend::new(), cache_bytes).map_err(StoreError::backend)?;
        let store = Self::new(opened, cache_bytes, None, slots, health);
        store.accept()?;
        Ok(store)
    }

    fn begin_file(path: &Path, cache_bytes: usize) -> Result<(HeldStorage, Database), StoreError> {
        let begin = || {
            let file = files::open_to_change(path)?;
            Self::begin(FileBackend::new(file)?, cache_bytes)
        };
        begin().map_err(|error| open_error(path, error))
    }

    fn begin(
        storage: impl redb::StorageBackend,
        cache_bytes: usize,
    ) -> Result<(HeldStorage, Database), DatabaseError> {
        let storage = HeldStorage::holding(storage)?;
        let database = Builder::new().set_cache_size(cache_bytes).create_with_backend(storage.clone())?;
        storage.keep_locks();
        Ok((storage, database))
    }

    /// `file` is where the file is, and whether it was created.
    fn new(
        (storage, database): (HeldStorage, Database),
        cache_bytes: usize,
        file: Option<(&Path, bool)>,
        slots: usize,
        health: Arc<Health>,
    ) -> Self {
        let database = RwLock::new(Closing(Some(database), Arc::clone(&health)));
        let (path, is_new) = file.map_or((None, false), |(path, is_new)| (Some(path.to_owned()), is_new));
        let latest = RwLock::default();
        let shared = Shared { database, storage, cache_bytes, path, is_new, latest, slots, health };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.shared.health
    }

    /// Returns whether the file was created when it was opened.
    pub(super) fn is_new(&self) -> bool {
        self.shared.is_new
    }

    /// Writes the changes that opening has made; without this call the file stays as it was.
    pub(super) fn accept(&self) -> Result<(), StoreError> {
        self.shared.storage.release().map_err(|error| self.failed(error))
    }

    /// Writes again after a failure, if there is free space and the file has everything that was
    /// acknowledged.
    pub(super) fn resume(&self) -> Result<(), StoreError> {
        let storage = &self.shared.storage;
        match storage.failure() {
            Some(failure) if failure.is_full && storage.is_holding() => {}
            Some(failure) => return Err(self.failed(failure.error())),
            None => return Err(self.failed(io::Error::other("it is not its storage that has failed"))),
        }
        if let Some(path) = &self.shared.path {
            check_free_space(path).map_err(|error| StoreError::file(path, error))?;
        }
        storage.release().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> StoreError {
        match &self.shared.path {
            Some(path) => StoreError::file(path, error),
            None => StoreError::backend(error),
        }
    }

    /// Opens the database anew after a failure, for readers alone: redb reads nothing more after
    /// one.
    fn fall_back(&self, latest: &mut Option<Arc<RedbSnapshot>>, closing: &mut Closing) {
        let storage = &self.shared.storage;
        if storage.failure().is_none() || storage.is_holding() {
            return;
        }
        *latest = None;
        // An error of closing it says nothing about the file.
        drop(Guarded::new(closing.0.take()));
        let opened = storage.hold().map_err(DatabaseError::from).and_then(|()| {
            Builder::new().set_cache_size(self.shared.cache_bytes).create_with_backend(storage.clone())
        });
        match opened {
            Ok(database) => closing.0 = Some(database),
            Err(error) => tracing::error!(%error, "the database can neither be written nor read any more"),
        }
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
        let health = Arc::clone(&self.shared.health);
        let snapshot =
            Arc::new(RedbSnapshot { open: Guarded::new(OpenSnapshot { transaction, tables }), health });
        *latest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    pub(super) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut OpenTables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(failure) = self.shared.storage.failure().filter(|_| self.shared.storage.is_holding()) {
            return Err(self.failed(failure.error()));
        }
        self.write_once(sync, write).map_err(|error| {
            let Some(failure) = self.shared.storage.failure() else { return error };
            let mut latest = self.shared.latest.write();
            self.fall_back(&mut latest, &mut self.shared.database.write());
            // redb may say no more than that there was an error.
            self.failed(failure.error())
        })
    }

    fn write_once<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut OpenTables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A snapshot without readers must not keep its pages from being used again.
        *self.shared.latest.write() = None;
        let mut transaction =
            self.shared.database.read().open()?.begin_write().map_err(StoreError::backend)?;
        if sync == Sync::Later {
            transaction.set_durability(Durability::None).map_err(StoreError::backend)?;
        }
        let mut tables = OpenTables::new(&transaction, self.shared.slots);
        let outcome = catch_unwind(AssertUnwindSafe(|| write(&mut tables)));
        // A drop after a panic may panic again, which would abort the program.
        drop(Guarded::new(tables));
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(panic) => {
                drop(Guarded::new(transaction));
                resume_unwind(panic);
            }
        };
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
    /// Removes a table.
    pub(super) fn drop_table(&self, table: &TableName) -> Result<(), StoreError> {
        let database = self.shared.database.read();
        let transaction = database.open()?.begin_write().map_err(StoreError::backend)?;
        transaction.delete_table(BytesTable::new(&table.stored_name())).map_err(StoreError::backend)?;
        transaction.commit().map_err(StoreError::backend)?;
        drop(database);
        *self.shared.latest.write() = None;
        Ok(())
    }

    /// Moves the pages of the file to its front and truncates it.
    ///
    /// Nobody may be writing. Reads that begin meanwhile wait; if some that began before do not end
    /// soon, it fails.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        // The interval between two looks.
        const READERS_PAUSE: Duration = Duration::from_millis(5);
        // The longest wait for reads under way.
        const READERS_PATIENCE: Duration = Duration::from_millis(500);
        let mut latest = self.shared.latest.write();
        *latest = None;
        let mut closing = self.shared.database.write();
        let database = closing.0.as_mut().ok_or_else(closed)?;
        let begin = platform::now();
        loop {
            match database.compact() {
                Ok(_) => return Ok(()),
                Err(CompactionError::TransactionInProgress) if platform::since(begin) < READERS_PATIENCE => {
                    platform::sleep(READERS_PAUSE);
                }
                Err(CompactionError::TransactionInProgress) => {
                    return Err(AdminError::InUse.into());
                }
                Err(error) => {
                    self.fall_back(&mut latest, &mut closing);
                    return Err(StoreError::backend(error));
                }
            }
        }
    }

    /// Returns the size of the file, or `None` in memory.
    pub(super) fn disk_bytes(&self) -> Result<Option<u64>, StoreError> {
        let Some(path) = &self.shared.path else { return Ok(None) };
        let file = files::metadata(path).map_err(|error| StoreError::file(path, error))?;
        Ok(Some(file.len()))
    }
}

/// Fails unless there is some free space beside the file at `path`.
fn check_free_space(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // The file has no name, and is deleted with its handle.
    let mut file = files::temporary_file_in(directory.unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut file, &vec![0; MIN_FREE_BYTES])?;
    file.sync_all()
}

/// Returns whether every page of the file at `path` has its checksum; the file may be changed.
pub(crate) fn is_intact(path: &Path) -> Result<bool, StoreError> {
    let mut database = Builder::new().open(path).map_err(|error| open_error(path, error))?;
    database.check_integrity().map_err(|error| open_error(path, error))
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Open(OpenError::locked(path))
        }
        // The file is as it should be, as far as anybody knows.
        DatabaseError::Storage(StorageError::Io(error)) if is_refusal(&error) => {
            StoreError::file(path, error)
        }
        error => StoreError::Open(OpenError::NotADatabase {
            path: path.to_owned(),
            backend: StorageBackend::Redb,
            source: Arc::new(error),
        }),
    }
}

/// Returns whether the operating system refuses to open or write a file.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// Compares the checksum of every page of the file at `path` with the page, those of redb's own
/// tables too. The caller has the file locked; it is not changed.
pub(super) fn check_pages(path: &Path) -> Result<(), StoreError> {
    let overlay = Overlay::open(path, false).map_err(|error| StoreError::file(path, error))?;
    let opened = Builder::new().set_check_integrity_on_open(true).create_with_backend(overlay);
    drop(Guarded::new(opened.map_err(|error| open_error(path, error))?));
    Ok(())
}

/// Creates a database at `path` atomically; returns whether no other program has created one
/// meanwhile.
fn create_file(path: &Path) -> Result<bool, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    let new = PathBuf::from(name);
    let failed = |error| open_error(path, StorageError::Io(error).into());
    // A file that a crash has left there was never a database, and two programs that create one
    // wait for each other.
    let file = files::open_or_create(&new);
    let file = FileBackend::new(file.map_err(failed)?).map_err(|error| open_error(path, error))?;
    if !file.try_lock_range(Bound::Unbounded, Bound::Unbounded).unwrap_or(true) {
        return Err(StoreError::Open(OpenError::locked(path)));
    }
    file.set_len(0).map_err(failed)?;
    file.close().map_err(failed)?;
    let created = Builder::new().create(&new).and_then(Database::close);
    let named = created.map_err(|error| open_error(path, error)).and_then(|()| {
        // A file that was created there meanwhile stays.
        let is_new = !files::exists(path);
        if is_new { files::rename(&new, path) } else { files::remove(&new) }.map_err(failed)?;
        Ok(is_new)
    });
    if named.is_err() {
        let removed = files::remove(&new);
        removed.unwrap_or_else(|error| tracing::debug!(%error, "an unfinished database is left"));
    }
    if let Some(directory) = path.parent() {
        sync_directory(directory);
    }
    named
}

/// Refuses a file that is empty or begins with zeros: it was cut off or never written, and is not a
/// database without records.
fn check_is_no_blank(path: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::file(path, error);
    let mut start = Vec::new();
    let file = files::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(no_database(path, "it is a directory"));
    }
    file.take(MAGIC_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
    if start.is_empty() {
        return Err(no_database(path, "it is empty; delete it to begin a new database"));
    }
    if start.iter().all(|byte| *byte == 0) {
        return Err(no_database(path, "it begins with zeros; delete it to begin a new database"));
    }
    Ok(())
}

fn no_database(path: &Path, why: &'static str) -> StoreError {
    let (path, source) = (path.to_owned(), Arc::new(io::Error::other(why)));
    StoreError::Open(OpenError::NotADatabase { path, backend: StorageBackend::Redb, source })
}

/// The tables that a write has touched, each opened once.
pub(super) struct OpenTables<'txn> {
    transaction: &'txn WriteTransaction,
    slots: Vec<Option<WriteTable<'txn>>>,
    others: HashMap<String, WriteTable<'txn>>,
}

impl<'txn> OpenTables<'txn> {
    fn new(transaction: &'txn WriteTransaction, slots: usize) -> Self {
        Self { transaction, slots: (0..slots).map(|_| None).collect(), others: HashMap::new() }
    }

    fn table(&mut self, table: &TableName) -> Result<&mut WriteTable<'txn>, StoreError> {
        let open = || {
            self.transaction.open_table(BytesTable::new(&table.stored_name())).map_err(StoreError::backend)
        };
        let slot = table.slot.and_then(|slot| self.slots.get_mut(slot));
        match slot {
            Some(Some(table)) => Ok(table),
            Some(slot) => Ok(slot.insert(open()?)),
            None => match self.others.entry(table.stored_name()) {
                Entry::Occupied(open) => Ok(open.into_mut()),
                Entry::Vacant(closed) => Ok(closed.insert(open()?)),
            },
        }
    }
}

impl StoredTables for OpenTables<'_> {
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.table(table)?.get(key).map_err(StoreError::backend)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn insert(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Checksum>, StoreError> {
        let previous = self.table(table)?.insert(key, stored).map_err(StoreError::backend)?;
        Ok(previous.map(|previous| checksum_in(previous.value())))
    }

    fn replace(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let previous = self.table(table)?.insert(key, stored).map_err(StoreError::backend)?;
        Ok(previous.map(|previous| previous.value().to_vec()))
    }

    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Checksum>, StoreError> {
        let previous = self.table(table)?.remove(key).map_err(StoreError::backend)?;
        Ok(previous.map(|previous| checksum_in(previous.value())))
    }

    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let entries = self.table(table)?.range::<&[u8]>(bounds(span)).map_err(StoreError::backend)?;
        let key = |entry: Result<(AccessGuard<'_, &[u8]>, _), StorageError>| {
            entry.map(|(key, _)| key.value().to_vec()).map_err(StoreError::backend)
        };
        entries.take(limit).map(key).collect()
    }

    fn len(&mut self, table: &TableName) -> Result<Option<u64>, StoreError> {
        self.table(table)?.len().map(Some).map_err(StoreError::backend)
    }
}

/// A redb read transaction and the tables that were opened in it.
pub(crate) struct RedbSnapshot {
    open: Guarded<OpenSnapshot>,
    health: Arc<Health>,
}

struct OpenSnapshot {
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
    pub(super) fn of_file(path: &Path, health: Arc<Health>) -> Result<Self, StoreError> {
        let database = Builder::new().open_read_only(path).map_err(|error| open_error(path, error))?;
        let transaction = database.begin_read().map_err(StoreError::backend)?;
        Ok(Self { open: Guarded::new(OpenSnapshot { transaction, tables: Box::default() }), health })
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    fn open(&self) -> Result<&OpenSnapshot, StoreError> {
        self.open.get().ok_or_else(closed)
    }

    /// Returns the names of all tables.
    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        let tables = self.open()?.transaction.list_tables().map_err(StoreError::backend)?;
        Ok(tables.map(|table| table.name().to_owned()).collect())
    }

    pub(super) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Guard>, StoreError> {
        self.open()?.with_table(table, None, |table| table.get(key).map_err(StoreError::backend))
    }

    pub(super) fn range(&self, table: &TableName, span: Span<'_>) -> Result<EngineRange, StoreError> {
        self.open()?.with_table(table, EngineRange::Empty, |table| {
            let range = table.range::<&[u8]>(bounds(span)).map_err(StoreError::backend)?;
            Ok(EngineRange::Redb(Guarded::new(range)))
        })
    }

    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let transaction = &self.open()?.transaction;
        let tables = transaction.list_tables().map_err(StoreError::backend)?.next().is_none();
        Ok(tables && transaction.list_multimap_tables().map_err(StoreError::backend)?.next().is_none())
    }

    pub(super) fn len(&self, table: &TableName) -> Result<u64, StoreError> {
        self.open()?.with_table(table, 0, |table| table.len().map_err(StoreError::backend))
    }
}

impl OpenSnapshot {
    /// Calls `read` with a table, or returns `absent` where there is none: a table comes to exist
    /// with its first write.
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
        match self.transaction.open_table(BytesTable::new(&table.stored_name())) {
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
    // redb panics on a damaged page here, and not when the entry is read later.
    if let Some((key, value)) = &entry {
        let (_, _) = (key.value(), value.value());
    }
    Ok(entry)
}
