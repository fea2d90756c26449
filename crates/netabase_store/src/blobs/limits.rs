//! Bounds of large values.

/// The largest blob: 256 GiB.
pub(crate) const MAX_BLOB_BYTES: u64 = 256 * 1024 * 1024 * 1024;

/// The most groups of 16 KiB in an encoded slice: 512 KiB.
pub(crate) const MAX_SLICE_GROUPS: u64 = 32;

/// How many bytes are received until what is here is written down; a crash loses at most so much.
pub(crate) const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;

/// The most blobs whose files are open at a time; who comes later waits.
pub(crate) const MAX_OPEN_BLOBS: usize = 64;

/// How often the writer looks for blobs that no record names.
pub(crate) const COLLECT_INTERVAL_MILLIS: u64 = 60_000;

/// The most blobs that it looks at at a time.
pub(crate) const COLLECT_STEP: usize = 4096;

/// The most blobs whose files it deletes at a time.
pub(crate) const MAX_DELETED: usize = 256;

/// The most blobs that [`BlobBackup::missing`] lists.
pub(crate) const MAX_LISTED_BLOBS: usize = 1000;
