//! Counters of a running store, which are read without the database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::histogram::{Histogram, HistogramReading};
use crate::replica::usage::Usage;
use crate::store::NetabaseStore;

/// The bounds of the durations of commits, in nanoseconds: from 100 us to 10 s.
const COMMIT_NANOS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];
/// The bounds of the number of writes that share a commit.
const COMMIT_WRITES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// The counters that [`NetabaseStore::counters`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounters {
    /// The size of all signed records and tombstones, as of the last commit.
    pub usage: Usage,
    /// The number of groups of writes that were committed since the store was opened.
    pub commits: u64,
    /// The duration of each commit, in nanoseconds.
    pub commit_nanos: HistogramReading,
    /// The number of writes in each commit; a commit without writes flushes earlier ones.
    pub commit_writes: HistogramReading,
    /// The number of writes in the queue.
    pub waiting_writes: usize,
    /// The bytes of those writes.
    pub waiting_bytes: usize,
    /// The size of the database's file, or of the files in its directory; `None` in memory, or if
    /// it cannot be read.
    pub disk_bytes: Option<u64>,
}

/// The writer's counters.
#[derive(Debug)]
pub(crate) struct WriterCounters {
    nanos: Histogram,
    writes: Histogram,
}

impl Default for WriterCounters {
    fn default() -> Self {
        Self { nanos: Histogram::new(COMMIT_NANOS), writes: Histogram::new(COMMIT_WRITES) }
    }
}

impl WriterCounters {
    /// Counts a group that was committed.
    pub(crate) fn committed(&self, writes: usize, took: Duration) {
        self.nanos.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.writes.observe(u64::try_from(writes).unwrap_or(u64::MAX));
    }
}

/// A [`Usage`] that one thread writes and any may read.
#[derive(Debug, Default)]
pub(crate) struct SharedUsage([AtomicU64; 4]);

impl SharedUsage {
    pub(crate) fn set(&self, usage: Usage) {
        let Usage { records, record_bytes, tombstones, tombstone_bytes } = usage;
        for (shared, number) in self.0.iter().zip([records, record_bytes, tombstones, tombstone_bytes]) {
            shared.store(number, Ordering::Relaxed);
        }
    }

    /// The numbers may be those of two commits, while one is being made.
    fn read(&self) -> Usage {
        let [records, record_bytes, tombstones, tombstone_bytes] = [0, 1, 2, 3]
            .map(|at| self.0.get(at).map_or(0, |number: &AtomicU64| number.load(Ordering::Relaxed)));
        Usage { records, record_bytes, tombstones, tombstone_bytes }
    }
}

impl NetabaseStore {
    /// Returns the counters of the running store. The call reads only the sizes of the database's
    /// files, so it may be made often; [`statistics`](Self::statistics) counts the records.
    ///
    /// ```
    /// # use netabase_store::{NetabaseStore, StorageBackend, StoreOptions};
    /// # fn main() -> Result<(), netabase_store::StoreError> {
    /// let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
    /// let store = NetabaseStore::open_with("", None, options)?;
    /// assert_eq!((store.counters().usage.records, store.counters().waiting_writes), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn counters(&self) -> StoreCounters {
        let core = self.core();
        let (waiting_writes, waiting_bytes) = core.queue().waiting();
        StoreCounters {
            usage: core.quotas().total().read(),
            commits: core.commits(),
            commit_nanos: core.writer_counters().nanos.read(),
            commit_writes: core.writer_counters().writes.read(),
            waiting_writes,
            waiting_bytes,
            disk_bytes: core.engine().disk_bytes().ok().flatten(),
        }
    }
}
