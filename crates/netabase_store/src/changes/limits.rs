//! Bounds of the history of changes.

/// The size from which a row takes no more changes: it fits eight pages of redb, and sled
/// still keeps it in its log.
pub(crate) const ROW_BYTES: usize = 30 * 1024;

/// By how many bytes the history may be too long while followers could not have read it yet.
pub(crate) const UNREAD_BYTES: u64 = 64 * 1024 * 1024;

/// The most histories that a database knows, the newest ones: positions of earlier ones are gone.
pub(crate) const MAX_HISTORIES: usize = 256;

/// How many changes of other records a poll passes over before it lets others run.
pub(crate) const POLL_CHANGES: usize = 256;
