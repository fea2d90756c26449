//! Limits of administration.

use crate::write::limits::{GROUP_BYTES, GROUP_OPS};

/// The most problems that a report lists; it counts all of them.
pub(crate) const MAX_PROBLEMS: usize = 1000;

/// The most records or lines that a report lists; it counts all of them.
pub(crate) const MAX_REPORTED: usize = 100;

/// The most authors that
/// [`Statistics::largest_authors`](crate::admin::Statistics::largest_authors) lists.
pub(crate) const MAX_LISTED_AUTHORS: usize = 16;

/// The longest `.api` file that is read, in bytes.
pub(crate) const MAX_API_FILE_BYTES: u64 = 4096;

/// The most entries that one step of a migration or a copy reads.
pub(crate) const STEP_ENTRIES: usize = 16_384;

/// The most bytes that one such step reads, unless one entry is larger.
pub(crate) const STEP_BYTES: usize = 8 * 1024 * 1024;

/// The most records that one batch of a migration rewrites, and by default of an import.
pub(crate) const BATCH_RECORDS: usize = 1000;

/// The most bytes of such a batch, unless one record is larger.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The most records that an export reads before it writes them. On sled a line shows the moment at
/// which it was read, so there are few.
#[cfg(feature = "import-export")]
pub(crate) const PIECE_RECORDS: usize = 100;

/// The most bytes that an export reads before it writes them, unless one record is larger.
#[cfg(feature = "import-export")]
pub(crate) const PIECE_BYTES: usize = 1024 * 1024;

// A batch is committed as one group of the writer.
const _: () = assert!(BATCH_RECORDS <= GROUP_OPS && BATCH_BYTES <= GROUP_BYTES);
// Each record that is rewritten was read in the same step.
const _: () = assert!(BATCH_RECORDS <= STEP_ENTRIES && BATCH_BYTES <= STEP_BYTES);
// Reading one piece does not end the export's snapshot.
#[cfg(feature = "import-export")]
const _: () = assert!(PIECE_BYTES < crate::read::limits::MAX_PINNED_BYTES);
