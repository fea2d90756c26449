//! The sled engine: every table in one sled tree, so that one batch is atomic across tables.
//!
//! A sled key is the table's name with its length in front, then the key. sled counts a tree by
//! walking it, so the number of entries of each table is kept beside the entries, in the same batch.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{EntryIter, KeyRange, WriteTables, prefix_range, sync_directory};
use crate::error::StoreError;
use crate::options::StorageBackend;

/// The name of the table of entry counts.
const COUNTS: &str = "counts";
/// The name of sled's log in its directory.
const LOG: &str = "db";
/// How long opening waits for the lock: sled's own threads may hold it for a moment after the last
/// handle of a database was dropped.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The sled database under a store. Cloning is cheap.
///
/// The file is sled's log, again: on Linux sled has its pages written, and does not ask the disk to
/// keep them.
#[derive(Debug, Clone)]
pub struct SledStore(sled::Db, Arc<File>);

impl SledStore {
    /// Opens or creates the directory at `path`, with a cache of `cache_bytes`.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
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
        Ok(Self(database, Arc::new(log)))
    }

    pub(super) fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.0.get(sled_key(table, key)).map_err(StoreError::backend)?;
        Ok(value.map(|value| value.to_vec()))
    }

    pub(super) fn range(&self, table: &str, (start, end): KeyRange) -> EntryIter {
        let (table_start, table_end) = prefix_range(&sled_key(table, &[]));
        let start = match start {
            Bound::Unbounded => table_start,
            bound => bound.map(|key| sled_key(table, &key)),
        };
        let end = match end {
            Bound::Unbounded => table_end,
            bound => bound.map(|key| sled_key(table, &key)),
        };
        let prefix = sled_key(table, &[]).len();
        Box::new(self.0.range((start, end)).map(move |entry| {
            let (key, value) = entry.map_err(StoreError::backend)?;
            Ok((key.get(prefix..).unwrap_or_default().to_vec(), value.to_vec()))
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty() && self.0.tree_names().len() == 1
    }

    pub(super) fn len(&self, table: &str) -> Result<u64, StoreError> {
        Ok(decode_count(self.get(COUNTS, table.as_bytes())?.as_deref()))
    }

    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn WriteTables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut changes = Changes { store: self, entries: BTreeMap::new(), counts: HashMap::new() };
        let value = write(&mut changes)?;
        self.0.apply_batch(changes.into_batch()?).map_err(StoreError::backend)?;
        self.0.flush().map_err(StoreError::backend)?;
        self.1.sync_data().map_err(StoreError::backend)?;
        Ok(value)
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
    fn set(&mut self, table: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        let existed = self.get(table, key)?.is_some();
        let change = i64::from(value.is_some()) - i64::from(existed);
        if change != 0 {
            *self.counts.entry(table.to_owned()).or_default() += change;
        }
        self.entries.insert(sled_key(table, key), value.map(<[u8]>::to_vec));
        Ok(())
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
            let count = self.store.len(&table)?.saturating_add_signed(change);
            batch.insert(sled_key(COUNTS, table.as_bytes()), count.to_be_bytes().as_slice());
        }
        Ok(batch)
    }
}

impl WriteTables for Changes<'_> {
    fn get(&mut self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.entries.get(&sled_key(table, key)) {
            Some(changed) => Ok(changed.clone()),
            None => self.store.get(table, key),
        }
    }

    fn insert(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, Some(value))
    }

    fn remove(&mut self, table: &str, key: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, None)
    }
}

fn sled_key(table: &str, key: &[u8]) -> Vec<u8> {
    let len = u16::try_from(table.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(2 + table.len() + key.len());
    bytes.extend(len.to_be_bytes());
    bytes.extend(table.as_bytes());
    bytes.extend(key);
    bytes
}

fn decode_count(bytes: Option<&[u8]>) -> u64 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}
