//! The sled engine: every table in one sled tree, so that one batch is atomic across tables.
//!
//! A sled key is the table's name with its length in front, then the key. sled counts a tree by
//! walking it, so the number of entries of each table is kept beside the entries, in the same batch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Entries, Span, Sync, TableName, WriteTables, sync_directory};
use crate::error::StoreError;
use crate::key_range::after_prefix;
use crate::options::StorageBackend;

/// The name of the table of entry counts.
const COUNTS: TableName = TableName::fixed("counts", usize::MAX);
/// The name of sled's log in its directory.
const LOG: &str = "db";
/// The name of the directory of blobs in it.
const BLOBS: &str = "blobs";
/// How long opening waits for the lock: sled's own threads may hold it for a moment after the last
/// handle of a database was dropped.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The sled database under a store. Cloning is cheap.
///
/// On Linux sled has its pages written, and does not ask the disk to keep them: the log is synced here,
/// and so are the blobs, the files of their own that sled gives to large pages.
#[derive(Debug, Clone)]
pub struct SledStore(sled::Db, Arc<Files>);

/// The files that sled writes and does not sync.
#[derive(Debug)]
struct Files {
    log: File,
    blobs: PathBuf,
    /// The blobs that were synced and are still there.
    synced: Mutex<HashSet<OsString>>,
}

impl Files {
    fn sync(&self) -> io::Result<()> {
        let mut synced = self.synced.lock();
        let mut there = HashSet::new();
        let blobs = match self.blobs.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            blobs => Some(blobs?),
        };
        let mut is_new = false;
        for blob in blobs.into_iter().flatten() {
            let blob = blob?;
            if !synced.contains(&blob.file_name()) {
                match File::open(blob.path()).and_then(|file| file.sync_data()) {
                    // It was replaced meanwhile.
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
    /// Opens or creates the directory at `path`, with a cache of `cache_bytes`.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let cache = u64::try_from(cache_bytes).unwrap_or(u64::MAX);
        // Every group is flushed when it is committed; a background flush would only add work.
        let config = sled::Config::new().path(path).cache_capacity(cache).flush_every_ms(None);
        let begin = Instant::now();
        let opened = loop {
            remove_unfinished_snapshots(path);
            match config.open() {
                Err(error) if is_locked(&error) && begin.elapsed() < LOCK_PATIENCE => {
                    thread::sleep(LOCK_PAUSE);
                }
                opened => break opened,
            }
        };
        let database = opened.map_err(|error| match error {
            error if is_locked(&error) => StoreError::Locked { path: path.to_owned() },
            error => StoreError::NotADatabase {
                path: path.to_owned(),
                backend: StorageBackend::Sled,
                source: Arc::new(error),
            },
        })?;
        let log =
            OpenOptions::new().read(true).write(true).open(path.join(LOG)).map_err(StoreError::backend)?;
        sync_directory(path);
        path.parent().map(sync_directory);
        Ok(Self(database, Arc::new(Files { log, blobs: path.join(BLOBS), synced: Mutex::default() })))
    }

    pub(super) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.0.get(sled_key(table, key)).map_err(StoreError::backend)
    }

    pub(super) fn range(&self, table: &TableName, span: Span<'_>) -> Entries {
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
        Entries::Sled(SledRange { range, prefix })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty() && self.0.tree_names().len() == 1
    }

    pub(super) fn len(&self, table: &TableName) -> Result<u64, StoreError> {
        let count = self.get(&COUNTS, table.as_str().as_bytes())?;
        Ok(count.map_or(0, |count| decode_count(&count)))
    }

    pub(super) fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut changes = Changes { store: self, entries: BTreeMap::new(), counts: HashMap::new() };
        let value = write(&mut changes)?;
        self.0.apply_batch(changes.into_batch()?).map_err(StoreError::backend)?;
        if sync == Sync::Now {
            self.0.flush().map_err(StoreError::backend)?;
            self.1.sync().map_err(StoreError::backend)?;
        }
        Ok(value)
    }
}

impl SledStore {
    /// Returns the names of all tables but that of the counts.
    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        let damaged = || StoreError::DamagedTable { table: "sled".to_owned() };
        let (mut tables, mut start) = (Vec::new(), Some(Vec::new()));
        while let Some(from) = start
            && let Some(entry) = self.0.range(from..).next()
        {
            let (key, _) = entry.map_err(StoreError::backend)?;
            let name = split_sled_key(&key).ok_or_else(damaged)?;
            let table = TableName::once(name.to_owned());
            start = after_prefix(&sled_key(&table, &[]));
            if table.as_str() != COUNTS.as_str() {
                tables.push(table.as_str().to_owned());
            }
        }
        Ok(tables)
    }

    /// Counts the entries of every table again. Nobody may be writing.
    pub(super) fn recount(&self) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for counted in self.range(&COUNTS, Span::ALL) {
            batch.remove(sled_key(&COUNTS, counted?.key()));
        }
        for name in self.tables()? {
            let table = TableName::once(name);
            let mut count = 0_u64;
            for entry in self.range(&table, Span::ALL) {
                entry?;
                count += 1;
            }
            batch.insert(sled_key(&COUNTS, table.as_str().as_bytes()), count.to_be_bytes().as_slice());
        }
        self.0.apply_batch(batch).map_err(StoreError::backend)?;
        self.0.flush().map(drop).map_err(StoreError::backend)
    }

    /// Returns the size of the files in the directory.
    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.0.size_on_disk().map_err(StoreError::backend)
    }
}

/// The entries of a span.
pub(crate) struct SledRange {
    range: sled::Iter,
    /// How much of each key is the table's name.
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

/// Removes what a crash has left of a snapshot that sled was writing.
///
/// sled 0.34 takes such a file for the newest snapshot, and refuses the whole database because it is
/// damaged. Without it, sled goes on from the snapshot before, and the log.
fn remove_unfinished_snapshots(path: &Path) {
    let Ok(database) = File::open(path.join(LOG)) else { return };
    // Whoever has the database open may be writing one. The lock ends with the file.
    if database.try_lock().is_err() {
        return;
    }
    for entry in path.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.")
            && name.ends_with(".generating")
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, %name, "cannot remove an unfinished snapshot of sled");
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}

/// What a write has changed so far.
struct Changes<'store> {
    store: &'store SledStore,
    /// The new value of each changed entry, `None` where it was removed.
    entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// By how many entries each table grew or shrank.
    counts: HashMap<String, i64>,
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
        let becomes = i64::from(value.is_some());
        let previous = if let Some(changed) = self.entries.insert(sled_key.clone(), value) {
            changed
        } else {
            let stored = self.store.0.get(sled_key).map_err(StoreError::backend)?;
            stored.map(|stored| stored.to_vec())
        };
        let change = becomes - i64::from(previous.is_some());
        if change != 0 {
            match self.counts.get_mut(table.as_str()) {
                Some(count) => *count += change,
                None => drop(self.counts.insert(table.as_str().to_owned(), change)),
            }
        }
        Ok(previous)
    }

    fn into_batch(self) -> Result<sled::Batch, StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in self.entries {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        for (table, change) in self.counts {
            let table = TableName::once(table);
            let count = self.store.len(&table)?.saturating_add_signed(change);
            batch.insert(sled_key(&COUNTS, table.as_str().as_bytes()), count.to_be_bytes().as_slice());
        }
        Ok(batch)
    }
}

impl WriteTables for Changes<'_> {
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.entries.get(&sled_key(table, key)) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.store.get(table, key)?.map(|value| value.to_vec())),
        }
    }

    fn insert(&mut self, table: &TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, Some(value)).map(drop)
    }

    fn replace(
        &mut self,
        table: &TableName,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.set(table, key, Some(value))
    }

    fn remove(&mut self, table: &TableName, key: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, None).map(drop)
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
        let mut keys: BTreeMap<&[u8], bool> =
            changed.map(|(key, value)| (key.get(name..).unwrap_or_default(), value.is_some())).collect();
        // Each change hides at most one stored entry.
        let stored = self.store.range(table, span).take(limit.saturating_add(keys.len()));
        let stored = stored.collect::<Result<Vec<_>, StoreError>>()?;
        for entry in &stored {
            keys.entry(entry.key()).or_insert(true);
        }
        let keys = keys.into_iter().filter(|(_, there)| *there);
        Ok(keys.take(limit).map(|(key, _)| key.to_vec()).collect())
    }

    fn len(&mut self, table: &TableName) -> Result<u64, StoreError> {
        let change = self.counts.get(table.as_str()).copied().unwrap_or_default();
        Ok(self.store.len(table)?.saturating_add_signed(change))
    }
}

fn sled_key(table: &TableName, key: &[u8]) -> Vec<u8> {
    let table = table.as_str();
    let len = u16::try_from(table.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(2 + table.len() + key.len());
    bytes.extend(len.to_be_bytes());
    bytes.extend(table.as_bytes());
    bytes.extend(key);
    bytes
}

/// Returns the name of the table that a sled key belongs to.
fn split_sled_key(key: &[u8]) -> Option<&str> {
    let (len, rest) = key.split_first_chunk()?;
    str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}

fn decode_count(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}
