//! The sled engine: every table in one sled tree, so that one batch is atomic across tables.
//!
//! A sled key is the table's name with its length in front, then the key.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::checksum::{COMMIT, Checksum, StoredTables, TALLIES, checksum, checksum_in, verify};
use super::{Health, Span, Sync, TableName, sync_directory};
use crate::error::{DamageError, OpenError, StoreError};
use crate::model::key_range::after_prefix;
use crate::options::StorageBackend;
use crate::platform;
use crate::platform::files::{self, File, TempDir};

mod durable;

use durable::Durable;

/// The name of sled's log in its directory.
const LOG: &str = "db";
/// The name of the directory of blobs in it.
const BLOBS: &str = "blobs";

/// The sled database under a store. Cloning is cheap.
///
/// On Linux sled has its pages written, and does not ask the disk to keep them: the log is synced
/// here, and so are the blobs, the files of their own that sled gives to large pages.
#[derive(Debug, Clone)]
pub struct SledStore(sled::Db, Arc<Files>);

/// The files that sled writes and does not sync.
#[derive(Debug)]
struct Files {
    log: File,
    blobs: PathBuf,
    /// The blobs that were synced and are still there.
    synced: Mutex<HashSet<OsString>>,
    health: Arc<Health>,
    durable: Durable,
    /// The copy that is deleted when the database is closed.
    _copy: Option<TempDir>,
}

impl Files {
    fn sync(&self) -> io::Result<()> {
        let mut synced = self.synced.lock();
        let mut there = HashSet::new();
        let blobs = match files::entries(&self.blobs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            blobs => Some(blobs?),
        };
        let mut is_new = false;
        for blob in blobs.into_iter().flatten() {
            let blob = blob?;
            if !synced.contains(&blob.file_name()) {
                match files::open(blob.path()).and_then(|file| file.sync_data()) {
                    // The file was replaced meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    outcome => outcome?,
                }
                is_new = true;
            }
            there.insert(blob.file_name());
        }
        *synced = there;
        if is_new {
            sync_directory(&self.blobs);
        }
        self.log.sync_data()
    }
}

impl SledStore {
    /// Opens a copy of the directory at `path`, which is deleted when it is closed: sled writes to
    /// every database that it opens.
    pub(super) fn open_copy(
        path: &Path,
        cache_bytes: usize,
        health: Arc<Health>,
    ) -> Result<Self, StoreError> {
        let log = path.join(LOG);
        let locked = files::open(&log).map_err(|error| StoreError::file(&log, error))?;
        if locked.try_lock().is_err() {
            return Err(StoreError::Open(OpenError::locked(path)));
        }
        let failed = |error| StoreError::file(path, error);
        let copy = files::temporary_directory().map_err(failed)?;
        copy_files(path, copy.path()).map_err(failed)?;
        if files::is_directory(&path.join(BLOBS)) {
            let blobs = copy.path().join(BLOBS);
            files::create_directories(&blobs)
                .and_then(|()| copy_files(&path.join(BLOBS), &blobs))
                .map_err(failed)?;
        }
        let at = copy.path().to_owned();
        Self::open(&at, cache_bytes, health, Some(copy))
    }

    /// Opens or creates the directory at `path`, with a cache of `cache_bytes`; a copy is deleted
    /// when it is closed.
    pub(super) fn open(
        path: &Path,
        cache_bytes: usize,
        health: Arc<Health>,
        copy: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        // The interval between two attempts.
        const LOCK_PAUSE: Duration = Duration::from_millis(5);
        // The longest wait for the lock: sled's own threads may hold it for a moment after the last
        // handle of a database was dropped.
        const LOCK_PATIENCE: Duration = Duration::from_millis(500);
        // sled makes its files readable for everybody, so its directory must not be. If that cannot
        // be created, sled says so.
        let _ = files::create_directories(path);
        let cache = u64::try_from(cache_bytes).unwrap_or(u64::MAX);
        // Every group is flushed when it is committed; a background flush would only add work.
        let config = sled::Config::new().path(path).cache_capacity(cache).flush_every_ms(None);
        let begin = platform::now();
        let opened = loop {
            remove_unfinished_snapshots(path);
            match config.open() {
                Err(error) if is_locked(&error) && platform::since(begin) < LOCK_PATIENCE => {
                    platform::sleep(LOCK_PAUSE);
                }
                opened => break opened,
            }
        };
        let database = opened.map_err(|error| match error {
            error if is_locked(&error) => StoreError::Open(OpenError::locked(path)),
            error => StoreError::Open(OpenError::NotADatabase {
                path: path.to_owned(),
                backend: StorageBackend::Sled,
                source: Arc::new(error),
            }),
        })?;
        let log = files::open_to_change(path.join(LOG)).map_err(StoreError::backend)?;
        sync_directory(path);
        path.parent().map(sync_directory);
        let (blobs, synced) = (path.join(BLOBS), Mutex::default());
        let commit = database.get(sled_key(&TALLIES, COMMIT)).map_err(StoreError::backend)?;
        let commit = commit.as_deref().and_then(|stored| verify(TALLIES.seed, COMMIT, stored));
        let commit = commit.and_then(|commit| commit.try_into().ok()).map_or(0, u64::from_be_bytes);
        let durable = Durable::open(path, commit).map_err(|error| StoreError::file(path, error))?;
        Ok(Self(database, Arc::new(Files { log, blobs, synced, health, durable, _copy: copy })))
    }

    /// Returns whether writes that were on the disk are lost.
    pub(super) fn has_lost(&self) -> bool {
        self.1.durable.is_lost()
    }

    /// Accepts the loss, and counts from the present commit.
    pub(super) fn accept_loss(&self) -> Result<(), StoreError> {
        self.1.durable.accept().map_err(StoreError::backend)
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.1.health
    }

    pub(super) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.0.get(sled_key(table, key)).map_err(StoreError::backend)
    }

    pub(super) fn range(&self, table: &TableName, span: Span<'_>) -> SledRange {
        let start = sled_key(table, span.start);
        let end = match span.end {
            Some(end) => Some(sled_key(table, end)),
            None => after_prefix(&sled_key(table, &[])),
        };
        let prefix = start.len() - span.start.len();
        let range = match end {
            Some(end) => self.0.range(start..end),
            None => self.0.range(start..),
        };
        SledRange { range, prefix }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty() && self.0.tree_names().len() == 1
    }

    pub(super) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut Changes<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut changes = Changes { store: self, entries: BTreeMap::new() };
        let value = write(&mut changes)?;
        let commit = self.1.durable.next();
        let number = commit.to_be_bytes();
        let stored = [&number[..], &checksum(TALLIES.seed.unwrap_or_default(), COMMIT, &number)].concat();
        changes.entries.insert(sled_key(&TALLIES, COMMIT), Some(stored));
        self.0.apply_batch(changes.into_batch()).map_err(StoreError::backend)?;
        if sync == Sync::Now {
            self.0.flush().map_err(StoreError::backend)?;
            self.1.sync().map_err(StoreError::backend)?;
            self.1.durable.note(commit).map_err(StoreError::backend)?;
        }
        Ok(value)
    }
}

impl SledStore {
    /// Returns the names of all tables, as they are stored.
    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        let damaged = || StoreError::Damage(DamageError::Table { table: "sled".to_owned() });
        let (mut tables, mut start) = (Vec::new(), Some(Vec::new()));
        while let Some(from) = start
            && let Some(entry) = self.0.range(from..).next()
        {
            let (key, _) = entry.map_err(StoreError::backend)?;
            let name = split_sled_key(&key).ok_or_else(damaged)?;
            let table = TableName::of_stored(name);
            start = after_prefix(&sled_key(&table, &[]));
            tables.push(name.to_owned());
        }
        Ok(tables)
    }

    /// Returns the size of the files in the directory.
    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.0.size_on_disk().map_err(StoreError::backend)
    }
}

/// The entries of a span.
pub(crate) struct SledRange {
    range: sled::Iter,
    /// The length of the table's name in each key.
    prefix: usize,
}

impl SledRange {
    /// Returns the next entry, from the front or from the back.
    pub(super) fn step(&mut self, ascending: bool) -> Result<Option<SledEntry>, StoreError> {
        let entry = if ascending { self.range.next() } else { self.range.next_back() };
        let entry = entry.transpose().map_err(StoreError::backend)?;
        Ok(entry.map(|(key, value)| SledEntry { key, value, prefix: self.prefix }))
    }
}

/// A key and its value.
pub(crate) struct SledEntry {
    key: sled::IVec,
    value: sled::IVec,
    prefix: usize,
}

impl SledEntry {
    pub(super) fn key(&self) -> &[u8] {
        self.key.get(self.prefix..).unwrap_or_default()
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }
}

/// Copies the files of a directory, without its subdirectories.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in files::entries(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // The copies are written, also where the files may only be read.
            files::copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Removes a snapshot that sled was writing during a crash.
///
/// sled 0.34 takes such a file for the newest snapshot, and refuses the whole database because it
/// is damaged. Without the file, sled continues from the earlier snapshot and the log.
fn remove_unfinished_snapshots(path: &Path) {
    let Ok(database) = files::open(path.join(LOG)) else { return };
    // Another program that has the database open may be writing one. The lock ends with the file.
    if database.try_lock().is_err() {
        return;
    }
    for entry in files::entries(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.")
            && name.ends_with(".generating")
            && let Err(error) = files::remove(&entry.path())
        {
            tracing::warn!(%error, %name, "cannot remove an unfinished snapshot of sled");
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}

/// The changes of a write so far.
pub(super) struct Changes<'store> {
    store: &'store SledStore,
    /// The new value of each changed entry, `None` where it was removed.
    entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Changes<'_> {
    /// Sets or removes an entry; returns the value that was there.
    fn set(
        &mut self,
        table: &TableName,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sled_key = sled_key(table, key);
        let value = value.map(<[u8]>::to_vec);
        if let Some(changed) = self.entries.insert(sled_key.clone(), value) {
            return Ok(changed);
        }
        let stored = self.store.0.get(sled_key).map_err(StoreError::backend)?;
        Ok(stored.map(|stored| stored.to_vec()))
    }

    fn into_batch(self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in self.entries {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}

impl StoredTables for Changes<'_> {
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.entries.get(&sled_key(table, key)) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.store.get(table, key)?.map(|value| value.to_vec())),
        }
    }

    fn insert(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Checksum>, StoreError> {
        Ok(self.set(table, key, Some(stored))?.map(|previous| checksum_in(&previous)))
    }

    fn replace(
        &mut self,
        table: &TableName,
        key: &[u8],
        stored: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.set(table, key, Some(stored))
    }

    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Checksum>, StoreError> {
        Ok(self.set(table, key, None)?.map(|previous| checksum_in(&previous)))
    }

    fn keys(&mut self, table: &TableName, span: Span<'_>, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let name = sled_key(table, &[]).len();
        let start = sled_key(table, span.start);
        let end = match span.end {
            Some(end) => Some(sled_key(table, end)),
            None => after_prefix(&sled_key(table, &[])),
        };
        let inside = |key: &&Vec<u8>| end.as_ref().is_none_or(|end| *key < end);
        let changed = self.entries.range(start..).take_while(|(key, _)| inside(key));
        let mut keys: BTreeMap<Vec<u8>, bool> = changed
            .map(|(key, value)| (key.get(name..).unwrap_or_default().to_vec(), value.is_some()))
            .collect();
        // Each change hides at most one stored entry.
        let wanted = limit.saturating_add(keys.len());
        let (mut stored, mut read) = (self.store.range(table, span), 0);
        while read < wanted
            && let Some(entry) = stored.step(true)?
        {
            keys.entry(entry.key().to_vec()).or_insert(true);
            read += 1;
        }
        Ok(keys.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).take(limit).collect())
    }

    fn len(&mut self, _: &TableName) -> Result<Option<u64>, StoreError> {
        // sled counts a tree by walking it.
        Ok(None)
    }
}

/// Returns whether an error of sled says that its files are damaged.
pub(crate) fn is_sled_corruption(error: &dyn Any) -> bool {
    matches!(error.downcast_ref::<sled::Error>(), Some(sled::Error::Corruption { .. }))
}

fn sled_key(table: &TableName, key: &[u8]) -> Vec<u8> {
    let (prefix, name) = (table.prefix(), table.as_str());
    let len = prefix.len() + name.len();
    let mut bytes = Vec::with_capacity(2 + len + key.len());
    bytes.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(prefix.as_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(key);
    bytes
}

/// Returns the name of the table that a sled key belongs to.
fn split_sled_key(key: &[u8]) -> Option<&str> {
    let (len, rest) = key.split_first_chunk()?;
    str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}
