//! Limits of large values.

use super::tree::BLOB_GROUP_BYTES;
use crate::replica::limits::SWEEP_INTERVAL;

/// The largest blob: 256 GiB.
pub(crate) const MAX_BLOB_BYTES: u64 = 256 * 1024 * 1024 * 1024;

/// The most groups of 16 KiB in an encoded slice: 512 KiB.
pub(crate) const MAX_SLICE_GROUPS: u64 = 32;

/// The bytes that are received from one sync of a partial blob to the next. A crash loses at most
/// so many.
pub(crate) const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;

/// The most blobs with open files; further callers wait.
pub(crate) const MAX_OPEN_BLOBS: usize = 64;

/// The interval at which the writer looks for blobs that no record names, in milliseconds.
pub(crate) const COLLECT_INTERVAL_MILLIS: u64 = 60_000;

/// The most blobs that the writer looks at in one step.
pub(crate) const COLLECT_STEP: usize = 4096;

/// The most blobs whose files one step deletes.
pub(crate) const MAX_DELETED: usize = 256;

/// The most blobs that [`BlobBackup::missing`](super::BlobBackup::missing) lists.
pub(crate) const MAX_LISTED_BLOBS: usize = 1000;

// Only the last group of a blob is shorter than the others.
const _: () = assert!(MAX_BLOB_BYTES.is_multiple_of(BLOB_GROUP_BYTES));
// Each sync saves several slices.
const _: () = assert!(2 * MAX_SLICE_GROUPS * BLOB_GROUP_BYTES <= CHECKPOINT_BYTES);
// The writer wakes up at least as often as it looks for blobs.
const _: () = assert!(SWEEP_INTERVAL.as_millis() <= COLLECT_INTERVAL_MILLIS as u128);
// Each blob that is deleted was looked at.
const _: () = assert!(MAX_DELETED <= COLLECT_STEP);
