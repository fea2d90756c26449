//! Bounds of administration.

/// The most problems that a report lists; all are counted.
pub(crate) const MAX_PROBLEMS: usize = 1000;

/// The most records or lines that a report lists one by one; it counts all of them.
pub(crate) const MAX_REPORTED: usize = 100;

/// The most authors that [`Statistics::largest_authors`] lists.
pub(crate) const MAX_LISTED_AUTHORS: usize = 16;

/// The largest file that is read.
pub(crate) const MAX_API_FILE_BYTES: u64 = 4096;

/// The most entries that one step changes.
pub(crate) const STEP_ENTRIES: usize = 16_384;

/// The most bytes that one step reads, unless one entry is larger.
pub(crate) const STEP_BYTES: usize = 8 * 1024 * 1024;

/// The most records that one step rewrites.
pub(crate) const BATCH_RECORDS: usize = 1000;

/// The most bytes that one step rewrites, unless one record is larger.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How much is read before it is written: little, since on sled a line is of the moment at which it
/// is read.
pub(crate) const PIECE_RECORDS: usize = 100;

pub(crate) const PIECE_BYTES: usize = 1024 * 1024;
