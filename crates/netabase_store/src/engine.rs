//! The embedded databases, seen as named tables of ordered bytes.
//!
//! Everything above this module works on [`Snapshot`], [`WriteTables`] and [`TableName`]s, so an
//! engine is a way to read, a way to write one group atomically, and nothing else.

use std::path::Path;
use std::sync::Arc;

use crate::error::{DamageError, OpenError, StoreError};
use crate::model::key_range::{KeySpan, after_prefix};
use crate::options::{StorageBackend, StoreOptions};
use crate::platform::files;

mod checksum;
mod guard;
pub(crate) mod holder;
mod limits;
mod lock;
mod redb;
#[cfg_attr(not(feature = "sled"), path = "engine/no_sled.rs")]
mod sled;

use self::checksum::{COMMIT, checked, checksum_in, strip, verify};
pub(crate) use self::checksum::{TALLIES, Tally};
pub(crate) use self::guard::{Guarded, Health};

pub(crate) use self::redb::NO_PATH;
pub use self::redb::RedbStore;
pub(crate) use self::redb::is_intact;
pub use self::sled::SledStore;
pub(crate) use self::sled::is_sled_corruption;
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
#[derive(Debug, Clone)]
pub(crate) struct TableName {
    name: Name,
    slot: Option<usize>,
    /// The seed of its entries' checksums, or `None` for a table of a format without checksums.
    seed: Option<u64>,
}

#[derive(Debug, Clone)]
enum Name {
    Fixed(&'static str),
    Shared(Arc<str>),
}

/// The prefix of an engine's name for a table with checksums.
const CHECKED: &str = "5/";

impl TableName {
    /// Names a table that every store has.
    pub(crate) const fn fixed(name: &'static str, slot: usize) -> Self {
        Self { name: Name::Fixed(name), slot: Some(slot), seed: Some(checksum::seed_of(name)) }
    }

    /// Names a table of the schema. Each slot has one name.
    pub(crate) fn in_slot(name: &str, slot: usize) -> Self {
        Self { slot: Some(slot), ..Self::once(name) }
    }

    /// Names a table that is used once, such as one of a model that the schema no longer has.
    pub(crate) fn once(name: &str) -> Self {
        Self { name: Name::Shared(name.into()), slot: None, seed: Some(checksum::seed_of(name)) }
    }

    /// Names a table of a format without checksums.
    pub(crate) fn bare(name: &str) -> Self {
        Self { seed: None, ..Self::once(name) }
    }

    pub(crate) fn as_str(&self) -> &str {
        match &self.name {
            Name::Fixed(name) => name,
            Name::Shared(name) => name,
        }
    }

    /// Returns the name under which an engine keeps the table.
    fn stored_name(&self) -> String {
        [self.prefix(), self.as_str()].concat()
    }

    /// Returns the prefix of the name there.
    fn prefix(&self) -> &'static str {
        if self.seed.is_some() { CHECKED } else { "" }
    }

    /// Returns the table that an engine keeps under a name.
    fn of_stored(name: &str) -> Self {
        name.strip_prefix(CHECKED).map_or_else(|| Self::bare(name), Self::once)
    }
}

impl PartialEq for TableName {
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed && self.as_str() == other.as_str()
    }
}

impl Eq for TableName {}

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

    /// Returns whether there can be no key inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.end.is_some_and(|end| end <= self.start)
    }
}

/// The time for which writes of a group may be lost after they were answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Not at all: they are on the disk.
    Now,
    /// Until the next group that is written with [`Sync::Now`].
    Later,
}

impl Engine {
    /// Opens or creates the database at `path`, with tables at hand in slots below `slots`. A redb
    /// file is not changed before [`Engine::accept`].
    pub(crate) fn open(
        backend: StorageBackend,
        path: &Path,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let health = Health::new(path);
        let shared = Arc::clone(&health);
        let open = || match backend {
            StorageBackend::Redb => RedbStore::open(path, cache_bytes, slots, shared).map(Self::Redb),
            StorageBackend::Sled => SledStore::open(path, cache_bytes, shared, None).map(Self::Sled),
            StorageBackend::Memory => RedbStore::in_memory(cache_bytes, slots, shared).map(Self::Redb),
        };
        health.call(open).map_err(|error| at_open(error, path, backend))
    }

    /// Opens the redb database in a file of the caller's own, or creates one in it where it is
    /// empty.
    pub(crate) fn open_own(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let health = Health::new(path);
        let shared = Arc::clone(&health);
        let opened = health.call(|| RedbStore::open_own(path, cache_bytes, shared));
        opened.map(Self::Redb).map_err(|error| at_open(error, path, StorageBackend::Redb))
    }

    /// Opens the database at `path`, whose files are not changed: writes are discarded when it is
    /// closed.
    pub(crate) fn open_unchanged(
        backend: StorageBackend,
        path: &Path,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let health = Health::new(path);
        let shared = Arc::clone(&health);
        let open = || match backend {
            StorageBackend::Redb => {
                RedbStore::open_unchanged(path, cache_bytes, slots, shared).map(Self::Redb)
            }
            StorageBackend::Sled => SledStore::open_copy(path, cache_bytes, shared).map(Self::Sled),
            StorageBackend::Memory => RedbStore::in_memory(cache_bytes, slots, shared).map(Self::Redb),
        };
        health.call(open).map_err(|error| at_open(error, path, backend))
    }

    /// Compares every page of a file that was opened by [`Engine::open_unchanged`] with its
    /// checksum, where the engine has some; nothing is read through the cache.
    pub(crate) fn check_pages(&self) -> Result<(), StoreError> {
        let health = self.health();
        match self {
            Self::Redb(_) => health.call(|| redb::check_pages(health.path())),
            Self::Sled(_) => Ok(()),
        }
    }

    /// Opens the database at `path` as `options` say, like [`open`](Self::open) or
    /// [`open_unchanged`](Self::open_unchanged), once no other program has it open, waiting at most
    /// for their `lock_timeout`.
    pub(crate) fn open_when_free(
        options: &StoreOptions,
        path: &Path,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let StoreOptions { backend, cache_bytes, lock_timeout, read_only, .. } = options;
        let open = if *read_only { Self::open_unchanged } else { Self::open };
        lock::wait(*lock_timeout, || open(*backend, path, *cache_bytes, slots))
    }

    /// Opens or creates the redb database in `storage`, likewise.
    pub(crate) fn open_storage(
        storage: impl RedbStorage,
        cache_bytes: usize,
        slots: usize,
    ) -> Result<Self, StoreError> {
        let path = Path::new(NO_PATH);
        let health = Health::new(path);
        let shared = Arc::clone(&health);
        let opened = health.call(|| RedbStore::with_storage(storage, cache_bytes, slots, shared));
        opened.map(Self::Redb).map_err(|error| at_open(error, path, StorageBackend::Redb))
    }

    /// Writes what opening has changed. An engine that is dropped without it leaves its file as it
    /// was.
    pub(crate) fn accept(&self) -> Result<(), StoreError> {
        self.health().call(|| match self {
            Self::Redb(redb) => redb.accept(),
            Self::Sled(_) => Ok(()),
        })
    }

    /// Returns whether a file was created when it was opened.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Redb(redb) => redb.is_new(),
            Self::Sled(_) => false,
        }
    }

    /// Writes again after a write has failed, if its cause has ended and no acknowledged write is
    /// lost.
    pub(crate) fn resume(&self) -> Result<(), StoreError> {
        let health = self.health();
        if let Some(failure) = health.failure() {
            return Err(failure);
        }
        health.call(|| match self {
            Self::Redb(redb) => redb.resume(),
            Self::Sled(_) => {
                Err(StoreError::Unsupported { backend: StorageBackend::Sled, what: "way on after a failure" })
            }
        })
    }

    /// Returns a view of everything committed: a consistent one on redb, a live one on sled.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.health().call(|| match self {
            Self::Redb(redb) => redb.snapshot().map(Snapshot::Redb),
            Self::Sled(sled) => Ok(Snapshot::Sled(sled.clone())),
        })
    }

    /// Returns whether a [`Snapshot`] stays as it was while others write.
    pub(crate) fn has_snapshots(&self) -> bool {
        match self {
            Self::Redb(_) => true,
            Self::Sled(_) => false,
        }
    }

    /// Returns the health of the database.
    pub(crate) fn health(&self) -> &Arc<Health> {
        match self {
            Self::Redb(redb) => redb.health(),
            Self::Sled(sled) => sled.health(),
        }
    }

    /// Runs `write` and commits its changes atomically.
    pub(crate) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let health = self.health();
        if let Some(failure) = health.failure() {
            return Err(failure);
        }
        let damaged = |table: &TableName, key: &[u8]| health.damaged(table, key);
        health.call_reading(|| match self {
            Self::Redb(redb) => redb.write(sync, |tables| checked(tables, &damaged, write)),
            Self::Sled(sled) => sled.write(sync, |tables| checked(tables, &damaged, write)),
        })
    }
}

/// Makes sure that the files in a directory are found again after the power fails; the backends
/// only sync the content of a file.
fn sync_directory(directory: &Path) {
    // `Path::parent` of a bare name is empty.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if let Err(error) = files::sync_directory(directory) {
        tracing::debug!(%error, "this system does not sync directories");
    }
}

/// Says which database could not be opened.
fn at_open(error: StoreError, path: &Path, backend: StorageBackend) -> StoreError {
    match error {
        StoreError::Damage(DamageError::File { source, .. }) => {
            StoreError::Open(OpenError::NotADatabase { path: path.to_owned(), backend, source })
        }
        error => error,
    }
}

/// Skips a damaged entry, which a check reports.
pub(crate) fn unless_damaged<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(error) if error.is_of_entry() => {
            tracing::error!(%error, "a damaged entry was passed over");
            Ok(None)
        }
        read => read,
    }
}

impl Engine {
    /// Gives space that is not used back to the file system. Nobody may be writing.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        self.health().call(|| match self {
            Self::Redb(redb) => redb.compact(),
            Self::Sled(_) => {
                Err(StoreError::Unsupported { backend: StorageBackend::Sled, what: "compaction" })
            }
        })
    }

    /// Returns how much space the database takes on disk; in memory it takes none.
    pub(crate) fn disk_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.health().call(|| match self {
            Self::Redb(redb) => redb.disk_bytes(),
            Self::Sled(sled) => sled.disk_bytes().map(Some),
        })
    }

    /// Writes anew what every table should hold, as it does. Nobody may be writing.
    pub(crate) fn recount(&self) -> Result<(), StoreError> {
        let snapshot = self.snapshot()?;
        let mut tallies = Vec::new();
        for table in snapshot.tables()? {
            let mut tally = Tally::default();
            let mut entries = snapshot.all(&table)?;
            while let Some(checksum) = entries.visit_stored() {
                tally.add(checksum?);
            }
            tallies.push((table, tally));
        }
        let mut former = Vec::new();
        for entry in snapshot.all(&TALLIES)? {
            match entry {
                Ok(entry) if entry.key() == COMMIT => {}
                Ok(entry) => former.push(entry.key().to_vec()),
                Err(StoreError::Damage(DamageError::Entry { entry, .. })) => former.push(entry),
                Err(error) => return Err(error),
            }
        }
        if let Self::Sled(sled) = self {
            sled.accept_loss()?;
        }
        self.write(Sync::Now, |tables| {
            former.iter().try_for_each(|key| tables.remove(&TALLIES, key))?;
            // The tallies of tallies are not kept.
            tallies.iter().try_for_each(|(table, tally)| {
                tables.insert(&TALLIES, table.as_str().as_bytes(), &tally.to_bytes())
            })
        })
    }

    /// Removes a table that has no entries left, where the engine keeps empty ones.
    pub(crate) fn drop_empty(&self, table: &TableName) -> Result<(), StoreError> {
        match self {
            Self::Redb(redb) => self.health().call(|| redb.drop_table(table)),
            Self::Sled(_) => Ok(()),
        }
    }

    /// Returns whether writes that were on the disk are lost, as far as the engine can tell.
    pub(crate) fn has_lost(&self) -> bool {
        match self {
            Self::Redb(_) => false,
            Self::Sled(sled) => sled.has_lost(),
        }
    }

    /// Compares the numbers of entries with those that should be there, as far as that takes no
    /// walk; returns the first table where they differ.
    pub(crate) fn find_loss(&self) -> Result<Option<String>, StoreError> {
        let snapshot = self.snapshot()?;
        for entry in snapshot.all(&TALLIES)? {
            let Some(entry) = unless_damaged(entry.map(Some))?.filter(|entry| entry.key() != COMMIT) else {
                continue;
            };
            let name = String::from_utf8_lossy(entry.key()).into_owned();
            let len = snapshot.len(&TableName::once(&name))?;
            if Tally::parse(entry.value()).is_none_or(|tally| tally.entries != len) {
                return Ok(Some(name));
            }
        }
        Ok(None)
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
        let health = Health::new(path);
        let shared = Arc::clone(&health);
        let opened = health.call(|| redb::RedbSnapshot::of_file(path, shared));
        opened.map(|snapshot| Self::Redb(Arc::new(snapshot)))
    }

    fn health(&self) -> &Arc<Health> {
        match self {
            Self::Redb(redb) => redb.health(),
            Self::Sled(sled) => sled.health(),
        }
    }

    /// Returns every table that has entries, also of other programs; there may be empty ones, too.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        let names = self.health().call(|| match self {
            Self::Redb(redb) => redb.tables(),
            Self::Sled(sled) => sled.tables(),
        });
        let tables = names?.into_iter().map(|name| TableName::of_stored(&name));
        Ok(tables.filter(|table| table.seed.is_some() && *table != TALLIES).collect())
    }

    /// Returns the tables of a format without checksums.
    pub(crate) fn bare_tables(&self) -> Result<Vec<TableName>, StoreError> {
        let names = self.health().call(|| match self {
            Self::Redb(redb) => redb.tables(),
            Self::Sled(sled) => sled.tables(),
        });
        let tables = names?.into_iter().map(|name| TableName::of_stored(&name));
        Ok(tables.filter(|table| table.seed.is_none()).collect())
    }

    /// Returns the tally of a table, or `None` if it has none.
    pub(crate) fn tally(&self, table: &TableName) -> Result<Option<Tally>, StoreError> {
        match self.get_with(&TALLIES, table.as_str().as_bytes(), Tally::parse) {
            Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(None),
            Ok(None) => Ok(Some(Tally::default())),
            tally => tally.map(Option::flatten),
        }
    }

    /// Returns the names of the tables that have a tally.
    pub(crate) fn tallied(&self) -> Result<Vec<TableName>, StoreError> {
        let mut tables = Vec::new();
        for entry in self.all(&TALLIES)? {
            if let Some(entry) = unless_damaged(entry.map(Some))?.filter(|entry| entry.key() != COMMIT) {
                tables.push(TableName::once(&String::from_utf8_lossy(entry.key())));
            }
        }
        Ok(tables)
    }

    /// Calls `read` with the value under `key`, if there is one.
    pub(crate) fn get_with<T>(
        &self,
        table: &TableName,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let health = self.health();
        // Filled where the bytes are: every layer that a value or an error is handed through copies
        // it.
        let mut found = Ok(None);
        let whole = |stored: &[u8]| match verify(table.seed, key, stored) {
            Some(value) => found = Ok(Some(guard::reading(|| read(value)))),
            None => found = Err(health.damaged(table, key)),
        };
        health.call_reading(|| {
            match self {
                Self::Redb(redb) => {
                    if let Some(value) = redb.get(table, key)? {
                        whole(value.value());
                    }
                }
                Self::Sled(sled) => {
                    if let Some(value) = sled.get(table, key)? {
                        whole(&value);
                    }
                }
            }
            Ok(())
        })?;
        found
    }

    /// Returns the value under `key`.
    pub(crate) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_with(table, key, <[u8]>::to_vec)
    }

    /// Returns the entries of a span, from either end.
    pub(crate) fn range(&self, table: &TableName, span: Span<'_>) -> Result<Entries, StoreError> {
        let range = if span.is_empty() {
            EngineRange::Empty
        } else {
            self.health().call(|| match self {
                Self::Redb(redb) => redb.range(table, span),
                Self::Sled(sled) => Ok(EngineRange::Sled(sled.range(table, span))),
            })?
        };
        Ok(Entries { range, table: table.clone(), health: Arc::clone(self.health()) })
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
        self.health().call(|| match self {
            Self::Redb(redb) => redb.is_empty(),
            Self::Sled(sled) => Ok(sled.is_empty()),
        })
    }

    /// Returns the number of entries, without reading them.
    pub(crate) fn len(&self, table: &TableName) -> Result<u64, StoreError> {
        match self {
            Self::Redb(redb) => self.health().call(|| redb.len(table)),
            Self::Sled(_) => Ok(self.tally(table)?.unwrap_or_default().entries),
        }
    }
}

/// The entries of a span in key order, or from the back. An entry that is damaged is an error, and
/// those after it follow; it ends after any other error.
pub(crate) struct Entries {
    range: EngineRange,
    table: TableName,
    health: Arc<Health>,
}

/// The entries of a span as an engine has them.
#[cfg_attr(not(feature = "sled"), expect(clippy::large_enum_variant, reason = "there is no other one"))]
pub(crate) enum EngineRange {
    Empty,
    Redb(Guarded<redb::RedbRange>),
    Sled(sled::SledRange),
}

impl Entries {
    /// Calls `read` with the next key and value, from the front or from the back.
    pub(crate) fn visit<T>(
        &mut self,
        ascending: bool,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Option<Result<T, StoreError>> {
        let (table, health) = (&self.table, &self.health);
        let mut visited = None;
        let whole = |key: &[u8], stored: &[u8]| match verify(table.seed, key, stored) {
            Some(value) => visited = Some(Ok(guard::reading(|| read(key, value)))),
            None => visited = Some(Err(health.damaged(table, key))),
        };
        self.range.visit(health, ascending, whole).map_or_else(|error| Some(Err(error)), |()| visited)
    }

    /// Skips damaged entries, for readers of data that follows from the records. A check reports
    /// them.
    pub(crate) fn readable(self) -> impl Iterator<Item = Result<Entry, StoreError>> {
        self.filter(|entry| {
            let damaged = entry.as_ref().err().filter(|error| error.is_of_entry());
            damaged.inspect(|error| tracing::error!(%error, "a damaged entry was passed over")).is_none()
        })
    }

    /// Returns the checksum of the next entry, whether it is right or not.
    pub(crate) fn visit_stored(&mut self) -> Option<Result<checksum::Checksum, StoreError>> {
        let mut visited = None;
        let visit = |_: &[u8], stored: &[u8]| visited = Some(Ok(checksum_in(stored)));
        self.range.visit(&self.health, true, visit).map_or_else(|error| Some(Err(error)), |()| visited)
    }

    fn step(&mut self, ascending: bool) -> Option<Result<Entry, StoreError>> {
        let entry = match self.range.step(&self.health, ascending)? {
            Ok(entry) => Entry { entry, seed: self.table.seed },
            Err(error) => return Some(Err(error)),
        };
        let whole = verify(self.table.seed, entry.key(), entry.stored()).is_some();
        Some(if whole { Ok(entry) } else { Err(self.health.damaged(&self.table, entry.key())) })
    }
}

impl EngineRange {
    /// Calls `read` with the next key and stored value, if there is one.
    #[inline]
    fn visit(
        &mut self,
        health: &Health,
        ascending: bool,
        read: impl FnOnce(&[u8], &[u8]),
    ) -> Result<(), StoreError> {
        let visited = health.call_reading(|| {
            match self {
                Self::Empty => {}
                Self::Redb(range) => {
                    let Some(range) = range.get_mut() else { return Ok(()) };
                    match if ascending { range.next() } else { range.next_back() } {
                        Some(Ok((key, value))) => read(key.value(), value.value()),
                        Some(Err(error)) => return Err(StoreError::backend(error)),
                        None => {}
                    }
                }
                Self::Sled(range) => {
                    if let Some(entry) = range.step(ascending)? {
                        read(entry.key(), entry.value());
                    }
                }
            }
            Ok(())
        });
        if visited.is_err() {
            // There is no saying where it goes on, and some engines would return the error for
            // ever.
            *self = Self::Empty;
        }
        visited
    }

    fn step(&mut self, health: &Health, ascending: bool) -> Option<Result<EngineEntry, StoreError>> {
        let entry = health.call(|| match self {
            Self::Empty => Ok(None),
            Self::Redb(range) => {
                let Some(range) = range.get_mut() else { return Ok(None) };
                redb::step(range, ascending)
                    .map(|entry| entry.map(|(key, value)| EngineEntry::Redb(key, value)))
            }
            Self::Sled(range) => range.step(ascending).map(|entry| entry.map(EngineEntry::Sled)),
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
pub(crate) struct Entry {
    entry: EngineEntry,
    seed: Option<u64>,
}

#[cfg_attr(not(feature = "sled"), expect(clippy::large_enum_variant, reason = "there is no other one"))]
enum EngineEntry {
    Redb(redb::Guard, redb::Guard),
    Sled(sled::SledEntry),
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        match &self.entry {
            EngineEntry::Redb(key, _) => key.value(),
            EngineEntry::Sled(entry) => entry.key(),
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        strip(self.seed, self.stored())
    }

    /// Returns the value as it is stored.
    fn stored(&self) -> &[u8] {
        match &self.entry {
            EngineEntry::Redb(_, value) => value.value(),
            EngineEntry::Sled(entry) => entry.value(),
        }
    }

    /// Returns the checksum of the entry.
    pub(crate) fn checksum(&self) -> checksum::Checksum {
        checksum_in(self.stored())
    }
}

/// The tables inside one write, which sees its own changes.
pub(crate) trait WriteTables {
    /// Returns the value under `key`.
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Adds or replaces an entry.
    fn insert(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Adds or replaces an entry; returns the former one.
    fn replace(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<Replaced, StoreError>;
    /// Removes an entry, if it is there.
    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<(), StoreError>;
    /// Returns the first keys of a span, up to `limit`.
    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Returns the number of entries.
    fn len(&mut self, table: &TableName) -> Result<u64, StoreError>;

    /// Returns whether there is an entry, damaged or not.
    fn contains(&mut self, table: &TableName, key: &[u8]) -> Result<bool, StoreError> {
        match self.get(table, key) {
            Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(true),
            found => found.map(|found| found.is_some()),
        }
    }
}

/// The entry that a new one has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replaced {
    Nothing,
    Value(Vec<u8>),
    /// A damaged entry.
    Damaged,
}
