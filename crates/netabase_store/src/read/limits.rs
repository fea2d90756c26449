//! Bounds of reads.

/// How many bytes may be written while a long read keeps its snapshot.
pub(crate) const MAX_PINNED_BYTES: usize = 32 * 1024 * 1024;

/// How often [`Tree::update`] tries again when others change the same record.
pub(crate) const MAX_UPDATE_ATTEMPTS: usize = 64;
