//! Limits of reads.

/// The most bytes that are written while a long read keeps its snapshot.
#[cfg(feature = "import-export")]
pub(crate) const MAX_PINNED_BYTES: usize = 32 * 1024 * 1024;

/// The most attempts of [`Tree::update`](crate::Tree::update) while others change the same record.
pub(crate) const MAX_UPDATE_ATTEMPTS: usize = 64;

// One group of writes does not end a snapshot.
#[cfg(feature = "import-export")]
const _: () = assert!(crate::write::limits::GROUP_BYTES < MAX_PINNED_BYTES);
