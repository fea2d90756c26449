//! How a store is opened.

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

/// What it means that a write has returned.
///
/// Whatever is chosen, a write is all or nothing, is seen by every later read of this process, and
/// nothing that was on the disk is lost or torn. At most 64 MiB of writes wait for the disk.
///
/// Those who follow changes hear of them when they are on the disk, whatever is chosen, so that no
/// crash takes back what they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// It is on the disk: it survives a crash of the program, of the system and of the power.
    /// Writers at the same time share one flush of the disk. The default.
    #[default]
    Immediate,
    /// It will be on the disk within 200 ms, so a crash may lose the last
    /// writes; those before them are there.
    Interval,
    /// It will be on the disk when [`NetabaseStore::flush`](crate::NetabaseStore::flush) returns or
    /// the store is closed; a crash before may lose everything since.
    OnFlush,
}

/// Which embedded database holds the records.
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

/// Who lets the writer of a store write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriterMode {
    /// A thread of its own. The default where there are threads.
    Thread,
    /// The callers, so that the store starts no thread and works where there is but one, as in a
    /// browser, where it is the default.
    ///
    /// A call that waits for a write writes it on its own thread, with everything that was queued
    /// before, and runs the callbacks. What nobody waits for is written with the next such call, or
    /// by [`NetabaseStore::drive_writer`](crate::NetabaseStore::drive_writer), which also does what
    /// the writer does by itself. With a [`Clock`] that moves only when it is told, such a
    /// store does nothing at a time of its own.
    ///
    /// sled has threads of its own.
    Driven,
}

impl Default for WriterMode {
    fn default() -> Self {
        if HAS_THREADS { Self::Thread } else { Self::Driven }
    }
}

/// A field by which a struct of settings stays open: `..Default::default()` has to complete it, so
/// a new setting breaks nobody.
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

/// How to open a [`NetabaseStore`](crate::NetabaseStore).
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Which database holds the records. Default: redb.
    pub backend: StorageBackend,
    /// How much memory the database may use as cache, in bytes. Default: 64 MiB.
    pub cache_bytes: usize,
    /// The largest encoded value that is stored and sent, in bytes. All nodes of a network should
    /// agree on it, and a node allows up to 16 MiB. Default: 1 MiB.
    pub max_value_bytes: usize,
    /// When a write returns. Default: when it is on the disk.
    pub durability: Durability,
    /// How many bytes of changes are kept for those who follow them, see
    /// [`NetabaseStore::changes`](crate::NetabaseStore::changes). Default: 8 MiB; with 0 nobody can
    /// follow.
    pub history_bytes: u64,
    /// Signs what this store writes. Default: none, and then its records are not for sharing. Open
    /// a database either always with an identity or always without: an unsigned write replaces a
    /// signed record, which a peer's older version then replaces in turn.
    pub identity: Option<SigningKey>,
    /// The root key of a closed network: only authors on the list that it has signed may write, and
    /// until that list is here only the root may. Default: none, which means an open network. It
    /// needs a schema, whose name is part of the list's record key. See `docs/trust.md`, also on
    /// what becomes of records that are already here.
    pub root: Option<Author>,
    /// How long a signed record counts after it was written or [renewed], where its model says
    /// nothing. Default: none, which means for ever. Without an identity it has no effect.
    ///
    /// [renewed]: crate::replica::Replica::renew_due
    pub record_lifetime: Option<Duration>,
    /// How long a tombstone is kept after it was written; one of our own that peers are to hear of,
    /// after the [first of them has](crate::replica::Replica::note_heard). A store that has not
    /// been [online] for longer than that may still have what others have deleted and forgotten,
    /// see [`Replica::discard_unvouched`](crate::replica::Replica::discard_unvouched). All nodes of
    /// a network should agree on it. Default: 30 days.
    ///
    /// [online]: crate::replica::Replica::note_online
    pub tombstone_floor: Duration,
    /// How many bytes the signed records and tombstones of other authors may take, keys included.
    /// Beyond it a peer's record is refused as [`Full`](crate::Refusal::Full) unless it is closer
    /// to [`position`](Self::position) than others, which are evicted for it. Default: 4 GiB.
    pub max_replica_bytes: u64,
    /// How many bytes those of each other author may take; further ones of the author are refused
    /// as [`OverQuota`](crate::Refusal::OverQuota). Default: 256 MiB.
    pub max_author_bytes: u64,
    /// Where this node is in Kademlia's keyspace: the SHA-256 of its peer id. Default: none, and
    /// then nothing is ever evicted.
    pub position: Option<[u8; POSITION_BYTES]>,
    /// How many bytes [blobs](crate::blob::BlobStore) may take that came from peers, whole or in
    /// part; those that this program adds are not counted. Default: 16 GiB.
    pub max_blob_bytes: u64,
    /// How long a blob that no record names is kept, after it was added, and after the last record
    /// has stopped to name it. Default: 1 hour.
    pub blob_grace: Duration,
    /// The directory of the blobs. Default: none, which means beside the database, with `.blobs`
    /// after its name; and a temporary one, which is deleted with the store, where the database has
    /// no path.
    pub blob_directory: Option<PathBuf>,
    /// Whether a database opens that has records of a model under another [write
    /// policy](crate::WritePolicy) than the schema's. They are kept aside then: no tree has them,
    /// and they return with a schema of that policy. Default: no, opening fails with
    /// [`OpenError::OtherPolicy`](crate::OpenError::OtherPolicy) and changes nothing.
    pub set_aside_other_policy: bool,
    /// How long opening waits for another program, or another store of this one, that has the
    /// database open, before it fails with [`OpenError::Locked`](crate::OpenError::Locked).
    /// Default: not at all.
    pub lock_timeout: Duration,
    /// Tells the time. Default: the system's clocks.
    pub clock: Clock,
    /// Who lets the writer write. Default: a thread of its own, and in a browser the callers.
    pub writer: WriterMode,
    /// Whether the files of the database are left as they are, as for a check. The database must be
    /// there, and nobody may have it open. Whatever opening has to change, such as an earlier
    /// format, goes to temporary files that are deleted with the store; on sled the whole directory
    /// is copied there. Writes fail with [`StoreError::ReadOnly`](crate::StoreError::ReadOnly).
    /// Default: no.
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
            position: None,
            max_blob_bytes: 16 * GIB,
            blob_grace: HOUR,
            blob_directory: None,
            set_aside_other_policy: false,
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
