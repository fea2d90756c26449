//! Options with which a store is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::limits::DEFAULT_MAX_VALUE_BYTES;
use crate::platform::HAS_THREADS;
use crate::version::clock::Clock;
use crate::version::envelope::{Author, ENVELOPE_OVERHEAD_BYTES, LEN_BYTES};
use crate::version::limits::MAX_CONTRIBUTIONS;
use crate::version::record_key::POSITION_BYTES;

/// When a write returns.
///
/// With each durability a write is atomic, is seen by every later read of this process, and cannot
/// damage what was on the disk before. At most 64 MiB of writes wait for the disk.
///
/// Followers of changes receive a change once it is on the disk, with any durability, so no crash
/// takes back a change that a follower has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// When it is on the disk: it survives a crash of the program or the system, and a loss of
    /// power. Concurrent writers share one flush of the disk. The default.
    #[default]
    Immediate,
    /// When it is in memory; it is flushed to the disk within 200 ms. A crash may lose the last
    /// writes and never an earlier one.
    Interval,
    /// When it is in memory; it is flushed to the disk by
    /// [`NetabaseStore::flush`](crate::NetabaseStore::flush) and when the store is closed. A crash
    /// may lose every write since the last flush.
    OnFlush,
}

/// The embedded database that holds the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StorageBackend {
    /// redb: one file, copy-on-write B-trees, snapshots. The default.
    #[default]
    Redb,
    /// sled 0.34: a directory. Reads are not snapshots, and opening reads the whole log.
    Sled,
    /// Nothing on disk: everything is lost when the store is dropped.
    Memory,
}

impl fmt::Display for StorageBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redb => "redb",
            Self::Sled => "sled",
            Self::Memory => "memory",
        })
    }
}

/// The thread on which a store's writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriterMode {
    /// A thread of its own. The default where there are threads.
    Thread,
    /// The callers' threads: the store starts no thread and works where there is only one. The
    /// default in a browser.
    ///
    /// A call that waits for a write carries it out on its own thread, with everything that was
    /// queued before, and runs the callbacks. Queued writes without a waiting caller are carried
    /// out by the next such call, or by
    /// [`NetabaseStore::drive_writer`](crate::NetabaseStore::drive_writer), which also does the
    /// writer's periodic work. With a [`Clock`] that a test sets, such a store is deterministic.
    ///
    /// sled has threads of its own.
    Driven,
}

impl Default for WriterMode {
    fn default() -> Self {
        if HAS_THREADS { Self::Thread } else { Self::Driven }
    }
}

/// A field that keeps a struct of settings extensible: `..Default::default()` has to complete the
/// struct, so a new setting breaks no program.
///
/// The attribute `#[non_exhaustive]` would forbid that syntax outside of this crate.
///
/// ```compile_fail,E0063
/// # use netabase_store::admin::CheckOptions;
/// let options = CheckOptions { signatures: true, repair: true };
/// ```
///
/// ```
/// # use netabase_store::admin::CheckOptions;
/// let options = CheckOptions { signatures: true, repair: true, ..CheckOptions::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NonExhaustive(());

/// Options with which a [`NetabaseStore`](crate::NetabaseStore) is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database that holds the records. Default: redb.
    pub backend: StorageBackend,
    /// The size of the database's cache, in bytes. Default: 64 MiB.
    pub cache_bytes: usize,
    /// The largest encoded value that is stored and sent, in bytes. All nodes of a network should
    /// agree on it, and a node allows up to 16 MiB. Default: 1 MiB.
    pub max_value_bytes: usize,
    /// When a write returns. Default: when it is on the disk.
    pub durability: Durability,
    /// The size of the history that followers of changes read, in bytes; see
    /// [`NetabaseStore::changes`](crate::NetabaseStore::changes). Default: 8 MiB; with 0 changes
    /// cannot be followed.
    pub history_bytes: u64,
    /// The key that signs this store's writes. Default: `None`; unsigned records are never shared.
    /// Open a database either always with an identity or always without: an unsigned write replaces
    /// a signed record, which a peer's older version then replaces in turn.
    pub identity: Option<SigningKey>,
    /// The root key of a closed network: only authors on the member list that this key has signed
    /// may write, and until the list has arrived only the root may. Default: `None`, an open
    /// network. A root needs a schema, whose name is part of the list's record key. See
    /// `docs/trust.md`, also on records that the store already has.
    pub root: Option<Author>,
    /// The TTL of a signed record from its write or [renewal][renewed], where its model declares
    /// none. Default: `None`, which means for ever. Without an identity it has no effect.
    ///
    /// [renewed]: crate::replica::Replica::renew_due
    pub record_lifetime: Option<Duration>,
    /// The time for which a tombstone is kept after its write. A tombstone of this store's own that
    /// is to be published is kept for that time after the [first peer has received
    /// it](crate::replica::Replica::note_heard). A store that was not [online] for longer may still
    /// have records whose deletion all others have forgotten, see
    /// [`Replica::discard_unvouched`](crate::replica::Replica::discard_unvouched). All nodes of a
    /// network should agree on it. Default: 30 days.
    ///
    /// [online]: crate::replica::Replica::note_online
    pub tombstone_floor: Duration,
    /// The quota for signed records and tombstones of all other authors together, in bytes, keys
    /// included. Beyond it a peer's record is refused as [`Full`](crate::Refusal::Full) unless it
    /// is closer to [`position`](Self::position) than others, which are evicted for it. Default: 4
    /// GiB.
    pub max_replica_bytes: u64,
    /// The quota for records and tombstones of each other author, in bytes. Beyond it the author's
    /// records are refused as [`OverQuota`](crate::Refusal::OverQuota). Default: 256 MiB.
    pub max_author_bytes: u64,
    /// Authors whose records are refused, in addition to those that the database has in its list.
    /// Opening adds them to that list, see
    /// [`Replica::refuse_author`](crate::replica::Replica::refuse_author); this store's own author
    /// and the root are passed over. Default: none.
    pub refused_authors: Vec<Author>,
    /// This node's place in Kademlia's keyspace: the SHA-256 of its peer id. Default: `None`, with
    /// which nothing is evicted.
    pub position: Option<[u8; POSITION_BYTES]>,
    /// The quota for [blobs](crate::blob::BlobStore) from peers, complete or partial, in bytes.
    /// Blobs that this program adds do not count. Default: 16 GiB.
    pub max_blob_bytes: u64,
    /// The time for which a blob without references is kept, from when it was added or lost its
    /// last reference. Default: 1 hour.
    pub blob_grace: Duration,
    /// The directory of the blobs. Default: `None`, which means the database's path with `.blobs`
    /// after it; a database without a path has a temporary directory, which is deleted with the
    /// store.
    pub blob_directory: Option<PathBuf>,
    /// Opens a database with records of a model under another [write policy](crate::WritePolicy)
    /// than the schema's, and sets those records aside: no tree shows them until the database is
    /// opened with a schema of that policy. Default: `false`; opening fails with
    /// [`OpenError::OtherPolicy`](crate::OpenError::OtherPolicy) and changes nothing.
    pub set_aside_other_policy: bool,
    /// Opens a database with records of an earlier version of a model from which the schema has no
    /// conversion, and leaves those unread. Default: `false`; opening fails with
    /// [`OpenError::NoConversion`](crate::OpenError::NoConversion) and changes nothing.
    pub keep_unread_versions: bool,
    /// The longest wait for another program or store that has the database open, before opening
    /// fails with [`OpenError::Locked`](crate::OpenError::Locked). Default: zero.
    pub lock_timeout: Duration,
    /// The clock. Default: the system's clocks.
    pub clock: Clock,
    /// The thread on which the writer runs. Default: one of its own, and in a browser the callers'.
    pub writer: WriterMode,
    /// Leaves the files of the database unchanged, as for a check. The database must exist, and no
    /// other program may have it open. Changes that opening has to make, such as to an earlier
    /// format, go to temporary files that are deleted with the store; on sled the whole directory
    /// is copied there. Writes fail with [`StoreError::ReadOnly`](crate::StoreError::ReadOnly).
    /// Default: `false`.
    pub read_only: bool,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for StoreOptions {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        const GIB: u64 = 1024 * MIB;
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            backend: StorageBackend::default(),
            cache_bytes: 64 * 1024 * 1024,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            durability: Durability::default(),
            history_bytes: 8 * MIB,
            identity: None,
            root: None,
            record_lifetime: None,
            tombstone_floor: 30 * 24 * HOUR,
            max_replica_bytes: 4 * GIB,
            max_author_bytes: 256 * MIB,
            refused_authors: Vec::new(),
            position: None,
            max_blob_bytes: 16 * GIB,
            blob_grace: HOUR,
            blob_directory: None,
            set_aside_other_policy: false,
            keep_unread_versions: false,
            lock_timeout: Duration::ZERO,
            clock: Clock::default(),
            writer: WriterMode::default(),
            read_only: false,
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

impl StoreOptions {
    /// Returns the defaults for a store that keeps nothing on disk.
    ///
    /// ```
    /// use netabase_store::{NetabaseStore, StorageBackend, StoreOptions};
    ///
    /// let options = StoreOptions { max_value_bytes: 4096, ..StoreOptions::in_memory() };
    /// assert_eq!(options.backend, StorageBackend::Memory);
    /// let store = NetabaseStore::open_with("", None, options)?;
    /// # drop(store);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn in_memory() -> Self {
        Self { backend: StorageBackend::Memory, ..Self::default() }
    }

    /// The largest envelope that is stored.
    pub(crate) fn max_envelope_bytes(&self) -> usize {
        self.max_value_bytes.saturating_add(ENVELOPE_OVERHEAD_BYTES)
    }

    /// The largest signed contribution to a merged record, so that all of them together, a
    /// tombstone included, are no larger than the largest envelope.
    pub(crate) fn max_contribution_bytes(&self) -> usize {
        (self.max_value_bytes.saturating_sub(ENVELOPE_OVERHEAD_BYTES) / MAX_CONTRIBUTIONS)
            .saturating_sub(LEN_BYTES)
    }
}
